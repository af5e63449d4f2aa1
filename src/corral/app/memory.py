"""The memory of this machine: how much of it engines may take, what they do take, and what was learned of that."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from corral.app.fitness import allowed, rooms
from corral.errors import DoesNotFit
from corral.hardware.loss import Roll, called
from corral.lifecycle import footprint
from corral.lifecycle.recollection import Recollection, Subject, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from corral.config.settings import EngineSettings
    from corral.domain.hardware import Machine
    from corral.domain.memory import Demand, Placement
    from corral.domain.ports import Clock
    from corral.lifecycle.engines import Engine, Launch
    from corral.lifecycle.footprint import Room

_FRESH = 2.0
"""Seconds for which a look at the machine is good enough."""
_PATIENCE = 5.0
"""Seconds that are waited for a look: a driver may hang, and engines that need no GPU must not hang with it."""
_OWN = secrets.token_hex(4)
"""Tells the engines of this process from those of others with the same number."""


class Memory:
    """What the supervisor asks about memory (a `lifecycle.engines.Gauge`), and where a launch may be put.

    How much others take is looked at only while no engine is coming or going: in between, what an engine has been
    given and what it has taken already cannot be told apart. It is looked at in a thread, since a driver may take its
    time; only the first look, without which nothing is known, is not.

    Args:
        settings: `engines.memory` and `engines.reserve`; asked each time, since they may change.
        look: the machine now; blocks.
        recollection: what was measured before.
        clock: time.

    Attributes:
        news: called in the loop when the machine has been looked at again.
    """

    def __init__(
        self,
        settings: Callable[[], EngineSettings],
        look: Callable[[], Machine],
        recollection: Recollection,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._look = look
        self._recollection = recollection
        self._clock = clock
        self.news: Callable[[], None] = lambda: None
        self._roll = Roll()
        self._machine: Machine | None = None
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._seen_since: Machine | None = None
        self._steady = False
        self._private: dict[str, Mapping[str, int]] = {}
        self._revisions: dict[str, str | None] = {}
        self._others: dict[str, int] = {}
        self._saving: asyncio.Task[None] | None = None

    def capacity(self, *, settled: bool) -> Mapping[str, int]:
        """Bytes of each device that engines may take now; `settled`: none of them is coming, going or unmeasured."""
        if self._machine is None:
            self._looked_at = self._clock.now()
            self._take_over(self._look(), others=settled)
        elif not settled:
            self._unsettle()
        else:
            if self._seen_since is not None:
                self._take_over(self._seen_since, others=True)
            self._look_soon()
        found = {}
        for room in rooms(self._there):
            most = self._allowed(room)
            if most is not None and not room.unified:
                there = most if room.total is None else room.total - self._others.get(room.id, 0)
                found[room.id] = max(0, min(most, there)) if room.lost is None else 0
        return found

    async def look_again(self) -> None:
        """Have a fresh look at the machine for the next decision, as far as it lets itself be looked at.

        After this, `placements` does not block.
        """
        self._look_soon()
        await asyncio.to_thread(self._recollection.read)
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=_PATIENCE)

    def limits(self) -> Mapping[str, int]:
        """Bytes of each device that engines may take at most, whoever has them now."""
        return {room.id: room.total for room in self.rooms() if room.total is not None and room.lost is None}

    def rooms(self) -> list[Room]:
        """The devices, the best first, each with what engines may take of it at most, whoever has it now."""
        return [replace(room, total=self._allowed(room)) for room in rooms(self._there)]

    def remembered(self, launch: Launch) -> Mapping[str, Mapping[str, int]]:
        """What engines started so were found to take, by placement and device. The first time it may block."""
        return self._recollection.recall(_subject(launch))

    def taken(self, model: str) -> int | None:
        """Bytes that engines of a revision, by its id, took at most here; None: none ran. May read a small file."""
        return self._recollection.most(model)

    def placements(self, launch: Launch, demand: Demand, devices: Sequence[str] = ()) -> tuple[Placement, ...]:
        """Where an engine may be put, the best first. `devices` are those that its runtime can use; none is all.

        Raises:
            DoesNotFit: it would not fit this machine even if nothing else were in memory.
        """
        revision = launch.spec.revision
        facts, size = ({}, 0) if revision is None else (revision.facts, revision.size)
        there = [room for room in self.rooms() if room.id == "cpu" or _usable(room.id, devices)]
        remembered = self.remembered(launch)
        found = footprint.placements(facts, size, demand, there, remembered)
        ways = tuple(way for way in found if _usable(way.device, devices))
        limits = {room.id: room.total for room in there}
        if any(all(_within(taken, limits.get(device)) for device, taken in way.devices.items()) for way in ways):
            return ways
        refused = footprint.refusal(facts, size, demand, there)
        reason, hint = refused or ("what it took before is more than there is", "")
        raise DoesNotFit(f"Model {launch.spec.model!r} does not fit this machine: {reason}.", hint)

    async def measure(self, engine: Engine) -> Mapping[str, int]:
        """Bytes that an engine takes now: main memory as its session tells, GPUs as the driver does."""
        from corral.hardware import processes

        session = engine.session
        found = dict((await session.footprint()).devices)
        pids = await asyncio.to_thread(lambda: tuple(session.processes()))  # every process of the machine is looked at
        if pids:
            private = await asyncio.to_thread(processes.private, pids)
            on_gpus = await asyncio.to_thread(self._on_gpus, pids)
            own = {"cpu": private, **on_gpus}
        else:  # another's processes, such as a daemon's; of main memory, files that they only map may be most
            on_gpus = own = {device: size for device, size in found.items() if device != "cpu"}
        if not engine.gone.is_set():  # else it may have been forgotten in the meantime, and would never be again
            self._private[engine.id] = own
        return found | on_gpus

    def measured(self, engine: Engine) -> None:
        """Remember what an engine was found to take; not while it shares its files with another: then it seems less."""
        self._revisions[engine.id] = engine.revision
        if engine.revision is not None and list(self._revisions.values()).count(engine.revision) > 1:
            return
        place = footprint.key(engine.placement)
        self._recollection.remember(_subject(engine.launch), place, engine.peak, f"{_OWN}-{engine.id}")
        self._save_soon()

    def too_small(self, launch: Launch, placement: Placement) -> None:
        """Remember that so much memory did not suffice."""
        self._recollection.too_small(_subject(launch), footprint.key(placement), placement.devices)
        self._save_soon()

    def forget(self, engine: Engine) -> None:
        """The engine is gone."""
        self._unsettle()
        self._revisions.pop(engine.id, None)
        self._private.pop(engine.id, None)

    async def close(self) -> None:
        """Write down what was learned."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        if self._saving is not None:
            await self._saving
        await asyncio.to_thread(self._recollection.save)

    def _look_soon(self) -> None:
        """Begin to look at the machine, unless that was done a moment ago or is being done."""
        now = self._clock.now()
        if self._looking is None and (now - self._looked_at >= _FRESH or self._machine is None):
            self._looked_at, self._steady, self._seen_since = now, True, None
            self._looking = asyncio.ensure_future(self._look_aside())

    async def _look_aside(self) -> None:
        try:
            machine = await asyncio.to_thread(self._look)
        finally:
            self._looking = None
        if self._machine is None:
            self._take_over(machine, others=False)
        if self._steady:  # taken over by the next decision that finds nothing coming or going
            self._seen_since = machine
            self.news()

    def _unsettle(self) -> None:
        """A look that has been begun does not tell what others take: engines came or went while it was taken."""
        self._steady, self._seen_since = False, None

    @property
    def _there(self) -> Machine:
        """The machine as it was last seen; the first time, now."""
        if self._machine is None:
            self._take_over(self._look(), others=False)
        return cast("Machine", self._machine)

    def _take_over(self, machine: Machine, *, others: bool) -> None:
        """Go by this look from now on; a device that was there and is not counts as lost."""
        self._seen_since = None
        self._roll, self._machine, _ = called(self._roll, machine, self._clock.wall())
        if others:
            self._others = {room.id: self._taken_by_others(room) for room in rooms(self._machine)}

    def _on_gpus(self, pids: tuple[int, ...]) -> dict[str, int]:
        """Bytes that processes take of each GPU, as far as the driver tells. Blocks."""
        from corral.hardware import nvidia, probes

        found = probes.gpus()
        return nvidia.held(found, pids) or {} if found else {}

    def _allowed(self, room: Room) -> int | None:
        """What engines may take of a device at most; None when there is no telling."""
        settings = self._settings()
        return settings.memory.get(room.id) if room.total is None else allowed(room, settings).total

    def _taken_by_others(self, room: Room) -> int:
        if room.total is None or room.free is None:
            return 0
        ours = sum(devices.get(room.id, 0) for devices in self._private.values())
        return max(0, room.total - room.free - ours)

    def _save_soon(self) -> None:
        """Save once, for all that is learned within the same moment."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.ensure_future(asyncio.to_thread(self._recollection.save))


def _subject(launch: Launch) -> Subject:
    spec = launch.spec
    model = spec.model if spec.revision is None else spec.revision.id
    return Subject(model, launch.runtime.kind, digest(spec.options))


def _usable(device: str, by: Sequence[str]) -> bool:
    return not by or device in by or device.partition(":")[0] in by


def _within(size: int, limit: int | None) -> bool:
    return limit is None or size <= limit
