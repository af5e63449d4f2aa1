"""A pipeline's YAML read, key by key: what each may hold, and a message with its line where it holds something else.

What can be said of one key alone is said here; `checking.py` says what only the whole shows. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml

from corral.config.values import duration
from corral.domain.money import nano
from corral.errors import nearest
from corral.workspace.code.languages import KINDS, LABELS
from corral.workspace.pipelines.given import is_needed
from corral.workspace.pipelines.located import Located, text_of, value_of
from corral.workspace.pipelines.plan import Definition, Input, InputType, Output, OutputKind, StepPlan, Words
from corral.workspace.pipelines.shapes import fits

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PIPELINE_KEYS: Final = ("name", "description", "inputs", "budget", "steps")
INPUT_KEYS: Final = ("type", "required", "default", "description", "enum")
STEP_KEYS: Final = (
    *("model", "system", "prompt", "messages", "parameters", "output", "when", "for_each", "width", "needs"),
    *("assemble", "retries", "fallback", "repair", "timeout", "budget", "description"),
)
MESSAGE_KEYS: Final = ("role", "content")
OUTPUT_KEYS: Final = ("text", "json", "code")
ROLES: Final = ("system", "user", "assistant")
EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
PARAMETERS: Final[dict[str, tuple[type, float, float]]] = {
    "max_tokens": (int, 1, 10**7),
    "temperature": (float, 0, 5),
    "top_p": (float, 0, 1),
    "top_k": (int, 0, 10**6),
    "min_p": (float, 0, 1),
    "seed": (int, 0, 2**63 - 1),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "repeat_penalty": (float, 0, 10),
    "stop": (list, 1, 16),
    "reasoning_effort": (str, 0, 0),
}
"""What may be said of sampling, as in the body of a chat completion: its type, the least and the most."""
MOST_STEPS: Final = 200
MOST_INPUTS: Final = 100
MOST_WIDTH: Final = 64
MOST_RETRIES: Final = 10
MOST_REPAIRS: Final = 5
LONGEST_TIMEOUT: Final = 7 * 86400.0
_PIPELINE: Final = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,79}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Reader:
    """Reads one source; what is wrong goes to `located`. What cannot be read is left at its default."""

    def __init__(self, located: Located) -> None:
        self._located = located

    def pipeline(self, node: yaml.Node | None) -> Definition:
        """The whole, with its steps as they are written."""
        if node is None:
            self._located.add("", "The pipeline is empty.", "Begin with a line such as `name: page`.")
            return Definition("")
        given = self._mapping(node, "", PIPELINE_KEYS, "the pipeline")
        name = self._text(given, "name", "") or ""
        if isinstance(node, yaml.MappingNode):
            for key in ("name", "steps"):
                if key not in given:
                    self._located.at(node, key, f"The pipeline has no `{key}`.", f"Add a line `{key}:`.")
        if name and not _PIPELINE.fullmatch(name):
            hint = "Use at most 80 of: small letters, digits, _ - and . ; the first is a letter or digit."
            self._located.add("name", f"{name[:80]!r} cannot name a pipeline.", hint)
        return Definition(
            name,
            self._text(given, "description", "") or "",
            self._named(given, "inputs", self._input, MOST_INPUTS),
            tuple(self._named(given, "steps", self._step, MOST_STEPS).values()),
            self._budget(given, ""),
        )

    def _named(
        self, given: dict[str, yaml.Node], key: str, read: Callable[[str, yaml.Node], T], most: int
    ) -> dict[str, T]:
        """What stands by names below a key."""
        node = given.get(key)
        if node is None:
            return {}
        entries = self._mapping(node, key, None, f"`{key}`")
        if len(entries) > most:
            self._located.add(key, f"There are {len(entries)} {key}; at most {most} are taken.", "Make two pipelines.")
            return {}
        if not entries and key == "steps" and (isinstance(node, yaml.MappingNode) or node.tag.endswith(":null")):
            self._located.add(key, "The pipeline has no steps.", "Add one.", at_key=True)
        for name in entries:
            if not _NAME.fullmatch(name):
                hint = "Use at most 40 small letters, digits and _ ; the first is a letter."
                self._located.add(f"{key}.{name}", f"{name[:60]!r} cannot be a name in `{key}`.", hint, at_key=True)
        return {name: read(name, entry) for name, entry in entries.items()}

    def _input(self, name: str, node: yaml.Node) -> Input:
        place = f"inputs.{name}"
        if isinstance(node, yaml.ScalarNode) and node.value in set(InputType):
            return Input(name, InputType(node.value))
        given = self._mapping(node, place, INPUT_KEYS, f"the input {name!r}")
        word = self._one_of(given, "type", place, tuple(InputType)) or InputType.STRING
        kind = InputType(word)
        enum = self._value(given, "enum", place)
        if enum is not None and (not isinstance(enum, list) or not enum):
            self._located.add(f"{place}.enum", "`enum` is a list of the values that are taken.", "Write [a, b].")
            enum = None
        for value in enum or ():
            if not fits(value, kind):
                self._located.add(f"{place}.enum", f"{value!r} is no {kind.value}.", "Change the type, or the value.")
        default = self._value(given, "default", place)
        if default is not None and not fits(default, kind):
            self._located.add(
                f"{place}.default", f"The default is no {kind.value}.", "Change the type, or the default."
            )
        elif default is not None and enum and default not in enum:
            self._located.add(f"{place}.default", "The default is none of `enum`.", "Add it there.")
        required = self._flag(given, "required", place)
        if required and default is not None:
            hint = "Leave one of them out."
            self._located.add(f"{place}.required", "An input that has a default need not be given.", hint)
        return Input(
            name,
            kind,
            is_needed(required, default),
            default,
            self._text(given, "description", place) or "",
            tuple(enum or ()),
        )

    def _step(self, name: str, node: yaml.Node) -> StepPlan:
        place = f"steps.{name}"
        given = self._mapping(node, place, STEP_KEYS, f"the step {name!r}")
        return StepPlan(
            name,
            self._located.line(place),
            self._text(given, "model", place),
            self._text(given, "system", place),
            self._text(given, "prompt", place),
            self._messages(given.get("messages"), f"{place}.messages"),
            self._parameters(given.get("parameters"), f"{place}.parameters"),
            self._output(given.get("output"), f"{place}.output"),
            self._when(given, place),
            self._for_each(given, place),
            self._whole(given, "width", place, 1, MOST_WIDTH),
            self._listed(given, "needs", place),
            self._listed(given, "assemble", place) if "assemble" in given else None,
            self._whole(given, "retries", place, 0, MOST_RETRIES),
            self._listed(given, "fallback", place),
            self._whole(given, "repair", place, 0, MOST_REPAIRS),
            self._timeout(given, place),
            self._budget(given, place),
            self._text(given, "description", place) or "",
        )

    def _mapping(self, node: yaml.Node, place: str, known: tuple[str, ...] | None, what: str) -> dict[str, yaml.Node]:
        """The entries of a mapping by their keys; those that are unknown or given twice are said and left out."""
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
            return {}
        if not isinstance(node, yaml.MappingNode):
            hint = "Write `name: value`."
            if isinstance(node, yaml.SequenceNode) and place in {"steps", "inputs"}:
                hint = "It is no list: write `plan:` with what belongs to it below, in place of `- name: plan`."
            self._located.at(node, place, f"{_capital(what)} holds names with values.", hint)
            return {}
        found: dict[str, yaml.Node] = {}
        seen: set[str] = set()
        for key, value in node.value:
            try:
                name = text_of(key)
            except ValueError as error:
                self._located.at(key, place, f"{_capital(str(error))}.", "Use a plain word.")
                continue
            here = f"{place}.{name}" if place else name
            if here in seen:
                line = self._located.line(here)
                self._located.at(key, here, f"{name[:60]!r} is given again, after line {line}.", "Keep one of them.")
                continue
            seen.add(here)
            self._located.note(here, key, value)
            if known is not None and name not in known:
                self._located.at(key, here, f"Unknown key {name[:60]!r} in {what}.", _meant(name, known))
                for close in nearest(name, known, 1):
                    self._located.mean(f"{place}.{close}" if place else close)
            else:
                found[name] = value
        return found

    def _text(self, given: dict[str, yaml.Node], key: str, place: str) -> str | None:
        node = given.get(key)
        return None if node is None else self._text_of(node, f"{place}.{key}" if place else key)

    def _text_of(self, node: yaml.Node, place: str) -> str | None:
        try:
            value = value_of(node)
        except ValueError as error:
            braces = isinstance(node, yaml.MappingNode) and any(
                isinstance(key, yaml.MappingNode) for key, _ in node.value
            )
            hint = "Put quotes around what begins with {{." if braces else "Write a text."
            self._located.add(place, f"{_capital(str(error))}.", hint)
            return None
        if isinstance(value, str) or value is None:
            return value
        what = {bool: "true or false", int: "a number", float: "a number", list: "a list"}.get(type(value), "a mapping")
        self._located.add(place, f"Here is {what}, where a text must be.", "Put quotes around it.")
        return None

    def _value(self, given: dict[str, yaml.Node], key: str, place: str) -> Any:
        node = given.get(key)
        return None if node is None else self._value_of(node, f"{place}.{key}" if place else key)

    def _value_of(self, node: yaml.Node, place: str) -> Any:
        try:
            return value_of(node)
        except ValueError as error:
            self._located.add(place, f"{_capital(str(error))}.", "Change it.")
            return None

    def _one_of(self, given: dict[str, yaml.Node], key: str, place: str, known: tuple[str, ...]) -> str | None:
        word = self._text(given, key, place)
        if word is not None and word not in known:
            self._located.add(f"{place}.{key}", f"{word[:60]!r} is no {key}.", _meant(word, known))
            return None
        return word

    def _flag(self, given: dict[str, yaml.Node], key: str, place: str) -> bool | None:
        value = self._value(given, key, place)
        if value is None or isinstance(value, bool):
            return value
        self._located.add(f"{place}.{key}", f"`{key}` is true or false.", "Write one of them, without quotes.")
        return None

    def _whole(self, given: dict[str, yaml.Node], key: str, place: str, least: int, most: int) -> int | None:
        value = self._value(given, key, place)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self._located.add(f"{place}.{key}", f"`{key}` is a whole number from {least} to {most}.")
            return None
        return value

    def _budget(self, given: dict[str, yaml.Node], place: str) -> int | None:
        value = self._value(given, "budget", place)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 10**6:
            where = f"{place}.budget" if place else "budget"
            self._located.add(where, "`budget` is an amount of US dollars.", "Write a number such as 0.05.")
            return None
        return nano(value)

    def _timeout(self, given: dict[str, yaml.Node], place: str) -> float | None:
        value = self._value(given, "timeout", place)
        if value is None:
            return None
        try:
            seconds = duration(value)
        except (ValueError, TypeError):
            seconds = 0.0
        if not 0 < seconds <= LONGEST_TIMEOUT:
            self._located.add(
                f"{place}.timeout", "`timeout` is a time of at most 7 days.", "Write one such as 90s or 5m."
            )
            return None
        return seconds

    def _listed(self, given: dict[str, yaml.Node], key: str, place: str) -> tuple[str, ...]:
        """A list of names, or one name."""
        node = given.get(key)
        if node is None or node.tag.endswith(":null"):
            return ()
        where = f"{place}.{key}"
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: list[str] = []
        for at, item in enumerate(items):
            here = f"{where}[{at}]"
            self._located.note(here, item, item)
            name = self._text_of(item, here)
            if name and name in found:
                self._located.add(here, f"{name[:60]!r} is named twice.", "Keep one.")
            elif name:
                found.append(name)
        return tuple(found)

    def _messages(self, node: yaml.Node | None, place: str) -> tuple[Words, ...]:
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._located.add(place, "`messages` is a list of messages.", "Write `- role: user` and `  content: …`.")
            return ()
        found: list[Words] = []
        for at, item in enumerate(node.value):
            here = f"{place}[{at}]"
            self._located.note(here, item, item)
            given = self._mapping(item, here, MESSAGE_KEYS, "a message")
            role = self._one_of(given, "role", here, ROLES)
            content = self._text(given, "content", here)
            for key in MESSAGE_KEYS:
                if key not in given and isinstance(item, yaml.MappingNode):
                    self._located.at(item, here, f"The message has no `{key}`.", f"Add `{key}:`.")
            found.append(Words(role or "user", content or ""))
        return tuple(found)

    def _parameters(self, node: yaml.Node | None, place: str) -> dict[str, Any]:
        if node is None:
            return {}
        given = self._mapping(node, place, tuple(PARAMETERS), "`parameters`")
        found: dict[str, Any] = {}
        for name in given:
            value = self._value(given, name, place)
            if value is None:
                continue
            wrong = _unfit(name, value)
            if wrong:
                self._located.add(f"{place}.{name}", wrong)
            else:
                found[name] = value
        return found

    def _when(self, given: dict[str, yaml.Node], place: str) -> str | bool | None:
        value = self._value(given, "when", place)
        if value is None or isinstance(value, bool) or (isinstance(value, str) and value.strip()):
            return value
        self._located.add(
            f"{place}.when", "`when` is an expression.", "Write one such as \"{{ inputs.topic != '' }}\"."
        )
        return None

    def _for_each(self, given: dict[str, yaml.Node], place: str) -> str | tuple[Any, ...] | None:
        value = self._value(given, "for_each", place)
        if isinstance(value, list):
            return tuple(value)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        hint = 'Write one such as "{{ steps.plan.value.parts }}", or [a, b].'
        self._located.add(f"{place}.for_each", "`for_each` is a list, or an expression that comes to one.", hint)
        return None

    def _output(self, node: yaml.Node | None, place: str) -> Output:
        if node is None:
            return Output()
        if isinstance(node, yaml.ScalarNode):
            word = self._text_of(node, place)
            if word in {"text", "json"}:
                return Output(OutputKind(word))
            hint = "Write text, json, {json: a schema} or {code: a language}."
            self._located.add(place, f"{str(word)[:60]!r} is no contract.", hint)
            return Output()
        given = self._mapping(node, place, OUTPUT_KEYS, "`output`")
        if len(given) != 1:
            self._located.add(place, "`output` holds one of text, json and code.", "Keep one.", at_key=True)
            return Output()
        if "json" in given:
            schema = self._value(given, "json", place)
            if schema is not None and not isinstance(schema, dict | bool):
                self._located.add(f"{place}.json", "`json` holds a JSON Schema.", "Write one such as {type: object}.")
                return Output(OutputKind.JSON)
            return Output(OutputKind.JSON, schema)
        return self._code(given["code"], f"{place}.code") if "code" in given else Output()

    def _code(self, node: yaml.Node, place: str) -> Output:
        """`tsx`, `[tsx, css]`, or `{tsx: Counter.tsx, css: null}`."""
        value = self._value_of(node, place)
        pairs = list(value.items()) if isinstance(value, dict) else [
            (one, None) for one in (value if isinstance(value, list) else [value])
        ]  # fmt: skip
        for language, name in pairs:
            if language not in LABELS:
                hint = _meant(str(language), tuple(KINDS))
                self._located.within(
                    place, f"{str(language)[:60]!r} is no language.", hint, words=(str(language)[:60],)
                )
            if not isinstance(name, str | None):
                self._located.add(f"{place}.{language}", "The name of a file is a text.", "Put quotes around it.")
        languages = tuple(LABELS.get(str(language), str(language)) for language, _ in pairs)
        if not pairs or len(set(languages)) < len(languages):
            self._located.add(place, "`code` names languages, each once.", "Write one such as tsx.")
        return Output(
            OutputKind.CODE, None, languages, tuple(name if isinstance(name, str) else None for _, name in pairs)
        )


def _unfit(name: str, value: Any) -> str:
    """Why a parameter cannot have a value; empty when it can."""
    kind, least, most = PARAMETERS[name]
    if name == "reasoning_effort":
        return "" if value in EFFORTS else f"`{name}` is one of {', '.join(EFFORTS)}."
    if kind is list:
        texts = [value] if isinstance(value, str) else value
        sound = isinstance(texts, list) and least <= len(texts) <= most and all(isinstance(one, str) for one in texts)
        return "" if sound else f"`{name}` is a text, or a list of at most {most:g}."
    whole = kind is int
    allowed = int if whole else int | float
    if not isinstance(value, allowed) or isinstance(value, bool) or not least <= value <= most:
        return f"`{name}` is a {'whole ' if whole else ''}number from {least:,} to {most:,}."
    return ""


def _meant(word: str, known: tuple[str, ...]) -> str:
    close = nearest(word, map(str, known), 1)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
