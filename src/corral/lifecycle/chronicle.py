"""What happened: every change of state and every decision, for whoever listens and for whoever asks later."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING

from corral.domain.states import Transition
from corral.kit.announcing import Announcer
from corral.lifecycle.engines import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from corral.domain.ports import Clock

_REMEMBERED = 1000
_LAST_WORDS = 50

Change = Transition | Entry


class Chronicle:
    """Tells of changes as they happen, and keeps the last 1,000 decisions. `counters` counts them by effect."""

    def __init__(self, clock: Clock) -> None:
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._decisions: deque[Entry] = deque(maxlen=_REMEMBERED)
        self._words: dict[str, tuple[str, ...]] = {}
        self._announcer: Announcer[Change] = Announcer()

    def decided(self, effect: str, model: str, reason: str, room_for: str = "") -> None:
        """Write down a decision that is being carried out."""
        entry = Entry(self._clock.wall(), model, effect, reason, room_for)
        self.counters[effect] += 1
        self._decisions.append(entry)
        self.tell(entry)

    def last_words(self, model: str, lines: Sequence[str]) -> None:
        """Keep what a model's engine wrote, or why none could be started, for whoever asks when it is gone."""
        self._words.pop(model, None)
        self._words[model] = tuple(lines)
        while len(self._words) > _LAST_WORDS:
            self._words.pop(next(iter(self._words)))

    def words(self, model: str) -> tuple[str, ...] | None:
        """What was kept of a model; None for one of which nothing was."""
        return self._words.get(model)

    def tell(self, change: Change | None) -> None:
        """Tell everybody; None is the end."""
        self._announcer.tell(change)

    def last(self, limit: int) -> list[Entry]:
        """The last decisions, newest first."""
        return list(islice(reversed(self._decisions), limit))

    def listen(self) -> AsyncIterator[Change]:
        """Everything from now on. A reader too slow by 256 changes loses the oldest."""
        return self._announcer.listen()
