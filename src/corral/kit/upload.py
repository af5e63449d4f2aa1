"""Bodies of requests that are read while they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECE = 64 * 1024
"""Bytes of a request body written at once; a larger one is written as the other side takes it."""


class Upload(Protocol):
    """A body of `size` bytes, which are not all in memory."""

    @property
    def size(self) -> int:
        """Bytes of all pieces together."""
        ...

    def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """The bytes in their order, from the first on each time.

        Raises:
            InvalidRequest: they cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A body that is in memory."""

    content: bytes

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.content)

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """It, in pieces, without a copy."""
        view = memoryview(self.content)
        for start in range(0, len(view), PIECE):
            yield view[start : start + PIECE]
