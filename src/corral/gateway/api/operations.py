"""`/api/v1/models/operations`: long work as it stands, as it goes on, and stopping it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from corral.domain.operations import Operation, OperationStatus
from corral.errors import OperationNotFound
from corral.gateway.api.pages import Limit, printable, reply
from corral.gateway.workshop import Workshop
from corral.kit.relay import Receive, Send

if TYPE_CHECKING:
    from corral.operations.durable import Operations

_ID = re.compile(r"[\w\-]{1,64}", re.ASCII)

HEARTBEAT = 15.0
"""Seconds of silence after which a stream says that it is still there."""


class OperationFailure(BaseModel):
    """Why an operation failed."""

    code: str
    message: str
    hint: str = ""


class OperationState(BaseModel):
    """An operation. Bytes, bytes a second, seconds; times in Unix seconds; what is not known is null."""

    operation_id: str
    model_name: str
    operation_type: str = Field(description="install, update, remove, verify, move, push or gc")
    status: OperationStatus
    progress: float = Field(description="0 to 100, never going backwards")
    message: str
    error: str | None = Field(description="What went wrong, in words")
    failure: OperationFailure | None = Field(description="The same in parts")
    phase: str
    done_bytes: int
    total_bytes: int | None
    rate: float | None
    eta_seconds: float | None
    attempts: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    params: dict[str, Any]
    result: dict[str, Any] | None


class OneOperation(BaseModel):
    """Answer about one operation."""

    success: bool = True
    operation: OperationState


class ManyOperations(BaseModel):
    """A page of operations, newest first. `next` is the `before` of the next page; null on the last."""

    success: bool = True
    operations: list[OperationState]
    count: int
    next: str | None


def describe(operation: Operation) -> dict[str, Any]:
    """The operation as JSON has it: the same everywhere, whatever carries it."""
    failure = operation.error
    return {
        "operation_id": operation.id,
        "model_name": operation.order.model,
        "operation_type": operation.order.kind,
        "status": operation.status,
        "progress": round(operation.progress, 1),
        "message": operation.message or _words(operation),
        "error": None if failure is None else f"{failure.message} {failure.hint}".rstrip(),
        "failure": None
        if failure is None
        else {"code": failure.code, "message": failure.message, "hint": failure.hint},
        "phase": operation.phase,
        "done_bytes": operation.done,
        "total_bytes": operation.total,
        "rate": operation.rate,
        "eta_seconds": operation.eta,
        "attempts": operation.attempts,
        "created_at": operation.created_at,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "params": dict(operation.order.params),
        "result": None if operation.result is None else dict(operation.result),
    }


def router(workshop: Workshop) -> APIRouter:
    """The routes, over the operations of `workshop`."""
    routes = APIRouter(prefix="/api/v1/models/operations", tags=["operations"])

    @routes.get("", response_model=ManyOperations)
    async def list_operations(
        limit: Limit = 50,
        before: Annotated[str | None, Query(description="`next` of the page before")] = None,
        status: Annotated[OperationStatus | None, Query(description="Only those that stand so")] = None,
        model: Annotated[str | None, Query(description="Only those about this model")] = None,
    ) -> Response:
        """Operations of this home, newest first, ended ones too until they are forgotten."""
        for text, what in ((before, "before"), (model, "model")):
            printable(text or "", what)
        operations = await workshop.look()
        found = [] if operations is None else await operations.page(limit + 1, before, status, model)
        page = [describe(operation) for operation in found[:limit]]
        after = page[-1]["operation_id"] if len(found) > limit else None
        return reply({"success": True, "operations": page, "count": len(page), "next": after})

    @routes.get("/{operation_id}", response_model=OneOperation)
    async def one_operation(operation_id: str) -> Response:
        """One operation as it stands now."""
        return _one(await (await _open(workshop, operation_id)).get(operation_id))

    @routes.post("/{operation_id}/cancel", response_model=OneOperation)
    async def cancel(operation_id: str) -> Response:
        """Call it off; what has arrived and nothing else needs is removed. 409 when it has ended."""
        return _one(await (await _open(workshop, operation_id)).cancel(operation_id))

    @routes.post("/{operation_id}/pause", response_model=OneOperation)
    async def pause(operation_id: str) -> Response:
        """Stop it where it is; what has arrived is kept. 409 when it has ended or is paused."""
        return _one(await (await _open(workshop, operation_id)).pause(operation_id))

    @routes.post("/{operation_id}/resume", response_model=OneOperation)
    async def resume(operation_id: str) -> Response:
        """Go on with a paused one. 409 when it is not paused."""
        return _one(await (await _open(workshop, operation_id)).resume(operation_id))

    @routes.get("/{operation_id}/events", response_class=StreamingResponse)
    async def events(
        request: Request, operation_id: str, last_event_id: Annotated[str | None, Header()] = None
    ) -> Response:
        """The operation, now and whenever it changes, as server-sent events; ends when it has ended.

        A client that comes back with the `Last-Event-ID` of the end is told 204, so that it stays away.
        """
        operations = await _open(workshop, operation_id)
        now = await operations.get(operation_id)
        if now.status.ended and last_event_id == identity(describe(now)):
            return Response(status_code=204)
        stream = _events(changes(operations, operation_id, workshop.leaving), last_event_id)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"cache-control": "no-cache", "x-accel-buffering": "no"}
        )

    return routes


def identity(described: dict[str, Any]) -> str:
    """What an event is called, so that a client that saw it need not be told again."""
    return hashlib.sha256(orjson.dumps(described)).hexdigest()[:16]


async def changes(
    operations: Operations, operation_id: str, leaving: asyncio.Event, heartbeat: float = HEARTBEAT
) -> AsyncGenerator[Operation | None, None]:
    """The operation as it changes, until it has ended or the server leaves; None for `heartbeat` seconds of silence."""
    watch = operations.watch(operation_id)
    left = asyncio.ensure_future(leaving.wait())
    step: asyncio.Future[Operation] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(watch))
            waiting: set[asyncio.Future[Any]] = {step, left}
            await asyncio.wait(waiting, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                try:
                    operation = step.result()
                except StopAsyncIteration:
                    return
                step = None
                yield operation
            elif left.done():
                return
            else:
                yield None
    finally:
        left.cancel()
        if step is not None:
            step.cancel()
            await asyncio.wait({step})
        if isinstance(watch, AsyncGenerator):
            await watch.aclose()


async def converse(workshop: Workshop, operation_id: str, receive: Receive, send: Send, accepted: str | None) -> None:
    """Tell a WebSocket's client of the operation until that has ended, the client has left, or the server leaves.

    What the client says is not listened to; each message is read, so that it can be dropped.

    Raises:
        OperationNotFound: there is none; nothing has been accepted.
    """
    operations = await _open(workshop, operation_id)
    await operations.get(operation_id)
    await send({"type": "websocket.accept", "subprotocol": accepted})
    gone = asyncio.ensure_future(_until_gone(receive))
    stream = changes(operations, operation_id, workshop.leaving, heartbeat=3600)
    try:
        async with aclosing(stream):
            while not gone.done():
                step = asyncio.ensure_future(_next(stream))
                await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    await asyncio.wait({step})
                    return
                operation = step.result()
                if operation is None:
                    break
                await send({"type": "websocket.send", "text": orjson.dumps(describe(operation)).decode()})
        if not gone.done():
            code = 1001 if workshop.leaving.is_set() else 1000
            await send({"type": "websocket.close", "code": code})
    except OSError:
        return  # the client left while it was told
    finally:
        gone.cancel()
        await asyncio.wait({gone})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _next(stream: AsyncIterator[Operation | None]) -> Operation | None:
    """The next change; None when there are no more."""
    async for operation in stream:
        if operation is not None:
            return operation
    return None


async def _events(
    changes: AsyncGenerator[Operation | None, None], last_event_id: str | None
) -> AsyncGenerator[bytes, None]:
    yield b"retry: 1000\n\n"
    async with aclosing(changes):
        async for operation in changes:
            if operation is None:
                yield b": still here\n\n"
                continue
            described = describe(operation)
            name = identity(described)
            if name != last_event_id:
                yield b"id: " + name.encode() + b"\ndata: " + orjson.dumps(described) + b"\n\n"


async def _open(workshop: Workshop, operation_id: str) -> Operations:
    operations = await workshop.look() if _ID.fullmatch(operation_id) else None
    if operations is None:
        raise OperationNotFound(
            f"There is no operation {operation_id[:100]!r}.", "GET /api/v1/models/operations lists them."
        )
    return operations


def _one(operation: Operation) -> Response:
    return reply({"success": True, "operation": describe(operation)})


def _words(operation: Operation) -> str:
    """What there is to say of an operation that says nothing itself."""
    kind, model = operation.order.kind, operation.order.model
    return f"{kind} {model}: {operation.status}".replace("in_progress", "at work").replace(" :", ":")
