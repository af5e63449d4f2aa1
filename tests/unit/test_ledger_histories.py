"""Any history of two processes that spend, settle, die and are succeeded: never over, and the sums balance."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corral.db.engine import Database
from corral.domain.callers import Caller
from corral.errors import BudgetExceeded
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.routing.ledger import Amounts, Hold, Ledger
from support.clocks import HandClock

ADA = Caller("key-ada", "ada", project="game")
AMOUNT = 1000
WHO = st.integers(0, 1)


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="corral-ledger-"))
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock()
        self.database = Database(None, self.home)
        self.budgets = Budgets(self.database, self.clock)
        for name, subject, who, period in (("a", "all", "", "total"), ("g", "project", "game", "day")):
            self.do(self.budgets.create(Budget("", name, subject, who, "tokens", period, AMOUNT)))
        self.ledgers = [self.begin() for _ in range(2)]
        self.open: list[tuple[int, Hold, int]] = []
        self.settled = 0
        self.abandoned = 0
        self.refused = False

    def do(self, work):
        return self.loop.run_until_complete(work)

    def begin(self) -> Ledger:
        made = Ledger(self.database, self.home, self.clock, lease=0.1)
        self.do(made.refresh())
        return made

    def sums(self) -> tuple[int, int, int]:
        total, _ = self.do(self.budgets.standing())
        return total.spent, total.leased, total.abandoned

    @rule(who=WHO, tokens=st.integers(0, 300))
    def reserve(self, who: int, tokens: int) -> None:
        try:
            hold = self.do(self.ledgers[who].reserve(ADA, Amounts(0, tokens)))
        except BudgetExceeded:
            return
        self.open.append((who, hold, tokens))

    @rule(who=WHO, tokens=st.integers(0, 50))
    def hold(self, who: int, tokens: int) -> None:
        async def ask() -> Hold | None:
            return self.ledgers[who].hold(ADA, Amounts(0, tokens))

        hold = self.do(ask())
        if hold is not None:
            self.open.append((who, hold, tokens))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        _, hold, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        cost = data.draw(st.integers(0, tokens))
        hold.settle(Amounts(0, cost))
        self.settled += cost

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))[1].release()

    @rule(who=WHO, seconds=st.sampled_from([0.0, 3.0, 86400.0]))
    def flush(self, who: int, seconds: float) -> None:
        self.clock.time += seconds
        self.do(self.ledgers[who].flush())

    @rule(who=WHO)
    def die(self, who: int) -> None:
        """Killed: the lock is freed, and nothing else happens. Another comes in its place."""
        journal, pump = self.ledgers[who]._journal, self.ledgers[who]._pump
        if pump is not None:
            pump.cancel()
            self.do(asyncio.wait([pump]))
        if journal is not None:
            journal.leave()
        self.abandoned += sum(tokens for owner, _, tokens in self.open if owner == who)
        self.open = [each for each in self.open if each[0] != who]
        self.ledgers[who] = self.begin()

    @rule(who=WHO)
    def recover(self, who: int) -> None:
        self.do(self.ledgers[who].recover())

    @invariant()
    def never_over(self) -> None:
        spent, leased, _ = self.sums()
        assert spent + leased <= AMOUNT
        assert self.settled + self.abandoned + sum(tokens for *_, tokens in self.open) <= spent + leased

    def teardown(self) -> None:
        try:
            for _, hold, _ in self.open:
                hold.release()
            self.do(self.ledgers[0].recover())
            for ledger in self.ledgers:
                self.do(ledger.close())
            assert self.sums() == (self.settled + self.abandoned, 0, self.abandoned)
            assert self.do(self.budgets.holders()) == []
        finally:
            self.do(self.database.close())
            self.loop.close()
            shutil.rmtree(self.home)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
