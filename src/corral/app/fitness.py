"""Whether models fit this machine: one look at it, many models."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.hardware import snapshot
from corral.lifecycle.footprint import Fit, Room, fit
from corral.lifecycle.reckoning import estimate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from corral.domain.hardware import Machine
    from corral.domain.memory import Demand


def rooms(machine: Machine) -> list[Room]:
    """The memories of a machine that a model may use, the best first."""
    apart = [Room(gpu.id, gpu.total, gpu.free) for gpu in machine.gpus or () if not gpu.unified]
    return [*apart, Room("cpu", machine.memory.total, machine.memory.available)]


class Judge:
    """Judges by one look at the machine."""

    def __init__(self, machine: Machine) -> None:
        self._rooms = rooms(machine)

    @classmethod
    async def of(cls, folder: Path) -> Judge:
        """A judge who has looked at the machine just now."""
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
