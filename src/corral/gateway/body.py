"""A request's body, read whole and never beyond the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import BodyTooLarge, InvalidRequest

if TYPE_CHECKING:
    from corral.config import Settings
    from corral.kit.relay import Message, Receive

_LARGEST = 1024 * 1024
"""Bytes of a body that the management API takes, but for files."""


class ClientLeft(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


async def read_body(receive: Receive, declared: bytes | None, limit: int) -> bytes:
    """The whole body. `declared` is the Content-Length header, `limit` is in bytes.

    Raises:
        BodyTooLarge: it is, or says it is, over the limit.
        InvalidRequest: the declared length is no number.
        ClientLeft: the connection was lost.
    """
    if declared is not None:
        if not declared.isdigit():
            raise InvalidRequest("Content-Length is not a number.")
        if int(declared) > limit:
            raise too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limit:
            raise too_large(limit)
        return body
    pieces = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise too_large(limit)
    return b"".join(pieces)


def bounded(receive: Receive, limit: int) -> Receive:
    """`receive` for an application of Starlette's: a body over `limit` bytes is refused there as it comes."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, f"The body is larger than {limit} bytes.")
        return message

    return counted


def room(method: str, path: str, settings: Settings) -> tuple[int, str]:
    """Bytes of a body that the management API takes at `path`, and the setting that raises it; empty: none."""
    if method in ("PUT", "POST") and path.startswith(("/api/v1/artifacts/", "/api/v1/contexts/")):
        if path.endswith("/content"):
            return settings.workspace.max_artifact, "workspace.max_artifact"
    elif method == "POST" and path == "/api/v1/projects/import":
        return settings.workspace.max_import, "workspace.max_import"
    return min(_LARGEST, settings.server.max_body), ""


def too_large(limit: int, setting: str = "server.max_body") -> BodyTooLarge:
    """What is said of a body over `limit` bytes, which `setting` raises."""
    return BodyTooLarge(
        f"The body is larger than {limit} bytes.", f"Send less, or raise {setting}." if setting else "Send less."
    )
