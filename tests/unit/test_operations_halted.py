"""Work that cannot go on for a reason that is not in it rests, and its end is not written before it has been told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.domain.operations import Operation
from corral.domain.operations import OperationStatus as S
from corral.errors import CorralError, DatabaseError, DiskFull
from corral.operations.durable import Halted
from corral.operations.rows import Wish
from support.operations import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, attempts=2)
    yield bench
    await bench.close()


def halted(error: CorralError) -> Halted:
    found = Halted(error.message)
    found.__cause__ = error
    return found


async def test_what_has_no_room_is_paused_with_the_reason_and_goes_on_when_told(bench: Bench) -> None:
    waiting = await bench.order("a")
    async with bench.run():
        await bench.until(lambda: bench.worker.begun)
        bench.worker.fail("a", halted(DiskFull("No room.", "Free some space.")))
        seen, watching = bench.watch(waiting.id)
        await bench.until(lambda: seen and seen[-1].status is S.PAUSED)
        await bench.a_while()
        rests = await bench.operations.get(waiting.id)
        assert (rests.status, rests.error, rests.message) == (S.PAUSED, None, "No room. Free some space.")
        assert bench.worker.begun == ["a"]

        await bench.operations.resume(waiting.id)
        await bench.until(lambda: len(bench.worker.begun) == 2)
        assert (await bench.operations.get(waiting.id)).attempts == 1
        bench.worker.end("a")
        assert (await bench.ended(waiting.id)).status is S.COMPLETED
        await bench.flow(watching)


async def test_a_database_that_is_away_is_tried_again_before_it_is_paused(bench: Bench) -> None:
    waiting = await bench.order("a")
    async with bench.run():
        for tries in (1, 2):
            await bench.until(lambda tries=tries: len(bench.worker.begun) == tries and bench.worker.at_work)
            bench.worker.fail("a", halted(DatabaseError("It is away.", "Bring it back.")))
        seen, watching = bench.watch(waiting.id)
        await bench.until(lambda: seen and seen[-1].status is S.PAUSED)
        assert seen[-1].message == "It is away. Bring it back."
        await bench.operations.cancel(waiting.id)
        await bench.flow(watching)


async def test_what_is_paused_after_it_was_seen_at_work_rests(bench: Bench) -> None:
    """Who looks for what dead processes left reads the rows first, and then takes the lease, which is free by now."""
    waiting = await bench.order("a")
    operations = bench.operations
    async with bench.run():
        await bench.until(lambda: bench.worker.begun)
        seen = (await operations._rows.get(waiting.id)).operation
        assert (seen.status, (await bench.flow(operations.pause(waiting.id))).status) == (S.IN_PROGRESS, S.PAUSED)
    rests = await operations._carry_out(waiting.id, Wish.NONE)
    assert rests is not None
    assert (rests.status, (await operations.get(waiting.id)).status) == (S.PAUSED, S.PAUSED)
    async with bench.run():
        await bench.a_while()
    assert bench.worker.begun == ["a"]


async def test_an_end_that_cannot_be_told_is_not_written(bench: Bench) -> None:
    told: list[S] = []

    async def settle(operation: Operation) -> None:
        told.append(operation.status)
        if len(told) < 3:
            raise DatabaseError("It is away.")

    operations = bench.more(settlers={"install": settle})
    waiting = await bench.order("a")
    async with bench.run(operations):
        await bench.until(lambda: bench.worker.begun)
        bench.worker.end("a")
        await bench.until(lambda: told)
        assert (await operations.get(waiting.id)).status is S.IN_PROGRESS
        assert (await bench.ended(waiting.id, operations)).status is S.COMPLETED
    assert told == [S.COMPLETED] * 3


async def test_nobody_is_told_again_of_what_somebody_is_at(bench: Bench) -> None:
    told: list[S] = []

    async def settle(operation: Operation) -> None:
        told.append(operation.status)

    operations = bench.more(settlers={"install": settle})
    other = bench.more(settlers={"install": settle})
    waiting = await bench.order("a")
    async with bench.run(operations):
        await bench.until(lambda: bench.worker.begun)
        for each in (operations, other):
            await each.tell_again(waiting.id)
        assert told == []
        await bench.flow(operations.pause(waiting.id))
    await other.tell_again(waiting.id)
    assert told == [S.PAUSED] * 2
    async with bench.run(operations):
        await operations.resume(waiting.id)
        await bench.until(lambda: len(bench.worker.begun) == 2)
        bench.worker.end("a")
        await bench.ended(waiting.id, operations)
    await other.tell_again(waiting.id)  # by now whoever was at it has left
    assert told[2:] == [S.PENDING, S.COMPLETED, S.COMPLETED]
