"""What is streamed of containers: items as events, signs of life, and errors where they can still be a status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from corral.errors import ContainerNotFound, CorralError, DockerUnavailable
from corral.gateway.api.containers_live import stream
from corral.gateway.progress import paced


class Workshop:
    """As much of the workshop as a stream looks at."""

    def __init__(self) -> None:
        self.leaving = asyncio.Event()


async def saying(*items: dict[str, Any] | CorralError) -> AsyncIterator[dict[str, Any]]:
    for item in items:
        if isinstance(item, CorralError):
            raise item
        yield item


class Endless:
    """Says nothing, until it is closed."""

    def __init__(self) -> None:
        self.closed = False

    async def run(self) -> AsyncIterator[dict[str, Any]]:
        try:
            await asyncio.Event().wait()
            yield {}
        finally:
            self.closed = True


def told(piece: bytes) -> Any:
    assert piece.startswith(b"data: ")
    assert piece.endswith(b"\n\n")
    return json.loads(piece[6:])


async def test_each_item_is_an_event() -> None:
    workshop: Any = Workshop()
    pieces = [told(piece) async for piece in stream(saying({"n": 1}, {"n": 2}), workshop, dict)]

    assert pieces == [{"n": 1}, {"n": 2}]


async def test_what_fails_at_once_is_raised() -> None:
    workshop: Any = Workshop()
    with pytest.raises(ContainerNotFound):
        await anext(stream(saying(ContainerNotFound("there is none")), workshop, dict))


async def test_what_fails_later_is_an_event() -> None:
    workshop: Any = Workshop()
    error = DockerUnavailable("it is gone", "Start it.")
    pieces = [told(piece) async for piece in stream(saying({"n": 1}, error), workshop, dict)]

    assert pieces[1]["success"] is False
    assert pieces[1]["error"] == {"code": "docker_missing", "message": "it is gone", "hint": "Start it."}


async def test_a_stream_begins_where_nothing_comes_and_ends_with_the_server() -> None:
    workshop: Any = Workshop()
    silent = Endless()
    pieces = stream(silent.run(), workshop, dict)

    assert (await anext(pieces)).startswith(b": ")
    workshop.leaving.set()
    assert [piece async for piece in pieces] == []
    assert silent.closed


async def test_silence_has_signs_of_life() -> None:
    silent = Endless()
    steps = paced(silent.run(), asyncio.Event(), heartbeat=0.01)

    assert [await anext(steps), await anext(steps)] == [None, None]
    await steps.aclose()
    assert silent.closed
