"""What is held of a budget for one request: the most that it can cost, whatever it says twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.domain.callers import LOCAL
from corral.domain.money import Price, Tier
from corral.errors import DatabaseError
from corral.gateway.inference.doors import DOORS, Asked, read
from corral.routing.purse import Purse, worst

PRICE = Price((Tier(input=0, output=1_000_000),))
"""A nanodollar for each token of answer, nothing for the prompt."""


def order(path: str = "/v1/chat/completions", **more: Any) -> Any:
    main = (
        {"prompt": "x"}
        if path.endswith("/completions") and "chat" not in path
        else {"messages": [{"role": "user", "content": "x"}]}
    )
    return read(DOORS[path], json.dumps({"model": "m", **main, **more}).encode(), Asked("r", LOCAL))


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 9),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": 7, "n": 0}, 7),
    ],
)
def test_the_most_that_may_be_written_is_held(more: dict[str, Any], tokens: int) -> None:
    asked = order(**more)

    assert worst(asked, PRICE, asked.max_tokens).nano == tokens


def test_answers_that_are_only_looked_through_for_the_best_cost_as_well() -> None:
    asked = order("/v1/completions", max_tokens=5, n=2, best_of=4)

    assert worst(asked, PRICE, asked.max_tokens).nano == 20


def test_a_prompt_counts_for_each_of_its_bytes_and_a_picture_for_the_most_that_one_can() -> None:
    price = Price((Tier(input=1_000_000, output=0),))
    text = worst(order(max_tokens=1), price, 1).nano
    longer = worst(order(max_tokens=1, messages=[{"role": "user", "content": "ü" * 1000}]), price, 1).nano
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}}]
    seen = worst(order(max_tokens=1, messages=[{"role": "user", "content": picture}]), price, 1).nano

    assert None not in (text, longer, seen)
    assert longer - text >= 2000  # type: ignore[operator]
    assert 10_000 < seen < 100_000  # type: ignore[operator]


def test_a_picture_that_only_its_address_stands_for_is_held_for_as_any_other() -> None:
    price = Price((Tier(input=1_000_000, output=0),))
    named = [{"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}]
    seen = worst(order(max_tokens=1, messages=[{"role": "user", "content": named}]), price, 1).nano

    assert seen is not None
    assert seen > 10_000


async def test_who_only_asks_is_not_told_where_the_database_is(caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        async def reserve(self, *_: Any) -> None:
            raise DatabaseError("The database postgresql://owner@db.example/books failed.")

    purse = Purse(Away(), lambda _: PRICE, lambda: 4096)  # type: ignore[arg-type] # all that is asked of it

    with pytest.raises(DatabaseError, match="The budget cannot be looked up") as refused:
        await purse.reserve(order(max_tokens=7), PRICE, "m")

    assert "db.example" not in str(refused.value)
    assert "db.example" in caplog.text
