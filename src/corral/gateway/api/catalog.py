"""`/api/v1/models`: what is installed and what can be, installing and removing, and the room that is left."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from corral.app import Corral
from corral.app.described import Describer
from corral.app.providers import wanted
from corral.domain.hardware import Machine
from corral.domain.models import check_name
from corral.domain.operations import Operation, Order
from corral.gateway.api import offers
from corral.gateway.api.pages import Limit, conditional, printable, reply
from corral.gateway.api.shapes import (
    Activated,
    ActivateRequest,
    Begun,
    CollectRequest,
    FoundModels,
    InstalledPage,
    InstallRequest,
    OfferedModels,
    StoreRoom,
    UsageAnswer,
)
from corral.gateway.workshop import Workshop
from corral.hardware import snapshot

_GB = 1000**3
_GIB = 1024**3
_MIB = 1024**2

Provider = Annotated[str | None, Query(description="huggingface, ollama, … or any other source's name")]


def router(corral: Corral) -> APIRouter:
    """The routes that list, over `corral`."""
    routes = APIRouter(prefix="/api/v1/models", tags=["models"])

    @routes.get("", response_model=InstalledPage)
    async def list_installed(
        request: Request, limit: Limit = 100, after: Annotated[str | None, Query(description="`next` of before")] = None
    ) -> Response:
        """Installed models by name, in pages. With `If-None-Match`, 304 as long as nothing changed."""
        return conditional(
            request, corral.registry.stamp(), lambda: page(corral, printable(after or "", "after"), limit)
        )

    @routes.get("/providers", response_model=OfferedModels)
    async def list_providers(provider: Provider = None, limit: Limit = 50) -> Response:
        """Models of a provider, installed or not; without one, what is installed and what has a short name."""
        models, problems = await offers.offered(corral, provider, limit)
        return reply({"success": True, "models": models, "count": len(models), "problems": problems})

    @routes.get("/search", response_model=FoundModels)
    async def search(
        q: Annotated[str, Query(description="Words")] = "",
        limit: Limit = 20,
        source: Annotated[str | None, Query(description="Where to look; by default on Hugging Face")] = None,
    ) -> Response:
        """What is installed or offered that matches, and whether it fits this machine."""
        models, problems = await offers.search(corral, printable(q, "q"), limit, source)
        return reply({"success": True, "models": models, "count": len(models), "problems": problems})

    return routes


def work(corral: Corral, workshop: Workshop) -> APIRouter:
    """The routes that change what is installed; long work goes to `workshop`."""
    routes = APIRouter(prefix="/api/v1/models", tags=["models"])

    @routes.post("/registry/install", response_model=Begun)
    async def install(request: InstallRequest) -> Response:
        """Install a model: an operation. An equal one that is under way is joined."""
        what, name = printable(request.name, "name"), request.alias
        if request.source is not None:
            what, name = printable(request.source, "source"), name or request.name
        else:
            what, called = wanted(corral, what, request.provider)
            name = name or called
        order = corral.catalog.install_order(what, name=name, runtime=request.runtime)
        return await begin(corral, workshop, order, f"Installation of {request.name} has begun.")

    @routes.delete("/registry/{name:path}", response_model=Begun)
    async def remove(
        name: str, force: Annotated[bool, Query(description="Also when it is in memory, pinned or used")] = False
    ) -> Response:
        """Remove a model, and free what no other needs: an operation."""
        if name not in corral.registry.damaged():
            name = corral.registry.get(check_name(name)).name
        order = corral.catalog.order("remove", name, force=force)
        return await begin(corral, workshop, order, f"Removal of {name} has begun.")

    @routes.post("/activate", response_model=Activated)
    async def activate(request: ActivateRequest) -> Response:
        """Choose the runtime that runs a model, and bring it into memory; answers when it is ready."""
        name = check_name(request.name)
        _, runtime, remark = await corral.catalog.activate(name, request.runtime)
        said = f"{name} is active. {remark}".rstrip()
        return reply({"success": True, "message": said, "model_name": name, "runtime": runtime})

    @routes.post("/gc", response_model=Begun)
    async def collect(request: CollectRequest | None = None) -> Response:
        """Remove what nothing needs: old revisions, files, leftovers. An operation; its result says what it was."""
        dry = request is not None and request.dry_run
        return await begin(corral, workshop, corral.catalog.order("gc", "", dry_run=dry), "Collection has begun.")

    @routes.post("/verify", response_model=Begun)
    async def verify_all() -> Response:
        """Read every byte of the store again and compare it with its digests: an operation."""
        return await begin(corral, workshop, corral.catalog.order("verify", ""), "Verification has begun.")

    return routes


def room(corral: Corral) -> APIRouter:
    """The routes that say what is used."""
    routes = APIRouter(prefix="/api/v1/models", tags=["models"])

    @routes.get("/usage", response_model=UsageAnswer)
    async def usage() -> Response:
        """What is used of disk, processor, memory and graphics, with the limits; looks for 0.1 s."""
        machine = await asyncio.to_thread(snapshot.take, corral.settings.models_dir)
        store = await asyncio.to_thread(corral.registry.usage)
        figures = usage_of(machine, store.total, store.quota, len(corral.registry.names()))
        return reply({"success": True, "usage": figures})

    @routes.get("/df", response_model=StoreRoom)
    async def disk() -> Response:
        """What takes what in the store, and what is shared."""
        return reply({"success": True, **asdict(await asyncio.to_thread(corral.registry.usage))})

    return routes


async def begin(corral: Corral, workshop: Workshop, order: Order, message: str) -> Response:
    """Order an operation, and say by which name it is followed."""
    corral.catalog.check(order)
    await workshop.open()
    operation: Operation = await corral.catalog.start(order)
    return reply({"success": True, "operation_id": operation.id, "message": message})


def page(corral: Corral, after: str, limit: int) -> dict[str, Any]:
    """A page of installed models. Milliseconds, however many there are."""
    found = corral.registry.page(after or None, limit + 1)
    describer = Describer(corral)
    models = [describer.summary(installed) for installed in found[:limit]]
    return {
        "success": True,
        "models": models,
        "count": len(models),
        "total": len(corral.registry.names()),
        "problems": dict(corral.registry.problems()),
        "next": models[-1]["name"] if len(found) > limit else None,
    }


def usage_of(machine: Machine, taken: int, quota: int | None, models: int) -> dict[str, Any]:
    """What is used, in the document's names and units."""
    gpus = [gpu for gpu in machine.gpus or () if gpu.total is not None and gpu.used is not None]
    vram = sum(gpu.total or 0 for gpu in gpus) or None
    vram_used = sum(gpu.used or 0 for gpu in gpus) if vram else None
    busy = [gpu.usage for gpu in machine.gpus or () if gpu.usage is not None]
    memory = machine.memory
    return {
        "disk_usage_gb": round(taken / _GB, 3),
        "disk_limit_gb": None if quota is None else round(quota / _GB, 3),
        "disk_usage_percent": share(taken, quota),
        "cpu_usage_percent": machine.cpu.usage,
        "memory_total_gb": in_units(memory.total, _GIB),
        "memory_used_gb": in_units(memory.used, _GIB),
        "memory_usage_percent": share(memory.used, memory.total),
        "gpu_usage_percent": round(sum(busy) / len(busy), 1) if busy else None,
        "vram_usage_mb": in_units(vram_used, _MIB),
        "vram_total_mb": in_units(vram, _MIB),
        "vram_usage_percent": share(vram_used, vram),
        "models_count": models,
    }


def share(part: int | None, whole: int | None) -> float | None:
    """How much of `whole` is `part`, in percent; None when either is unknown."""
    return None if part is None or not whole else round(100 * part / whole, 1)


def in_units(size: int | None, unit: int) -> float | None:
    """Bytes as so many units, rounded; None when unknown."""
    return None if size is None else round(size / unit, 2)
