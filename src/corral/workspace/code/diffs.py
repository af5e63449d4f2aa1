"""Differences between two texts: shown in one column or in two, read as models write them, and applied.

Applying takes what models write: counts and numbers of lines that are wrong, blanks that differ, heads that lack.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.workspace.code.matching import Block, stretches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HUNKS = 2_000


class DiffInvalid(ValueError):
    """A diff that cannot be read, or does not fit. `line` of the diff counts from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that change: `old` becomes `new`. `start` is the line (from 1) that the diff says; 0 when it says none.

    `line` is where it begins in the diff. `closed` says whether the file then ends with a line feed; None leaves that.
    """

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]
    line: int
    closed: bool | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a diff does to one file. `source` or `target` None: the file is made or removed."""

    source: str | None
    target: str | None
    hunks: tuple[Hunk, ...] = field(default=())


_HUNK = re.compile(r"@@+(?:\s*-(\d+)(?:,\d+)?\s+\+(\d+)(?:,\d+)?\s*@@.*)?|@@.*")


def read(text: str) -> tuple[Change, ...]:
    """The changes that a unified diff makes, file by file. Counts in hunk heads are not believed: models miscount.

    Raises:
        DiffInvalid: a line is of no diff.
    """
    changes: list[Change] = []
    source: str | None = None
    target: str | None = None
    hunks: list[Hunk] = []
    lines = text.split("\n")
    while lines and not lines[-1]:  # one with a blank in it may be an empty line of the file
        lines.pop()
    index, named = 0, False

    def close() -> None:
        if hunks:
            changes.append(Change(source, target, tuple(hunks)))
            hunks.clear()

    while index < len(lines):
        line = lines[index]
        if line.startswith("--- ") and index + 1 < len(lines) and lines[index + 1].startswith("+++ "):
            close()
            source, target, named = _path(line), _path(lines[index + 1]), True
            index += 2
        elif line.startswith("@@"):
            hunk, index = _hunk(lines, index)
            hunks.append(hunk)
        elif not hunks or line.startswith(_HEADS) or not line.strip():
            if not named and line[:1] in ("+", "-") and not hunks:
                hunk, index = _hunk(lines, index)
                hunks.append(hunk)
            else:
                index += 1
        else:
            raise DiffInvalid(f"this line belongs to no diff: {line[:60]!r}", index + 1)
    close()
    return tuple(changes)


_HEADS = (
    "diff --git ",
    "index ",
    "Index: ",
    "new file",
    "deleted file",
    "old mode",
    "new mode",
    "similarity ",
    "rename ",
    "====",
)


def _path(line: str) -> str | None:
    path = line[4:].split("\t", 1)[0].strip()
    if path == "/dev/null":
        return None
    return path[2:] if path.startswith(("a/", "b/")) else path


def _hunk(lines: list[str], index: int) -> tuple[Hunk, int]:
    first, start = index, 0
    if lines[index].startswith("@@"):
        match = _HUNK.match(lines[index])
        start = int(match[1]) if match and match[1] else 0
        index += 1
    old: list[str] = []
    new: list[str] = []
    open_old = open_new = False
    mark = ""
    while index < len(lines) and not _begins(lines, index):
        last, mark, rest = mark, lines[index][:1], lines[index][1:]
        if mark == "\\":
            open_old, open_new = open_old or last != "+", open_new or last != "-"
        elif mark not in ("-", "+", " ", ""):
            raise DiffInvalid(f"this line belongs to no diff: {lines[index][:60]!r}", index + 1)
        if mark in ("-", " ", ""):
            old.append(rest)
        if mark in ("+", " ", ""):
            new.append(rest)
        index += 1
    closed = False if open_new else True if open_old else None
    return Hunk(start, tuple(old), tuple(new), first + 1, closed), index


def _begins(lines: list[str], index: int) -> bool:
    """Whether a hunk or a file begins at a line."""
    line = lines[index]
    if line.startswith("--- "):
        return index + 1 < len(lines) and lines[index + 1].startswith("+++ ")
    return line.startswith(("@@", "diff --git "))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a comparison in two columns. `kind` is equal, changed, removed, added, or gap.

    `left` and `right` are (number from 1, text), None where a side has no line. A gap stands for `skipped` equal lines.
    """

    kind: str
    left: tuple[int, str] | None = None
    right: tuple[int, str] | None = None
    skipped: int = 0


def rows(a: str, b: str, *, context: int | None = 3) -> tuple[Row, ...]:
    """Two texts in two columns; equal lines further than `context` from a change are gaps, with None none are."""
    left, right = _lines(a), _lines(b)
    blocks = list(stretches(_keys(a), _keys(b)))
    found: list[Row] = []
    for place, (equal, (a1, a2, b1, b2)) in enumerate(blocks):
        if not equal:
            found.extend(_changed(left, right, (a1, a2, b1, b2)))
            continue
        head = (a2 - a1 if context is None else context) if place else 0
        tail = (a2 - a1 if context is None else context) if place + 1 < len(blocks) else 0
        if context is None or a2 - a1 <= head + tail:
            head, tail = a2 - a1, 0
        found.extend(Row("equal", (a1 + n + 1, left[a1 + n]), (b1 + n + 1, right[b1 + n])) for n in range(head))
        skipped = a2 - a1 - head - tail
        if skipped:
            found.append(Row("gap", skipped=skipped))
        found.extend(
            Row("equal", (n + 1, left[n]), (n - a1 + b1 + 1, right[n - a1 + b1])) for n in range(a2 - tail, a2)
        )
    return tuple(found)


def unified(a: str, b: str, *, names: tuple[str, str] = ("a", "b"), context: int = 3) -> str:
    """The unified diff from `a` to `b`, as `patch` takes it; empty for equal texts."""
    left, right = _lines(a), _lines(b)
    written = [f"--- {names[0]}", f"+++ {names[1]}"]
    for group in _groups(list(stretches(_keys(a), _keys(b))), context):
        first, last = group[0][1], group[-1][1]
        written.append(f"@@ -{_range(first[0], last[1])} +{_range(first[2], last[3])} @@")
        for equal, (a1, a2, b1, b2) in group:
            if equal:
                written.extend(_marked(" ", left, a1, a2, a))
            else:
                written.extend(_marked("-", left, a1, a2, a))
                written.extend(_marked("+", right, b1, b2, b))
    return "\n".join(written) + "\n" if len(written) > 2 else ""


def compare(a: str, b: str, *, names: tuple[str, str] = ("a", "b"), context: int = 3) -> dict[str, Any]:
    """Both forms of a comparison as JSON: `{equal, added, removed, unified, rows: [{kind, left, right, skipped}]}`.

    `left` and `right` are `{line, text}` or None; `added` and `removed` count lines.
    """
    found = rows(a, b, context=context)
    return {
        "equal": a == b,
        "added": sum(row.right is not None and row.kind != "equal" for row in found),
        "removed": sum(row.left is not None and row.kind != "equal" for row in found),
        "unified": unified(a, b, names=names, context=context),
        "rows": [
            {"kind": row.kind, "left": _side(row.left), "right": _side(row.right), "skipped": row.skipped}
            for row in found
        ],
    }


def apply(content: str, change: Change) -> str:
    """`content` after `change`. A hunk is looked for where it says, else after the one before, then anywhere.

    What stands at the end of lines does not have to agree. Line ends become line feeds.

    Raises:
        DiffInvalid: a hunk fits nowhere; its line says which.
    """
    if len(change.hunks) > _HUNKS:
        raise DiffInvalid(f"there are {len(change.hunks)} hunks, where {_HUNKS} are applied")
    lines = content.replace("\r\n", "\n").split("\n")
    done: list[str] = []
    at = 0
    for hunk in change.hunks:
        old, new = hunk.old, hunk.new
        place = _place(lines, at, old, hunk.start)
        if place is None and old and new and not old[-1].strip() and not new[-1].strip():
            # A blank line behind a hunk is one between hunks, not one of the file.
            old, new = old[:-1], new[:-1]
            place = _place(lines, at, old, hunk.start)
        if place is None:
            shown = next((line for line in old if line.strip()), "")
            raise DiffInvalid(f"this hunk fits nowhere: {shown.strip()[:60]!r}", hunk.line)
        done.extend(lines[at:place])
        done.extend(_kept(lines[place : place + len(old)], old, new))
        at = place + len(old)
    done.extend(lines[at:])
    text = "\n".join(done)
    closed = change.hunks[-1].closed if change.hunks else None
    if closed is None:
        return text
    return text + "\n" * bool(done) if closed else text.removesuffix("\n")


def apply_all(diff: str, files: Mapping[str, str]) -> dict[str, str | None]:
    """The files that a diff changes, by name, as they are after it; None for one that it removes.

    A diff that names no file changes the only one there is; one that names another folder, the one that ends alike.

    Raises:
        DiffInvalid: it is no diff, or changes what is not there.
    """
    changed: dict[str, str | None] = {}
    for change in read(diff):
        if change.target is None and change.source is not None:
            changed[_which(change.source, files)] = None
        elif change.source is None and change.target is not None and change.target not in files:
            changed[change.target] = "\n".join(line for hunk in change.hunks for line in hunk.new) + "\n"
        else:
            name = _which(change.target, files)
            before = changed.get(name) or files[name]
            changed[name] = apply(before, change)
    return changed


def _which(name: str | None, files: Mapping[str, str]) -> str:
    if name in files:
        return str(name)
    if name is None:
        alike = list(files)
    else:
        alike = [known for known in files if known.endswith("/" + name) or name.endswith("/" + known)]
    if len(alike) != 1:
        raise DiffInvalid(f"the diff changes {name or 'a file without a name'}, which is not there")
    return alike[0]


def _place(lines: list[str], at: int, old: Sequence[str], start: int) -> int | None:
    """Where `old` is in the lines from `at` on: where it says, else the first place."""
    wanted = [line.rstrip() for line in old]
    said = start - 1
    if not wanted:
        empty = not any(line.strip() for line in lines)
        return max(at, min(start, len(lines))) if start or empty else None
    if said >= at and [line.rstrip() for line in lines[said : said + len(wanted)]] == wanted:
        return said
    text = "\n".join(["", *(line.rstrip() for line in lines[at:]), ""])
    found = text.find("\n".join(["", *wanted, ""]))
    return at + text.count("\n", 0, found) if found >= 0 else None


def _kept(there: Sequence[str], old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """The new lines; of those that do not change the ones that are there, whatever blanks end them."""
    rest = Counter(old)
    known = dict(zip(old, there, strict=True))
    for line in new:
        if rest[line]:
            rest[line] -= 1
            yield known[line]
        else:
            yield line


def _keys(text: str) -> list[str]:
    """The lines as they are compared: a last one without an end is not that line with one."""
    lines = _lines(text)
    if lines and not text.endswith("\n"):
        lines[-1] += "\n"
    return lines


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def _groups(blocks: list[tuple[bool, Block]], context: int) -> Iterator[list[tuple[bool, Block]]]:
    """The changes with the lines around them, those near to each other together."""
    group: list[tuple[bool, Block]] = []
    for place, (equal, (a1, a2, b1, b2)) in enumerate(blocks):
        if not equal:
            group.append((False, (a1, a2, b1, b2)))
            continue
        last = place + 1 == len(blocks)
        if group and (last or a2 - a1 > 2 * context):
            kept = min(context, a2 - a1)
            yield [*group, *([(True, (a1, a1 + kept, b1, b1 + kept))] if kept else [])]
            group = []
        elif group:
            group.append((True, (a1, a2, b1, b2)))
        if not group and not last:
            kept = min(context, a2 - a1)
            group = [(True, (a2 - kept, a2, b2 - kept, b2))] if kept else []
    if any(not equal for equal, _ in group):
        yield group


def _range(first: int, after: int) -> str:
    size = after - first
    return f"{first + 1}" if size == 1 else f"{first + 1 if size else first},{size}"


def _marked(mark: str, lines: list[str], first: int, after: int, text: str) -> Iterator[str]:
    for number in range(first, after):
        yield mark + lines[number]
        if number + 1 == len(lines) and not text.endswith("\n"):
            yield "\\ No newline at end of file"


def _changed(left: list[str], right: list[str], block: Block) -> Iterator[Row]:
    a1, a2, b1, b2 = block
    for number in range(max(a2 - a1, b2 - b1)):
        one = (a1 + number + 1, left[a1 + number]) if a1 + number < a2 else None
        two = (b1 + number + 1, right[b1 + number]) if b1 + number < b2 else None
        yield Row("changed" if one and two else "removed" if one else "added", one, two)


def _side(side: tuple[int, str] | None) -> dict[str, Any] | None:
    return {"line": side[0], "text": side[1]} if side is not None else None
