"""Answers and messages whose reader, or whose server, goes away in an awkward moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from typing import Any

import pytest

from corral.domain.callers import LOCAL
from corral.domain.generation import GenerationConfig
from corral.gateway.api import runtime
from corral.gateway.api.streaming import Streaming
from corral.gateway.telling import tell
from support.clocks import settle


class Stream:
    """An engine's answer that never comes to its end."""

    closed = False

    async def texts(self) -> AsyncGenerator[str, None]:
        yield "a"
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


class Generator:
    """Has one stream."""

    def __init__(self) -> None:
        self.stream = Stream()

    async def open(self, *_: Any, **__: Any) -> Stream:
        return self.stream


async def never() -> MutableMapping[str, Any]:
    await asyncio.Event().wait()
    return {}


async def test_a_client_that_left_before_the_head_could_be_sent_does_not_keep_the_engine_busy() -> None:
    generator: Any = Generator()
    answer = Streaming(runtime._generated(generator, "m", GenerationConfig("x"), None, LOCAL))

    async def send(_: MutableMapping[str, Any]) -> None:
        raise OSError("the client is gone")

    with pytest.raises(OSError, match="gone"):
        await answer({"type": "http"}, never, send)
    assert generator.stream.closed


async def test_messages_are_closed_when_the_server_gives_up_on_a_websocket_that_waits() -> None:
    closed = asyncio.Event()
    sent: list[MutableMapping[str, Any]] = []

    async def messages() -> AsyncGenerator[Mapping[str, Any] | None, None]:
        try:
            yield {"n": 1}
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    telling = asyncio.create_task(tell(messages(), asyncio.Event(), never, send, None))
    await settle()
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert closed.is_set()
