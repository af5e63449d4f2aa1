"""Lists in pages, and answers that a client has already: what all lists of the management API have in common."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import Query, Request, Response

from corral.errors import InvalidRequest

LARGEST = 1000
"""Entries of a page."""

Limit = Annotated[int, Query(ge=1, le=LARGEST, description="Entries of a page")]

_here = secrets.token_hex(4)
"""This process: what an answer says may depend on its configuration, so another's tags are not ours."""


def reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON, by the fast way: no model validates what we wrote ourselves."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def conditional(request: Request, state: str, make: Callable[[], Any]) -> Response:
    """What `make` gives, under a tag of `state`; 304 and nothing made for a client that has it already."""
    asked = f"{_here}\n{state}\n{request.url.path}\n{request.url.query}"
    tag = f'"{hashlib.sha256(asked.encode()).hexdigest()[:24]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    held = request.headers.get("if-none-match", "")
    if held.strip() == "*" or tag in [item.strip().removeprefix("W/") for item in held.split(",")]:
        return Response(status_code=304, headers=headers)
    return reply(make(), headers=headers)


def printable(text: str, what: str) -> str:
    """`text` itself, when it is short and holds nothing that cannot be shown.

    Raises:
        InvalidRequest: it is over 1000 characters, or has control characters.
    """
    if len(text) > 1000 or not text.isprintable():
        raise InvalidRequest(f"{what} must be printable and at most 1000 characters.", param=what)
    return text
