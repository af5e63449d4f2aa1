"""Which candidate had a conversation before, and how quick candidates were of late."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corral.domain.ports import Clock

_MOST = 20_000
_NEW = 0.2
"""How much of what is remembered of a candidate's speed comes from its last answer."""
_STALE = 300.0
"""Seconds after which a speed is forgotten: who was slow then is tried again."""


class Stickiness:
    """Remembers where conversations are, for `seconds` after their last turn, the last 20,000 of them.

    A vendor keeps the beginning of a prompt in its cache for about that long, and an engine its slot.
    """

    def __init__(self, clock: Clock, seconds: float = 300.0, most: int = _MOST) -> None:
        self.seconds = seconds
        self._clock = clock
        self._most = most
        self._places: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def place(self, key: int) -> str | None:
        """The model that had the conversation; None when none did, or too long ago."""
        found = self._places.get(key)
        if found is None:
            return None
        if found[1] < self._clock.now():
            del self._places[key]
            return None
        return found[0]

    def keep(self, key: int, model: str) -> None:
        """`model` has answered a turn of the conversation."""
        places = self._places
        places[key] = (model, self._clock.now() + self.seconds)
        places.move_to_end(key)
        if len(places) > self._most:
            places.popitem(last=False)


class Speeds:
    """Remembers how long each candidate of late took to its first byte."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, float]] = {}

    def note(self, model: str, seconds: float) -> None:
        """The first byte of an answer of `model` came after `seconds`."""
        now = self._clock.now()
        before = self._known.get(model)
        if before is not None and now - before[1] < _STALE:
            seconds = before[0] + _NEW * (seconds - before[0])
        self._known[model] = (seconds, now)

    def of(self, model: str) -> float | None:
        """Seconds to the first byte, the last ones counting most; None when nothing is known, or nothing recent."""
        found = self._known.get(model)
        if found is None or self._clock.now() - found[1] >= _STALE:
            return None
        return found[0]
