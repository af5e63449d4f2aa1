"""Budgets as people see and change them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isinf
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from corral.db.tables import budgets, holders, keys, leases, spending
from corral.domain.money import NANO, dollars, nano
from corral.errors import BudgetNotFound, Conflict, InvalidRequest, KeyNotFound, nearest
from corral.routing.audit import append
from corral.routing.book import SUBJECTS, UNITS, Budget
from corral.routing.periods import PERIODS, period_end, period_key

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock
    from corral.routing.audit import Actor

LARGEST = (1 << 62) - 1
"""The largest amount, which leaves room to add up in 64 bits."""
_SPECIAL = ("local", "server")
"""Callers without a key of their own, which may have a budget all the same."""


@dataclass(frozen=True, slots=True)
class Status:
    """A budget in its present period. `spent` for good, `leased` to processes; `abandoned` is among `spent`.

    `renews_at` in Unix seconds; None for `total`.
    """

    budget: Budget
    period: str
    spent: int
    leased: int
    abandoned: int
    renews_at: float | None

    @property
    def left(self) -> int:
        """What nobody has yet; never below 0."""
        return max(self.budget.amount - self.spent - self.leased, 0)


@dataclass(frozen=True, slots=True)
class HolderStatus:
    """A process that has leases, of which home, when it was last heard of (Unix seconds), and of which budgets what."""

    id: str
    home: str
    seen_at: float
    leases: Mapping[str, int]


class Budgets:
    """The budgets in a database.

    Raises:
        DatabaseError: of every call: the database cannot be reached or written.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def all(self) -> list[Budget]:
        """Every budget, by name."""

        async def work(connection: AsyncConnection) -> list[Budget]:
            rows = await connection.execute(select(budgets).order_by(budgets.c.name))
            return [Budget(**row) for row in rows.mappings()]

        return await self._database.read(work)

    async def standing(self) -> list[Status]:
        """Every budget, by name, and what is gone of it in its present period."""
        now = self._clock.wall()

        async def work(connection: AsyncConnection) -> list[Status]:
            rows = await connection.execute(select(budgets).order_by(budgets.c.name))
            found = [Budget(**row) for row in rows.mappings()]
            periods = {budget.id: period_key(budget.period, now) for budget in found}
            query = select(spending).where(spending.c.period.in_(set(periods.values())))
            gone = {(row["budget"], row["period"]): row for row in (await connection.execute(query)).mappings()}
            return [
                _status(budget, periods[budget.id], gone.get((budget.id, periods[budget.id])), now) for budget in found
            ]

        return await self._database.read(work)

    async def get(self, name: str) -> Status:
        """The budget with that name or id.

        Raises:
            BudgetNotFound: there is none.
        """
        found = await self.standing()
        for status in found:
            if name in (status.budget.id, status.budget.name):
                return status
        raise _missing(name, [status.budget.name for status in found])

    async def create(self, budget: Budget, actor: Actor | None = None) -> Status:
        """Add a budget; its id and time are made up here, and a key may be named by its name.

        `actor`, here and below, is written into the audit log; None where that is done by somebody else.

        Raises:
            InvalidRequest: it makes no sense.
            KeyNotFound: it is of a key that does not exist.
            Conflict: there is one with that name.
        """
        _check(budget)
        made = replace(budget, id=f"budget-{secrets.token_hex(6)}", created_at=self._clock.wall())

        async def work(connection: AsyncConnection) -> Budget:
            who = await _key(connection, made.who) if made.subject == "key" else made.who
            kept = replace(made, who=who)
            await connection.execute(budgets.insert().values(**_row(kept)))
            await self._audit(connection, actor, "budget.create", kept)
            return kept

        kept = await self._unique(work, made.name)
        return _status(kept, period_key(kept.period, kept.created_at), None, kept.created_at)

    async def change(
        self, name: str, *, amount: int | None = None, rename: str | None = None, actor: Actor | None = None
    ) -> Status:
        """Change the amount or the name of a budget; what is spent stays.

        Raises:
            BudgetNotFound: there is none of that name or id.
            InvalidRequest, Conflict: as `create`.
        """
        before = (await self.get(name)).budget
        after = replace(
            before, amount=before.amount if amount is None else amount, name=before.name if rename is None else rename
        )
        _check(after)

        async def work(connection: AsyncConnection) -> None:
            mine, columns = budgets.c.id == before.id, budgets.c
            # What nobody wants changed stays as it is now: another may have changed it since it was read.
            values = {
                "amount": columns.amount if amount is None else amount,
                "name": columns.name if rename is None else rename,
            }
            await connection.execute(update(budgets).where(mine).values(**values))
            row = (await connection.execute(select(budgets).where(mine))).mappings().one_or_none()
            if row is None:
                raise _missing(name, [])
            await self._audit(connection, actor, "budget.change", Budget(**row))

        await self._unique(work, after.name)
        return await self.get(before.id)

    async def remove(self, name: str, actor: Actor | None = None) -> Budget:
        """Remove a budget, and what is written down of it.

        Raises:
            BudgetNotFound: there is none of that name or id.
        """
        found = (await self.get(name)).budget

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(budgets).where(budgets.c.id == found.id))
            await connection.execute(delete(spending).where(spending.c.budget == found.id))
            await connection.execute(delete(leases).where(leases.c.budget == found.id))
            await self._audit(connection, actor, "budget.remove", found)

        await self._database.write(work)
        return found

    async def holders(self) -> list[HolderStatus]:
        """The processes that have leases, by id."""

        async def work(connection: AsyncConnection) -> list[HolderStatus]:
            found = {
                row.id: (row.home, row.seen_at, dict[str, int]())
                for row in await connection.execute(select(holders).order_by(holders.c.id))
            }
            for row in await connection.execute(select(leases)):
                if row.holder in found:
                    mine = found[row.holder][2]
                    mine[row.budget] = mine.get(row.budget, 0) + row.amount
            return [HolderStatus(name, *rest) for name, rest in found.items()]

        return await self._database.read(work)

    async def _audit(self, connection: AsyncConnection, actor: Actor | None, action: str, budget: Budget) -> None:
        if actor is not None:
            detail = {"name": budget.name, "amount": budget.amount, "unit": budget.unit, "period": budget.period}
            await append(connection, self._clock.wall(), actor, action, budget.id, detail)

    async def _unique(self, work: Any, name: str) -> Any:
        async def careful(connection: AsyncConnection) -> Any:
            try:
                return await work(connection)
            except IntegrityError as error:
                raise Conflict(
                    f"There is a budget {name!r} already.", f"Change it: corral budgets change {name} --amount AMOUNT"
                ) from error

        return await self._database.write(careful)


def describe(status: Status) -> dict[str, Any]:
    """A budget as the HTTP interface and `--json` tell it: US dollars where it is in those, otherwise whole numbers."""
    budget = status.budget
    told = dollars if budget.unit == "usd" else int
    return {
        "budget_id": budget.id,
        "name": budget.name,
        "subject": budget.subject,
        "who": budget.who or None,
        "unit": budget.unit,
        "period": budget.period,
        "amount": told(budget.amount),
        "current": status.period,
        "spent": told(status.spent),
        "leased": told(status.leased),
        "left": told(status.left),
        "abandoned": told(status.abandoned),
        "renews_at": status.renews_at,
        "created_at": budget.created_at,
    }


def amount_of(unit: str, value: float) -> int:
    """An amount as people give it, dollars or a number, as budgets hold it.

    Raises:
        InvalidRequest: it is no amount.
    """
    fits = 0 <= value <= LARGEST / NANO and (unit == "usd" or value == int(value))
    if not fits:
        raise InvalidRequest(
            f"{value} is no amount of {unit}.",
            "Give US dollars, such as 2.50." if unit == "usd" else "Give a whole number from 0 on.",
            param="amount",
        )
    return nano(value) if unit == "usd" else int(value)


def _status(budget: Budget, period: str, row: Mapping[Any, Any] | None, now: float) -> Status:
    end = period_end(budget.period, now)
    spent, leased, abandoned = (0, 0, 0) if row is None else (row["spent"], row["leased"], row["abandoned"])
    return Status(budget, period, spent, leased, abandoned, None if isinf(end) else end)


def _row(budget: Budget) -> dict[str, Any]:
    return {column.name: getattr(budget, column.name) for column in budgets.columns}


def _check(budget: Budget) -> None:
    for value, known, what in (
        (budget.subject, SUBJECTS, "subject"),
        (budget.unit, UNITS, "unit"),
        (budget.period, PERIODS, "period"),
    ):
        if value not in known:
            raise InvalidRequest(f"{value!r} is no {what} of a budget.", f"Known: {', '.join(known)}.", param=what)
    if not budget.name or len(budget.name) > 100 or not budget.name.isprintable() or " " in budget.name:
        raise InvalidRequest(
            f"{budget.name[:40]!r} cannot be a budget's name.", "Take 1 to 100 characters and no spaces.", param="name"
        )
    if (budget.subject == "all") is bool(budget.who) or len(budget.who) > 200 or not budget.who.isprintable():
        hint = "Leave out whose it is." if budget.subject == "all" else f"Say which {budget.subject}."
        raise InvalidRequest(f"A budget of {budget.subject} cannot be of {budget.who[:40]!r}.", hint, param="who")
    if not 0 <= budget.amount <= LARGEST:
        raise InvalidRequest("The amount is out of range.", "Take one from 0 on.", param="amount")


async def _key(connection: AsyncConnection, who: str) -> str:
    """The id of the key with that id or name."""
    if who in _SPECIAL:
        return who
    query = select(keys.c.id).where(or_(keys.c.id == who, keys.c.name == who), keys.c.revoked_at.is_(None))
    found = list((await connection.execute(query)).scalars())
    if who in found:
        return who
    if len(found) != 1:
        raise KeyNotFound(
            f"{len(found) or 'No'} keys are called {who[:40]!r}." if found else f"There is no key {who[:40]!r}.",
            "See them: corral keys",
            param="who",
        )
    return str(found[0])


def _missing(name: str, known: Sequence[str]) -> BudgetNotFound:
    close = nearest(name, known)
    hint = f"Did you mean {' or '.join(close)}?" if close else "See them: corral budgets"
    return BudgetNotFound(f"There is no budget {name[:40]!r}.", hint)
