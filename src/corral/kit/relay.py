"""Carries an engine's answer to an ASGI client: untouched, unbuffered, and never half an event.

The way of a request, with both parts:

    with clients.watch(receive) as client:
        response = await upstream.request(target, "POST", "/chat/completions", body=body)
        outcome = await relay(response, send, render, headers=extra)
    if client.gone: ...
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from corral.errors import CorralError, UpstreamError
from corral.kit.response import Response
from corral.kit.sse import Lines, Meter, Splitter, Whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corral.kit.response import Header

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Render = Callable[[CorralError], bytes]
"""Writes an error as the last event of a stream, in the client's dialect."""

WHOLE_LIMIT = 1024 * 1024
"""Bytes up to which an answer that is no stream is sent only when whole, so that its failure can still be told."""

_PASSED = frozenset(
    (
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-type",
        b"openai-model",
        b"openai-processing-ms",
        b"openai-version",
        b"retry-after",
        b"retry-after-ms",
    )
)
_PASSED_PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-")
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
"""Finds what the value of a header may not hold."""
_EVENTS = b"text/event-stream"
_STREAMED = (_EVENTS, b"application/x-ndjson", b"application/jsonl", b"application/stream+json")
_UNBUFFERED = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_TAIL = 4096


class Reply(Protocol):
    """An answer that can be relayed: `kit.http1.Response`, or what stands in for one."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> list[Header]:
        """With lower-case names."""
        ...

    @property
    def whole(self) -> bool:
        """Whether all of the body is there."""
        ...

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, where its head says so."""
        ...

    @property
    def framed(self) -> bool:
        """Whether each piece of the body is whole events."""
        ...

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, by its lower-case name."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece."""
        ...

    async def read(self) -> bytes:
        """The whole body."""
        ...

    def close(self) -> None:
        """Read no further."""
        ...


class Quick(Protocol):
    """Sends to a client at once, without a message and without waiting."""

    @property
    def framed(self) -> bool:
        """Whether a response that has begun by messages can go on by `push`."""
        ...

    def send(self, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Send a whole response, its names in lower case; False, and nothing is sent, where it cannot."""
        ...

    def begin(self, status: int, headers: Sequence[Header], data: bytes) -> bool:
        """Begin a stream, likewise; `data` is its first piece, and is not empty."""
        ...

    def push(self, data: bytes) -> bool:
        """Send a piece of a stream; False when the client is slow, so that the next is to be sent by a message."""
        ...


class Onlooker(Protocol):
    """Sees an answer pass. What it returns is what the client gets."""

    def whole(self, body: bytes) -> bytes:
        """A whole answer.

        Raises:
            UpstreamError: it is none, although it looked like one; nothing has been sent.
        """
        ...

    def passing(self, data: bytes, *, first: bool) -> bytes:
        """One or more whole events of a stream, or lines. Called with the `first` before anything is sent.

        Raises:
            UpstreamError: they are none, and the answer ends here; with the first as `whole`.
        """
        ...

    def over(self, error: UpstreamError | None) -> bytes:
        """A stream of which something has been sent is over, by `error` or without one. What is to follow it.

        Raises:
            UpstreamError: it is not whole, even if it looked so.
        """
        ...

    def tail(self, data: bytes) -> None:
        """The last bytes of an answer that was too long to be held back."""
        ...


@dataclass(slots=True)
class Outcome:
    """What was carried, for the receipt; filled in as the answer passes.

    `bytes` and `chunks` went to the client. `first_byte_at` is when the first byte of the body was there, on the clock
    of `time.perf_counter`. `error` is why the answer is not whole, when it broke after its head had been sent.
    `client_gone` is for the caller to fill in.
    """

    status: int = 0
    bytes: int = 0
    chunks: int = 0
    first_byte_at: float | None = None
    error: UpstreamError | None = None
    client_gone: bool = False
    meter: Meter | None = None

    @property
    def usage(self) -> dict[str, Any] | None:
        """The last usage object that the engine sent, where nobody else looked on."""
        return None if self.meter is None else self.meter.usage

    @property
    def finish_reason(self) -> str | None:
        """The last finish reason that the engine sent, where nobody else looked on."""
        return None if self.meter is None else self.meter.finish_reason


class Metering:
    """An onlooker that changes nothing and meters all."""

    __slots__ = ("_meter",)

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def whole(self, body: bytes) -> bytes:
        """Meter a whole answer."""
        self._meter.feed(body)
        return body

    def passing(self, data: bytes, *, first: bool) -> bytes:
        """Meter events."""
        self._meter.feed(data)
        return data

    def over(self, error: UpstreamError | None) -> bytes:
        """Believe that a stream without an error is whole."""
        if error is not None:
            raise error
        return b""

    def tail(self, data: bytes) -> None:
        """Meter the end of an answer."""
        self._meter.feed(data)


async def relay(
    response: Reply,
    send: Send,
    render: Render,
    *,
    headers: Sequence[Header] = (),
    outcome: Outcome | None = None,
    onlooker: Onlooker | None = None,
    quick: Quick | None = None,
) -> Outcome:
    """Send the answer to the client, with `headers` added, and return what was carried.

    A stream goes out event by event as it comes, its head with the first event; when it breaks after that, the client
    gets the event that `render` makes, and the stream ends. Any other answer of moderate size goes out when it is
    whole. When something breaks that cannot say so, this returns with the ASGI response unfinished (`outcome.error` is
    set): the caller must return too, the server then cuts the connection, and the client sees that the answer is not
    whole.

    With `quick`, an answer that is whole goes out by it where that can be, and so do the events of a stream.

    The upstream answer is closed in every case. Pass an `outcome` to read it even when this is cancelled.

    Raises:
        UpstreamError: it broke before anything was sent; the caller may still try elsewhere, or answer with an error.
    """
    outcome = outcome or Outcome()
    outcome.status, outcome.first_byte_at = response.status, None
    if onlooker is None:
        outcome.meter = Meter()
        onlooker = Metering(outcome.meter)
    sent: list[Header] = []
    for header in response.headers:
        name, value = header
        if name in _PASSED or name.startswith(_PASSED_PREFIXES):
            sent.append(header)
            if _UNFIT(value):
                quick = None
    sent += headers
    try:
        if response.whole:
            await _send_whole(await response.read(), send, sent, outcome, onlooker, quick)
        else:
            await _send_arriving(response, send, render, sent, outcome, onlooker, quick)
    finally:
        response.close()
    return outcome


async def _send_whole(
    body: bytes,
    send: Send,
    headers: list[Header],
    outcome: Outcome,
    onlooker: Onlooker,
    quick: Quick | None = None,
) -> None:
    outcome.first_byte_at = outcome.first_byte_at or time.perf_counter()
    body = onlooker.whole(body)
    status = outcome.status
    if body or status not in {204, 304}:
        headers.append((b"content-length", b"%d" % len(body)))
    if quick is None or not quick.send(status, headers, body):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    outcome.bytes, outcome.chunks = len(body), 1


async def _send_arriving(
    response: Reply,
    send: Send,
    render: Render,
    headers: list[Header],
    outcome: Outcome,
    onlooker: Onlooker,
    quick: Quick | None,
) -> None:
    kind = response.header(b"content-type") or b""
    pieces: list[bytes] = []
    if not response.framed and _worth_waiting(kind, response.content_length):
        size = 0
        async for chunk in response:
            outcome.first_byte_at = outcome.first_byte_at or time.perf_counter()
            pieces.append(chunk)
            size += len(chunk)
            if size > WHOLE_LIMIT:
                break
        else:
            await _send_whole(b"".join(pieces), send, headers, outcome, onlooker)
            return
    if kind.startswith(_STREAMED):
        headers = [h for h in headers if h[0] != b"cache-control"]
        headers.extend(_UNBUFFERED)
    plain = response.framed or (kind.startswith(_STREAMED) and response.header(b"content-encoding") is None)
    if response.content_length is not None and not plain:  # an onlooker may add to events, and take away
        headers.append((b"content-length", b"%d" % response.content_length))
    start: Message = {"type": "http.response.start", "status": outcome.status, "headers": headers}
    if plain:
        splitter = Whole() if response.framed else Splitter() if kind.startswith(_EVENTS) else Lines()
        await _send_events(_Events(response, splitter, send, quick, outcome, onlooker), render, start)
    else:
        await _send_pieces(response, send, pieces, start, outcome, onlooker)


def _worth_waiting(kind: bytes, length: int | None) -> bool:
    if kind.startswith(_STREAMED):
        return False
    return kind.startswith(b"application/json") if length is None else length <= WHOLE_LIMIT


class _Events:
    """A stream of events, or lines, on its way."""

    __slots__ = ("_failure", "_quick", "onlooker", "outcome", "response", "send", "splitter")

    def __init__(
        self,
        response: Reply,
        splitter: Splitter | Lines | Whole,
        send: Send,
        quick: Quick | None,
        outcome: Outcome,
        onlooker: Onlooker,
    ) -> None:
        self.response = response
        self.splitter = splitter
        self.send = send
        self.outcome = outcome
        self.onlooker = onlooker
        self._quick = quick
        self._failure: UpstreamError | None = None

    async def carry(self, start: Message) -> bytes:
        """Send events as they come, and return what is left at the end; `first_byte_at` says whether any was sent."""
        response, splitter, onlooker, outcome = self.response, self.splitter, self.onlooker, self.outcome
        begun = sent = False
        async for chunk in response:
            ready = splitter.feed(chunk)
            if not ready:
                continue
            ready = onlooker.passing(ready, first=not begun)
            if not begun:
                begun = True
                outcome.first_byte_at = time.perf_counter()
                sent = self._begin(start, ready)
                if not sent:
                    await self.send(start)
            outcome.bytes += len(ready)
            outcome.chunks += 1
            if sent:
                sent = False
            elif ready:
                await self.send({"type": "http.response.body", "body": ready, "more_body": True})
            if self._quick is not None and self._quick.framed and isinstance(response, Response):
                await response.pour(self._push)
                if self._failure is not None:
                    raise self._failure
        rest = splitter.flush()
        return onlooker.passing(rest, first=not begun) if rest else b""

    def _begin(self, start: Message, ready: bytes) -> bool:
        """Whether the head has been sent at once, with the first events."""
        return self._quick is not None and bool(ready) and self._quick.begin(start["status"], start["headers"], ready)

    def _push(self, chunk: bytes) -> bool:
        """Send what has just come; False where that must not go on."""
        ready = self.splitter.feed(chunk)
        if not ready:
            return True
        try:
            ready = self.onlooker.passing(ready, first=False)
        except UpstreamError as error:
            self._failure = error
            return False
        self.outcome.bytes += len(ready)
        self.outcome.chunks += 1
        return not ready or self._quick is None or self._quick.push(ready)


async def _send_events(events: _Events, render: Render, start: Message) -> None:
    send, outcome, splitter = events.send, events.outcome, events.splitter
    failure: UpstreamError | None = None
    rest = b""
    try:
        rest = await events.carry(start)
    except UpstreamError as error:
        failure = error
    begun = outcome.first_byte_at is not None
    if failure is None or begun:
        try:
            rest, failure = _ending(rest, events.onlooker.over(failure), splitter), None
        except UpstreamError as error:
            failure = error
    if not begun:
        if failure is not None:
            raise failure
        await send(start)
    outcome.error = failure
    if failure is None:
        outcome.bytes += len(rest)
        await send({"type": "http.response.body", "body": rest})
    elif not splitter.torn:  # inside half an event nothing can be said
        await send({"type": "http.response.body", "body": render(failure)})


def _ending(rest: bytes, after: bytes, splitter: Splitter | Lines | Whole) -> bytes:
    """The last bytes of a stream: what was held back, and what follows it."""
    return b"".join((rest, splitter.end, after)) if rest and after else rest or after


async def _send_pieces(
    response: Reply, send: Send, pieces: list[bytes], start: Message, outcome: Outcome, onlooker: Onlooker
) -> None:
    """Send a long answer as it comes; only its end is metered, where an engine says what it used."""
    last = b"".join(pieces)
    if last:
        await send(start)
        await _send_piece(last, send, outcome)
    before = b""
    try:
        async for chunk in response:
            if not outcome.chunks:
                outcome.first_byte_at = time.perf_counter()
                await send(start)
            await _send_piece(chunk, send, outcome)
            before, last = last, chunk
    except UpstreamError as error:
        if not outcome.chunks:
            raise
        outcome.error = error
        return
    if not outcome.chunks:
        await send(start)
    onlooker.tail(before[-_TAIL:] + last)
    await send({"type": "http.response.body", "body": b""})


async def _send_piece(piece: bytes, send: Send, outcome: Outcome) -> None:
    outcome.bytes += len(piece)
    outcome.chunks += 1
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def respond(
    send: Send, status: int, body: bytes, headers: Sequence[Header] = (), content_type: bytes = b"application/json"
) -> None:
    """Answer with a body that is at hand."""
    own = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": body})
