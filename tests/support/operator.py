"""A process that orders operations and does them, telling each step on a line of its output; made to be killed.

python -m support.operator HOME URL run [MODEL …]     order these, then do all until none is left
python -m support.operator HOME URL open              open the database, and nothing else
python -m support.operator HOME URL perform ID        do that one, or watch it

URL is `-` for SQLite. While at an operation it holds HOME/marks/ID; finding another living process's mark there is a
line in HOME/faults. Every start is a line in HOME/starts.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import psutil

from corral.db.engine import Database
from corral.domain.operations import Operation, Order
from corral.domain.ports import Progress
from corral.kit.clock import SystemClock
from corral.operations.durable import Limits, Operations, Work

STEPS = 12


def note(path: Path, line: str) -> None:
    with path.open("a") as out:
        out.write(f"{line}\n")


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def alive(pid: str) -> bool:
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE  # such as one killed and not yet waited for
    except psutil.NoSuchProcess:
        return False


class Marking:
    """A handler that would notice another one at the same operation."""

    def __init__(self, home: Path, clock: SystemClock) -> None:
        self.home = home
        self.clock = clock
        (home / "marks").mkdir(exist_ok=True)

    async def __call__(self, operation: Operation, work: Work) -> Any:
        mark = self.home / "marks" / operation.id
        if mark.exists() and not alive(mark.read_text()):
            mark.unlink()
        mine = mark.with_suffix(f".{os.getpid()}")
        mine.write_text(str(os.getpid()))
        try:
            os.link(mine, mark)  # as O_EXCL, and with its content from the first moment on
        except FileExistsError:
            note(self.home / "faults", f"{operation.id} twice")
            raise
        finally:
            mine.unlink()
        note(self.home / "starts", operation.id)
        tell(f"begin {operation.order.model}")
        try:
            for step in range(1, STEPS + 1):
                work.report(Progress("download", step * 1000, STEPS * 1000))
                work.on_part(f"part-{operation.order.model}")
                await self.clock.sleep(0.02)  # the work itself
                tell(f"step {operation.order.model} {step}")
        finally:
            mark.unlink()
        return {"pid": os.getpid()}


async def unfinished(operations: Operations) -> list[Operation]:
    return [each for each in await operations.page(100) if not each.status.ended]


async def main(home: Path, url: str | None, verb: str, *rest: str) -> None:
    clock = SystemClock()
    database = Database(url, home)
    operations = Operations(database, home, {"install": Marking(home, clock)}, clock, limits=Limits(parallel=4))
    if verb == "open":
        await operations.page(1)
        tell("opened")
    elif verb == "perform":
        tell(f"ended {(await operations.perform(rest[0])).status}")
    else:
        tell("ready")
        for model in rest:
            await operations.submit(Order("install", model, lane=model[0]))
            tell(f"ordered {model}")
        running = asyncio.create_task(operations.run())
        for each in await unfinished(operations):
            async for _ in operations.watch(each.id):
                pass
        running.cancel()
        await asyncio.wait([running])
        tell("done")
    await operations.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2], *sys.argv[3:]))
