"""Whole Corrals that order operations and do them without end, made to be killed: each line of input forks one.

python -m support.yard HOME ORIGIN     input: a seed a line; the pid, and at its end the exit code, are answered
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from corral.app import Corral
from corral.config import load
from corral.domain.operations import Order
from corral.errors import CorralError

NAMES = ("a", "b", "c")
SLOW = ("aiohttp", "aiosqlite", "jinja2", "corral.db.engine", "corral.operations.durable", "corral.sources.url")
"""Imported before the children are forked, so that none of them spends its short life on that."""


def settings(home: Path, origin: str, **more: str) -> Corral:
    """A Corral with that home, which may fetch from the loopback server `origin`."""
    env = {"HOME": str(home), "CORRAL_SOURCES_ALLOW_PRIVATE": origin, "CORRAL_OPERATIONS_ATTEMPTS": "1000", **more}
    return Corral(load(env, cwd=home), env=env)


def order(corral: Corral, origin: str, chance: random.Random) -> Order:
    """Something to do."""
    name = chance.choice(NAMES)
    kind = chance.choice(["install", "install", "install", "update", "update", "remove", "gc", "verify"])
    if kind == "install":
        return corral.catalog.install_order(f"http://{origin}/{name}.gguf", name=name)
    return corral.catalog.order(kind, "" if kind in {"gc", "verify"} else name)


async def work(home: Path, origin: str, seed: int) -> None:
    chance = random.Random(seed)
    corral = settings(home, origin)
    operations = corral.catalog.operations
    worker = asyncio.ensure_future(operations.run())
    while not worker.done():
        begun = []
        for _ in range(chance.randrange(1, 5)):
            with suppress(CorralError):  # such as a removal of what is not installed
                begun.append(await corral.catalog.start(order(corral, origin, chance)))
        for operation in begun:
            if chance.random() < 0.1:
                with suppress(CorralError):
                    await operations.cancel(operation.id)
            async for _ in operations.watch(operation.id):
                pass
    await worker


def child(home: Path, origin: str, seed: int) -> None:
    try:
        asyncio.run(work(home, origin, seed))
    except Exception:
        traceback.print_exc()
        raise
    finally:
        os._exit(3)


def main() -> None:
    home, origin = Path(sys.argv[1]), sys.argv[2]
    for name in SLOW:
        import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(home, origin, int(line))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
