"""Telling many listeners in one loop, none of whom may hold up the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")

BACKLOG = 256


class Announcer(Generic[T]):
    """Tells whoever listens. A listener too slow by 256 messages loses the oldest."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[T | None]] = set()

    def tell(self, message: T | None) -> None:
        """Tell everybody; None is the end, and sends every listener home. Does not wait."""
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)

    async def listen(self) -> AsyncGenerator[T, None]:
        """Everything from now on."""
        queue: asyncio.Queue[T | None] = asyncio.Queue(BACKLOG)
        self._listeners.add(queue)
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._listeners.discard(queue)
