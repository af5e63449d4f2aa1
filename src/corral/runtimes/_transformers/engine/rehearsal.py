"""One request answered before the port is open, so that an engine that is ready is one that answers."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .door import App, Message

_ASKED: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
}
_TOKENS = 2
"""One comes of reading the prompt, and the other of writing."""


async def rehearse(app: App, key: str, name: str) -> None:
    """Have the app behind the door answer a conversation, or where that is refused, a completion.

    A refusal is an answer: a chat template may want something else first.

    Raises:
        RuntimeError: neither was answered.
    """
    for path, asked in _ASKED.items():
        status, said = await ask(app, key, path, {"model": name, "max_tokens": _TOKENS, **asked})
        if status < 400:
            return
        if status >= 500:
            with suppress(ValueError, LookupError, TypeError):
                said = json.loads(said)["error"]["message"]
            raise RuntimeError(f"the first request was not answered: {said}")


async def ask(app: App, key: str, path: str, body: Mapping[str, Any]) -> tuple[int, str]:
    """Ask the app from within, and return the status and text of its answer."""
    content = json.dumps(body).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")],
    }
    status, answer, asked = 0, b"", False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # the client stays
        asked = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, answer
        status = message.get("status", status)
        answer += message.get("body", b"")

    await app(scope, receive, send)
    return status, answer.decode(errors="replace")
