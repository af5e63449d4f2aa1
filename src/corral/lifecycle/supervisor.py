"""Which models are in memory: the one writer of that state.

    cold ──asked for──▶ queued ──▶ loading ──▶ ready ⇄ sleeping
                          │           │          └──unload, idle, evicted──▶ stopping ──▶ cold (queued, if asked for)
                          │           │          └──── the engine ended ────▶ failed (cold, with the reason)
                          └───────────┴── cannot be had ──▶ failed

Callers say what they need (`lease`) and never look before they leap. What happens is decided in one place: whenever
somebody waits and something has changed, `scheduler.decide` is asked about all of it, and its effects are applied
without an await in between, so that no two decisions are made from the same memory.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, cast

from corral.domain.ports import Clock, Progress, Report, silent
from corral.domain.states import State, Transition
from corral.errors import (
    CorralError,
    DoesNotFit,
    EngineStartFailed,
    EngineUnstable,
    InvalidName,
    NotFound,
    QueueFull,
)
from corral.lifecycle import scheduler, slots
from corral.lifecycle.arrivals import Arrivals
from corral.lifecycle.chronicle import Chronicle
from corral.lifecycle.engines import Engine, Entry, Gauge, Launch, NoGauge, Rules, Status
from corral.lifecycle.hands import Hands
from corral.lifecycle.restarts import Restarts
from corral.lifecycle.slots import Census, Slot
from corral.lifecycle.waiting import Line, Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

__all__ = ["Engine", "Entry", "Gauge", "Launch", "NoGauge", "Rules", "Status", "Supervisor"]

_LOOK_AGAIN = 2.0
"""Seconds after which memory that others had may be free."""
_RETRY_AFTER = 5.0
"""Seconds after which a queue that is full may have room."""


class Supervisor:
    """Loads models when they are asked for, once, and lets them go when nobody uses them or others need the room.

    Args:
        plan: how to start a model by name; may read files, and raises CorralError when the model cannot be had.
        clock: time.
        rules: what holds for all models; may be replaced at any time.
        gauge: knows and measures memory.
        stop_grace: seconds an engine may take to stop before it is killed.
        on_gone: told of every engine that ended or was stopped, to forget its connections.
    """

    def __init__(
        self,
        plan: Callable[[str], Awaitable[Launch]],
        clock: Clock,
        *,
        rules: Rules | None = None,
        gauge: Gauge | None = None,
        stop_grace: float = 5.0,
        on_gone: Callable[[Engine], None] = lambda _: None,
    ) -> None:
        self.rules = rules or Rules()
        self._plan = plan
        self._clock = clock
        self._gauge = gauge or NoGauge()
        self._hands = Hands(self, clock, self._gauge, stop_grace, on_gone)
        self._arrivals = Arrivals(self, plan, self._hands, self._gauge)
        self._slots: dict[str, Slot] = {}
        self._census = Census(self._slots, self._gauge)
        self._open: dict[str, Engine] = {}
        self._waiting = 0
        self._failures: dict[str, str] = {}
        self._restarts = Restarts(clock)
        self._chronicle = Chronicle(clock)
        self._changed = asyncio.Event()
        self._deciding = False
        self._recheck = inf
        self._closing = False

    def begin(self, model: str) -> Engine | None:
        """A use of `model` if it can answer now, else None. Whoever gets an engine must `end` it. The hot path."""
        engine = self._open.get(model)
        if engine is None or engine.full:
            return None
        engine.in_flight += 1
        return engine

    def end(self, engine: Engine, keep_alive: float | None = None) -> None:
        """A use is over. `keep_alive`, in seconds, is how long the engine may be unused from now on; None as before."""
        engine.served += 1
        self._chronicle.counters["request"] += 1
        self._release(engine, keep_alive)

    def _release(self, engine: Engine, keep_alive: float | None = None) -> None:
        engine.in_flight -= 1
        engine.last_used = self._clock.now()
        if keep_alive is not None and keep_alive != engine.keep_alive:
            engine.keep_alive = keep_alive
            self._changed.set()
        if not engine.in_flight:
            engine.drained.set()
        if self._waiting:
            self._freed(engine)

    async def acquire(self, model: str, report: Report = silent, *, priority: int | None = None) -> Engine:
        """A use of `model`, loading it first where needed. Whoever gets an engine must `end` it.

        One load serves all who ask; a caller that is cancelled leaves it to the others. Among those who wait, a higher
        `priority` goes first; None is the model's own.

        Raises:
            QueueFull: too many wait already.
            EngineUnstable: its engines keep ending, and it is not yet time to try again.
            DoesNotFit: this machine has not enough memory for it.
            CorralError: the model does not exist, or could not be loaded.
        """
        engine = self.begin(model)
        if engine is not None:
            return engine
        self._admissible(model)
        slot = self._slots.get(model) or self._enlist(model, Line())
        waiter = Waiter(self._clock.now(), self._priority(slot, priority), report)
        slot.line.join(waiter)
        slot.hinted_until = None
        self._waiting += 1
        self._open.pop(model, None)
        self.decide_soon()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._give_up(model, waiter)
            raise

    @asynccontextmanager
    async def lease(self, model: str, report: Report = silent) -> AsyncIterator[Engine]:
        """`acquire` and `end` around a block."""
        engine = await self.acquire(model, report)
        try:
            yield engine
        finally:
            self.end(engine)

    async def load(self, model: str, report: Report = silent, keep_alive: float | None = None) -> Engine:
        """Bring `model` into memory and leave it there, at once even where its engines kept ending.

        `keep_alive` in seconds is how long it may be unused from now on; None is as configured.
        """
        self._restarts.forget(model)
        engine = await self.acquire(model, report)
        self._release(engine, keep_alive)
        return engine

    def hint(self, model: str) -> None:
        """Somebody may soon ask for `model`: load it if there is memory that nobody holds. Does not wait."""
        if model not in self._slots and not self._closing and not self._restarts.wait(model):
            self._enlist(model, Line()).hinted_until = self._clock.now() + self.rules.patience

    async def unload(self, model: str, *, drain: float = 0.0, force: bool = False, reason: str = "asked to") -> bool:
        """Take `model` out of memory; False when it was not there. Answers under way get `drain` seconds to end.

        A caller that is cancelled while it waits for answers leaves the model in memory; a stop that has begun goes on.

        Raises:
            ModelBusy: it is still answering after `drain`, and `force` is not given. It stays in memory.
        """
        self.forget(model)
        slot = self._slots.get(model)
        if slot is None:
            return False
        while self._slots.get(model) is slot:  # else it is gone, and whatever has come since is not meant
            if slot.state in (State.QUEUED, State.LOADING):
                await self._arrivals.call_off(model, slot)
            elif slot.engine is not None and slot.stop is None and (slot.state is not State.STOPPING or force):
                await self._hands.leave(model, slot, slot.engine, drain, reason, force=force)
            else:
                await slot.stopped.wait()
        return True

    def forget(self, model: str) -> None:
        """Have no memory of how the model failed."""
        self._restarts.forget(model)
        self._failures.pop(model, None)

    def doubt(self, engine: Engine, reason: str) -> None:
        """Have a ready engine asked whether it is well, and stopped for `reason` when it is not. Does not wait."""
        slot = self._slots.get(engine.model)
        if slot is not None and slot.engine is engine and slot.state is State.READY:
            self._hands.spawn(self._hands.examine(slot, engine, reason))

    async def measure(self, engine: Engine) -> None:
        """Find out now what a new engine takes, where that is not known yet."""
        if not engine.footprint and not engine.remote:
            await self._hands.measure(engine)

    def outlook(self, model: str) -> tuple[Engine | None, float]:
        """The model's engine, if it has one, and for how many seconds none may be started because its engines end."""
        slot = self._slots.get(model)
        return (None, self._restarts.wait(model)) if slot is None else (slot.engine, 0.0)

    def statuses(self) -> list[Status]:
        """Every model that is not cold, and those whose last load failed."""
        found = [slots.status(model, slot, self._clock) for model, slot in self._slots.items()]
        found += [Status(m, State.FAILED, why, None) for m, why in self._failures.items() if m not in self._slots]
        return found

    def held(self) -> dict[str, int]:
        """Bytes of each device that count as taken by engines, those set aside for loads among them."""
        return self._census.held()

    def capacity(self) -> dict[str, int]:
        """Bytes of each device that engines may take; a device that is not named has no limit."""
        return dict(self._census.capacity())

    def log(self, model: str) -> tuple[str, ...] | None:
        """The last lines of the model's engine, of its last one when there is none, or why none could be started.

        None when there has been none.
        """
        slot = self._slots.get(model)
        engine = None if slot is None else slot.engine
        return self._chronicle.words(model) if engine is None else tuple(engine.session.log())

    def decisions(self, limit: int = 100) -> list[Entry]:
        """What was decided and done last, newest first."""
        return self._chronicle.last(limit)

    async def explain(self, model: str) -> scheduler.Explanation:
        """What would happen to a request for `model` now, and why.

        Raises:
            CorralError: there is no such model, or nothing here runs it.
        """
        slot = self._slots.get(model)
        launch = slot.launch if slot is not None and slot.launch is not None else await self._plan(model)
        return scheduler.explain(self._census.yard(self.rules), model, launch.placements, self._clock.now())

    @property
    def stop_grace(self) -> float:
        """Seconds an engine may take to stop before it is killed."""
        return self._hands.stop_grace

    @stop_grace.setter
    def stop_grace(self, seconds: float) -> None:
        self._hands.stop_grace = seconds

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each effect was decided, an engine ended by itself (`crash`), a use was over (`request`)."""
        return self._chronicle.counters

    def events(self) -> AsyncIterator[Transition | Entry]:
        """Every change of state and every decision from now on. A reader too slow by 256 of them loses the oldest."""
        return self._chronicle.listen()

    def hush(self) -> None:
        """End everyone's `events`: the server is about to stop, and would wait for who listens."""
        self._chronicle.tell(None)

    async def run(self) -> None:
        """Let idle models go, look again at who waits, and measure what runs, until cancelled."""
        measure_at = self._clock.now() + self.rules.measure_every
        measuring: asyncio.Task[None] | None = None
        while True:
            self._changed.clear()
            now = self._clock.now()
            for effect in scheduler.idle(self._census.views().values(), now):
                self._evict(effect)
            if now >= self._recheck:
                self._recheck = inf
                self.decide_soon()
            if now >= measure_at:
                measure_at = now + max(self.rules.measure_every, _LOOK_AGAIN)
                if measuring is None or measuring.done():  # a driver that hangs is not asked again meanwhile
                    measuring = self._hands.spawn(self._hands.measure_all(self._census.running()))
            due = min(self._recheck, measure_at if self._slots else inf)
            await self._pause(min(scheduler.next_check(self._census.views().values(), now), max(0.0, due - now)))

    async def close(self) -> None:
        """Stop every engine, and refuse to load another. Afterwards none is left."""
        self._closing = True
        while self._slots:
            unloads = (self.unload(model, force=True, reason="Corral is stopping") for model in list(self._slots))
            results = await asyncio.gather(*unloads, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        await self._hands.rest()

    # Asking

    def _admissible(self, model: str) -> None:
        """Refuse who need not begin to wait."""
        if self._closing:
            raise EngineStartFailed(f"Model {model!r} is not loaded: Corral is stopping.")
        if self._waiting >= self.rules.queue:
            raise QueueFull(
                f"{self._waiting} requests wait for models, and no more may.",
                "Ask again later, or raise engines.queue.",
                retry_after=_RETRY_AFTER,
            )
        if model not in self._slots and (wait := self._restarts.wait(model)):
            raise self._unstable(model, wait)

    def _priority(self, slot: Slot, wanted: int | None) -> int:
        if wanted is not None:
            return wanted
        return slot.launch.priority if slot.launch is not None else 0

    def _give_up(self, model: str, waiter: Waiter) -> None:
        """A request is withdrawn; what was begun for it goes on where others may want it."""
        if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
            self._release(waiter.future.result())
            return
        slot = self._slots.get(model)
        if slot is None or not slot.line.leave(waiter):
            return
        self._waiting -= 1
        if slot.state is State.QUEUED and not slot.line and slot.launch is not None:
            self.set_state(model, slot, State.COLD, "nobody waits for it any more")
        self.decide_soon()

    def _enlist(self, model: str, line: Line) -> Slot:
        """Open a slot for a model that is wanted, and find out what it needs."""
        slot = self._slots[model] = Slot(State.QUEUED, line, reason=f"{model} is not in memory")
        self._arrivals.plan(model, slot)
        return slot

    # Deciding

    def _freed(self, engine: Engine) -> None:
        """One answer less: give the next to whoever waits for this engine alone, else decide about everybody."""
        slot = self._slots.get(engine.model)
        if slot is None or slot.engine is not engine or slot.state is not State.READY:
            return
        if slot.line and self._waiting == len(slot.line) and not slot.room_for:
            self._admit(slot, engine, 1)
            self._open_or_not(engine.model, slot)
        elif slot.line or not engine.in_flight:
            self.decide_soon()

    def decide_soon(self) -> None:
        """Decide when everything that happens at this moment has happened."""
        if not self._deciding:
            self._deciding = True
            asyncio.get_running_loop().call_soon(self._decide)

    def _decide(self) -> None:
        self._deciding = False
        if self._closing:
            return
        now = self._clock.now()
        decision = scheduler.decide(self._census.yard(self.rules), now)
        held = {model: slot.room_for for model, slot in self._slots.items() if slot.room_for}
        for model in held:
            self._slots[model].room_for = ""
        for effect in decision.effects:
            self._carry_out(effect, held)
        for model, why in decision.waits.items():
            if model in self._slots:
                self._wait(model, self._slots[model], why)
        for model, slot in list(self._slots.items()):
            self._open_or_not(model, slot)
            if slot.hinted_until is not None and slot.state is State.QUEUED and now >= slot.hinted_until:
                self.set_state(model, slot, State.COLD, "there was no room for it in time")
        self._look_again_at(min(now + decision.recheck, self._next_look(now)))

    def _next_look(self, now: float) -> float:
        """When something may have changed that nobody tells of: others' memory, a hint that is too old."""
        waiting = any(slot.line and slot.state in (State.QUEUED, State.SLEEPING) for slot in self._slots.values())
        hints = (slot.hinted_until for slot in self._slots.values() if slot.state is State.QUEUED)
        return min(now + _LOOK_AGAIN if waiting else inf, *(until for until in hints if until is not None), inf)

    def _look_again_at(self, moment: float) -> None:
        if moment != self._recheck:
            self._recheck = moment
            self._changed.set()

    def _carry_out(self, effect: scheduler.Effect, held: Mapping[str, str]) -> None:
        slot = self._slots[effect.model]
        match effect:
            case scheduler.Admit(count=count) if slot.engine is not None:
                self._admit(slot, slot.engine, count)
            case scheduler.Load(model, placement, reason) if slot.launch is not None:
                self._chronicle.decided("load", model, reason)
                slot.placement = placement
                self.set_state(model, slot, State.LOADING, reason)
                self._arrivals.load(model, slot, slot.launch)
            case scheduler.Wake(model, reason):
                self._chronicle.decided("wake", model, reason)
                self.set_state(model, slot, State.LOADING, reason)
                self._arrivals.wake(model, slot, cast("Engine", slot.engine))
            case scheduler.Evict():
                self._evict(effect)
            case scheduler.Hold(model, reason, room_for):
                slot.room_for = room_for
                if held.get(model) != room_for:
                    self._chronicle.decided("hold", model, reason, room_for)
            case scheduler.Refuse(model, reason, hint):
                if self._passing(slot):
                    self._wait(model, slot, f"{reason}; others have some of it, which may pass")
                    return
                self._chronicle.decided("refuse", model, reason)
                error = slot.failed_for or DoesNotFit(reason, hint)
                if slot.engine is None:
                    self.fail(model, slot, error)
                else:  # it sleeps, or is leaving: it is still there
                    self.refuse(slot, error)

    def _passing(self, slot: Slot) -> bool:
        """Whether a model does not fit only because of what others take just now, and has not waited long for that."""
        since = slot.line.since
        waited = inf if since is None else self._clock.now() - since
        return waited < self.rules.patience and self._census.crowded(slot)

    def _wait(self, model: str, slot: Slot, why: str) -> None:
        if slot.state is State.QUEUED and slot.reason != why:
            self.set_state(model, slot, State.QUEUED, why)
            slot.line.tell(Progress("wait", detail=why))

    def _admit(self, slot: Slot, engine: Engine, count: int) -> None:
        now = self._clock.now()
        while count and slot.line:
            waiter = slot.line.next(now, self.rules.patience)
            self._waiting -= 1
            if waiter.future.done():  # withdrawn in this very moment: what was decided counted on it
                self.decide_soon()
                continue
            count -= 1
            engine.in_flight += 1
            waiter.future.set_result(engine)

    def _evict(self, effect: scheduler.Evict) -> None:
        slot = self._slots[effect.model]
        engine = cast("Engine", slot.engine)
        if effect.to is State.SLEEPING:
            self._chronicle.decided("sleep", effect.model, effect.reason, effect.room_for)
            engine.awake = False
            self.set_state(effect.model, slot, State.SLEEPING, effect.reason)
            slot.task = self._hands.spawn(self._hands.sleep(effect.model, slot, engine))
            return
        self._chronicle.decided("evict", effect.model, effect.reason, effect.room_for)
        self.set_state(effect.model, slot, State.STOPPING, effect.reason)
        self._hands.begin_stop(effect.model, slot, engine, effect.reason)

    # Changing

    def set_state(self, model: str, slot: Slot, state: State, reason: str) -> None:
        """The only place where a state changes; only `hands` calls this from outside."""
        slot.state = state
        slot.reason = reason
        if state is State.READY:
            self._failures.pop(model, None)
        self._open_or_not(model, slot)
        if state in (State.COLD, State.FAILED):
            self._slots.pop(model, None)
            if slot.engine is not None:
                self._chronicle.last_words(model, slot.engine.session.log())
            slot.stopped.set()
            self._failures.pop(model, None)
            if state is State.FAILED:
                self._failures[model] = reason
        self._changed.set()
        self._chronicle.tell(Transition(model, state, self._clock.wall(), reason))
        if state in (State.COLD, State.FAILED):
            self._share(slot)
            self._again(model, slot)
            self.decide_soon()

    def _share(self, gone: Slot) -> None:
        """Measure those again who shared a model's files with an engine that is gone: now they have them alone."""
        for engine in self._census.running():
            if gone.engine is not None and engine.revision is not None and engine.revision == gone.engine.revision:
                self._hands.spawn(self._hands.measure(engine))

    def _again(self, model: str, slot: Slot) -> None:
        """Whoever still waits for a model that has just left waits for the next of its engines."""
        if not slot.line:
            return
        wait = self._restarts.wait(model)
        if wait or self._closing:
            gone = EngineStartFailed(f"Model {model!r} is not loaded: Corral is stopping.")
            self.refuse(slot, self._unstable(model, wait) if wait else gone)
        else:
            # They had an engine: in the line for memory they stand anew.
            self._enlist(model, slot.line).lost = self._clock.now() if slot.engine is not None else slot.lost

    def _open_or_not(self, model: str, slot: Slot) -> None:
        """Let requests in without a decision exactly while nobody waits for the engine and it makes room for nobody."""
        if slot.state is State.READY and slot.engine is not None and not slot.line and not slot.room_for:
            self._open[model] = slot.engine
        else:
            self._open.pop(model, None)

    def refuse(self, slot: Slot, error: BaseException) -> None:
        """Tell all who wait that they wait in vain."""
        for waiter in slot.line.all():
            self._waiting -= 1
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def fail(self, model: str, slot: Slot, error: BaseException) -> None:
        """Tell all who wait, and give the model up; only `arrivals` calls this from outside."""
        self.refuse(slot, error)
        reason = error.message if isinstance(error, CorralError) else f"{type(error).__name__}: {error}"
        if slot.engine is None and slot.launch is not None:
            hint = error.hint if isinstance(error, CorralError) else ""
            self._chronicle.last_words(model, [line for line in (reason, hint) if line])
        # A name that nobody has is no model that failed.
        self.set_state(model, slot, State.COLD if isinstance(error, NotFound | InvalidName) else State.FAILED, reason)

    def ended_by_itself(self, model: str, why: str, lived: float) -> None:
        """Count an end that nobody asked for; only `hands` calls this from outside."""
        self._restarts.ended(model, why, lived, self.rules.restarts)
        self._chronicle.counters["crash"] += 1

    def _unstable(self, model: str, wait: float) -> EngineUnstable:
        ends = self._restarts.of(model)
        return EngineUnstable(
            f"The engine of {model!r} ended {ends.count} times in a row; the last time: {ends.why}",
            f"It is tried again in {wait:.0f} s, or at once by: corral load {model}",
            retry_after=wait,
        )

    async def _pause(self, seconds: float) -> None:
        """Wait until a state changes, or for `seconds`."""
        if seconds == inf:
            await self._changed.wait()
            return
        waits = {asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
