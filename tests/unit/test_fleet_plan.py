"""What is to be done to containers: tables, and an engine of values on which plans are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.domain.containers import ContainerSpec, Mount, Port, Seen, Wanted
from corral.domain.standings import Planned, Step
from corral.fleet.plan import Asked, Remembered, drifted, phases, plan, whose

YARD = "yard-1"
OTHER = "yard-2"


def want(name: str, port: int = 11434, **more: object) -> Wanted:
    up = bool(more.pop("up", True))
    spec = ContainerSpec(name, f"corral-{name}", "ollama", "ollama/ollama", ports=(Port(11434, port),))
    return Wanted(replace(spec, **more), up=up)  # type: ignore[arg-type]


def made(wanted: Wanted, yard: str = YARD, **more: object) -> Seen:
    one = Seen(
        id=(wanted.spec.container + yard).encode().hex().ljust(64, "0"),
        container=wanted.spec.container,
        image=wanted.spec.image,
        running=True,
        labels=wanted.spec.labelled(yard),
        ports=wanted.spec.ports,
    )
    return replace(one, **more)  # type: ignore[arg-type]


def planned(
    wanted: Sequence[Wanted], seen: Sequence[Seen], remembered: Mapping[str, Remembered] | None = None, **asked: object
) -> list[tuple[str, str]]:
    known = {one.name: Remembered() for one in wanted} if remembered is None else remembered
    steps = plan({one.name: one for one in wanted}, seen, YARD, known, Asked(**asked))  # type: ignore[arg-type]
    return [(str(step.step), step.name) for step in steps]


def reason(wanted: Sequence[Wanted], seen: Sequence[Seen], **asked: object) -> str:
    known = {one.name: Remembered() for one in wanted}
    return plan({one.name: one for one in wanted}, seen, YARD, known, Asked(**asked))[0].reason  # type: ignore[arg-type]


A, B = want("a", 11434), want("b", 11435)


def test_what_is_not_there_is_made_and_what_is_there_is_kept() -> None:
    assert planned([A, B], []) == [("create", "a"), ("create", "b")]
    assert planned([A, B], [made(B)]) == [("create", "a"), ("keep", "b")]
    assert planned([A, B], [made(B), made(A)]) == [("keep", "a"), ("keep", "b")]
    assert planned([], []) == []


def test_what_does_not_run_is_started() -> None:
    assert planned([A], [made(A, running=False, ports=())]) == [("start", "a")]
    assert planned([A], [made(A, running=False, created_only=True)]) == [("start", "a")]
    assert planned([A], [made(A, paused=True)]) == [("keep", "a")]
    assert planned([A], [made(A, running=False, restarting=True)]) == [("keep", "a")]


def test_what_shall_not_run_is_stopped_and_left_as_it_is() -> None:
    off = want("a", up=False)
    assert planned([off], []) == [("keep", "a")]
    assert planned([off], [made(off)]) == [("stop", "a")]
    assert planned([off], [made(A, running=False)]) == [("keep", "a")]
    down = {"a": Remembered(up=False)}
    assert planned([A], [], down) == [("keep", "a")]
    assert planned([A], [made(A)], down) == [("stop", "a")]
    assert planned([off], [], {"a": Remembered(up=True)}) == [("create", "a")]


def test_what_waits_is_left_alone_until_it_is_made_anew() -> None:
    held = {"a": Remembered(hold="a crash loop: it failed (exit code 1)")}
    down = made(A, running=False, ports=())
    assert planned([A], [down], held) == [("wait", "a")]
    assert planned([want("a", memory=5)], [down], held) == [("recreate", "a")]


def test_drift() -> None:
    assert planned([want("a", memory=5)], [made(A)]) == [("recreate", "a")]
    assert reason([want("a", memory=5)], [made(A)]) == "the configuration has changed since it was made"
    assert planned([A], [made(A)], {"a": Remembered(drift=("memory is 5, and shall be none",))}) == [("recreate", "a")]
    assert planned([A], [made(A)], recreate=True) == [("recreate", "a")]
    assert planned([A], [made(A, dead=True, running=False)]) == [("recreate", "a")]
    assert "shall be corral-a" in reason([A], [made(A, container="corral-a-aside")])


def test_what_is_there_with_our_labels_and_is_not_remembered_is_adopted() -> None:
    assert planned([A], [made(A)], {}) == [("adopt", "a"), ("keep", "a")]
    assert planned([A], [made(A, running=False)], {}) == [("adopt", "a"), ("start", "a")]
    assert planned([A], [], {}) == [("create", "a")]


def test_down() -> None:
    assert planned([A, B], [made(A), made(B, running=False)], down=True) == [("remove", "a"), ("remove", "b")]
    assert planned([A, B], [made(A)], down=True) == [("remove", "a"), ("keep", "b")]
    assert planned([A, B], [made(A), made(B)], down=True, names=frozenset({"b"})) == [("remove", "b")]


def test_orphans() -> None:
    seen = [made(A), made(B)]
    assert planned([A], seen) == [("orphan", "b"), ("keep", "a")]
    assert planned([A], seen, orphans="remove") == [("remove", "b"), ("keep", "a")]
    assert planned([A], seen, orphans="adopt") == [("adopt", "b"), ("keep", "a")]
    assert planned([A], seen, names=frozenset({"a"}), orphans="remove") == [("keep", "a")]
    assert planned([A], seen, names=frozenset({"b"}), orphans="remove") == [("remove", "b")]


def test_others_are_never_touched() -> None:
    theirs = made(A, OTHER, container="x", ports=())
    assert planned([A], [theirs]) == [("create", "a")]
    assert planned([], [theirs, made(B, OTHER)], orphans="remove") == []


COMPOSE = {"com.docker.compose.project": "stack", "com.docker.compose.service": "qwen"}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (A.spec.labelled(OTHER), "a of another Corral (yard-2)"),
        (COMPOSE, "service 'qwen' of the compose project 'stack'"),
        ({}, "a container of nginx that is not Corral's"),
    ],
)
def test_a_name_or_port_that_somebody_has(labels: dict[str, str], words: str) -> None:
    theirs = Seen("9" * 64, "corral-a", "nginx", labels=labels)
    assert planned([A], [theirs]) == [("blocked", "a")]
    assert reason([A], [theirs]).startswith("the name corral-a is taken by corral-a")
    assert words in reason([A], [theirs])
    on_port = replace(theirs, container="web", running=True, ports=(Port(80, 11434, "0.0.0.0"),))
    assert planned([A], [on_port]) == [("blocked", "a")]
    assert reason([A], [on_port]).startswith("port 11434 is taken by web")
    assert words in reason([A], [on_port])
    assert planned([A], [replace(on_port, running=False)]) == [("create", "a")]
    assert planned([A], [on_port, made(A, running=False)]) == [("blocked", "a")]
    assert planned([A], [replace(on_port, ports=(Port(80, 11434, "127.0.0.2"),))]) == [("create", "a")]


def test_an_orphan_that_has_the_port_is_in_the_way_until_it_is_removed() -> None:
    old = made(want("old", 11434))
    assert ("blocked", "a") in planned([A], [old])
    assert planned([A], [old], orphans="remove") == [("remove", "old"), ("create", "a")]


def test_ports_that_are_swapped() -> None:
    """Both are made anew; each has what the other wants, so both go before either comes."""
    seen = [made(A), made(B)]
    steps = planned([want("a", 11435), want("b", 11434)], seen)
    assert steps == [("remove", "a"), ("remove", "b"), ("create", "a"), ("create", "b")]


def test_a_port_that_is_handed_on() -> None:
    assert planned([want("a", 11440), want("b", 11434)], [made(A)]) == [
        ("remove", "a"),
        ("create", "a"),
        ("create", "b"),
    ]
    assert planned([want("a", 11434, up=False), want("b", 11434)], [made(A)]) == [("stop", "a"), ("create", "b")]


def test_who_waits_for_somebody_who_is_in_the_way_of_nobody_himself() -> None:
    """`a` cannot move, as its new port is taken; so `b` cannot have its old one, and nothing is removed."""
    theirs = Seen("9" * 64, "web", "nginx", running=True, ports=(Port(80, 11440),))
    steps = planned([want("a", 11440), want("b", 11434)], [made(A), theirs])
    assert steps == [("blocked", "a"), ("blocked", "b")]


def test_what_a_change_left_that_was_cut_short() -> None:
    aside = made(A, id="5" * 64, container="corral-a-aside", running=False, ports=())
    assert planned([A], [made(A), aside]) == [("remove", "a"), ("keep", "a")]
    assert planned([A], [aside]) == [("recreate", "a")]


def test_phases() -> None:
    steps = [Planned(Step.KEEP, "k"), Planned(Step.START, "s"), Planned(Step.CREATE, "c"), Planned(Step.STOP, "t")]
    assert [[step.name for step in group] for group in phases(steps)] == [["t"], ["c"], ["s"]]
    assert phases([Planned(Step.BLOCKED, "b"), Planned(Step.ORPHAN, "o"), Planned(Step.WAIT, "w")]) == []


def test_whose() -> None:
    assert whose(made(A), YARD) == "corral-a, which is this Corral's a"


def test_what_is_different_in_words() -> None:
    spec = replace(
        A.spec, environment={"K": "secret"}, mounts=(Mount("v", "/models"),), gpus=("0",), tmpfs={"/tmp": "rw"}
    )
    assert drifted(spec, replace(spec, user="root", command=("serve",), environment={"K": "secret", "P": "x"})) == ()
    other = replace(spec, memory=5, gpus=(), environment={"K": "leaked"}, mounts=(), tmpfs={}, image="x", ports=())
    told = drifted(spec, other)
    assert told == (
        "memory is 5, and shall be none",
        "gpus is none, and shall be 0",
        "image is x, and shall be ollama/ollama",
        "port 11434 does not lead to its port 11434",
        "environment has another K",
        "/models has nothing, and shall have v",
        "tmpfs lacks /tmp",
    )
    assert "secret" not in repr(told)
    assert "leaked" not in repr(told)
    assert drifted(replace(spec, network="host"), replace(spec, network="host", ports=())) == ()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"command": ("serve",)}, {"command": None}),
        ({"user": "root"}, {"user": None}),
        ({"environment": {"OLLAMA_HOST": "0.0.0.0"}}, {"environment": {}}),
        ({"pids": 4096, "shm": 64 * 2**20}, {"pids": None, "shm": None}),
        ({"memory": 2**30}, {"memory": None}),
        ({"cpus": 1 / 3}, {"cpus": 0.333333333}),
        ({"ports": (Port(1, 2, "::"),)}, {"ports": (Port(1, 2, "0.0.0.0"),)}),
        ({}, {"image": "sha256:" + "0" * 64}),
    ],
)
def test_what_an_image_or_an_engine_says_otherwise_is_no_difference(
    ours: dict[str, object], theirs: dict[str, object]
) -> None:
    """Else a container would be made anew again and again."""
    assert drifted(replace(A.spec, **ours), replace(A.spec, **theirs)) == ()


@pytest.mark.parametrize(("key", "value"), [("memory", 5), ("cpus", 0.5), ("pids", 7), ("network", "proxy")])
def test_what_somebody_changed_by_hand(key: str, value: object) -> None:
    (told,) = drifted(A.spec, replace(A.spec, **{key: value}))
    assert told.startswith(f"{key} is {value}, and shall be")


# An engine of values.

NAMES = ("a", "b", "c")
PORTS = st.integers(1, 4)
SPECS = st.builds(lambda memory, up: (memory, up), st.sampled_from([None, 10**9]), st.booleans() | st.just(True))
FLEETS = st.dictionaries(st.sampled_from(NAMES), SPECS, max_size=3).flatmap(
    lambda found: st.permutations([1, 2, 3, 4]).map(
        lambda ports: {
            name: want(name, ports[at], memory=memory, up=up) for at, (name, (memory, up)) in enumerate(found.items())
        }
    )
)
SEEN = st.lists(
    st.builds(
        lambda name, port, memory, yard, where, running: made(
            want(name, port, memory=memory),
            yard,
            container=where or f"corral-{name}",
            running=running,
            ports=(Port(11434, port),) if running else (),
            labels={} if yard == "" else want(name, port, memory=memory).spec.labelled(yard),
        ),
        st.sampled_from((*NAMES, "gone")),
        PORTS,
        st.sampled_from([None, 10**9]),
        st.sampled_from([YARD, YARD, YARD, OTHER, ""]),
        st.sampled_from(["", "", "corral-a", "aside-1", "aside-2"]),
        st.booleans(),
    ),
    max_size=6,
    unique_by=(lambda one: one.container, lambda one: one.ports[0].outside if one.ports else one.container),
).map(lambda found: [replace(one, id=f"{at:064x}") for at, one in enumerate(found)])
REMEMBERED = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(Remembered, st.sampled_from([None, True, False]), st.sampled_from(["", "", "a crash loop"])),
)


def apply(steps: list[Planned], wanted: dict[str, Wanted], seen: list[Seen], known: dict[str, Remembered]) -> None:
    """What an engine of values becomes; it refuses what a real one refuses."""
    for group in phases(steps):
        for step in group:
            there = next((one for one in seen if one.container == step.container), None)
            if step.step is Step.ADOPT:
                assert there is not None
                if step.name in wanted:
                    known[step.name] = Remembered()
                else:
                    wanted[step.name] = want(step.name, 9)
                    known[step.name] = Remembered(up=there.running)
            elif step.step in (Step.REMOVE, Step.RECREATE):
                assert there is not None
                assert there.yard == YARD, "somebody else's"
                seen.remove(there)
            elif step.step is Step.STOP:
                assert there is not None
                seen[seen.index(there)] = replace(there, running=False, ports=())
            if step.step in (Step.CREATE, Step.RECREATE):
                one = made(wanted[step.name], id=f"{len(seen) + 100:064x}")
                assert all(one.container != other.container for other in seen), "its name is taken"
                start(one, seen)
                known.setdefault(step.name, Remembered())
            elif step.step is Step.START:
                assert there is not None
                seen.remove(there)
                start(replace(there, running=True, ports=wanted[step.name].spec.ports), seen)


def start(one: Seen, seen: list[Seen]) -> None:
    taken = {port.outside for other in seen if other.running for port in other.ports}
    assert not taken & {port.outside for port in one.ports}, "its port is taken"
    seen.append(one)


DONE = {Step.KEEP, Step.BLOCKED, Step.ORPHAN, Step.WAIT}


@settings(max_examples=200, deadline=None)
@given(FLEETS, SEEN, REMEMBERED, st.sampled_from(["report", "remove"]), st.booleans(), st.data())
def test_applied_and_made_again_there_is_nothing_to_do(
    wanted: dict[str, Wanted],
    seen: list[Seen],
    known: dict[str, Remembered],
    orphans: str,
    down: bool,
    data: st.DataObject,
) -> None:
    names = frozenset(data.draw(st.sets(st.sampled_from(NAMES)))) if data.draw(st.booleans()) else frozenset[str]()
    asked = Asked(names, down=down, orphans=orphans)
    wanted, known, now = dict(wanted), dict(known), list(seen)
    first = plan(wanted, now, YARD, known, asked)
    assert plan(wanted, list(reversed(now)), YARD, known, asked) == first, "the order of a list says nothing"
    assert all(step.reason for step in first if step.step is not Step.KEEP)
    apply(first, wanted, now, known)
    again = plan(wanted, now, YARD, known, asked)
    assert {step.step for step in again} <= DONE, again
    theirs = [one for one in seen if one.yard != YARD]
    assert [one for one in now if one.yard != YARD] == theirs
    if not down and not names:
        for name, one in wanted.items():
            state = next((step.step for step in again if step.name == name), None)
            shall = known.get(name, Remembered()).up
            if state is Step.KEEP and (one.up if shall is None else shall):
                real = next(it for it in now if it.name == name and it.yard == YARD)
                assert real.running
                assert real.spec == one.spec.fingerprint()
