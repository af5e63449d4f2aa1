"""Health: each container that runs is asked by its models' own API, oftener while it starts, a few at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.domain.standings import ContainerState, Health
from corral.errors import ContainerNotFound, DockerUnavailable
from corral.fleet.asking import asker_of
from corral.fleet.fitting import Fitter, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from corral.domain.containers import ContainerEngine, Seen, Wanted
    from corral.domain.ports import Clock
    from corral.fleet.observing import Known, Observer

AT_ONCE = 8
"""Containers that are asked at the same time."""

_FIRST = 0.1
"""Seconds between two looks at a container that has just been started; each is half as long again as the one before."""
_SLOWER = 1.5
_STARTING = 2.0
"""Seconds between two looks at one that takes long to start, at most."""


@dataclass(slots=True)
class _Next:
    """When a container is asked next, on the clock that never goes back, and how long that was put off."""

    id: str | None
    at: float
    pause: float


class Prober:
    """Asks containers how they are, and says so to the observer. Creating it does no I/O.

    Args:
        observer: told of every answer.
        engine: tells what a container has on GPUs.
        wanted: what the configuration wants, by name.
        clock: time.
        taken: bytes that a model by this name was found to take on this machine; None: nobody knows.
    """

    def __init__(
        self,
        observer: Observer,
        engine: Callable[[], ContainerEngine],
        wanted: Callable[[], Mapping[str, Wanted]],
        clock: Clock,
        taken: Callable[[str], int | None] = unknown,
    ) -> None:
        self._observer = observer
        self._engine = engine
        self._wanted = wanted
        self._clock = clock
        self._fitter = Fitter(observer, engine, taken)
        self._next: dict[str, _Next] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def check(self, name: str, *, generate: bool = False) -> Health | None:
        """Ask it now, and take the answer in; None where it does not run, or has no address to be asked at.

        Never raises for what the container does.
        """
        want, known = self._wanted().get(name), self._observer.known.get(name)
        asker = None if want is None else asker_of(want, self._clock)
        if want is None or known is None or asker is None or not _runs(known):
            return None
        about = known.seen
        async with self._room:
            health = await asker.examine(want.models, timeout=want.watch.timeout, generate=generate)
            memory = await self._gpu_memory(known) if want.watch.gpu and _loaded(health) else None
        now = known.seen
        if about is None or now is None or not _same(about, now) or not _runs(known):
            return None  # what answered, or did not, is no longer what is there
        self._observer.observe(name, health=health, gpu_memory=memory)
        await self._fitter.fit(name)
        return health

    def due(self) -> list[str]:
        """Who is to be asked now; each is put off until its next time."""
        now, found = self._clock.now(), []
        for name, known in self._observer.known.items():
            moment = self._moment(name, known)
            if moment is not None and moment <= now:
                found.append(name)
                self._put_off(name, known)
        for name in self._next.keys() - self._observer.known.keys():
            del self._next[name]
        return found

    def wait(self) -> float | None:
        """Seconds until somebody is to be asked; None: nobody is."""
        moments = [self._moment(name, known) for name, known in self._observer.known.items()]
        there = [moment for moment in moments if moment is not None]
        return max(0.0, min(there) - self._clock.now()) if there else None

    def _moment(self, name: str, known: Known) -> float | None:
        want = self._wanted().get(name)
        if want is None or not want.spec.ports or not _runs(known):
            self._next.pop(name, None)
            return None
        run = f"{known.past.id}:{known.past.started_at}"
        following = self._next.get(name)
        if following is None or following.id != run:
            following = self._next[name] = _Next(run, self._clock.now() + _FIRST, _FIRST)
        return following.at

    def _put_off(self, name: str, known: Known) -> None:
        following, every = self._next[name], self._wanted()[name].watch.every
        if known.standing.state is ContainerState.STARTING:
            following.pause = min(following.pause * _SLOWER, _STARTING, every)
            following.at = self._clock.now() + following.pause
        else:
            following.at = self._clock.now() + every

    async def _gpu_memory(self, known: Known) -> int | None:
        if known.seen is None:
            return None
        try:
            usage = await self._engine().usage(known.seen.id)
        except (ContainerNotFound, DockerUnavailable):
            return None  # the events say so too, and better
        return None if usage is None else usage.gpu_memory


def _same(before: Seen, after: Seen) -> bool:
    """Whether it is one container, and not started anew meanwhile as far as that is known: a list does not tell."""
    unknown = before.started_at is None or after.started_at is None
    return before.id == after.id and (unknown or before.started_at == after.started_at)


def _runs(known: Known) -> bool:
    seen = known.seen
    return seen is not None and seen.running and not seen.paused and known.standing.state is not ContainerState.UNKNOWN


def _loaded(health: Health) -> bool:
    return any(model.loaded for model in health.models)
