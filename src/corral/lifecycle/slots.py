"""One model's place in the supervisor, and how a decision sees it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from corral.domain.memory import Placement
from corral.domain.states import State
from corral.errors import OutOfMemory
from corral.lifecycle.engines import Engine, Gauge, Launch, Rules, Status
from corral.lifecycle.scheduler import EngineView, Queue, Yard
from corral.lifecycle.waiting import Line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.ports import Clock


@dataclass(slots=True, eq=False)
class Slot:
    """One model's place: exactly one per model that is not cold."""

    state: State
    line: Line
    launch: Launch | None = None
    placement: Placement = field(default_factory=Placement)
    engine: Engine | None = None
    task: asyncio.Task[Any] | None = None
    watch: asyncio.Task[None] | None = None
    stop: asyncio.Task[None] | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    hinted_until: float | None = None
    room_for: str = ""
    lost: float = -inf
    failed_for: OutOfMemory | None = None


def held(slot: Slot) -> Mapping[str, int]:
    """Bytes by device that count as taken by what is in the slot."""
    if slot.state is State.QUEUED:
        return {}
    if slot.engine is None:
        return slot.placement.devices
    if slot.state is not State.SLEEPING or slot.engine.asleep is None:
        return slot.engine.held
    if slot.task is None or slot.task.done():
        return slot.engine.asleep
    # On its way to sleep it may have both: what it gives back on one device it puts on another.
    there, then = slot.engine.held, slot.engine.asleep
    return {device: max(there.get(device, 0), then.get(device, 0)) for device in {**there, **then}}


def settled(slot: Slot) -> bool:
    """Whether what is in the slot takes as much as is known, neither more nor less in the next moment."""
    if slot.state is State.READY and slot.engine is not None:
        return bool(slot.engine.peak) or not slot.engine.placement.devices
    asleep = slot.state is State.SLEEPING and slot.engine is not None and slot.engine.asleep is not None
    return slot.state is State.QUEUED or (asleep and (slot.task is None or slot.task.done()))


def view(model: str, slot: Slot) -> EngineView:
    """The engine in the slot, as a decision sees it."""
    engine = slot.engine
    if engine is None:
        return EngineView(model, slot.state, held=held(slot), placement=slot.placement)
    return EngineView(
        model,
        slot.state,
        held=held(slot),
        in_flight=engine.in_flight,
        limit=engine.limit,
        last_used=engine.last_used,
        idle_timeout=engine.idle_timeout,
        load_seconds=engine.load_seconds,
        resident=engine.launch.resident,
        sleeps=engine.session.facts.sleeps,
        # Before it has slept once, nobody knows: as if all of it went to main memory.
        asleep={"cpu": sum(engine.held.values())} if engine.asleep is None else engine.asleep,
        placement=engine.placement,
        priority=engine.launch.priority,
        ready_at=engine.ready_at,
        yields_to=slot.room_for,
    )


def queue(model: str, slot: Slot) -> Queue | None:
    """Those who wait for the model, as a decision sees them; None when nobody does or its needs are not known yet."""
    hinted = slot.hinted_until is not None and slot.state is State.QUEUED
    if slot.launch is None or not (slot.line or hinted):
        return None
    since = slot.line.since
    return Queue(
        model,
        len(slot.line),
        0.0 if since is None else since,
        priority=slot.line.priority,
        placements=slot.launch.placements,
        hint=hinted and not slot.line,
        lost=slot.lost,
    )


def status(model: str, slot: Slot, clock: Clock) -> Status:
    """The slot as `ps` shows it."""
    engine, left = slot.engine, None
    now, wall = clock.now(), clock.wall()
    if engine is not None and not engine.in_flight and engine.idle_timeout < inf:
        left = max(0.0, engine.last_used + engine.idle_timeout - now)
    since = slot.line.since
    return Status(
        model,
        slot.state,
        slot.reason,
        engine,
        idle_left=left,
        waiting=len(slot.line),
        since=None if since is None else wall - (now - since),
        until=None if left is None else wall + left,
        held=held(slot),
        placement=slot.placement if slot.placement.devices else None,
        priority=slot.launch.priority if slot.launch is not None else 0,
    )


class Census:
    """Counts what is in all slots.

    Args:
        slots: by model; the supervisor's own, which changes.
        gauge: knows memory.
    """

    def __init__(self, slots: Mapping[str, Slot], gauge: Gauge) -> None:
        self._slots = slots
        self._gauge = gauge

    def held(self) -> dict[str, int]:
        """Bytes of each device that count as taken."""
        total: Counter[str] = Counter()
        for slot in self._slots.values():
            total.update(held(slot))
        return dict(total)

    def capacity(self) -> Mapping[str, int]:
        """Bytes of each device that engines may take now."""
        return self._gauge.capacity(settled=all(settled(slot) for slot in self._slots.values()))

    def crowded(self, slot: Slot) -> bool:
        """Whether others take some of a device that the model in the slot could stand on."""
        limits, capacity = self._gauge.limits(), self.capacity()
        placements = () if slot.launch is None else slot.launch.placements
        wanted = {device for placement in placements for device in placement.devices}
        return any(capacity.get(device, 0) < limits.get(device, 0) for device in wanted)

    def running(self) -> list[Engine]:
        """The engines that can be measured."""
        ready = (slot.engine for slot in self._slots.values() if slot.state is State.READY)
        return [engine for engine in ready if engine is not None and not engine.remote]

    def views(self) -> dict[str, EngineView]:
        """The engines, as a decision sees them."""
        return {model: view(model, slot) for model, slot in self._slots.items() if slot.state is not State.QUEUED}

    def yard(self, rules: Rules) -> Yard:
        """Everything that a decision is made from."""
        queues = {model: found for model, slot in self._slots.items() if (found := queue(model, slot))}
        return Yard(self.views(), queues, self.capacity(), rules.groups, rules.patience, rules.loads)
