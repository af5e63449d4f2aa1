"""`/api/v1/contexts`: the material of a project, in its order, and the bytes of its files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Query as Asked

from corral.app import authoring
from corral.domain.workspace import Context, ContextKind
from corral.errors import InvalidRequest
from corral.gateway.api.downloads import DOWNLOAD, LARGE, attachment, large, taking
from corral.gateway.api.workspace_entries import (
    BASE,
    CONTEXTS,
    Desk,
    Key,
    Lists,
    changed,
    listed,
    single,
    version,
    written,
)
from corral.gateway.api.workspace_requests import ContextChange, NewContext, Reorder
from corral.gateway.api.workspace_shapes import InOrder, ManyContexts, OneContext
from corral.workspace.described import describe


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix=f"{BASE}/contexts", tags=["contexts"])

    @routes.get("", response_model=ManyContexts)
    async def list_contexts(
        request: Request,
        lists: Lists,
        kind: Annotated[ContextKind | None, Asked(description="Only of this kind")] = None,
        enabled: Annotated[
            bool | None, Asked(description="Only those that are given to models, or that are not")
        ] = None,
    ) -> Response:
        """Material; `?project=…&sort=position` is that of one project, in its order."""
        return await listed(request, await desk.visit(request), CONTEXTS, lists, kind=kind, enabled=enabled)

    @routes.post("", response_model=OneContext, status_code=201)
    async def create_context(request: Request, given: NewContext) -> Response:
        """Add a piece of material, the last in its order unless it says where."""
        visit = await desk.visit(request)
        project = await visit.project(given.project)
        _fits(given.kind, given.given())
        made = await visit.store.contexts.create(Context(id="", **{**given.given(), "project": project.id}))
        return single(request, CONTEXTS, made, made=True)

    @routes.post("/reorder", response_model=InOrder)
    async def reorder(request: Request, given: Reorder) -> Response:
        """Put the contexts of a project into another order."""
        visit = await desk.visit(request)
        project = await visit.project(given.project)
        found = [describe(each) for each in await visit.store.contexts.reorder(project.id, given.ids)]
        return written(request, {"success": True, "contexts": found, "count": len(found)})

    @routes.patch("/{id}", response_model=OneContext)
    async def change_context(request: Request, key: Key, given: ContextChange) -> Response:
        """Change what is given of it. Runs that there are keep what they were given."""
        visit = await desk.visit(request)
        _fits((await visit.entry("contexts", key)).kind, given.given())
        return await changed(request, visit, CONTEXTS, key, given.given())

    _content(routes, desk)
    return routes


def _content(routes: APIRouter, desk: Desk) -> None:
    @routes.get("/{id}/content", responses=DOWNLOAD, response_class=Response)
    async def content(request: Request, key: Key) -> Response:
        """The bytes of a file or document, to be saved. 404 where there are none."""
        visit = await desk.visit(request)
        context = await visit.entry("contexts", key)
        if context.digest is not None and context.size > LARGE:
            pieces = visit.store.contents.pieces(context.digest)
            return large(request, context.name, pieces, context.size, context.media_type, tag=context.digest)
        held = await visit.store.contexts.content(context.id)
        return attachment(request, context.name, held, context.media_type, tag=context.digest)

    @routes.put(
        "/{id}/content",
        response_model=OneContext,
        openapi_extra=taking("*/*", "The file, under its own content type; up to `workspace.max_artifact`"),
    )
    async def put(request: Request, key: Key) -> Response:
        """Give a file or document its bytes, which must be text in UTF-8: models are given nothing else."""
        visit = await desk.visit(request)
        context = await visit.changeable("contexts", key)
        body = await request.body()
        kind = request.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
        stored = await authoring.put_file(visit.store, context, body, kind[:100], version=version(request))
        return single(request, CONTEXTS, stored)


def _fits(kind: ContextKind, given: dict[str, Any]) -> None:
    """Refuse what a context of that kind does not have.

    Raises:
        InvalidRequest: says which.
    """
    if given.get("variables") and kind is not ContextKind.VARIABLES:
        raise InvalidRequest(f"Only a context of kind variables has `variables`; this is {kind}.", param="variables")
    if given.get("text") and kind is ContextKind.VARIABLES:
        raise InvalidRequest("A context of kind variables has no `text`.", param="text")
