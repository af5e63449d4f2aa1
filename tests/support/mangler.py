"""Processes that change one store without end, made to be killed: each line of input forks one, whose pid is answered.

python -m support.mangler MODELS_DIR OTHER_DISK     input, a line each: SEED STEP

With a STEP over 0 the process kills itself right before its STEPth change of the file system: a rename, a removal, a
link, a file opened for writing. That hits what lies between two changes, where a clock hardly ever does.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import traceback
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
                *[lambda store=store, name=name: store.install(f"memory:{name}")] * 5,
                *[lambda store=store, name=name: store.update(name)] * 3,
                lambda store=store, name=name: store.rollback(name),
                *[lambda store=store, name=name: store.remove(name, force=True)] * 4,
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


def die_at(step: int) -> None:
    """Kill this process right before its change of the file system of that number."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    left = step

    def count(event: str, about: tuple[object, ...]) -> None:
        nonlocal left
        change = event in {"os.rename", "os.remove", "os.symlink", "os.link", "os.mkdir", "os.rmdir", "os.truncate"}
        if change or (event == "open" and isinstance(about[2], int) and about[2] & writing):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def child(folder: Path, disk: Path, seed: int, step: int) -> None:
    try:
        if step:
            die_at(step)
        asyncio.run(mangle(folder, disk, seed))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(3)


def main() -> None:
    folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(folder, disk, *map(int, line.split()))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
