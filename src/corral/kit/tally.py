"""How long a prompt is, asked of an engine on this machine: what those have in common that can tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from corral.errors import UpstreamProtocol
from corral.kit import loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

Tally = Callable[[str, Mapping[str, Any]], Awaitable[int | None]]
"""Tokens of the prompt of a request, by the path and the document it would be asked with; None: it cannot be told."""

_TIMEOUT = 10.0


def written(document: Mapping[str, Any]) -> bool:
    """Whether the conversation consists of text alone: how many tokens a picture is only the engine's eyes know."""
    messages: Sequence[Any] = document.get("messages") or ()
    parts = (
        part
        for message in messages
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for part in message["content"]
    )
    return all(isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") == "text") for part in parts)


def prompt_of(document: Mapping[str, Any]) -> str | int | None:
    """The one prompt of a text completion: a text, or how many tokens it already is; None: there are several, or none.

    Each of several is read for itself, so their sum says nothing of the context.
    """
    prompt = document.get("prompt")
    if isinstance(prompt, list):
        if prompt and all(isinstance(each, int) for each in prompt):
            return len(prompt)
        prompt = prompt[0] if len(prompt) == 1 else None
    return prompt if isinstance(prompt, str) else None


async def ask(url: str, headers: Mapping[str, str], document: Mapping[str, Any], field: str) -> int | None:
    """The number in `field` of what the engine answers, or the length of a list there; None where it refuses to say.

    What an engine cannot count it will refuse to answer, and says that better itself.

    Raises:
        UpstreamError: it does not answer.
    """
    try:
        status, body = await loopback.post(url, headers, _TIMEOUT, orjson.dumps(document))
        found = orjson.loads(body).get(field) if status == 200 else None
    except (UpstreamProtocol, ValueError, AttributeError):
        return None
    if isinstance(found, list):
        return len(found)
    return found if type(found) is int else None
