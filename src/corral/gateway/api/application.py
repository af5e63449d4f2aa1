"""The management API: FastAPI over the same parts as the inference routes. Errors have one shape everywhere."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from corral import __version__
from corral.app import Corral
from corral.app.registration import Registrations
from corral.errors import BodyTooLarge, CorralError, InvalidRequest, NotFound
from corral.gateway.api import (
    artifacts,
    budgets,
    catalog,
    checkup,
    containers,
    contexts,
    hardware,
    keys,
    models,
    operations,
    pipelines,
    projects,
    routes,
    runs,
    runtime,
    services,
    settings,
    usage,
    workspace_entries,
)
from corral.gateway.envelope import beside, crash, envelope
from corral.gateway.feed import Feed
from corral.gateway.workshop import Workshop


class Trouble(BaseModel):
    """What went wrong. `code` is one of docs/errors.md, and stays the same."""

    code: str
    message: str
    hint: str = Field(description="What to do about it; may be empty")


class Refusal(BaseModel):
    """What is answered instead, by every route alike."""

    success: Literal[False]
    error: Trouble


_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "It is not done, for a reason that whoever asks can do something about"},
    "5XX": {"model": Refusal, "description": "It cannot be done, for a reason that is not the request's"},
}


def create(
    corral: Corral,
    workshop: Workshop | None = None,
    registrations: Registrations | None = None,
    feed: Feed | None = None,
) -> FastAPI:
    """The application; authentication has been done before it is called. Long work goes to `workshop`."""
    workshop = workshop or Workshop(corral)
    registrations = registrations or Registrations(corral)
    feed = feed or Feed(corral, registrations, workshop.leaving)
    api = FastAPI(
        title="Corral",
        version=__version__,
        summary="Management of models and engines. Inference is at /v1, in OpenAI's dialect.",
        openapi_url="/api/v1/openapi.json",
        docs_url="/docs",
        redoc_url=None,
        responses=_REFUSALS,
    )
    api.include_router(runtime.router(corral, registrations, feed))
    api.include_router(routes.router(corral))
    api.include_router(hardware.router(corral))
    # In this order: what is a word here is no model's name.
    api.include_router(operations.router(workshop))
    api.include_router(catalog.router(corral))
    api.include_router(catalog.room(corral))
    api.include_router(catalog.work(corral, workshop))
    api.include_router(models.router(corral, workshop))
    api.include_router(services.router(corral))
    api.include_router(containers.router(corral, workshop))
    _workspace(api, corral, workshop)
    api.include_router(settings.router(corral))
    api.include_router(checkup.router(corral))
    api.include_router(usage.router(corral.books, corral.clock))
    api.include_router(keys.router(corral))
    api.include_router(budgets.router(corral))
    api.include_router(keys.audited(corral))
    api.add_exception_handler(CorralError, _corral_error)
    api.add_exception_handler(RequestValidationError, _validation_error)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(ClientDisconnect, _left)
    api.add_exception_handler(Exception, _crash)
    return api


def _workspace(api: FastAPI, corral: Corral, workshop: Workshop) -> None:
    desk = workspace_entries.Desk(corral, workshop)
    api.include_router(projects.searching(desk))
    for own, resource in (
        (projects.router(corral, desk), workspace_entries.PROJECTS),
        (contexts.router(desk), workspace_entries.CONTEXTS),
        (pipelines.router(desk), workspace_entries.PIPELINES),
        (runs.router(desk, workshop), workspace_entries.RUNS),
        (artifacts.router(desk), workspace_entries.ARTIFACTS),
    ):
        api.include_router(own)
        api.include_router(workspace_entries.keeping(resource, desk))


def _crash(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse(envelope(crash()), 500)


def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # to nobody: a body was cut


def _corral_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, CorralError):
        raise error
    headers = {name.decode(): value.decode() for name, value in beside(error)}
    return JSONResponse(envelope(error), error.http_status, headers)


def _validation_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return JSONResponse(
        envelope(InvalidRequest(f"{place}: {first['msg']}.", "See /docs for what this route takes.")), 400
    )


def _http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        missing = NotFound(f"There is nothing at {request.url.path}.", "See /docs for the routes.")
        return JSONResponse(envelope(missing), 404)
    if error.status_code == 413:
        return JSONResponse(envelope(BodyTooLarge(str(error.detail), "Send less.")), 413)
    content = {"success": False, "error": {"code": "http_error", "message": str(error.detail), "hint": "See /docs."}}
    return JSONResponse(content, error.status_code, headers=error.headers)
