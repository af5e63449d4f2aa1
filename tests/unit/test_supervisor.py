"""The one writer of what is in memory, over an in-memory runtime and a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import pytest

from corral.domain.models import check_name
from corral.domain.ports import Availability, Endpoint, Footprint, LaunchSpec, Progress, Report, SessionFacts
from corral.domain.states import State, Transition
from corral.errors import CorralError, EngineStartFailed, InvalidName, ModelBusy, ModelNotFound
from corral.lifecycle.supervisor import Engine, Launch, Supervisor
from support.clocks import HandClock, settle


@dataclass(frozen=True)
class NoOptions:
    pass


@dataclass
class MemorySession:
    """An engine that is only a value; it ends when told, or when the test says so."""

    facts: SessionFacts = field(default_factory=lambda: SessionFacts(context=128))
    endpoint: Endpoint = field(default_factory=lambda: Endpoint("http://127.0.0.1:9/v1"))
    stops: int = 0
    end: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = "stopped"

    async def healthy(self) -> bool:
        return not self.end.is_set()

    async def footprint(self) -> Footprint:
        return Footprint({"cpu": 1})

    def processes(self) -> Sequence[int]:
        return ()

    async def ended(self) -> str:
        await self.end.wait()
        return self.reason

    def log(self) -> Sequence[str]:
        return []

    async def stop(self, grace: float) -> None:
        self.stops += 1
        self.end.set()

    def die(self, reason: str) -> None:
        self.reason = reason
        self.end.set()


class MemoryRuntime:
    """Starts sessions when the test opens the gate."""

    kind = "memory"
    options = NoOptions
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities: frozenset = frozenset()

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.sessions: list[MemorySession] = []
        self.failure: Exception | None = None
        self.calls = 0

    async def probe(self) -> Availability:
        return Availability(usable=True)

    def demand(self, spec: LaunchSpec) -> None:
        return None

    async def start(self, spec: LaunchSpec, report: Report) -> MemorySession:
        self.calls += 1
        report(Progress("load", 1, 2))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.sessions.append(MemorySession())
        return self.sessions[-1]


class Yard:
    """A supervisor with its runtime, clock and the engines it gave up."""

    def __init__(self, idle_timeout: float = 60.0) -> None:
        self.runtime = MemoryRuntime()
        self.clock = HandClock()
        self.gone: list[Engine] = []
        self.idle_timeout = idle_timeout
        self.removed = {"nobody"}
        self.supervisor = Supervisor(self.plan, self.clock, on_gone=self.gone.append)

    async def plan(self, model: str) -> Launch:
        if check_name(model) in self.removed:
            raise ModelNotFound.among(model, ["somebody"])
        return Launch(self.runtime, LaunchSpec(model, NoOptions()), self.idle_timeout)

    def state(self, model: str = "m") -> State:
        return next((s.state for s in self.supervisor.statuses() if s.model == model), State.COLD)


async def test_ten_askers_cause_one_load() -> None:
    yard = Yard()
    askers = [asyncio.create_task(yard.supervisor.acquire("m")) for _ in range(10)]
    await settle()
    assert yard.runtime.calls == 1
    assert yard.state() is State.LOADING
    yard.runtime.gate.set()
    engines = await asyncio.gather(*askers)
    assert len({id(engine) for engine in engines}) == 1
    assert engines[0].in_flight == 10
    await yard.supervisor.close()


async def test_progress_reaches_everyone_who_waits() -> None:
    yard = Yard()
    seen: list[Progress] = []
    first = asyncio.create_task(yard.supervisor.load("m", seen.append))
    await settle()
    yard.runtime.gate.set()
    await first
    assert seen == [Progress("load", 1, 2)]
    await yard.supervisor.close()


async def test_a_caller_that_leaves_does_not_stop_the_load() -> None:
    yard = Yard()
    leaver = asyncio.create_task(yard.supervisor.acquire("m"))
    await settle()
    leaver.cancel()
    await settle()
    assert leaver.cancelled()
    yard.runtime.gate.set()
    engine = await yard.supervisor.acquire("m")
    assert yard.runtime.calls == 1
    assert engine.in_flight == 1
    await yard.supervisor.close()


async def test_a_failed_load_reaches_all_and_the_next_asker_tries_again() -> None:
    yard = Yard()
    yard.runtime.failure = EngineStartFailed("no good")
    askers = [asyncio.create_task(yard.supervisor.acquire("m")) for _ in range(3)]
    await settle()
    yard.runtime.gate.set()
    results = await asyncio.gather(*askers, return_exceptions=True)
    assert [str(r) for r in results] == ["no good"] * 3
    assert yard.state() is State.FAILED
    yard.runtime.failure = None
    assert (await yard.supervisor.load("m")).model == "m"
    assert yard.state() is State.READY
    await yard.supervisor.close()


async def test_an_unknown_model_fails_with_its_hint() -> None:
    yard = Yard()
    with pytest.raises(ModelNotFound, match="somebody"):
        await yard.supervisor.acquire("nobody")


async def test_a_bug_in_a_runtime_is_shown_and_leaves_no_loading_model() -> None:
    yard = Yard()
    yard.runtime.failure = ZeroDivisionError("oops")
    yard.runtime.gate.set()
    with pytest.raises(ZeroDivisionError):
        await yard.supervisor.load("m")
    status = yard.supervisor.statuses()[0]
    assert (status.state, status.reason) == (State.FAILED, "ZeroDivisionError: oops")


async def test_an_idle_model_leaves_after_its_time_and_a_busy_one_stays() -> None:
    yard = Yard(idle_timeout=60)
    yard.runtime.gate.set()
    runner = asyncio.create_task(yard.supervisor.run())
    await settle()
    engine = await yard.supervisor.acquire("m")
    await yard.clock.advance(600)
    assert yard.state() is State.READY
    yard.supervisor.end(engine)
    await yard.clock.advance(59)
    assert yard.state() is State.READY
    await yard.clock.advance(2)
    assert yard.state() is State.COLD
    assert yard.runtime.sessions[0].stops == 1
    assert yard.gone == [engine]
    runner.cancel()
    await asyncio.wait([runner])


async def test_a_model_without_time_out_stays() -> None:
    yard = Yard(idle_timeout=inf)
    yard.runtime.gate.set()
    runner = asyncio.create_task(yard.supervisor.run())
    await yard.supervisor.load("m")
    await yard.clock.advance(1e9)
    assert yard.state() is State.READY
    assert yard.supervisor.statuses()[0].idle_left is None
    runner.cancel()
    await asyncio.wait([runner])
    await yard.supervisor.close()


async def test_an_engine_that_dies_is_forgotten_and_loaded_again() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    engine = await yard.supervisor.load("m")
    yard.runtime.sessions[0].die("killed by SIGKILL")
    await settle()
    assert engine.gone.is_set()
    assert yard.gone == [engine]
    status = yard.supervisor.statuses()[0]
    assert status.state is State.FAILED
    assert "SIGKILL" in status.reason
    again = await yard.supervisor.load("m")
    assert again is not engine
    await yard.supervisor.close()


async def test_unload_waits_for_answers_under_way() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    engine = await yard.supervisor.acquire("m")
    leaving = asyncio.create_task(yard.supervisor.unload("m", drain=30))
    await settle()
    assert yard.state() is State.STOPPING
    waiting = asyncio.create_task(yard.supervisor.acquire("m"))
    await settle()
    assert not waiting.done()
    yard.supervisor.end(engine)
    assert await leaving is True
    assert (await waiting) is not engine
    await yard.supervisor.close()


async def test_unload_of_a_busy_model_is_refused_and_leaves_it_usable() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    engine = await yard.supervisor.acquire("m")
    leaving = asyncio.create_task(yard.supervisor.unload("m", drain=30))
    await settle()
    waiting = asyncio.create_task(yard.supervisor.acquire("m"))
    await yard.clock.advance(31)
    with pytest.raises(ModelBusy):
        await leaving
    assert (await waiting) is engine
    assert yard.state() is State.READY
    await yard.supervisor.close()


async def test_unload_by_force_does_not_wait_longer_than_told() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    await yard.supervisor.acquire("m")
    leaving = asyncio.create_task(yard.supervisor.unload("m", drain=5, force=True))
    await settle()
    assert not leaving.done()
    await yard.clock.advance(6)
    assert await leaving is True
    assert yard.state() is State.COLD


async def test_unload_while_loading_calls_the_load_off() -> None:
    yard = Yard()
    asker = asyncio.create_task(yard.supervisor.acquire("m"))
    await settle()
    assert await yard.supervisor.unload("m") is True
    with pytest.raises(EngineStartFailed, match="called off"):
        await asker
    assert yard.state() is State.COLD
    assert await yard.supervisor.unload("m") is False


async def test_an_engine_that_dies_while_draining_is_gone_not_back() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    await yard.supervisor.acquire("m")
    leaving = asyncio.create_task(yard.supervisor.unload("m", drain=30))
    await settle()
    yard.runtime.sessions[0].die("crashed")
    await settle()
    await yard.clock.advance(31)
    assert await leaving is True
    assert yard.state() is State.COLD


async def test_events_tell_the_whole_story_in_order() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    seen: list[State] = []

    async def listen() -> None:
        async for change in yard.supervisor.events():
            told(change)

    def told(change: object) -> None:
        if isinstance(change, Transition):
            seen.append(change.state)

    listener = asyncio.create_task(listen())
    await settle()
    await yard.supervisor.load("m")
    await yard.supervisor.unload("m", reason="enough")
    await settle()
    assert seen == [State.LOADING, State.READY, State.STOPPING, State.COLD]
    listener.cancel()
    await asyncio.wait([listener])


async def test_after_close_nothing_is_loaded() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    await yard.supervisor.load("m")
    await yard.supervisor.close()
    assert yard.runtime.sessions[0].stops == 1
    with pytest.raises(CorralError, match="stopping"):
        await yard.supervisor.acquire("m")


async def test_close_does_not_wait_for_an_engine_that_never_ends() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    engine = await yard.supervisor.load("m")

    async def stays(grace: float) -> None:
        """As a remote engine: stopping it ends nothing."""

    engine.session.stop = stays  # type: ignore[method-assign]
    await yard.supervisor.close()
    assert yard.state() is State.COLD


async def test_a_model_that_does_not_exist_leaves_no_trace() -> None:
    yard = Yard()
    with pytest.raises(ModelNotFound):
        await yard.supervisor.acquire("nobody")
    assert yard.supervisor.statuses() == []


async def test_unload_in_the_moment_the_load_ends_still_unloads() -> None:
    yard = Yard()
    asker = asyncio.create_task(yard.supervisor.load("m"))
    await settle()
    yard.runtime.gate.set()
    await asyncio.sleep(0)  # the load has ended, and nobody has been told yet
    assert yard.runtime.sessions
    assert yard.state() is State.LOADING
    assert await yard.supervisor.unload("m", drain=1) is True
    assert yard.state() is State.COLD
    assert yard.runtime.sessions[0].stops == 1
    await asyncio.wait([asker])


async def test_an_unload_that_is_cancelled_leaves_the_model_usable() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    engine = await yard.supervisor.acquire("m")
    leaving = asyncio.create_task(yard.supervisor.unload("m", drain=30))
    await settle()
    waiting = asyncio.create_task(yard.supervisor.acquire("m"))
    await settle()
    leaving.cancel()
    await settle()
    assert leaving.cancelled()
    assert yard.state() is State.READY
    assert (await waiting) is engine
    await yard.supervisor.close()
    assert yard.state() is State.COLD


async def test_an_unload_cancelled_after_its_engine_died_does_not_bring_it_back() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    await yard.supervisor.acquire("m")
    leaving = asyncio.create_task(yard.supervisor.unload("m", drain=30))
    await settle()
    yard.runtime.sessions[0].die("crashed")
    await settle()
    leaving.cancel()
    await settle()
    assert yard.state() is State.COLD


async def test_a_stop_that_has_begun_goes_on_without_whoever_asked_for_it() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    engine = await yard.supervisor.load("m")
    session, finish = yard.runtime.sessions[0], asyncio.Event()

    class Slow(MemorySession):
        async def stop(self, grace: float) -> None:
            await finish.wait()
            await session.stop(grace)

    engine.session = Slow()
    leaving = asyncio.create_task(yard.supervisor.unload("m"))
    await settle()
    leaving.cancel()
    await settle()
    assert leaving.cancelled()
    assert yard.state() is State.STOPPING
    finish.set()
    await settle()
    assert yard.state() is State.COLD
    assert session.stops == 1


async def test_force_cuts_short_an_unload_that_waits() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    await yard.supervisor.acquire("m")
    patient = asyncio.create_task(yard.supervisor.unload("m", drain=3600))
    await settle()
    assert await yard.supervisor.unload("m", force=True) is True
    assert yard.runtime.sessions[0].stops == 1
    assert await asyncio.wait_for(patient, 10) is True
    assert yard.state() is State.COLD


async def test_close_does_not_wait_for_an_unload_that_waits() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    await yard.supervisor.acquire("m")
    patient = asyncio.create_task(yard.supervisor.unload("m", drain=3600))
    await settle()
    await asyncio.wait_for(yard.supervisor.close(), 10)
    assert yard.runtime.sessions[0].stops == 1
    assert await patient is True


async def test_of_two_who_unload_a_busy_model_neither_is_told_that_it_is_gone() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    engine = await yard.supervisor.acquire("m")
    first = asyncio.create_task(yard.supervisor.unload("m", drain=5))
    await settle()
    second = asyncio.create_task(yard.supervisor.unload("m", drain=5))
    await settle()
    await yard.clock.advance(6)
    with pytest.raises(ModelBusy):
        await first
    await yard.clock.advance(6)
    with pytest.raises(ModelBusy):
        await second
    assert (await yard.supervisor.acquire("m")) is engine
    await yard.supervisor.close()


async def test_close_calls_a_load_off_and_leaves_no_engine() -> None:
    yard = Yard()
    asker = asyncio.create_task(yard.supervisor.acquire("m"))
    await settle()
    await yard.supervisor.close()
    with pytest.raises(EngineStartFailed):
        await asker
    assert yard.state() is State.COLD
    assert yard.runtime.sessions == []


async def test_close_goes_on_when_an_engine_cannot_be_stopped() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    stubborn = await yard.supervisor.load("a")
    await yard.supervisor.load("b")

    class Stubborn(MemorySession):
        async def stop(self, grace: float) -> None:
            raise PermissionError("not yours")

    stubborn.session = Stubborn()
    with pytest.raises(PermissionError):
        await yard.supervisor.close()
    assert yard.runtime.sessions[1].stops == 1
    assert yard.supervisor.statuses() == []


async def test_an_engine_at_a_useless_address_is_stopped_again() -> None:
    yard = Yard()
    yard.runtime.gate.set()

    class Nowhere(MemoryRuntime):
        async def start(self, spec: LaunchSpec, report: Report) -> MemorySession:
            self.sessions.append(MemorySession(endpoint=Endpoint("nowhere")))
            return self.sessions[-1]

    yard.runtime = Nowhere()
    with pytest.raises(CorralError, match="nowhere"):
        await yard.supervisor.load("m")
    assert yard.runtime.sessions[0].stops == 1


async def test_names_that_cannot_be_leave_no_trace() -> None:
    yard = Yard()
    for number in range(3):
        with pytest.raises(InvalidName):
            await yard.supervisor.acquire(f"bad name {number}")
    assert yard.supervisor.statuses() == []


async def test_a_failed_model_that_was_removed_is_forgotten() -> None:
    yard = Yard()
    yard.runtime.failure = EngineStartFailed("no good")
    yard.runtime.gate.set()
    with pytest.raises(EngineStartFailed):
        await yard.supervisor.load("m")
    assert yard.state() is State.FAILED
    yard.removed.add("m")
    with pytest.raises(ModelNotFound):
        await yard.supervisor.load("m")
    assert yard.supervisor.statuses() == []


async def test_unload_clears_a_failure() -> None:
    yard = Yard()
    yard.runtime.failure = EngineStartFailed("no good")
    yard.runtime.gate.set()
    with pytest.raises(EngineStartFailed):
        await yard.supervisor.load("m")
    assert await yard.supervisor.unload("m") is False
    assert yard.supervisor.statuses() == []


async def test_a_slow_reader_of_events_loses_the_oldest() -> None:
    yard = Yard()
    yard.runtime.gate.set()
    changes = yard.supervisor.events()
    first = asyncio.ensure_future(anext(changes))
    await settle()
    await yard.supervisor.load("m")
    assert (await first).effect == "load"
    for _ in range(100):
        await yard.supervisor.unload("m")
        await yard.supervisor.load("m")
    kept = [await anext(changes) for _ in range(256)]
    assert kept[-1].state is State.READY
    await changes.aclose()
    await yard.supervisor.close()
