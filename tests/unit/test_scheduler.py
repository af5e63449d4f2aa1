"""Decisions about engines, from values alone."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from corral.domain.states import State
from corral.lifecycle.scheduler import EngineView, idle, next_check


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
