"""Who is let in to the engine, to which paths, and in what form it answers."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/facts", "/count"})

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Door:
    """Lets in who has the key, to the paths that Corral uses, and ends streams as OpenAI does."""

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._key = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._key):
            await refuse(send, 401, "The key is missing or wrong.")
        elif scope["path"] not in PATHS:
            await refuse(send, 404, f"There is nothing at {scope['path']}.")
        else:
            # Ids of requests are the library's keys to what it computes: two clients must not choose the same.
            headers = [item for item in scope["headers"] if item[0] != b"x-request-id"]
            await self._app({**scope, "headers": headers}, receive, finishing(send))


def finishing(send: Send) -> Send:
    """`send`, with `[DONE]` put at the end of a stream of events."""
    events = False

    async def sent(message: Message) -> None:
        nonlocal events
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            events = bool(kinds) and kinds[0].startswith(b"text/event-stream")
        elif events and message["type"] == "http.response.body" and not message.get("more_body"):
            message = {**message, "body": message.get("body", b"") + b"data: [DONE]\n\n"}
        await send(message)

    return sent


async def refuse(send: Send, status: int, said: str) -> None:
    """Answer with an error in OpenAI's form."""
    body = json.dumps(error_body(status, said)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(status: int, said: str, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "authentication_error" if status == 401 else "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": said, "type": kind, "param": None, "code": code}}
