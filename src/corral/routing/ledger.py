"""Money that cannot be overspent: what a call may cost is reserved before it is made, and settled after it.

    hold       from memory, at once; None where what this process has leased does not reach
    reserve    the same, and waits for the database to lease more; or a refusal that says what is left
    settle     what it did cost; release: it was not made

The database gives each process a part of what a budget has left, to be spent without asking. Nobody waits for it as
long as that lasts, and when it is away and more is needed, the answer is refused. Each reservation and each settlement
is noted in a journal on the disk, so that a killed process loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Final

from corral.errors import CorralError, DatabaseError, StoreError
from corral.kit.disk import in_thread
from corral.operations.leases import home_id
from corral.routing.book import NEVER, Account, Amounts, Budget, Group
from corral.routing.holding import NOTHING, Hold
from corral.routing.journal import Journal, naming
from corral.routing.periods import period_end, period_key
from corral.routing.recovery import recover
from corral.routing.shortfalls import refusal, unpriced
from corral.routing.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.callers import Caller
    from corral.domain.ports import Clock
    from corral.routing.budgets import Budgets
    from corral.routing.journal import Key
    from corral.routing.treasury import Exchange, Recovery, Standing, Treasury
    from corral.routing.waiters import Waiter

_log = logging.getLogger("corral.ledger")

__all__ = ["NOTHING", "Amounts", "Hold", "Ledger"]

IDLE: Final = 2.0
"""Seconds after which what nobody uses goes back to the database."""
_LOOK: Final = 0.8
"""Seconds between two looks for budgets that another process has changed."""
_SWEEP: Final = 5.0
"""Seconds between two looks for dead processes."""
_SIGN: Final = 60.0
"""Seconds after which a holder at rest says that it lives."""
_PAUSE: Final = 0.5
"""Seconds without fetching ahead after the database has failed."""
_LAST: Final = 3
"""Exchanges in which everything is given back."""
_CALLERS: Final = 10_000
"""Callers whose accounts are remembered."""


class Ledger:
    """The book of this process over what it has leased of each budget.

    Used by one event loop. `refresh` once before the first call; `run` keeps it up to date; `close` gives everything
    back. Without `run` it stays exact and only books later.

    Args:
        database: where the budgets are.
        home: Corral's folder; the journal lies in `ledger` below it.
        clock: time. Periods follow its wall clock, in UTC.
        lease: part of what is left that is fetched at a time.
        write_every: seconds between two bookings.
    """

    def __init__(
        self, database: Database, home: Path, clock: Clock, *, lease: float = 0.05, write_every: float = 0.5
    ) -> None:
        self.overruns = 0
        """Calls that cost more than was reserved for them."""
        self.failures = 0
        """Exchanges with the database that failed."""
        self.recovered: deque[Recovery] = deque(maxlen=100)
        """The dead processes whose books were closed here, newest last."""
        self._database = database
        self._home = home
        self._name = ""
        self._clock = clock
        self._part = lease
        self._every = write_every
        self._known: dict[str, Budget] | None = None
        self._current: dict[str, Account] = {}
        self._live: list[Account] = []
        self._groups: dict[tuple[str, str], Group | None] = {}
        self._until = inf
        self._journal: Journal | None = None
        self._numbers = 0
        self._holds: dict[int, Hold] = {}
        self._made = 0
        self._booked: dict[int, dict[Key, int]] = {0: {}}
        self._waiters = Waiters()
        self._pump: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._rest_until = -inf
        self._said_at = -inf
        self._stamp: object = None

    # The library of the database is imported when it is first needed.

    @cached_property
    def _budgets(self) -> Budgets:
        from corral.routing.budgets import Budgets

        return Budgets(self._database, self._clock)

    @cached_property
    def _treasury(self) -> Treasury:
        from corral.routing.treasury import Treasury

        return Treasury(self._database)

    @property
    def awake(self) -> bool:
        """Whether the budgets are known; until the first `refresh` they are not."""
        return self._known is not None

    def hold(self, caller: Caller, worst: Amounts) -> Hold | None:
        """Reserve `worst` from every budget of the caller, all or nothing, without waiting.

        None: it is not to be had at once; `reserve` waits for it or says why it cannot be had. By the caller's `id`
        and `project`, as the budgets are now.

        Raises:
            StoreError: the journal cannot be written.
        """
        group = self.group(caller)
        if group is None:
            return NOTHING if self.awake else None
        return self.take(group, worst)

    def group(self, caller: Caller) -> Group | None:
        """The accounts that the caller spends from now; None where there are none, or none is known yet (`awake`)."""
        try:
            group = self._groups[caller.id, caller.project]
        except KeyError:
            group = self._group(caller.id, caller.project)
        if group is not None and self._clock.wall() >= self._until:
            self._turn()
            group = self._group(caller.id, caller.project)
        return group

    def take(self, group: Group, worst: Amounts) -> Hold | None:
        """As `hold`, of the accounts that `group` has just said.

        Raises:
            StoreError: the journal cannot be written.
        """
        amounts: list[int] = []
        for account in group.accounts:
            amount = worst[account.unit]
            if amount is None or (amount and (account.free < amount or account.waiting)):
                return None
            amounts.append(amount)
        return self._take(group, amounts)

    async def reserve(self, caller: Caller, worst: Amounts, model: str = "") -> Hold:
        """Reserve `worst`; where too little is leased, wait in turn until the database has given more.

        `model` is named in what is said of a price that is not known.

        Raises:
            BudgetExceeded: a budget does not reach, or is in dollars and no price is known.
            DatabaseError: it is needed, and cannot be reached.
            StoreError: the journal cannot be written.
        """
        if self._known is None:
            await self.refresh()
        found = self.hold(caller, worst)
        if found is not None:
            return found
        group = self._group(caller.id, caller.project)
        if group is None:
            return NOTHING
        amounts = group.asked(worst)
        if amounts is None:
            raise unpriced(model, next(account.budget for account in group.accounts if account.unit == 0))
        waiting = self._waiters.add(caller, group, amounts)
        self._wake()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                waiting.result().release()  # it came in the moment in which nobody wanted it any more
            raise

    async def refresh(self) -> None:
        """Take over the budgets as they are in the database now.

        Raises:
            DatabaseError: they cannot be read; those that are known stay.
        """
        stamp = self._database.stamp()
        if self._known is not None and stamp is not None and stamp == self._stamp:
            return
        file = self._database.file
        # To look for budgets is no reason to make a database.
        found = [] if file is not None and not file.exists() else await self._budgets.all()
        known = {budget.id: budget for budget in found}
        self._stamp = stamp
        if known == self._known:
            return
        self._known = known
        self._groups.clear()
        recalled = False
        for name, account in list(self._current.items()):
            budget = known.get(name)
            if budget is None:
                del self._current[name]
                recalled = True
            elif budget != account.budget:
                account.recalled = budget.amount < account.budget.amount
                recalled = recalled or account.recalled
                account.budget = budget
        if recalled:
            await self.flush()

    async def run(self) -> None:
        """Book what is settled, give back what is idle, notice changes and dead processes, until cancelled."""
        look, sweep, failing = -inf, -inf, False
        while True:
            now = self._clock.now()
            try:
                if now >= look:
                    look = now + _LOOK
                    await self.refresh()
                await self.flush()
                if now >= sweep:
                    sweep = now + _SWEEP
                    await self.recover()
                failing = False
            except CorralError as error:
                if not failing:  # once, however long it lasts
                    _log.warning("what is spent is not written down for now: %s", error)
                failing = True
            await self._clock.sleep(self._every)

    async def recover(self) -> list[Recovery]:
        """Close the books of dead processes of this home: what they spent is booked, what they had left goes back.

        Raises:
            DatabaseError, StoreError: some are left for the next time.
        """
        mine = None if self._journal is None else self._journal.holder
        found = await recover(self._home / "ledger", self._treasury, self._clock, mine)
        self.recovered.extend(found)
        for each in found:
            _log.warning(
                "a process died, and its books are closed; calls under way count as spent, on %d budgets (%s)",
                len(each.abandoned),
                each.holder,
            )
        return found

    async def flush(self) -> None:
        """Book what is settled now, and give back what is idle.

        Raises:
            DatabaseError, StoreError: it stays to be booked.
        """
        now = self._clock.now()
        self._turn_if_due()
        idle = False
        for account in self._live:
            if account.used:
                account.used, account.idle_since = False, now
            ended = self._current.get(account.budget.id) is not account
            account.recalled = account.recalled or ended or now - account.idle_since >= IDLE
            idle = idle or (account.recalled and account.free > 0) or (ended and account.done)
        if idle:
            # What is offered back cannot be spent until the database has answered: it must be there to take it.
            await self._database.read(_look)
        if idle or any(account.settled != account.booked for account in self._live) or self._silent(now):
            await self._exchange()

    async def close(self) -> None:
        """Book everything and give everything back. What cannot be is found by the next process of this home."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._waiters.refuse(DatabaseError("The ledger is closed.", "Start Corral again."))
        journal = self._journal
        if journal is None:
            return
        try:
            for _ in range(_LAST):
                for account in self._live:
                    account.recalled = True
                await self._exchange()
                if all(account.done and account.free <= 0 for account in self._live):
                    await self._treasury.leave(journal.holder)
                    journal.remove()
                    break  # otherwise something was leased by a transaction whose end nobody waited for
        except CorralError:
            self.failures += 1
        finally:
            journal.leave()
            self._journal, self._live = None, []
            self._current.clear()
            self._groups.clear()
            self._known = None

    def _silent(self, now: float) -> bool:
        return self._journal is not None and now - self._said_at >= _SIGN

    def _group(self, key: str, project: str) -> Group | None:
        """The accounts of a caller; None where it has none."""
        name = (key, project)
        if name in self._groups:
            return self._groups[name]
        if self._known is None:
            return None
        mine = [self._account(budget) for budget in self._known.values() if budget.of(key, project)]
        group = Group(tuple(mine)) if mine else None
        if len(self._groups) >= _CALLERS:
            self._groups.clear()
        self._groups[name] = group
        return group

    def _account(self, budget: Budget) -> Account:
        """The account of a budget in the present period."""
        account = self._current.get(budget.id)
        if account is None:
            wall = self._clock.wall()
            until = period_end(budget.period, wall)
            account = Account(budget, period_key(budget.period, wall), until, self._numbers)
            account.idle_since = self._clock.now()
            self._numbers += 1
            self._current[budget.id] = account
            self._live.append(account)
            self._until = min(self._until, until)
            if self._journal is not None:
                self._journal.note(naming(account.number, *account.key))
        return account

    def _turn_if_due(self) -> None:
        if self._clock.wall() >= self._until:
            self._turn()

    def _turn(self) -> None:
        """Leave the accounts whose period is over; what is open of them is settled there."""
        wall = self._clock.wall()
        self._current = {name: account for name, account in self._current.items() if wall < account.until}
        self._groups.clear()
        self._until = min((account.until for account in self._current.values()), default=inf)

    def _take(self, group: Group, amounts: list[int]) -> Hold:
        """Reserve what is there, and write it down."""
        self._made = number = self._made + 1
        journal = self._journal
        if journal is None:
            journal = self._opened()
        journal.write(group.held_line % (number, *amounts))
        thirsty = False
        for place, account in enumerate(group.accounts):
            amount = amounts[place]
            account.held += amount
            account.used = True
            account.free = free = account.free - amount
            if free < account.low:
                thirsty = True
        hold = self._holds[number] = Hold(self, group, amounts, number)
        if thirsty and self._clock.now() >= self._rest_until:
            self._wake()
        return hold

    def settled(self, group: Group, number: int, reserved: list[int], actual: Amounts) -> None:
        """Book a call, by its hold."""
        del self._holds[number]
        spent, over = group.settle(reserved, actual)
        if over:
            self.overruns += 1
        journal = self._journal
        if journal is not None:  # after `close`, whoever closes the books counts the call as reserved
            journal.note(group.settled_line % (number, *spent))

    def _opened(self) -> Journal:
        """The journal, begun at the first use."""
        if self._journal is None:
            self._journal = Journal(self._home / "ledger")
            self._booked = {0: {}}
            for account in self._live:
                self._journal.note(naming(account.number, *account.key))
        return self._journal

    def _wake(self) -> None:
        """See to it that somebody asks the database."""
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._pumping())

    async def _pumping(self) -> None:
        """Ask the database until nobody waits and nothing runs low."""
        try:
            while self._waiters or any(account.free < account.low for account in self._current.values()):
                await self._exchange()
        except CorralError as error:
            self._rest_until = self._clock.now() + _PAUSE
            self._waiters.refuse(error)
        finally:  # whatever it was that ended this, nobody waits for ever
            self._waiters.refuse(DatabaseError("The ledger has stopped.", "Try again."))

    async def _exchange(self) -> None:
        """One transaction: book, give back, fetch; then serve who waits.

        Raises:
            DatabaseError, StoreError: as it happened, or not; the next one finds out.
        """
        async with self._busy:
            self._name = self._name or await in_thread(home_id, self._home)
            journal = self._journal or self._opened()
            journal.catch_up()
            self._turn_if_due()
            self._waiters.ask(lambda caller: self._group(caller.id, caller.project))
            order = self._order(journal, self._name)
            self._booked[order.offset] = dict(order.totals)
            try:
                found = await self._treasury.exchange(order)
            except CorralError:
                self.failures += 1
                raise
            self._booked = {order.offset: dict(order.totals)}
            self._said_at = self._clock.now()
            self._heard(order, found)
            if journal.long:
                self._shorten(journal, order.offset)

    def _order(self, journal: Journal, home: str) -> Exchange:
        """What to say to the database. What is given back cannot be spent from here on."""
        from corral.routing.treasury import Exchange

        gives: dict[Key, int] = {}
        wants: dict[Key, int] = {}
        for account in self._live:
            if account.recalled and account.free > 0 and not account.waiting:
                gives[account.key] = account.free
                account.free, account.low = 0, NEVER
            elif self._current.get(account.budget.id) is account:
                need = max(account.needed - account.free, 0) if account.waiting else 0
                if need or account.free < account.low:
                    wants[account.key] = need
        return Exchange(
            holder=journal.holder,
            home=home,
            at=self._clock.wall(),
            offset=journal.end,
            part=self._part,
            totals={account.key: account.settled for account in self._live},
            known=self._booked,
            gives=gives,
            wants=wants,
        )

    def _heard(self, order: Exchange, found: dict[Key, Standing]) -> None:
        """Take over what the database said, and serve those that wait, in turn."""
        from corral.routing.treasury import Standing

        for account in self._live:
            standing = found[account.key] if account.key in found else Standing(0)
            before = account.free
            account.booked = order.totals.get(account.key, account.booked)
            account.leased_is(standing.leased)
            if account.key in order.wants:
                got = account.free - before
                account.low = max(got // 4, 1) if standing.left and got > 0 else NEVER
                account.idle_since = self._clock.now()
            account.recalled = False
        self._live = [
            account
            for account in self._live
            if self._current.get(account.budget.id) is account or not (account.done and account.free == 0)
        ]
        for waiter in self._waiters.asked():
            self._serve(waiter, found)

    def _serve(self, waiter: Waiter, found: dict[Key, Standing]) -> None:
        from corral.routing.treasury import Standing

        short = waiter.group.short(waiter.amounts)
        try:
            if short is None:
                waiter.future.set_result(self._take(waiter.group, waiter.amounts))
            else:
                need = waiter.amounts[waiter.group.accounts.index(short)]
                waiter.future.set_exception(refusal(short, found.get(short.key, Standing(0)), need, self._clock.wall()))
        except StoreError as error:
            waiter.future.set_exception(error)

    def _shorten(self, journal: Journal, applied: int) -> None:
        names: Sequence[bytes] = [naming(account.number, *account.key) for account in self._live]
        journal.shorten(applied, names, [hold.line() for hold in self._holds.values()])


async def _look(connection: AsyncConnection) -> None:
    """Ask for nothing."""
    await connection.exec_driver_sql("SELECT 1")
