"""Who waits for one model, in the order in which they are served: the highest rank first, then the longest wait.

A request's rank is its priority, and one more for each patience that it has waited: so nobody waits for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import floor, inf

from corral.domain.ports import Progress, Report, silent
from corral.lifecycle.engines import Engine


@dataclass(slots=True, eq=False)
class Waiter:
    """One request: since when it waits, in seconds of the supervisor's clock, and what it will be told."""

    since: float
    priority: int = 0
    report: Report = silent
    future: asyncio.Future[Engine] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Line:
    """The waiting requests of one model. All of it is quick, however many wait."""

    def __init__(self) -> None:
        self._by_priority: dict[int, deque[Waiter]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def priority(self) -> int:
        """The highest of their priorities; 0 when nobody waits."""
        return max(self._by_priority, default=0)

    @property
    def since(self) -> float | None:
        """When the one began who waits longest; None when nobody waits."""
        return min((line[0].since for line in self._by_priority.values()), default=None)

    def join(self, waiter: Waiter) -> None:
        """Stand at the end of those of the same priority."""
        self._by_priority.setdefault(waiter.priority, deque()).append(waiter)
        self._count += 1

    def leave(self, waiter: Waiter) -> bool:
        """Wait no more; False for one who did not."""
        line = self._by_priority.get(waiter.priority, deque())
        if waiter not in line:
            return False
        line.remove(waiter)
        self._taken(waiter.priority)
        return True

    def next(self, now: float = 0.0, patience: float = inf) -> Waiter:
        """Take out whose turn it is.

        Raises:
            IndexError: nobody waits.
        """
        if not self._by_priority:
            raise IndexError("nobody waits")
        first = max(
            (line[0] for line in self._by_priority.values()),
            key=lambda waiter: (waiter.priority + _steps(now - waiter.since, patience), -waiter.since),
        )
        self._by_priority[first.priority].popleft()
        self._taken(first.priority)
        return first

    def all(self) -> list[Waiter]:
        """Take out everyone."""
        return [self.next() for _ in range(self._count)]

    def tell(self, progress: Progress) -> None:
        """Pass progress on to everyone who waits."""
        for line in self._by_priority.values():
            for waiter in line:
                waiter.report(progress)

    def _taken(self, priority: int) -> None:
        self._count -= 1
        if not self._by_priority[priority]:
            del self._by_priority[priority]


def _steps(waited: float, patience: float) -> int:
    return floor(waited / patience) if patience > 0 else 0
