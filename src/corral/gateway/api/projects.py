"""`/api/v1/projects`: what is worked on; and `/api/v1/workspace/search`: whatever has these words in it."""

from __future__ import annotations

import tempfile
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from corral.app import Corral
from corral.domain.workspace import Project, check_project
from corral.errors import InvalidRequest
from corral.gateway.api.downloads import ARCHIVE, poured, taking
from corral.gateway.api.pages import printable
from corral.gateway.api.workspace_entries import (
    BASE,
    PROJECTS,
    Desk,
    Key,
    Limit,
    Lists,
    changed,
    listed,
    single,
    written,
)
from corral.gateway.api.workspace_requests import NewProject, ProjectChange
from corral.gateway.api.workspace_shapes import ManyProjects, OneProject
from corral.gateway.api.workspace_views import SearchHits
from corral.kit.disk import in_thread, translated
from corral.workspace.described import describe

_KINDS = ("project", "context", "pipeline", "run", "artifact")
_SPOOLED = 1024 * 1024
"""Bytes of an archive that are kept in memory before it goes to the disk."""


def router(corral: Corral, desk: Desk) -> APIRouter:
    """The routes, over the workspace of `corral`."""
    routes = APIRouter(prefix=f"{BASE}/projects", tags=["projects"])

    @routes.get("", response_model=ManyProjects)
    async def list_projects(request: Request, lists: Lists) -> Response:
        """The projects that the key is for, those that were changed last first."""
        return await listed(request, await desk.visit(request), PROJECTS, lists)

    @routes.post("", response_model=OneProject, status_code=201)
    async def create_project(request: Request, given: NewProject) -> Response:
        """Make a project. 409 when there is one of that name."""
        visit = await desk.visit(request)
        visit.naming(check_project(given.name))
        made = await visit.store.projects.create(Project(id="", **given.given()))
        return single(request, PROJECTS, made, made=True)

    @routes.patch("/{id}", response_model=OneProject)
    async def change_project(request: Request, key: Key, given: ProjectChange) -> Response:
        """Change what is given of it; its name stays."""
        return await changed(request, await desk.visit(request), PROJECTS, key, given.given())

    _carried(routes, corral, desk)
    return routes


def _carried(routes: APIRouter, corral: Corral, desk: Desk) -> None:
    @routes.get("/{id}/export", responses=ARCHIVE, response_class=Response)
    async def export_project(request: Request, key: Key) -> Response:
        """All of a project as one archive: contexts, pipelines, runs, artifacts. Scope manage."""
        from corral.workspace.exports import archive

        visit = await desk.visit(request)
        visit.managing("to export a whole project")
        project = await visit.project(key)
        return poured(f"{project.name}.zip", archive.export_project(visit.store, project.id), "application/zip")

    @routes.post(
        "/import",
        response_model=OneProject,
        status_code=201,
        openapi_extra=taking("application/zip", "An archive as `export` gives it"),
    )
    async def import_project(
        request: Request,
        name: Annotated[str | None, Query(max_length=80, description="What it is called here")] = None,
    ) -> Response:
        """Make a project of an archive. 409 when there is one of its name. Scope manage."""
        visit = await desk.visit(request)
        visit.managing("to import a project")
        if name is not None:
            visit.naming(check_project(name))
        elif visit.caller.projects:
            raise InvalidRequest("A key that is for some projects says what this one is called.", param="name")
        folder = corral.settings.home / "workspace"
        with translated("writing", folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Beside what is made of it: where others put what is passing there may be no room, or it is memory.
            with tempfile.SpooledTemporaryFile(_SPOOLED, dir=str(folder)) as file:
                async for piece in request.stream():
                    await in_thread(file.write, piece)
                file.seek(0)
                made = await visit.workspace.take_in(file, name=name)
        return single(request, PROJECTS, made, made=True)


def searching(desk: Desk) -> APIRouter:
    """The route that looks through everything."""
    routes = APIRouter(prefix=f"{BASE}/workspace", tags=["projects"])

    @routes.get("/search", response_model=SearchHits)
    async def search(
        request: Request,
        q: Annotated[str, Query(min_length=1, max_length=1000, description="Words; all of them must be there")],
        project: Annotated[str | None, Query(max_length=200, description="Only in this one")] = None,
        kind: Annotated[list[str] | None, Query(max_length=10, description=f"Only {', '.join(_KINDS)}")] = None,
        limit: Limit = 50,
        cursor: Annotated[str | None, Query(max_length=8000, description="`next` of the page before")] = None,
    ) -> Response:
        """Whatever has these words in it, the best first, in the projects that the key is for."""
        printable(q, "q")
        for each in kind or ():
            if each not in _KINDS:
                raise InvalidRequest(f"{each[:100]!r} is no kind.", f"One of: {', '.join(_KINDS)}.", param="kind")
        visit = await desk.visit(request)
        found = await visit.search(q, project=project, kinds=tuple(kind or ()), limit=limit, cursor=cursor)
        hits = [describe(hit) for hit in found.items]
        return written(request, {"success": True, "hits": hits, "count": len(hits), "next": found.next})

    return routes
