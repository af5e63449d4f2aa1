"""Bars, sparklines and the tones of words. Pure.

A tone is a name such as `green`, which a theme gives a colour. No meaning hangs on it: a state is always a word, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.cli.output import line
from corral.cli.table import Cell, Column

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_REST = "·"

TONES = {
    "ready": "green",
    "healthy": "green",
    "completed": "green",
    "running": "green",
    "ok": "green",
    "queued": "yellow",
    "loading": "yellow",
    "starting": "yellow",
    "waiting": "yellow",
    "stopping": "yellow",
    "installing": "yellow",
    "updating": "yellow",
    "removing": "yellow",
    "pending": "yellow",
    "at work": "yellow",
    "fallen back": "yellow",
    "orphan": "yellow",
    "paused": "cyan",
    "sleeping": "cyan",
    "failed": "red",
    "unhealthy": "red",
    "oom killed": "red",
    "crash loop": "red",
    "killed": "red",
    "exited": "red",
    "unknown": "red",
    "lost": "red",
}
"""The tone of a state's word; any other is dim."""


Row = tuple[Cell, ...]
"""A row's cells, or a line in pieces: texts of one line that are safe on a terminal, each with its tone."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; `keys` are what the rows stand for, in that order. `empty` is said where there are none."""

    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    empty: str = ""

    def narrowed(self, text: str) -> Table:
        """Only the rows in which that text stands, in whatever case."""
        wanted = text.casefold()
        if not wanted:
            return self
        kept = [place for place, row in enumerate(self.rows) if any(wanted in cell.text.casefold() for cell in row)]
        empty = f"Nothing here has {line(text)!r} in it. Esc shows all again." if not kept and self.rows else self.empty
        return Table(self.columns, tuple(self.keys[n] for n in kept), tuple(self.rows[n] for n in kept), empty)


Fields = list[tuple[str, Cell]]
"""Names beside values."""


def cell(value: object, tone: str = "") -> Cell:
    """A value as a cell; a dash when it is unknown."""
    return Cell("-" if value is None or value == "" else line(value), tone)


def state_word(state: object) -> str:
    """A state as a person reads it: `crash_loop` is `crash loop`."""
    word = str(state or "unknown").replace("_", " ")
    return "at work" if word == "in progress" else word


def toned(state: object) -> Cell:
    """A state's word in its tone."""
    word = state_word(state)
    return Cell(word, TONES.get(word, "dim"))


def spark(values: Sequence[float | None], width: int, most: float | None = None) -> str:
    """The last `width` values as a line of columns, one cell each; a point stands where nothing is known.

    The scale goes from 0 to `most`, or to the greatest of them.
    """
    shown = list(values)[-width:] if width > 0 else []
    known = [value for value in shown if value is not None]
    top = most if most is not None else max(known, default=0.0)
    return "".join(_level(value, top) for value in shown).rjust(max(width, 0), _REST)


def _level(value: float | None, top: float) -> str:
    if value is None:
        return _REST
    share = min(max(value / top, 0.0), 1.0) if top > 0 else 0.0
    return _LEVELS[min(int(share * len(_LEVELS)), len(_LEVELS) - 1)]


def bar(share: float | None, width: int) -> str:
    """A bar of `width` cells, `share` of it (0 to 1) filled, in eighths of a cell; empty when it is unknown."""
    if width <= 0:
        return ""
    eighths = 0 if share is None else round(min(max(share, 0.0), 1.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    filled = "█" * whole + (_EIGHTHS[rest] if rest else "")
    return filled.ljust(width, _REST)


def inked(drawn: str) -> Row:
    """A bar or a course with what is not filled, at its beginning or its end, in a quiet tone."""
    body = drawn.lstrip(_REST)
    before, filled = len(drawn) - len(body), body.rstrip(_REST)
    pieces = (Cell(_REST * before, "dim"), Cell(filled, "accent"), Cell(_REST * (len(body) - len(filled)), "dim"))
    return tuple(piece for piece in pieces if piece.text)


def percent(share: float | None) -> str:
    """A share of 0 to 1 as a percentage; a dash when it is unknown."""
    return "-" if share is None else f"{100 * share:.0f} %"
