"""How far this machine reaches with a model: where it would be put, with how much context, and what to change."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from corral.app.fitness import allowed, rooms
from corral.app.launching import prepare
from corral.domain.memory import Demand
from corral.errors import ModelNotFound, NotSupported
from corral.lifecycle.footprint import Room, Verdict, placements, reach, refusal
from corral.lifecycle.reckoning import estimate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.app.corral import Corral
    from corral.domain.hardware import Machine
    from corral.domain.memory import Placement
    from corral.lifecycle.engines import Launch

_EASE = 0.9


@dataclass(frozen=True, slots=True)
class Wish:
    """How somebody would run a model; None is what its definition says. `device` as in a `Demand`."""

    context: int | None = None
    slots: int | None = None
    device: str | None = None


async def reaches(corral: Corral, what: str, wish: Wish, machine: Machine) -> dict[str, Any]:
    """Whether a model fits this machine as it is wished for, where it would be put, and how far each device reaches.

    `what` is an installed name, a short name or a reference; of what is not installed only the metadata is asked for.

    Raises:
        CorralError: there is no such model, its source could not be asked, or its size is not known.
    """
    facts, size, demand, launch = await _asked(corral, what, wish)
    there = [allowed(room, corral.settings.engines) for room in rooms(machine)]
    remembered = {} if launch is None else await asyncio.to_thread(corral.memory.remembered, launch)
    ways = placements(facts, size, demand, there, remembered)
    limits = {room.id: room for room in there}
    best = next(
        (way for way in ways if all(_holds(limits.get(name), need) for name, need in way.devices.items())), None
    )
    refused = refusal(facts, size, demand, there) if best is None else None
    found = estimate(facts, size, demand)
    reached = [reach(facts, size, demand, room) for room in there if room.lost is None and _wanted(room, demand)]
    reason, hint = ("", "") if best is not None else refused or ("what it took before is more than there is", "")
    return {
        "model": what,
        "verdict": Verdict.NO if best is None else _verdict(best, limits),
        "reason": reason,
        "hint": hint,
        "context": found.tokens,
        "slots": demand.slots,
        "estimate": asdict(found) | {"total": found.total},
        "placement": None if best is None else asdict(best),
        "devices": [asdict(one) for one in reached],
        "lost": {lost.gpu.id: lost.reason for lost in machine.lost},
    }


async def _asked(corral: Corral, what: str, wish: Wish) -> tuple[Mapping[str, Any], int, Demand, Launch | None]:
    """The facts, size and demand of a model, and what its footprint is remembered under when it is installed."""
    try:
        launch = await prepare(corral, what)
    except ModelNotFound:
        ref = corral.origins.of(what)
        if ref is None:
            raise
        listing = await corral.sources[ref.scheme].resolve(ref)
        sizes = [file.size for file in listing.files]
        size = sum(size for size in sizes if size is not None)
        if not size:
            raise NotSupported(
                f"The size of {what!r} is not known before it is installed.", f"corral pull {what}"
            ) from None
        gguf = any(file.name.endswith(".gguf") for file in listing.files)
        return listing.facts, size, _wished(Demand(splits=gguf), wish), None
    spec, runtime = launch.spec, launch.runtime
    names = {item.name for item in fields(spec.options)}
    given = {name: value for name, value in (("context", wish.context), ("slots", wish.slots)) if value is not None}
    changed = replace(spec, options=replace(spec.options, **{key: given[key] for key in given if key in names}))
    demand = runtime.demand(changed)
    if demand is None or spec.revision is None:
        raise NotSupported(f"{what!r} takes no memory of this machine that could be told.", "It runs elsewhere.")
    return spec.revision.facts, spec.revision.size, _wished(demand, wish), replace(launch, spec=changed)


def _wished(demand: Demand, wish: Wish) -> Demand:
    return replace(
        demand,
        context=wish.context or demand.context,
        slots=wish.slots or demand.slots,
        device=wish.device or demand.device,
    )


def _wanted(room: Room, demand: Demand) -> bool:
    """Whether the demand could go there at all."""
    if demand.layers == 0:
        return room.id == "cpu"
    return demand.device is None or demand.device in (room.id, room.id.partition(":")[0])


def _holds(room: Room | None, needed: int) -> bool:
    return room is None or room.total is None or needed <= room.total


def _verdict(way: Placement, limits: Mapping[str, Room]) -> Verdict:
    """Whether it fits with ease into what is free now."""
    for name, needed in way.devices.items():
        room = limits.get(name)
        if room is not None and (room.free is None or needed > room.free * _EASE):
            return Verdict.TIGHT
    return Verdict.YES
