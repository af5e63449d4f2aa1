"""An answer whose first piece has been waited for, and is given first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corral.kit.relay import Reply
    from corral.kit.response import Header


class Primed:
    """`reply`, of which `first` has been read. See `kit.relay.Reply`."""

    __slots__ = ("_first", "_reply", "_rest", "content_length", "framed", "headers", "status", "whole")

    def __init__(self, reply: Reply, first: bytes, rest: AsyncIterator[bytes] | None) -> None:
        self.status = reply.status
        self.headers: list[Header] = reply.headers
        self.content_length = reply.content_length
        self.framed = reply.framed
        self.whole = rest is None
        self._reply = reply
        self._first = first
        self._rest = rest

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header called `name`."""
        return self._reply.header(name)

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece."""
        first, self._first = self._first, b""
        if first:
            yield first
        if self._rest is not None:
            async for piece in self._rest:
                yield piece

    def close(self) -> None:
        """Read no further."""
        self._reply.close()


async def primed(reply: Reply) -> Primed:
    """`reply`, once its first piece is there; all of it where it is whole.

    Raises:
        UpstreamError: it broke before that.
    """
    if reply.whole:
        return Primed(reply, await reply.read(), None)
    rest = aiter(reply)
    return Primed(reply, await anext(rest, b""), rest)
