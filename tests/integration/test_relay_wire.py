"""The server's protocol: what a client's socket sees of a response's two messages, and how long one may rest."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from corral.gateway.wire import Joining, Protocol, hurry


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end in a loop of the kind, within a minute."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, 60))


class Kernel:
    """A transport that notes each write."""

    def __init__(self):
        self.writes = []
        self.closing = False

    def write(self, data):
        assert not self.closing
        self.writes.append(bytes(data))

    def writelines(self, parts):
        self.write(b"".join(parts))

    def close(self):
        self.closing = True

    def is_closing(self):
        return self.closing

    def get_extra_info(self, name):
        return name

    def pause_reading(self):
        self.writes.append("paused")

    def resume_reading(self):
        self.writes.append("resumed")


async def turn():
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(passed.set_result, None)
    await passed


def joining():
    kernel = Kernel()
    return kernel, Joining(kernel, asyncio.get_running_loop())


def test_head_and_body_are_one_write_and_what_follows_is_written_at_once(run):
    async def main():
        kernel, wire = joining()
        wire.write(b"HTTP/1.1 200 OK\r\n\r\n")
        assert kernel.writes == []
        wire.write(b"body")
        wire.write(b"more")
        await turn()
        assert kernel.writes == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]

    run(main())


def test_a_head_without_a_body_goes_out_in_the_next_turn(run):
    async def main():
        kernel, wire = joining()
        wire.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await turn()
        assert kernel.writes == [b"HTTP/1.1 200 OK\r\n\r\n"]

    run(main())


def test_closing_writes_the_head_first_and_nothing_afterwards(run):
    async def main():
        kernel, wire = joining()
        wire.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        wire.close()
        assert kernel.writes == [b"HTTP/1.1 204 No Content\r\n\r\n"]
        kernel, wire = joining()
        wire.write(b"HTTP/1.1 200 OK\r\n\r\n")
        kernel.close()
        await turn()
        assert kernel.writes == []
        assert wire.is_closing()

    run(main())


def test_everything_else_is_the_transport_s_own(run):
    async def main():
        kernel, wire = joining()
        assert wire.get_extra_info("peername") == "peername"
        wire.pause_reading()
        wire.resume_reading()
        assert kernel.writes == ["paused", "resumed"]

    run(main())


KEPT = 75
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Wire(Kernel):
    """A connection's transport, of which nothing is known."""

    def get_extra_info(self, name):
        return None


async def answering(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def connected():
    """A connection, its transport, and that the loop has come round often enough for an answer."""
    config = uvicorn.Config(answering, http=Protocol, ws=None, lifespan="off", log_config=None, timeout_keep_alive=KEPT)
    config.load()
    protocol, wire = Protocol(config, ServerState(), {}), Wire()
    protocol.connection_made(wire)

    async def ask(data=REQUEST):
        protocol.data_received(data)
        for _ in range(5):
            await turn()

    return protocol, wire, ask


def test_a_connection_at_rest_is_closed_when_its_time_is_over(run):
    async def main():
        protocol, wire, ask = await connected()
        for _ in range(2):
            await ask()
        assert sum(b"200 OK" in each for each in wire.writes) == 2
        ended = asyncio.get_running_loop().time()
        hurry([protocol], ended + KEPT - 1, 10.0)
        assert not wire.closing
        hurry([protocol], ended + KEPT + 1, 10.0)
        assert wire.closing

    run(main())


def test_a_connection_that_begins_to_ask_is_not_at_rest_and_is_told_what_it_owes(run):
    async def main():
        protocol, wire, ask = await connected()
        await ask()
        await ask(REQUEST[:20])
        now = asyncio.get_running_loop().time()
        hurry([protocol], now + KEPT + 1, 1000.0)
        assert not wire.closing
        hurry([protocol], now + KEPT + 1, 10.0)
        assert wire.closing
        assert b" 408 " in wire.writes[-1]

    run(main())


def test_a_connection_whose_answer_is_under_way_is_left_alone(run):
    async def main():
        protocol, wire, ask = await connected()
        await ask()
        protocol.data_received(REQUEST)
        hurry([protocol], asyncio.get_running_loop().time() + 10 * KEPT, 10.0)
        assert not wire.closing
        for _ in range(5):
            await turn()
        assert protocol.idle_since is not None

    run(main())
