"""The upstream client against servers that play exact bytes, on both loops."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import uvloop

from corral.errors import InvalidRequest, UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from corral.kit.http1 import HEAD_LIMIT, HIGH_WATER
from corral.kit.upstream import Target, Timeouts, Upstream

PATIENT = Timeouts(connect=20, first_byte=20, between=20)
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-Colour: Red\r\n\r\nhello"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end in a loop of the kind, within a minute."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, 60))


@dataclass
class Stub:
    """A server whose handler plays bytes; it counts connections and keeps the requests it read."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    stalled_at: int | None = None

    @property
    def target(self):
        return Target.of(f"http://127.0.0.1:{self.port}/v1", {"authorization": "Bearer s3cret"})

    async def read_request(self, reader):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"content-length:")), 0)
        body = await reader.readexactly(length)
        self.requests.append(head + body)
        return body


async def turn():
    """Let everything else that is ready run once."""
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(passed.set_result, None)
    await passed


@asynccontextmanager
async def served(handler):
    """A stub whose `handler(stub, reader, writer)` is run for each connection; a client that leaves it is no error."""
    stub = Stub()
    tasks = set()

    async def accept(reader, writer):
        tasks.add(asyncio.current_task())
        stub.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(stub, reader, writer)
        finally:
            stub.ended.set()
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    stub.port = server.sockets[0].getsockname()[1]
    try:
        yield stub
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def client(**options):
    upstream = Upstream(**options)
    try:
        yield upstream
    finally:
        await upstream.close()


def playing(*answers, then_close=False):
    """A handler that answers the requests of a connection with these bytes, in turn, the last one for ever."""

    async def handler(stub, reader, writer):
        turn = 0
        while True:
            await stub.read_request(reader)
            writer.write(answers[min(turn, len(answers) - 1)])
            await writer.drain()
            turn += 1
            if then_close:
                writer.write_eof()
                await reader.read()
                return

    return handler


async def fetch(upstream, stub, method="POST", path="/chat", **options):
    response = await upstream.request(stub.target, method, path, timeouts=PATIENT, **options)
    return response, await response.read()


def test_an_answer_and_what_was_asked(run):
    async def main():
        async with served(playing(HELLO)) as stub, client() as upstream:
            response = await upstream.request(
                stub.target, "POST", "/chat?a=1", headers=[(b"X-One", b"1")], body=b"question", timeouts=PATIENT
            )
            assert (response.status, response.content_length, response.whole) == (200, 5, True)
            assert response.headers == [(b"content-length", b"5"), (b"x-colour", b"Red")]
            assert response.header(b"x-colour") == b"Red"
            assert response.header(b"x-none") is None
            assert await response.read() == b"hello"
            assert await response.read() == b""
            lines = stub.requests[0].split(b"\r\n")
            assert lines[0] == b"POST /v1/chat?a=1 HTTP/1.1"
            assert set(lines[1:-2]) == {
                b"host: 127.0.0.1:%d" % stub.port,
                b"user-agent: corral",
                b"authorization: Bearer s3cret",
                b"X-One: 1",
                b"content-length: 8",
            }
            assert lines[-1] == b"question"

    run(main())


FRAMINGS = {
    "length": (HELLO, b"hello"),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"hello world",
    ),
    "extensions and trailers": (
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"
            b'5;name="v"\r\nhello\r\n0;last\r\nX-T: 1\r\nX-U: 2\r\n\r\n'
        ),
        b"hello",
    ),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + HELLO, b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_every_framing_split_at_every_byte(run, name):
    raw, body = FRAMINGS[name]

    async def handler(stub, reader, writer):
        writer.transport.set_write_buffer_limits(0)
        cut = -1
        while True:
            await stub.read_request(reader)
            cut += 1  # the whole first, then a cut behind every byte
            for piece in filter(None, (raw[:cut], raw[cut:])):
                writer.write(piece)
                await writer.drain()
                await turn()

    async def main():
        async with served(handler) as stub, client() as upstream:
            for _ in range(len(raw) + 1):
                response, got = await fetch(upstream, stub)
                assert got == body
                assert b"x-t" not in dict(response.headers)
            assert stub.connections == 1

    run(main())


def test_a_body_that_ends_with_the_connection(run):
    raw = b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it"

    async def main():
        async with served(playing(raw, then_close=True)) as stub, client() as upstream:
            response, body = await fetch(upstream, stub)
            assert body == b"all of it"
            assert response.whole
            assert (await fetch(upstream, stub))[1] == b"all of it"
            assert stub.connections == 2

    run(main())


def test_head_has_no_body_and_its_connection_is_not_used_again(run):
    async def main():
        async with served(playing(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")) as stub, client() as upstream:
            response, body = await fetch(upstream, stub, method="HEAD")
            assert (response.content_length, body) == (500, b"")
            await fetch(upstream, stub, method="HEAD")
            assert stub.connections == 2

    run(main())


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "length and chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "bad length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "bare 101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "no status": b"HTTP/1.1 700 Fine\r\ncontent-length: 0\r\n\r\n",
    "long head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * HEAD_LIMIT + b"\r\ncontent-length: 0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x-more: 1\r\n" * 8000,
    "endless interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_and_never_asked_twice(run, name):
    async def main():
        async with served(playing(GARBAGE[name])) as stub, client() as upstream:
            with pytest.raises(UpstreamProtocol, match=f"127.0.0.1:{stub.port}") as caught:
                await fetch(upstream, stub)
            assert "s3cret" not in str(caught.value)
            assert (stub.connections, len(stub.requests)) == (1, 1)

    run(main())


@pytest.mark.parametrize(
    "flood", [b"5;" + b"x" * 16 * HEAD_LIMIT, b"0\r\nx-t: " + b"y" * 16 * HEAD_LIMIT], ids=["ext", "trailer"]
)
def test_an_endless_extension_or_trailer_is_refused_in_the_middle_of_the_body(run, flood):
    async def main():
        raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n" + flood
        async with served(playing(raw)) as stub, client() as upstream:
            response = await upstream.request(stub.target, "POST", "/chat", timeouts=PATIENT)
            with pytest.raises(UpstreamProtocol, match="bytes of head"):
                await response.read()

    run(main())


@pytest.mark.parametrize("extra", [HELLO, b"HTTP/1.1 2", b"garbage"], ids=["answer", "part", "garbage"])
def test_bytes_after_the_answer_are_never_the_next_ones(run, extra):
    async def main():
        async with served(playing(HELLO + extra)) as stub, client() as upstream:
            for _ in range(2):
                assert (await fetch(upstream, stub))[1] == b"hello"
            assert stub.connections == 2

    run(main())


def test_bytes_on_an_idle_connection_close_it(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(HELLO)
        await stub.go.wait()
        writer.write(HELLO.replace(b"hello", b"wrong"))
        await reader.read()  # until it is closed on us

    async def main():
        async with served(handler) as stub, client() as upstream:
            assert (await fetch(upstream, stub))[1] == b"hello"
            stub.go.set()
            await stub.ended.wait()
            assert (await fetch(upstream, stub))[1] == b"hello"
            assert stub.connections == 2

    run(main())


def test_a_connection_is_used_again_unless_told_otherwise(run):
    async def main():
        closing = HELLO.replace(b"X-Colour: Red", b"Connection: close")
        async with served(playing(HELLO, HELLO, closing)) as stub, client() as upstream:
            for _ in range(4):
                assert (await fetch(upstream, stub))[1] == b"hello"
            assert stub.connections == 2

    run(main())


def test_a_stale_connection_is_tried_once_more_on_a_fresh_one(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(HELLO)
        await reader.readuntil(b"\r\n\r\n")  # the next request arrives, and dies with the connection
        stub.requests.append(b"lost")

    async def main():
        async with served(handler) as stub, client() as upstream:
            for _ in range(2):
                assert (await fetch(upstream, stub, body=b"again"))[1] == b"hello"
            assert stub.connections == 2
            assert [r.rpartition(b"\r\n")[2] for r in stub.requests] == [b"again", b"lost", b"again"]

    run(main())


def test_a_fresh_connection_that_dies_is_not_tried_again(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)

    async def main():
        async with served(handler) as stub, client() as upstream:
            with pytest.raises(UpstreamUnreachable, match="closed without an answer"):
                await fetch(upstream, stub)
            assert stub.connections == 1

    run(main())


def test_a_stale_connection_that_answered_a_byte_is_not_tried_again(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(HELLO)
        await stub.read_request(reader)
        writer.write(b"H")
        await writer.drain()

    async def main():
        async with served(handler) as stub, client() as upstream:
            await fetch(upstream, stub)
            with pytest.raises(UpstreamUnreachable, match="before the answer was whole"):
                await fetch(upstream, stub)
            assert (stub.connections, len(stub.requests)) == (1, 2)

    run(main())


@pytest.mark.parametrize("framing", [b"content-length: 50", b"transfer-encoding: chunked"])
def test_a_truncated_body_gives_what_came_and_then_the_error(run, framing):
    async def main():
        raw = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n"
        async with served(playing(raw, then_close=True)) as stub, client() as upstream:
            response = await upstream.request(stub.target, "POST", "/chat", timeouts=PATIENT)
            assert b"hello" in await anext(response)
            with pytest.raises(UpstreamUnreachable, match="closed before the answer was whole"):
                await response.read()
            assert not response.whole

    run(main())


def test_time_outs_for_the_head_between_pieces_and_for_the_whole(run):
    async def silent(stub, reader, writer):
        await stub.read_request(reader)
        await reader.read()

    async def stalling(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(HELLO[:-1])
        await reader.read()

    async def main():
        async with client() as upstream:
            async with served(silent) as stub:
                with pytest.raises(UpstreamTimeout, match=r"did not begin to answer within 0.03 s"):
                    await upstream.request(stub.target, "GET", "/", timeouts=Timeouts(first_byte=0.03))
                await stub.ended.wait()
            for limits, said in (
                (Timeouts(first_byte=9, between=0.03), "sent nothing for 0.03 s"),
                (Timeouts(first_byte=9, between=9, total=0.03), "did not finish within 0.03 s"),
            ):
                async with served(stalling) as stub:
                    with pytest.raises(UpstreamTimeout, match=said):
                        await (await upstream.request(stub.target, "GET", "/", timeouts=limits)).read()
                    await stub.ended.wait()

    run(main())


def test_a_body_that_keeps_coming_does_not_time_out(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        stub.steps = [asyncio.get_running_loop().time()]
        while stub.steps[-1] < stub.steps[0] + 0.5:  # over twice the limit, in steps far under it
            stub.steps.append(asyncio.get_running_loop().time())
            writer.write(b"1\r\nx\r\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.02)
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async def main():
        async with served(handler) as stub, client() as upstream:
            limits, found = Timeouts(first_byte=9, between=0.2), b""
            while not found:
                try:
                    found = await (await upstream.request(stub.target, "GET", "/", timeouts=limits)).read()
                except UpstreamTimeout:
                    steps = [*stub.steps, asyncio.get_running_loop().time()]
                    # Unless the machine itself stood still, no step was long.
                    assert max(after - before for before, after in pairwise(steps)) > 0.1
            assert set(found) == {ord("x")}

    run(main())


def test_cancelling_at_any_wait_closes_the_connection(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        stub.go.set()
        if len(stub.requests) > 1:
            writer.write(HELLO[:-1])
        await reader.read()

    async def main():
        async with served(handler) as stub, client() as upstream:
            asking = asyncio.ensure_future(upstream.request(stub.target, "GET", "/", timeouts=PATIENT))
            await stub.go.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await stub.ended.wait()
            stub.ended.clear()
            response = await upstream.request(stub.target, "GET", "/", timeouts=PATIENT)
            assert await anext(response) == b"hell"
            reading = asyncio.ensure_future(response.read())
            await turn()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await stub.ended.wait()
            with pytest.raises(UpstreamUnreachable, match="closed before it was whole"):
                await response.read()

    run(main())


def test_closing_an_unfinished_answer_aborts_and_a_finished_one_does_not(run):
    async def main():
        async with served(playing(HELLO, HELLO[:-1])) as stub, client() as upstream:
            response = await upstream.request(stub.target, "GET", "/", timeouts=PATIENT)
            await response.aclose()
            assert not stub.ended.is_set()
            response = await upstream.request(stub.target, "GET", "/", timeouts=PATIENT)
            response.close()
            response.close()
            await stub.ended.wait()
            assert stub.connections == 1

    run(main())


def test_a_slow_reader_holds_the_sender_back(run):
    total = 64 * 1024 * 1024

    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.transport.set_write_buffer_limits(64 * 1024)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        sent = 0
        while sent < total:
            piece = min(256 * 1024, total - sent)
            writer.write(bytes(piece))
            sent += piece
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                stub.stalled_at = stub.stalled_at or sent
                stub.go.set()
                await writer.drain()
        await reader.read()

    async def main():
        async with served(handler) as stub, client() as upstream:
            response = await upstream.request(stub.target, "GET", "/", timeouts=Timeouts(first_byte=9, between=0.2))
            await stub.go.wait()
            assert stub.stalled_at < total  # and the long pause was ours, so it is no time-out
            assert response._size <= HIGH_WATER + 512 * 1024
            size = 0
            async for chunk in response:
                size += len(chunk)
            assert size == total

    run(main())


def test_a_large_request_body_arrives_whole(run):
    body = bytes(range(256)) * 40_000

    async def main():
        async with served(playing(HELLO)) as stub, client() as upstream:
            for _ in range(2):
                assert (await fetch(upstream, stub, body=body))[1] == b"hello"
            assert all(request.endswith(b"\r\n\r\n" + body) for request in stub.requests)
            assert stub.connections == 1

    run(main())


@dataclass
class Poured:
    """A body that is made while it is sent, and counts how often it was begun and how far it was read."""

    size: int
    sent: int
    begun: int = 0
    read: int = 0

    async def pieces(self):
        self.begun += 1
        self.read = 0
        while self.read < self.sent:
            piece = bytes(min(100_000, self.sent - self.read))
            self.read += len(piece)
            await turn()
            yield piece


def test_a_body_is_read_while_it_is_sent_and_anew_on_another_connection(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(HELLO)
        await writer.drain()
        if stub.connections == 1:
            await reader.readexactly(1)  # the second request: left without an answer
            return
        await stub.read_request(reader)

    async def main():
        body = Poured(3_000_000, 3_000_000)
        async with served(handler) as stub, client() as upstream:
            assert (await fetch(upstream, stub, body=b"x"))[1] == b"hello"
            assert (await fetch(upstream, stub, body=body))[1] == b"hello"
            assert stub.requests[-1].endswith(b"\r\n\r\n" + bytes(3_000_000))
            assert b"content-length: 3000000\r\n" in stub.requests[-1]
            assert (body.begun, stub.connections) == (2, 2)

    run(main())


def test_an_empty_body_that_is_poured_has_a_length(run):
    async def main():
        async with served(playing(HELLO)) as stub, client() as upstream:
            assert (await fetch(upstream, stub, method="POST", body=Poured(0, 0)))[1] == b"hello"
            assert b"content-length: 0\r\n" in stub.requests[0]

    run(main())


@pytest.mark.parametrize("sent", [2_999_999, 3_000_001, 0])
def test_a_body_of_another_length_than_was_said_is_not_sent_as_if_it_were_whole(run, sent):
    async def main():
        async with served(playing(HELLO)) as stub, client() as upstream:
            with pytest.raises(InvalidRequest, match="has changed meanwhile"):
                await fetch(upstream, stub, body=Poured(3_000_000, sent))
            assert (await fetch(upstream, stub, body=b"x"))[1] == b"hello"
            assert [request[-1:] for request in stub.requests] == [b"x"]
            assert stub.connections == 2

    run(main())


async def too_large(stub, reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HELLO.replace(b"200 OK", b"413 Too Large"))
    await writer.drain()
    await stub.go.wait()


def test_an_answer_that_comes_before_a_poured_body_was_sent_ends_the_reading(run):
    async def main():
        body = Poured(1 << 30, 1 << 30)
        async with served(too_large) as stub, client() as upstream:
            response, _ = await fetch(upstream, stub, body=body)
            assert response.status == 413
            assert body.read < 1 << 26
            stub.go.set()

    run(main())


def test_an_answer_that_comes_before_the_body_was_sent_ends_the_sending(run):
    async def main():
        async with served(too_large) as stub, client() as upstream:
            response, body = await fetch(upstream, stub, body=bytes(64 * 1024 * 1024))
            assert (response.status, body) == (413, b"hello")
            stub.go.set()
            assert (await fetch(upstream, stub))[0].status == 413
            assert stub.connections == 2

    run(main())


def test_at_the_limit_requests_wait_their_turn(run):
    order, gate = [], asyncio.Semaphore(0)

    async def handler(stub, reader, writer):
        while True:
            body = await stub.read_request(reader)
            order.append(body)
            await gate.acquire()
            writer.write(HELLO)

    async def main():
        async with served(handler) as stub, client(limit=1) as upstream:
            tasks = []
            for number in range(5):
                tasks.append(asyncio.ensure_future(fetch(upstream, stub, body=b"%d" % number)))
                await turn()
            with pytest.raises(UpstreamTimeout, match=r"No connection .* became free within 0.02 s"):
                await upstream.request(stub.target, "GET", "/", timeouts=Timeouts(first_byte=0.02))
            tasks[2].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[2]
            for _ in range(4):
                gate.release()
            for task in (tasks[0], tasks[1], tasks[3], tasks[4]):
                assert (await task)[1] == b"hello"
            assert order == [b"0", b"1", b"3", b"4"]
            assert stub.connections == 1

    run(main())


def test_at_the_limit_a_lost_connection_gives_its_place_to_the_next(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(HELLO.replace(b"X-Colour: Red", b"Connection: close"))
        await reader.read()

    async def main():
        async with served(handler) as stub, client(limit=2) as upstream:
            answers = await asyncio.gather(*(fetch(upstream, stub) for _ in range(9)))
            assert [body for _, body in answers] == [b"hello"] * 9
            assert stub.connections == 9

    run(main())


def test_idle_connections_are_closed_in_time_and_as_told(run):
    async def main():
        for keep_alive, answer in (
            (0.03, HELLO),
            (60, HELLO.replace(b"X-Colour: Red", b"Keep-Alive: timeout=1, max=9")),
        ):
            async with served(playing(answer)) as stub, client(keep_alive=keep_alive) as upstream:
                await fetch(upstream, stub)
                await stub.ended.wait()

    run(main())


def test_forgetting_an_engine_closes_what_is_idle_and_keeps_nothing_more(run):
    async def handler(stub, reader, writer):
        await stub.read_request(reader)
        writer.write(HELLO[:-1])
        await stub.go.wait()
        writer.write(HELLO[-1:])
        await reader.read()

    async def main():
        async with client() as upstream:
            async with served(playing(HELLO)) as stub:
                await fetch(upstream, stub)
                upstream.forget(stub.target)
                await stub.ended.wait()
                upstream.forget(stub.target)
            async with served(handler) as stub:
                response = await upstream.request(stub.target, "GET", "/", timeouts=PATIENT)
                upstream.forget(stub.target)
                stub.go.set()
                assert await response.read() == b"hello"
                await stub.ended.wait()

    run(main())


def test_nobody_there(run):
    async def main():
        async with served(playing(HELLO)) as stub:
            pass
        async with client(limit=1) as upstream:
            for _ in range(2):  # a failure gives its place back
                with pytest.raises(UpstreamUnreachable, match=f"Cannot connect to http://127.0.0.1:{stub.port}"):
                    await fetch(upstream, stub)
            with pytest.raises(InvalidRequest, match="cannot be asked for"):
                await upstream.request(stub.target, "GET", "/a b", timeouts=PATIENT)

    run(main())
