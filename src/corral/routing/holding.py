"""What is reserved for one call, from the reservation to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from corral.routing.book import Amounts

if TYPE_CHECKING:
    from corral.routing.book import Group

_NONE: Final = Amounts(0, 0, 0)


class Keeper(Protocol):
    """Who keeps the book that a hold stands in."""

    def settled(self, group: Group, number: int, reserved: list[int], actual: Amounts) -> None:
        """Turn what was reserved into what the call did cost."""
        ...


class _Nobody:
    """Keeps no book."""

    def settled(self, group: Group, number: int, reserved: list[int], actual: Amounts) -> None:
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
        if group is not None:
            self._group = None
            self._keeper.settled(group, self._number, self._amounts, actual)

    def release(self) -> None:
        """Give all of it back: the call was not made."""
        group = self._group
        if group is not None:
            self._group = None
            self._keeper.settled(group, self._number, self._amounts, _NONE)

    def line(self) -> bytes:
        """How the journal says that it is open."""
        return b"" if self._group is None else self._group.held_line % (self._number, *self._amounts)


NOTHING: Final = Hold(_Nobody(), None, [], 0)
"""The hold of whoever has no budget: it does nothing."""
