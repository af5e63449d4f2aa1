"""A pipeline's YAML as a tree that remembers its lines: nothing is made of it before it has been weighed. Pure.

YAML 1.2's core schema: `no` and `on` are texts. An anchor may be used again, as long as all of them together stand for
no more than a person would have written.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from corral.workspace.pipelines.diagnoses import of_yaml
from corral.workspace.pipelines.plan import Issue

LONGEST_SOURCE: Final = 1 << 16
"""Characters."""
_MOST_VALUES: Final = 10_000
_MOST_LETTERS: Final = 1 << 20
_DEEPEST: Final = 40
_LARGEST: Final = 1 << 63
_UNUSABLE: Final = re.compile("[\x00\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """YAML's core schema, without merge keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 # the library's own

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """A bracket opens: the library looks a long way ahead for each that is open."""
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(kind)

    def add_indent(self, column: int) -> bool:
        """A block begins."""
        self._check_depth(len(self.indents))
        return bool(super().add_indent(column))

    def _check_depth(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise yaml.scanner.ScannerError(problem="it is nested too deeply", problem_mark=self.get_mark())


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), ["" if sign == "\0" else sign for sign in _first]
    )


class Broken(Exception):
    """The source cannot be read at all; `issue` says why."""

    def __init__(self, issue: Issue) -> None:
        super().__init__(str(issue))
        self.issue = issue


class Located:
    """The issues of one source, and where in it each place of its tree stands."""

    def __init__(self, source: str) -> None:
        self.issues: list[Issue] = []
        self._lines = source.splitlines()
        self._nodes: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        self._meant: set[str] = set()

    def mean(self, place: str) -> None:
        """Remember that `place` was meant by a key that is misspelt, so that nobody says that it is missing."""
        self._meant.add(place)

    def told(self, place: str) -> bool:
        """Whether it has been said already why there is nothing at `place`, although somebody wrote it."""
        return place in self._meant or any(issue.place == place for issue in self.issues)

    def note(self, place: str, key: yaml.Node, value: yaml.Node) -> None:
        """Remember that `place` is there."""
        self._nodes.setdefault(place, (key, value))

    def line(self, place: str) -> int:
        """The line of a place's key."""
        return int(self._nodes[place][0].start_mark.line) + 1 if place in self._nodes else 1

    def add(self, place: str, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Note an issue of a place: where its value begins, or its key."""
        pair = self._nodes.get(place)
        while pair is None and "." in place:
            place = place.rpartition(".")[0]
            pair = self._nodes.get(place)
        if pair is None:
            self.issues.append(Issue(1, 1, place, message, hint))
        else:
            self.at(pair[0] if at_key else pair[1], place, message, hint)

    def at(self, node: yaml.Node, place: str, message: str, hint: str = "") -> None:
        """Note an issue where a node begins."""
        self.issues.append(Issue(node.start_mark.line + 1, node.start_mark.column + 1, place, message, hint))

    def within(self, place: str, message: str, hint: str = "", *, line: int = 1, words: tuple[str, ...] = ()) -> None:
        """Note an issue of the template at `place`: at the last of `words`, of which as many as can be found.

        `line` is that of the template. A folded text has lost its lines: then it is where the words are first.
        """
        pair = self._nodes.get(place)
        if pair is None:
            self.add(place, message, hint)
            return
        node = pair[1]
        first, last = node.start_mark.line, max(node.start_mark.line, node.end_mark.line)
        guess = first + line if getattr(node, "style", None) == "|" else first + line - 1
        span = [*range(min(guess, last), last + 1), *range(first, min(guess, last))]
        for pattern in _patterns(words):
            for number in span:
                text = self._lines[number] if number < len(self._lines) else ""
                found = pattern.search(text, node.start_mark.column if number == first else 0)
                if found:
                    self.issues.append(Issue(number + 1, found.start("last") + 1, place, message, hint))
                    return
        if guess != first and guess <= last and guess < len(self._lines):
            text = self._lines[guess]
            self.issues.append(Issue(guess + 1, len(text) - len(text.lstrip()) + 1, place, message, hint))
        else:
            self.at(node, place, message, hint)


def _patterns(words: tuple[str, ...]) -> list[re.Pattern[str]]:
    """What to look for: the words as a path, then the last of them, then it as part of another."""
    if not words or not words[-1]:
        return []
    last = rf"(?P<last>{re.escape(words[-1])})"
    path = r"\s*(?:\.|\[['\"]?)\s*".join([*map(re.escape, words[:-1]), last])
    return [re.compile(rf"(?<![\w.]){path}(?!\w)"), re.compile(rf"(?<!\w){last}(?!\w)"), re.compile(last)]


def compose(source: str) -> yaml.Node | None:
    """The tree of a source; None of an empty one. Takes some milliseconds for each page.

    Raises:
        Broken: it is not YAML, or stands for too much.
    """
    if len(source) > LONGEST_SOURCE:
        raise _broken(1, 1, f"The pipeline is longer than {LONGEST_SOURCE:,} characters.", "Put texts into contexts.")
    if (bad := _UNUSABLE.search(source)) is not None:
        raise _unreadable(source, bad.start())
    try:
        loader = _Loader(source)
    except yaml.reader.ReaderError as error:
        raise _unreadable(source, error.position) from error
    try:
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _not_yaml(source, error) from error
    except (ValueError, RecursionError) as error:
        raise _broken(1, 1, "The pipeline is nested too deeply.", "Check its brackets.") from error
    finally:
        loader.dispose()
    if node is not None:
        _weigh(node, {}, 0)
    return node


def _unreadable(source: str, position: int) -> Broken:
    line = source.count("\n", 0, position) + 1
    column = position - source.rfind("\n", 0, position)
    return _broken(line, column, "There is a character that YAML does not take.", "Is it a text file?")


def _not_yaml(source: str, error: yaml.YAMLError) -> Broken:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "context", None) or error)
    if mark is None:
        return _broken(1, 1, f"It is not YAML: {problem}.")
    lines = source.splitlines()
    text = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in text[: len(text) - len(text.lstrip())] or "'\\t'" in problem:
        return _broken(mark.line + 1, text.find("\t") + 1, "A line is indented with a tab.", "Use spaces.")
    found = of_yaml(problem, text, mark.column, lines[mark.line - 1] if 0 < mark.line <= len(lines) else "")
    if found.at_context:
        mark = getattr(error, "context_mark", None) or mark
    return _broken(mark.line + 1, mark.column + 1, found.message, found.hint)


def _broken(line: int, column: int, message: str, hint: str = "") -> Broken:
    return Broken(Issue(line, column, "", message, hint))


@dataclass(frozen=True, slots=True)
class _Weight:
    """What a part comes to with everything that its anchors stand for."""

    values: int
    letters: int
    levels: int


def _weigh(node: Any, known: dict[int, _Weight], depth: int) -> _Weight:
    """Refuse an anchor that holds itself, and what anchors make too much: before anything has been made of them."""
    if id(node) in known:
        return known[id(node)]
    if depth > _DEEPEST:
        raise _heavy(node, "is nested too deeply")
    below: list[_Weight] = []
    if isinstance(node, yaml.MappingNode):
        below = [_weigh(part, known, depth + 1) for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = [_weigh(item, known, depth + 1) for item in node.value]
    letters = len(node.value) if isinstance(node, yaml.ScalarNode) else sum(one.letters for one in below)
    levels = 1 + max((one.levels for one in below), default=0)
    found = known[id(node)] = _Weight(1 + sum(one.values for one in below), letters, levels)
    if found.values > _MOST_VALUES or found.letters > _MOST_LETTERS or found.levels > _DEEPEST:
        raise _heavy(node, "holds too much")
    return found


def _heavy(node: Any, what: str) -> Broken:
    mark = node.start_mark
    return _broken(mark.line + 1, mark.column + 1, f"What begins here {what}.", "Check its anchors.")


def value_of(node: yaml.Node) -> Any:
    """What a node holds, as JSON has it.

    Raises:
        ValueError: a key is given twice or is none, a number is too large, a text cannot be stored, a tag is unknown.
    """
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = text_of(key)
            if name in found:
                raise ValueError(f"{name[:60]!r} is given twice")
            found[name] = value_of(value)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [value_of(item) for item in node.value]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    kind, text = str(node.tag).removeprefix("tag:yaml.org,2002:"), str(node.value)
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if len(text) < 25 and -_LARGEST <= int(text) < _LARGEST:
            return int(text)
        case "float" if math.isfinite(float(text)):
            return float(text)
        case "int" | "float":
            raise ValueError(f"{text[:30]} is too large a number")
        case "str":
            return text_of(node)
    raise ValueError(f"there is a tag, {kind[:40]!r}, that is not taken")


def text_of(node: yaml.Node) -> str:
    """The text of a scalar, as it is written.

    Raises:
        ValueError: it is none, or has what cannot be stored.
    """
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("a list or mapping stands where a name must")  # noqa: TRY004 - it is the value that is wrong
    if _UNUSABLE.search(node.value):
        raise ValueError("a text has a character that cannot be stored")
    return str(node.value)
