"""`/api/v1/pipelines`: steps of several models, kept, looked over as a whole, and run."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from corral.app import authoring
from corral.gateway.api.runs import begin
from corral.gateway.api.workspace_entries import (
    BASE,
    PIPELINES,
    Desk,
    Key,
    Lists,
    Word,
    changed,
    listed,
    single,
    written,
)
from corral.gateway.api.workspace_requests import NewPipeline, PipelineChange, PipelineRun, PipelineText
from corral.gateway.api.workspace_shapes import ManyPipelines, OnePipeline, OneRun
from corral.gateway.api.workspace_views import PipelineChecked
from corral.workspace.described import findings


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix=f"{BASE}/pipelines", tags=["pipelines"])

    @routes.get("", response_model=ManyPipelines)
    async def list_pipelines(request: Request, lists: Lists, name: Word = None) -> Response:
        """Pipelines, those that were changed last first."""
        return await listed(request, await desk.visit(request), PIPELINES, lists, name=name)

    @routes.post("", response_model=OnePipeline, status_code=201)
    async def create_pipeline(request: Request, given: NewPipeline) -> Response:
        """Keep a pipeline. 400 for one that could never run; whether its models are there is not looked at."""
        visit = await desk.visit(request)
        more = given.given()
        more["project"] = await visit.home(given.project)
        made = await asyncio.to_thread(lambda: authoring.new_pipeline(**more))
        return single(request, PIPELINES, await visit.store.pipelines.create(made), made=True)

    @routes.post("/validate", response_model=PipelineChecked)
    async def validate(request: Request, given: PipelineText) -> Response:
        """Whether it could run here now, and all that is in the way, each with its line. Nothing is kept."""
        visit = await desk.visit(request)
        return written(
            request, {"success": True, **findings(await visit.workspace.validate(given.source, visit.caller))}
        )

    @routes.patch("/{id}", response_model=OnePipeline)
    async def change_pipeline(request: Request, key: Key, given: PipelineChange) -> Response:
        """Change what is given of it. Runs that there are go on with the source that they began with."""
        visit = await desk.visit(request)
        changes = await asyncio.to_thread(authoring.pipeline_changes, given.given())
        return await changed(request, visit, PIPELINES, key, changes)

    @routes.post("/{id}/runs", response_model=OneRun, status_code=201)
    async def run_pipeline(request: Request, key: Key, given: PipelineRun) -> Response:
        """Run it in a project. It goes on by itself: see the run's events."""
        visit = await desk.visit(request)
        pipeline = await visit.pipeline(key, await visit.project(given.project))
        return await begin(request, visit, given, pipeline=pipeline.id)

    return routes
