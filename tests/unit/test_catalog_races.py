"""Two that change the store at once: what one has read while it waited for the other counts for nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from corral.errors import ModelNotFound
from corral.kit.disk import LOCK_PAUSE
from support.clocks import HandClock, settle
from support.stores import Store


class Shop:
    """A store whose lock somebody holds until the test lets go; those who wait come in the order in which they did."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.store = Store(folder, clock=self.clock)
        self.partial = folder / "partial" / "sha256-x.part"
        self.needed: set[str] = set()

    async def keep(self) -> frozenset[str]:
        return frozenset(self.needed)

    def paused(self) -> None:
        """An operation that has come so far rests, and would go on from a part."""
        self.partial.parent.mkdir(exist_ok=True)
        self.partial.write_bytes(b"12345")
        self.needed.add("sha256-x")

    async def wait(self, *tasks: asyncio.Task[object]) -> None:
        """Let time pass until all are done."""
        async with asyncio.timeout(30):
            while not all(task.done() for task in tasks):
                await self.clock.advance(LOCK_PAUSE)


@pytest.fixture
async def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "models")
    await shop.store.through("m", 0)
    return shop


async def test_what_an_operation_has_come_to_need_while_garbage_waited_stays(shop: Shop) -> None:
    async with shop.store._blobs.locked():
        collecting = asyncio.create_task(shop.store.gc(keep=shop.keep))
        await settle()
        shop.paused()
    await shop.wait(collecting)
    assert collecting.result().parts == 0
    assert shop.partial.exists()


async def test_what_another_has_come_to_need_while_a_cancelled_one_waited_stays(shop: Shop) -> None:
    async with shop.store._blobs.locked():
        discarding = asyncio.create_task(shop.store.discard({"sha256-x"}, shop.keep))
        await settle()
        shop.paused()
    await shop.wait(discarding)
    assert discarding.exception() is None
    assert shop.partial.exists()


async def test_two_that_say_something_of_a_model_at_once_are_both_heard(shop: Shop) -> None:
    async with shop.store._blobs.locked():
        first = asyncio.create_task(shop.store.set_override("m", {"context_length": 5}))
        await settle()
        second = asyncio.create_task(shop.store.change_override("m", lambda said: {**said, "runtime": "vllm"}))
        await settle()
    await shop.wait(first, second)
    assert shop.store.override("m") == {"context_length": 5, "runtime": "vllm"}


async def test_nothing_is_said_of_a_model_that_was_removed_meanwhile(shop: Shop) -> None:
    async with shop.store._blobs.locked():
        removing = asyncio.create_task(shop.store.remove("m"))
        await settle()
        saying = asyncio.create_task(shop.store.set_override("m", {"context_length": 5}))
        await settle()
    await shop.wait(removing, saying)
    assert removing.exception() is None
    assert isinstance(saying.exception(), ModelNotFound)
    await shop.store.through("m", 0)
    assert shop.store.override("m") == {}
