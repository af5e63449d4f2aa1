"""The server's side of a client's connection: uvicorn's own protocol, but head and body go out in one write.

ASGI gives a response in two messages, uvicorn writes each as it comes, and uvloop hands each write to the kernel at
once: two system calls and two segments for the shortest answer (docs/decisions/0007).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

_HEAD = b"HTTP/1.1 "


class Joining:
    """A transport that holds a response's head back until its first body bytes, or the next turn of the loop."""

    __slots__ = ("_held", "_loop", "_transport", "get_extra_info", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
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
            self._transport.writelines((held, data))
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close when all is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)


class Protocol(HttpToolsProtocol):
    """What uvicorn is given as its `http`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        joining: Any = Joining(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(joining)
