"""Both ends of the streams that `benchmarks/stream.py` measures, each a process of its own.

    python -m benchmarks.stream_ends upstream PORT
    python -m benchmarks.stream_ends client PORT STREAMS SECONDS PACE HEADERS      PACE: most or engine; HEADERS: JSON

The upstream answers a request with 256 chunks, the usage and `[DONE]`. Its streams take turns, one chunk each, as those
of an engine that batches; each chunk is a write of its own. Where the request's user is `engine`, a turn takes 10 ms
and the first chunk does not wait for it; otherwise it takes no longer than it must. The client keeps as many streams
open for so many seconds, each on a connection that asks again when its answer has ended, and prints what it counted as
JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import uvloop

from benchmarks.stage import CHAT, MODEL, PROMPT, SYSTEM

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

CHUNKS = 256
PACE = 0.01
MOST, ENGINE = "most", "engine"


def body(pace: str) -> str:
    """The request; its user names the pace of the answer."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
    options = {"stream": True, "stream_options": {"include_usage": True}, "user": pace}
    return json.dumps({"model": MODEL, "messages": messages} | options)


MARK = b'"delta":{'
"""What every chunk has once, and nothing else has."""
DONE = b"data: [DONE]\n\n"
SPLIT = CHUNKS // 10
"""Marks that a proxy may hide from the client, which reads no frames: it frames anew, and a frame may end in a mark."""
LAST = b"0\r\n\r\n"


def event(more: dict[str, Any]) -> bytes:
    """A chunk of an answer as OpenAI streams it, in a chunk of HTTP."""
    chunk = {"id": "chatcmpl-7d1f0c9e2b", "object": "chat.completion.chunk", "created": 1760000000, "model": MODEL}
    return framed(b"data: " + json.dumps(chunk | more, separators=(",", ":")).encode() + b"\n\n")


def framed(data: bytes) -> bytes:
    """A chunk of HTTP."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def pieces() -> list[bytes]:
    """All that an answer is made of, a write each: the head goes with the first chunk, the end with the last."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    deltas = [{"role": "assistant", "content": ""}, *({"content": f" word{n}"} for n in range(CHUNKS - 2)), {}]
    reasons = [None] * (CHUNKS - 1) + ["stop"]
    events = [
        event({"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})
        for delta, reason in zip(deltas, reasons, strict=True)
    ]
    usage = {"prompt_tokens": 31, "completion_tokens": CHUNKS, "total_tokens": 31 + CHUNKS}
    return [head + events[0], *events[1:], event({"choices": [], "usage": usage}) + framed(DONE) + LAST]


PIECES = pieces()


class Turns:
    """The streams of one pace: in every turn, which takes so many seconds, each writes its next piece."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: float) -> None:
        self._pace = pace
        self.streams: set[Engine] = set()
        self._loop = loop
        self._going = False

    def add(self, stream: Engine) -> None:
        """Let a stream write; its first piece goes at once when turns take time."""
        self.streams.add(stream)
        if self._pace and stream.place == 0:
            self._write(stream)
        if not self._going:
            self._going = True
            self._next()

    def _turn(self) -> None:
        for stream in list(self.streams):
            self._write(stream)
        self._going = bool(self.streams)
        if self._going:
            self._next()

    def _next(self) -> None:
        if self._pace:
            self._loop.call_later(self._pace, self._turn)
        else:
            self._loop.call_soon(self._turn)

    def _write(self, stream: Engine) -> None:
        piece = PIECES[stream.place]
        stream.place += 1
        if stream.place == len(PIECES):
            self.streams.discard(stream)
        stream.transport.write(piece)


class Engine(asyncio.Protocol):
    """The upstream's side of one connection; `place` is the piece that it writes next."""

    transport: asyncio.Transport

    def __init__(self, quick: Turns, paced: Turns) -> None:
        self._quick, self._paced = quick, paced
        self._turns = quick
        self._read = b""
        self.place = len(PIECES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._turns.streams.discard(self)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, rest = self._read.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if end and len(rest) >= length:
            self._read = rest[length:]
            if length:
                self.place = 0
                self._turns = self._paced if json.loads(rest[:length]).get("user") == ENGINE else self._quick
                self._turns.add(self)
            else:  # somebody asks which models there are
                self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    def pause_writing(self) -> None:
        self._turns.streams.discard(self)

    def resume_writing(self) -> None:
        if self.place < len(PIECES):
            self._turns.add(self)


class Reader(asyncio.Protocol):
    """The client's side of one stream after the other on one connection.

    `chunks` counts what has come, `ended` whole answers, `firsts` holds the seconds until each one's first chunk.
    """

    transport: asyncio.Transport

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._begun = 0.0
        self._tail = b""
        self.chunks = self._before = self.ended = 0
        self.firsts: list[float] = []
        self.trouble = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        self._before, self._tail, self._begun = self.chunks, b"", time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        read = self._tail + data
        found = read.count(MARK)
        if found:
            if self.chunks == self._before:
                self.firsts.append(time.perf_counter() - self._begun)
            self.chunks += found
        self._tail = read[-len(MARK) + 1 :]
        if not read.endswith(LAST):
            return
        if not CHUNKS - SPLIT <= self.chunks - self._before <= CHUNKS:
            self.trouble = f"a stream of {self.chunks - self._before} chunks ended with {read[-300:]!r}"
            self.transport.close()
            return
        self.chunks = self._before + CHUNKS
        self.ended += 1
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.trouble = self.trouble or f"a connection was lost: {exc!r}"


async def serve(port: int) -> None:
    """Be the upstream, for ever."""
    loop = asyncio.get_running_loop()
    quick, paced = Turns(loop, 0), Turns(loop, PACE)
    server = await loop.create_server(lambda: Engine(quick, paced), "127.0.0.1", port)
    await server.serve_forever()


async def read(port: int, streams: int, seconds: float, pace: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Read so many streams for so long."""
    loop = asyncio.get_running_loop()
    lines = {"host": f"127.0.0.1:{port}", "content-type": "application/json", **headers}
    asked = body(pace)
    head = f"POST {CHAT} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = f"{head}content-length: {len(asked)}\r\n\r\n{asked}".encode()
    readers = [Reader(request) for _ in range(streams)]
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
    before, begun = sum(reader.chunks for reader in readers), time.perf_counter()
    await asyncio.sleep(seconds)
    chunks, lasted = sum(reader.chunks for reader in readers) - before, time.perf_counter() - begun
    trouble = [reader.trouble for reader in readers if reader.trouble]
    firsts = [first for reader in readers for first in reader.firsts]
    return {
        "rate": chunks / lasted,
        "streams": sum(reader.ended for reader in readers),
        "first": statistics.median(firsts) * 1000 if firsts else None,
        "trouble": trouble[:1],
    }


def run(doing: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(doing)


def main() -> None:
    role, port, *given = sys.argv[1:]
    if role == "upstream":
        run(serve(int(port)))
    else:
        streams, seconds, pace, headers = given
        print(json.dumps(run(read(int(port), int(streams), float(seconds), pace, json.loads(headers)))))


if __name__ == "__main__":
    main()
