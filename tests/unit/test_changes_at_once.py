"""Keys and budgets that two people change at once: what one of them did not name stays as the other wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from corral.db.engine import Database
from corral.domain.callers import Scope
from corral.domain.keys import KeyWish
from corral.errors import BudgetNotFound, KeyNotFound
from corral.routing.audit import TERMINAL, Audit
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.routing.keys import Keys
from support.clocks import HandClock


class Overtaken(Database):
    """A database in which somebody else is done between what is read here and what is written."""

    by: Callable[[], Awaitable[object]] | None = None

    async def write(self, work: Any) -> Any:
        by, self.by = self.by, None
        if by is not None:
            await by()
        return await super().write(work)


@pytest.fixture
async def mine(tmp_path: Path) -> AsyncIterator[Overtaken]:
    async with aclosing(_closed(Overtaken(None, tmp_path))) as opened:
        yield await anext(opened)


@pytest.fixture
async def theirs(tmp_path: Path) -> AsyncIterator[Database]:
    async with aclosing(_closed(Database(None, tmp_path))) as opened:
        yield await anext(opened)


async def _closed(database: Any) -> Any:
    try:
        yield database
    finally:
        await database.close()


async def test_a_key_that_another_restricts_meanwhile_stays_restricted(mine: Overtaken, theirs: Database) -> None:
    here, there = Keys(mine, HandClock()), Keys(theirs, HandClock())
    key, _ = await here.create(KeyWish("ci", Scope.ADMIN), TERMINAL)
    restricted = {"scope": Scope.INFER, "models": ("a",)}
    mine.by = lambda: there.change(key.id, restricted, TERMINAL)

    changed = await here.change(key.id, {"name": "build", "requests": 5}, TERMINAL)

    assert changed.wish == KeyWish("build", Scope.INFER, models=("a",), requests=5)
    assert await there.get("build") == changed
    assert (await here.change(key.id, {}, TERMINAL)).wish == changed.wish


async def test_who_rotates_a_key_that_another_revokes_meanwhile_is_told(mine: Overtaken, theirs: Database) -> None:
    here, there = Keys(mine, HandClock()), Keys(theirs, HandClock())
    key, _ = await here.create(KeyWish("ci"), TERMINAL)
    mine.by = lambda: there.revoke(key.id, TERMINAL)
    with pytest.raises(KeyNotFound, match="'ci' is revoked"):
        await here.rotate(key.id, TERMINAL)


async def test_a_budget_that_another_lowers_meanwhile_stays_low(mine: Overtaken, theirs: Database) -> None:
    here, there = Budgets(mine, HandClock()), Budgets(theirs, HandClock())
    made = await here.create(Budget("", "all", "all", "", "usd", "day", 1000, 0.0))
    mine.by = lambda: there.change("all", amount=5)

    changed = await here.change("all", rename="everybody", actor=TERMINAL)

    assert (changed.budget.id, changed.budget.name, changed.budget.amount) == (made.budget.id, "everybody", 5)
    (entry,) = await Audit(theirs, HandClock()).page(10)
    assert (entry.detail["name"], entry.detail["amount"]) == ("everybody", 5)


async def test_of_a_budget_that_another_removes_meanwhile_nothing_is_said(mine: Overtaken, theirs: Database) -> None:
    here = Budgets(mine, HandClock())
    await here.create(Budget("", "all", "all", "", "usd", "day", 1000, 0.0))
    mine.by = lambda: Budgets(theirs, HandClock()).remove("all")
    with pytest.raises(BudgetNotFound):
        await here.change("all", amount=7, actor=TERMINAL)
    assert await Audit(theirs, HandClock()).page(10) == []
