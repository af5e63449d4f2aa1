"""Several things at once: a few at a time, and none left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

Q = TypeVar("Q")
A = TypeVar("A")

_AT_ONCE = 8


async def gathered(ask: Callable[[Q], Awaitable[A]], about: Sequence[Q]) -> list[A]:
    """What was asked about each, in their order, eight at a time."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(what: Q) -> A:
        async with room:
            return await ask(what)

    return list(await asyncio.gather(*(one(what) for what in about)))


async def all_done(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Do all of them; when cancelled, or one of them breaks, the others are ended first."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
