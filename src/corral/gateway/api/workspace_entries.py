"""What all resources of the workspace have in common: lists, single entries, and all that can be done with those.

A change may come with `If-Match`, the ETag of the version that was read: 412 when somebody else was faster.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi import Query as Asked
from pydantic import BaseModel

from corral.app import Corral, ahead
from corral.domain.callers import LOCAL
from corral.domain.workspace import Entry, Query
from corral.errors import CorralError, InvalidRequest
from corral.gateway.api.pages import printable
from corral.gateway.api.workspace_requests import Bulk, BulkFilter, Copy, MoveTo
from corral.gateway.api.workspace_shapes import (
    BulkDone,
    ManyArtifacts,
    ManyContexts,
    ManyPipelines,
    ManyProjects,
    ManyRuns,
    OneArtifact,
    OneContext,
    OnePipeline,
    OneProject,
    OneRun,
    Purged,
)
from corral.gateway.bounds import Visit
from corral.gateway.workshop import Workshop
from corral.workspace.described import describe

BASE = "/api/v1"
MOST = 10_000
"""Entries that a filter takes hold of at a time."""

_TAG = re.compile(r'"([1-9][0-9]{0,17})"')
_THREE = {"false": False, "true": True, "any": None}
_WHOLE = orjson.OPT_NON_STR_KEYS

Key = Annotated[str, Path(alias="id", description="Its id; of a project or pipeline also its name")]
Other = Annotated[str, Path(description="The id of the other one")]
LARGEST = 500
"""Entries of a page."""
Limit = Annotated[int, Asked(ge=1, le=LARGEST, description="Entries of a page")]
Deleted = Annotated[bool, Asked(description="Also one that is thrown away")]
Word = Annotated[str | None, Asked(max_length=200, description="Only those")]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of entries: what one and many are called, and how answers about them look.

    `words` are the ways in which one is used beside being shown and changed.
    """

    one: str
    many: str
    answer: type[BaseModel]
    page: type[BaseModel]
    words: tuple[str, ...] = ("duplicate", "move")


PROJECTS = Resource("project", "projects", OneProject, ManyProjects, ("duplicate",))
CONTEXTS = Resource("context", "contexts", OneContext, ManyContexts)
PIPELINES = Resource("pipeline", "pipelines", OnePipeline, ManyPipelines)
RUNS = Resource("run", "runs", OneRun, ManyRuns, ("move",))
ARTIFACTS = Resource("artifact", "artifacts", OneArtifact, ManyArtifacts)


class Desk:
    """Where requests about the workspace come in. What they need is imported with the first of them, in a thread."""

    def __init__(self, corral: Corral, workshop: Workshop) -> None:
        self._corral = corral
        self._workshop = workshop

    async def visit(self, request: Request) -> Visit:
        """What the request's key may do in the workspace."""
        await ahead.workspace()
        if request.method not in ("GET", "HEAD"):
            await self._workshop.open()  # what is begun is done here
        return Visit(self._corral.workspace, request.scope.get("corral.caller", LOCAL))


class Listing:
    """What every list may be asked for."""

    def __init__(  # noqa: PLR0913, PLR0917  # the query is the signature
        self,
        project: Annotated[str | None, Asked(max_length=200, description="Only of this one, by id or name")] = None,
        tag: Annotated[list[str] | None, Asked(max_length=50, description="Only those with each of these")] = None,
        q: Annotated[str, Asked(max_length=1000, description="Only those with these words")] = "",
        archived: Annotated[
            Literal["false", "true", "any"], Asked(description="Without those that are put away, only those, or both")
        ] = "false",
        deleted: Annotated[bool, Asked(description="Only those that are thrown away")] = False,
        sort: Annotated[str, Asked(max_length=60, description="A column; `-` before it is downwards")] = "-updated_at",
        limit: Limit = 50,
        cursor: Annotated[str | None, Asked(max_length=8000, description="`next` of the page before")] = None,
        total: Annotated[bool, Asked(description="Count them all, too")] = False,
    ) -> None:
        for text, what in ((q, "q"), (sort, "sort"), *((each, "tag") for each in tag or ())):
            printable(text, what)
        self.total = total
        self.query = Query(
            project=project,
            tags=tuple(tag or ()),
            search=q,
            archived=_THREE[archived],
            deleted=deleted,
            sort=sort,
            limit=limit,
            cursor=cursor,
        )

    def asking(self, **filters: Any) -> Query:
        """What is asked of the store; a filter that is None does not ask."""
        for name, value in filters.items():
            if isinstance(value, str):
                printable(value, name)
        return replace(self.query, filters={name: value for name, value in filters.items() if value is not None})


Lists = Annotated[Listing, Depends()]


def written(
    request: Request, content: Any, status: int = 200, *, tag: str | None = None, location: str | None = None
) -> Response:
    """`content` as JSON under its tag, by default one of its bytes; 304 for a client that has it already."""
    body = orjson.dumps(content, option=_WHOLE)
    headers = {"etag": tag or f'"{hashlib.sha256(body).hexdigest()[:24]}"', "cache-control": "no-cache"}
    if location is not None:
        headers["location"] = location
    if request.method == "GET" and held(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type="application/json")


def held(request: Request, tag: str) -> bool:
    """Whether the client says that it has what `tag` stands for."""
    said = request.headers.get("if-none-match", "")
    return said.strip() == "*" or tag in [item.strip().removeprefix("W/") for item in said.split(",")]


def version(request: Request) -> int | None:
    """The version that `If-Match` asks for; None where any will do.

    Raises:
        InvalidRequest: it is not the ETag of one entry.
    """
    said = request.headers.get("if-match", "").strip()
    if said in ("", "*"):
        return None
    found = _TAG.fullmatch(said)
    if found is None:
        raise InvalidRequest(
            f"If-Match is {said[:100]!r}, which is no entry's ETag.",
            'Send the one that was given: "3".',
            param="if-match",
        )
    return int(found[1])


def single(request: Request, resource: Resource, entry: Entry, *, made: bool = False) -> Response:
    """The answer about one entry; `made`: there was none before."""
    content = {"success": True, resource.one: describe(entry)}
    location = f"{BASE}/{resource.many}/{entry.id}" if made else None
    return written(request, content, 201 if made else 200, tag=f'"{entry.version}"', location=location)


async def listed(request: Request, visit: Visit, resource: Resource, lists: Listing, **filters: Any) -> Response:
    """The answer about a page of them."""
    page = await visit.page(resource.many, lists.asking(**filters), total=lists.total)
    found = [describe(entry) for entry in page.items]
    content = {"success": True, resource.many: found, "count": len(found), "total": page.total, "next": page.next}
    return written(request, content)


async def changed(request: Request, visit: Visit, resource: Resource, key: str, changes: Mapping[str, Any]) -> Response:
    """One entry with these changes. None at all changes nothing.

    Raises:
        InvalidRequest: there are none.
    """
    entry = await visit.changeable(resource.many, key)
    if not changes:
        raise InvalidRequest("Nothing is to be changed.", "See /docs for what this route takes.")
    kept = visit.kept(resource.many)
    return single(request, resource, await kept.change(entry.id, changes, version=version(request)))


def keeping(resource: Resource, desk: Desk) -> APIRouter:
    """The routes that every resource has beside its list, its making and its changes."""
    routes = APIRouter(prefix=f"{BASE}/{resource.many}", tags=[resource.many])
    one = resource.one

    @routes.post("/bulk", response_model=BulkDone, summary=f"Many {resource.many} at once")
    async def bulk(request: Request, given: Bulk) -> Response:
        """Do one thing to many: those with the `ids`, or those that fit the `filter`, at most 10,000 at a time.

        What cannot be done to one is told by its error's code, and the others are done all the same.
        """
        visit = await desk.visit(request)
        return written(request, {"success": True, **await _bulk(visit, resource, given)})

    @routes.get("/{id}", response_model=resource.answer, summary=f"One {one}")
    async def show(request: Request, key: Key, deleted: Deleted = False) -> Response:
        """As it is now, under its version as ETag."""
        visit = await desk.visit(request)
        return single(request, resource, await visit.entry(resource.many, key, deleted=deleted))

    @routes.delete("/{id}", response_model=resource.answer, summary=f"Throw the {one} away")
    async def delete(request: Request, key: Key) -> Response:
        """It can be restored until `workspace.retention` has gone by; then it is purged."""
        visit = await desk.visit(request)
        entry = await visit.changeable(resource.many, key)
        return single(request, resource, await visit.kept(resource.many).delete(entry.id, version=version(request)))

    @routes.post("/{id}/archive", response_model=resource.answer, summary=f"Put the {one} away")
    async def archive(request: Request, key: Key) -> Response:
        """It is no longer in lists that do not ask for it, and can be used as before."""
        visit = await desk.visit(request)
        entry = await visit.changeable(resource.many, key)
        return single(request, resource, await visit.kept(resource.many).archive(entry.id, version=version(request)))

    @routes.post("/{id}/restore", response_model=resource.answer, summary=f"Have the {one} back")
    async def restore(request: Request, key: Key) -> Response:
        """What was thrown away, or put away, is as it was before."""
        visit = await desk.visit(request)
        entry = await visit.changeable(resource.many, key, deleted=True)
        return single(request, resource, await visit.kept(resource.many).restore(entry.id, version=version(request)))

    @routes.post("/{id}/purge", response_model=Purged, summary=f"Destroy the {one}")
    async def purge(request: Request, key: Key) -> Response:
        """It cannot be had back. Scope manage."""
        visit = await desk.visit(request)
        visit.managing("to destroy")
        entry = await visit.changeable(resource.many, key, deleted=True)
        await visit.kept(resource.many).purge(entry.id, version=version(request))
        return written(request, {"success": True, "id": entry.id})

    if "duplicate" in resource.words:
        _duplicating(routes, resource, desk)
    if "move" in resource.words:
        _moving(routes, resource, desk)
    return routes


def _duplicating(routes: APIRouter, resource: Resource, desk: Desk) -> None:
    @routes.post("/{id}/duplicate", response_model=resource.answer, status_code=201, summary=f"Copy the {resource.one}")
    async def duplicate(request: Request, key: Key, given: Copy = None) -> Response:
        """Another of its own; a project's contexts and pipelines are copied with it."""
        visit = await desk.visit(request)
        entry = await visit.entry(resource.many, key)
        name, project = (None, None) if given is None else (given.name, given.project)
        into = None
        if resource is PROJECTS:
            visit.naming(name or "")
        elif project is not None:
            into = (await visit.project(project)).id
        else:
            await visit.changeable(resource.many, entry.id)  # the copy goes to where it is
        made = await visit.kept(resource.many).duplicate(entry.id, name=name, project=into)
        return single(request, resource, made, made=True)


def _moving(routes: APIRouter, resource: Resource, desk: Desk) -> None:
    @routes.post("/{id}/move", response_model=resource.answer, summary=f"Move the {resource.one}")
    async def move(request: Request, key: Key, given: MoveTo) -> Response:
        """Into another project."""
        visit = await desk.visit(request)
        entry = await visit.changeable(resource.many, key)
        into = await visit.project(given.project)
        moved = await visit.kept(resource.many).move(entry.id, into.id, version=version(request))
        return single(request, resource, moved)


async def _bulk(visit: Visit, resource: Resource, given: Bulk) -> dict[str, Any]:
    if (given.ids is None) == (given.filter is None):
        raise InvalidRequest("Either `ids` or a `filter` says which.", param="ids")
    if (given.action == "tag") != bool(given.add or given.remove):
        raise InvalidRequest("`add` and `remove` go with the action `tag`, and it with them.", param="add")
    if given.action == "purge":
        visit.managing("to destroy")
    results: dict[str, str | None] = {}
    ids: Sequence[str] = ()
    left = False
    asked: dict[str, str] = {}
    if given.ids is not None:
        asked, results = await _reached(visit, resource, given.ids)
        ids = list(asked)
    elif given.filter is not None:
        found = await visit.ids(resource.many, _fitting(given.filter), MOST + 1)
        ids, left = found[:MOST], len(found) > MOST
    if ids:
        kept = visit.kept(resource.many)
        done = await kept.bulk(given.action, ids, add=tuple(given.add), remove=tuple(given.remove))
        results |= {asked.get(each, each): code for each, code in done.items()}
    failed = sum(1 for code in results.values() if code is not None)
    return {"results": results, "done": len(results) - failed, "failed": failed, "more": left}


async def _reached(
    visit: Visit, resource: Resource, ids: Sequence[str]
) -> tuple[dict[str, str], dict[str, str | None]]:
    """What the caller's key reaches, by its id as it was asked for, and of the others the codes that say why not.

    A name is of what the key reaches by it, and nothing is looked for by that name again.
    """
    if not visit.caller.projects:
        return {each: each for each in ids}, {}
    found: dict[str, str] = {}
    beyond: dict[str, str | None] = {}
    for each in ids:
        try:
            found[(await visit.changeable(resource.many, each, deleted=True)).id] = each
        except CorralError as error:
            beyond[each] = error.code
    return found, beyond


def _fitting(given: BulkFilter) -> Query:
    """What the filter asks for."""
    words = {"kind": given.kind, "status": given.status, "run": given.run, "pipeline": given.pipeline}
    return Query(
        project=given.project,
        filters={name: value for name, value in words.items() if value is not None},
        tags=tuple(given.tags),
        search=given.q,
        archived=given.archived,
        deleted=given.deleted,
    )
