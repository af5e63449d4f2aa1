"""Who has failed so often that it is left alone for a while: a breaker for each candidate, and for each address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.errors import CircuitOpen
from corral.routing.policies import Breaker, Standing, Threshold, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corral.domain.ports import Clock

_MOST = 1024
"""Breakers that are remembered; beyond that those forgotten first are who failed longest ago."""


@dataclass(frozen=True, slots=True)
class Standee:
    """One breaker that is not as new. `left` in seconds; `address` where it is one of an address."""

    name: str
    standing: Standing
    failures: int
    left: float
    why: str
    address: bool


class Breakers:
    """Remembers who failed. As long as nobody has, asking costs nothing to speak of.

    After the pause nobody is simply tried with a request that costs money: whoever carries requests asks `due` for a
    name whose breaker is half open, `claim`s it, looks in a way that is free (`Session.healthy`; for what has no
    session yet the request itself, which loads it), and tells `probed`. Until then requests go elsewhere. One looks at
    a time; one that never tells is forgotten after another pause.

    Args:
        clock: time.
        threshold: when a candidate is left alone.
        address: the address of a model's engine, where that is known and others may be there too.
    """

    def __init__(
        self,
        clock: Clock,
        threshold: Threshold | None = None,
        address: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self.threshold = threshold or Threshold()
        self._clock = clock
        self._address = address
        self._models: dict[str, Breaker] = {}
        self._addresses: dict[str, Breaker] = {}

    def wait(self, model: str) -> float:
        """Seconds for which requests should not go to `model`; 0 is: at once. Half open counts as a moment, not 0."""
        if not self._models and not self._addresses:
            return 0.0
        own = self._models.get(model)
        address = self._address(model) if self._addresses else None
        shared = None if address is None else self._addresses.get(address)
        if own is None and shared is None:
            return 0.0
        now = self._clock.now()
        return max(_left(breaker, now) for breaker in (own, shared) if breaker is not None)

    def check(self, model: str) -> None:
        """Return when requests may go to `model`.

        Raises:
            CircuitOpen: they may not; says for how long and what it failed of.
        """
        wait = self.wait(model)
        if wait:
            raise self.refusal(model, wait)

    def refusal(self, model: str, wait: float) -> CircuitOpen:
        """The error for a request that can go nowhere but to `model`, which is left alone for `wait` seconds."""
        return CircuitOpen(
            f"{model!r} is left alone for another {max(wait, 1):.0f} s: {self.why(model)}",
            "Ask again then, or give it a fallback: models.NAME.fallback.",
            retry_after=max(wait, 1.0),
        )

    def why(self, model: str) -> str:
        """What `model`, or its address, failed of last; empty when it has not."""
        return next((breaker.why for _, breaker in self._of(model) if breaker.why), "")

    def succeeded(self, model: str) -> None:
        """An answer came from `model`."""
        if not self._models and not self._addresses:
            return
        now = self._clock.now()
        for table, name in self._keys(model):
            breaker = table.get(name)
            if breaker is not None and breaker.succeeded(now) is None:
                del table[name]

    def failed(self, model: str, verdict: Verdict) -> None:
        """A call of `model` failed; what does not count against it is passed over."""
        if not verdict.counts:
            return
        now = self._clock.now()
        for table, name in self._keys(model):
            if table is self._addresses and not verdict.shared:
                continue
            before = table.pop(name, None) or Breaker()
            table[name] = before.failed(now, self.threshold, verdict.retry_after, verdict.reason)
            if len(table) > _MOST:
                del table[next(iter(table))]

    def due(self, model: str) -> bool:
        """Whether somebody should look now whether `model` is well again."""
        if not self._models and not self._addresses:
            return False
        now = self._clock.now()
        standings = [breaker.standing(now) for _, breaker in self._of(model)]
        waits = any(breaker.wait(now) for _, breaker in self._of(model))
        return not waits and Standing.HALF_OPEN in standings

    def claim(self, model: str) -> bool:
        """Take it upon oneself to look whether `model` is well, and to tell `probed`; False when nobody need look."""
        if not self.due(model):
            return False
        now = self._clock.now()
        for table, name in self._keys(model):
            breaker = table.get(name)
            claimed = None if breaker is None else breaker.claim(now, self.threshold)
            if claimed is not None:
                table[name] = claimed
        return True

    def probed(self, model: str, *, well: bool) -> None:
        """Who claimed `model` has looked."""
        now = self._clock.now()
        for table, name in self._keys(model):
            breaker = table.get(name)
            if breaker is not None and breaker.claimed:  # else it has failed again meanwhile
                table[name] = breaker.probed(now, self.threshold, well=well)

    def forget(self, model: str) -> None:
        """Begin anew with `model`: it has been changed, or somebody wants to see whether it works now."""
        for table, name in self._keys(model):
            table.pop(name, None)

    def rows(self) -> list[Standee]:
        """Every breaker that is not as new."""
        now = self._clock.now()
        return [
            Standee(name, breaker.standing(now), breaker.failures, breaker.wait(now), breaker.why, address)
            for table, address in ((self._models, False), (self._addresses, True))
            for name, breaker in table.items()
        ]

    def _keys(self, model: str) -> Iterator[tuple[dict[str, Breaker], str]]:
        yield self._models, model
        address = self._address(model)
        if address is not None:
            yield self._addresses, address

    def _of(self, model: str) -> Iterator[tuple[str, Breaker]]:
        for table, name in self._keys(model):
            breaker = table.get(name)
            if breaker is not None:
                yield name, breaker


_MOMENT = 0.001


def _left(breaker: Breaker, now: float) -> float:
    """Seconds left; a breaker that is half open has to be looked after first, however little that takes."""
    standing = breaker.standing(now)
    return 0.0 if standing is Standing.CLOSED else max(breaker.wait(now), _MOMENT)
