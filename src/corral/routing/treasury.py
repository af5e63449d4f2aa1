"""Where processes get what they may spend: leases in the database, given out and taken back in transactions.

    budgets    what may be spent
    spending   by budget and period: spent for good, and leased; together never more than the budget
    holders    the processes that have leases; how much of its journal is booked
    leases     what of `leased` is whose

All of an exchange is one transaction: it books what a holder has settled up to an offset of its journal, takes back
what it does not need, and leases what it asks for. Whether a transaction whose end nobody heard of was committed shows
in `holders.applied`, so nothing is booked twice. Rows are taken in one order everywhere, so that nobody waits in a
circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from corral.db.tables import budgets, holders, leases, spending
from corral.routing.book import grant
from corral.routing.journal import Key, read

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a holder has to say. Amounts in the budget's unit.

    `totals` is what it has settled since it began, up to `offset` of its journal; `known` the same for each offset that
    the database may have heard of. `gives` goes back. `wants` is needed now; an account of which nothing is needed
    gets a part of what is left.
    """

    holder: str
    home: str
    at: float
    offset: int
    part: float
    totals: Mapping[Key, int] = field(default_factory=dict)
    known: Mapping[int, Mapping[Key, int]] = field(default_factory=dict)
    gives: Mapping[Key, int] = field(default_factory=dict)
    wants: Mapping[Key, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands after an exchange: what this holder has of it, and what nobody has.

    `amount` is None where there is no such budget any more. `spent` is of all, for good.
    """

    leased: int
    left: int = 0
    spent: int = 0
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of a dead holder. `known` is false where the database has not heard of it, so nothing was leased."""

    holder: str
    known: bool
    booked: Mapping[Key, int] = field(default_factory=dict)
    abandoned: Mapping[Key, int] = field(default_factory=dict)
    damaged: int = 0


class Treasury:
    """Leases, in the database. Every call is one transaction.

    Raises:
        DatabaseError: of every call: the database cannot be reached or written; unless its answer was lost on the way,
            nothing has changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def exchange(self, order: Exchange) -> dict[Key, Standing]:
        """Carry out `order`; how every account stands that it names, or that the holder has a lease of."""

        async def work(connection: AsyncConnection) -> dict[Key, Standing]:
            applied = await _enter(connection, order)
            before = order.known.get(applied, order.totals)
            held = await _leases(connection, order.holder)
            found: dict[Key, Standing] = {}
            for key in sorted({*order.totals, *order.gives, *order.wants, *held}):
                settled = order.totals.get(key, 0) - before.get(key, 0)
                found[key] = await _settle(connection, order, key, held.get(key, 0), settled)
            return found

        return await self._database.write(work)

    async def leave(self, holder: str) -> None:
        """Forget a holder that has given everything back."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(holders).where(holders.c.id == holder))

        await self._database.write(work)

    async def recover(self, holder: str, content: bytes) -> Recovery:
        """Book what a dead holder's journal tells beyond what is booked, take its leases back, and forget it.

        Where lines of the journal may be missing, all that was leased counts as spent.
        """

        async def work(connection: AsyncConnection) -> Recovery:
            query = select(holders.c.applied).where(holders.c.id == holder).with_for_update()
            applied = (await connection.execute(query)).scalar_one_or_none()
            if applied is None:
                return Recovery(holder, known=False)
            story, held = read(content, applied), await _leases(connection, holder)
            spent = dict(story.spent())
            if story.cut:
                spent = {key: max(spent.get(key, 0), held.get(key, 0)) for key in {*spent, *held}}
            abandoned = {key: amount - story.settled.get(key, 0) for key, amount in spent.items()}
            for key in sorted({*spent, *held}):
                await _change(connection, key, spent.get(key, 0), -held.get(key, 0), abandoned.get(key, 0))
            await connection.execute(delete(leases).where(leases.c.holder == holder))
            await connection.execute(delete(holders).where(holders.c.id == holder))
            lost = {key: amount for key, amount in abandoned.items() if amount}
            return Recovery(holder, known=True, booked=spent, abandoned=lost, damaged=story.damaged)

        return await self._database.write(work)

    async def release(self, holder: str, *, spent: bool) -> dict[Key, int] | None:
        """End the leases of a holder whose journal is out of reach; what they were. None: there is no such holder.

        `spent`: what was leased counts as spent; otherwise it goes back.
        """

        async def work(connection: AsyncConnection) -> dict[Key, int] | None:
            query = select(holders.c.id).where(holders.c.id == holder).with_for_update()
            if (await connection.execute(query)).scalar_one_or_none() is None:
                return None
            held = await _leases(connection, holder)
            for key in sorted(held):
                lost = held[key] if spent else 0
                await _change(connection, key, lost, -held[key], lost)
            await connection.execute(delete(leases).where(leases.c.holder == holder))
            await connection.execute(delete(holders).where(holders.c.id == holder))
            return held

        return await self._database.write(work)


async def _enter(connection: AsyncConnection, order: Exchange) -> int:
    """Lock the holder's row, made at the first time; how much was booked before."""
    query = select(holders.c.applied).where(holders.c.id == order.holder).with_for_update()
    applied = (await connection.execute(query)).scalar_one_or_none()
    values = {"applied": order.offset, "seen_at": order.at}
    if applied is None:
        new = holders.insert().values(id=order.holder, home=order.home, **values)
        await connection.execute(new)
        # Unknown, or no longer known: what was settled since the last exchange that is known of must still be booked.
        return min(order.known, default=0)
    await connection.execute(update(holders).where(holders.c.id == order.holder).values(**values))
    return int(applied)


async def _leases(connection: AsyncConnection, holder: str) -> dict[Key, int]:
    query = select(leases.c.budget, leases.c.period, leases.c.amount).where(leases.c.holder == holder)
    return {(row.budget, row.period): row.amount for row in await connection.execute(query)}


async def _settle(connection: AsyncConnection, order: Exchange, key: Key, held: int, settled: int) -> Standing:
    """One account of an exchange."""
    wanted = order.wants.get(key)
    after = max(held - settled - order.gives.get(key, 0), 0)
    if wanted is None:
        await _change(connection, key, settled, after - held)
        await _lease(connection, order.holder, key, held, after)
        return Standing(after)
    await _insert(connection, spending, {"budget": key[0], "period": key[1], "spent": 0, "leased": 0, "abandoned": 0})
    query = (
        select(budgets.c.amount, spending.c.spent, spending.c.leased)
        .select_from(spending.outerjoin(budgets, budgets.c.id == spending.c.budget))
        .where(*_at(spending, key))
        .with_for_update(of=spending)
    )
    row = (await connection.execute(query)).one()
    spent, others = row.spent + settled, row.leased - held + after
    more = 0 if row.amount is None else grant(row.amount, spent, others, wanted, order.part)
    await _change(connection, key, settled, after + more - held)
    await _lease(connection, order.holder, key, held, after + more)
    return Standing(after + more, max((row.amount or 0) - spent - others - more, 0), spent, row.amount)


async def _change(connection: AsyncConnection, key: Key, spent: int, leased: int, abandoned: int = 0) -> None:
    if spent or leased:
        change = update(spending).where(*_at(spending, key))
        columns = spending.c
        await connection.execute(
            change.values(
                spent=columns.spent + spent, leased=columns.leased + leased, abandoned=columns.abandoned + abandoned
            )
        )


async def _lease(connection: AsyncConnection, holder: str, key: Key, before: int, after: int) -> None:
    mine = (leases.c.holder == holder, *_at(leases, key))
    if after and not before:
        await _insert(connection, leases, {"holder": holder, "budget": key[0], "period": key[1], "amount": after})
    elif after != before:
        await connection.execute(
            update(leases).where(*mine).values(amount=after) if after else delete(leases).where(*mine)
        )


async def _insert(connection: AsyncConnection, table: Table, values: Mapping[str, Any]) -> None:
    """Add a row unless it is there."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    await connection.execute(dialect.insert(table).values(values).on_conflict_do_nothing())


def _at(table: Table, key: Key) -> tuple[Any, Any]:
    return table.c.budget == key[0], table.c.period == key[1]
