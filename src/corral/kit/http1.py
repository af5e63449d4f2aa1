"""One HTTP/1.1 connection to an engine or vendor, and the answers that arrive on it.

The hot path of every request runs through here, so it is written for few steps: one future a request, no timer a
chunk, no copy of a body that arrived in one piece. The parser is httptools (llhttp); what it is lenient about is
refused here.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from corral.errors import InvalidRequest, UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from corral.kit.response import Response

if TYPE_CHECKING:
    from corral.errors import UpstreamError
    from corral.kit.response import Header
    from corral.kit.upload import Upload

HIGH_WATER = 256 * 1024
"""Bytes of an answer that may wait for a slow reader before the sender is held back."""
HEAD_LIMIT = 64 * 1024
"""Bytes that may arrive without adding to a body: a head, chunk extensions, trailers."""
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"keep-alive"))
_LAST_STATUS = 599
_EARLY = 0.001  # a loop's clock may be rounded to the millisecond, so a timer may ring that much too soon


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds: for a connection, for the answer's head, between two pieces of it, for all of it.

    `first_byte` runs from the moment the request is ready to be sent, and also bounds the wait for a free connection.
    The time in which the reader of an answer holds it back does not count as `between`.
    """

    connect: float = 10.0
    first_byte: float = 600.0
    between: float = 300.0
    total: float = math.inf


class Pool(Protocol):
    """Where a connection goes when it has no more to do."""

    address: str
    keep_alive: float

    def release(self, connection: Connection) -> None:
        """Take back a connection that can carry another request."""
        ...

    def discard(self, connection: Connection) -> None:
        """Count out a connection that is closed. Idempotent."""
        ...


class Connection(asyncio.Protocol):
    """A connection that carries one request after another, never two at once.

    `reused` says whether it has carried one before, `heard` whether a byte has come back for the present one.
    """

    __slots__ = (
        "_answer",
        "_bodiless",
        "_chunked",
        "_complete",
        "_deadline",
        "_headers",
        "_held",
        "_idle_for",
        "_interim",
        "_keep",
        "_limits",
        "_parser",
        "_parts",
        "_quiet",
        "_response",
        "_room",
        "_timer",
        "_timer_at",
        "_total_at",
        "_transport",
        "_unsent",
        "alive",
        "heard",
        "loop",
        "pool",
        "reused",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.alive = False
        self.reused = False
        self.heard = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._headers: list[Header] = []
        self._parts: list[bytes] = []
        self._quiet = 0
        self._bodiless = self._chunked = self._complete = self._interim = self._keep = False
        self._held = self._unsent = False
        self._room: asyncio.Future[None] | None = None
        self._idle_for = math.inf
        self._limits = Timeouts()
        self._deadline = self._total_at = self._timer_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    # What the pool asks of it.

    def ask(self, data: bytes, timeouts: Timeouts, *, bodiless: bool = False) -> asyncio.Future[Response]:
        """Send `data` and return the future of the answer's head; `bodiless` for HEAD.

        The future fails with an UpstreamError. Whoever stops waiting for it calls `abort`.
        """
        now = self.loop.time()
        self.heard = self._complete = self._chunked = False
        self._bodiless = bodiless
        self._quiet = 0
        self._headers = []
        self._limits = timeouts
        self._total_at = now + timeouts.total
        self._response = Response(self)
        answer = self._answer = self.loop.create_future()
        self._arm(min(now + timeouts.first_byte, self._total_at))
        self._transport.write(data)
        return answer

    async def upload(self, body: Upload) -> None:
        """Write a large body, right after `ask`, as the other side takes it; stops early when the answer begins first.

        A connection whose request was not sent whole is not used again.

        Raises:
            InvalidRequest: the body cannot be read, or is not as long as it was said to be.
        """
        answer = self._answer
        self._unsent = True
        left = body.size
        held: bytes | memoryview = b""  # until it is known whether it is the last
        async for piece in body.pieces():
            if answer is None or answer.done():
                return
            left -= len(piece)
            if left < 0:
                break
            self._transport.write(held)
            held = piece
            if self._room is not None:
                await self._room
        if left:
            raise InvalidRequest("What was being sent has changed meanwhile.", "Send it again.")
        self._transport.write(held)
        if self._room is not None:
            await self._room
        self._unsent = False

    def rest(self) -> None:
        """Wait in the pool for the next request, for at most the keep-alive time."""
        self.reused = True
        self._arm(self.loop.time() + min(self.pool.keep_alive, self._idle_for))

    def resume(self) -> None:
        """Let the other side send again, if it was held back."""
        if self._held:
            self._held = False
            self._arm(min(self.loop.time() + self._limits.between, self._total_at))
            self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection and whatever was under way on it. Idempotent."""
        self._response = None
        self._answer = None
        self._close()

    # What the transport tells it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is not a subclass
        self.alive = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.alive = False
        response = self._response
        if response is not None:
            if exc is None and self._until_eof(response):
                self._finish(response)
            elif self.heard:
                self._fail(UpstreamUnreachable(f"{self.pool.address} closed before the answer was whole."))
            else:
                self._fail(UpstreamUnreachable(f"{self.pool.address} closed without an answer."))
        self._close()

    def pause_writing(self) -> None:
        """Called by the loop."""
        if self._room is None:
            self._room = self.loop.create_future()

    def resume_writing(self) -> None:
        """Called by the loop."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        response = self._response
        if response is None:  # nobody asked, so this is no answer
            self._close()
            return
        self.heard = True
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                cause = error.__context__
                self._fail(cause if isinstance(cause, UpstreamProtocol) else self._garbage(str(error)))
                return
            self._keep = False  # bytes nobody asked for, after a whole answer
        parts = self._parts
        if parts and not self._bodiless:
            self._quiet = 0
            waiting = response.take(parts[0] if len(parts) == 1 else b"".join(parts))
            parts.clear()
            if waiting > HIGH_WATER and not self._complete:
                self._hold()
        if self._complete:
            self._finish(response)
        elif self._quiet > HEAD_LIMIT:
            self._fail(self._garbage(f"over {HEAD_LIMIT} bytes of head"))
        elif response.status:
            if not self._held:
                self._arm(min(self.loop.time() + self._limits.between, self._total_at))
            self._head_there(response)
            response.wake()

    # What the parser tells it.

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._complete:
            raise UpstreamProtocol("A second answer.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too: those go into a list that nobody reads."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        headers, self._headers = self._headers, []
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise UpstreamProtocol(f"{self.pool.address} changed the protocol unasked.")
            self._interim = True
            return
        if status > _LAST_STATUS:
            raise self._garbage(f"the status {status}")
        response = self._response
        if response is None:
            return
        for name, value in headers:
            if name in _FRAMING:
                self._frame(response, name, value)
        if self._chunked and response.content_length is not None:
            raise self._garbage("two lengths for one answer")
        if self._quiet > HEAD_LIMIT and sum(len(n) + len(v) for n, v in headers) > HEAD_LIMIT:
            raise self._garbage(f"over {HEAD_LIMIT} bytes of head")
        self._keep = self._parser.should_keep_alive() and not self._bodiless
        self._complete = self._bodiless
        response.headers = headers
        response.status = status

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._interim:
            self._interim = False
        else:
            self._complete = True

    # Its own affairs.

    def _frame(self, response: Response, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            response.content_length = int(value)
        elif name == b"keep-alive":
            _, _, seconds = value.partition(b"timeout=")
            digits = seconds.split(b",")[0].strip()
            if digits.isdigit():
                self._idle_for = max(int(digits) - 1, 0)  # a second less: it may close just as we ask
        elif value.strip().lower() == b"chunked" and not self._chunked:
            self._chunked = True
        else:
            raise self._garbage("an unknown transfer encoding")

    def _until_eof(self, response: Response) -> bool:
        return bool(response.status) and response.content_length is None and not self._chunked

    def _garbage(self, what: str) -> UpstreamProtocol:
        return UpstreamProtocol(f"{self.pool.address} answered what is not HTTP: {what}.")

    def _head_there(self, response: Response) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(response)
            if self._unsent:
                self.resume_writing()  # wake the upload, to stop it

    def _finish(self, response: Response) -> None:
        self._response = None
        response.end(None)
        self._head_there(response)
        if self._keep and self.alive and not self._unsent and self._room is None:
            if self._held:
                self._held = False
                self._transport.resume_reading()
            self.pool.release(self)
        else:
            self._close()

    def _fail(self, error: UpstreamError) -> None:
        response, self._response = self._response, None
        answer, self._answer = self._answer, None
        if response is not None:
            response.end(error)
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self._close()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._deadline = self._total_at
            self._transport.pause_reading()

    def _close(self) -> None:
        self.alive = False
        self._deadline = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resume_writing()
        self._transport.abort()
        self.pool.discard(self)

    def _arm(self, deadline: float) -> None:
        """Ring at `deadline`. A timer that rings earlier is left: it looks again when it rings, which is rare."""
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self.loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self.loop.time() + _EARLY
        if now < self._deadline:
            if self._deadline < math.inf:
                self._arm(self._deadline)
            return
        response, limits = self._response, self._limits
        if response is None:
            self._close()
        elif now >= self._total_at:
            self._fail(UpstreamTimeout(f"{self.pool.address} did not finish within {limits.total:g} s."))
        elif not response.status:
            self._fail(UpstreamTimeout(f"{self.pool.address} did not begin to answer within {limits.first_byte:g} s."))
        else:
            self._fail(UpstreamTimeout(f"{self.pool.address} sent nothing for {limits.between:g} s."))
