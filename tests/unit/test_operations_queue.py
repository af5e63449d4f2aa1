"""Which waiting operations may start: the limits, the lanes, and a fair order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.operations.queue import Limits, Place, startable

THREE = Limits(parallel=3, per_host=2)


def places(*texts):
    """`a`, `a/lane`, `a/lane@host`, `a@host`."""
    found = []
    for text in texts:
        rest, _, host = text.partition("@")
        name, _, lane = rest.partition("/")
        found.append(Place(name, lane, host))
    return found


@pytest.mark.parametrize(
    ("waiting", "running", "started"),
    [
        ("", "", ""),
        ("a b c d", "", "a b c"),
        ("a b", "x y", "a"),
        ("a", "x y z", ""),
        ("a", "x y z q", ""),
        ("a/l b/l c", "", "a c"),
        ("a/l", "x/l", ""),
        ("a@h b@h c@h d", "", "a b d"),
        ("a@h b@i", "x@h y@h", "b"),
        ("a/l@h b/l c", "x@h y@h", "c"),
    ],
    ids=[
        "nothing",
        "as many as may run at once",
        "beside what runs",
        "all places taken",
        "more than all places taken",
        "one of a lane",
        "a lane at work",
        "two of a host, and one that overtakes the third",
        "a busy host holds up nobody else",
        "none overtakes another of its lane, even when that one waits for its host",
    ],
)
def test_what_may_start(waiting, running, started):
    assert startable(places(*waiting.split()), places(*running.split()), THREE) == started.split()


def some(prefix):
    entry = st.tuples(st.sampled_from(["", "l", "m"]), st.sampled_from(["", "h", "i"]))
    return st.lists(entry, max_size=8).map(lambda found: [Place(f"{prefix}{n}", *each) for n, each in enumerate(found)])


@given(some("w"), some("r"), st.integers(1, 5), st.integers(1, 3))
def test_the_limits_hold_and_nothing_waits_without_a_reason(waiting, running, parallel, per_host):
    limits = Limits(parallel, per_host)

    chosen = startable(waiting, running, limits)

    started = [place for place in waiting if place.id in chosen]
    assert [place.id for place in started] == chosen
    if not chosen and waiting and len(running) < parallel:
        first = waiting[0]
        in_lane = [place for place in running if place.lane and place.lane == first.lane]
        on_host = [place for place in running if place.host and place.host == first.host]
        assert in_lane or len(on_host) >= per_host
    if chosen:
        assert len(running) + len(chosen) <= parallel
        for one, other in itertools.combinations([*started, *running], 2):
            if one in started:
                assert not one.lane or one.lane != other.lane
        for place in started:
            assert not place.host or sum(p.host == place.host for p in [*running, *started]) <= per_host


def test_what_counts_for_itself_neither_waits_for_others_nor_holds_them_up():
    limits = Limits(parallel=1, per_host=1, apart={"runs": 2})
    waiting = places("r1@runs", "r2@runs", "r3@runs", "i1@hub")
    assert startable(waiting, [], limits) == ["r1", "r2", "i1"]
    assert startable(waiting, places("x@hub"), limits) == ["r1", "r2"]
    assert startable(waiting, places("r0@runs", "r9@runs"), limits) == ["i1"]
