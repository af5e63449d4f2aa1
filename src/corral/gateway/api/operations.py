"""`/api/v1/models/operations`: long work as it stands, as it goes on, and stopping it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from corral.domain.operations import Operation, OperationStatus, describe
from corral.gateway.api.pages import Limit, printable, reply
from corral.gateway.progress import changes, find
from corral.gateway.workshop import Workshop


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
        return _one(await (await find(workshop, operation_id)).get(operation_id))

    @routes.post("/{operation_id}/cancel", response_model=OneOperation)
    async def cancel(operation_id: str) -> Response:
        """Call it off; what has arrived and nothing else needs is removed. 409 when it has ended."""
        return _one(await (await find(workshop, operation_id)).cancel(operation_id))

    @routes.post("/{operation_id}/pause", response_model=OneOperation)
    async def pause(operation_id: str) -> Response:
        """Stop it where it is; what has arrived is kept. 409 when it has ended or is paused."""
        return _one(await (await find(workshop, operation_id)).pause(operation_id))

    @routes.post("/{operation_id}/resume", response_model=OneOperation)
    async def resume(operation_id: str) -> Response:
        """Go on with a paused one. 409 when it is not paused."""
        return _one(await (await find(workshop, operation_id)).resume(operation_id))

    @routes.get("/{operation_id}/events", response_class=StreamingResponse)
    async def events(
        request: Request, operation_id: str, last_event_id: Annotated[str | None, Header()] = None
    ) -> Response:
        """The operation, now and whenever it changes, as server-sent events; ends when it has ended.

        A client that comes back with the `Last-Event-ID` of the end is told 204, so that it stays away.
        """
        operations = await find(workshop, operation_id)
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
            if name != last_event_id:  # the row may change in what nobody is told
                last_event_id = name
                yield b"id: " + name.encode() + b"\ndata: " + orjson.dumps(described) + b"\n\n"


def _one(operation: Operation) -> Response:
    return reply({"success": True, "operation": describe(operation)})
