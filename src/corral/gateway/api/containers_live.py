"""`/api/v1/containers`, live: logs, figures and changes as server-sent events, for as long as somebody listens.

    {"text", "at", "error"}                             a line of a log
    {"at", "cpu", "memory", …}                          what a container takes
    {"type": "snapshot", "at", "containers": […]}       how all stand, first of all
    {"type": "container", "container": {…}}             how one stands now
    {"type": "happening", "at", "name", "what", …}      what happened
    {"success": false, "error": {…}}                    why there is no more

Times in Unix seconds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from corral.domain.containers import Happening, Standing, describe
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

    def told(change: Standing | Happening) -> dict[str, Any]:
        if isinstance(change, Standing):
            return {"type": "container", "container": describe(change, corral.clock.wall())}
        return {"type": "happening", **asdict(change)}

    changes = corral.fleet.changes()
    now = corral.clock.wall()
    standing = [describe(one, now) for one in await corral.fleet.list()]
    yield b": corral\n\n" + _event({"type": "snapshot", "at": now, "containers": standing})
    async with aclosing(stream(changes, workshop, told)) as pieces:
        async for piece in pieces:
            yield piece


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
