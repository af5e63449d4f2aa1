"""Decisions about engines, from values alone."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.domain.memory import Group, Placement
from corral.domain.states import State
from corral.lifecycle.scheduler import (
    Admit,
    Decision,
    EngineView,
    Evict,
    Load,
    Queue,
    Refuse,
    Wake,
    Yard,
    decide,
    explain,
    idle,
    next_check,
)
from support.yards import Model, Simulation, units

G = 10**9
NOW = 1000.0
CPU = {"cpu": 8 * G}
GPU = {"cuda:0": 8 * G, "cpu": 16 * G}


def ready(model: str, size: int = 4, device: str = "cpu", **more: object) -> EngineView:
    held = {device: size * G}
    given = {"state": State.READY, "held": held, "placement": Placement(held), "last_used": NOW - 10, **more}
    return EngineView(model, **given)  # type: ignore[arg-type]  # fields by name


def wants(model: str, *ways: Placement, waited: float = 0.0, count: int = 1, **more: object) -> Queue:
    return Queue(model, count, NOW - waited, placements=ways or (units(cpu=4),), **more)  # type: ignore[arg-type]


def yard(*parts: EngineView | Queue, **more: object) -> Yard:
    engines = {part.model: part for part in parts if isinstance(part, EngineView)}
    queues = {part.model: part for part in parts if isinstance(part, Queue)}
    return Yard(engines, queues, **{"capacity": CPU, **more})  # type: ignore[arg-type]


def kinds(decision: Decision) -> list[tuple[str, str]]:
    return [(type(effect).__name__.lower(), effect.model) for effect in decision.effects]


def decided(*parts: EngineView | Queue, **more: object) -> list[tuple[str, str]]:
    return kinds(decide(yard(*parts, **more), NOW))


def engines() -> st.SearchStrategy[EngineView]:
    seconds = st.floats(0, 1000)
    return st.builds(
        EngineView,
        st.uuids().map(str),
        st.sampled_from(State),
        in_flight=st.integers(0, 3),
        last_used=seconds,
        idle_timeout=st.one_of(seconds, st.just(inf)),
    )


@given(st.lists(engines()), st.floats(1000, 3000))
def test_idle_names_exactly_the_free_engines_past_their_time(views: list[EngineView], now: float) -> None:
    named = {effect.model for effect in idle(views, now)}
    for view in views:
        due = view.state is State.READY and view.in_flight == 0 and now - view.last_used >= view.idle_timeout
        assert (view.model in named) == due


@given(st.lists(engines()), st.floats(1000, 3000))
def test_nothing_becomes_idle_before_the_next_check(views: list[EngineView], now: float) -> None:
    wait = next_check(views, now)
    assert wait >= 0
    before = {effect.model for effect in idle(views, now)}
    if wait == 0:
        return
    assert not before
    if wait < inf:
        early = now + wait * 0.999
        assert not idle(views, early)
    else:
        assert not idle(views, now + 1e12)


def test_the_longest_unused_engine_goes_first() -> None:
    views = [
        EngineView("new", State.READY, last_used=50, idle_timeout=10),
        EngineView("old", State.READY, last_used=5, idle_timeout=10),
    ]
    assert [effect.model for effect in idle(views, 100)] == ["old", "new"]


def test_a_busy_engine_is_not_looked_at_again_and_again() -> None:
    assert next_check([EngineView("a", State.READY, in_flight=1, last_used=5, idle_timeout=0)], 100) >= 1


# Those in memory


def test_a_ready_engine_is_given_as_many_as_it_takes() -> None:
    decision = decide(yard(ready("a", limit=4, in_flight=1), wants("a", count=5)), NOW)
    assert decision.effects == (Admit("a", 3, "it is in memory"),)
    assert "answers 4 requests at once" in decision.waits["a"]
    unlimited = decide(yard(ready("a", in_flight=1), wants("a", count=5)), NOW)
    assert unlimited.effects == (Admit("a", 5, "it is in memory"),)
    assert not unlimited.waits


def test_a_full_engine_is_given_none() -> None:
    assert decided(ready("a", limit=1, in_flight=1), wants("a")) == []


def test_a_model_that_loads_is_not_loaded_again() -> None:
    decision = decide(yard(ready("a", state=State.LOADING), wants("a")), NOW)
    assert not decision.effects
    assert decision.waits == {"a": "it is loading"}


def test_engines_that_failed_are_none() -> None:
    assert decided(ready("a", 8, state=State.FAILED), wants("a")) == [("load", "a")]


# Room there is


def test_what_fits_is_loaded_in_the_order_of_the_line_and_no_more_at_once_than_may_be() -> None:
    parts = [wants("c", waited=3), wants("b", waited=5), wants("a", waited=1, priority=1)]
    decision = decide(yard(*parts, capacity={"cpu": 100 * G}), NOW)
    assert kinds(decision) == [("load", "a"), ("load", "b")]
    assert decision.waits == {"c": "no more than 2 models may be loading at once"}


def test_a_model_of_another_machine_is_loaded_at_once_and_counts_for_nothing() -> None:
    far = Queue("far", 1, NOW)
    loading = EngineView("near", State.LOADING, {"cpu": 8 * G}, placement=units(cpu=8))
    assert decided(loading, far, loads=1) == [("load", "far")]
    assert decided(EngineView("far", State.LOADING), wants("a"), loads=1) == [("load", "a")]
    assert decided(EngineView("far", State.STOPPING), far) == []


def test_a_device_without_capacity_has_no_limit() -> None:
    assert decided(wants("a", units(mps=500))) == [("load", "a")]


def test_the_better_place_is_waited_for_and_the_worse_taken_only_where_it_can_never_be() -> None:
    ways = (units(cuda_0=6, cpu=1), units(cpu=7))
    busy = ready("big", 6, "cuda:0", in_flight=2)
    decision = decide(yard(busy, wants("a", *ways), capacity=GPU), NOW)
    assert not decision.effects
    assert decision.waits["a"] == "cuda:0 has 2.0 GB free of the 6.0 GB it needs; big is answering 2 requests"
    [load] = decide(yard(replace(busy, resident=True), wants("a", *ways), capacity=GPU), NOW).effects
    assert isinstance(load, Load)
    assert load.placement == ways[1]
    assert "as it needs 6.0 GB on cuda:0" in load.reason
    assert "6.0 GB stay with big" in load.reason


def test_what_can_never_fit_is_refused_with_the_figures() -> None:
    [refusal] = decide(yard(wants("a", units(cpu=9))), NOW).effects
    assert isinstance(refusal, Refuse)
    assert refusal.reason == "it needs 9.0 GB on cpu, where engines may have 8.0 GB"
    assert "engines.memory" in refusal.hint


def test_memory_of_an_engine_that_stops_is_not_given_before_it_is_gone_and_then_to_the_first() -> None:
    stopping = ready("old", 8, state=State.STOPPING)
    decision = decide(yard(stopping, wants("a", waited=2), wants("b", units(cpu=8), waited=1)), NOW)
    assert not decision.effects
    assert "old is leaving" in decision.waits["a"]


def test_a_model_whose_engine_stops_waits_for_the_end_of_it() -> None:
    decision = decide(yard(ready("a", state=State.STOPPING), wants("a")), NOW)
    assert not decision.effects
    assert decision.waits["a"] == "its last engine is leaving"


# Making room


def test_the_engine_worth_least_leaves_and_no_more_than_needed() -> None:
    dear = ready("dear", 4, load_seconds=60.0)
    cheap = ready("cheap", 4, load_seconds=1.0)
    decision = decide(yard(dear, cheap, wants("a")), NOW)
    [evict] = decision.effects
    assert isinstance(evict, Evict)
    assert (evict.model, evict.to, evict.room_for) == ("cheap", State.STOPPING, "a")
    assert evict.reason == (
        "a needs 4.0 GB of cpu, which has 0 B free; cheap is idle, unused for 10 s, and took 1.0 s to load"
    )
    assert decided(dear, replace(dear, model="recent", last_used=NOW - 1), wants("a")) == [("evict", "dear")]


def test_a_small_one_that_is_not_enough_stays_where_a_large_one_is() -> None:
    small = ready("small", 1, load_seconds=0.1)
    large = ready("large", 7, load_seconds=5.0)
    assert decided(small, large, wants("a", units(cpu=6))) == [("evict", "large")]


def test_residents_never_make_room() -> None:
    decision = decide(yard(ready("a", 4, resident=True), ready("b", 4), wants("c", units(cpu=5))), NOW)
    assert kinds(decision) == [("refuse", "c")]


def test_an_engine_that_answers_is_held_only_for_a_higher_rank() -> None:
    busy = ready("a", 8, in_flight=1)
    decision = decide(yard(busy, wants("b", waited=19.0)), NOW)
    assert not decision.effects
    assert decision.recheck == pytest.approx(1.0)
    held = decide(yard(busy, wants("b", waited=20.0)), NOW)
    assert kinds(held) == [("hold", "a")]
    assert held.waits["b"].endswith("a is answering 1 request and is held")
    assert held.recheck == inf
    assert decided(busy, wants("b", priority=1)) == [("hold", "a")]
    assert decided(replace(busy, priority=1), wants("b", waited=20.0)) == []


def test_a_held_engine_gets_nobody_and_leaves_once_it_has_answered() -> None:
    parts = (wants("a", waited=1.0), wants("b", waited=25.0))
    decision = decide(yard(ready("a", 8, in_flight=1), *parts), NOW)
    assert kinds(decision) == [("hold", "a")]
    assert decision.waits["a"] == "it makes room for b, and is loaded again after that"
    assert decided(ready("a", 8), *parts) == [("evict", "a")]


def test_of_those_that_answer_the_one_soonest_done_is_held_and_stays_the_one() -> None:
    two = ready("two", in_flight=2)
    one = ready("one", in_flight=1)
    assert decided(two, one, wants("b", waited=25.0)) == [("hold", "one")]
    assert decided(replace(two, yields_to="b"), one, wants("b", waited=25.0)) == [("hold", "two")]


def test_an_idle_engine_leaves_before_one_that_answers_is_held() -> None:
    assert decided(ready("a", in_flight=1), ready("b", load_seconds=99.0), wants("c", waited=99.0)) == [("evict", "b")]


def test_a_new_engine_serves_those_who_waited_for_it_before_it_is_held() -> None:
    new = ready("a", 8, in_flight=1, limit=1, ready_at=NOW - 5)
    parts = (wants("a", waited=90.0), wants("b", waited=50.0))
    decision = decide(yard(new, *parts), NOW)
    assert decision.effects == ()
    assert decision.recheck == pytest.approx(15.0)
    assert decided(new, wants("a", waited=40.0), parts[1]) == [("hold", "a")], "b waited first"
    assert decided(new, wants("a", waited=4.0), parts[1]) == [("hold", "a")], "its turn is over"
    assert decided(replace(new, ready_at=NOW - 20), *parts) == [("hold", "a")], "it had its time"
    assert decided(replace(new, ready_at=NOW - 20, load_seconds=30.0), *parts) == [], "loading takes longer"
    assert decided(new, parts[0], replace(parts[1], priority=1)) == [("hold", "a")]


def test_who_lost_an_engine_stands_at_the_end_of_the_line() -> None:
    parts = (wants("a", units(cpu=8), waited=90.0, lost=NOW), wants("b", units(cpu=8), waited=30.0))
    assert decided(*parts) == [("load", "b")]


def test_nobody_behind_gets_what_the_first_in_line_is_about_to_get() -> None:
    loading = ready("big", 4, state=State.LOADING)
    decision = decide(yard(loading, wants("a", units(cpu=8), waited=30.0), wants("b", units(cpu=4), waited=1.0)), NOW)
    assert not decision.effects
    assert decided(loading, wants("a", units(cpu=8), waited=10.0), wants("b", units(cpu=4))) == [("load", "b")]


def test_a_hint_is_loaded_into_free_memory_only() -> None:
    assert decided(wants("a", hint=True)) == [("load", "a")]
    decision = decide(yard(ready("b", 8), wants("a", hint=True, waited=99.0)), NOW)
    assert not decision.effects
    assert "nobody asks for it yet" in decision.waits["a"]
    parts = [wants("a", units(cpu=8), hint=True, waited=9.0, priority=9), wants("b", units(cpu=8))]
    assert decided(*parts) == [("load", "b")]


def test_idle_engines_leave_when_engines_have_outgrown_a_device_and_nothing_is_added() -> None:
    grown = ready("a", 7, in_flight=1)
    assert decided(grown, ready("b", 2), ready("far", 2, "mps")) == [("evict", "b")]
    decision = decide(yard(replace(grown, held={"cpu": 9 * G}), wants("c", units(cpu=1, cuda_0=1))), NOW)
    assert not decision.effects
    [evict] = decide(yard(grown, ready("b", 2)), NOW).effects
    assert evict.reason == "engines hold 9.0 GB of cpu, of which they may have 8.0 GB; b is idle"


# Sleep


def test_an_engine_sleeps_where_there_is_room_for_that_and_ends_where_there_is_not() -> None:
    sleeper = ready("a", 8, "cuda:0", sleeps=True, asleep={"cpu": 6 * G, "cuda:0": G})
    [evict] = decide(yard(sleeper, wants("b", units(cuda_0=7)), capacity=GPU), NOW).effects
    assert isinstance(evict, Evict)
    assert evict.to is State.SLEEPING
    for wish in (units(cuda_0=8), units(cuda_0=4, cpu=11)):
        [evict] = decide(yard(sleeper, wants("b", wish), capacity=GPU), NOW).effects
        assert isinstance(evict, Evict)
        assert evict.to is State.STOPPING


def asleep(model: str, **held: int) -> EngineView:
    holds = units(**held).devices
    return ready(model, 6, "cuda:0", state=State.SLEEPING, sleeps=True, asleep=holds, held=holds)


def test_a_sleeping_engine_wakes_where_it_was_or_ends_when_its_place_is_gone_for_good() -> None:
    sleeper = asleep("a", cpu=3, cuda_0=1)
    wish = wants("a", units(cuda_0=6), units(cpu=6))
    assert decide(yard(sleeper, wish, capacity=GPU), NOW).effects == (Wake("a", "1 request waits for it"),)
    assert decided(sleeper, ready("b", 3, "cuda:0"), wish, capacity=GPU) == [("evict", "b")]
    ended = decide(yard(sleeper, ready("b", 3, "cuda:0", resident=True), wish, capacity=GPU), NOW)
    [evict] = ended.effects
    assert isinstance(evict, Evict)
    assert evict.to is State.STOPPING
    assert "stay with b" in evict.reason


def test_a_sleeping_engine_ends_when_what_it_keeps_is_needed() -> None:
    [evict] = decide(yard(asleep("a", cpu=3), wants("b", units(cpu=14)), capacity=GPU), NOW).effects
    assert evict == Evict("a", State.STOPPING, evict.reason, "b")


def test_one_that_goes_to_sleep_is_waited_for_and_not_ended() -> None:
    falling = replace(asleep("a", cpu=3), held={"cuda:0": 6 * G})
    assert decided(falling, wants("b", units(cuda_0=6)), capacity=GPU) == []


# Groups


ROOMY = {"cpu": 100 * G}


def together(*groups: Group) -> dict[str, object]:
    return {"groups": groups, "capacity": ROOMY}


def test_of_a_swap_group_one_is_in_memory() -> None:
    rule = together(Group(frozenset("ab"), swap=True))
    assert decided(wants("a", waited=1), wants("b"), wants("c"), **rule) == [("load", "a"), ("load", "c")]
    assert decided(ready("a"), wants("b"), **rule) == [("evict", "a")]
    decision = decide(yard(ready("a", in_flight=1), wants("b"), **rule), NOW)
    assert not decision.effects
    assert decision.waits["b"] == "a is answering 1 request, and may not be in memory with it"
    assert decided(ready("a", in_flight=1), wants("b", waited=20), **rule) == [("hold", "a")]
    assert decided(asleep("a", cpu=1), wants("b"), **rule) == [("load", "b")]
    assert decided(ready("a", state=State.STOPPING), wants("b"), **rule) == []


def test_an_exclusive_group_makes_others_leave_but_for_persistent_ones() -> None:
    rule = together(Group(frozenset("ab"), exclusive=True), Group(frozenset("p"), persistent=True))
    assert decided(ready("x"), ready("p"), ready("b"), wants("a"), **rule) == [("evict", "x")]
    assert decided(ready("a"), wants("x"), **rule) == [("evict", "a")]
    assert decided(ready("a"), wants("p"), **rule) == [("load", "p")]


def test_who_may_not_stand_beside_a_resident_is_refused() -> None:
    rule = together(Group(frozenset("ab"), swap=True))
    [refusal] = decide(yard(ready("a", resident=True), wants("b"), **rule), NOW).effects
    assert isinstance(refusal, Refuse)
    assert "together with a, which is resident" in refusal.reason


# Why


def test_a_request_for_what_is_in_memory_answers_now() -> None:
    told = explain(yard(ready("a", limit=2)), "a", (units(cpu=4),), NOW)
    assert (told.verdict, told.candidates) == ("answers now", ())
    full = explain(yard(ready("a", limit=2, in_flight=2)), "a", (units(cpu=4),), NOW)
    assert (full.verdict, full.reason) == ("waits", "a answers 2 requests at once, and no more")


def test_an_explanation_says_of_every_engine_why_it_leaves_or_stays() -> None:
    engines = (
        ready("busy", 1, in_flight=1),
        ready("cheap", 2),
        ready("dear", 2, load_seconds=50.0),
        ready("elsewhere", 2, "mps"),
        ready("pinned", 1, resident=True),
        ready("young", 1, state=State.LOADING),
        ready("old", 1, state=State.STOPPING),
        EngineView("remote", State.READY),
    )
    told = explain(yard(*engines), "a", (units(cpu=3),), NOW)
    assert told.verdict == "loads"
    assert [step.split(":")[0] for step in told.steps] == ["evict cheap"]
    said = {candidate.model: (candidate.possible, candidate.chosen, candidate.reason) for candidate in told.candidates}
    assert said == {
        "cheap": (True, True, "it makes room"),
        "dear": (True, False, "it need not go: there is room, or others that are worth less make enough"),
        "elsewhere": (True, False, "it holds nothing of what is needed"),
        "busy": (False, False, "it is answering 1 request, and a does not go before those"),
        "young": (False, False, "it is loading, and a does not go before those"),
        "pinned": (False, False, "it is resident: it never makes room"),
        "old": (False, False, "it is leaving already"),
    }
    assert next(iter(told.candidates)).model == "cheap"


def test_an_explanation_tells_loads_waits_and_refusals_apart() -> None:
    assert explain(yard(), "a", (units(cpu=3),), NOW).verdict == "loads"
    assert explain(yard(), "a", (units(cpu=9),), NOW).verdict == "refused"
    assert explain(yard(ready("b", 8, in_flight=1)), "a", (units(cpu=3),), NOW).verdict == "waits"
    held = explain(yard(ready("b", 8, in_flight=1), wants("a", units(cpu=3), waited=30.0)), "a", (), NOW)
    assert held.verdict == "waits"
    assert held.steps[0].startswith("hold b: a needs 3.0 GB of cpu")
    hinted = explain(yard(ready("b", 8), wants("a", hint=True)), "a", (units(cpu=3),), NOW)
    assert hinted.verdict == "loads"


def test_an_explanation_does_not_count_the_request_that_it_supposes() -> None:
    alone = explain(yard(), "a", (units(cpu=3),), NOW)
    assert alone.reason == "it is not in memory, and nothing else must leave for it"
    assert alone.steps == (f"load a: {alone.reason}",)
    beside = explain(yard(wants("a", units(cpu=3))), "a", (), NOW)
    assert beside.reason == "1 request waits for it"
    others = explain(yard(wants("b", units(cpu=3))), "a", (units(cpu=3),), NOW)
    assert others.steps == (f"load a: {alone.reason}",)
    idle = explain(yard(*(ready(name, 2) for name in "bcd")), "a", (units(cpu=3),), NOW)
    assert idle.reason.endswith("c is idle; 1 more holds some")


# The figure


@pytest.mark.parametrize(
    ("load", "answer", "patience"), [(2.0, 0.5, 20.0), (5.0, 2.0, 20.0), (30.0, 4.0, 20.0), (100.0, 2.0, 5.0)]
)
def test_200_requests_over_three_models_where_two_fit_take_no_longer_than_the_best_order(
    load: float, answer: float, patience: float
) -> None:
    models = [Model(name, (units(cpu=4),), load=load, answer=answer, limit=4) for name in "abc"]
    run = Simulation(models, CPU, patience=patience)
    for number in range(200):
        run.ask("abc"[number % 3])
    run.run()
    by_hand = load + 17 * answer + models[0].stop + load + 17 * answer  # a and b beside each other, then c
    assert run.now <= 1.3 * by_hand
    turn = max(patience, load) + load + answer + models[0].stop
    assert max(wait for waits in run.cold_waits.values() for wait in waits) <= patience + 2 * turn
