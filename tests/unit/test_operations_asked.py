"""What is asked of an operation while it stops for another reason is done all the same; a stop takes nothing back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from corral.domain.operations import Operation
from corral.domain.operations import OperationStatus as S
from corral.domain.ports import silent
from corral.operations.durable import Work
from support.operations import Bench, Worker


class Tidy(Worker):
    """Cleans up when it is called off, for as long as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.clean = asyncio.Event()

    async def __call__(self, operation: Operation, work: Work) -> Any:
        try:
            return await super().__call__(operation, work)
        finally:
            await self.clean.wait()


class Telling:
    """Is told how operations will stand, and holds up the first such end until the test lets it go."""

    def __init__(self) -> None:
        self.told: list[S] = []
        self.go_on = asyncio.Event()

    async def __call__(self, operation: Operation) -> None:
        self.told.append(operation.status)
        await self.go_on.wait()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


@pytest.mark.parametrize(("ask", "status"), [("cancel", S.CANCELLED), ("pause", S.PAUSED)])
async def test_a_server_that_stops_takes_back_nothing_that_was_asked(bench: Bench, ask: str, status: S) -> None:
    bench.worker = tidy = Tidy()
    first, again = bench.more(), bench.more()
    waiting = await bench.order("a")
    async with bench.run(first) as running:
        await bench.until(lambda: tidy.at_work)
        asking = asyncio.ensure_future(getattr(first, ask)(waiting.id))
        await bench.until(lambda: tidy.cleaned)
        running.cancel()
        asking.cancel()  # who asked leaves with the server
        await bench.a_while()
        tidy.clean.set()
    async with bench.run(again):
        await bench.a_while()
        assert (await again.get(waiting.id)).status is status
    assert tidy.begun == ["a"]


async def test_what_is_called_off_while_its_pause_is_written_is_called_off(bench: Bench) -> None:
    telling = Telling()
    operations = bench.more(settlers={"install": telling})
    async with bench.run(operations):
        waiting = await bench.order("a")
        await bench.until(lambda: bench.worker.at_work)
        bench.worker.at_work["a"].on_part("part")
        pausing = asyncio.ensure_future(operations.pause(waiting.id))
        await bench.until(lambda: telling.told)
        cancelling = asyncio.ensure_future(operations.cancel(waiting.id))
        await asyncio.sleep(0)
        telling.go_on.set()
        await bench.flow(pausing)
        assert (await bench.flow(cancelling)).status is S.CANCELLED
    assert bench.discarded == [frozenset({"part"})]


async def test_what_is_paused_while_the_server_stops_it_rests_afterwards(bench: Bench) -> None:
    telling = Telling()
    operations = bench.more(settlers={"install": telling})
    async with bench.run(operations) as running:
        waiting = await bench.order("a")
        await bench.until(lambda: bench.worker.at_work)
        running.cancel()
        await bench.until(lambda: telling.told)
        pausing = asyncio.ensure_future(operations.pause(waiting.id))
        await asyncio.sleep(0)
        telling.go_on.set()
        assert (await bench.flow(pausing)).status is S.PAUSED


async def test_a_server_that_stops_in_the_moment_it_begins_one_costs_no_try(bench: Bench) -> None:
    waiting = await bench.order("a")
    operations = bench.operations
    beginning = asyncio.ensure_future(operations._begin(waiting.id, silent))
    lease = bench.home / "operations" / f"{waiting.id}.lock"
    while not lease.exists():
        await asyncio.sleep(0)
    beginning.cancel()  # it is being written down that it is at work
    await asyncio.wait([beginning])
    assert beginning.cancelled()
    assert not lease.exists()
    found = await operations.get(waiting.id)
    assert (found.status, found.attempts) == (S.PENDING, 0)
    async with bench.run():
        await bench.until(lambda: bench.worker.at_work)
        assert (await operations.get(waiting.id)).attempts == 1
