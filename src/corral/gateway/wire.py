"""The server's side of a client's connection: uvicorn's own protocol, joined writes, and an end to patience.

ASGI gives a response in two messages, uvicorn writes each as it comes, and uvloop hands each write to the kernel at
once: two system calls and two segments for the shortest answer (docs/decisions/0007).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from corral.errors import CorralError, HeadTooLarge, InvalidRequest, RequestTimeout
from corral.gateway.inference.dialect import render
from corral.kit.identity import request_ids

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

HEAD_LIMIT = 64 * 1024
"""Bytes of a request's line and headers; one read more may have been taken before it is noticed."""

DIRECT = "corral.direct"
"""The key in a request's scope of its `Direct`. Whoever reads it takes it out: it leads back to the scope."""

_HEAD = b"HTTP/1.1 "
_REFUSAL = (
    b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"x-request-id: %s\r\nconnection: close\r\n\r\n"
)
_ids = request_ids()


class Joining:
    """A transport that holds a response's head back until its first body bytes, or the next turn of the loop.

    `bare` is the transport itself, for whoever takes the connection over.
    """

    __slots__ = ("_held", "_loop", "bare", "get_extra_info", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.bare = transport
        self._loop = loop
        self._held = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write, or hold the head back."""
        held = self._held
        if held:
            self._held = b""
            self.bare.writelines((held, data))
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self.bare.write(data)

    def close(self) -> None:
        """Close when all is written."""
        self._flush()
        self.bare.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self.bare.is_closing():
            self.bare.write(held)


class Protocol(HttpToolsProtocol):
    """What uvicorn is given as its `http`: its protocol, with an end to patience and with Corral's words for errors.

    `owed_since` is when the client began to owe us the rest of a request, on the loop's clock; None while it owes none.
    `idle_since` is when the last answer ended, None once anything came after it.
    """

    url = b""  # until a request has begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._head: int | None = 0  # bytes of a head that is not whole yet
        self.owed_since: float | None = self.loop.time()
        self.idle_since: float | None = None
        self._ahead: list[RequestResponseCycle] = []  # of the latest request: what was asked before its answer ended
        joining: Any = Joining(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(joining)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.idle_since = None
        super().data_received(data)
        if self.owed_since is None:
            return  # the request is whole, as most are with their first piece
        if self._head is None:
            self.owed_since = self.loop.time()  # in a body each piece counts as a sign of life, in a head none does
        else:
            self._head += len(data)
            if self._head > HEAD_LIMIT:
                self.refuse(
                    HeadTooLarge(f"The request's head is larger than {HEAD_LIMIT} bytes.", "Send fewer headers.")
                )

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._head = 0
        self.owed_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._head = None
        before: RequestResponseCycle | None = self.cycle
        super().on_headers_complete()
        cycle: RequestResponseCycle | None = self.cycle
        if before is not None and before is not cycle and not before.response_complete:
            self._ahead = [*(each for each in self._ahead if not each.response_complete), before]
        if cycle is not None:
            scope: Any = self.scope
            scope[DIRECT] = Direct(cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop. Uvicorn tells the latest request, and nobody whose answer is on its way before it."""
        ahead, self._ahead = self._ahead, []
        for cycle in ahead:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.owed_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called by uvicorn, which would set a timer at each answer's end, to be taken back with the next request."""
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.idle_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when the parser gives up."""
        self.refuse(InvalidRequest(msg))

    def refuse(self, error: CorralError) -> None:
        """Answer what is no whole request with `error`, unless an answer has begun, and close."""
        self._head = self.owed_since = None
        cycle: RequestResponseCycle | None = self.cycle
        if not self.transport.is_closing() and (cycle is None or cycle.response_complete or not cycle.response_started):
            path: bytes = self.url.partition(b"?")[0]
            body = render(path.decode("latin-1"), error)
            self.transport.write(_REFUSAL % (error.http_status, len(body), next(_ids).encode()) + body)
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """Called by uvicorn when a client asks for a WebSocket: the connection goes to a protocol of its own."""
        self._head = self.owed_since = None
        cycle: RequestResponseCycle | None = self.cycle
        if self.pipeline or not (cycle is None or cycle.response_complete):
            self.refuse(InvalidRequest("A WebSocket was asked for before the answer to an earlier request had ended."))
            return
        self.transport = cast("Joining", self.transport).bare
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: whatever else is asked for besides WebSockets is answered as any request."""


class Direct:
    """A request and its response past ASGI's messages, which cost their time; see `kit.relay.Quick`."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        """The request's body, once; None, and nothing is taken, where it is to be received."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.flow.resume_reading()
        cycle.message_event.clear()  # it is set again when the client leaves
        return body

    def send(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole response in one write; False, and nothing is sent, where it must go the usual way.

        It does what ASGI's two messages would have done, for names in lower case and values that hold no line break,
        which whoever calls has seen to.
        """
        if not self._start(status, headers, b"\r\n%b" % body):
            return False
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()
        return True

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], data: bytes) -> bool:
        """As `send`, with the first piece of a stream, which is not empty. More goes by `push`, or by messages."""
        if not self._start(status, headers, b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data)):
            return False
        self._cycle.chunked_encoding = True
        return True

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]], rest: bytes) -> bool:
        """Write a head and what follows it at once; False, and nothing is written, where the usual way must do more."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        if cycle.scope["method"] == "HEAD":
            return False
        pieces = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            pieces += (name, b": ", value, b"\r\n")
        for name, value in headers:
            pieces += (name, b": ", value, b"\r\n")
        pieces.append(rest)
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        joining: Any = cycle.transport
        joining.bare.write(b"".join(pieces))
        return True

    def push(self, data: bytes) -> bool:
        """Send a piece of a stream that has begun; False when the next must go the usual way, and this one is sent."""
        cycle = self._cycle
        if not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return not cycle.flow.write_paused

    @property
    def framed(self) -> bool:
        """Whether the response that has begun goes out in chunks of HTTP, as it must for `push`."""
        return self._cycle.chunked_encoding is True and self._cycle.scope["method"] != "HEAD"


def websocket(**parts: Any) -> asyncio.Protocol:
    """What uvicorn is given as its `ws`: a protocol whose library is loaded when the first WebSocket is asked for.

    That takes some 50 ms and 2 MB, which a server without WebSockets does not pay.
    """
    from corral.gateway.sockets import Socket

    return Socket(**parts)


def hurry(connections: Iterable[object], now: float, patience: float) -> None:
    """Refuse those who have owed us the rest of a request for longer than `patience` seconds; close who rests too long.

    How long that is, uvicorn has been told (`timeout_keep_alive`).
    """
    for connection in list(connections):
        if not isinstance(connection, Protocol):
            continue
        if connection.idle_since is not None and now - connection.idle_since > connection.timeout_keep_alive:
            connection.timeout_keep_alive_handler()
        elif connection.owed_since is not None and not connection.pipeline:
            owed = now - connection.owed_since
            if owed > patience:
                connection.refuse(RequestTimeout(f"The request was not whole after {owed:.0f} s.", "Send it faster."))
