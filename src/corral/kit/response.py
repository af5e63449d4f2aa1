"""An answer of an engine or vendor as it arrives on a connection of `http1.py`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from corral.errors import UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from corral.errors import UpstreamError
    from corral.kit.http1 import Connection

Header = tuple[bytes, bytes]

LOW_WATER = 64 * 1024
"""Bytes that still wait for a slow reader when a sender that was held back may go on."""


class Response:
    """An answer whose head has arrived. Iterate over it for the body, piece by piece as it comes; once only.

    `headers` have lower-case names. `content_length` is None when the answer did not say. `whole` turns true when all
    of the body has arrived: when it is true at once, as with most short answers, `read` does not wait.

    Iterating and `read` raise UpstreamUnreachable when the other side went away too early, UpstreamTimeout and
    UpstreamProtocol; what arrived before comes first. When they are cancelled the connection is closed. Whoever does
    not read to the end calls `close`.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_error",
        "_sink",
        "_size",
        "_waiter",
        "content_length",
        "headers",
        "status",
        "whole",
    )
    framed = False
    """Pieces of the body are cut anywhere."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.content_length: int | None = None
        self.whole = False
        self._connection: Connection | None = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header called `name` (lower case)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.whole:
                raise StopAsyncIteration
            await self._arrival()
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if self._connection is not None and self._size <= LOW_WATER:
            self._connection.resume()
        return chunk

    async def read(self) -> bytes:
        """The whole body, or what is left of it."""
        if self.whole and len(self._chunks) == 1:
            self._size = 0
            return self._chunks.popleft()
        return b"".join([chunk async for chunk in self])

    async def pour(self, sink: Callable[[bytes], bool]) -> None:
        """Give `sink` each piece in the very turn of the loop in which it comes, until nothing more comes.

        Returns early when `sink` gives False. Whatever comes after that waits to be iterated over, and so does
        the error that the answer breaks with.
        """
        if self._chunks or self._connection is None:
            return
        self._sink = sink
        try:
            await self._arrival()
        finally:
            self._sink = None

    def close(self) -> None:
        """Stop: when the answer is not whole its connection is aborted, and the other side sees that. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def aclose(self) -> None:
        """`close`, for those who expect to await it."""
        self.close()

    async def _arrival(self) -> None:
        connection = self._connection
        if connection is None:
            raise UpstreamUnreachable("The answer was closed before it was whole.")
        waiter = self._waiter = connection.loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    # What its connection tells it.

    def take(self, chunk: bytes) -> int:
        """The next piece of the body; returns how many bytes now wait for the reader."""
        sink = self._sink
        if sink is not None:
            if not sink(chunk):
                self._sink = None
                self.wake()
            return 0
        self._chunks.append(chunk)
        self._size += len(chunk)
        return self._size

    def end(self, error: UpstreamError | None) -> None:
        """Nothing more comes: the body is whole, or `error` says why it never will be."""
        self._error = error
        self.whole = error is None
        self._connection = self._sink = None
        self.wake()

    def wake(self) -> None:
        """Let the reader look, unless all is poured."""
        if self._sink is None and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
