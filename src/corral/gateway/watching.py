"""`/api/v1/runs/{id}`, live: what happens in a run, for server-sent events and WebSockets alike.

    {"type": "snapshot", "at", "run", "steps", "artifacts"}   how it stands, first of all
    {"type": "run", "at", "run"}                              the run as it stands now
    {"type": "step", "at", "step"}                            a step likewise
    {"type": "text", "at", "step", "text"}                    what a model has just said, of the step with that key
    {"type": "artifact", "at", "artifact"}                    something was made
    {"type": "cost", "at", "cost_usd", "input_tokens", "output_tokens"}   all of the run, so far
    {"type": "end", "at", "status"}                           it has ended

Times in Unix seconds.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson

from corral.app import ahead
from corral.gateway.bounds import Visit
from corral.gateway.progress import paced
from corral.gateway.telling import tell

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Mapping

    from corral.app import Corral
    from corral.app.workspace import Workspace
    from corral.domain.callers import Caller
    from corral.kit.relay import Receive, Send

SOCKET = "/api/v1/runs/{id}/ws"
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'data: {"type": "text", "at": 1763780402.5, "step": "code", "text": "export"}\n\n',
            }
        }
    },
    204: {"description": "It has ended, and the client has heard that"},
}
"""What OpenAPI says of the route that tells of a run."""
_SOCKET = re.compile(r"/api/v1/runs/([^/]+)/ws")


def ending(run_id: str, status: str) -> str:
    """What the last event is called, so that a client that saw it need not come back."""
    return f"{run_id}-{status}"


def asked(path: str) -> str | None:
    """The run that a WebSocket at `path` is about; None where it is about none."""
    found = _SOCKET.fullmatch(path)
    return None if found is None else found[1]


async def events(workspace: Workspace, run_id: str, leaving: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """What happens in the run, and signs of life between it."""
    yield b"retry: 1000\n\n"
    async with aclosing(paced(workspace.watch(run_id), leaving)) as messages:
        async for message in messages:
            if message is None:
                yield b": still here\n\n"
                continue
            if message["type"] == "end":
                yield b"id: " + ending(run_id, message["status"]).encode() + b"\n"
            yield b"data: " + orjson.dumps(message) + b"\n\n"


async def converse(
    corral: Corral,
    caller: Caller,
    run_id: str,
    leaving: asyncio.Event,
    receive: Receive,
    send: Send,
    accepted: str | None,
) -> None:
    """Tell a WebSocket's client of the run until that has ended, the client has left, or the server leaves.

    Raises:
        EntryNotFound: there is none for this caller; nothing has been accepted.
    """
    await ahead.workspace()
    run = await Visit(corral.workspace, caller).entry("runs", run_id)
    await tell(_told(corral.workspace, run.id, leaving), leaving, receive, send, accepted)


async def _told(
    workspace: Workspace, run_id: str, leaving: asyncio.Event
) -> AsyncGenerator[Mapping[str, Any] | None, None]:
    async with aclosing(paced(workspace.watch(run_id), leaving, heartbeat=3600)) as messages:
        async for message in messages:
            yield message
