"""Answers in pieces, as server-sent events are: each goes out as it comes, and who leaves ends what makes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral.kit.clients import Clients


class Streaming(Response):
    """What `pieces` gives: events, unless `media_type` and `headers` say what else; `size` bytes, where that is known.

    What goes wrong before its first piece is an answer of its own, with its status; the pieces are closed in every
    case, also when the client goes away in the middle of them.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        size: int | None = None,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        known = {"x-accel-buffering": "no", "cache-control": "no-cache", **(headers or {})}
        super().__init__(headers=known, media_type=media_type)
        if size is None:
            del self.headers["content-length"]
        else:
            self.headers["content-length"] = str(size)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        with Clients().watch(receive):
            async with aclosing(self._pieces) as pieces:
                first = await anext(pieces, b"")
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
