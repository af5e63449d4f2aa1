"""The relay between a real uvicorn in front and an engine that plays exact bytes behind, on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
import uvloop

from corral.errors import CorralError
from corral.gateway.wire import Protocol
from corral.kit.clients import Clients
from corral.kit.relay import WHOLE_LIMIT, Outcome, relay, respond
from corral.kit.sse import HOLD_LIMIT
from corral.kit.upstream import Target, Timeouts, Upstream

PATIENT = Timeouts(connect=20, first_byte=20, between=20)
SSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: max-age=9\r\ntransfer-encoding: chunked\r\n\r\n"
)
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
END = b"0\r\n\r\n"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end in a loop of the kind, within a minute."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, 60))


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def render(error):
    return b"data: " + json.dumps({"error": {"message": error.message, "code": error.code}}).encode() + b"\n\n"


class Stage:
    """An engine that plays a script, a gateway before it, and what each of them saw."""

    def __init__(self):
        self.engine_done = asyncio.Event()
        self.request_done = asyncio.Event()
        self.asked = asyncio.Event()
        self.outcome = Outcome()
        self.gone = None
        self.raised = None
        self.steps = asyncio.Queue()
        self.port = 0
        self._target = None
        self._upstream = Upstream()
        self._clients = Clients()

    async def play(self, reader, writer):
        """Send what the test puts into `steps`; None closes. `engine_done` is set when the gateway has left."""
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        playing = asyncio.ensure_future(self._play(writer))
        try:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            self.engine_done.set()
        finally:
            playing.cancel()
            writer.transport.abort()

    async def _play(self, writer):
        while (data := await self.steps.get()) is not None:
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    def say(self, *pieces):
        for piece in pieces:
            self.steps.put_nowait(piece)

    async def app(self, scope, receive, send):
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        try:
            with self._clients.watch(receive) as client:
                await self._carry(send)
            self.gone = client.gone
        finally:
            self.request_done.set()

    async def _carry(self, send):
        try:
            response = await self._upstream.request(self._target, "POST", "/chat", timeouts=PATIENT)
            await relay(response, send, render, headers=[(b"x-request-id", b"r1")], outcome=self.outcome)
        except CorralError as error:
            self.raised = error
            await respond(send, error.http_status, b"failed")

    @asynccontextmanager
    async def up(self):
        engine = await asyncio.start_server(self.play, "127.0.0.1", 0)
        self._target = Target.of(f"http://127.0.0.1:{engine.sockets[0].getsockname()[1]}")
        config = uvicorn.Config(
            self.app, http=Protocol, ws="none", lifespan="off", interface="asgi3", log_level="critical"
        )
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield self
            finally:
                server.should_exit = server.force_exit = True
                await serving
                await self._upstream.close()
                engine.close()

    @asynccontextmanager
    async def client(self):
        """A client that has asked; yields its reader and writer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def exchange(self):
        """The head and the rest of an answer that ends by itself or is cut, as bytes and as far as it came."""
        async with self.client() as (reader, _):
            head = await reader.readuntil(b"\r\n\r\n")
            return head, reader, await self._body(head, reader)

    async def _body(self, head, reader):
        body = b""
        if b"transfer-encoding: chunked" in head:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                return body
            raise asyncio.IncompleteReadError(body, None)
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return await reader.readexactly(length)


def test_a_short_answer_goes_out_whole_with_what_may_pass(run):
    async def main():
        answer = json.dumps({"choices": [{"finish_reason": "stop"}], "usage": {"total_tokens": 4}}).encode()
        raw = JSON_HEAD + b"content-length: %d\r\nserver: engine\r\nset-cookie: a=b\r\nx-ratelimit-limit: 9\r\n" % len(
            answer
        )
        raw += b"access-control-allow-origin: *\r\nretry-after: 3\r\nx-request-id: theirs\r\n\r\n" + answer
        async with Stage().up() as stage:
            stage.say(raw)
            head, _, body = await stage.exchange()
            assert body == answer
            names = {line.split(b":")[0] for line in head.split(b"\r\n")[1:-2]}
            wanted = {b"content-type", b"content-length", b"x-ratelimit-limit", b"retry-after", b"x-request-id"}
            assert names - {b"date", b"server"} == wanted
            assert b"x-request-id: r1\r\n" in head
            assert b"engine" not in head
            await stage.request_done.wait()
            assert (stage.outcome.status, stage.outcome.bytes, stage.outcome.chunks) == (200, len(answer), 1)
            assert (stage.outcome.usage, stage.outcome.finish_reason) == ({"total_tokens": 4}, "stop")
            assert stage.outcome.first_byte_at is not None
            assert stage.gone is False

    run(main())


def test_an_answer_without_length_that_comes_in_pieces_goes_out_whole(run):
    async def main():
        async with Stage().up() as stage:
            stage.say(JSON_HEAD + b"transfer-encoding: chunked\r\n\r\n", chunk(b'{"a":'), chunk(b"1}"), END)
            head, _, body = await stage.exchange()
            assert body == b'{"a":1}'
            assert b"content-length: 7\r\n" in head

    run(main())


def test_statuses_without_a_body_pass(run):
    async def main():
        async with Stage().up() as stage:
            stage.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            async with stage.client() as (reader, _):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 204")
                assert b"content-length" not in head

    run(main())


def test_a_stream_is_flushed_event_by_event(run):
    async def main():
        async with Stage().up() as stage, stage.client() as (reader, _):
            stage.say(SSE)
            for number in range(3):  # each is read before the next is sent
                stage.say(chunk(event(number)))
                if not number:
                    head = await reader.readuntil(b"\r\n\r\n")
                size = int(await reader.readuntil(b"\r\n"), 16)
                assert await reader.readexactly(size + 2) == event(number) + b"\r\n"
            last = event({"choices": [{"finish_reason": "length"}], "usage": {"total_tokens": 7}})
            stage.say(chunk(last), END)
            assert await reader.readuntil(END) == chunk(last) + END
            assert b"cache-control: no-cache\r\nx-accel-buffering: no\r\n" in head
            assert b"max-age" not in head
            await stage.request_done.wait()
            assert (stage.outcome.chunks, stage.outcome.usage) == (4, {"total_tokens": 7})
            assert stage.outcome.finish_reason == "length"

    run(main())


@pytest.mark.parametrize("cut", [0, 1, 7, -1])
def test_an_engine_that_dies_in_mid_event_ends_the_stream_with_a_clean_error(run, cut):
    async def main():
        async with Stage().up() as stage:
            stage.say(SSE + chunk(event("one")), chunk(event("two")[:cut]) if cut else b"", None)
            _, _, body = await stage.exchange()
            first, error, rest = body.split(b"\n\n")
            assert (first, rest) == (b'data: "one"', b"")
            assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_refused"
            await stage.request_done.wait()
            assert "closed before the answer was whole" in str(stage.outcome.error)
            assert stage.raised is None

    run(main())


@pytest.mark.parametrize(
    "raw",
    [
        SSE,
        SSE + chunk(b"data: ha"),
        JSON_HEAD + b"content-length: 50\r\n\r\nhalf",
        JSON_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"half"),
        b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
def test_what_breaks_before_anything_was_sent_is_the_caller_s_to_answer(run, raw):
    async def main():
        async with Stage().up() as stage:
            stage.say(raw, None)
            head, _, body = await stage.exchange()
            assert head.startswith(b"HTTP/1.1 502")
            assert body == b"failed"
            assert stage.raised.code == "upstream_refused"
            assert stage.outcome.error is None

    run(main())


@pytest.mark.parametrize(
    "raw",
    [
        JSON_HEAD + b"content-length: 9000000\r\n\r\n" + b"x" * 100,
        JSON_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"x" * (WHOLE_LIMIT + 1)),
        SSE + chunk(b"data: " + b"x" * HOLD_LIMIT),
        SSE.replace(b"cache-control: max-age=9", b"content-encoding: gzip") + chunk(b"\x1f\x8b half"),
    ],
    ids=["long", "long of unknown length", "torn event", "compressed events"],
)
def test_what_breaks_and_cannot_say_so_is_cut(run, raw):
    async def main():
        async with Stage().up() as stage:
            stage.say(raw)
            async with stage.client() as (reader, _):
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.read(10)
                stage.say(None)
                assert not (await reader.read()).endswith(END)
            assert stage.outcome.error is not None

    run(main())


def test_a_long_answer_passes_in_pieces_and_its_end_is_metered(run):
    async def main():
        answer = b'{"data":"' + b"x" * 3_000_000 + b'","usage":{"total_tokens":5}}'
        for framing in (b"content-length: %d\r\n\r\n" % len(answer), b"transfer-encoding: chunked\r\n\r\n"):
            async with Stage().up() as stage:
                stage.say(JSON_HEAD + framing, *([chunk(answer), END] if b"chunked" in framing else [answer]))
                _, _, body = await stage.exchange()
                assert body == answer
                await stage.request_done.wait()
                assert stage.outcome.bytes == len(answer)
                assert stage.outcome.usage == {"total_tokens": 5}

    run(main())


def test_streams_that_say_nothing_end_well(run):
    async def main():
        for head in (
            SSE,
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
        ):
            async with Stage().up() as stage:
                stage.say(head, END)
                _, _, body = await stage.exchange()
                assert body == b""
        async with Stage().up() as stage:
            stage.say(SSE, chunk(b"data: no blank line"), END)
            assert (await stage.exchange())[2] == b"data: no blank line"

    run(main())


@pytest.mark.parametrize("started", [False, True], ids=["before the head", "in mid-stream"])
def test_a_client_that_leaves_cancels_the_engine_s_work(run, started):
    async def main():
        async with Stage().up() as stage:
            async with stage.client() as (reader, _):
                await stage.asked.wait()
                if started:
                    stage.say(SSE + chunk(event(1)))
                    await reader.readuntil(b"\r\n\r\n")
            await stage.engine_done.wait()
            await stage.request_done.wait()
            assert stage.gone is True
            assert stage.outcome.chunks == int(started)

    run(main())


def test_a_client_that_does_not_read_holds_the_engine_back(run):
    async def main():
        async with Stage().up() as stage, stage.client() as (reader, _):
            reader._transport.pause_reading()
            stage.say(SSE)
            count, piece = 0, chunk(event("x" * 250_000))
            while count < 200:
                stage.say(piece)
                count += 1
            stage.say(END)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stage.request_done.wait(), 0.5)
            assert stage.steps.qsize() > 50
            reader._transport.resume_reading()
            size = 0
            while size < count * 250_000:
                size += len(await reader.read(1_000_000))
            await stage.request_done.wait()

    run(main())
