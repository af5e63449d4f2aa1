"""Operations towards clients: the one JSON they have, its changes as a stream, and the WebSocket that tells them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson

from corral.domain.operations import describe
from corral.errors import CorralError, OperationNotFound

if TYPE_CHECKING:
    from corral.domain.operations import Operation
    from corral.gateway.workshop import Workshop
    from corral.kit.relay import Receive, Send
    from corral.operations.durable import Operations

_ID = re.compile(r"[\w\-]{1,64}", re.ASCII)

HEARTBEAT = 15.0
"""Seconds of silence after which a stream says that it is still there."""


async def changes(
    operations: Operations, operation_id: str, leaving: asyncio.Event, heartbeat: float = HEARTBEAT
) -> AsyncGenerator[Operation | None, None]:
    """The operation as it changes, until it has ended or the server leaves; None for `heartbeat` seconds of silence."""
    watch = operations.watch(operation_id)
    left = asyncio.ensure_future(leaving.wait())
    step: asyncio.Future[Operation] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(watch))
            waiting: set[asyncio.Future[Any]] = {step, left}
            await asyncio.wait(waiting, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                try:
                    operation = step.result()
                except StopAsyncIteration:
                    return
                step = None
                yield operation
            elif left.done():
                return
            else:
                yield None
    finally:
        left.cancel()
        if step is not None:
            step.cancel()
            await asyncio.wait({step})
        if isinstance(watch, AsyncGenerator):
            await watch.aclose()


async def converse(workshop: Workshop, operation_id: str, receive: Receive, send: Send, accepted: str | None) -> None:
    """Tell a WebSocket's client of the operation until that has ended, the client has left, or the server leaves.

    What the client says is not listened to; each message is read, so that it can be dropped.

    Raises:
        OperationNotFound: there is none; nothing has been accepted.
    """
    operations = await find(workshop, operation_id)
    await operations.get(operation_id)
    await send({"type": "websocket.accept", "subprotocol": accepted})
    gone = asyncio.ensure_future(_until_gone(receive))
    stream = changes(operations, operation_id, workshop.leaving, heartbeat=3600)
    try:
        async with aclosing(stream):
            while not gone.done():
                step = asyncio.ensure_future(_next(stream))
                await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    await asyncio.wait({step})
                    return
                operation = step.result()
                if operation is None:
                    break
                await send({"type": "websocket.send", "text": orjson.dumps(describe(operation)).decode()})
        if not gone.done():
            code = 1001 if workshop.leaving.is_set() else 1000
            await send({"type": "websocket.close", "code": code})
    except OSError:
        return  # the client left while it was told
    except CorralError as error:  # it was accepted, so that there is no status any more to say this with
        await send({"type": "websocket.close", "code": 1011, "reason": error.code})
    finally:
        gone.cancel()
        await asyncio.wait({gone})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _next(stream: AsyncIterator[Operation | None]) -> Operation | None:
    """The next change; None when there are no more."""
    async for operation in stream:
        if operation is not None:
            return operation
    return None


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
