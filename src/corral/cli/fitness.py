"""Whether a model fits this machine, as `show` and `search` say it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.cli.output import Painted
from corral.hardware import snapshot
from corral.lifecycle.footprint import Fit, Plan, Room, estimate, fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from corral.domain.hardware import Machine

_COLOURS = {"yes": "green", "tight": "yellow", "no": "red"}


class Judge:
    """Judges by one look at the machine, which is taken when it is first asked. Blocks for that long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rooms: list[Room] | None = None

    def fit(self, facts: Mapping[str, Any], size: int | None, context: int | None = None) -> Fit | None:
        """How a model with these facts and `size` bytes of files fits; None when its size is not known."""
        if size is None:
            return None
        if self._rooms is None:
            self._rooms = rooms(snapshot.take(self._folder, usage=False))
        return fit(estimate(facts, size, Plan(context=context)), self._rooms)


def rooms(machine: Machine) -> list[Room]:
    """The memories of a machine that a model may use, the best first."""
    apart = [Room(gpu.id, gpu.total, gpu.free) for gpu in machine.gpus or () if not gpu.unified]
    return [*apart, Room("cpu", machine.memory.total, machine.memory.available)]


def judged(found: Fit | None) -> dict[str, Any] | None:
    """A judgement, as JSON shows it."""
    if found is None:
        return None
    devices: Sequence[dict[str, Any]] = [asdict(device) for device in found.devices]
    needed = {"bytes": found.estimate.total, **asdict(found.estimate)}
    return {"verdict": found.verdict, "reason": found.reason, "estimate": needed, "devices": devices}


def painted(verdict: object) -> Painted:
    """A verdict in its colour; a dash when there is none."""
    return Painted(verdict or "-", _COLOURS.get(str(verdict), ""))
