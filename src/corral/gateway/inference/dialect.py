"""Which dialect is spoken on a path, and errors in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from corral.dialects.form import form
from corral.gateway.envelope import envelope

if TYPE_CHECKING:
    from corral.errors import CorralError

_SPOKEN = (
    ("/v1/messages", "anthropic.messages"),
    ("/v1/responses", "openai.responses"),
    ("/v1beta/", "gemini.generate"),
    ("/v1alpha/", "gemini.generate"),
    ("/v1/", "openai.chat"),
    ("/api/v1/", None),
    ("/api/", "ollama.chat"),
)
"""The beginnings of paths, and a form of the dialect that is spoken below; the first that fits counts."""


def spoken(path: str) -> str | None:
    """The name of a form in which errors are told on a path; None where no dialect is spoken."""
    if path.startswith("/v1/models/") and ":" in path:
        return "gemini.generate"
    return next((name for begin, name in _SPOKEN if path.startswith(begin)), None)


def render(path: str, error: CorralError) -> bytes:
    """`error` as the clients on this path expect it."""
    name = spoken(path)
    return orjson.dumps(envelope(error) if name is None else form(name).write_error(error))
