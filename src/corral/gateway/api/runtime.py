"""`/api/v1/runtime`: what is in memory, and moving models in and out of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from corral.app import Corral
from corral.domain.states import State
from corral.errors import ModelNotFound, NotFound, RuntimeUnavailable
from corral.lifecycle.supervisor import Engine, Status


class ModelState(BaseModel):
    """A model and its engine. Unknown is null. Sizes in bytes, times in seconds, `loaded_at` in Unix seconds."""

    name: str
    state: State
    reason: str = ""
    runtime: str | None = None
    engine: str | None = None
    revision: str | None = None
    source: str | None = None
    format: str | None = None
    size: int | None = None
    capabilities: list[str] = []
    context: int | None = None
    slots: int | None = None
    device: str | None = None
    in_flight: int = 0
    served: int = 0
    footprint: dict[str, int] | None = None
    loaded_at: float | None = None
    load_seconds: float | None = None
    idle_left: float | None = None


class OneModel(BaseModel):
    """Answer about one model."""

    success: bool = True
    model: ModelState


class ManyModels(BaseModel):
    """Answer about all models."""

    success: bool = True
    models: list[ModelState]
    count: int


class LogLines(BaseModel):
    """The end of an engine's output, oldest line first."""

    success: bool = True
    lines: list[str]


class Health(BaseModel):
    """How the yard stands."""

    success: bool = True
    status: str = Field(description="`ok`, or `degraded` when a model's last load failed")
    models: dict[str, int] = Field(description="How many models are in each state")


ModelName = Annotated[str, Query(description="The model's name", examples=["smollm2"])]


def router(corral: Corral) -> APIRouter:
    """The routes, over `corral`."""
    routes = APIRouter(prefix="/api/v1/runtime", tags=["runtime"])

    @routes.get("/models")
    async def list_models() -> ManyModels:
        """Every model that can be asked for, loaded or not."""
        statuses = {status.model: status for status in corral.supervisor.statuses()}
        names = sorted({*corral.names(), *statuses})
        models = [m for name in names if (m := await _described(corral, name, statuses.get(name)))]
        return ManyModels(models=models, count=len(models))

    @routes.post("/models/load")
    async def load_model(model_name: ModelName) -> OneModel:
        """Bring a model into memory; answers when it is ready. It leaves again after its idle time-out."""
        await corral.load(model_name)
        return OneModel(model=await _one(corral, model_name))

    @routes.post("/models/unload")
    async def unload_model(
        model_name: ModelName,
        force: Annotated[bool, Query(description="Also when it is answering")] = False,
        drain: Annotated[
            float | None, Query(ge=0, le=3600, description="Seconds to wait for answers under way")
        ] = None,
    ) -> OneModel:
        """Take a model out of memory; 409 when it is still answering after `drain` seconds."""
        corral.definition(model_name)
        await corral.unload(model_name, drain=drain, force=force)
        return OneModel(model=await _one(corral, model_name))

    @routes.get("/models/{name:path}/log")
    async def engine_log(name: str) -> LogLines:
        """The last lines that the model's engine wrote."""
        engine = _engine(corral, name)
        if engine is None:
            corral.definition(name)
            raise NotFound(f"Model {name!r} is not in memory, so it has no log.", f"Load it with: corral load {name}")
        return LogLines(lines=list(engine.session.log()))

    @routes.get("/models/{name:path}")
    async def one_model(name: str) -> OneModel:
        """One model by name, which may hold `/`."""
        return OneModel(model=await _one(corral, name))

    @routes.get("/health")
    async def health() -> Health:
        """Counts of models by state."""
        counts: dict[str, int] = {}
        for status in corral.supervisor.statuses():
            counts[status.state] = counts.get(status.state, 0) + 1
        return Health(status="degraded" if counts.get(State.FAILED) else "ok", models=counts)

    @routes.get("/events", response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        """Changes of state as server-sent events, from now on."""
        return StreamingResponse(_events(corral), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    return routes


async def _events(corral: Corral) -> AsyncIterator[bytes]:
    yield b": corral\n\n"
    async for change in corral.supervisor.events():
        yield b"data: " + orjson.dumps(change) + b"\n\n"


def _engine(corral: Corral, name: str) -> Engine | None:
    model = corral.canonical(name)
    return next((s.engine for s in corral.supervisor.statuses() if s.model == model and s.engine), None)


async def _one(corral: Corral, name: str) -> ModelState:
    model = corral.canonical(name)
    status = next((s for s in corral.supervisor.statuses() if s.model == model), None)
    return await _describe(corral, name, status)


async def _described(corral: Corral, name: str, status: Status | None) -> ModelState | None:
    """`_describe`; None for a model that was removed since it was loaded, or since it failed."""
    try:
        return await _describe(corral, name, status)
    except ModelNotFound:
        return None


async def _describe(corral: Corral, name: str, status: Status | None) -> ModelState:
    """All that is known of a model, also of one that nothing here runs; raises ModelNotFound when nothing is."""
    known: dict[str, Any] = {"name": name, "state": State.COLD}
    try:
        definition = corral.definition(name)
        known["runtime"], installed = definition.runtime, definition.installed
    except RuntimeUnavailable as error:
        known["reason"], installed = error.message, corral.registry.get(name)
    if installed is not None:
        revision = installed.revision
        known |= {"revision": revision.id, "source": revision.source, "format": revision.format, "size": revision.size}
        known["capabilities"] = sorted(revision.capabilities)
    if status is not None:
        known |= {"state": status.state, "reason": status.reason, "idle_left": status.idle_left}
        if status.engine is not None:
            known |= await _engine_facts(status.engine)
    return ModelState(**known)


async def _engine_facts(engine: Engine) -> dict[str, Any]:
    facts = engine.session.facts
    found: dict[str, Any] = {
        "engine": engine.id,
        "revision": engine.revision,
        "context": facts.context,
        "slots": facts.slots,
        "device": facts.device,
        "in_flight": engine.in_flight,
        "served": engine.served,
        "footprint": dict((await engine.session.footprint()).devices),
        "loaded_at": engine.loaded_at,
        "load_seconds": engine.load_seconds if engine.load_seconds < inf else None,
    }
    if facts.capabilities is not None:
        found["capabilities"] = sorted(facts.capabilities)
    return found
