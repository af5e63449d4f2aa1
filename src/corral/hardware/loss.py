"""Devices that were there and are not: said, and never replaced by the processor in silence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from corral.domain.hardware import DeviceChange, Gpu, LostGpu, Machine


@dataclass(frozen=True, slots=True)
class Roll:
    """Every GPU ever seen, by its id as it was first given, and those of them that are lost."""

    seen: Mapping[str, Gpu] = field(default_factory=dict)
    lost: Mapping[str, LostGpu] = field(default_factory=dict)


def called(roll: Roll, machine: Machine, at: float) -> tuple[Roll, Machine, tuple[DeviceChange, ...]]:
    """The roll after a look, the machine with what it lost, and what changed since the look before.

    A GPU keeps its id when one before it on the bus is gone and the driver counts anew.
    """
    silent = machine.gpus is None
    there = {gpu.id: gpu for gpu in _renamed(roll, machine.gpus or ())}
    sound = {name: gpu for name, gpu in there.items() if gpu.fault is None}
    lost: dict[str, LostGpu] = {}
    changes: list[DeviceChange] = []
    for name, gpu in {**{key: there[key] for key in there if key not in sound}, **roll.seen}.items():
        if name in sound:
            continue
        known = roll.lost.get(name)
        if known is None:
            reason = _reason(there.get(name), silent=silent, alone=not there)
            known = LostGpu(replace(roll.seen.get(name, gpu), processes=None), at, reason)
            changes.append(DeviceChange(name, back=False, reason=reason, at=at))
        lost[name] = known
    changes += [
        DeviceChange(name, back=True, reason=f"it was gone: {roll.lost[name].reason}", at=at)
        for name in sound
        if name in roll.lost
    ]
    gpus = None if silent and not roll.seen else tuple(sound.values())
    seen = {**roll.seen, **{name: lost[name].gpu for name in lost}, **sound}
    return Roll(seen, lost), replace(machine, gpus=gpus, lost=tuple(lost.values()), at=at), tuple(changes)


def _reason(gpu: Gpu | None, *, silent: bool, alone: bool) -> str:
    if gpu is not None and gpu.fault is not None:
        return gpu.fault
    if silent:
        return "the driver does not answer"
    return "the driver is gone, or shows no device" if alone else "the driver no longer lists it"


def _renamed(roll: Roll, gpus: tuple[Gpu, ...]) -> list[Gpu]:
    """The same, each under the id that it had when it was first seen."""
    names = {gpu.uuid: name for name, gpu in roll.seen.items() if gpu.uuid is not None}
    kept = [replace(gpu, id=names[gpu.uuid]) for gpu in gpus if gpu.uuid in names]
    taken = {gpu.id for gpu in kept} | {name for name, gpu in roll.seen.items() if gpu.uuid is not None}
    for gpu in gpus:
        if gpu.uuid in names:
            continue
        # One that does not tell who it is can only be the one that was at its place.
        free = gpu.id if gpu.uuid is None and gpu.id not in {one.id for one in kept} else _free(gpu.id, taken)
        taken.add(free)
        kept.append(replace(gpu, id=free))
    return kept


def _free(name: str, taken: set[str]) -> str:
    kind, _, number = name.partition(":")
    index = int(number or 0)
    while name in taken:
        index += 1
        name = f"{kind}:{index}"
    return name
