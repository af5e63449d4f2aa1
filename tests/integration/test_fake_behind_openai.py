"""The openai runtime against a server that is there, is ill, or is not there."""

import asyncio
import os

import pytest

from corral.domain.ports import LaunchSpec, silent
from corral.runtimes.fake import Fake, FakeOptions
from corral.runtimes.openai import OpenAI, OpenAIOptions


@pytest.fixture
async def reach():
    """Starts a fake engine with a script and reaches it through the openai runtime."""
    started = []

    async def start(key=None, **script):
        engine = await Fake(os.environ).start(LaunchSpec("fakey", FakeOptions(**script)), silent)
        started.append(engine)
        right = engine.endpoint.headers["Authorization"].removeprefix("Bearer ")
        options = OpenAIOptions(base_url=engine.endpoint.url, api_key_env="THE_KEY")
        return await OpenAI({"THE_KEY": key or right}).start(LaunchSpec("remote", options), silent)

    yield start
    for engine in started:
        await engine.stop(5)


async def test_a_server_that_answers_is_well(reach):
    assert await (await reach()).healthy()


async def test_a_server_that_refuses_the_key_is_there(reach):
    assert await (await reach(key="wrong")).healthy()


async def test_a_server_that_takes_no_connection_is_not_well(reach):
    assert not await (await reach(fault="refuse")).healthy()


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", True),
        (b"not http\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_what_counts_is_that_it_answers(answer, well):
    async def respond(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = OpenAIOptions(base_url=f"http://127.0.0.1:{port}/v1")
        session = await OpenAI({}).start(LaunchSpec("remote", options), silent)
        assert await session.healthy() is well
