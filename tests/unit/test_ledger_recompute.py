"""Costs computed anew: rows, sums and budgets change in step, and a dry run changes nothing."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, select

from corral.db.engine import Database
from corral.db.tables import spending, usage, usage_days, usage_hours
from corral.domain.money import UNKNOWN, Price, Tier
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.routing.periods import period_key
from corral.routing.recompute import Recomputed, recompute
from support.clocks import HandClock

PRICES = {
    "gpt": Price((Tier(input=2_000_000, output=4_000_000),), source="new"),
    "odd": UNKNOWN,
    "hour": Price(second=5, source="new"),
}


def row(number: int, at: float, model: str, **more: object) -> dict[str, object]:
    text = dict.fromkeys(("asked", "dialect"), "x")
    counts = dict.fromkeys(("cached", "cache_write", "reasoning"), 0)
    base = {"number": number, "request_id": f"r{number}", "attempt": 1, "at": at, "key": "key-ada", "project": "game"}
    return {
        **base, **text, **counts, "model": model, "runtime": "openai", "status": 200, "input": 10, "output": 5,
        "cost": 30, "price": "old", **more,
    }  # fmt: skip


async def test_costs_sums_and_budgets_change_in_step(tmp_path: Path) -> None:
    clock = HandClock()
    database = Database(None, tmp_path)
    budgets = Budgets(database, clock)
    for name, subject, who, period in (("all", "all", "", "total"), ("day", "key", "local", "day")):
        await budgets.create(Budget("", name, subject, who, "usd", period, 10**9))
    mine = (await budgets.get("all")).budget
    now = clock.wall()
    rows = [
        *(row(n, now + n, "gpt") for n in range(1, 1501)),
        row(2000, now + 5, "gpt", price="unknown", cost=0),
        row(2001, now + 5, "odd"),
        row(2002, now + 5, "hour"),
        row(2003, now + 9999, "gpt"),
    ]
    buckets = {(int(r["at"] // 3600 * 3600), int(r["at"] // 86400 * 86400), r["model"]) for r in rows}
    common = {c.name: 0 for c in usage_hours.columns if c.name not in ("bucket", "key", "project", "model", "runtime")}

    async def fill(connection):
        await connection.execute(usage.insert(), rows)
        for table, place in ((usage_hours, 0), (usage_days, 1)):
            for bucket, model in {(each[place], each[2]) for each in buckets}:
                inside = [
                    r
                    for r in rows
                    if r["model"] == model and r["at"] // (3600, 86400)[place] * (3600, 86400)[place] == bucket
                ]
                sums = {
                    "cost": sum(r["cost"] for r in inside),
                    "unpriced": sum(r["price"] == "unknown" for r in inside),
                }
                who = {"key": "key-ada", "project": "game", "model": model, "runtime": "openai"}
                await connection.execute(table.insert().values(**{**common, **sums}, bucket=bucket, **who))
        await connection.execute(
            spending.insert().values(
                budget=mine.id, period=period_key("total", now), spent=45_030, leased=7, abandoned=0
            )
        )

    async def sums(connection):
        found = [await connection.scalar(select(func.sum(table.c.cost))) for table in (usage, usage_hours, usage_days)]
        return found, await connection.scalar(select(func.sum(usage_days.c.unpriced)))

    await database.write(fill)
    before = await database.read(sums)
    expected = Recomputed(rows=1503, changed=1501, skipped=2, before=45_060, after=1501 * 40 + 60)

    def price(model: str, runtime: str) -> Price:
        assert runtime == "openai"
        return PRICES[model]

    tried = await recompute(database, price, since=now, until=now + 5000, dry_run=True)
    assert tried == expected
    assert await database.read(sums) == before
    assert await recompute(database, price, since=now, until=now + 5000) == expected
    costs, unpriced = await database.read(sums)
    assert set(costs) == {before[0][0] + 1500 * 10 + 40}
    assert unpriced == 0
    status = await budgets.get("all")
    assert (status.spent, status.leased) == (45_030 + 1500 * 10 + 40, 7)
    assert (await recompute(database, price, since=now, until=now + 5000, model="gpt")).changed == 0
    await database.close()
