"""The supervisor where there is not room for everybody: eviction, sleep, holding, learning, crashing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from corral.domain.memory import Group, Placement
from corral.domain.states import State
from corral.errors import (
    DoesNotFit,
    EngineDied,
    EngineStartFailed,
    EngineUnstable,
    ModelBusy,
    OutOfMemory,
    QueueFull,
)
from corral.lifecycle.engines import Engine, Rules
from support.clocks import settle
from support.room import Yard


async def test_the_third_model_takes_the_place_of_the_one_longest_unused() -> None:
    yard = Yard()
    await yard.ask("a")
    await yard.clock.advance(10)
    await yard.ask("b")
    await yard.clock.advance(10)
    await yard.ask("c")
    assert yard.running == {"b", "c"}
    assert yard.most == 2
    evicted = next(entry for entry in yard.supervisor.decisions() if entry.effect == "evict")
    assert (evicted.model, evicted.room_for) == ("a", "c")
    assert yard.supervisor.counters["evict"] == 1
    assert yard.supervisor.held() == {"cpu": 20}
    await yard.supervisor.close()
    assert yard.supervisor.held() == {}


async def test_a_busy_engine_stays_and_the_other_goes_even_if_it_was_used_later() -> None:
    yard = Yard()
    busy = await yard.supervisor.acquire("a")
    await yard.clock.advance(10)
    await yard.ask("b")
    await yard.ask("c")
    assert yard.running == {"a", "c"}
    yard.supervisor.end(busy)
    await yard.supervisor.close()


async def test_who_waits_for_busy_engines_is_told_why_and_served_when_one_is_free() -> None:
    yard = Yard()
    busy = [await yard.supervisor.acquire(model) for model in "ab"]
    waiting = asyncio.create_task(yard.ask("c"))
    await settle()
    status = next(s for s in yard.supervisor.statuses() if s.model == "c")
    assert (status.state, status.waiting) == (State.QUEUED, 1)
    assert "cpu" in status.reason
    assert status.since == yard.clock.wall()
    yard.supervisor.end(busy[0])
    await waiting
    assert yard.running == {"b", "c"}
    yard.supervisor.end(busy[1])
    await yard.supervisor.close()


async def test_a_resident_model_is_never_evicted() -> None:
    yard = Yard()
    yard.resident = {"a"}
    await yard.ask("a")
    await yard.clock.advance(1000)
    await yard.ask("b")
    await yard.ask("c")
    assert yard.running == {"a", "c"}
    await yard.supervisor.close()


async def test_a_model_that_cannot_fit_is_refused_to_all_who_ask() -> None:
    yard = Yard()
    yard.needs["big"] = 21
    answers = await asyncio.gather(*(yard.ask("big") for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DoesNotFit] * 3
    assert yard.starts == []
    assert yard.supervisor.counters["refuse"] == 1


async def test_memory_that_others_have_for_a_while_is_waited_for() -> None:
    yard = Yard(room=5, rules=Rules(patience=20))
    yard.most_room = 20
    async with yard.run():
        waiting = asyncio.create_task(yard.ask("a"))
        await settle()
        assert "may pass" in yard.reason("a")
        yard.room = 20
        await yard.clock.advance(3)
        await waiting
        await yard.supervisor.unload("a")
        yard.room = 5
        refused = asyncio.create_task(yard.ask("a"))
        for _ in range(15):
            await yard.clock.advance(2)
        with pytest.raises(DoesNotFit):
            await refused
        await yard.supervisor.close()


async def test_a_low_priority_is_not_passed_over_for_ever() -> None:
    yard = Yard(rules=Rules(patience=10))
    yard.slots = 1
    engine = await yard.supervisor.acquire("a")
    low = asyncio.create_task(yard.supervisor.acquire("a", priority=0))
    await settle()
    for _ in range(100):
        high = asyncio.create_task(yard.supervisor.acquire("a", priority=3))
        await yard.clock.advance(1)
        yard.supervisor.end(engine)
        await settle()
        if low.done():
            break
        engine = await high
    assert await low is engine
    yard.supervisor.end(engine)
    yard.supervisor.end(await high)
    await yard.supervisor.close()


async def test_requests_beyond_the_slots_wait_their_turn() -> None:
    yard = Yard()
    first = [await yard.supervisor.acquire("a") for _ in range(2)]
    assert yard.supervisor.begin("a") is None
    third = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    assert not third.done()
    assert yard.supervisor.statuses()[0].waiting == 1
    yard.supervisor.end(first[0])
    assert (await third).in_flight == 2
    assert yard.supervisor.statuses()[0].waiting == 0
    for engine in (first[1], await third):
        yard.supervisor.end(engine)
    assert yard.supervisor.begin("a") is not None
    await yard.supervisor.close()


async def test_a_higher_priority_goes_first() -> None:
    yard = Yard()
    yard.slots = 1
    busy = await yard.supervisor.acquire("a")
    order: list[int] = []

    async def ask(priority: int) -> None:
        await yard.ask("a", priority=priority)
        order.append(priority)

    asked = [asyncio.create_task(ask(priority)) for priority in (0, 0, 5)]
    await settle()
    yard.supervisor.end(busy)
    await asyncio.gather(*asked)
    assert order == [5, 0, 0]
    await yard.supervisor.close()


async def test_endless_requests_for_a_resident_model_do_not_starve_another() -> None:
    yard = Yard(room=10, rules=Rules(patience=20))
    yard.slots = 1
    async with yard.run():
        engine = await yard.supervisor.acquire("a")
        other = asyncio.create_task(yard.ask("b"))
        await settle()
        for _ in range(200):
            following = asyncio.create_task(yard.supervisor.acquire("a"))
            await yard.clock.advance(1)
            yard.supervisor.end(engine)
            await settle()
            if other.done():
                break
            engine = await following
        assert other.done()
        await other
        assert any(entry.effect == "hold" and entry.room_for == "b" for entry in yard.supervisor.decisions())
        yard.supervisor.end(await following)  # it was loaded again afterwards
        await yard.supervisor.close()


async def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    yard = Yard(rules=Rules(queue=2))
    yard.gate.clear()
    waiting = [asyncio.create_task(yard.ask("a")) for _ in range(2)]
    await settle()
    with pytest.raises(QueueFull) as caught:
        await yard.ask("b")
    assert caught.value.retry_after
    yard.gate.set()
    await asyncio.gather(*waiting)
    await yard.ask("b")
    await yard.supervisor.close()


async def test_whoever_leaves_a_queue_is_forgotten() -> None:
    yard = Yard()
    busy = [await yard.supervisor.acquire(model) for model in "ab"]
    leaver = asyncio.create_task(yard.supervisor.acquire("c"))
    await settle()
    leaver.cancel()
    await settle()
    assert yard.state("c") is State.COLD
    for engine in busy:
        yard.supervisor.end(engine)
    await settle()
    assert yard.running == {"a", "b"}
    assert len(yard.starts) == 2
    await yard.supervisor.close()


async def test_whoever_is_cancelled_in_the_moment_of_its_turn_gives_the_engine_back() -> None:
    yard = Yard()
    yard.slots = 1
    busy = await yard.supervisor.acquire("a")
    leaver = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    yard.supervisor.end(busy)
    assert busy.in_flight == 1  # it is the leaver's already
    leaver.cancel()
    with suppress(asyncio.CancelledError):
        await leaver
    assert busy.in_flight == 0
    await yard.supervisor.close()


async def test_out_of_memory_makes_room_and_tries_once_more() -> None:
    yard = Yard()
    await yard.ask("a")
    yard.failures["b"] = [OutOfMemory("no room")]
    await yard.ask("b")
    assert [spec.model for spec in yard.starts] == ["a", "b", "b"]
    assert yard.starts[-1].placement == Placement({"cpu": 20}, said="on the processor")
    assert yard.running == {"b"}
    await yard.supervisor.close()


async def test_out_of_memory_twice_is_the_answer() -> None:
    yard = Yard(room=100)
    yard.failures["b"] = [OutOfMemory("no room"), OutOfMemory("no room again")]
    with pytest.raises(OutOfMemory, match="again"):
        await yard.ask("b")
    assert len(yard.starts) == 2
    assert yard.state("b") is State.FAILED


async def test_out_of_memory_where_no_more_is_to_be_had_is_said_as_that() -> None:
    yard = Yard(room=10)
    yard.failures["b"] = [OutOfMemory("no room")]
    with pytest.raises(OutOfMemory, match="no room"):
        await yard.ask("b")
    assert len(yard.starts) == 1


async def test_what_was_measured_counts_and_is_remembered() -> None:
    yard = Yard()
    yard.takes = {"a": 4, "b": 4}
    await yard.ask("a")
    await yard.ask("b")
    await settle()
    assert yard.supervisor.held() == {"cpu": 8}
    await yard.ask("c")
    assert yard.running == {"a", "b", "c"}  # an estimate that was too high evicts nobody
    assert ("a", {"cpu": 4}) in yard.learned
    await yard.supervisor.close()


async def test_running_engines_are_measured_again_and_what_they_grew_to_counts() -> None:
    yard = Yard(rules=Rules(measure_every=15))
    async with yard.run():
        await yard.ask("a")
        await settle()
        yard.takes["a"] = 15
        await yard.clock.advance(16)
        assert yard.supervisor.held() == {"cpu": 15}
        yard.takes["a"] = 12
        await yard.clock.advance(16)
        (status,) = yard.supervisor.statuses()
        assert status.held == {"cpu": 15}
        assert status.engine
        assert status.engine.footprint == {"cpu": 12}
        await yard.supervisor.close()


async def test_memory_is_settled_only_while_nothing_comes_or_goes() -> None:
    yard = Yard()
    yard.gate.clear()
    asked = asyncio.create_task(yard.ask("a"))
    await settle()
    assert yard.state("a") is State.LOADING
    yard.supervisor.capacity()
    assert yard.settled[-1] is False
    yard.gate.set()
    await asked
    await settle()
    yard.supervisor.capacity()
    assert yard.settled[-1] is True
    await yard.supervisor.close()


async def test_an_engine_that_keeps_ending_has_to_wait_and_an_explicit_load_does_not() -> None:
    yard = Yard(rules=Rules(restarts=2))
    for _ in range(3):
        await yard.ask("a")
        yard.sessions["a"].end.set()
        await settle()
    with pytest.raises(EngineUnstable, match=r"3 times in a row.*crashed") as caught:
        await yard.ask("a")
    assert caught.value.retry_after
    assert len(yard.starts) == 3
    assert yard.supervisor.counters["crash"] == 3
    await yard.supervisor.load("a")
    assert len(yard.starts) == 4
    await yard.supervisor.close()


async def test_after_its_wait_an_unstable_model_is_tried_again() -> None:
    yard = Yard(rules=Rules(restarts=0))
    yard.failures["a"] = [EngineStartFailed("no good")]
    with pytest.raises(EngineStartFailed):
        await yard.ask("a")
    with pytest.raises(EngineUnstable) as caught:
        await yard.ask("a")
    yard.clock.time += (caught.value.retry_after or 0) + 0.1
    await yard.ask("a")
    await yard.supervisor.close()


async def test_an_engine_that_ran_well_for_long_starts_a_new_count() -> None:
    yard = Yard(rules=Rules(restarts=1))
    for _ in range(4):
        await yard.ask("a")
        await yard.clock.advance(100)
        yard.sessions["a"].end.set()
        await settle()
    await yard.ask("a")
    await yard.supervisor.close()


async def test_those_who_wait_for_an_engine_that_crashes_get_the_next_one() -> None:
    yard = Yard()
    yard.slots = 1
    first = await yard.supervisor.acquire("a")
    waiting = asyncio.create_task(yard.supervisor.acquire("a"))
    await settle()
    yard.sessions["a"].end.set()
    await settle()
    second = await waiting
    assert second is not first
    assert first.gone.is_set()
    yard.supervisor.end(second)
    await yard.supervisor.close()


async def test_a_model_that_can_sleep_sleeps_instead_of_leaving_and_wakes_when_asked() -> None:
    yard = Yard(room=21)
    yard.sleeps = True
    a = await yard.ask("a")
    await settle()
    a.asleep = {"cpu": 1}
    await yard.clock.advance(5)
    await yard.ask("b")
    await yard.ask("c")
    assert yard.state("a") is State.SLEEPING
    assert yard.sessions["a"].asleep
    assert yard.supervisor.held() == {"cpu": 21}
    assert not a.gone.is_set()
    await yard.supervisor.unload("b")
    assert await yard.ask("a") is a
    assert not yard.sessions["a"].asleep
    assert len(yard.starts) == 3
    assert yard.state("a") is State.READY
    await yard.supervisor.close()
    assert yard.running == set()


async def test_a_model_that_does_not_wake_is_stopped_and_said() -> None:
    yard = Yard(room=11)
    yard.sleeps = True
    a = await yard.ask("a")
    a.asleep = {"cpu": 1}
    await yard.ask("b")
    assert yard.state("a") is State.SLEEPING
    await yard.supervisor.unload("b")
    yard.sessions["a"].sleepless = True
    with pytest.raises(EngineStartFailed, match="does not wake"):
        await yard.ask("a")
    assert yard.running == set()
    assert yard.state("a") is State.FAILED


async def test_a_model_that_ends_while_it_wakes_is_loaded_again_by_the_next_request() -> None:
    yard = Yard(room=11)
    yard.sleeps = True
    a = await yard.ask("a")
    a.asleep = {"cpu": 1}
    await yard.ask("b")
    await yard.supervisor.unload("b")
    yard.sessions["a"].mortal = True
    with pytest.raises(EngineDied, match="waking"):
        await yard.ask("a")
    await settle()
    assert yard.running == set()
    assert await yard.ask("a") is not a
    await yard.supervisor.close()


async def test_a_model_that_cannot_fall_asleep_leaves() -> None:
    yard = Yard(room=11)
    yard.sleeps = True
    a = await yard.ask("a")
    a.asleep = {"cpu": 1}
    yard.sessions["a"].sleepless = True
    await yard.ask("b")
    assert yard.running == {"b"}
    assert a.gone.is_set()
    await yard.supervisor.close()


async def test_a_sleeping_model_can_be_unloaded() -> None:
    yard = Yard(room=11)
    yard.sleeps = True
    a = await yard.ask("a")
    a.asleep = {"cpu": 1}
    await yard.ask("b")
    assert await yard.supervisor.unload("a") is True
    assert yard.state("a") is State.COLD
    await yard.supervisor.close()


async def test_a_hint_loads_into_free_memory_and_evicts_nobody() -> None:
    yard = Yard()
    await yard.ask("a")
    yard.supervisor.hint("b")
    await settle()
    assert yard.running == {"a", "b"}
    async with yard.run():
        yard.supervisor.hint("c")
        await settle()
        assert yard.running == {"a", "b"}
        assert yard.state("c") is State.QUEUED
        await yard.clock.advance(30)
        await yard.clock.advance(30)
        assert yard.state("c") is State.COLD
        await yard.supervisor.close()


async def test_models_of_a_swapping_group_are_not_in_memory_together() -> None:
    yard = Yard(rules=Rules(groups=(Group(frozenset("ab"), swap=True),)))
    await yard.ask("a")
    await yard.ask("b")
    assert yard.running == {"b"}
    await yard.ask("c")
    assert yard.running == {"b", "c"}
    await yard.supervisor.close()


async def test_keep_alive_of_a_request_overrules_the_idle_time_out() -> None:
    yard = Yard()
    async with yard.run():
        engine = await yard.supervisor.acquire("a")
        yard.supervisor.end(engine, keep_alive=60)
        status = yard.supervisor.statuses()[0]
        assert (status.idle_left, status.until) == (60, yard.clock.wall() + 60)
        await yard.clock.advance(61)
        assert yard.state("a") is State.COLD
        await yard.supervisor.load("a", keep_alive=0)
        await settle()
        await yard.clock.advance(0)
        assert yard.state("a") is State.COLD


async def test_unload_of_a_model_that_waits_for_room_tells_those_who_wait() -> None:
    yard = Yard()
    busy = [await yard.supervisor.acquire(model) for model in "ab"]
    waiting = asyncio.create_task(yard.ask("c"))
    await settle()
    assert await yard.supervisor.unload("c") is True
    with pytest.raises(EngineStartFailed, match="called off"):
        await waiting
    with pytest.raises(ModelBusy):
        await yard.supervisor.unload("a")
    for engine in busy:
        yard.supervisor.end(engine)
    await yard.supervisor.close()


async def test_closing_tells_everyone_who_waits() -> None:
    yard = Yard()
    busy = [await yard.supervisor.acquire(model) for model in "ab"]
    waiting = [asyncio.create_task(yard.ask(model)) for model in "acd"]
    await settle()
    closing = asyncio.create_task(yard.supervisor.close())
    results = await asyncio.gather(*waiting, return_exceptions=True)
    for engine in busy:
        yard.supervisor.end(engine)
    await closing
    assert all(isinstance(result, EngineStartFailed | Engine) for result in results)
    assert any(isinstance(result, EngineStartFailed) for result in results)
    assert yard.running == set()


async def test_explain_says_what_would_happen_without_doing_it() -> None:
    yard = Yard()
    await yard.ask("a")
    await yard.clock.advance(5)
    await yard.ask("b")
    told = await yard.supervisor.explain("c")
    assert told.verdict == "loads"
    assert [candidate.model for candidate in told.candidates if candidate.chosen] == ["a"]
    assert yard.running == {"a", "b"}
    assert (await yard.supervisor.explain("a")).verdict == "answers now"
    await yard.supervisor.close()


async def test_five_hundred_clients_for_ten_models_are_all_served_and_never_more_than_fit() -> None:
    yard = Yard(room=30, rules=Rules(queue=1000))
    yard.slots = 4

    async def ask(number: int) -> str:
        engine = await yard.supervisor.acquire(f"m{number % 10}")
        await asyncio.sleep(0)
        yard.supervisor.end(engine)
        return engine.model

    async with yard.run():
        asked = [asyncio.create_task(ask(number)) for number in range(500)]
        while not all(task.done() for task in asked):
            await yard.clock.advance(1)
        assert [task.result() for task in asked] == [f"m{number % 10}" for number in range(500)]
        assert yard.most <= 3
        assert len(yard.starts) < 30
        await yard.supervisor.close()
    assert yard.supervisor.held() == {}


async def test_what_an_engine_said_last_is_kept_when_it_is_gone_and_why_none_could_start() -> None:
    yard = Yard()
    assert yard.supervisor.log("a") is None
    await yard.ask("a")
    yard.sessions["a"].said = ("loading", "out of ideas")
    assert yard.supervisor.log("a") == ("loading", "out of ideas")
    yard.sessions["a"].end.set()
    await settle()
    assert yard.supervisor.log("a") == ("loading", "out of ideas")
    yard.failures["b"] = [EngineStartFailed("no good", "Do better.")]
    with pytest.raises(EngineStartFailed):
        await yard.ask("b")
    assert yard.supervisor.log("b") == ("no good", "Do better.")
    await yard.supervisor.close()
