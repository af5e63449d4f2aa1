"""`/api/v1/containers`, live: logs, figures and changes as server-sent events, for as long as somebody listens.

    {"text", "at", "error"}                             a line of a log
    {"at", "cpu", "memory", …}                          what a container takes
    {"type": "snapshot", "at", "containers": […]}       how all stand, first of all
    {"type": "container", "at", "container": {…}}       how one stands now
    {"type": "container_event", "at", "name", …}        what happened
    {"success": false, "error": {…}}                    why there is no more

Times in Unix seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from corral.domain.standings import describe
from corral.errors import CorralError
from corral.gateway.envelope import envelope
from corral.gateway.progress import paced

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.gateway.workshop import Workshop

T = TypeVar("T")

_FIRST = 0.25
"""Seconds in which what cannot be had is told by a status; afterwards the stream begins, and an event tells it."""


async def events(corral: Corral, workshop: Workshop) -> AsyncGenerator[bytes, None]:
    """How all containers stand, and then each change."""
    changes = corral.fleet.feed()
    first = asyncio.ensure_future(anext(changes))
    try:
        await asyncio.sleep(0)  # now it listens, so that nothing is missed between the list and the changes
        now = corral.clock.wall()
        standing = [describe(one, now) for one in await corral.fleet.list()]
        yield b": corral\n\n" + _event({"type": "snapshot", "at": now, "containers": standing})
        async with aclosing(stream(_all(first, changes), workshop, dict)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        first.cancel()
        await asyncio.wait({first})


async def _all(first: asyncio.Future[T], rest: AsyncIterator[T]) -> AsyncIterator[T]:
    """What `first` will be, and then the rest."""
    try:
        yield await first
    except StopAsyncIteration:
        return
    async for item in rest:
        yield item


async def stream(
    source: AsyncIterator[T], workshop: Workshop, told: Callable[[T], Mapping[str, Any]]
) -> AsyncGenerator[bytes, None]:
    """Each item of `source` as an event, and signs of life between them; an error ends it with one that says why.

    Raises:
        CorralError: it failed at once, so that it can still be said by a status.
    """
    begun = False
    try:
        async with aclosing(paced(source, workshop.leaving, first=_FIRST)) as steps:
            async for item in steps:
                begun = True
                yield b": still here\n\n" if item is None else _event(told(item))
    except CorralError as error:
        if not begun:
            raise
        yield _event(envelope(error))


def _event(content: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"
