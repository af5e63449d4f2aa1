"""What is reserved for one call, from the reservation to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from corral.routing.book import Amounts, Group


MOST: Final = 10**17
"""Most that one call can spend of a budget, in its unit: a hundred million dollars. Sums of more would have no room in
a database."""


class Keeper(Protocol):
    """Who keeps the book that a hold stands in."""

    def settled(self, group: Group, number: int, reserved: list[int], spent: list[int]) -> None:
        """Turn what was reserved into what was spent."""
        ...


class _Nobody:
    """Keeps no book."""

    def settled(self, group: Group, number: int, reserved: list[int], spent: list[int]) -> None:
        """Do nothing."""


class Hold:
    """What is reserved for one call. Settle or release it once; what comes after that does nothing."""

    __slots__ = ("_amounts", "_group", "_keeper", "_number")

    def __init__(self, keeper: Keeper, group: Group | None, amounts: list[int], number: int) -> None:
        self._keeper = keeper
        self._group = group
        self._amounts = amounts
        self._number = number

    @property
    def open(self) -> bool:
        """Whether something is reserved by it still."""
        return self._group is not None

    def settle(self, actual: Amounts) -> None:
        """Book what the call did cost, all of it even if that is more than was reserved.

        Where the price is not known (`nano` is None), what was reserved counts.
        """
        group = self._group
        if group is None:
            return
        self._group = None
        reserved = self._amounts
        spent = [
            was if (now := actual[unit]) is None else now if 0 <= now <= MOST else MOST if now > 0 else 0
            for was, unit in zip(reserved, group.units, strict=True)
        ]
        self._keeper.settled(group, self._number, reserved, spent)

    def release(self) -> None:
        """Give all of it back: the call was not made."""
        group = self._group
        if group is not None:
            self._group = None
            spent = [0] * len(self._amounts)
            self._keeper.settled(group, self._number, self._amounts, spent)

    def line(self) -> bytes:
        """How the journal says that it is open."""
        return b"" if self._group is None else self._group.held_line % (self._number, *self._amounts)


NOTHING: Final = Hold(_Nobody(), None, [], 0)
"""The hold of whoever has no budget: it does nothing."""
