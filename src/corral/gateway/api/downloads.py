"""Files that are given to clients, so that no browser runs what is in them; and files that are taken from clients."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response

from corral.gateway.api.streaming import Streaming
from corral.gateway.api.workspace_entries import held

_PLAIN = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_NOTED = 4_000
"""Characters of a header that clients take without asking."""
_READABLE = frozenset({"application/json", "application/javascript", "application/xml", "image/svg+xml"})
_SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
}

LARGE = 1 << 20
"""Bytes of a file from which on it is sent in pieces."""

DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, to be saved: text as plain text, all else as bytes",
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": "export const one = 1;\n"},
            _BYTES: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""What OpenAPI says of a route that gives a file."""
ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A zip archive",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""What it says of one that gives an archive."""


def taking(kind: str, what: str) -> dict[str, Any]:
    """What OpenAPI says of a route that takes a file as its whole body."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"description": what, "required": True, "content": content}}


def attachment(
    request: Request, name: str, content: bytes, media_type: str, *, tag: str | None = None, notes: Sequence[str] = ()
) -> Response:
    """A file to be saved as `name`; 304 for a client that has what `tag` stands for.

    `notes` are what should be known of it, a sentence each: `x-corral-notes` has them as a JSON list in ASCII.
    """
    headers = {**_SAFE, "content-disposition": _disposition(name), "cache-control": "no-cache"}
    if notes:
        headers["x-corral-notes"] = _noted(notes)
    if tag is not None:
        headers["etag"] = f'"{tag}"'
        if held(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_shown_as(media_type))


def large(
    request: Request, name: str, pieces: AsyncGenerator[bytes, None], size: int, media_type: str, *, tag: str
) -> Response:
    """As `attachment`, of `size` bytes that come in pieces: whoever takes them slowly takes up no memory."""
    headers = {**_SAFE, "content-disposition": _disposition(name), "cache-control": "no-cache", "etag": f'"{tag}"'}
    if held(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Streaming(pieces, size=size, media_type=_shown_as(media_type), headers=headers)


def poured(name: str, pieces: AsyncGenerator[bytes, None], media_type: str) -> Response:
    """A file to be saved as `name`, as its pieces come. What goes wrong before the first is an answer of its own."""
    headers = {**_SAFE, "content-disposition": _disposition(name), "cache-control": "no-store"}
    return Streaming(pieces, media_type=media_type, headers=headers)


def _noted(notes: Sequence[str]) -> str:
    """As many of the notes as one header holds, and how many more there are."""
    kept, told = len(notes), list(notes)
    while len(written := json.dumps(told)) > _NOTED:
        kept //= 2
        told = [*notes[:kept], f"There are {len(notes) - kept} more."]
    return written


def _shown_as(media_type: str) -> str:
    """The type under which a browser shows at most the text."""
    bare = media_type.partition(";")[0].strip().lower()
    return _PLAIN if bare.startswith("text/") or bare in _READABLE else _BYTES


def _disposition(name: str) -> str:
    """The last part of `name`, in a header that nothing in it can get out of."""
    last = name.replace("\\", "/").rpartition("/")[2] or "download"
    plain = "".join(each if each.isascii() and (each.isalnum() or each in "._- ") else "_" for each in last)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last, safe='')}"
