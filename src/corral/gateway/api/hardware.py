"""`/api/v1/runtime/hardware` and `/api/v1/runtime/fit`: what this machine has, and what of a model it can hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Response

from corral.app.reaching import Wish, reaches
from corral.gateway.api.pages import printable, reply

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.domain.hardware import Machine

_FRESH = 1.0
"""Seconds for which a look is good enough for the next who asks."""

Model = Annotated[str, Query(description="An installed name, a short name or a reference", examples=["smollm2"])]
History = Annotated[float | None, Query(ge=0, le=86_400, description="Seconds of history to add, in columns")]
Tokens = Annotated[int | None, Query(ge=1, le=1 << 30, description="Tokens of each slot")]
Slots = Annotated[int | None, Query(ge=1, le=1024, description="Requests answered at once")]
Device = Annotated[str | None, Query(description="`cpu`, `cuda`, `cuda:1`, …")]


def router(corral: Corral) -> APIRouter:
    """The routes, over `corral`."""
    routes = APIRouter(prefix="/api/v1/runtime", tags=["runtime"])
    looks = corral.sampler

    @routes.get("/hardware", response_model=dict[str, Any])
    async def hardware(history: History = None) -> Response:
        """Processor, memory, disk and GPUs as they are now; what is not known is null. GPUs that were lost say why."""
        found = described(await looks.look(fresh=_FRESH))
        if history is not None:
            found["history"] = looks.history(history)
        return reply({"success": True, **found})

    @routes.get("/fit", response_model=dict[str, Any])
    async def fit(model: Model, context: Tokens = None, slots: Slots = None, device: Device = None) -> Response:
        """Whether a model fits, where it would be put, and how much context and how many layers each device takes."""
        name = printable(model, "model")
        wish = Wish(context, slots, None if device is None else printable(device, "device"))
        return reply({"success": True, **await reaches(corral, name, wish, await looks.look(fresh=_FRESH))})

    return routes


def described(machine: Machine) -> dict[str, Any]:
    """A look at the machine, as JSON shows it."""
    return asdict(machine) | {"best_device": machine.best_device}
