"""Engines that end by themselves: how often in a row, and how long the next load has to wait for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corral.domain.ports import Clock

_STEADY = 60.0
"""Seconds after which an engine that ends has not ended at once."""
_FIRST = 5.0
_MOST = 300.0


@dataclass(frozen=True, slots=True)
class Ends:
    """How often a model's engines ended in a row, why the last one did, and when the next may be loaded."""

    count: int = 0
    why: str = ""
    again_at: float = 0.0


class Restarts:
    """Remembers what ended by itself.

    The first few ends cost nothing, so that a crash is mended at once; then each costs twice as long as the one before,
    at most five minutes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[str, Ends] = {}

    def ended(self, model: str, why: str, lived: float, free: int) -> None:
        """An engine ended that nobody stopped, after `lived` seconds; `free` such ends in a row cost nothing."""
        before = self._ends.get(model, Ends())
        count = before.count + 1 if lived < _STEADY else 1
        wait = min(_MOST, _FIRST * 2.0 ** (count - free - 1)) if count > free else 0.0
        self._ends[model] = replace(before, count=count, why=why, again_at=self._clock.now() + wait)

    def of(self, model: str) -> Ends:
        """What is remembered of a model."""
        return self._ends.get(model, Ends())

    def wait(self, model: str) -> float:
        """Seconds until the model may be loaded again; mostly 0."""
        return max(0.0, self.of(model).again_at - self._clock.now())

    def forget(self, model: str) -> None:
        """Begin anew: somebody wants to see whether it works now."""
        self._ends.pop(model, None)
