"""Callers that wait for a budget to give more, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from corral.errors import BudgetExceeded
from corral.routing.holding import NOTHING, Hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corral.domain.callers import Caller
    from corral.errors import CorralError
    from corral.routing.book import Group


class Waiter:
    """A caller that waits, counted on each account that it needs something of. `asked`: the database was, since."""

    __slots__ = ("amounts", "asked", "caller", "future", "group")

    def __init__(self, caller: Caller, group: Group, amounts: list[int], future: asyncio.Future[Hold]) -> None:
        self.caller = caller
        self.group = group
        self.amounts = amounts
        self.future = future
        self.asked = False
        self._count(1)

    def leave(self) -> None:
        """Wait no more."""
        self._count(-1)

    def _count(self, sign: int) -> None:
        for account, amount in zip(self.group.accounts, self.amounts, strict=True):
            if amount:
                account.waiting += sign
                account.needed += sign * amount


class Waiters:
    """Those that wait."""

    def __init__(self) -> None:
        self._queue: deque[Waiter] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, caller: Caller, group: Group, amounts: list[int]) -> asyncio.Future[Hold]:
        """Let `caller` wait behind the others; what it will get."""
        future: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiter(caller, group, amounts, future))
        return future

    def ask(self, group_of: Callable[[Caller], Group | None]) -> None:
        """The database is about to be asked for all that wait now: by the accounts that they have now.

        Those that have gone away are left out.
        """
        for _ in range(len(self._queue)):
            waiter = self._queue.popleft()
            if waiter.future.done():
                waiter.leave()
                continue
            group = group_of(waiter.caller)
            again: Waiter | None = waiter
            if group is not waiter.group:
                waiter.leave()
                again = _moved(waiter, group)
            if again is not None:
                again.asked = True
                self._queue.append(again)

    def asked(self) -> Iterator[Waiter]:
        """Take out those for whom the database was asked, in turn; whoever came since stays."""
        for _ in range(len(self._queue)):
            waiter = self._queue.popleft()
            if waiter.future.done():
                waiter.leave()
            elif waiter.asked:
                waiter.leave()
                yield waiter
            else:
                self._queue.append(waiter)

    def refuse(self, error: CorralError) -> None:
        """Tell all of them that it failed."""
        for waiter in self._queue:
            waiter.leave()
            if not waiter.future.done():
                again = type(error)(error.message, error.hint)
                again.__cause__ = error
                waiter.future.set_exception(again)
        self._queue.clear()


def _moved(waiter: Waiter, group: Group | None) -> Waiter | None:
    """Who waits, by other accounts than before, since the period or the budgets have changed; None if it need not."""
    if group is None:
        waiter.future.set_result(NOTHING)
        return None
    by_unit = {account.unit: amount for account, amount in zip(waiter.group.accounts, waiter.amounts, strict=True)}
    if any(unit not in by_unit for unit in group.units):
        changed = BudgetExceeded("The budgets have just been changed.", "Try again.", retry_after=1.0)
        waiter.future.set_exception(changed)
        return None
    return Waiter(waiter.caller, group, [by_unit[unit] for unit in group.units], waiter.future)
