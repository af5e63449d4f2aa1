"""A hundred kills of whole Corrals at their operations: the store stays sound, and every operation comes to an end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from corral.domain.operations import Operation, OperationStatus
from support import models, yard
from support.origin import Asked, Origin, Reply

TESTS = Path(__file__).parent.parent
ROUNDS = 100
VERSIONS = [models.gguf(400_000, seed=seed) for seed in range(3)]
REASONS = {"model_not_found", "conflict", "corrupt_model", "source_error"}


class Changing(Origin):
    """Has another version of every model now and then, and sends each in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.tamper = self.now

    def now(self, asked: Asked) -> Reply | None:
        self.files = {f"/{name}.gguf": VERSIONS[(self.version + i) % 3] for i, name in enumerate(yard.NAMES)}
        reply = self.serve(asked)
        if isinstance(reply.body, bytes):
            reply.body = pieces(reply.body)
        reply.headers["ETag"] = f'"{self.version}"'
        return reply


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]
        await asyncio.sleep(0.002)  # what makes the middle of a download long enough to be hit


@asynccontextmanager
async def nursery(home: Path, origin: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.yard", str(home), origin),
        env=os.environ | {"PYTHONPATH": str(TESTS), "NO_PROXY": "*"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        await child.wait()


async def killed(child: asyncio.subprocess.Process, seed: int, delay: float) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"%d\n" % seed)
    pid = int(await child.stdout.readline())
    await asyncio.sleep(delay)  # the moment of the kill is what is random here
    os.kill(pid, signal.SIGKILL)
    status = int(await child.stdout.readline())
    assert status == -signal.SIGKILL, f"the process with seed {seed} failed by itself"


async def history(corral: yard.Corral) -> list[Operation]:
    found: list[Operation] = []
    while page := await corral.catalog.operations.page(200, before=found[-1].id if found else None):
        found += page
    return found


@pytest.mark.timeout(600)
async def test_a_hundred_kills_leave_a_sound_store_and_no_operation_without_an_end(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    async with Changing() as origin, nursery(tmp_path, origin.host) as child:
        for turn in range(ROUNDS):
            origin.version += chance.random() < 0.3
            await killed(child, seed + turn, chance.uniform(0.05, 0.8))
            store = yard.settings(tmp_path, origin.host).registry
            assert [finding for finding in await store.verify_all() if finding.error] == [], f"seed {seed + turn}"
            assert store.damaged() == {}, f"seed {seed + turn}"
        corral = yard.settings(tmp_path, origin.host)
        worker = asyncio.ensure_future(corral.catalog.operations.run())
        for operation in await history(corral):
            async for _ in corral.catalog.operations.watch(operation.id):
                pass  # until it has ended
        ended = await history(corral)
        worker.cancel()
        await asyncio.wait([worker])
        await corral.registry.gc()
        await corral.close()

    assert all(operation.status.ended for operation in ended)
    failed = [operation for operation in ended if operation.status is OperationStatus.FAILED]
    assert all(operation.error for operation in failed)
    assert {operation.error.code for operation in failed if operation.error} <= REASONS
    kinds = {operation.order.kind for operation in ended if operation.status is OperationStatus.COMPLETED}
    assert kinds >= {"install", "update", "remove", "gc"}, "the test has tried too little"
    assert any(operation.attempts > 1 for operation in ended), "nothing was ever gone on with"
    assert not list((tmp_path / ".corral" / "models" / "partial").glob("*"))
    assert not list((tmp_path / ".corral").rglob("*.tmp"))
