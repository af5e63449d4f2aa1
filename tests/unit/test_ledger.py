"""The ledger in one process: on a SQLite file, by a clock that tests move."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from corral.db.engine import Database
from corral.domain.callers import Caller
from corral.errors import BudgetExceeded, BudgetNotFound, Conflict, DatabaseError, InvalidRequest, KeyNotFound
from corral.routing.book import MOST, Budget
from corral.routing.budgets import Budgets, Status, amount_of, describe
from corral.routing.ledger import NOTHING, Amounts, Ledger
from support.clocks import HandClock

ADA = Caller("key-ada", "ada", project="game")
BOB = Caller("key-bob", "bob")
ONE = Amounts(100, 10)


@dataclass
class Desk:
    """A home with a database."""

    home: Path
    clock: HandClock
    database: Database
    budgets: Budgets
    made: list[Ledger]

    async def budget(self, name: str, amount: int, unit: str = "requests", period: str = "total", **of: str) -> None:
        subject, who = next(iter(of.items()), ("all", ""))
        await self.budgets.create(Budget("", name, subject, who, unit, period, amount))

    async def ledger(self, **options: float) -> Ledger:
        made = Ledger(self.database, self.home, self.clock, **options)
        await made.refresh()
        self.made.append(made)
        return made

    async def status(self, name: str) -> Status:
        return await self.budgets.get(name)

    async def sums(self, name: str) -> tuple[int, int]:
        found = await self.status(name)
        return found.spent, found.leased


@asynccontextmanager
async def desk_in(home: Path) -> AsyncIterator[Desk]:
    clock = HandClock()
    database = Database(None, home, patience=0.2)
    desk = Desk(home, clock, database, Budgets(database, clock), [])
    try:
        yield desk
    finally:
        for ledger in desk.made:
            await ledger.close()
        await database.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path) as found:
        yield found


async def test_who_has_no_budget_is_not_held_up(desk: Desk) -> None:
    await desk.budget("ada", 1, key="local")
    ledger = await desk.ledger()

    assert ledger.hold(BOB, ONE) is NOTHING
    NOTHING.settle(ONE)
    NOTHING.release()
    assert ledger.group(BOB) is None
    assert not (desk.home / "ledger").exists()


async def test_a_call_spends_from_every_budget_that_applies_or_from_none(desk: Desk) -> None:
    await desk.budget("all", 1000, "tokens")
    await desk.budget("game", 15, "tokens", project="game")
    ledger = await desk.ledger()

    (await ledger.reserve(ADA, ONE)).settle(Amounts(0, 8))
    with pytest.raises(BudgetExceeded, match="'game' has 7 of 15 tokens left in all; the answer could take 10"):
        await ledger.reserve(ADA, ONE)
    (await ledger.reserve(BOB, ONE)).settle(ONE)
    await ledger.flush()

    assert (await desk.status("all")).spent == 18
    assert (await desk.status("game")).spent == 8
    group = ledger.group(ADA)
    assert group is not None
    assert sorted(account.budget.name for account in group.accounts) == ["all", "game"]


async def test_what_a_call_cost_beyond_its_reservation_is_booked_in_full(desk: Desk) -> None:
    await desk.budget("money", 1000, "usd")
    ledger = await desk.ledger()

    (await ledger.reserve(ADA, Amounts(900, 1))).settle(Amounts(5000, 1))
    await ledger.flush()

    assert ledger.overruns == 1
    assert await desk.sums("money") == (5000, 0)
    with pytest.raises(BudgetExceeded, match=r"\$0.00 of \$0.000001 left"):
        await ledger.reserve(ADA, Amounts(1, 1))
    assert ledger.hold(ADA, Amounts(0, 1)) is not None, "what is free needs no money"


async def test_a_cost_beyond_all_reason_stops_the_caller_and_not_the_books(desk: Desk) -> None:
    await desk.budget("money", 1000, "usd")
    await desk.budget("tokens", 1000, "tokens")
    ledger = await desk.ledger()
    (await ledger.reserve(ADA, Amounts(9, 9))).settle(Amounts(-(10**30), -5))
    (await ledger.reserve(ADA, Amounts(9, 9))).settle(Amounts(10**30, 2**63))
    await ledger.flush()

    assert await desk.sums("money") == (MOST, 0)
    assert await desk.sums("tokens") == (MOST, 0)
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(ADA, Amounts(1, 1))


async def test_settling_twice_or_after_a_release_does_nothing(desk: Desk) -> None:
    await desk.budget("b", 10)
    ledger = await desk.ledger()
    hold = await ledger.reserve(ADA, ONE)

    assert hold.open
    hold.release()
    hold.settle(ONE)
    hold.release()
    assert not hold.open
    await ledger.flush()

    assert (await desk.status("b")).spent == 0


async def test_a_price_that_is_not_known_cannot_be_paid_from_a_budget_in_dollars(desk: Desk) -> None:
    await desk.budget("money", 10**9, "usd", project="game")
    ledger = await desk.ledger()

    with pytest.raises(BudgetExceeded, match="odd") as caught:
        await ledger.reserve(ADA, Amounts(None, 10), "odd")
    assert "prices.odd" in caught.value.hint
    assert ledger.hold(BOB, Amounts(None, 10)) is NOTHING


async def test_a_settlement_of_unknown_cost_counts_as_reserved(desk: Desk) -> None:
    await desk.budget("money", 10**9, "usd")
    ledger = await desk.ledger()

    (await ledger.reserve(ADA, ONE)).settle(Amounts(None, 10))
    await ledger.flush()

    assert (await desk.status("money")).spent == 100


async def test_leases_shrink_towards_the_end_and_reach_the_last(desk: Desk) -> None:
    await desk.budget("b", 1000)
    first, second = await desk.ledger(), await desk.ledger()
    seen = []
    for turn in range(1000):
        while True:
            try:
                hold = await (first, second)[turn % 2].reserve(ADA, ONE)
                break
            except BudgetExceeded as error:  # the other one has the last of it, and gives it back when it is idle
                retry = error.retry_after
            assert retry == 2.0
            for _ in range(2):
                desk.clock.time += 2.0
                await asyncio.gather(first.flush(), second.flush())
        hold.settle(ONE)
        if turn in (10, 900):
            await asyncio.gather(first.flush(), second.flush())
            seen.append((await desk.status("b")).leased)

    assert seen[0] > seen[1]
    for ledger in (first, second):
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(ADA, ONE)
        await ledger.flush()
    assert await desk.sums("b") == (1000, 0)


async def test_what_is_idle_goes_back_within_seconds(desk: Desk) -> None:
    await desk.budget("b", 1000)
    ledger = await desk.ledger()
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    await ledger.flush()
    desk.clock.time += 1.0
    await ledger.flush()
    assert (await desk.status("b")).leased > 0
    desk.clock.time += 1.5
    await ledger.flush()

    assert await desk.sums("b") == (1, 0)


async def test_it_is_kept_up_to_date_as_time_passes(desk: Desk) -> None:
    ledger = await desk.ledger()
    running = asyncio.create_task(ledger.run())
    await desk.budget("b", 1000)
    async with asyncio.timeout(20):
        while ledger.hold(ADA, ONE) is NOTHING:
            await desk.clock.advance(0.5)
        (await ledger.reserve(ADA, ONE)).settle(ONE)
        while await desk.sums("b") != (1, 0):
            await desk.clock.advance(0.5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_waiters_are_served_in_turn_in_one_transaction(desk: Desk) -> None:
    await desk.budget("b", 100, "tokens")
    ledger = await desk.ledger()
    order: list[int] = []

    async def call(number: int, tokens: int) -> None:
        try:
            await ledger.reserve(ADA, Amounts(0, tokens))
            order.append(number)
        except BudgetExceeded:
            order.append(-number)

    await asyncio.gather(*(call(number, tokens) for number, tokens in enumerate([60, 50, 40, 1], 1)))

    assert order == [1, -2, 3, -4]


async def test_who_comes_later_does_not_overtake_those_that_wait(desk: Desk) -> None:
    await desk.budget("b", 10_000, "tokens")
    ledger = await desk.ledger()
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    large = asyncio.create_task(ledger.reserve(ADA, Amounts(0, 5000)))
    await asyncio.sleep(0)

    assert ledger.hold(BOB, ONE) is None
    assert (await large).open
    assert ledger.hold(BOB, ONE) is not None


async def test_a_cancelled_wait_holds_nothing(desk: Desk) -> None:
    await desk.budget("b", 10)
    ledger = await desk.ledger()
    waits = [asyncio.create_task(ledger.reserve(ADA, ONE)) for _ in range(10)]
    await asyncio.sleep(0)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)

    assert len([await ledger.reserve(ADA, ONE) for _ in range(10)]) == 10


@pytest.mark.parametrize(("period", "later"), [("day", 86400.0), ("week", 7 * 86400.0), ("month", 31 * 86400.0)])
async def test_a_new_period_begins_anew_and_open_calls_count_for_theirs(desk: Desk, period: str, later: float) -> None:
    await desk.budget("b", 2, period=period)
    ledger = await desk.ledger()
    held = await ledger.reserve(ADA, ONE)
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    with pytest.raises(BudgetExceeded, match="0 of 2 requests left") as caught:
        await ledger.reserve(ADA, ONE)
    assert caught.value.retry_after is not None
    before = (await desk.status("b")).period
    desk.clock.time += later

    for _ in range(2):
        (await ledger.reserve(ADA, ONE)).settle(ONE)
    held.settle(ONE)
    await ledger.flush()
    await ledger.flush()

    assert await desk.sums("b") == (2, 0)
    assert (await desk.status("b")).period != before
    with sqlite3.connect(desk.home / "corral.db") as connection:
        rows = connection.execute("SELECT period, spent, leased FROM spending ORDER BY period").fetchall()
    connection.close()
    assert rows == [(before, 2, 0), ((await desk.status("b")).period, 2, 0)]


async def test_changes_of_another_process_are_noticed(desk: Desk) -> None:
    ledger = await desk.ledger()
    assert ledger.hold(ADA, ONE) is NOTHING

    await desk.budget("b", 100)
    await ledger.refresh()
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    await desk.budgets.change("b", amount=1)
    await ledger.refresh()
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(ADA, ONE)
    assert await desk.sums("b") == (1, 0)
    await desk.budgets.change("b", amount=3, rename="c")
    await ledger.refresh()
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    await desk.budgets.remove("c")
    await ledger.refresh()
    assert ledger.hold(ADA, ONE) is NOTHING


async def test_without_the_database_the_lease_can_still_be_spent_and_no_more(desk: Desk) -> None:
    await desk.budget("b", 1000)
    ledger = await desk.ledger()
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    lock = sqlite3.connect(desk.home / "corral.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    spent = 1
    while (hold := ledger.hold(ADA, ONE)) is not None:
        hold.settle(ONE)
        spent += 1

    with pytest.raises(DatabaseError, match="locked") as caught:
        await ledger.reserve(ADA, ONE)
    assert caught.value.http_status == 503
    assert 10 < spent <= 1000
    lock.execute("ROLLBACK")
    lock.close()
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    await ledger.flush()

    assert (await desk.status("b")).spent == spent + 1
    assert ledger.failures > 0


class Faltering(Database):
    """A database of which a reply is lost now and then, after the work was done or before."""

    lose = ""

    async def write(self, work):
        if self.lose == "before":
            raise DatabaseError("It is away.")
        done = await super().write(work)
        if self.lose == "after":
            raise DatabaseError("Nobody knows what became of it.")
        return done


class Gated(Database):
    """A database whose writes wait for a gate."""

    gate: asyncio.Event | None = None

    async def write(self, work):
        if self.gate is not None:
            await self.gate.wait()
        return await super().write(work)


async def test_what_is_on_its_way_back_cannot_be_spent(tmp_path: Path) -> None:
    clock = HandClock()
    database = Gated(None, tmp_path)
    budgets = Budgets(database, clock)
    await budgets.create(Budget("", "b", "all", "", "requests", "total", 1000))
    ledger = Ledger(database, tmp_path, clock)
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    await ledger.flush()
    clock.time += 10.0
    database.gate = asyncio.Event()
    flush = asyncio.create_task(ledger.flush())
    while not database.gate._waiters:
        await asyncio.sleep(0)

    assert ledger.hold(ADA, ONE) is None
    database.gate.set()
    await flush
    assert (await budgets.get("b")).leased == 0
    await ledger.close()
    await database.close()


async def test_a_hold_that_comes_as_its_caller_leaves_is_given_back(tmp_path: Path) -> None:
    database = Database(None, tmp_path)
    await Budgets(database, HandClock()).create(Budget("", "b", "all", "", "requests", "total", 1))
    caught = 0
    for _ in range(20):
        ledger = Ledger(database, tmp_path, HandClock())
        task = asyncio.create_task(ledger.reserve(ADA, ONE))
        while not ledger._holds:
            await asyncio.sleep(0)
        caught += not task.done() and task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result().release()
        assert not ledger._holds
        await ledger.close()

    assert caught
    await database.close()


@pytest.mark.parametrize("lose", ["before", "after"])
async def test_a_reply_that_is_lost_books_nothing_twice_and_loses_nothing(tmp_path: Path, lose: str) -> None:
    clock = HandClock()
    database = Faltering(None, tmp_path)
    budgets = Budgets(database, clock)
    await budgets.create(Budget("", "b", "all", "", "tokens", "total", 100_000))
    ledger = Ledger(database, tmp_path, clock)
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    spent = 10
    for turn in range(12):
        database.lose = lose if turn % 3 else ""
        try:
            (await ledger.reserve(ADA, Amounts(0, 9000))).settle(Amounts(0, 7))
            spent += 7
        except DatabaseError:
            assert database.lose
        try:
            await ledger.flush()
        except DatabaseError:
            assert database.lose
    database.lose = ""
    await ledger.flush()
    assert (await budgets.get("b")).spent == spent
    await ledger.close()

    found = await budgets.get("b")
    assert (found.spent, found.leased) == (spent, 0)
    assert await budgets.holders() == []
    await database.close()


async def test_a_full_disk_lets_no_call_through_that_is_not_written_down(desk: Desk) -> None:
    await desk.budget("b", 100)
    ledger = await desk.ledger()
    held = await ledger.reserve(ADA, ONE)
    journal = ledger._journal
    assert journal is not None
    whole = journal._descriptor
    journal._descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(Exception, match="No room") as caught:
            ledger.hold(ADA, ONE)
        assert getattr(caught.value, "code", "") == "disk_full"
        held.settle(ONE)
        assert not journal.whole
    finally:
        os.close(journal._descriptor)
        journal._descriptor = whole
    (await ledger.reserve(ADA, ONE)).settle(ONE)
    await ledger.flush()

    assert journal.whole
    assert (await desk.status("b")).spent == 2


async def test_budgets_are_checked(desk: Desk) -> None:
    good = Budget("", "b", "all", "", "usd", "month", 5)
    await desk.budgets.create(good)

    for change, error in (
        ({}, Conflict),
        ({"name": "a b"}, InvalidRequest),
        ({"unit": "euro"}, InvalidRequest),
        ({"period": "year"}, InvalidRequest),
        ({"subject": "team"}, InvalidRequest),
        ({"who": "ada"}, InvalidRequest),
        ({"subject": "project"}, InvalidRequest),
        ({"amount": -1}, InvalidRequest),
        ({"subject": "key", "who": "nobody", "name": "c"}, KeyNotFound),
    ):
        with pytest.raises(error):
            await desk.budgets.create(replace(good, **change))
    with pytest.raises(BudgetNotFound, match="'bb'"):
        await desk.budgets.get("bb")
    for unit, amount in (("usd", -1.0), ("usd", float("nan")), ("usd", 1e12), ("tokens", 1.5)):
        with pytest.raises(InvalidRequest):
            amount_of(unit, amount)
    assert amount_of("usd", 0.1) == 100_000_000
    assert describe(await desk.status("b"))["amount"] == 5e-9
