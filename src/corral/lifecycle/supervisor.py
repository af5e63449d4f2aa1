"""Which models are in memory: the one writer of that state.

    cold ──lease──▶ loading ──▶ ready ──unload, idle──▶ stopping ──▶ cold
                       │           └──── the engine ended ────▶ failed (cold, with the reason)
                       └── could not start ──▶ failed

Callers say what they need (`lease`) and never look before they leap: a decision and its effect are applied without an
await in between, so that two callers cannot both find a model cold and load it twice.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from corral.domain.ports import Clock, LaunchSpec, Progress, Report, Runtime, Session, silent
from corral.domain.states import State, Transition
from corral.errors import CorralError, EngineStartFailed, InvalidName, ModelBusy, NotFound
from corral.kit.upstream import Target
from corral.lifecycle import scheduler
from corral.lifecycle.scheduler import EngineView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

_EVENT_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a model: the runtime, what it is told, and how long the engine may idle (seconds)."""

    runtime: Runtime
    spec: LaunchSpec
    idle_timeout: float


@dataclass(slots=True, eq=False)
class Engine:
    """A model that is ready. `load_seconds` is how long that took; `loaded_at` is Unix seconds.

    `gone` is set once the engine has ended or was told to stop: whoever finds it broken may wait for that.
    """

    id: str
    model: str
    launch: Launch
    session: Session
    target: Target
    loaded_at: float
    load_seconds: float
    last_used: float
    in_flight: int = 0
    served: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runtime(self) -> str:
        """The runtime's kind."""
        return self.launch.runtime.kind

    @property
    def remote(self) -> bool:
        """Whether it is not a process of ours: it takes no memory here and cannot end."""
        return self.session.facts.device == "remote"

    @property
    def idle_timeout(self) -> float:
        """Seconds it may be unused; without end for what takes no memory here."""
        return inf if self.remote else self.launch.idle_timeout

    @property
    def revision(self) -> str | None:
        """The revision's identifier, for an engine that runs one."""
        return self.launch.spec.revision.id if self.launch.spec.revision else None


@dataclass(frozen=True, slots=True)
class Status:
    """One model as `ps` shows it. `idle_left` in seconds: None while busy or without a time-out."""

    model: str
    state: State
    reason: str
    engine: Engine | None
    idle_left: float | None


@dataclass(slots=True, eq=False)
class _Slot:
    """One model's place: exactly one per model that is not cold."""

    state: State
    task: asyncio.Task[Engine] | None = None
    engine: Engine | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    reports: list[Report] = field(default_factory=list)
    watch: asyncio.Task[None] | None = None
    stop: asyncio.Task[None] | None = None
    reason: str = ""

    def tell(self, progress: Progress) -> None:
        """Pass progress on to everyone who waits for this load."""
        for report in self.reports:
            report(progress)


class Supervisor:
    """Loads models when they are asked for, once, and lets them go when nobody uses them.

    Args:
        plan: how to start a model by name; may read files, and raises CorralError when the model cannot be had.
        clock: time.
        stop_grace: seconds an engine may take to stop before it is killed.
        on_gone: told of every engine that ended or was stopped, to forget its connections.
    """

    def __init__(
        self,
        plan: Callable[[str], Awaitable[Launch]],
        clock: Clock,
        *,
        stop_grace: float = 5.0,
        on_gone: Callable[[Engine], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._clock = clock
        self._stop_grace = stop_grace
        self._on_gone = on_gone
        self._slots: dict[str, _Slot] = {}
        self._ready: dict[str, Engine] = {}
        self._failures: dict[str, str] = {}
        self._listeners: set[asyncio.Queue[Transition | None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._count = 0
        self._closing = False

    def begin(self, model: str) -> Engine | None:
        """A use of `model` if it is ready now, else None. Whoever gets an engine must `end` it. The hot path."""
        engine = self._ready.get(model)
        if engine is not None:
            engine.in_flight += 1
        return engine

    def end(self, engine: Engine) -> None:
        """A use is over."""
        engine.in_flight -= 1
        engine.served += 1
        engine.last_used = self._clock.now()
        if not engine.in_flight:
            engine.drained.set()

    async def acquire(self, model: str, report: Report = silent) -> Engine:
        """A use of `model`, loading it first where needed. Whoever gets an engine must `end` it.

        One load serves all who ask; a caller that is cancelled leaves it to the others.

        Raises:
            CorralError: the model does not exist, or could not be loaded.
        """
        while True:
            engine = self.begin(model)
            if engine is not None:
                return engine
            slot = self._slots.get(model)
            if slot is None:
                await self._loaded(self._load(model, f"{model} is not in memory"), report)
            elif slot.state is State.LOADING:
                await self._loaded(slot, report)
            else:
                await slot.stopped.wait()

    @asynccontextmanager
    async def lease(self, model: str, report: Report = silent) -> AsyncIterator[Engine]:
        """`acquire` and `end` around a block."""
        engine = await self.acquire(model, report)
        try:
            yield engine
        finally:
            self.end(engine)

    async def load(self, model: str, report: Report = silent) -> Engine:
        """Bring `model` into memory and leave it there."""
        async with self.lease(model, report) as engine:
            return engine

    async def unload(self, model: str, *, drain: float = 0.0, force: bool = False, reason: str = "asked to") -> bool:
        """Take `model` out of memory; False when it was not there. Answers under way get `drain` seconds to end.

        A caller that is cancelled while it waits for answers leaves the model in memory; a stop that has begun goes on.

        Raises:
            ModelBusy: it is still answering after `drain`, and `force` is not given. It stays in memory.
        """
        slot = self._slots.get(model)
        if slot is None:
            self._failures.pop(model, None)
            return False
        while self._slots.get(model) is slot:  # else it is gone, and whatever has come since is not meant
            if slot.state is State.LOADING and slot.task is not None:
                slot.task.cancel()
                await asyncio.wait([slot.task])  # and look again: it may have become ready before it could be cancelled
            elif slot.engine is not None and (slot.state is State.READY or (force and slot.stop is None)):
                await self._leave(model, slot, slot.engine, drain, reason, force=force)
            else:
                await slot.stopped.wait()
        return True

    def doubt(self, engine: Engine, reason: str) -> None:
        """Have a ready engine asked whether it is well, and stopped for `reason` when it is not. Does not wait."""
        slot = self._slots.get(engine.model)
        if slot is not None and slot.engine is engine and slot.state is State.READY:
            self._spawn(self._examine(slot, engine, reason))

    def statuses(self) -> list[Status]:
        """Every model that is not cold, and those whose last load failed."""
        now = self._clock.now()
        found = []
        for model, slot in self._slots.items():
            engine = slot.engine
            left = None
            if engine is not None and not engine.in_flight and engine.idle_timeout < inf:
                left = max(0.0, engine.last_used + engine.idle_timeout - now)
            found.append(Status(model, slot.state, slot.reason, engine, left))
        found += [Status(m, State.FAILED, why, None, None) for m, why in self._failures.items() if m not in self._slots]
        return found

    async def events(self) -> AsyncIterator[Transition]:
        """Every change of state from now on. A reader too slow by 256 events loses the oldest."""
        queue: asyncio.Queue[Transition | None] = asyncio.Queue(_EVENT_BACKLOG)
        self._listeners.add(queue)
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._listeners.discard(queue)

    def hush(self) -> None:
        """End everyone's `events`: the server is about to stop, and would wait for who listens."""
        self._tell(None)

    async def run(self) -> None:
        """Let idle models go, until cancelled."""
        while True:
            self._changed.clear()
            now = self._clock.now()
            for effect in scheduler.idle(self._views().values(), now):
                slot = self._slots[effect.model]
                if slot.engine is not None:
                    self._set(effect.model, slot, State.STOPPING, effect.reason)
                    self._begin_stop(effect.model, slot, slot.engine, effect.reason)
            await self._pause(scheduler.next_check(self._views().values(), now))

    async def close(self) -> None:
        """Stop every engine, and refuse to load another. Afterwards none is left."""
        self._closing = True
        unloads = (self.unload(model, force=True, reason="Corral is stopping") for model in list(self._slots))
        results = await asyncio.gather(*unloads, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _views(self) -> dict[str, EngineView]:
        views = {}
        for model, slot in self._slots.items():
            engine = slot.engine
            if engine is None:
                views[model] = EngineView(model, slot.state)
            else:
                views[model] = EngineView(
                    model,
                    slot.state,
                    in_flight=engine.in_flight,
                    last_used=engine.last_used,
                    idle_timeout=engine.idle_timeout,
                )
        return views

    def _set(self, model: str, slot: _Slot, state: State, reason: str) -> None:
        """The only place where a state changes."""
        slot.state = state
        slot.reason = reason
        if state is State.READY and slot.engine is not None:
            self._ready[model] = slot.engine
            self._failures.pop(model, None)
        else:
            self._ready.pop(model, None)
        if state in (State.COLD, State.FAILED):
            self._slots.pop(model, None)
            slot.stopped.set()
            self._failures.pop(model, None)
            if state is State.FAILED:
                self._failures[model] = reason
        self._changed.set()
        transition = Transition(model, state, self._clock.wall(), reason)
        self._tell(transition)

    def _tell(self, transition: Transition | None) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(transition)

    def _load(self, model: str, reason: str) -> _Slot:
        if self._closing:
            raise EngineStartFailed(f"Model {model!r} is not loaded: Corral is stopping.")
        slot = _Slot(State.LOADING)
        self._slots[model] = slot
        self._set(model, slot, State.LOADING, reason)
        slot.task = asyncio.create_task(self._start(model, slot), name=f"load {model}")
        # Runs before anyone who waits for the task does, so that they find the state that their result implies.
        slot.task.add_done_callback(lambda task: self._settle(model, slot, task))
        return slot

    async def _start(self, model: str, slot: _Slot) -> Engine:
        started = self._clock.now()
        launch = await self._plan(model)
        session = await launch.runtime.start(launch.spec, slot.tell)
        try:
            target = Target.of(session.endpoint.url, session.endpoint.headers)
        except CorralError:
            await session.stop(self._stop_grace)
            raise
        now = self._clock.now()
        self._count += 1
        return Engine(
            id=f"{launch.runtime.kind}-{self._count}",
            model=model,
            launch=launch,
            session=session,
            target=target,
            loaded_at=self._clock.wall(),
            load_seconds=now - started,
            last_used=now,
        )

    def _settle(self, model: str, slot: _Slot, task: asyncio.Task[Engine]) -> None:
        if task.cancelled():
            self._set(model, slot, State.COLD, "the load was called off")
        elif isinstance(error := task.exception(), NotFound | InvalidName):
            self._set(model, slot, State.COLD, error.message)  # a name that nobody has is no model that failed
        elif error:
            reason = error.message if isinstance(error, CorralError) else f"{type(error).__name__}: {error}"
            self._set(model, slot, State.FAILED, reason)
        else:
            slot.engine = engine = task.result()
            self._set(model, slot, State.READY, f"loaded in {engine.load_seconds:.1f} s")
            slot.watch = self._spawn(self._watch(model, slot, engine))

    async def _loaded(self, slot: _Slot, report: Report) -> None:
        if slot.task is None:
            return
        slot.reports.append(report)
        try:
            await asyncio.shield(slot.task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise EngineStartFailed("The load was called off.", "Ask again to load it.") from None
        finally:
            slot.reports.remove(report)

    async def _watch(self, model: str, slot: _Slot, engine: Engine) -> None:
        reason = await engine.session.ended()
        engine.gone.set()
        if slot.state is State.READY:
            self._on_gone(engine)
            self._set(model, slot, State.FAILED, f"the engine ended: {reason}")
            await engine.session.stop(0)

    async def _leave(self, model: str, slot: _Slot, engine: Engine, drain: float, reason: str, *, force: bool) -> None:
        """Let answers end, then stop the engine; several callers may be in here at once, each with its own patience."""
        first = slot.state is State.READY
        if first:
            self._set(model, slot, State.STOPPING, reason)
        stop = False
        try:
            stop = await self._drained(engine, drain) or force
        finally:
            if slot.stop is None and (stop or engine.gone.is_set()):
                self._begin_stop(model, slot, engine, reason)
            elif slot.stop is None and first:
                self._set(model, slot, State.READY, "still answering")
                slot.stopped.set()
                slot.stopped = asyncio.Event()
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

    async def _examine(self, slot: _Slot, engine: Engine, reason: str) -> None:
        if not await engine.session.healthy() and slot.state is State.READY and slot.engine is engine:
            self._set(engine.model, slot, State.STOPPING, reason)
            self._begin_stop(engine.model, slot, engine, reason)

    def _begin_stop(self, model: str, slot: _Slot, engine: Engine, reason: str) -> None:
        """Stop the engine in a task of its own, so that no caller who leaves can leave half of it."""
        engine.gone.set()
        slot.stop = self._spawn(self._stop(model, slot, engine, reason))

    async def _stop(self, model: str, slot: _Slot, engine: Engine, reason: str) -> None:
        try:
            await engine.session.stop(self._stop_grace)
        finally:
            if slot.watch is not None:
                slot.watch.cancel()  # a remote engine never ends by itself
            self._on_gone(engine)
            self._set(model, slot, State.COLD, reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pause(self, seconds: float) -> None:
        """Wait until a state changes, or for `seconds`."""
        changed = asyncio.ensure_future(self._changed.wait())
        waits: set[asyncio.Future[Any]] = {changed}
        if seconds < inf:
            waits.add(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
