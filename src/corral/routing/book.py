"""What this process may spend of each budget, in memory: plain integers, no loop and no database.

    leased = free + held + (settled - booked)

`leased` is what the database has given to this process. Of that, `held` is reserved by calls under way, `settled` is
what calls have cost since the process began, and `booked` the part of it that the database knows. `free` can be
reserved at once. It falls below zero where a call cost more than was reserved for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from corral.domain.money import NANO

UNITS = ("usd", "tokens", "requests")
"""What a budget may be in, in the order of `Amounts`."""
SUBJECTS = ("key", "project", "all")
"""Whose a budget may be."""
NEVER: Final = -(1 << 62)
"""An amount that is never reached from above."""
MOST: Final = 10**17
"""Most that one call can spend of a budget, in its unit: a hundred million dollars. Sums of more would have no room in
a database."""


class Amounts(NamedTuple):
    """What one call takes or may take of each unit. `nano`, in nanodollars, is None where no price is known."""

    nano: int | None
    tokens: int
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent, by whom, and in which time. `amount` is in nanodollars where `unit` is `usd`.

    `who` is a key's id or a project's name, and empty where `subject` is `all`.
    """

    id: str
    name: str
    subject: str
    who: str
    unit: str
    period: str
    amount: int
    created_at: float = 0.0

    def of(self, key: str, project: str) -> bool:
        """Whether a caller with that key and project spends from it."""
        return self.subject == "all" or self.who == (key if self.subject == "key" else project)

    def figure(self, amount: int) -> str:
        """The same without the unit, where that is no money."""
        return money_text(amount) if self.unit == "usd" else str(amount)

    def shown(self, amount: int) -> str:
        """An amount of it for a person: `$0.25`, `1200 tokens`."""
        return money_text(amount) if self.unit == "usd" else f"{amount} {self.unit}"


def money_text(nano: int) -> str:
    """Nanodollars as dollars: cents at least, and no digit that is not needed."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    cents, rest = f"{nano % NANO:09d}"[:2], f"{nano % NANO:09d}"[2:].rstrip("0")
    return f"{sign}${nano // NANO}.{cents}{rest}"


class Account:
    """A budget in one period, as far as this process may spend it."""

    __slots__ = (
        "booked", "budget", "free", "held", "idle_since", "key", "low", "needed", "number", "recalled", "settled",
        "unit", "until", "used", "waiting",
    )  # fmt: skip

    def __init__(self, budget: Budget, period: str, until: float, number: int) -> None:
        self.budget = budget
        self.key = (budget.id, period)
        self.unit = UNITS.index(budget.unit)
        self.until = until
        self.number = number
        self.free = 0
        self.held = 0
        self.settled = 0
        self.booked = 0
        self.low = NEVER
        """Below this, more is fetched before it is needed."""
        self.waiting = 0
        """Callers that wait for more of it; whoever comes later waits behind them."""
        self.needed = 0
        """What those wait for."""
        self.used = False
        """Whether it was used since somebody last looked."""
        self.idle_since = 0.0
        self.recalled = False
        """What is free goes back at once."""

    @property
    def done(self) -> bool:
        """Whether nothing of it is open."""
        return not (self.held or self.waiting) and self.settled == self.booked

    def leased_is(self, amount: int) -> None:
        """Take over from the database what is leased: what is free follows from it."""
        self.free = amount - self.held - (self.settled - self.booked)


class Group:
    """The accounts that one caller spends from, all or nothing, and how that is written in the journal."""

    __slots__ = ("accounts", "held_line", "settled_line", "units")

    def __init__(self, accounts: tuple[Account, ...]) -> None:
        self.accounts = accounts
        self.units = tuple(account.unit for account in accounts)
        parts = b" ".join(b"%d=%%d" % account.number for account in accounts)
        self.held_line = b"h %d " + parts + b"\n"
        self.settled_line = b"s %d " + parts + b"\n"

    def asked(self, worst: Amounts) -> list[int] | None:
        """`worst` by account; None where it is in dollars and no price is known."""
        found = [worst[unit] for unit in self.units]
        return None if None in found else [amount or 0 for amount in found]

    def short(self, amounts: list[int]) -> Account | None:
        """The first account that has not enough."""
        for account, amount in zip(self.accounts, amounts, strict=True):
            if amount and account.free < amount:
                return account
        return None

    def settle(self, reserved: list[int], actual: Amounts) -> tuple[list[int], bool]:
        """Turn what was reserved into what was spent: that, by account, and whether it is more on any.

        Where the price is not known (`nano` is None), what was reserved counts.
        """
        spent: list[int] = []
        over = False
        for place, account in enumerate(self.accounts):
            was, now = reserved[place], actual[account.unit]
            if now is None:
                now = was
            elif not 0 <= now <= MOST:
                now = MOST if now > 0 else 0
            if now > was:
                over = True
            account.held -= was
            account.settled += now
            account.free += was - now
            spent.append(now)
        return spent, over


def grant(amount: int, spent: int, leased: int, need: int, part: float) -> int:
    """What is leased to who needs `need` now: that, and `part` of what is left beyond it; never over.

    The nearer the end, the smaller the lease, so that several processes give a budget out to the last of it.
    """
    left = max(amount - spent - leased, 0)
    return min(left, max(need + int(max(left - need, 0) * part), 1))
