"""What is said to those for whom a budget does not reach."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isinf
from typing import TYPE_CHECKING, Final

from corral.errors import BudgetExceeded

if TYPE_CHECKING:
    from corral.routing.book import Account, Budget
    from corral.routing.treasury import Standing

_SOON: Final = 2.0
"""Seconds after which what others have reserved may have come back."""
_NAMES = {"day": "today", "week": "this week", "month": "this month", "total": "in all"}


def refusal(account: Account, standing: Standing, need: int, wall: float) -> BudgetExceeded:
    """The refusal of a call that could take `need` from an account.

    `wall` is the time, in Unix seconds. Where only calls under way and other
    processes stand in the way, it is worth while to ask again soon; otherwise when the next period begins.
    """
    budget = account.budget
    if standing.amount is None:
        return BudgetExceeded(f"Budget {budget.name!r} has just been removed.", "Try again.", retry_after=1.0)
    unspent = max(standing.amount - standing.spent, 0)
    left = standing.left + max(account.free, 0)
    of = f"{budget.figure(left)} of {budget.shown(standing.amount)}"
    message = (
        f"Budget {budget.name!r} has {of} left {_NAMES[budget.period]}; the answer could take {budget.figure(need)}."
    )
    if unspent >= need:
        taken = budget.figure(unspent - left)
        hint = f"Answers under way have reserved {taken}; ask again soon."
        return BudgetExceeded(message, hint, retry_after=_SOON)
    more = f"Raise it: corral budgets change {budget.name} --amount AMOUNT"
    if isinf(account.until):
        return BudgetExceeded(message, more)
    renewed = datetime.fromtimestamp(account.until, UTC)
    hint = f"It is renewed at {renewed:%Y-%m-%d %H:%M} UTC. {more}"
    return BudgetExceeded(message, hint, retry_after=max(account.until - wall, 1.0))


def unpriced(model: str, budget: Budget) -> BudgetExceeded:
    """The refusal of a call whose cost cannot be bounded, since nobody knows the price."""
    name = model or "NAME"
    return BudgetExceeded(
        f"The price of {model or 'the model'} is not known, so budget {budget.name!r} cannot be kept.",
        f"Set prices.{name}.input and prices.{name}.output in the configuration, or prices.{name}.like.",
    )
