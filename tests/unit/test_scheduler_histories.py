"""Whatever happens in a yard, in virtual time: memory is never over-committed, nobody starves, nobody is forgotten.

What must hold at every step (no busy engine leaves, no memory is given twice, no two rivals, a reason for every wait)
is asserted by the simulation itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.domain.memory import Group, Placement
from support.yards import Model, Simulation, units

G = 10**9
NAMES = "abcdef"
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Event:
    kind: str
    model: str
    at: float
    number: int


def placements() -> st.SearchStrategy[tuple[Placement, ...]]:
    size = st.integers(1, 9)
    one = st.one_of(
        st.builds(lambda n: units(cpu=n), size),
        st.builds(lambda n: units(cuda_0=n), size),
        st.builds(lambda n, m: units(cuda_0=n, cpu=m), size, st.integers(1, 3)),
    )
    return st.one_of(st.lists(one, min_size=1, max_size=2).map(tuple), st.just(()))


def models(**fixed: st.SearchStrategy[object]) -> st.SearchStrategy[list[Model]]:
    kinds = {
        "placements": placements(),
        "load": st.sampled_from([0.5, 2.0, 30.0]),
        "stop": st.sampled_from([0.1, 1.0]),
        "answer": st.sampled_from([0.2, 1.0, 7.0]),
        "limit": st.sampled_from([1, 4, None]),
        **fixed,
    }
    one = st.builds(Model, st.just(""), **kinds)  # type: ignore[arg-type]  # each value strategy fits its field
    return st.lists(one, min_size=1, max_size=len(NAMES)).map(
        lambda found: [replace(model, name=NAMES[i]) for i, model in enumerate(found)]
    )


def events(*kinds: str) -> st.SearchStrategy[list[Event]]:
    at = st.one_of(st.just(0.0), st.floats(0, 100).map(lambda t: round(t, 2)))
    one = st.builds(
        Event, st.sampled_from(("ask", "ask", "ask", *kinds)), st.sampled_from(NAMES), at, st.integers(1, 8)
    )
    return st.lists(one, max_size=40)


def streams() -> st.SearchStrategy[list[Event]]:
    """More than can be answered, for a while: at most one stream a model."""
    one = st.builds(Event, st.just("stream"), st.sampled_from(NAMES), st.integers(0, 20), st.integers(2, 6))
    return st.lists(one, min_size=2, max_size=6, unique_by=lambda event: event.model)


def play(yard: Simulation, history: list[Event]) -> None:
    for event in history:
        if event.model not in yard.models:
            continue
        match event.kind:
            case "ask":
                for _ in range(event.number):
                    yard.ask(event.model, event.at)
            case "stream":
                for number in range(event.number * 12):
                    yard.ask(event.model, event.at + number * 0.5)
            case "urgent":
                yard.ask(event.model, event.at, priority=event.number)
            case "grow":
                yard.grow(event.model, event.at, event.number * G)
            case "too_small":
                yard.too_small(event.model)
            case kind:
                getattr(yard, kind)(event.model, event.at)
    yard.run()


def groups() -> st.SearchStrategy[tuple[Group, ...]]:
    members = st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=3)
    return st.lists(st.builds(Group, members, st.booleans(), st.booleans(), st.booleans()), max_size=2).map(tuple)


CAPACITY = {"cpu": 10 * G, "cuda:0": 8 * G}
EVERYTHING = models(
    priority=st.sampled_from([0, 0, 1]),
    resident=st.sampled_from([False, False, False, True]),
    asleep=st.sampled_from([None, {"cpu": G}, {"cpu": 5 * G, "cuda:0": G}]),
    keep=st.sampled_from([0.5, 10.0, float("inf"), float("inf")]),
)
MISHAPS = ("urgent", "hint", "crash", "unload", "grow", "too_small")


@QUICK
@given(EVERYTHING, events(*MISHAPS), groups(), st.sampled_from([1.0, 5.0, 20.0]), st.integers(1, 3))
def test_whatever_happens_everyone_is_answered_or_told_why_not(
    found: list[Model], history: list[Event], together: tuple[Group, ...], patience: float, loads: int
) -> None:
    yard = Simulation(found, CAPACITY, groups=together, patience=patience, loads=loads)
    play(yard, history)
    assert not yard.grew or all(yard.waits.get(request.model) for request in yard.waiting)
    for request in yard.requests:
        if request not in yard.waiting:
            assert request.done is not None
            assert request.failed or request.admitted is not None
    if not yard.grew:  # what has outgrown the machine and never leaves may keep others waiting, and they are told
        assert not yard.waiting
    assert all(not engine.served for engine in yard.engines.values())


CROWDED = models(
    placements=st.integers(3, 9).map(lambda size: (units(cpu=size),)),
    answer=st.sampled_from([1.0, 3.0]),
    limit=st.sampled_from([1, 2]),
)


@settings(QUICK, max_examples=40)
@given(CROWDED, streams(), st.sampled_from([1.0, 5.0, 20.0]), st.integers(1, 3))
def test_nobody_waits_for_memory_longer_than_the_bound(
    found: list[Model], history: list[Event], patience: float, loads: int
) -> None:
    yard = Simulation(found, CAPACITY, patience=patience, loads=loads)
    play(yard, history)
    assert not yard.waiting
    turns = {m.name: m.load + max(patience, m.load) + m.answer + m.stop for m in found}
    for waits in yard.cold_waits.values():
        bound = patience + sum(turns.values())
        assert max(waits, default=0.0) <= bound + 1e-6


@QUICK
@given(models(), events("urgent"), st.sampled_from([5.0, 20.0]))
def test_nobody_starves_behind_those_of_a_higher_priority(
    found: list[Model], history: list[Event], patience: float
) -> None:
    yard = Simulation(found, CAPACITY, patience=patience)
    play(yard, history)
    assert not yard.waiting
