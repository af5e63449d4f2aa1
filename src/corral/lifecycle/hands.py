"""What a decision makes of an engine: started, woken, watched, measured, put to sleep, stopped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from corral.domain.states import State
from corral.errors import CorralError, ModelBusy
from corral.kit.upstream import Target
from corral.lifecycle.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from corral.domain.ports import Clock, Sleeper
    from corral.lifecycle.engines import Gauge, Launch
    from corral.lifecycle.slots import Slot


class Owner(Protocol):
    """Whose hands they are: the one writer of states."""

    def set_state(self, model: str, slot: Slot, state: State, reason: str) -> None:
        """The slot is in that state now."""
        ...

    def decide_soon(self) -> None:
        """Something has changed for those who wait."""
        ...

    def ended_by_itself(self, model: str, why: str, lived: float) -> None:
        """An engine ended that nobody stopped, after so many seconds."""
        ...


class Hands:
    """Does what takes time, each in a task of its own where nobody may interrupt it.

    Args:
        owner: is told what comes of it.
        clock: time.
        gauge: measures memory.
        stop_grace: seconds an engine may take to stop before it is killed; may be changed.
        on_gone: told of every engine that ended or was stopped.
    """

    def __init__(
        self, owner: Owner, clock: Clock, gauge: Gauge, stop_grace: float, on_gone: Callable[[Engine], None]
    ) -> None:
        self.stop_grace = stop_grace
        self._owner = owner
        self._clock = clock
        self._gauge = gauge
        self._on_gone = on_gone
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    async def start(self, model: str, slot: Slot, launch: Launch) -> Engine:
        """Start the engine where the slot says, and return it once it answers."""
        started = self._clock.now()
        placement = slot.placement if launch.placements else None
        session = await launch.runtime.start(replace(launch.spec, placement=placement), slot.line.tell)
        try:
            target = Target.of(session.endpoint.url, session.endpoint.headers)
        except CorralError:
            await session.stop(self.stop_grace)
            raise
        now = self._clock.now()
        self._count += 1
        engine = Engine(
            id=f"{launch.runtime.kind}-{self._count}",
            model=model,
            launch=launch,
            session=session,
            target=target,
            placement=slot.placement,
            loaded_at=self._clock.wall(),
            load_seconds=now - started,
            last_used=now,
            ready_at=now,
        )
        engine.go_by(launch)
        return engine

    async def wake(self, engine: Engine, before: asyncio.Task[Any] | None) -> Engine:
        """Have a sleeping engine answer again; `before` is its way to sleep, which may not be over."""
        if before is not None:
            await asyncio.wait([before])  # it may still be on its way to sleep
        try:
            await cast("Sleeper", engine.session).wake()
        except CorralError:
            engine.gone.set()
            await engine.session.stop(self.stop_grace)
            self._on_gone(engine)
            raise
        engine.awake = True
        engine.last_used = engine.ready_at = self._clock.now()
        return engine

    async def watch(self, model: str, slot: Slot, engine: Engine) -> None:
        """Wait until the engine ends by itself, and tidy up after it."""
        reason = await engine.session.ended()
        engine.gone.set()
        if slot.state in (State.READY, State.SLEEPING):
            self._on_gone(engine)
            self._owner.ended_by_itself(model, reason, self._clock.wall() - engine.loaded_at)
            self._owner.set_state(model, slot, State.FAILED, f"the engine ended: {reason}")
            await engine.session.stop(0)
        elif slot.state is State.LOADING:  # it was waking
            self._on_gone(engine)
            await engine.session.stop(0)

    async def measure(self, engine: Engine) -> None:
        """Find out what the engine takes, and remember it; not what it takes when it went to sleep meanwhile."""
        devices = await self._gauge.measure(engine)
        if devices and engine.awake and not engine.gone.is_set():
            before = engine.held
            engine.note(devices)
            self._gauge.measured(engine)
            if engine.held != before:
                self._owner.decide_soon()

    async def measure_all(self, engines: Sequence[Engine]) -> None:
        """As `measure`, one after the other."""
        for engine in engines:
            if engine.awake and not engine.gone.is_set():
                await self.measure(engine)

    async def examine(self, slot: Slot, engine: Engine, reason: str) -> None:
        """Stop the engine for `reason` if it is not well."""
        if not await engine.session.healthy() and slot.state is State.READY and slot.engine is engine:
            self._owner.set_state(engine.model, slot, State.STOPPING, reason)
            self.begin_stop(engine.model, slot, engine, reason)

    async def sleep(self, model: str, slot: Slot, engine: Engine) -> None:
        """Have the engine give back its memory; stop it if it cannot."""
        try:
            await cast("Sleeper", engine.session).sleep()
        except CorralError as error:
            if slot.state is State.SLEEPING:
                self._owner.set_state(model, slot, State.STOPPING, f"it could not sleep: {error.message}")
                self.begin_stop(model, slot, engine, error.message)
            return
        engine.asleep = await self._gauge.measure(engine)
        self._owner.decide_soon()

    async def leave(self, model: str, slot: Slot, engine: Engine, drain: float, reason: str, *, force: bool) -> None:
        """Let answers end, then stop the engine; several callers may be in here at once, each with its own patience."""
        before = slot.state
        if before is not State.STOPPING:
            self._owner.set_state(model, slot, State.STOPPING, reason)
        stop = False
        try:
            stop = await self._drained(engine, drain) or force
        finally:
            over = slot.state in (State.COLD, State.FAILED)  # it ended by itself, after another had given up
            if slot.stop is None and not over and (stop or engine.gone.is_set()):
                if slot.state is not State.STOPPING:
                    self._owner.set_state(model, slot, State.STOPPING, reason)
                self.begin_stop(model, slot, engine, reason)
            elif slot.stop is None and not over and before is not State.STOPPING:
                self._owner.set_state(model, slot, before, "still answering")
                slot.stopped.set()
                slot.stopped = asyncio.Event()
                self._owner.decide_soon()
        if over:
            return
        if slot.stop is None:
            raise ModelBusy(
                f"Model {model!r} is answering {engine.in_flight} request(s).", "Try later, or force it with --force."
            )
        await asyncio.shield(slot.stop)

    async def _drained(self, engine: Engine, seconds: float) -> bool:
        """Whether nothing is under way, once that is so, the engine is gone, or the time is over."""
        if engine.in_flight and seconds > 0:
            engine.drained.clear()
            waits = [
                asyncio.ensure_future(wait)
                for wait in (engine.drained.wait(), engine.gone.wait(), self._clock.sleep(seconds))
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return not engine.in_flight

    def begin_stop(self, model: str, slot: Slot, engine: Engine, reason: str) -> None:
        """Stop the engine in a task of its own, so that no caller who leaves can leave half of it."""
        engine.gone.set()
        slot.stop = self.spawn(self._stop(model, slot, engine, reason))

    async def _stop(self, model: str, slot: Slot, engine: Engine, reason: str) -> None:
        try:
            await engine.session.stop(self.stop_grace)
        finally:
            if slot.watch is not None:
                slot.watch.cancel()  # a remote engine never ends by itself
            self._on_gone(engine)
            self._owner.set_state(model, slot, State.COLD, reason)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it in a task of its own."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def rest(self) -> None:
        """Wait for everything that is still being done."""
        if self._tasks:
            await asyncio.wait(self._tasks)
