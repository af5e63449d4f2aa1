"""Differences between two texts: shown in one column or in two, and applied."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


class DiffInvalid(ValueError):
    """A diff that cannot be read, or does not fit. `line` of the diff counts from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that change: `old` becomes `new`. `start` is the line (from 1) that the diff says; 0 when it says none."""

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]
    line: int


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
    while lines and not lines[-1].strip():
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
    while index < len(lines):
        line = lines[index]
        if line.startswith(("@@", "diff --git ")) or (
            line.startswith("--- ") and lines[index + 1 : index + 2] and lines[index + 1].startswith("+++ ")
        ):
            break
        mark, rest = line[:1], line[1:]
        if mark == "-":
            old.append(rest)
        elif mark == "+":
            new.append(rest)
        elif mark in (" ", ""):
            old.append(rest)
            new.append(rest)
        elif mark != "\\":
            raise DiffInvalid(f"this line belongs to no diff: {line[:60]!r}", index + 1)
        index += 1
    return Hunk(start, tuple(old), tuple(new), first + 1), index
