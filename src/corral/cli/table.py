"""Rows under headings and names beside values, as wide as they may be: light enough for ten thousand rows.

Widths are counted in terminal cells. What does not fit its column ends in an ellipsis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import combining, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_GAP = "  "
_SOFT_LEAST = 8
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: numbers stand to the right; a `soft` one is shortened when the terminal is narrow.

    Before any is shortened, those that are less needed are left out, the highest `spare` first; 0 stays.
    """

    title: str
    right: bool = False
    soft: bool = False
    spare: int = 0


class Cell(NamedTuple):
    """A text of one line that is safe on a terminal, and its style."""

    text: str
    style: str = ""


def cells(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    return len(text) if text.isascii() else _cells(text)


@lru_cache(4096)
def _cells(text: str) -> int:
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis where something is missing."""
    if cells(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += cells(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def fold(text: str, width: int) -> list[str]:
    """`text` in rows of at most `width` cells, broken between words where it can be."""
    rows, row = [], ""
    for word in text.split(" "):
        joined = f"{row} {word}" if row else word
        if cells(joined) <= width:
            row = joined
            continue
        if row:
            rows.append(row)
        row = word
        while cells(row) > width:
            kept = max(next((n for n in range(len(row), 0, -1) if cells(row[:n]) <= width), 1), 1)
            rows.append(row[:kept])
            row = row[kept:]
    return [*rows, row] if row or not rows else rows


def table_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None, paint: Callable[[str, str], str]
) -> Iterator[str]:
    """The lines of a table, at most `width` cells wide; None is as wide as it likes."""
    heads = [Cell(column.title, "bold") for column in columns]
    stacks = [list(stack) for stack in zip(heads, *rows, strict=True)]
    kept, widths = arranged(columns, stacks, width)
    stacks, columns = [stacks[index] for index in kept], [columns[index] for index in kept]
    shown = starmap(
        _column,
        ((stack, wide, column.right, paint) for stack, wide, column in zip(stacks, widths, columns, strict=True)),
    )
    for row in zip(*shown, strict=True):
        yield _GAP.join(row).rstrip()


def arranged(
    columns: Sequence[Column], stacks: Sequence[Sequence[Cell]], width: int | None
) -> tuple[list[int], list[int]]:
    """Which of the columns are shown, by their places, and how wide each of these is; `stacks` are their cells."""
    widths = [max(map(cells, (cell.text for cell in stack))) for stack in stacks]
    if width is None:
        return list(range(len(columns))), widths
    kept = _kept(widths, columns, width)
    return kept, _squeezed([widths[index] for index in kept], [columns[index] for index in kept], width)


def _column(stack: Sequence[Cell], width: int, right: bool, paint: Callable[[str, str], str]) -> list[str]:
    """A column's cells in its width: the simple ones quickly, since there may be very many."""
    simple = str.rjust if right else str.ljust
    return [
        simple(text, width)
        if not style and len(text) <= width and text.isascii()
        else _placed(Cell(text, style), width, paint, right=right)
        for text, style in stack
    ]


def field_lines(
    pairs: Sequence[tuple[str, Cell]], width: int | None, paint: Callable[[str, str], str]
) -> Iterator[str]:
    """The lines of names with their values; a long value goes on below itself."""
    left = max((cells(name) for name, _ in pairs), default=0)
    room = None if width is None else max(width - left - len(_GAP), _SOFT_LEAST)
    for name, cell in pairs:
        for index, text in enumerate([cell.text] if room is None else fold(cell.text, room)):
            head = _placed(Cell("" if index else name, "bold"), left, paint, right=False)
            yield f"{head}{_GAP}{paint(text, cell.style)}".rstrip()


def _kept(widths: Sequence[int], columns: Sequence[Column], width: int) -> list[int]:
    """The columns that are shown, by their places: the least needed are left out until the rest fits."""
    kept = list(range(len(columns)))
    while sum(widths[index] for index in kept) + len(_GAP) * (len(kept) - 1) > width:
        spare = max(kept, key=lambda index: columns[index].spare)
        if not columns[spare].spare:
            break
        kept.remove(spare)
    return kept


def _squeezed(widths: list[int], columns: Sequence[Column], width: int) -> list[int]:
    """Widths that fit: the widest soft columns give first, then the widest of all."""
    widths = list(widths)
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    soft = [index for index, column in enumerate(columns) if column.soft]
    for candidates, least in ((soft, _SOFT_LEAST), (range(len(widths)), _LEAST)):
        while excess > 0 and candidates:
            widest = max(candidates, key=lambda index: widths[index])
            if widths[widest] <= least:
                break
            widths[widest] -= 1
            excess -= 1
    return widths


def _placed(cell: Cell, width: int, paint: Callable[[str, str], str], *, right: bool) -> str:
    text = cut(cell.text, width)
    space = " " * (width - cells(text))
    shown = paint(text, cell.style) if cell.style else text
    return space + shown if right else shown + space
