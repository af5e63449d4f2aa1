"""Breakers: whoever fails too often is left alone, looked after, and asked again."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corral.errors import CircuitOpen
from corral.routing.breakers import Breakers
from corral.routing.policies import MOST_ALONE, Action, Standing, Threshold, Verdict
from corral.routing.stickiness import Speeds, Stickiness
from support.clocks import HandClock

FAILED = Verdict(Action.RETRY, "status_500", "it answered 500", counts=True)
UNREACHABLE = Verdict(Action.RETRY, "upstream_refused", "no connection", counts=True, shared=True)


def limited(seconds: float) -> Verdict:
    return Verdict(Action.RETRY, "status_429", "it answered 429", counts=True, retry_after=seconds)


def opened(clock: HandClock, model: str = "m", failures: int = 3) -> Breakers:
    breakers = Breakers(clock, Threshold(failures, 30.0))
    for _ in range(failures):
        breakers.failed(model, FAILED)
    return breakers


def test_so_many_failures_in_a_row_open_it() -> None:
    clock = HandClock()
    breakers = Breakers(clock, Threshold(3, 30.0))
    for _ in range(2):
        breakers.failed("m", FAILED)
    assert breakers.wait("m") == 0
    breakers.succeeded("m")
    assert not breakers.rows()
    for _ in range(3):
        breakers.failed("m", FAILED)
    assert breakers.wait("m") == 30.0
    assert breakers.wait("other") == 0
    with pytest.raises(CircuitOpen, match="another 30 s: it answered 500") as caught:
        breakers.check("m")
    assert caught.value.retry_after == 30.0


def test_what_does_not_count_opens_nothing() -> None:
    breakers = Breakers(HandClock(), Threshold(1, 30.0))
    breakers.failed("m", Verdict(Action.GIVE_UP, "invalid_request", "what?"))
    assert not breakers.rows()
    breakers.check("m")


async def test_after_the_pause_one_looks_and_requests_wait_for_that() -> None:
    clock = HandClock()
    breakers = opened(clock)
    assert not breakers.claim("m")
    await clock.advance(30.0)
    assert breakers.due("m")
    assert breakers.wait("m") > 0, "nobody may be sent there before somebody has looked"
    assert breakers.claim("m")
    assert not breakers.claim("m"), "one at a time"
    breakers.probed("m", well=True)
    assert breakers.wait("m") == 0
    breakers.failed("m", FAILED)
    assert breakers.wait("m") == 30.0, "the next failure opens it again at once"


async def test_an_answer_after_the_pause_closes_it_without_a_look() -> None:
    clock = HandClock()
    breakers = opened(clock)
    await clock.advance(30.0)
    breakers.succeeded("m")
    assert not breakers.rows()


async def test_found_unwell_it_stays_alone_for_another_pause() -> None:
    clock = HandClock()
    breakers = opened(clock)
    await clock.advance(31.0)
    assert breakers.claim("m")
    breakers.probed("m", well=False)
    assert breakers.wait("m") == 30.0
    await clock.advance(30.0)
    assert breakers.claim("m")
    breakers.probed("m", well=True)
    breakers.succeeded("m")
    assert not breakers.rows()


async def test_who_never_tells_is_forgotten() -> None:
    clock = HandClock()
    breakers = opened(clock)
    await clock.advance(30.0)
    assert breakers.claim("m")
    await clock.advance(29.0)
    assert not breakers.claim("m")
    await clock.advance(1.0)
    assert breakers.claim("m")


async def test_a_failure_meanwhile_is_not_overlooked() -> None:
    clock = HandClock()
    breakers = opened(clock)
    await clock.advance(30.0)
    assert breakers.claim("m")
    breakers.failed("m", FAILED)  # of a request that was under way all the time
    breakers.probed("m", well=True)
    assert breakers.wait("m") == 30.0


async def test_a_late_answer_does_not_close_it() -> None:
    clock = HandClock()
    breakers = opened(clock)
    breakers.succeeded("m")
    assert breakers.wait("m") == 30.0


async def test_a_vendor_that_says_when_is_left_alone_until_then_and_needs_nobody_to_look() -> None:
    clock = HandClock()
    breakers = Breakers(clock, Threshold(5, 30.0))
    breakers.failed("m", limited(12.0))
    assert breakers.wait("m") == 12.0
    await clock.advance(12.0)
    assert breakers.wait("m") == 0
    assert not breakers.due("m")
    breakers.failed("m", limited(1e9))
    assert breakers.wait("m") == MOST_ALONE


async def test_models_at_one_address_fail_together_when_the_address_does() -> None:
    clock = HandClock()
    where = {"a": "http://h/v1", "b": "http://h/v1", "c": "http://i/v1"}
    breakers = Breakers(clock, Threshold(2, 30.0), where.get)
    breakers.failed("a", FAILED)
    breakers.failed("b", FAILED)
    assert (breakers.wait("a"), breakers.wait("b")) == (0, 0), "each failed of its own, and once"
    breakers.forget("a")
    breakers.forget("b")
    breakers.failed("a", UNREACHABLE)
    breakers.failed("b", UNREACHABLE)
    assert (breakers.wait("a"), breakers.wait("b"), breakers.wait("c")) == (30.0, 30.0, 0)
    assert [row.name for row in breakers.rows() if row.standing is Standing.OPEN] == ["http://h/v1"]
    await clock.advance(30.0)
    assert breakers.claim("b")
    assert not breakers.claim("a"), "one look is for both"
    breakers.probed("b", well=True)
    assert breakers.wait("a") == 0


def test_what_is_remembered_is_bounded() -> None:
    breakers = Breakers(HandClock(), Threshold(1, 30.0))
    for number in range(3000):
        breakers.failed(f"m{number}", FAILED)
    assert len(breakers.rows()) == 1024
    assert breakers.wait("m2999")


async def test_conversations_stay_for_a_while_and_are_bounded() -> None:
    clock = HandClock()
    places = Stickiness(clock, seconds=300.0, most=3)
    for key in range(4):
        places.keep(key, f"m{key}")
    assert len(places) == 3
    assert (places.place(0), places.place(3)) == (None, "m3")
    await clock.advance(200.0)
    places.keep(3, "m3")
    await clock.advance(200.0)
    assert (places.place(1), places.place(3)) == (None, "m3")
    assert len(places) == 2
    places.keep(2, "m9")
    places.keep(5, "m5")
    assert places.place(2) == "m9"


async def test_speeds_follow_and_fade() -> None:
    clock = HandClock()
    speeds = Speeds(clock)
    assert speeds.of("m") is None
    speeds.note("m", 1.0)
    speeds.note("m", 2.0)
    assert speeds.of("m") == pytest.approx(1.2)
    await clock.advance(300.0)
    assert speeds.of("m") is None
    speeds.note("m", 5.0)
    assert speeds.of("m") == 5.0


class BreakerMachine(RuleBasedStateMachine):
    """Against the simplest account of the same: failures in a row, and until when."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.breakers = Breakers(self.clock, Threshold(3, 30.0))
        self.in_row = 0
        self.until = 0.0
        self.looking: float | None = None
        self.examine = False

    @rule(seconds=st.sampled_from([0.5, 5.0, 15.0, 30.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.time += seconds

    @rule(after=st.sampled_from([None, 0.0, 5.0, 50.0]))
    def fail(self, after: float | None) -> None:
        self.breakers.failed("m", FAILED if after is None else limited(after))
        self.in_row += 1
        self.looking = None
        if self.in_row >= 3:
            self.examine, self.until = True, max(self.until, self.clock.time + 30.0)
        if after is not None:
            self.until = max(self.until, self.clock.time + after)

    @rule()
    def succeed(self) -> None:
        self.breakers.succeeded("m")
        if self.clock.time >= self.until:
            self.in_row, self.examine, self.looking = 0, False, None

    @rule()
    def claim(self) -> None:
        looked_after = self.looking is not None and self.clock.time < self.looking
        may = self.examine and self.clock.time >= self.until and not looked_after
        assert self.breakers.claim("m") is may
        if may:
            self.looking = self.clock.time + 30.0

    @precondition(lambda self: self.looking is not None)
    @rule(well=st.booleans())
    def tell(self, well: bool) -> None:
        self.breakers.probed("m", well=well)
        self.looking = None
        if well:
            self.examine, self.until, self.in_row = False, 0.0, 2
        else:
            self.until = self.clock.time + 30.0

    @invariant()
    def requests_go_there_exactly_when_closed(self) -> None:
        closed = not self.examine and self.clock.time >= self.until
        assert (self.breakers.wait("m") == 0) is closed
        for row in self.breakers.rows():
            assert (row.standing is Standing.OPEN) is (self.clock.time < self.until)
            assert row.failures == self.in_row
            assert row.left <= MOST_ALONE


BreakerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestBreakers = BreakerMachine.TestCase
