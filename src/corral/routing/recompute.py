"""Costs anew, when a price was wrong: rows of usage, their sums, and what budgets have spent, in step with each other.

Receipts stay as they are: they say what was said then. Rows of a batch change in one transaction with all that is added
up from them, so that whoever reads meanwhile sees sums that fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, bindparam, case, select, update

from corral.db.tables import budgets, spending, usage, usage_days, usage_hours
from corral.domain.money import Usage
from corral.routing.book import Budget
from corral.routing.periods import period_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.money import Price

_BATCH: Final = 1000
_HOUR: Final = 3600
_DAY: Final = 86400
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What changed, or would: rows looked at, rows whose cost is another now, and all costs before and after.

    `skipped` are rows of models that are paid by more than their tokens, or whose price is not known. Nanodollars.
    """

    rows: int = 0
    changed: int = 0
    skipped: int = 0
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class _Change:
    row: Mapping[Any, Any]
    cost: int
    price: str


async def recompute(
    database: Database,
    price: Callable[[str, str], Price],
    *,
    since: float,
    until: float,
    model: str | None = None,
    dry_run: bool = False,
) -> Recomputed:
    """Compute the costs of answers between `since` and `until` (Unix seconds) anew.

    Args:
        database: where usage is.
        price: what a model of a runtime costs now, by both their names.
        since: from then on.
        until: before that.
        model: only of this one.
        dry_run: only say what would change.

    Raises:
        DatabaseError: batches before are done; doing it again does the rest.
    """
    total, last = Recomputed(), 0
    while True:

        async def work(connection: AsyncConnection, after: int = last) -> tuple[Recomputed, int]:
            rows = (await connection.execute(_page(since, until, model, after))).mappings().all()
            found, changes = _weigh(rows, price)
            if changes and not dry_run:
                await _apply(connection, changes)
            return found, rows[-1]["number"] if len(rows) == _BATCH else 0

        found, last = await (database.read(work) if dry_run else database.write(work))
        total = Recomputed(
            total.rows + found.rows,
            total.changed + found.changed,
            total.skipped + found.skipped,
            total.before + found.before,
            total.after + found.after,
        )
        if not last:
            return total


def _page(since: float, until: float, model: str | None, after: int) -> Select[Any]:
    names = ("number", "at", "key", "project", "model", "runtime", "cost", "price")
    tokens = ("input", "output", "cached", "cache_write", "reasoning")
    query = (
        select(*(usage.c[name] for name in (*names, *tokens)))
        .where(usage.c.at >= since, usage.c.at < until, usage.c.number > after)
        .order_by(usage.c.number)
        .limit(_BATCH)
    )
    return query if model is None else query.where(usage.c.model == model)


def _weigh(rows: Iterable[Mapping[Any, Any]], price: Callable[[str, str], Price]) -> tuple[Recomputed, list[_Change]]:
    """What the rows cost, and which of them cost something else now."""
    count, skipped, before, after = 0, 0, 0, 0
    changes = []
    for row in rows:
        count += 1
        before += row["cost"]
        now = price(row["model"], row["runtime"])
        if not now.known or now.second or now.image or not (row["input"] or row["output"]):
            skipped += bool(row["input"] or row["output"])
            after += row["cost"]
            continue
        used = Usage(row["input"], row["output"], row["cached"], row["cache_write"], row["reasoning"])
        cost = now.cost(used)
        after += cost
        if cost != row["cost"] or row["price"] == _UNKNOWN:
            changes.append(_Change(row, cost, now.source))
    return Recomputed(count, len(changes), skipped, before, after), changes


async def _apply(connection: AsyncConnection, changes: list[_Change]) -> None:
    change = update(usage).where(usage.c.number == bindparam("n")).values(cost=bindparam("c"), price=bindparam("p"))
    rows = [{"n": each.row["number"], "c": each.cost, "p": each.price} for each in changes]
    await connection.execute(change, rows)
    for table, length in ((usage_hours, _HOUR), (usage_days, _DAY)):
        await _add_up(connection, table, length, changes)
    await _correct(connection, changes)


async def _add_up(connection: AsyncConnection, table: Any, length: int, changes: list[_Change]) -> None:
    """Change the sums by as much as their rows."""
    costs: Counter[tuple[Any, ...]] = Counter()
    priced: Counter[tuple[Any, ...]] = Counter()
    for each in changes:
        row = each.row
        place = (int(row["at"] // length * length), row["key"], row["project"], row["model"], row["runtime"])
        costs[place] += each.cost - row["cost"]
        priced[place] += row["price"] == _UNKNOWN
    columns = ("bucket", "key", "project", "model", "runtime")
    fewer = case((table.c.unpriced > bindparam("f"), table.c.unpriced - bindparam("f")), else_=0)
    change = (
        update(table)
        .where(*(table.c[name] == bindparam(f"at_{name}") for name in columns))
        .values(cost=table.c.cost + bindparam("d"), unpriced=fewer)
    )
    rows = [
        {
            **{f"at_{name}": part for name, part in zip(columns, place, strict=True)},
            "d": costs[place],
            "f": priced[place],
        }
        for place in sorted(costs)
    ]
    await connection.execute(change, rows)


async def _correct(connection: AsyncConnection, changes: list[_Change]) -> None:
    """Change what budgets have spent by as much as the answers that they paid for."""
    query = select(budgets).where(budgets.c.unit == "usd")
    known = [Budget(**row) for row in (await connection.execute(query)).mappings()]
    spent: Counter[tuple[str, str]] = Counter()
    for each in changes:
        row = each.row
        for budget in known:
            if row["at"] >= budget.created_at and budget.of(row["key"], row["project"]):
                spent[budget.id, period_key(budget.period, row["at"])] += each.cost - row["cost"]
    for key in sorted(spent):  # in the order in which leases take them
        change = update(spending).where(spending.c.budget == key[0], spending.c.period == key[1])
        less = spending.c.spent + spent[key]
        await connection.execute(change.values(spent=case((less > 0, less), else_=0)))
