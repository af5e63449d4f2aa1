"""Budgets under many callers and processes, on SQLite and PostgreSQL, with kills in between: never one over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest

from corral.db.engine import Database
from corral.domain.callers import Caller
from corral.errors import BudgetExceeded
from corral.kit.clock import SystemClock
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.routing.ledger import Amounts, Ledger
from support import database as databases

TESTS = Path(__file__).parent.parent
CALLER = Caller("key-1", "one", project="game")
CLOCK = SystemClock()


@pytest.fixture(scope="module")
def cluster():
    with databases.cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return None if request.param == "sqlite" else request.getfixturevalue("cluster").new()


@asynccontextmanager
async def opened(url, home):
    database = Database(url, home)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def spender(home, url, callers):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "support.spender", str(home), url or "-", str(callers)),
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@dataclass
class Vendor:
    """What the vendor's book says: calls that were billed, and those that were settled, surely or perhaps."""

    billed: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    perhaps: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, home):
        found = cls()
        path = home / "vendor"
        for line in path.read_text().splitlines() if path.exists() else ():
            kind, call, *amount = line.split()
            if kind == "b":
                found.billed[call] = int(amount[0])
            elif kind == "s":
                found.perhaps.add(call)
            else:
                found.perhaps.discard(call)
                found.settled.add(call)
        return found

    def sums(self):
        """What all settlements can come to: a kill may have come just before or just after one."""
        sure = sum(self.billed[call] for call in self.settled)
        unsure = [self.billed[call] for call in self.perhaps]
        return {sure + sum(some) for size in range(len(unsure) + 1) for some in combinations(unsure, size)}


def budget(name, unit, amount, subject="all", who="", period="total"):
    return Budget("", name, subject, who, unit, period, amount)


async def test_a_thousand_callers_get_a_hundred_answers(tmp_path, url):
    async with opened(url, tmp_path) as database:
        budgets = Budgets(database, CLOCK)
        await budgets.create(budget("answers", "requests", 100))
        ledger = Ledger(database, tmp_path, CLOCK)
        outcomes = Counter()

        async def call():
            try:
                hold = await ledger.reserve(CALLER, Amounts(1000, 10))
            except BudgetExceeded as error:
                outcomes["refused" if "'answers'" in error.message else "?"] += 1
            else:
                outcomes["answered"] += 1
                await asyncio.sleep(0)
                hold.settle(Amounts(900, 8))

        await asyncio.gather(*(call() for _ in range(1000)))
        await ledger.close()

        assert outcomes == {"answered": 100, "refused": 900}
        (status,) = await budgets.standing()
        assert (status.spent, status.leased, status.left) == (100, 0, 0)
        assert await budgets.holders() == []
        assert list((tmp_path / "ledger").iterdir()) == []


async def killing(home, url, budgets, amount, chance):
    """Seven processes with 150 callers each, of which three are killed, at any moment."""
    async with AsyncExitStack() as stack:
        crew = [await stack.enter_async_context(spender(home, url, 150)) for _ in range(7)]
        for process in crew:
            assert (await process.stdout.readline()).strip() == b"ready"
        (home / "go").touch()
        for mark in sorted(chance.sample(range(5, amount // 2), 3)):
            async with asyncio.timeout(90):
                while len(Vendor.of(home).billed) < mark:
                    await asyncio.sleep(0.002)
            victim = crew.pop()
            victim.kill()
            assert await victim.wait() == -signal.SIGKILL
            (status,) = [each for each in await budgets.standing() if each.budget.unit == "requests"]
            assert status.spent + status.leased <= amount
        for process in crew:
            assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_kills_neither_overspend_nor_lose_a_nanodollar(tmp_path, url):
    chance = random.Random()
    async with opened(url, tmp_path) as database:
        budgets = Budgets(database, CLOCK)
        await budgets.create(budget("answers", "requests", 100))
        await budgets.create(budget("money", "usd", 10**9, "key", "local"))
        await budgets.remove("money")
        await budgets.create(budget("money", "usd", 10**9, "project", "game"))
        await killing(tmp_path, url, budgets, 100, chance)

        ledger = Ledger(database, tmp_path, CLOCK)
        await ledger.recover()
        await ledger.close()
        vendor = Vendor.of(tmp_path)
        answers, money = await budgets.standing()

        assert await budgets.holders() == []
        assert len(vendor.billed) <= 100
        assert (answers.spent, answers.leased) == (100, 0)
        assert answers.spent - answers.abandoned in {
            len(vendor.settled) + more for more in range(len(vendor.perhaps) + 1)
        }
        assert money.leased == 0
        assert money.abandoned == 1000 * answers.abandoned
        assert money.spent - money.abandoned in vendor.sums()


async def test_a_slow_database_slows_no_answer_while_the_lease_lasts(tmp_path, url):
    async with opened(url, tmp_path) as database, opened(url, tmp_path) as other:
        await Budgets(database, CLOCK).create(budget("answers", "requests", 1000))
        ledger = Ledger(database, tmp_path, CLOCK)
        (await ledger.reserve(CALLER, Amounts(1, 1))).settle(Amounts(1, 1))

        async def locked(_connection):
            held = []
            while (hold := ledger.hold(CALLER, Amounts(1, 1))) is not None:
                held.append(hold)
            return held

        held = await other.write(locked)
        assert 10 <= len(held) <= 1000
        for hold in held:
            hold.release()
        await ledger.close()

        (status,) = await Budgets(database, CLOCK).standing()
        assert (status.spent, status.leased) == (1, 0)
