"""`/api/v1/containers`: model servers in containers, brought to what the configuration says, watched and updated.

A container's name may be one of the words here, such as `stack`; it is then told by the list of all, and not alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from corral.app import Corral, composition
from corral.domain.standings import Standing, Step, describe
from corral.errors import ConfigError, InvalidRequest
from corral.fleet.compose import read_compose
from corral.gateway.api import containers_live as live
from corral.gateway.api.catalog import begin
from corral.gateway.api.containers_shapes import (
    ComposeGiven,
    ComposeRead,
    ComposeText,
    ContainerDone,
    ContainerEntry,
    ContainerLog,
    ContainerPlan,
    HealthOfContainer,
    HistoryOfContainer,
    ManyContainers,
    ModelsInContainer,
    Names,
    OneContainer,
    OneEngine,
    Orphans,
    PullRequest,
    Rollback,
    StackAnswer,
    TrialInContainer,
    Up,
    UpdateAll,
    UpdateOne,
    UpdateOneRequest,
    UpdateRequest,
    UpRequest,
    UsageOfContainer,
    VersionsOfContainer,
    Wait,
)
from corral.gateway.api.pages import Limit, printable, reply
from corral.gateway.api.shapes import Begun
from corral.gateway.api.streaming import Streaming
from corral.gateway.workshop import Workshop
from corral.kit.clients import Clients

_BASE = "/api/v1/containers"

Lines = Annotated[int, Query(ge=1, le=10_000, description="How many of the last lines")]
EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
"""What OpenAPI says of a route that also answers with events."""


def router(corral: Corral, workshop: Workshop) -> APIRouter:
    """The routes, over the containers of `corral`; long work goes to `workshop`."""
    routes = APIRouter(tags=["containers"])
    # In this order: what is a word here is no container's name.
    for part in (_together(corral), _whole(corral, workshop), _written(corral)):
        routes.include_router(part)
    for part in (_one(corral), _told(corral, workshop), _renewed(corral, workshop), _inside(corral, workshop)):
        routes.include_router(part)
    return routes


def _many(corral: Corral, standing: Sequence[Standing]) -> Response:
    found = [describe(one, corral.clock.wall()) for one in standing]
    return reply({"success": True, "containers": found, "count": len(found)})


def _single(corral: Corral, standing: Standing) -> Response:
    return reply({"success": True, "container": describe(standing, corral.clock.wall())})


def _together(corral: Corral) -> APIRouter:
    routes = APIRouter(prefix=_BASE)
    fleet = corral.fleet

    @routes.get("", response_model=ManyContainers)
    async def list_containers() -> Response:
        """Every container of the configuration and every orphan, as it stands; also while Docker does not answer."""
        return _many(corral, await fleet.list())

    @routes.get("/plan", response_model=ContainerPlan)
    async def plan(
        name: Annotated[list[str] | None, Query(description="Which; none are all", max_length=1000)] = None,
        down: Annotated[bool, Query(description="What `down` would do, not what `up` would")] = False,
        orphans: Annotated[Orphans, Query(description="What becomes of orphans")] = "report",
    ) -> Response:
        """What `up` or `down` would do now, and why. Nothing is done."""
        steps = await fleet.plan(tuple(name or ()), down=down, orphans=orphans)
        changes = any(step.step not in {Step.KEEP, Step.ORPHAN, Step.BLOCKED} for step in steps)
        return reply({"success": True, "plan": [asdict(step) for step in steps], "changes": changes})

    @routes.post("/up", response_model=ManyContainers)
    async def up(given: Up = None) -> Response:
        """Make containers what the configuration says: made, started, made anew, and by default healthy.

        What could not be brought up is in the answer, with the reason; the others are up all the same.
        """
        wish = given or UpRequest()
        standing = await fleet.up(
            wish.names, orphans=wish.orphans, recreate=wish.recreate, wait=wish.wait, pull=wish.pull
        )
        return _many(corral, standing)

    @routes.post("/down", response_model=ManyContainers)
    async def down(given: Names = None) -> Response:
        """Stop and remove containers; their volumes stay."""
        return _many(corral, await fleet.down(given.names if given else ()))

    @routes.post("/sync", response_model=ManyContainers)
    async def sync() -> Response:
        """Look at the Docker engine and write down what is there; nothing is changed on it."""
        return _many(corral, await fleet.sync())

    return routes


def _whole(corral: Corral, workshop: Workshop) -> APIRouter:
    routes = APIRouter(prefix=_BASE)

    @routes.get("/engine", response_model=OneEngine)
    async def engine() -> Response:
        """The Docker engine: what it is, and what it can. 503 when it does not answer, or may not be asked."""
        return reply({"success": True, "engine": asdict(await corral.fleet.info())})

    @routes.get("/stack", response_model=StackAnswer)
    async def stack() -> Response:
        """All at a glance: the engine, how many are in which state, what they take together, and the GPUs."""
        return reply({"success": True, "stack": await corral.fleet.stack()})

    @routes.get("/events", response_class=StreamingResponse)
    async def events() -> Streaming:
        """How all stand, and then each change, as server-sent events."""
        return Streaming(live.events(corral, workshop))

    @routes.post("/update", response_model=Begun)
    async def update_all(given: UpdateAll = None) -> Response:
        """Bring images and models to what there is now, one container after the other: an operation."""
        wish = given or UpdateRequest()
        order = corral.inside.update_order(wish.names, image=wish.image, models=wish.models)
        return await begin(corral, workshop, order, "The update has begun.")

    return routes


def _one(corral: Corral) -> APIRouter:
    routes = APIRouter(prefix=_BASE)
    fleet = corral.fleet

    @routes.get("/{name}", response_model=OneContainer)
    async def status(name: str) -> Response:
        """One container as it stands now."""
        return _single(corral, await fleet.status(name))

    @routes.post("/{name}/start", response_model=OneContainer)
    async def start(name: str, given: Wait = None) -> Response:
        """Start it, made first where it is not there, and wait until it is healthy; one that is up is left as it is."""
        return _single(corral, await fleet.start(name, wait=given is None or given.wait))

    @routes.post("/{name}/stop", response_model=OneContainer)
    async def stop(name: str) -> Response:
        """End it, politely at first. It stays down until somebody starts it."""
        return _single(corral, await fleet.stop(name))

    @routes.post("/{name}/restart", response_model=OneContainer)
    async def restart(name: str, given: Wait = None) -> Response:
        """End it and start it; made otherwise than it is configured now, it is made anew."""
        return _single(corral, await fleet.restart(name, wait=given is None or given.wait))

    @routes.post("/{name}/recreate", response_model=OneContainer)
    async def recreate(name: str, given: Wait = None) -> Response:
        """Make it anew as it is configured now, also where nothing differs; its volumes stay."""
        (standing,) = await fleet.up([name], recreate=True, wait=given is None or given.wait)
        return _single(corral, standing)

    @routes.post("/{name}/adopt", response_model=ContainerEntry)
    async def adopt(name: str) -> Response:
        """What a container that is there would be in the configuration: an orphan, or one that others started."""
        entry, secrets = await composition.adopted(corral, name)
        return reply({"success": True, "name": name, "entry": entry, "secrets": secrets})

    @routes.delete("/{name}", response_model=ContainerDone)
    async def remove(name: str, force: Annotated[bool, Query(description="Also while it runs")] = False) -> Response:
        """Remove it, an orphan too; its volumes stay. 409 while it runs."""
        await fleet.remove(name, force=force)
        return reply({"success": True, "message": f"Container {name} is removed; its volumes stay."})

    return routes


def _told(corral: Corral, workshop: Workshop) -> APIRouter:
    routes = APIRouter(prefix=_BASE)
    fleet = corral.fleet

    @routes.get("/{name}/logs", response_model=ContainerLog, responses=EVENTS)
    async def logs(
        name: str,
        lines: Lines = 100,
        follow: Annotated[bool, Query(description="As server-sent events, and each further line")] = False,
    ) -> Response:
        """Its last lines; with `follow` an event each, until it ends."""
        if follow:
            return Streaming(live.stream(fleet.logs(name, lines=lines, follow=True), workshop, asdict))
        found = [asdict(line) async for line in fleet.logs(name, lines=lines)]
        return reply({"success": True, "name": name, "lines": found})

    @routes.get("/{name}/stats", response_model=UsageOfContainer, responses=EVENTS)
    async def stats(
        name: str, stream: Annotated[bool, Query(description="As server-sent events, about one a second")] = False
    ) -> Response:
        """What it takes now, which is looked at for a second; with `stream` an event each second, until it ends."""
        if stream:
            return Streaming(live.stream(fleet.usages(name), workshop, asdict))
        usage = await fleet.usage(name)
        return reply({"success": True, "name": name, "usage": None if usage is None else asdict(usage)})

    @routes.get("/{name}/health", response_model=HealthOfContainer)
    async def health(
        name: str, generate: Annotated[bool, Query(description="It has to say a word, too")] = False
    ) -> Response:
        """Ask its models' own API now."""
        return reply({"success": True, "name": name, "health": asdict(await fleet.health(name, generate=generate))})

    @routes.get("/{name}/history", response_model=HistoryOfContainer)
    async def history(name: str, limit: Limit = 100) -> Response:
        """What happened to it, newest first."""
        found = [asdict(line) for line in await fleet.history(name, limit)]
        return reply({"success": True, "name": name, "history": found, "count": len(found)})

    @routes.get("/{name}/versions", response_model=VersionsOfContainer)
    async def versions(name: str) -> Response:
        """Its image and its models over time, newest first."""
        found = await fleet.versions(name)
        return reply({"success": True, "name": name, "versions": found, "count": len(found)})

    return routes


def _renewed(corral: Corral, workshop: Workshop) -> APIRouter:
    routes = APIRouter(prefix=_BASE)

    @routes.post("/{name}/update", response_model=Begun)
    async def update(name: str, given: UpdateOne = None) -> Response:
        """Bring its image and models to what there is now; undone when the new does not answer. An operation."""
        wish = given or UpdateOneRequest()
        order = corral.inside.update_order([name], image=wish.image, models=wish.models)
        return await begin(corral, workshop, order, f"The update of {name} has begun.")

    @routes.post("/{name}/rollback", response_model=OneContainer)
    async def rollback(name: str, given: Rollback = None) -> Response:
        """Go back to the image before, or to what a model in it was before, and wait until it is healthy.

        409 when there is none.
        """
        return _single(corral, await corral.inside.rollback(name, model=given.model if given else None))

    return routes


def _inside(corral: Corral, workshop: Workshop) -> APIRouter:
    routes = APIRouter(prefix=_BASE)
    clients = Clients()

    @routes.get("/{name}/models", response_model=ModelsInContainer)
    async def models(name: str) -> Response:
        """The models that its server has."""
        found = [asdict(model) for model in await corral.inside.models(name)]
        return reply({"success": True, "name": name, "models": found, "count": len(found)})

    @routes.post("/{name}/models", response_model=Begun)
    async def pull(name: str, given: PullRequest) -> Response:
        """Have its server fetch a model: an operation."""
        model = printable(given.model, "model")
        order = corral.inside.pull_order(name, model)
        return await begin(corral, workshop, order, f"{name} fetches {model}.")

    @routes.post("/{name}/models/{model:path}/test", response_model=TrialInContainer)
    async def test(request: Request, name: str, model: str) -> Response:
        """Have a model in it say one token, which loads it."""
        with clients.watch(request.receive):
            trial = await corral.inside.test(name, printable(model, "model"))
            return reply({"success": True, "name": name, "trial": asdict(trial)})
        return Response(status_code=499)  # nobody is there to read it

    @routes.delete("/{name}/models/{model:path}", response_model=ContainerDone)
    async def remove(name: str, model: str) -> Response:
        """Have its server remove a model."""
        await corral.inside.remove(name, printable(model, "model"))
        return reply({"success": True, "message": f"{name} no longer has {model}."})

    return routes


def _written(corral: Corral) -> APIRouter:
    routes = APIRouter(prefix=_BASE)

    @routes.get("/export", response_model=ComposeText)
    async def export() -> Response:
        """The containers of the configuration as a compose file, without the values of secrets."""
        return reply({"success": True, "compose": await asyncio.to_thread(composition.export, corral)})

    @routes.post("/import", response_model=ComposeRead)
    async def read(given: ComposeGiven) -> Response:
        """What a compose file would be in the configuration, and what of it is not taken over. Nothing is written."""
        folder = Path(printable(given.folder, "folder"))
        if not folder.is_absolute():
            raise InvalidRequest("The folder must be given whole, from / on.", param="folder")
        try:
            found = await asyncio.to_thread(read_compose, given.compose, given.variables, folder=folder)
        except ConfigError as error:  # it is the caller's file, and not ours
            raise InvalidRequest(error.message, error.hint, param="compose") from error
        entries = {name: dict(entry) for name, entry in found.entries.items()}
        left = [asdict(one) for one in found.unsupported]
        return reply({"success": True, "project": found.project, "containers": entries, "unsupported": left})

    return routes
