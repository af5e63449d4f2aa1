"""An answer whose content type says something else than what it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corral.kit.relay import Reply
    from corral.kit.response import Header

_TYPE = b"content-type"


class Labelled:
    """`reply`, which is taken for `kind` whatever it calls itself. See `kit.relay.Reply`.

    Some servers call their events plain text; whether it is what it has to be is seen when it passes.
    """

    __slots__ = ("_reply", "headers")

    def __init__(self, reply: Reply, kind: bytes) -> None:
        self._reply = reply
        self.headers: list[Header] = [each for each in reply.headers if each[0] != _TYPE]
        self.headers.append((_TYPE, kind))

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._reply.status

    @property
    def whole(self) -> bool:
        """Whether all of the body is there."""
        return self._reply.whole

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, where its head says so."""
        return self._reply.content_length

    @property
    def framed(self) -> bool:
        """Whether each piece of the body is whole events."""
        return self._reply.framed

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header called `name`."""
        return next((value for key, value in self.headers if key == name), None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece."""
        return aiter(self._reply)

    async def read(self) -> bytes:
        """The whole body."""
        return await self._reply.read()

    def close(self) -> None:
        """Read no further."""
        self._reply.close()
