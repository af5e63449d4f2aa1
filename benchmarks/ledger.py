"""What money costs a request: a hold and its settlement, over counting in a plain dictionary, in one process, in turns.

    python -m benchmarks.ledger [--runs N] [--check]

Without any budget, under one and under three, all within the lease; each writes two lines into the journal. And what a
caller waits for who must ask the database (SQLite on the disk of the temporary folder): alone, and a thousand together.
The former in processor time, the kernel's included, so that other work of the machine counts for little.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral.db.engine import Database
from corral.domain.callers import Caller
from corral.kit.clock import SystemClock
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.routing.ledger import Amounts, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: Final = 20_000
WORST: Final = Amounts(40_000, 900)
ACTUAL: Final = Amounts(31_234, 512)
FREE_TARGET: Final = 3.0
"""Microseconds for a caller without a budget."""
HELD_TARGET: Final = 10.0
"""Microseconds for one with."""
_NONE: Final = Caller("key-none", "none")
_THREE: Final = Caller("key-three", "three", project="game")
_LARGE: Final = 10**15
_PAUSE: Final = 0.2


async def _ledger(home: Path, database: Database) -> Ledger:
    clock = SystemClock()
    budgets = Budgets(database, clock)
    for name, subject, who, unit in (
        ("one", "key", "server", "usd"),
        ("three-a", "key", "local", "usd"),
        ("three-b", "project", "game", "tokens"),
        ("three-c", "project", "game", "requests"),
        ("three-d", "project", "game", "usd"),
    ):
        await budgets.create(Budget("", name, subject, who, unit, "month", _LARGE))
    made = Ledger(database, home, clock)
    await made.refresh()
    return made


def _plain() -> Callable[[], None]:
    book = {"spent": 0, "held": 0}

    def count() -> None:
        book["held"] += 40_000
        book["held"] -= 40_000
        book["spent"] += 31_234

    return count


def _held(ledger: Ledger, caller: Caller) -> Callable[[], None]:
    def work() -> None:
        hold = ledger.hold(caller, WORST)
        if hold is None:
            raise AssertionError("The lease has run out in the middle.")
        hold.settle(ACTUAL)

    return work


def _microseconds(work: Callable[[], None]) -> float:
    start = time.thread_time()
    for _ in range(CALLS):
        work()
    return (time.thread_time() - start) / CALLS * 1e6


async def _wait(ledger: Ledger, callers: int) -> float:
    """Milliseconds until all of so many callers have what only the database can give."""
    amount = Amounts(0, 10**9)
    start = time.perf_counter()
    holds = await asyncio.gather(*(ledger.reserve(_THREE, amount) for _ in range(callers)))
    took = (time.perf_counter() - start) * 1000
    for hold in holds:
        hold.release()
    for account in list(ledger._live):  # noqa: SLF001 — so that the next one has to ask again
        account.recalled = True
    await ledger.flush()
    return took


async def _measure(runs: int) -> tuple[dict[str, float], dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="corral-ledger-") as folder:
        home = Path(folder)
        database = Database(None, home)
        ledger = await _ledger(home, database)
        callers = {"no budget": _NONE, "one budget": Caller("server", "one"), "three budgets": _THREE}
        cases = {"a plain dictionary": _plain()}
        cases |= {name: _held(ledger, caller) for name, caller in callers.items()}
        took: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(runs):
            for caller in callers.values():
                (await ledger.reserve(caller, WORST)).release()
            await asyncio.sleep(_PAUSE)  # what is fetched ahead arrives
            for name, work in cases.items():
                took[name].append(_microseconds(work))
            await ledger.flush()
        waits = {
            f"{count:,} callers who wait": statistics.median([await _wait(ledger, count) for _ in range(runs)])
            for count in (1, 1000)
        }
        await ledger.close()
        await database.close()
    return {name: statistics.median(values) for name, values in took.items()}, waits


def main() -> int:
    """Measure and print; with `--check`, 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="rounds, of which the median counts")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    given = parser.parse_args()
    took, waits = asyncio.run(_measure(given.runs))
    reference = took["a plain dictionary"]
    for name, microseconds in took.items():
        print(f"{name:28} {microseconds:8.2f} us   {microseconds / reference:7.1f} of the reference")
    for name, milliseconds in waits.items():
        print(f"{name:28} {milliseconds:8.2f} ms")
    most = max(took["one budget"], took["three budgets"])
    print(f"targets: {FREE_TARGET:g} us without a budget, {HELD_TARGET:g} us under some")
    return int(given.check and (took["no budget"] > FREE_TARGET or most > HELD_TARGET))


if __name__ == "__main__":
    sys.exit(main())
