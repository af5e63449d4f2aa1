"""Operations towards clients: the one JSON they have, its changes as a stream, and the WebSocket that tells them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from corral.domain.operations import describe
from corral.errors import OperationNotFound
from corral.gateway.telling import tell

if TYPE_CHECKING:
    from corral.domain.operations import Operation
    from corral.gateway.workshop import Workshop
    from corral.kit.relay import Receive, Send
    from corral.operations.durable import Operations

T = TypeVar("T")

_ID = re.compile(r"[\w\-]{1,64}", re.ASCII)

HEARTBEAT = 15.0
"""Seconds of silence after which a stream says that it is still there."""


async def changes(
    operations: Operations, operation_id: str, leaving: asyncio.Event, heartbeat: float = HEARTBEAT
) -> AsyncGenerator[Operation | None, None]:
    """The operation as it changes, until it has ended or the server leaves; None for `heartbeat` seconds of silence."""
    async with aclosing(paced(operations.watch(operation_id), leaving, heartbeat)) as steps:
        async for operation in steps:
            yield operation


async def paced(
    source: AsyncIterator[T], leaving: asyncio.Event, heartbeat: float = HEARTBEAT, first: float | None = None
) -> AsyncGenerator[T | None, None]:
    """What `source` gives, until it ends or the server leaves; None for `heartbeat` seconds of silence.

    Before anything has come, None is given after `first` seconds, where that is set. The source is always closed.
    """
    left = asyncio.ensure_future(leaving.wait())
    step: asyncio.Future[T] | None = None
    patience = heartbeat if first is None else first
    try:
        while True:
            step = step or asyncio.ensure_future(anext(source))
            waiting: set[asyncio.Future[Any]] = {step, left}
            await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            patience = heartbeat
            if step.done():
                try:
                    item = step.result()
                except StopAsyncIteration:
                    return
                step = None
                yield item
            elif left.done():
                return
            else:
                yield None
    finally:
        left.cancel()
        if step is not None:
            step.cancel()
            await asyncio.wait({step})
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def converse(workshop: Workshop, operation_id: str, receive: Receive, send: Send, accepted: str | None) -> None:
    """Tell a WebSocket's client of the operation until that has ended, the client has left, or the server leaves.

    Raises:
        OperationNotFound: there is none; nothing has been accepted.
    """
    operations = await find(workshop, operation_id)
    await operations.get(operation_id)
    told = _told(changes(operations, operation_id, workshop.leaving, heartbeat=3600))
    await tell(told, workshop.leaving, receive, send, accepted)


async def _told(stream: AsyncGenerator[Operation | None, None]) -> AsyncGenerator[dict[str, Any] | None, None]:
    async with aclosing(stream):
        async for operation in stream:
            yield None if operation is None else describe(operation)


async def find(workshop: Workshop, operation_id: str) -> Operations:
    """The operations of this home, which an operation of that name may be among.

    Raises:
        OperationNotFound: it cannot be.
    """
    operations = await workshop.look() if _ID.fullmatch(operation_id) else None
    if operations is None:
        raise OperationNotFound(
            f"There is no operation {operation_id[:100]!r}.", "GET /api/v1/models/operations lists them."
        )
    return operations
