"""What the menu knows: messages in, topics that changed out."""

from __future__ import annotations

from corral.cli.tui.yard import HAPPENED, TRAIL, Yard
from corral.domain.operations import Operation, OperationStatus, Order


def operation(identifier: str, status: OperationStatus = OperationStatus.IN_PROGRESS) -> Operation:
    return Operation(identifier, Order("install", "m", {"what": "m"}), status, 1.0)


def container(name: str, **more: object) -> dict[str, object]:
    standing = {"name": name, "state": "healthy", "uptime": 5.0, "wanted": True, **more}
    return {"type": "container", "container": standing}


def test_a_snapshot_is_how_it_stands() -> None:
    yard = Yard()
    topics = yard.take(
        {"type": "snapshot", "models": [{"name": "m", "state": "cold"}], "memory": {"cpu": {"held": 1}}, "queues": {}}
    )

    assert topics == {"models", "queue", "memory"}
    assert yard.models["m"]["state"] == "cold"
    assert yard.memory == {"cpu": {"held": 1}}


def test_a_transition_changes_a_model_and_is_remembered() -> None:
    yard = Yard()
    yard.set_models([{"name": "m", "state": "cold", "size": 5}])
    message = {"type": "transition", "at": 1.0, "model": "m", "state": "loading", "reason": "asked for"}

    assert yard.take(message) == {"happened", "models"}
    assert yard.models["m"] == {"name": "m", "state": "loading", "size": 5, "reason": "asked for"}
    assert list(yard.happened) == [message]
    assert yard.take({**message, "model": "another"}) == {"happened", "models"}
    assert list(yard.models) == ["m"]


def test_what_a_snapshot_made_is_not_changed_under_who_holds_it() -> None:
    yard = Yard()
    yard.set_models([{"name": "m", "state": "cold"}])
    before = yard.models["m"]
    yard.take({"type": "transition", "model": "m", "state": "ready"})

    assert before["state"] == "cold"


def test_only_news_is_news() -> None:
    yard = Yard()
    assert yard.set_models([{"name": "m"}])
    assert not yard.set_models([{"name": "m"}])
    assert yard.set_operations([operation("1")])
    assert not yard.set_operations([operation("1")])
    assert not yard.set_containers([])
    assert yard.set_containers([{"name": "c"}])


def test_figures_make_courses_that_end() -> None:
    yard = Yard()
    for number in range(TRAIL + 10):
        sample = {"type": "sample", "cpu": float(number), "memory": 7, "gpus": {"cuda:0": {"usage": 3.0, "used": None}}}
        assert yard.take(sample) == {"machine"}

    assert len(yard.trail("cpu").values) == TRAIL
    assert yard.trail("cpu").last == TRAIL + 9
    assert yard.trail("cuda:0/usage").last == 3.0
    assert yard.trail("nothing").last is None


def test_the_history_of_a_machine_comes_in_columns() -> None:
    yard = Yard()
    yard.set_history({"at": [1.0], "cpu": [5.0], "memory": [6], "gpus": {"cuda:0": {"used": [1], "usage": [2.0]}}})

    assert (yard.trail("cpu").last, yard.trail("memory").last, yard.trail("cuda:0/usage").last) == (5.0, 6, 2.0)


def test_what_happened_is_bounded() -> None:
    yard = Yard()
    for number in range(HAPPENED + 5):
        yard.take({"type": "decision", "at": float(number), "model": "m", "effect": "load"})

    assert len(yard.happened) == HAPPENED
    assert yard.happened[0]["at"] == 5.0


def test_containers_come_change_and_go() -> None:
    yard = Yard()
    assert yard.take({"type": "snapshot", "containers": [{"name": "a"}, {"name": "b"}]}) == {"containers"}
    assert yard.take(container("a", state="crash_loop")) == {"containers"}
    assert yard.containers["a"]["state"] == "crash_loop"

    yard.set_usage_of("a", {"cpu": 0.5, "memory": 10})
    assert yard.trail("a/cpu").last == 0.5
    yard.take(container("a", state="stopped", uptime=None))
    assert yard.trail("a/cpu").last is None

    assert yard.take(container("a", state="absent", wanted=False)) == {"containers"}
    assert list(yard.containers) == ["b"]


def test_what_containers_took_is_forgotten_with_them() -> None:
    yard = Yard()
    yard.set_containers([{"name": "a"}])
    yard.set_usage_of("a", {"cpu": 0.5})
    yard.set_containers([])

    assert yard.trail("a/cpu").last is None


def test_before_all_containers_are_known_one_alone_says_nothing() -> None:
    yard = Yard()
    assert yard.take(container("a")) == frozenset()
    yard.set_containers([])
    assert yard.take(container("a")) == {"containers"}


def test_what_is_no_container_is_passed_over() -> None:
    yard = Yard()
    yard.set_containers([])
    assert yard.take({"type": "container"}) == frozenset()
    assert yard.take({"type": "container", "container": {"state": "healthy"}}) == frozenset()
    assert yard.take({"type": "nobody knows this"}) == frozenset()
    assert yard.take({}) == frozenset()


def test_what_happens_to_containers_devices_and_messages_is_remembered() -> None:
    yard = Yard()
    for kind in ("happening", "device", "lost"):
        assert "happened" in yard.take({"type": kind})
    assert len(yard.happened) == 3


def test_a_new_operation_comes_first_and_an_old_one_stays_where_it_is() -> None:
    yard = Yard()
    yard.set_operation(operation("1"))
    yard.set_operation(operation("2"))
    yard.set_operation(operation("1", OperationStatus.COMPLETED))

    assert list(yard.operations) == ["2", "1"]
    assert [one.id for one in yard.at_work] == ["2"]
