"""Which steps begin: models are swapped as seldom as can be, nobody waits for ever, and nothing is left out."""

from __future__ import annotations

import time
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from corral.workspace.pipelines.ordering import Task, choose, next_model


def keys(tasks: list[Task]) -> str:
    return " ".join(task.key for task in tasks)


A1, A2, B1, B2, JOIN = Task("a1", "A"), Task("a2", "A"), Task("b1", "B"), Task("b2", "B"), Task("join")


def test_what_asks_no_model_begins_at_once() -> None:
    assert keys(choose([A1, JOIN], [B1], {"B"})) == "join"


def test_a_model_in_memory_comes_first_and_another_waits_until_it_is_done() -> None:
    assert keys(choose([A1, B1, A2, B2], [], {"B"})) == "b1 b2"
    assert keys(choose([A1], [B1], {"B"})) == ""
    assert keys(choose([A1, A2], [], {"B"})) == "a1 a2"


def test_models_that_are_in_memory_together_are_asked_together() -> None:
    assert keys(choose([A1, B1], [], {"A", "B"})) == "a1 b1"


def test_the_model_that_was_asked_last_is_taken_for_resident_where_nothing_is_known() -> None:
    assert keys(choose([A1, B1], [], (), "B")) == "b1"
    assert keys(choose([A1, B1], [], {"A"}, "B")) == "a1"


def test_what_has_room_beside_the_others_need_not_wait() -> None:
    assert keys(choose([A1, B1], [Task("c", "C")], {"C"}, beside=lambda model: model == "B")) == "b1"


def test_no_more_begin_than_there_is_room_for() -> None:
    assert keys(choose([A1, A2, B1], [], {"A"}, room=1)) == "a1"
    assert choose([A1], room=0) == []


def test_the_model_that_others_wait_for_goes_first() -> None:
    """A, then B for b1 and b2, is two loads; B first is three."""
    ahead = [Task("b2", "B", ("a1",))]
    assert keys(choose([B1, A1], ahead=ahead)) == "a1"
    assert keys(choose([B1, A1])) == "b1"


def test_a_model_stays_while_what_needs_it_waits_for_one_that_asks_none() -> None:
    ahead = [Task("a2", "A", ("join",))]
    assert choose([B1], [JOIN], {"A"}, ahead=ahead) == []
    assert keys(choose([B1], [JOIN], {"A"})) == "b1"


@st.composite
def plans(draw: st.DrawFn, most: int = 7) -> list[Task]:
    """Tasks of three models and of none, each after those it needs."""
    size = draw(st.integers(1, most))
    return [
        Task(
            f"t{number}",
            draw(st.sampled_from(["A", "B", "C", None])),
            tuple(draw(st.sets(st.integers(0, number - 1).map(lambda at: f"t{at}"), max_size=2)) if number else ()),
        )
        for number in range(size)
    ]


def ready_in(tasks: list[Task], done: set[str], begun: set[str]) -> list[Task]:
    return [task for task in tasks if task.key not in begun and done.issuperset(task.needs)]


def swaps(tasks: list[Task], *, room: int = 8, look: bool = True) -> int:
    """How often a model is loaded when the tasks are done as `choose` says, with memory for one."""
    done, begun, running = set[str](), set[str](), list[Task]()
    resident: str | None = None
    for loads in count():
        while True:
            able = ready_in(tasks, done, begun)
            ahead = [task for task in tasks if task.key not in begun and task not in able]
            chosen = choose(
                able,
                running,
                {resident} if resident else (),
                resident,
                room - len(running),
                ahead=ahead if look else (),
            )
            if any(task.model not in {None, resident} for task in chosen):
                break
            begun |= {task.key for task in chosen}
            running += chosen
            if not running:
                assert done == {task.key for task in tasks}
                return loads
            done.add(running.pop(0).key)
        assert not [task for task in running if task.model is not None], "a model is taken from under its step"
        resident = next(task.model for task in chosen if task.model is not None)
    raise AssertionError


def fewest(tasks: list[Task]) -> int:
    """The fewest loads by looking at every way there is."""
    layer: set[tuple[frozenset[str], str | None]] = {(frozenset(), None)}
    for loads in count():
        reached = set()
        for done, model in layer:
            now = set(done)
            while more := [task for task in ready_in(tasks, now, now) if task.model in {None, model}]:
                now |= {task.key for task in more}
            if len(now) == len(tasks):
                return loads
            reached |= {(frozenset(now), other) for other in ("A", "B", "C") if other != model}
        layer = reached
    raise AssertionError


@given(plans(), st.integers(1, 4))
def test_no_order_swaps_models_less(tasks: list[Task], room: int) -> None:
    assert swaps(tasks, room=room) == fewest(tasks)


@given(plans())
def test_every_task_is_done_also_without_looking_ahead(tasks: list[Task]) -> None:
    assert swaps(tasks, look=False) >= fewest(tasks)


@given(plans(), st.data())
def test_what_is_chosen_is_ready_and_nobody_waits_for_nothing(tasks: list[Task], data: st.DataObject) -> None:
    ready = ready_in(tasks, set(), set())
    running = data.draw(st.lists(st.sampled_from([A1, B1, JOIN]), max_size=2, unique=True))
    resident = data.draw(st.sets(st.sampled_from(["A", "B", "C"])))
    chosen = choose(ready, running, resident, None, 3)
    assert len({task.key for task in chosen}) == len(chosen) <= 3
    assert all(task in ready for task in chosen)
    assert chosen or any(task.model is not None for task in running)


def test_large_runs_are_ordered_soon() -> None:
    """Two hundred steps of eight models, each fanned out into a hundred, take no time that anybody would notice."""
    ready = [Task(f"r{model}[{item}]", f"m{model}") for model in range(8) for item in range(100)]
    fan_in = {step: tuple(f"r{step}[{one}]" for one in range(100)) for step in range(8)}
    ahead = [
        Task(f"s{step}[{item}]", f"m{step * 7 % 8}", fan_in.get(step, (f"s{step - 8}[0]",)))
        for step in range(200)
        for item in range(10)
    ]
    began = time.process_time()
    assert next_model(ready, ahead).startswith("m")
    assert time.process_time() - began < 2
