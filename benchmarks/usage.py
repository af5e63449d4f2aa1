"""What the usage page asks, from a year's sums, over the same asked of single rows; and what writing down takes.

    python -m benchmarks.usage [--rows N] [--runs N] [--check]

The sums are those of a busy team: 20 keys, 10 models, every hour of a year, which at six answers in each is more than
ten million answers. `--rows` of them are there as single rows, too, spread over the same year: each question is also
asked of those, and printed is how many times longer that takes with so many. Milliseconds are this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from corral.config.traffic import UsageSettings
from corral.db.engine import Database
from corral.db.tables import usage, usage_days, usage_hours
from corral.domain.callers import Caller
from corral.domain.money import Usage
from corral.kit.clock import SystemClock
from corral.observability.queries import Question
from corral.observability.record import Record
from corral.observability.sums import DAY, HOUR, MEASURES
from corral.observability.usage import Books

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection

KEYS = [Caller(f"key-{number:02d}", f"key {number}", project=f"project-{number % 5}") for number in range(20)]
MODELS = [f"model-{number}" for number in range(10)]
HOURS = 365 * 24
START = 1_735_689_600  # the first of January 2025, in UTC
END = START + HOURS * HOUR
AN_HOUR = 6
"""Answers of a key by a model in an hour: 10,512,000 in all."""
MOST_MS = 200.0

QUESTIONS: dict[str, Question] = {
    "7 days, by model": Question(END - 7 * DAY, END, ("model",)),
    "30 days, by day": Question(END - 30 * DAY, END, ("day",)),
    "30 days, by key": Question(END - 30 * DAY, END, ("key",)),
    "31 days, by hour": Question(END - 31 * DAY, END, ("hour",)),
    "year, by day": Question(START, END, ("day",)),
    "year, by day and model": Question(START, END, ("day", "model")),
    "year, by key": Question(START, END, ("key",)),
    "year, by model, of one key": Question(START, END, ("model",), key="key-07"),
    "year, all together": Question(START, END, ()),
}


def answer(number: int, at: float) -> Record:
    """One answer, as the gateway would note it."""
    record = Record(f"req-{number:x}", at, 1.0, KEYS[number % 20])
    record.asked = record.model = MODELS[number // 20 % 10]
    record.runtime, record.engine, record.revision, record.context = "llamacpp", "engine-1", "0123456789abcdef", 8192
    record.dialect = record.spoken = "openai.chat"
    record.status, record.stop, record.usage, record.cost, record.price = (
        200,
        "stop",
        Usage(900, 150),
        1200,
        "configured",
    )
    record.sent, record.heard, record.first, record.ended = 1.0001, 1.2, 1.2001, 2.0
    return record


def sums(width: int) -> Iterator[tuple[Any, ...]]:
    """A row of sums for each bucket of `width` seconds, key and model of the year."""
    times = width // HOUR * AN_HOUR
    measures = {"requests": 1, "errors": 0, "unpriced": 0, "firsts": 1, "input": 900, "output": 150, "cost": 1200}
    values = tuple(times * measures.get(name, 0) for name in MEASURES[:-2])
    for bucket in range(START, END, width):
        for key in KEYS:
            for model in MODELS:
                yield (bucket, key.id, key.project, model, "llamacpp", *values, times * 200.0, times * 1000.0)


async def fill(database: Database) -> None:
    """The sums of the year."""
    for table, width in ((usage_hours, HOUR), (usage_days, DAY)):
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        sql = f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' * len(table.columns))})"
        rows = sums(width)

        async def work(connection: AsyncConnection, sql: str = sql, rows: Iterator[Any] = rows) -> None:
            while some := [row for row, _ in zip(rows, range(20_000), strict=False)]:
                await connection.exec_driver_sql(sql, some)

        await database.write(work)


async def write(database: Database, rows: int) -> tuple[float, float, float]:
    """Write single answers as the server does: microseconds to note one, rows a second, microseconds of processor."""
    books = Books(database, SystemClock(), UsageSettings(), most=rows)
    noted = written = processor = 0.0
    step = (END - START) / rows
    for begin in range(0, rows, 50_000):
        some = [answer(number, START + number * step) for number in range(begin, min(begin + 50_000, rows))]
        started = time.perf_counter()
        for record in some:
            books.record(record)
        noted += time.perf_counter() - started
        started, cpu = time.perf_counter(), time.process_time()
        await books.flush()
        written += time.perf_counter() - started
        processor += time.process_time() - cpu
    return noted / rows * 1e6, rows / written, processor / rows * 1e6


async def asked_of_rows(database: Database, question: Question) -> None:
    """The same question, answered from single rows."""
    widths = {"day": DAY, "hour": HOUR}
    groups: list[Any] = [
        func.floor(usage.c.at / widths[name]) if name in widths else usage.c[name] for name in question.by
    ]
    measures = [func.sum(usage.c[name]) for name in ("input", "output", "cached", "cache_write", "reasoning", "cost")]
    query = select(*groups, func.count(), *measures, func.avg(usage.c.first_ms), func.avg(usage.c.total_ms))
    query = query.where(usage.c.at >= question.since, usage.c.at < question.until)
    if question.key is not None:
        query = query.where(usage.c.key == question.key)
    if groups:
        query = query.group_by(*groups)

    async def work(connection: AsyncConnection) -> None:
        (await connection.execute(query)).all()

    await database.read(work)


async def milliseconds(ask: Callable[[], Awaitable[object]], runs: int) -> float:
    """The median of `runs`, after one that does not count."""
    await ask()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


async def measure(folder: Path, rows: int, runs: int) -> float:
    """Print every figure; the longest question of the page, in milliseconds."""
    database = Database(None, folder)
    noted, speed, processor = await write(database, rows)
    print(
        f"an answer is noted in {noted:.2f} µs, and written down at {speed:,.0f} a second ({processor:.1f} µs of CPU)"
    )
    await fill_once(database)
    books = Books(database, SystemClock(), UsageSettings())
    week = Question(END - 7 * DAY, END)
    singles: dict[str, Callable[[], Awaitable[object]]] = {
        "the last 50 answers": lambda: books.answers(week, 50),
        "the last 50 of one key": lambda: books.answers(Question(START, END, key="key-07"), 50),
        "none, of a key that is not there": lambda: books.answers(Question(START, END, key="none"), 50),
        "a receipt": lambda: books.receipt(f"req-{rows // 2:x}"),
    }
    longest = 0.0
    print(f"\n{'question':34} {'sums':>9} {f'{rows:,} rows':>16} {'times':>7}")
    for name, question in QUESTIONS.items():
        ms = await milliseconds(lambda question=question: books.sums(question), runs)  # type: ignore[misc]
        raw = await milliseconds(lambda question=question: asked_of_rows(database, question), 1)  # type: ignore[misc]
        longest = max(longest, ms)
        print(f"{name:34} {ms:6.1f} ms {raw:13.1f} ms {raw / ms:7.1f}")
    for name, ask in singles.items():
        ms = await milliseconds(ask, runs)
        longest = max(longest, ms)
        print(f"{name:34} {ms:6.1f} ms")
    await database.close()
    print(f"\nthe longest took {longest:.0f} ms; at most {MOST_MS:.0f} are allowed")
    return longest


async def fill_once(database: Database) -> None:
    """The year's sums in place of those of the single rows."""

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(usage_hours.delete())
        await connection.execute(usage_days.delete())

    await database.write(work)
    await fill(database)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="single answers")
    parser.add_argument("--runs", type=int, default=5, help="times that each question is asked")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a question takes too long")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="corral-usage-") as folder:
        longest = asyncio.run(measure(Path(folder), given.rows, given.runs))
    if given.check and longest > MOST_MS:
        sys.exit(1)


if __name__ == "__main__":
    main()
