"""Whether models fit this machine: one look at it, many models."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from corral.lifecycle.footprint import Fit, Room, fit
from corral.lifecycle.reckoning import estimate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from corral.config.settings import EngineSettings
    from corral.domain.hardware import Machine
    from corral.domain.memory import Demand

_TENTH = 10


def rooms(machine: Machine) -> list[Room]:
    """The memories of a machine, the best first, each with its whole size; one that was lost says why."""
    gone = [Room(lost.gpu.id, lost.gpu.total, 0, lost.gpu.unified, lost.reason) for lost in machine.lost]
    apart = [Room(gpu.id, gpu.total, gpu.free, gpu.unified) for gpu in machine.gpus or ()]
    return [*apart, *gone, Room("cpu", machine.memory.total, machine.memory.available)]


def allowed(room: Room, settings: EngineSettings) -> Room:
    """The same room with what engines may take of it at most, whoever has it now: `engines.memory`, `engines.reserve`.

    `engines.memory` names a device, or all of a kind (`cuda`). Of a small device at most a tenth is kept back.
    """
    limit = settings.memory.get(room.id, settings.memory.get(room.id.partition(":")[0]))
    if room.total is None or room.unified:
        return room
    most = room.total - min(settings.reserve, room.total // _TENTH)
    return replace(room, total=most if limit is None else min(limit, room.total))


class Judge:
    """Judges by one look at the machine."""

    def __init__(self, machine: Machine) -> None:
        self._rooms = [room for room in rooms(machine) if not room.unified and room.lost is None]

    @classmethod
    async def of(cls, folder: Path) -> Judge:
        """A judge who has looked at the machine just now."""
        from corral.hardware import snapshot

        return cls(await asyncio.to_thread(snapshot.take, folder, usage=False))

    def fit(self, facts: Mapping[str, Any], size: int | None, demand: Demand | None = None) -> Fit | None:
        """How a model with these facts and `size` bytes of files fits; None when its size is not known."""
        return None if size is None else fit(estimate(facts, size, demand), self._rooms)


def judged(found: Fit | None) -> dict[str, Any]:
    """A judgement, as JSON shows it; null throughout when there is none."""
    if found is None:
        return {"verdict": None, "reason": "its size is not known", "needed": None, "estimate": None, "devices": []}
    return {
        "verdict": found.verdict,
        "reason": found.reason,
        "needed": found.estimate.total,
        "estimate": asdict(found.estimate),
        "devices": [asdict(device) for device in found.devices],
    }
