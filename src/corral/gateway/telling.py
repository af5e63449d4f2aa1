"""What is told as it happens, to whoever listens: over a WebSocket, or as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson

from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from corral.kit.relay import Receive, Send


async def tell(
    messages: AsyncGenerator[Mapping[str, Any] | None, None],
    leaving: asyncio.Event,
    receive: Receive,
    send: Send,
    accepted: str | None,
) -> None:
    """Accept a WebSocket and send each message as JSON, until they end, the client has left, or the server leaves.

    A message that is None is no more than a sign of life, and not sent. What the client says is not listened to; it is
    read, so that it can be dropped. `accepted` is the protocol that is answered with. The messages are closed in every
    case.
    """
    await send({"type": "websocket.accept", "subprotocol": accepted})
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        async with aclosing(messages):
            while not gone.done():
                step = asyncio.ensure_future(_next(messages))
                try:
                    await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    idle = not step.done()
                    if idle:  # also when this is cancelled: messages that are being waited for cannot be closed
                        step.cancel()
                        await asyncio.wait({step})
                if idle:
                    return
                message = step.result()
                if message is None:
                    break
                await send({"type": "websocket.send", "text": orjson.dumps(message).decode()})
        if not gone.done():
            await send({"type": "websocket.close", "code": 1001 if leaving.is_set() else 1000})
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


async def _next(messages: AsyncIterator[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """The next message; None when there are no more."""
    async for message in messages:
        if message is not None:
            return message
    return None
