"""What a key may ask for in a minute and at a time, with a clock moved by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.domain.callers import LOCAL, Caller
from corral.errors import RateLimited
from corral.routing.limits import SPAN, Limits, Window


class Hand:
    """Seconds, as they are set."""

    def __init__(self) -> None:
        self.time = 1024.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def hand() -> Hand:
    return Hand()


def refusal(limits: Limits, caller: Caller) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limits.enter(caller)
    return caught.value


def test_requests_slide_and_the_wait_is_exact(hand: Hand) -> None:
    limits, caller = Limits(hand), Caller("key-1", "ci", requests=3)
    for _ in range(3):
        limits.enter(caller)
        hand.time += 4.0

    refused = refusal(limits, caller)

    assert refused.retry_after == SPAN - 12.0
    assert "3 requests" in refused.message
    hand.time += SPAN - 12.0 - 0.25
    refusal(limits, caller)
    hand.time += 0.25
    limits.enter(caller)
    assert refusal(limits, caller).retry_after == 4.0


def test_a_refused_request_does_not_count(hand: Hand) -> None:
    limits, caller = Limits(hand), Caller("key-1", "ci", requests=1)
    limits.enter(caller)
    for _ in range(50):
        hand.time += 1.0
        refusal(limits, caller)
    hand.time += 10.0
    limits.enter(caller)


def test_tokens_are_counted_when_they_are_known(hand: Hand) -> None:
    limits, caller = Limits(hand), Caller("key-1", "ci", tokens=100)
    limits.enter(caller)
    limits.spend(caller, 60)
    hand.time += 10.0
    limits.enter(caller)
    limits.spend(caller, 60)

    assert refusal(limits, caller).retry_after == SPAN - 10.0
    hand.time += SPAN - 10.0
    limits.enter(caller)


def test_parallel_is_freed_by_leaving(hand: Hand) -> None:
    limits, caller = Limits(hand), Caller("key-1", "ci", parallel=2)
    limits.enter(caller)
    limits.enter(caller)
    assert refusal(limits, caller).retry_after is not None
    limits.leave(caller)
    limits.enter(caller)
    refusal(limits, caller)


def test_a_request_that_the_tokens_refuse_takes_no_place(hand: Hand) -> None:
    limits, caller = Limits(hand), Caller("key-1", "ci", tokens=1, parallel=1)
    limits.spend(caller, 5)
    refusal(limits, caller)
    hand.time += SPAN
    limits.enter(caller)


def test_a_key_that_is_changed_while_it_asks_leaves_no_place_taken(hand: Hand) -> None:
    limits = Limits(hand)
    free, bound = Caller("key-1", "ci"), Caller("key-1", "ci", parallel=1)
    limits.enter(free)
    limits.enter(bound)
    limits.leave(free)
    refusal(limits, bound)
    limits.leave(bound)
    limits.enter(bound)


def test_whoever_has_no_limits_is_not_remembered(hand: Hand) -> None:
    limits = Limits(hand)
    for _ in range(3):
        limits.enter(LOCAL)
        limits.spend(LOCAL, 10**9)
    limits.leave(LOCAL)
    assert len(limits) == 0
    assert limits.headers(LOCAL) == []


def test_the_idle_are_forgotten(hand: Hand) -> None:
    limits = Limits(hand)
    busy = Caller("key-busy", "busy", parallel=1)
    limits.enter(busy)
    for number in range(10_000):
        hand.time += 1.0
        caller = Caller(f"key-{number}", "ci", requests=5)
        limits.enter(caller)
        limits.leave(caller)
    assert len(limits) <= 512
    refusal(limits, busy)


def test_the_headers_of_openais_clients(hand: Hand) -> None:
    limits, caller = Limits(hand), Caller("key-1", "ci", requests=10, tokens=1000)
    assert dict(limits.headers(caller))[b"x-ratelimit-reset-requests"] == b"0ms"
    limits.enter(caller)
    limits.spend(caller, 1200)
    hand.time += 59.5
    limits.headers(caller)
    limits.leave(caller)
    limits.spend(caller, 10)

    assert dict(limits.headers(caller)) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"500ms",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"1m0s",
    }


@given(st.lists(st.integers(0, 40), min_size=1, max_size=400), st.integers(1, 20))
def test_no_minute_has_more_than_the_limit(gaps: list[int], most: int) -> None:
    hand = Hand()
    limits, caller = Limits(hand), Caller("key-1", "ci", requests=most)
    let_in: list[float] = []
    for gap in gaps:
        hand.time += gap / 8
        wait = 0.0
        try:
            limits.enter(caller)
        except RateLimited as refused:
            wait = refused.retry_after or 0.0
        else:
            let_in.append(hand.time)
        # Let in, or it would be let in after that wait, and not a moment earlier.
        if wait:
            assert sum(at > hand.time + wait - SPAN for at in let_in) < most
            assert sum(at > hand.time + wait - 1 / 16 - SPAN for at in let_in) >= most
        else:
            assert let_in[-1] == hand.time
            assert sum(at > hand.time - SPAN for at in let_in) <= most


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), max_size=1500))
def test_a_window_holds_what_it_must_in_little_room(steps: list[tuple[float, int]]) -> None:
    window, now, all_of_it = Window(), 0.0, []
    for gap, amount in steps:
        now += gap
        window.slide(now)
        window.add(now, amount)
        all_of_it.append((now, amount))
    assert window.total >= sum(amount for at, amount in all_of_it if at + SPAN > now)
    assert window.slide(now + 2 * SPAN) == 0


def test_a_window_of_very_many_stays_small() -> None:
    window, now = Window(), 0.0
    for _ in range(200_000):
        now += 0.001
        window.slide(now)
        window.add(now, 1)
    assert len(window._portions) < 800
    assert 60_000 <= window.total <= 60_000 + 200
