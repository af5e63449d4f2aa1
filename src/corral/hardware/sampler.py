"""Looks at the machine from time to time: the latest look, a history for charts, and word of devices that vanish."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.hardware.loss import Roll, called

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from corral.domain.hardware import DeviceChange, Machine
    from corral.domain.ports import Clock

_log = logging.getLogger("corral.hardware")

_QUIET = 10
"""Looks are so many times rarer while nobody watches."""
_WATCHED_FOR = 60.0
"""Seconds after somebody asked for the history for which somebody counts as watching."""
_KEPT = 900


@dataclass(frozen=True, slots=True)
class _Row:
    """What charts show of one look."""

    at: float
    cpu: float | None
    memory: int | None
    gpus: dict[str, tuple[int | None, float | None, float | None, float | None]] = field(default_factory=dict)


class Sampler:
    """Looks at the machine every `every` seconds while somebody watches, ten times more rarely else.

    Args:
        take: the machine now; blocks, and is called in a thread, never twice at once.
        clock: time.
        every: seconds between two looks.
        tell: is called in the loop with each device that is lost or back.
        kept: looks that the history holds.
    """

    def __init__(
        self,
        take: Callable[[], Machine],
        clock: Clock,
        every: float = 2.0,
        tell: Callable[[DeviceChange], None] = lambda _: None,
        kept: int = _KEPT,
    ) -> None:
        self._take = take
        self._clock = clock
        self._every = every
        self._tell = tell
        self._roll = Roll()
        self._latest: Machine | None = None
        self._rows: deque[_Row] = deque(maxlen=kept)
        self._looking: asyncio.Task[Machine] | None = None
        self._watchers: set[asyncio.Event] = set()
        self._asked_at = float("-inf")
        self._noticed = asyncio.Event()

    @property
    def latest(self) -> Machine | None:
        """The machine as it was last seen; None before the first look."""
        return self._latest

    async def look(self, fresh: float = 0.0) -> Machine:
        """The machine now, or as it was seen less than `fresh` seconds ago; who asks meanwhile gets the same look."""
        if self._looking is None:
            latest, now = self._latest, self._clock.wall()
            if latest is not None and latest.at is not None and 0 <= now - latest.at < fresh:
                return latest
            self._looking = asyncio.ensure_future(self._look())
        return await asyncio.shield(self._looking)

    async def run(self) -> None:
        """Look again and again, until cancelled; the first time when somebody watches, or after a while."""
        while True:
            self._noticed.clear()
            await self._sleep(self._every if self._watched() else self._every * _QUIET)
            await self.look()

    async def subscribe(self) -> AsyncGenerator[Machine]:
        """Each look from now on, the latest first; a slow reader misses some, and holds up nobody."""
        with self._watching() as news:
            shown = None
            while True:
                if self._latest is not None and self._latest is not shown:
                    shown = self._latest
                    yield shown
                await news.wait()
                news.clear()

    async def messages(self) -> AsyncGenerator[Mapping[str, Any]]:
        """Each look from now on as figures of type `sample`, and each GPU that is lost or back as type `device`."""
        known: set[str] | None = None
        async with aclosing(self.subscribe()) as looks:
            async for machine in looks:
                lost = {one.gpu.id: one.reason for one in machine.lost}
                for device in sorted(set(lost) ^ (set(lost) if known is None else known)):
                    back = device not in lost
                    yield {
                        "type": "device",
                        "at": machine.at,
                        "device": device,
                        "back": back,
                        "reason": lost.get(device, ""),
                    }
                known = set(lost)
                yield {"type": "sample", **_figures(machine)}

    def history(self, seconds: float | None = None) -> dict[str, Any]:
        """What charts show, in columns, oldest first: `at`, `cpu`, `memory`, and `gpus` by id. Unknown is None.

        Percent, bytes, degrees Celsius and watts. `seconds` bounds how far back.
        """
        self._asked_at = self._clock.now()
        self._noticed.set()
        last = self._rows[-1].at if self._rows else 0.0
        rows = [row for row in self._rows if seconds is None or last - row.at <= seconds]
        nothing = (None, None, None, None)
        gpus = {
            name: dict(
                zip(
                    ("used", "usage", "temperature", "power"),
                    map(list, zip(*(row.gpus.get(name, nothing) for row in rows), strict=True)),
                    strict=True,
                )
            )
            for name in dict.fromkeys(name for row in rows for name in row.gpus)
        }
        return {
            "at": [row.at for row in rows],
            "cpu": [row.cpu for row in rows],
            "memory": [row.memory for row in rows],
            "gpus": gpus,
        }

    async def _look(self) -> Machine:
        try:
            seen = await asyncio.to_thread(self._take)
            self._roll, machine, changes = called(self._roll, seen, self._clock.wall())
            self._latest = machine
            self._rows.append(_row(machine))
        finally:
            self._looking = None
        for change in changes:
            _log.warning("%s is %s: %s", change.device, "back" if change.back else "lost", change.reason)
            self._tell(change)
        for news in self._watchers:
            news.set()
        return machine

    def _watched(self) -> bool:
        return bool(self._watchers) or self._clock.now() - self._asked_at < _WATCHED_FOR

    async def _sleep(self, pause: float) -> None:
        """Wait; less when somebody begins to watch meanwhile."""
        sleeping = asyncio.ensure_future(self._clock.sleep(pause))
        noticed = asyncio.ensure_future(self._noticed.wait())
        try:
            await asyncio.wait([sleeping, noticed], return_when=asyncio.FIRST_COMPLETED)
            if noticed.done() and not sleeping.done() and pause > self._every:
                sleeping.cancel()
            else:
                await sleeping
        finally:
            for task in (sleeping, noticed):
                task.cancel()
            await asyncio.wait([sleeping, noticed])

    @contextmanager
    def _watching(self) -> Iterator[asyncio.Event]:
        news = asyncio.Event()
        self._watchers.add(news)
        self._noticed.set()
        try:
            yield news
        finally:
            self._watchers.discard(news)


def _row(machine: Machine) -> _Row:
    gpus = {gpu.id: (gpu.used, gpu.usage, gpu.temperature, gpu.power) for gpu in machine.gpus or ()}
    return _Row(machine.at or 0.0, machine.cpu.usage, machine.memory.used, gpus)


def _figures(machine: Machine) -> dict[str, Any]:
    row = _row(machine)
    names = ("used", "usage", "temperature", "power")
    gpus = {name: dict(zip(names, values, strict=True)) for name, values in row.gpus.items()}
    return {"at": row.at, "cpu": row.cpu, "memory": row.memory, "gpus": gpus, "lost": [x.gpu.id for x in machine.lost]}
