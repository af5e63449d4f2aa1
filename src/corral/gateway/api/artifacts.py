"""`/api/v1/artifacts`: what came of runs, edition by edition: seen, changed, compared, mended and taken away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from corral.app import authoring
from corral.domain.workspace import Form
from corral.errors import EntryNotFound
from corral.gateway.api.downloads import DOWNLOAD, LARGE, attachment, large, taking
from corral.gateway.api.workspace_entries import (
    ARTIFACTS,
    BASE,
    RUNS,
    Desk,
    Key,
    Lists,
    Other,
    Word,
    changed,
    listed,
    single,
    version,
    written,
)
from corral.gateway.api.workspace_requests import ArtifactChange, NewArtifact, Repair
from corral.gateway.api.workspace_shapes import ManyArtifacts, ManyEditions, OneArtifact, OneRun
from corral.gateway.api.workspace_views import ArtifactPreview, ArtifactsDiff
from corral.workspace.described import describe

Number = Annotated[int | None, Query(ge=1, lt=2**31, description="Of this edition; the newest by default")]
Note = Annotated[str, Query(max_length=200, description="What is said of the edition")]


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix=f"{BASE}/artifacts", tags=["artifacts"])

    @routes.get("", response_model=ManyArtifacts)
    async def list_artifacts(
        request: Request,
        lists: Lists,
        kind: Word = None,
        run: Word = None,
        step: Word = None,
        name: Word = None,
    ) -> Response:
        """Artifacts, those that were changed last first. `run` and `step` are where they first came from."""
        visit = await desk.visit(request)
        return await listed(request, visit, ARTIFACTS, lists, kind=kind, run=run, step=step, name=name)

    @routes.post("", response_model=OneArtifact, status_code=201)
    async def create_artifact(request: Request, given: NewArtifact) -> Response:
        """Keep a text that no run made."""
        visit = await desk.visit(request)
        project = await visit.project(given.project)
        content, tags = given.text.encode(), tuple(given.tags)
        made = await authoring.add_artifact(
            visit.store, project.id, given.name, content, kind=given.kind, title=given.title, tags=tags
        )
        return single(request, ARTIFACTS, made, made=True)

    @routes.patch("/{id}", response_model=OneArtifact)
    async def change_artifact(request: Request, key: Key, given: ArtifactChange) -> Response:
        """Change its name, title or tags. Its content is changed by another edition."""
        return await changed(request, await desk.visit(request), ARTIFACTS, key, given.given())

    _content(routes, desk)
    _seen(routes, desk)
    return routes


def _content(routes: APIRouter, desk: Desk) -> None:
    body = taking("*/*", "The file, which must be text in UTF-8; up to `workspace.max_artifact`")

    @routes.post("/content", response_model=OneArtifact, status_code=201, openapi_extra=body)
    async def create_from_content(
        request: Request,
        project: Annotated[str, Query(min_length=1, max_length=200, description="By id or name")],
        name: Annotated[str, Query(min_length=1, max_length=200, description="A relative path")],
        kind: Word = None,
        note: Note = "",
    ) -> Response:
        """Keep a file that no run made, as large as artifacts may be."""
        visit = await desk.visit(request)
        found = await visit.project(project)
        content = await request.body()
        made = await authoring.add_artifact(visit.store, found.id, name, content, kind=kind, note=note)
        return single(request, ARTIFACTS, made, made=True)

    @routes.get("/{id}/content", responses=DOWNLOAD, response_class=Response)
    async def content(request: Request, key: Key, edition: Number = None) -> Response:
        """The file, to be saved, under its digest as ETag."""
        visit = await desk.visit(request)
        artifact = await visit.entry("artifacts", key)
        digest, size = artifact.digest, artifact.size
        if edition is not None and edition != artifact.number:
            found = await visit.store.artifacts.editions(artifact.id)
            known = {each.number: (each.digest, each.size) for each in found}
            if edition not in known:
                raise EntryNotFound(
                    f"{artifact.name} has no edition {edition}.", f"The newest is {artifact.number}.", param="edition"
                )
            digest, size = known[edition]
        if size > LARGE:
            pieces = visit.store.contents.pieces(digest)
            return large(request, artifact.name, pieces, size, artifact.media_type, tag=digest)
        content = await visit.store.artifacts.content(artifact.id, edition)
        return attachment(request, artifact.name, content, artifact.media_type, tag=digest)

    @routes.put("/{id}/content", response_model=OneArtifact, openapi_extra=body)
    async def edit(request: Request, key: Key, note: Note = "") -> Response:
        """Another edition; those before it stay."""
        visit = await desk.visit(request)
        artifact = await visit.changeable("artifacts", key)
        content = await request.body()
        edited = await authoring.edit_artifact(visit.store, artifact, content, version=version(request), note=note)
        return single(request, ARTIFACTS, edited)

    @routes.get("/{id}/editions", response_model=ManyEditions)
    async def editions(request: Request, key: Key) -> Response:
        """Every edition of it, and what each came from."""
        visit = await desk.visit(request)
        artifact = await visit.entry("artifacts", key)
        found = [describe(each) for each in await visit.store.artifacts.editions(artifact.id)]
        return written(request, {"success": True, "editions": found, "count": len(found)})


def _seen(routes: APIRouter, desk: Desk) -> None:
    @routes.get("/{id}/preview", response_model=ArtifactPreview)
    async def preview(request: Request, key: Key, edition: Number = None) -> Response:
        """What a page needs to show it: `source`, `kind`, the component's `props`, `problems`."""
        visit = await desk.visit(request)
        artifact = await visit.entry("artifacts", key)
        shown = await visit.workspace.showing.preview(artifact.id, edition)
        return written(request, {"success": True, "preview": shown})

    @routes.get("/{id}/export", responses=DOWNLOAD, response_class=Response)
    async def export(request: Request, key: Key, form: Form = "plain", edition: Number = None) -> Response:
        """The file for elsewhere: as it is, as a Framer component, as a Vite project (zip), or as one HTML page.

        What should be known of it is in the header `x-corral-notes`, a JSON list of sentences.
        """
        visit = await desk.visit(request)
        artifact = await visit.entry("artifacts", key)
        exported = await visit.workspace.showing.export(artifact.id, form, edition)
        return attachment(request, exported.name, exported.content, exported.media_type, notes=exported.notes)

    @routes.post("/{id}/repair", response_model=OneRun, status_code=201)
    async def repair(request: Request, key: Key, given: Repair) -> Response:
        """Let a model mend it: a run of one step, whose answer becomes another edition."""
        visit = await desk.visit(request)
        artifact = await visit.changeable("artifacts", key)
        run = await visit.workspace.repair(artifact.id, given.error, model=given.model, caller=visit.caller)
        return single(request, RUNS, run, made=True)

    @routes.get("/{id}/diff/{other}", response_model=ArtifactsDiff)
    async def diff(request: Request, key: Key, other: Other) -> Response:
        """How two differ, line by line."""
        visit = await desk.visit(request)
        one, two = await visit.entry("artifacts", key), await visit.entry("artifacts", other)
        return written(request, {"success": True, "diff": await visit.workspace.showing.diff(one.id, two.id)})
