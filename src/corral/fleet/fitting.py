"""Limits on memory that follow what a container's models take: worked out once they are known, set while it runs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from corral.errors import ContainerError, ContainerNotFound
from corral.fleet.limits import Limits, Need, above, limits
from corral.fleet.looking import looked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corral.domain.containers import ContainerEngine, Seen, Wanted
    from corral.domain.standings import Health, ModelInside
    from corral.fleet.observing import Observer

_log = logging.getLogger("corral.containers")


def unknown(_: str) -> int | None:
    """Nobody knows what any model takes but the server that has it."""
    return None


class Fitter:
    """Gives containers with `memory: auto` the limit that their models need. Creating it does no I/O.

    Args:
        observer: knows the containers, and is told of each limit.
        engine: sets them.
        taken: bytes that a model by this name was found to take on this machine; None: nobody knows.
    """

    def __init__(
        self,
        observer: Observer,
        engine: Callable[[], ContainerEngine],
        taken: Callable[[str], int | None] = unknown,
    ) -> None:
        self._observer = observer
        self._engine = engine
        self._taken = taken
        self._machine: int | None = None
        self._refused: set[tuple[str, int]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def fit(self, name: str) -> None:
        """Set its limit, where it has another one than its models need. That it cannot be is logged, once.

        What somebody sets by hand meanwhile is no less than what was there before: it is worked out anew from that.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            try:
                while not await self._fitted(name):
                    pass
            except ContainerNotFound:
                return  # the events say so too, and better
            except ContainerError as error:
                _log.warning("container %s: its memory is not limited: %s", name, error)

    async def _fitted(self, name: str) -> bool:
        """Whether nothing is left to do; else it is not as it was known to be, and by now it is known how it is."""
        known = self._observer.known.get(name)
        if known is None or known.want is None or known.seen is None or known.health is None:
            return True
        want, seen = known.want, known.seen
        if not (want.spec.fitted and seen.running and known.health.healthy):
            return True
        if not seen.detailed:
            await self._look(name, seen.id)
            return False
        found = await self._worked_out(want, seen, known.health)
        if found.memory is None or found.memory == seen.memory:
            return True
        now = await self._look(name, seen.id)
        if now is None or now.memory != seen.memory:
            return False
        try:
            await self._engine().limit(seen.id, memory=found.memory)
        except ContainerError:
            self._refused.add((seen.id, found.memory))
            raise
        await self._look(name, seen.id)
        self._observer.limited(name, found.memory, found.reason)
        return True

    async def _worked_out(self, want: Wanted, seen: Seen, health: Health) -> Limits:
        """What it is to have, and can have without being ended for what it takes already."""
        engine = self._engine()
        if self._machine is None:
            self._machine = (await engine.info()).memory
        found = limits(self._needs(want, health.models), self._machine, had=seen.memory)
        if found.memory is None or found.memory == seen.memory or (seen.id, found.memory) in self._refused:
            return replace(found, memory=None)
        if seen.memory is None or found.memory < seen.memory:
            usage = await engine.usage(seen.id)  # takes a while
            found = above(found, None if usage is None else usage.memory, seen.memory)
        return found

    async def _look(self, name: str, container: str) -> Seen | None:
        seen, asked = await looked(self._observer, self._engine(), name, container)
        return self._observer.observe(name, seen=seen, asked=asked).seen

    def _needs(self, want: Wanted, models: Sequence[ModelInside]) -> list[Need | None]:
        """What each model takes that it is to have, or has loaded; without any that it is to have, all of them."""
        there = {model.name: model for model in models}
        names = {_full(name, there): None for name in want.models or there}
        names |= {model.name: None for model in models if model.loaded}
        return [self._need(name, there.get(name)) for name in names]

    def _need(self, name: str, model: ModelInside | None) -> Need | None:
        """By its weights, in the machine's memory even where a GPU has them: it may have to do without one."""
        sizes = [self._taken(name), None if model is None else model.size]
        known = [size for size in sizes if size]
        return Need(max(known), (model.in_gpu if model else None) or 0) if known else None


def _full(name: str, there: dict[str, ModelInside]) -> str:
    """The name by which the server has it: without a tag it is the latest."""
    return name if name in there or ":" in name.rpartition("/")[2] else f"{name}:latest"
