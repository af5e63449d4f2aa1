"""Processes that change one store without end, made to be killed: each line of input forks one, whose pid is answered.

python -m support.mangler MODELS_DIR OTHER_DISK     input: a seed a line
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.catalog.usage import Limits
from corral.errors import CorralError
from corral.kit.clock import SystemClock
from support import models
from support.sources import MemorySource

SHARED = models.gguf(20_000, seed=99)
VERSIONS = [models.gguf(5_000, seed=seed) for seed in range(4)]
NAMES = ("a", "b", "c")


def registry(folder: Path, version: int = 0) -> Registry:
    """The store, with a source in which everything has that version."""
    eyes = models.gguf(seed=7, general__architecture="clip")
    files = {name: {f"{name}.gguf": VERSIONS[version], "mmproj.gguf": eyes} for name in NAMES}
    source = MemorySource({**files, "shared": {"shared.gguf": SHARED}, "twin": {"shared.gguf": SHARED}}, block=30_000)
    source.version = str(version)
    return Registry(folder, {"memory": source}, SystemClock(), Library(()), limits=Limits(keep_revisions=2))


async def mangle(folder: Path, disk: Path, seed: int) -> None:
    """Install, update, roll back, pin, move, collect and remove, in an order that the seed decides."""
    chance = random.Random(seed)
    while True:
        store = registry(folder, chance.randrange(len(VERSIONS)))
        name = chance.choice((*NAMES, "shared", "twin"))
        work = chance.choice(
            [
                *[lambda store=store, name=name: store.install(f"memory:{name}")] * 3,
                *[lambda store=store, name=name: store.update(name)] * 3,
                lambda store=store, name=name: store.rollback(name),
                lambda store=store, name=name: store.remove(name, force=True),
                *[lambda store=store: store.gc()] * 2,
                lambda store=store, name=name: store.pin(name),
                lambda store=store, name=name: store.unpin(name),
                lambda store=store, name=name: store.set_override(name, {"context_length": 7}),
                *[lambda store=store, name=name: store.move(name, disk)] * 2,
                lambda store=store, name=name: store.move(name, None),
            ]
        )
        try:
            await work()
        except CorralError as error:
            if error.http_status not in {404, 409, 422}:
                raise


def child(folder: Path, disk: Path, seed: int) -> None:
    try:
        asyncio.run(mangle(folder, disk, seed))
    finally:
        os._exit(3)


def main() -> None:
    folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(folder, disk, int(line))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
