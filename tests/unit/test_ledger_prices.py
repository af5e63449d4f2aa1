"""Prices, bounds and periods: pure, but for the price list, which is asked for real models."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config.traffic import PriceSettings
from corral.dialects.form import form
from corral.domain.money import FREE, MOST_TOKENS, NANO, UNKNOWN, Price, Tier, Usage
from corral.routing.book import money_text
from corral.routing.bounds import IMAGE, input_upper, worst_case
from corral.routing.order import Order
from corral.routing.periods import PERIODS, period_end, period_key
from corral.routing.prices import Prices
from corral.routing.purse import worst
from support.clocks import HandClock


def unix(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()


def prices(electricity: float = 0.0, **settings: PriceSettings) -> Prices:
    clock = HandClock()
    clock.time = unix(2026, 11, 21, 12) - 1_700_000_000.0
    return Prices(settings, electricity, clock)


def test_a_period_has_the_name_that_people_give_it() -> None:
    moment = unix(2026, 11, 21, 23, 59, 59)

    assert [period_key(period, moment) for period in PERIODS] == ["2026-11-21", "2026-W47", "2026-11", "total"]
    assert period_key("week", unix(2027, 1, 1)) == "2026-W53"


@given(st.floats(0, 4e9), st.sampled_from(["day", "week", "month"]))
def test_a_period_ends_where_the_next_begins(moment: float, period: str) -> None:
    end = period_end(period, moment)

    assert moment < end
    assert period_key(period, end - 1) == period_key(period, moment)
    assert period_key(period, end) != period_key(period, moment)


def test_a_price_of_the_list_is_the_list_s_to_the_nanodollar() -> None:
    from genai_prices import Usage as Theirs
    from genai_prices import calc_price

    for provider, model in (
        ("google", "gemini-2.5-pro"),
        ("anthropic", "claude-sonnet-4-5"),
        ("openai", "gpt-5"),
        ("openai", "gpt-4o-mini"),
    ):
        for size in (100_000, 200_000, 200_001, 300_000):
            used = Usage(input=size, output=777, cached=40_000)
            theirs = calc_price(
                Theirs(input_tokens=size, output_tokens=777, cache_read_tokens=40_000), model, provider_id=provider
            )
            ours = prices().of("name", provider, model, local=False)

            assert abs(ours.cost(used) - theirs.total_price * NANO) < 1, (model, size)
            assert ours.source.startswith("genai-prices ")
            assert f"{provider}:{model}" in ours.source


def test_thought_is_paid_as_answer_and_what_the_cache_takes_by_its_own_price() -> None:
    price = prices().of("claude", "anthropic", "claude-sonnet-4-5", local=False)

    assert price.cost(Usage(output=10, reasoning=4)) == price.cost(Usage(output=10))
    assert price.cost(Usage(input=1000, cache_write=1000)) == 3_750_000


def test_a_batch_costs_what_the_list_or_the_configuration_says() -> None:
    asked = prices(mine=PriceSettings(like="openai:gpt-5", batch=0.1))
    whole = asked.of("g", "google", "gemini-2.5-pro", local=False)

    assert (
        asked.of("g", "google", "gemini-2.5-pro", local=False, batch=True).tiers[0].output == whole.tiers[0].output // 2
    )
    assert asked.of("mine", None, None, local=False, batch=True).tiers[0].input == 125_000_000


def test_what_runs_here_is_free_but_for_its_electricity() -> None:
    asked = prices(electricity=0.36, warm=PriceSettings(watts=1000.0), rented=PriceSettings(hour=3.6))

    assert asked.of("smollm2", None, None, local=True) is FREE
    assert asked.of("warm", None, None, local=True).cost(Usage(input=9, seconds=10)) == 1_000_000
    assert asked.of("rented", None, None, local=True).cost(Usage(seconds=1)) == 1_000_000


def test_the_configuration_overrides_the_list_in_part() -> None:
    asked = prices(gpt=PriceSettings(output=1.0), own=PriceSettings(input=2.0, output=4.0))
    part, own = asked.of("gpt", "openai", "gpt-5", local=False), asked.of("own", None, None, local=False)

    assert (part.tiers[0].input, part.tiers[0].output) == (1_250_000_000, 1_000_000_000)
    assert part.source.startswith("prices.gpt over genai-prices")
    assert own.cost(Usage(input=500_000, output=500_000)) == 3 * NANO


@pytest.mark.parametrize(
    "settings",
    [{}, {"odd": PriceSettings(input=1.0)}, {"odd": PriceSettings(hour=1.0)}, {"odd": PriceSettings(like="x")}],
)
def test_a_price_that_nobody_knows_is_said_to_be_unknown(settings: dict[str, PriceSettings]) -> None:
    asked = prices(**settings)

    for _ in range(3):
        assert not asked.of("odd", "openai", "no-such-model", local=False).known
    assert asked.unknown == 1
    assert not UNKNOWN.free
    assert worst_case(UNKNOWN, 10, 10).nano is None


def test_a_price_by_the_time_of_day_changes_with_it() -> None:
    clock = HandClock()
    clock.time = unix(2025, 3, 1, 0, 29) - 1_700_000_000.0
    asked = Prices({}, 0.0, clock)
    night = asked.of("d", "deepseek", "deepseek-chat", local=False).tiers[0].input
    clock.time += 120.0

    assert asked.of("d", "deepseek", "deepseek-chat", local=False).tiers[0].input == 2 * night


TIERS = st.builds(
    Tier,
    input=st.integers(0, 10**11),
    output=st.integers(0, 10**11),
    cached=st.none() | st.integers(0, 10**11),
    cache_write=st.none() | st.integers(0, 10**11),
    reasoning=st.none() | st.integers(0, 10**11),
    audio_input=st.none() | st.integers(0, 10**11),
    audio_output=st.none() | st.integers(0, 10**11),
)


@given(
    st.lists(TIERS, min_size=1, max_size=3),
    st.integers(0, 10**9),
    st.integers(0, 500_000),
    st.integers(0, 100_000),
    st.data(),
)
def test_no_call_within_its_bounds_costs_more_than_the_worst(
    tiers: list[Tier], request: int, size: int, most: int, data: st.DataObject
) -> None:
    price = Price(
        tuple(
            Tier(**{name: getattr(t, name) for name in Tier.__slots__ if name != "over"}, over=100_000 * n)
            for n, t in enumerate(tiers)
        ),
        request=request,
    )
    used = data.draw(st.integers(0, size))
    cached = data.draw(st.integers(0, used))
    written = data.draw(st.integers(0, used - cached))
    answer = data.draw(st.integers(0, most))
    thought = data.draw(st.integers(0, answer))
    worst = worst_case(price, size, most)

    assert price.cost(Usage(used, answer, cached, written, thought)) <= (worst.nano or 0) + 0
    assert (worst.tokens, worst.requests) == (size + most, 1)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_what_an_engine_says_is_believed_within_reason(seconds: float) -> None:
    lied = Usage(2**62, -7, cached=-1, cache_write=2**63, reasoning=3, seconds=seconds)

    assert lied == Usage(MOST_TOKENS, 0, cache_write=MOST_TOKENS, reasoning=3)
    assert Usage(5, 6, cached=-9) == Usage(5, 6)
    assert 0 <= Price((Tier(10**12, 10**12),), second=5).cost(lied) < 2**63


@pytest.mark.parametrize(
    ("wish", "answers"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": 2, "best_of": 7}, 7),
        ({"n": -4, "best_of": "9"}, 1),
        ({"generationConfig": {"candidateCount": 5}}, 5),
    ],
)
def test_each_answer_that_is_written_is_reserved(wish: dict[str, object], answers: int) -> None:
    def most(limit: int) -> int:
        asked = Order("r", form("openai.completions"), "m", {"model": "m", **wish}, body=b"{}")
        return worst(asked, Price((Tier(0, 1_000_000),)), limit).nano or 0

    assert most(10) == 10 * answers
    assert most(-10) == 0


def test_an_upper_bound_counts_bytes_messages_and_pictures() -> None:
    assert input_upper(len("héllo".encode())) >= 6
    assert input_upper(10, 3, 2) - input_upper(10, 3) == 2 * IMAGE


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "$0.00"), (NANO * 5 // 2, "$2.50"), (1, "$0.000000001"), (-NANO // 100, "-$0.01")]
)
def test_money_is_shown_exactly(nano: int, text: str) -> None:
    assert money_text(nano) == text
    assert Decimal(text.replace("$", "")) * NANO == nano
