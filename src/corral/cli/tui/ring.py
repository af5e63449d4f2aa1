"""Lines of a log: the last so many, what of them is looked for, and how many have gone. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from corral.cli.output import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT = 10_000
"""Lines that are kept of one log."""
LONGEST = 2_000
"""Characters of a line that are kept."""


class Ring:
    """The last `kept` lines. Lines are put in quickly and cleaned for a terminal; `wanted` narrows what is shown.

    `version` changes with each change of what is shown. `gone` counts the lines that made room for others.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._all: deque[str] = deque(maxlen=kept)
        self._found: deque[str] | None = None
        self._wanted = ""
        self.version = 0
        self.gone = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def lines(self) -> deque[str]:
        """What is shown, oldest first."""
        return self._all if self._found is None else self._found

    @property
    def wanted(self) -> str:
        """The text that a line has to have to be shown; empty shows all."""
        return self._wanted

    @wanted.setter
    def wanted(self, text: str) -> None:
        self._wanted = text.casefold()
        kept = (line for line in self._all if self._wanted in line.casefold())
        self._found = deque(kept, self._all.maxlen) if self._wanted else None
        self.version += 1

    def extend(self, lines: Iterable[str]) -> None:
        """Put lines in at the end; the oldest make room."""
        fresh = [clean(line[:LONGEST]).expandtabs(4).replace("\n", " ") for line in lines]
        if not fresh:
            return
        most = self._all.maxlen or 0
        self.gone += max(0, len(self._all) + len(fresh) - most)
        self._all.extend(fresh)
        if self._found is not None:
            self._found.extend(line for line in fresh if self._wanted in line.casefold())
        self.version += 1

    def clear(self) -> None:
        """Forget all lines."""
        self._all.clear()
        if self._found is not None:
            self._found.clear()
        self.gone = 0
        self.version += 1


def fresh_of(before: list[str], now: list[str]) -> list[str]:
    """The lines of `now` that come after those of `before`: two looks at the end of one growing log."""
    if not before:
        return now
    for start in range(len(before)):
        tail = before[start:]
        if now[: len(tail)] == tail:
            return now[len(tail) :]
    return now
