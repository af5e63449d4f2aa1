"""`/api/v1/models/{name}`: one installed model. Names may hold `/`, encoded or not.

A name that ends like a route, such as `team/update`, or that is one, such as `search`, is still shown and removed at
`/api/v1/models/registry/{name}`. So a name that begins with `registry/` is best not given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response

from corral.app import Corral
from corral.app.described import Describer, capabilities, past_row
from corral.app.fitness import Judge, judged
from corral.domain.models import Installed, check_name
from corral.errors import InvalidRequest
from corral.gateway.api.catalog import begin
from corral.gateway.api.pages import conditional, printable, reply
from corral.gateway.api.shapes import (
    Begun,
    CapabilitiesOf,
    MoveRequest,
    OneInstalled,
    OneWholeModel,
    PushRequest,
    RevisionRequest,
    Revisions,
    Update,
)
from corral.gateway.workshop import Workshop

_PREFIX = "/api/v1/models"
"""Stands in each router below, for the audit log knows a route by the path that it was made with."""
_WHOLE = ("runtime", "context_length", "capabilities")
_SAID = Annotated[
    dict[str, Any],
    Body(
        description="What the model can do in spite of its files: `supports_…` to true or false, `allowed_roles`, "
        "`max_context_length`, and `runtime`",
        examples=[{"supports_system_role": False}],
    ),
]


def router(corral: Corral, workshop: Workshop) -> APIRouter:
    """The routes, in the order in which they are tried."""
    routes = APIRouter()
    parts = (_capabilities(corral), _revisions(corral, workshop), _files(corral, workshop), _show(corral))
    for part in (_by_name(corral), *parts):
        routes.include_router(part)
    return routes


def _by_name(corral: Corral) -> APIRouter:
    routes = APIRouter(prefix=_PREFIX, tags=["models"])

    @routes.get("/registry/{name:path}", response_model=OneWholeModel)
    async def by_name(name: str) -> Response:
        """All of a model, whatever it is called."""
        return reply({"success": True, "model": await _whole(corral, _named(corral, name))})

    return routes


def _capabilities(corral: Corral) -> APIRouter:
    routes = APIRouter(prefix=_PREFIX, tags=["models"])

    @routes.get("/{name:path}/capabilities", response_model=CapabilitiesOf)
    async def read(request: Request, name: str) -> Response:
        """What a model can do, from its files and from what was said by hand."""
        installed = _named(corral, name)
        return conditional(request, corral.registry.stamp(), lambda: _able(corral, installed))

    @routes.put("/{name:path}/capabilities", response_model=CapabilitiesOf)
    async def say(name: str, said: _SAID) -> Response:
        """Say what a model can do in spite of its files; replaces what was said before, and survives updates."""
        installed = _named(corral, name)
        await corral.registry.set_override(installed.name, override_of(said))
        return reply(_able(corral, corral.registry.get(installed.name)))

    @routes.delete("/{name:path}/capabilities", response_model=CapabilitiesOf)
    async def unsay(name: str) -> Response:
        """Take back what was said by hand."""
        installed = _named(corral, name)
        await corral.registry.set_override(installed.name, None)
        return reply(_able(corral, corral.registry.get(installed.name)))

    return routes


def _revisions(corral: Corral, workshop: Workshop) -> APIRouter:
    routes = APIRouter(prefix=_PREFIX, tags=["revisions"])

    @routes.get("/{name:path}/revisions", response_model=Revisions)
    async def history(request: Request, name: str) -> Response:
        """The revisions that a model was, newest first."""
        installed = _named(corral, name)
        return conditional(request, corral.registry.stamp(), lambda: _history(corral, installed))

    @routes.get("/{name:path}/update", response_model=Update)
    async def check(name: str) -> Response:
        """Ask the source what an update would bring; nothing is downloaded."""
        found = await corral.registry.check(_named(corral, name).name)
        return reply(
            {
                "success": True,
                "model_name": found.name,
                "changed": found.changed,
                "current": found.current.id,
                "current_version": found.current.version,
                "version": found.version,
                "files": [asdict(file) for file in found.files],
                "download": found.download,
            }
        )

    @routes.post("/{name:path}/update", response_model=Begun)
    async def update(name: str) -> Response:
        """Install what the model's source has now: an operation."""
        called = _named(corral, name).name
        return await begin(corral, workshop, corral.catalog.order("update", called), f"Update of {called} has begun.")

    @routes.post("/{name:path}/rollback", response_model=OneInstalled)
    async def rollback(name: str, request: RevisionRequest | None = None) -> Response:
        """Let a model be its revision before, or another of its own. Instant, and used from the next request on."""
        installed = await corral.catalog.rollback(_named(corral, name).name, _revision(request))
        return _changed(corral, installed, f"{installed.name} is {installed.revision.id[:12]} now.")

    @routes.post("/{name:path}/pin", response_model=OneInstalled)
    async def pin(name: str, request: RevisionRequest | None = None) -> Response:
        """Hold a model at its revision, or at another of its own."""
        installed = await corral.catalog.pin(_named(corral, name).name, _revision(request))
        return _changed(corral, installed, f"{installed.name} stays {installed.revision.id[:12]}.")

    @routes.delete("/{name:path}/pin", response_model=OneInstalled)
    async def unpin(name: str) -> Response:
        """Let a model be updated and removed again."""
        installed = await corral.catalog.unpin(_named(corral, name).name)
        return _changed(corral, installed, f"{installed.name} can be updated.")

    return routes


def _files(corral: Corral, workshop: Workshop) -> APIRouter:
    routes = APIRouter(prefix=_PREFIX, tags=["models"])

    @routes.post("/{name:path}/verify", response_model=Begun)
    async def verify(name: str) -> Response:
        """Read every byte of a model again and compare it with its digests: an operation."""
        called = _named(corral, name).name
        order = corral.catalog.order("verify", called)
        return await begin(corral, workshop, order, f"Verification of {called} has begun.")

    @routes.post("/{name:path}/push", response_model=Begun)
    async def push(name: str, request: PushRequest) -> Response:
        """Put a model where others can install it from: an operation."""
        called = _named(corral, name).name
        order = corral.catalog.order("push", called, to=printable(request.to, "to"))
        return await begin(corral, workshop, order, f"Push of {called} has begun.")

    @routes.post("/{name:path}/move", response_model=Begun)
    async def move(name: str, request: MoveRequest) -> Response:
        """Move a model's files to a folder on another disk, or back: an operation."""
        called = _named(corral, name).name
        folder = None if request.folder is None else Path(printable(request.folder, "folder"))
        if folder is not None and not folder.is_absolute():
            raise InvalidRequest("The folder must be given whole, from / on.", param="folder")
        order = corral.catalog.order("move", called, folder=None if folder is None else str(folder))
        return await begin(corral, workshop, order, f"Move of {called} has begun.")

    return routes


def _show(corral: Corral) -> APIRouter:
    routes = APIRouter(prefix=_PREFIX, tags=["models"])

    @routes.get("/{name:path}", response_model=OneWholeModel)
    async def show(name: str) -> Response:
        """All of a model: files, facts, and whether it fits this machine."""
        return reply({"success": True, "model": await _whole(corral, _named(corral, name))})

    return routes


def override_of(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is said of a model, in the form in which it is kept; None when nothing is.

    `runtime` and the context's length stand beside the capabilities there.
    """
    able = {key: value for key, value in said.items() if key not in (*_WHOLE, "max_context_length")}
    nested = said.get("capabilities")
    if isinstance(nested, Mapping):
        able |= nested
    context = said.get("max_context_length", said.get("context_length"))
    kept = {"capabilities": able, "runtime": said.get("runtime"), "context_length": context}
    return {key: value for key, value in kept.items() if value not in (None, {})} or None


def _named(corral: Corral, name: str) -> Installed:
    return corral.registry.get(check_name(name))


def _revision(request: RevisionRequest | None) -> str | None:
    given = None if request is None else request.revision or request.to
    return None if given is None else printable(given, "revision")


def _able(corral: Corral, installed: Installed) -> dict[str, Any]:
    return {
        "success": True,
        "model_name": installed.name,
        "capabilities": asdict(capabilities(installed)),
        "override": dict(corral.registry.override(installed.name)),
    }


def _history(corral: Corral, installed: Installed) -> dict[str, Any]:
    rows = [past_row(past) for past in corral.registry.history(installed.name)]
    return {"success": True, "model_name": installed.name, "revisions": rows, "count": len(rows)}


def _changed(corral: Corral, installed: Installed, message: str) -> Response:
    return reply({"success": True, "message": message, "model": Describer(corral).summary(installed)})


async def _whole(corral: Corral, installed: Installed) -> dict[str, Any]:
    revision = installed.revision
    judge = await Judge.of(corral.settings.models_dir)
    facts = await asyncio.to_thread(dict, revision.facts)
    return (await Describer.of(corral)).summary(installed) | {
        "capabilities": asdict(capabilities(installed)),
        "files": [asdict(file) for file in revision.files],
        "facts": facts,
        "override": dict(corral.registry.override(installed.name)),
        "follows": installed.follows,
        "folder": None if installed.folder is None else str(installed.folder),
        "fit": judged(judge.fit(facts, revision.size)),
    }
