"""When a service that ended is started again, and when it is left down. Decisions only; seconds throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corral.domain.services import Vigilance


@dataclass(frozen=True, slots=True)
class Again:
    """Start it again, `after` seconds from now."""

    after: float


@dataclass(frozen=True, slots=True)
class Enough:
    """Leave it down, for this reason."""

    reason: str


class Vigil:
    """The past of one service, as far as it matters for what comes next."""

    def __init__(self, vigilance: Vigilance) -> None:
        self._vigilance = vigilance
        self._ends = 0
        self._failures = 0

    def ended(self, well: float) -> Again | Enough:
        """What to do after it ended by itself, having been well for `well` seconds before."""
        known = self._vigilance
        self._failures = 0
        self._ends = 1 if well >= known.settled else self._ends + 1
        if self._ends >= known.crashes:
            return Enough(f"it ended {self._ends} times in a row")
        return Again(min(known.longest, known.first * 2.0 ** (self._ends - 1)))

    def hung(self, *, healthy: bool) -> bool:
        """Take the result of a health check of a service that was well once; whether it counts as hung now."""
        self._failures = 0 if healthy else self._failures + 1
        return self._failures >= self._vigilance.failures
