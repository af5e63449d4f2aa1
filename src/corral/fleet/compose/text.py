"""A compose file's text as values: YAML as compose reads it, with variables filled in as compose fills them in. Pure.

Compose reads YAML 1.2: `no` and `22:22` are texts. A key that is given twice is an error, here as there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from corral.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_TEXT = 1 << 20
_MOST_VALUES = 20_000
_DEEPEST = 40
_MOST_FILLED = 4 << 20
"""More of any is no file that somebody wrote: an anchor that holds itself, or one that doubles with each line."""


class _Loader(yaml.SafeLoader):
    """YAML's core schema, with merge keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 # the library's own


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), ["" if sign == "\0" else sign for sign in _first]
    )


def parse(text: str, place: str) -> dict[str, Any]:
    """What a YAML text holds. `place` is its file's name, for messages.

    Raises:
        ConfigError: it is not YAML, gives a key twice, or does not hold names with values; says where.
    """
    if len(text) > _MOST_TEXT:
        raise ConfigError(f"{place} is too long for a compose file.", "Check the path.")
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        at = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{place}:{at} has a character that YAML does not take.", "Is it a text file?") from error
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        _weighed(node, place, {}, 0)
        content = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}:{mark.line + 1}" if mark else place
        line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
        if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in str(getattr(error, "problem", "")):
            raise ConfigError(f"{where} is indented with a tab.", "YAML takes spaces there: replace it.") from error
        raise ConfigError(f"{where} is not YAML: {getattr(error, 'problem', None) or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is not YAML that can be read: {error}.") from error
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        raise ConfigError(f"{place} does not hold names with values.", "Begin with a line such as `services:`.")
    return content


@dataclass(frozen=True, slots=True)
class _Weight:
    """What a part of a file comes to, with everything that its anchors stand for: values, letters, levels."""

    values: int
    letters: int
    levels: int


def _weighed(node: Any, place: str, known: dict[int, _Weight], depth: int) -> _Weight:
    """Refuse a key that a mapping has twice, an anchor that holds itself, and what its anchors make too much.

    Nothing has been made of the file yet: an anchor costs as much as it is written long, however much it stands for.
    """
    if id(node) in known:
        return known[id(node)]
    if depth > _DEEPEST:
        raise ConfigError(f"{place}:{node.start_mark.line + 1} is nested too deeply.", "Check its anchors.")
    below: list[_Weight] = []
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and key.tag != "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"{place}:{line} gives {name[:60]!r} again, after line {lines[name]}.", "Keep one of them."
                )
            lines[name] = line
            below += [_weighed(part, place, known, depth + 1) for part in (key, value)]
    elif isinstance(node, yaml.SequenceNode):
        below = [_weighed(item, place, known, depth + 1) for item in node.value]
    letters = len(node.value) if isinstance(node, yaml.ScalarNode) else sum(one.letters for one in below)
    levels = 1 + max((one.levels for one in below), default=0)
    found = known[id(node)] = _Weight(1 + sum(one.values for one in below), letters, levels)
    if found.values > 2 * _MOST_VALUES or found.letters > _MOST_FILLED or found.levels > _DEEPEST:
        raise ConfigError(f"{place}:{node.start_mark.line + 1} holds too much.", "Check its anchors.")
    return found


class Room:
    """How much more text may be filled in, in letters: a file may name a long variable often."""

    def __init__(self, letters: int = _MOST_FILLED) -> None:
        self._left = letters

    def take(self, text: str) -> str:
        """The text.

        Raises:
            ConfigError: there is no room for it.
        """
        self._left -= len(text)
        if self._left < 0:
            raise ConfigError("The compose file holds too much.", "Check its anchors and its variables.")
        return text


class Filling:
    """Fills variables in, as compose does: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?why}`, `${NAME:+other}`.

    Args:
        find: a variable's value; None where it is not set.
        keep: whether a variable, by its name and whether it is set, is kept as a reference: `unmarked` gives it back.
        room: for what is filled in; None: as much as a whole file may have.
    """

    def __init__(
        self,
        find: Callable[[str], str | None],
        keep: Callable[[str, bool], bool] | None = None,
        room: Room | None = None,
    ) -> None:
        self._find = find
        self._keep = keep or (lambda _name, _is_set: False)
        self._room = room or Room()
        self._values = 0
        self._within = 0
        self.missing: set[str] = set()
        self.kept: set[str] = set()

    def filled(self, value: Any, depth: int = 0) -> Any:
        """The value with every text in it filled in; keys are left as they are. What is not set is empty, and noted.

        Raises:
            ConfigError: a variable that is said to be needed is not set, or a text cannot be read.
        """
        self._values += 1
        if depth > _DEEPEST or self._values > _MOST_VALUES:
            raise ConfigError("The compose file holds too much.", "Check its anchors.")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {str(key): self.filled(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item, depth + 1) for item in value]
        return value

    def text(self, text: str) -> str:
        """One text, filled in."""
        found, at = [], 0
        while at < len(text):
            sign = text.find("$", at)
            if sign < 0 or sign == len(text) - 1:
                break
            found.append(self._room.take(text[at:sign]))
            if text[sign + 1] == "$":
                found.append("$")
                at = sign + 2
            elif text[sign + 1] == "{":
                end = _closing(text, sign + 2)
                found.append(self._expression(text[sign + 2 : end]))
                at = end + 1
            elif name := _NAME.match(text, sign + 1):
                found.append(self._plain(name[0]))
                at = name.end()
            else:
                found.append("$")
                at = sign + 1
        return "".join(found) + self._room.take(text[at:])

    def _plain(self, name: str) -> str:
        value = self._find(name)
        if self._keep(name, value is not None):
            return self._reference(name)
        if value is None:
            self.missing.add(name)
            return ""
        return self._room.take(value)

    def _reference(self, name: str) -> str:
        self.kept.add(name)
        return f"\0{name}\1"

    def _expression(self, inside: str) -> str:
        self._within += 1
        if self._within > _DEEPEST:
            raise ConfigError("Variables are nested too deeply in a text.", "Write $$ for a dollar sign.")
        try:
            return self._found(inside)
        finally:
            self._within -= 1

    def _found(self, inside: str) -> str:
        name = _NAME.match(inside)
        if name is None:
            raise ConfigError(f"${{{inside[:60]}}} names no variable.", "Write $$ for a dollar sign.")
        sign, rest = _operator(inside[name.end() :])
        value = self._find(name[0])
        given = bool(value) if sign.startswith(":") else value is not None
        match sign[-1:]:
            case "":
                return self._plain(name[0])
            case "-":
                return self._plain(name[0]) if given else self.text(rest)
            case "+":
                return self.text(rest) if given else ""
            case _:
                if not given and not self._keep(name[0], False):
                    why = self.text(rest) or "it is needed"
                    raise ConfigError(
                        f"The variable {name[0]} is not set: {why}.", f"Set {name[0]}, or put it in .env."
                    )
                return self._plain(name[0]) if given else self._reference(name[0])


def unmarked(text: str) -> str:
    """A filled text as corral.yaml has it: dollar signs doubled, and what was kept a reference."""
    return re.sub(r"\x00(\w+)\x01", r"${\1}", text.replace("$", "$$"))


def _operator(text: str) -> tuple[str, str]:
    for sign in (":-", ":?", ":+", "-", "?", "+"):
        if text.startswith(sign):
            return sign, text[len(sign) :]
    if text:
        raise ConfigError(f"A variable is followed by {text[:20]!r}.", "Write ${NAME} or ${NAME:-default}.")
    return "", ""


def _closing(text: str, at: int) -> int:
    """Where the brace closes that was opened before `at`."""
    depth = 1
    for place in range(at, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    raise ConfigError(f"{text[:60]!r} opens a brace and does not close it.", "Write $$ for a dollar sign.")


def variables(text: str, find: Callable[[str], str | None] = lambda _name: None) -> dict[str, str]:
    """What a `.env` file sets, in its order; quotes are taken off, and `#` after a space begins a comment.

    `find` gives variables that are set elsewhere, for values that name them; single quotes keep a value as it is.
    """
    found: dict[str, str] = {}
    filling = Filling(lambda name: found.get(name, find(name)))
    for raw in text.splitlines():
        line = raw.strip().removeprefix("export ").strip()
        name, sign, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not sign or line.startswith("#") or not _NAME.fullmatch(name):
            continue
        quote = value[:1]
        if quote in ("'", '"') and quote in value[1:]:
            inner = value[1 : value.index(quote, 1)]
            found[name] = inner if quote == "'" else filling.text(inner.replace("\\n", "\n"))
        else:
            found[name] = filling.text(re.split(r"\s+#", value)[0].strip())
    return found


def listed(value: Any) -> list[Any]:
    """A list, or one thing as a list of it."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def pairs(value: Any) -> dict[str, str | None]:
    """Names with values, from a mapping or a list of `NAME=value`; None where there is no value."""
    if isinstance(value, dict):
        return {str(name): None if item is None else scalar(item) for name, item in value.items()}
    found: dict[str, str | None] = {}
    for item in listed(value):
        name, sign, text = str(item).partition("=")
        found[name] = text if sign else None
    return found


def scalar(value: Any) -> str:
    """A value as compose writes it into an environment."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping; else an empty one."""
    return value if isinstance(value, dict) else {}
