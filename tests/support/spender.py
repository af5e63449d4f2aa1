"""A process that spends from budgets as a server does, until they are empty; to be run several times, and killed.

    python -m support.spender HOME URL CALLERS

Once `HOME/go` exists, callers come one after the other within five seconds. Each reserves 1000 nanodollars, is answered
by a vendor that bills 500 to 1000, and settles that. The vendor's book is `HOME/vendor`, shared by all processes:
`b CALL AMOUNT` when it bills; `s CALL` and `d CALL` stand before and after the settlement. A caller goes on until a
refusal says that waiting is of no use.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from corral.db.engine import Database
from corral.domain.callers import Caller
from corral.errors import BudgetExceeded
from corral.kit.clock import SystemClock
from corral.routing.ledger import Amounts, Ledger

WORST = Amounts(1000, 10)


async def spend(ledger: Ledger, note, chance: random.Random) -> None:
    caller = Caller("key-1", "one", project="game")
    await asyncio.sleep(5 * chance.random())
    while True:
        try:
            hold = await ledger.reserve(caller, WORST)
        except BudgetExceeded as error:
            if error.retry_after is None:
                return
            await asyncio.sleep(0.3 * chance.random())
            continue
        call, amount = f"{os.getpid()}-{chance.getrandbits(60)}", chance.randint(500, 1000)
        await asyncio.sleep(0.2 * chance.random())  # the vendor thinks
        note(f"b {call} {amount}")
        await asyncio.sleep(0)
        note(f"s {call}")
        hold.settle(Amounts(amount, 7))
        note(f"d {call}")


async def main(home: Path, url: str | None, callers: int) -> None:
    descriptor = os.open(home / "vendor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    database = Database(url, home)
    ledger = Ledger(database, home, SystemClock(), write_every=0.05)
    await ledger.refresh()
    running = asyncio.create_task(ledger.run())
    chance = random.Random()
    print("ready", flush=True)
    while not (home / "go").exists():
        await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(spend(ledger, lambda line: os.write(descriptor, f"{line}\n".encode()), chance))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await ledger.close()
    await database.close()
    print("done", ledger.overruns, ledger.failures, flush=True)


if __name__ == "__main__":
    home, url, callers = sys.argv[1:]
    asyncio.run(main(Path(home), None if url == "-" else url, int(callers)))
