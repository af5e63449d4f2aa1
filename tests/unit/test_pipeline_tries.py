"""Which try comes next, what a run may spend, and what a listener is told."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import BudgetExceeded
from corral.workspace.pipelines.events import Feeds
from corral.workspace.pipelines.journal import Answer
from corral.workspace.pipelines.spending import Allowance, hold
from corral.workspace.pipelines.tries import PASSING, Tries


def failed(code: str = "engine_died") -> Answer:
    error = {"code": code, "message": "", "hint": ""}
    return Answer("s", 1, "r", "a", error=error, passing=code in PASSING)


def test_what_may_pass_is_tried_again_and_then_the_next_is_asked() -> None:
    tries = Tries(("a", "b"), retries=1, repairs=0)
    asked = [tries.turn.model]
    while tries.after_error(failed()):
        asked.append(tries.turn.model)
    assert asked == ["a", "a", "b", "b"]


def test_what_will_not_pass_goes_to_the_next_at_once() -> None:
    tries = Tries(("a", "b"), retries=5, repairs=0)
    assert tries.after_error(failed("model_not_found"))
    assert tries.turn.model == "b"
    assert not tries.after_error(failed("does_not_fit"))


def test_nobody_else_is_asked_for_who_may_not_ask() -> None:
    assert not Tries(("a", "b"), 5, 5).after_error(failed("forbidden"))


def test_a_try_that_was_left_counts_for_nothing() -> None:
    tries = Tries(("a",), retries=0, repairs=0)
    for _ in range(10):
        assert tries.after_error(Answer("s", 1, "r", "a", left=True))
    assert not tries.turn.again


def test_a_broken_contract_goes_back_with_what_is_wrong_and_then_to_the_next() -> None:
    tries = Tries(("a", "b"), retries=0, repairs=1)
    assert tries.after_breach("{", ["line 1: it has no end"])
    assert [each["role"] for each in tries.turn.more] == ["assistant", "user"]
    assert "it has no end" in tries.turn.more[1]["content"]
    assert tries.after_breach("{{", ["still"])
    assert (tries.turn.model, tries.turn.more) == ("b", ())
    assert tries.after_breach("[", ["again"])
    assert not tries.after_breach("[[", ["again"])


def test_memory_that_is_not_there_does_not_come_by_itself() -> None:
    assert {"engine_died", "upstream_refused", "rate_limited", "database_error"} <= PASSING
    assert not PASSING & {"engine_memory", "invalid_request", "budget_exceeded", "model_not_found"}


def test_an_allowance_holds_what_is_under_way() -> None:
    run, step = Allowance("This run", 1000, 100), Allowance("The step", 600)
    hold((run, step), "r1", 400, "m")
    assert (run.left, step.left) == (500, 200)
    with pytest.raises(BudgetExceeded, match="The step may spend"):
        hold((run, step), "r2", 300, "m")
    assert (run.left, step.left) == (500, 200), "nothing is held of what is refused"
    hold((run, step), "r1", 600, "m")  # the same request once more: in its own place
    assert step.left == 0
    run.settle("r1", 50)
    step.settle("r1", 50)
    assert (run.left, step.left) == (850, 550)
    with pytest.raises(BudgetExceeded, match="price of 'm' is not known"):
        hold((run,), "r3", None, "m")
    hold((Allowance("x", None),), "r3", None, "m")


def message(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "at": 1.0, **more}


async def test_a_slow_listener_loses_nothing_that_matters() -> None:
    feeds = Feeds()
    listener = feeds.join("run-1")
    for number in range(10_000):
        feeds.tell("run-1", message("text", step="a", attempt=1, text=f"{number} "))
        feeds.tell("run-1", message("step", step={"key": "a", "number": number}))
    feeds.tell("run-1", message("text", step="a", attempt=2, text="anew"))
    feeds.tell("run-1", message("artifact", artifact={"id": "art-1"}))
    feeds.tell("run-2", message("end", status="failed"))
    found = await listener.wait(0)
    assert [each["type"] for each in found] == ["text", "step", "text", "artifact"]
    assert found[0]["text"].split() == [str(number) for number in range(10_000)]
    assert found[1]["step"]["number"] == 9999
    assert await listener.wait(0) == []
    feeds.leave("run-1", listener)
    assert not feeds.heard("run-1")
