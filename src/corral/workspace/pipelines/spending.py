"""What a run, and each of its steps, may spend, beside the budgets of whoever pays. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.domain.money import dollars
from corral.errors import BudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable


class Allowance:
    """What one run, or one step of it, may spend; in nanodollars. None of a limit is no limit.

    What calls under way may cost at most is held, so that several at a time cannot together go beyond it.

    Args:
        whose: of what it is, for the words of a refusal.
        limit: how much.
        spent: what has been spent by now.
    """

    def __init__(self, whose: str, limit: int | None, spent: int = 0) -> None:
        self.whose = whose
        self.limit = limit
        self.spent = spent
        self._held: dict[str, int] = {}

    @property
    def left(self) -> int | None:
        """What may still be spent; None: any amount."""
        return None if self.limit is None else self.limit - self.spent - sum(self._held.values())

    def refusal(self, request: str, worst: int | None, model: str) -> BudgetExceeded | None:
        """Why `request` may not cost `worst`; None: it may. A `worst` of None is a price that nobody knows."""
        if self.limit is None:
            return None
        if worst is None:
            return BudgetExceeded(
                f"{self.whose} may spend {_shown(self.limit)}, and the price of {model!r} is not known.",
                f"Give it one: prices.{model} in the configuration. Or leave the budget out.",
            )
        room = self.limit - self.spent - sum(held for each, held in self._held.items() if each != request)
        if worst <= room:
            return None
        return BudgetExceeded(
            f"{self.whose} may spend {_shown(self.limit)}; {_shown(max(room, 0))} are left, and this call of {model!r} "
            f"may cost {_shown(worst)}.",
            "Give it a larger budget, or lower max_tokens.",
        )

    def hold(self, request: str, worst: int | None) -> None:
        """Hold what `request` may cost; in place of what was held for it."""
        if self.limit is not None:
            self._held[request] = worst or 0

    def settle(self, request: str, cost: int) -> None:
        """`request` has cost `cost`, and will cost no more."""
        self._held.pop(request, None)
        self.spent += cost


def hold(allowances: Iterable[Allowance], request: str, worst: int | None, model: str) -> None:
    """Hold `worst` of all of them, or of none.

    Raises:
        BudgetExceeded: one does not reach.
    """
    all_of_them = tuple(allowances)
    for each in all_of_them:
        refusal = each.refusal(request, worst, model)
        if refusal is not None:
            raise refusal
    for each in all_of_them:
        each.hold(request, worst)


def _shown(amount: int) -> str:
    return f"${dollars(amount):.6f}".rstrip("0").rstrip(".")
