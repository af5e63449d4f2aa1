"""Honest figures from the reports of long work: a percentage that never goes back, a rate, the time that is left.

Pure: what time it is comes with each call, from a clock that never goes backwards. Nothing here touches the loop, so a
report may come from any thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corral.domain.ports import Progress

MEMORY = 5.0
"""Seconds over which the rate is averaged: what lies further back than that counts for little."""

GRAIN = 0.1
"""Seconds that reports are gathered before the rate takes note of them."""

TRANSFER = frozenset({"download", "upload"})
"""The phases that take nearly all of the time wherever they occur."""

SILENCE = 1.0
"""Seconds without a report after which the rate sinks as if nothing arrived."""

_TRANSFER_SHARE = 95.0
_HIGHEST = 99.0


@dataclass(frozen=True, slots=True)
class Figures:
    """How far it is, as `Operation` says it."""

    progress: float
    phase: str
    done: int
    total: int | None
    rate: float | None
    eta: float | None


class Rate:
    """Bytes a second, as an exponential average over time. Unknown until the first stretch has passed."""

    def __init__(self, done: int, now: float) -> None:
        self._done = done
        self._since = now
        self._value: float | None = None

    def take(self, done: int, now: float) -> None:
        """Note that `done` bytes are there; fewer than before when something is done again."""
        self._done = min(self._done, done)
        passed = now - self._since
        if passed < GRAIN:
            return
        speed = (done - self._done) / passed
        if self._value is None:
            self._value = speed
        else:
            self._value += (speed - self._value) * (1 - math.exp(-passed / MEMORY))
        self._done, self._since = done, now

    def at(self, now: float) -> float | None:
        """The average by now, which sinks in silence."""
        if self._value is None:
            return None
        return self._value * math.exp(-max(0.0, now - self._since - SILENCE) / MEMORY)


class Meter:
    """Takes the reports of one operation, and says at any time how far it is.

    A download or an upload fills 95 of 100, what follows it the rest; what comes before it counts for nothing. Where
    there is neither, as in a check, whatever is counted fills all. 100 is only said of what has ended, elsewhere.

    Args:
        floor: what was shown before a restart; less is never shown.
    """

    def __init__(self, floor: float = 0.0) -> None:
        self._shown = floor
        self._transferred: float | None = None
        self._phase = ""
        self._counted = ""
        self._done = 0
        self._total: int | None = None
        self._rate: Rate | None = None

    def take(self, progress: Progress, now: float) -> None:
        """Note a report."""
        self._phase = progress.phase
        transfer = progress.phase in TRANSFER
        counts = progress.done > 0 or bool(progress.total)
        between = self._transferred is not None and self._transferred < 1.0 and not transfer
        if not counts or between:  # such as the check of one file while others are still to come
            return
        done = progress.done if progress.total is None else min(progress.done, progress.total)
        if progress.phase != self._counted or self._rate is None:
            self._rate = Rate(done, now)  # what was there before this run says nothing about its speed
        else:
            self._rate.take(done, now)
        self._counted, self._done, self._total = progress.phase, done, progress.total
        self._shown = max(self._shown, self._percent(done, progress.total, transfer=transfer))

    def figures(self, now: float) -> Figures:
        """How far it is."""
        rate = None if self._rate is None else self._rate.at(now)
        if rate is None or rate < 1.0:
            return Figures(self._shown, self._phase, self._done, self._total, None, None)
        eta = None if self._total is None else round((self._total - self._done) / rate, 1)
        return Figures(self._shown, self._phase, self._done, self._total, round(rate), eta)

    def _percent(self, done: int, total: int | None, *, transfer: bool) -> float:
        part = done / total if total else 0.0
        if transfer:
            self._transferred = part if total else 0.0
            return _TRANSFER_SHARE * part
        if self._transferred is None:
            return _HIGHEST * part
        return _TRANSFER_SHARE + (_HIGHEST - _TRANSFER_SHARE) * part
