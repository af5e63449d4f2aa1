"""The supervisor where two things happen in the same moment, or something stops half-way."""

from __future__ import annotations

import asyncio
import gc

import pytest

from corral.domain.states import State
from corral.errors import DoesNotFit, EngineStartFailed, ModelBusy
from corral.lifecycle.engines import Engine, Launch, Rules
from corral.lifecycle.supervisor import Supervisor
from support.clocks import settle
from support.room import Yard


async def test_a_request_withdrawn_in_the_moment_it_would_be_admitted_takes_no_place() -> None:
    yard = Yard()
    yard.slots = 1
    engine = await yard.supervisor.acquire("a")
    leaver = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    after = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    leaver.cancel()  # its task does not know yet
    yard.supervisor.end(engine)
    await settle()
    assert leaver.cancelled()
    assert await after is engine
    assert engine.in_flight == 1
    yard.supervisor.end(engine)
    assert engine.in_flight == 0
    assert yard.supervisor.begin("a") is engine  # nobody counts as waiting
    yard.supervisor.end(engine)
    await yard.supervisor.close()


async def test_a_request_withdrawn_in_the_moment_of_a_decision_does_not_spoil_it() -> None:
    yard = Yard(room=10)
    yard.slots = 1
    engine = await yard.supervisor.acquire("a")
    leaver = asyncio.create_task(yard.supervisor.acquire("a"))
    other = asyncio.create_task(yard.supervisor.acquire("b"))
    await settle()
    yard.supervisor.end(engine)  # others wait for others: it is decided about all of them, in a moment
    leaver.cancel()
    await settle()
    assert leaver.cancelled()
    b = await other
    assert (engine.in_flight, b.in_flight) == (0, 1)
    yard.supervisor.end(b)
    await yard.supervisor.close()


async def test_a_request_withdrawn_in_the_moment_its_load_fails_hides_that_from_nobody() -> None:
    yard = Yard()
    yard.gate.clear()
    yard.failures["a"] = [EngineStartFailed("it does not start")]
    leaver = asyncio.create_task(yard.supervisor.acquire("a"))
    other = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    yard.gate.set()
    asyncio.get_running_loop().call_soon(leaver.cancel)
    await settle()
    assert leaver.cancelled()
    with pytest.raises(EngineStartFailed, match="does not start"):
        await other
    assert yard.state("a") is State.FAILED
    await yard.supervisor.close()


async def _asleep(yard: Yard, model: str = "a") -> Engine:
    """An engine that sleeps, and room for it to wake."""
    yard.sleeps = True
    engine = await yard.ask(model)
    engine.asleep = {"cpu": 1}
    await yard.ask("z")
    assert yard.state(model) is State.SLEEPING
    await yard.supervisor.unload("z")
    return engine


async def test_a_model_that_is_unloaded_while_it_wakes_is_stopped() -> None:
    yard = Yard(room=11)
    engine = await _asleep(yard)
    yard.gate.clear()
    asker = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    assert yard.state("a") is State.LOADING
    assert await yard.supervisor.unload("a") is True
    assert yard.running == set()
    assert engine.gone.is_set()
    assert yard.state("a") is State.COLD
    assert yard.supervisor.held() == {}
    with pytest.raises(EngineStartFailed, match="called off"):
        await asker
    async with asyncio.timeout(5):
        await yard.supervisor.close()


async def test_a_model_that_cannot_be_woken_any_more_is_refused_and_sleeps_on() -> None:
    yard = Yard(room=11)
    engine = await _asleep(yard)
    yard.room = 5  # a device was lost
    with pytest.raises(DoesNotFit):
        await yard.ask("a")
    assert yard.state("a") is State.SLEEPING
    assert not engine.gone.is_set()
    assert yard.supervisor.held() == {"cpu": 1}
    async with asyncio.timeout(5):
        await yard.supervisor.close()
    assert yard.running == set()


async def test_a_model_whose_engine_is_leaving_is_refused_without_forgetting_that_engine() -> None:
    yard = Yard(room=10)
    await yard.ask("a")
    session = yard.sessions["a"]
    session.slow.clear()
    leaving = asyncio.create_task(yard.supervisor.unload("a"))
    await settle()
    yard.room = 5
    with pytest.raises(DoesNotFit):
        await yard.ask("a")
    assert yard.state("a") is State.STOPPING
    assert yard.supervisor.held() == {"cpu": 10}
    session.slow.set()
    assert await leaving is True
    assert yard.state("a") is State.COLD
    await yard.supervisor.close()


async def test_who_waits_for_a_sleeping_model_is_looked_at_again_when_others_have_its_memory() -> None:
    yard = Yard(room=11)
    engine = await _asleep(yard)
    yard.room, yard.most_room = 5, 11  # somebody else's program takes some for a while
    async with yard.run():
        asker = asyncio.create_task(yard.supervisor.acquire("a"))
        await settle()
        assert not asker.done()
        yard.room = 11
        await yard.clock.advance(2)
        assert asker.done()
        assert await asker is engine
        yard.supervisor.end(engine)
        await yard.supervisor.close()


async def test_a_driver_that_hangs_is_not_asked_again_and_again() -> None:
    yard = Yard(rules=Rules(measure_every=5))
    await yard.ask("a")
    await settle()
    yard.driver.clear()
    async with yard.run():
        await settle()
        before = yard.measures
        for _ in range(4):
            await yard.clock.advance(5)
        assert yard.measures == before + 1
        yard.driver.set()
        await settle()
        await yard.clock.advance(5)
        assert yard.measures == before + 2
        await yard.supervisor.close()


async def test_measuring_without_a_pause_is_not_measuring_without_end() -> None:
    yard = Yard(rules=Rules(measure_every=0))
    await yard.ask("a")
    await settle()
    async with yard.run():
        await settle()
        before = yard.measures
        await settle()
        assert yard.measures == before
        await yard.supervisor.close()


async def test_what_an_engine_takes_asleep_is_not_taken_for_what_it_takes_awake() -> None:
    yard = Yard(room=11)
    yard.sleeps = True
    yard.driver.clear()
    engine = await yard.ask("a")  # from now on it is measured, for a while
    engine.asleep = {"cpu": 1}
    asker = asyncio.create_task(yard.ask("z"))
    await settle()
    assert yard.state("a") is State.SLEEPING
    yard.driver.set()
    await asker
    assert (dict(engine.peak), engine.asleep) == ({}, {"cpu": 1})
    assert "a" not in dict(yard.learned)

    await yard.supervisor.unload("z")
    assert await yard.ask("a") is engine
    await settle()
    assert (yard.supervisor.held(), dict(yard.learned)["a"]) == ({"cpu": 10}, {"cpu": 10})
    await yard.supervisor.close()


async def test_a_new_engine_is_measured_at_once_where_somebody_wants_to_know() -> None:
    yard = Yard()
    yard.takes["a"] = 12
    yard.driver.clear()
    engine = await yard.ask("a")
    assert engine.footprint == {}
    yard.driver.set()
    await yard.supervisor.measure(engine)
    assert engine.footprint == {"cpu": 12}
    measures = yard.measures
    await yard.supervisor.measure(engine)
    assert yard.measures == measures
    await yard.supervisor.close()


async def test_an_unload_by_force_takes_no_requests_after_another_has_given_up() -> None:
    yard = Yard()
    engine = await yard.supervisor.acquire("a")
    yard.sessions["a"].slow.clear()
    polite = asyncio.create_task(yard.supervisor.unload("a", drain=1))
    await settle()
    forced = asyncio.create_task(yard.supervisor.unload("a", drain=10, force=True))
    await settle()
    await yard.clock.advance(1)
    with pytest.raises(ModelBusy):
        await polite
    await yard.clock.advance(9)
    assert engine.gone.is_set()
    assert yard.state("a") is State.STOPPING
    assert yard.supervisor.begin("a") is None
    yard.sessions["a"].slow.set()
    assert await forced is True
    yard.supervisor.end(engine)
    assert yard.state("a") is State.COLD
    await yard.supervisor.close()


async def test_an_unload_whose_engine_ended_by_itself_does_not_forget_the_next_one() -> None:
    yard = Yard()
    yard.slots = 1
    engine = await yard.supervisor.acquire("a")
    polite = asyncio.create_task(yard.supervisor.unload("a", drain=1))
    await settle()
    forced = asyncio.create_task(yard.supervisor.unload("a", drain=10, force=True))
    await settle()
    await yard.clock.advance(1)
    with pytest.raises(ModelBusy):
        await polite
    asker = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    yard.sessions["a"].end.set()
    second = await asker
    assert second is not engine
    await forced
    await settle()
    assert yard.state("a") is State.READY
    assert yard.supervisor.held() == {"cpu": 10}
    yard.supervisor.end(second)
    await yard.supervisor.close()
    assert yard.running == set()


async def test_a_hint_that_is_too_old_and_then_fails_is_nobody_s_error() -> None:
    yard = Yard()
    planning, complaints = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))

    async def plan(model: str) -> Launch:
        await planning.wait()
        raise EngineStartFailed(f"{model} cannot be had")

    supervisor = Supervisor(plan, yard.clock, gauge=yard)
    supervisor.hint("a")
    await settle()
    yard.clock.time += supervisor.rules.patience
    supervisor.decide_soon()
    await settle()
    assert supervisor.statuses() == []
    planning.set()
    await settle()
    gc.collect()
    assert complaints == []
    await supervisor.close()
