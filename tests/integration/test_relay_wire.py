"""The server's protocol: what a client's socket sees of a response's two messages, on both loops."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from corral.gateway.wire import Joining


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
