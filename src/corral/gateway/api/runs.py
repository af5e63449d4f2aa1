"""`/api/v1/runs`: executions of pipelines: begun, watched, stopped, done again, compared."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from corral.domain.workspace import RunStatus
from corral.errors import InvalidRequest
from corral.gateway import watching
from corral.gateway.api.streaming import Streaming
from corral.gateway.api.workspace_entries import (
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
    written,
)
from corral.gateway.api.workspace_requests import Again, NewRun, PipelineRun, Rerun, RunChange
from corral.gateway.api.workspace_shapes import ManyRuns, ManySteps, OneRun
from corral.gateway.api.workspace_views import RunsCompared
from corral.gateway.bounds import Visit
from corral.gateway.workshop import Workshop
from corral.workspace.described import describe
from corral.workspace.pipelines.order import RunOrder

_NANO = 1_000_000_000


def router(desk: Desk, workshop: Workshop) -> APIRouter:
    """The routes; streams end when `workshop` is left."""
    routes = APIRouter(prefix=f"{BASE}/runs", tags=["runs"])

    @routes.get("", response_model=ManyRuns)
    async def list_runs(
        request: Request,
        lists: Lists,
        status: Annotated[RunStatus | None, Query(description="Only those that stand so")] = None,
        pipeline: Word = None,
        name: Word = None,
    ) -> Response:
        """Runs, those that were changed last first, without what they were given: that comes with the run itself."""
        visit = await desk.visit(request)
        return await listed(request, visit, RUNS, lists, status=status, pipeline=pipeline, name=name)

    @routes.post("", response_model=OneRun, status_code=201)
    async def create_run(request: Request, given: NewRun) -> Response:
        """Run a pipeline that is kept, or a source that is not. It goes on by itself: see the run's events.

        400 when it could not run, with all that is in the way; nothing has been asked of any model then.
        """
        visit = await desk.visit(request)
        if (given.pipeline is None) == (given.source is None):
            raise InvalidRequest("Either `pipeline` or `source` says what is run.", param="pipeline")
        if given.pipeline is None:
            return await begin(request, visit, given, source=given.source)
        kept = await visit.pipeline(given.pipeline, await visit.project(given.project))
        return await begin(request, visit, given, pipeline=kept.id)

    @routes.patch("/{id}", response_model=OneRun)
    async def change_run(request: Request, key: Key, given: RunChange) -> Response:
        """Change its title or tags; what it did stays."""
        return await changed(request, await desk.visit(request), RUNS, key, given.given())

    _governed(routes, desk)
    _watched(routes, desk, workshop)
    return routes


def _governed(routes: APIRouter, desk: Desk) -> None:
    @routes.post("/{id}/cancel", response_model=OneRun)
    async def cancel(request: Request, key: Key) -> Response:
        """Call it off; what is finished of it stays. 409 when it has ended."""
        visit = await desk.visit(request)
        run = await visit.changeable("runs", key)
        return single(request, RUNS, await visit.workspace.cancel(run.id))

    @routes.post("/{id}/pause", response_model=OneRun)
    async def pause(request: Request, key: Key) -> Response:
        """Stop it where it is. 409 when it has ended or is paused."""
        visit = await desk.visit(request)
        run = await visit.changeable("runs", key)
        return single(request, RUNS, await visit.workspace.pause(run.id))

    @routes.post("/{id}/resume", response_model=OneRun)
    async def resume(request: Request, key: Key) -> Response:
        """Go on with one that is paused or has failed, after its last finished step. For the key that pays for it."""
        visit = await desk.visit(request)
        run = await visit.changeable("runs", key)
        return single(request, RUNS, await visit.workspace.resume(run.id, caller=visit.caller))

    @routes.post("/{id}/rerun", response_model=OneRun, status_code=201)
    async def rerun(request: Request, key: Key, given: Again = None) -> Response:
        """Do the same again with the same material, or with other models, inputs or another seed."""
        visit = await desk.visit(request)
        run = await visit.changeable("runs", key)
        wish = given or Rerun()
        made = await visit.workspace.rerun(
            run.id, models=wish.models, inputs=wish.inputs, seed=wish.seed, title=wish.title, caller=visit.caller
        )
        return single(request, RUNS, made, made=True)


def _watched(routes: APIRouter, desk: Desk, workshop: Workshop) -> None:
    @routes.get("/{id}/steps", response_model=ManySteps)
    async def steps(request: Request, key: Key) -> Response:
        """Its steps as they stand: what was asked, what was answered, what it cost."""
        visit = await desk.visit(request)
        run = await visit.entry("runs", key)
        found = [describe(step) for step in await visit.store.runs.steps(run.id)]
        return written(request, {"success": True, "steps": found, "count": len(found)})

    @routes.get("/{id}/events", response_class=StreamingResponse, responses=watching.EVENTS)
    async def events(
        request: Request, key: Key, last_event_id: Annotated[str | None, Header(max_length=200)] = None
    ) -> Response:
        """The run as it goes on, as server-sent events: how it stands, then each change, until it has ended.

        A client that comes back with the `Last-Event-ID` of the end is told 204, so that it stays away.
        """
        visit = await desk.visit(request)
        run = await visit.entry("runs", key)
        if run.status.ended and last_event_id == watching.ending(run.id, run.status):
            return Response(status_code=204)
        return Streaming(watching.events(visit.workspace, run.id, workshop.leaving))

    @routes.get("/{id}/compare/{other}", response_model=RunsCompared)
    async def compare(request: Request, key: Key, other: Other) -> Response:
        """Two runs side by side: outputs, costs, times, and how their artifacts differ."""
        visit = await desk.visit(request)
        one, two = await visit.entry("runs", key), await visit.entry("runs", other)
        return written(request, {"success": True, "comparison": await visit.workspace.compare(one.id, two.id)})


async def begin(
    request: Request, visit: Visit, given: PipelineRun, *, pipeline: str | None = None, source: str | None = None
) -> Response:
    """Begin a run, and answer with it."""
    project = await visit.project(given.project)
    order = RunOrder(
        project=project.id,
        pipeline=pipeline,
        source=source,
        inputs=given.inputs,
        models=given.models,
        budget=None if given.budget_usd is None else round(given.budget_usd * _NANO),
        seed=given.seed,
        title=given.title,
        tags=tuple(given.tags),
        caller=visit.caller,
    )
    return single(request, RUNS, await visit.workspace.start(order), made=True)
