"""Whether a machine has the memory that an engine will take, where it can be put, and how far it reaches. Pure.

`reckoning` makes bytes of a model's metadata and a runtime's demand; this compares them with what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from corral.domain.memory import Demand, Placement
from corral.domain.sizes import human
from corral.lifecycle.reckoning import Estimate, Slices, estimate, slices, trained_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EASE = 0.9
"""Of what is free, an estimate may take this much and still count as fitting with ease."""
_LONGEST = 1 << 20
"""Tokens of context to try at most where nobody says for how many a model was trained."""
_STEP = 256
"""Tokens by which a context is made longer."""
_NOTHING: Mapping[str, Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Room:
    """Memory that a model may use. `id` is `cpu`, `cuda:0`, …; `total` and `free` in bytes, None when unknown.

    `unified`: it has none of its own and takes the processor's. `lost`: why the device is gone, when it is.
    """

    id: str
    total: int | None
    free: int | None
    unified: bool = False
    lost: str | None = None


class Verdict(StrEnum):
    """Whether a model fits."""

    YES = "yes"
    TIGHT = "tight"
    NO = "no"


@dataclass(frozen=True, slots=True)
class DeviceFit:
    """How a model fits one device: bytes `needed`, and the device's own."""

    device: str
    verdict: Verdict
    needed: int
    free: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model fits a machine, and why, in words; `devices` in the order in which they would be taken."""

    verdict: Verdict | None
    reason: str
    estimate: Estimate
    devices: tuple[DeviceFit, ...] = ()


def fit(estimate: Estimate, rooms: Sequence[Room]) -> Fit:
    """Whether it fits into these memories, best device first; the processor's own is called `cpu`.

    yes: into what is free of the best one, with ease. tight: only just, only when others leave, or only on a lesser
    device or on several. no: not even when all is free. None: nothing is known of the memory.
    """
    found = tuple(_on(estimate, room) for room in rooms)
    known = [device for device in found if device.total is not None]
    if not known:
        return Fit(None, f"needs {human(estimate.total)}; how much memory there is, is not known", estimate, found)
    best = known[0]
    need = f"needs {human(best.needed)}{_how(estimate)}"
    if best.verdict is Verdict.YES:
        return Fit(Verdict.YES, f"{need}; {_left(best)}", estimate, found)
    lesser = next((device for device in known[1:] if device.verdict is not Verdict.NO), None)
    if best.verdict is Verdict.TIGHT:
        if lesser is not None and best.free is not None and best.needed > best.free:
            return Fit(Verdict.TIGHT, f"{need}; {_left(best)}; {lesser.device} has room, too", estimate, found)
        return Fit(Verdict.TIGHT, f"{need}; {_left(best)}", estimate, found)
    if lesser is not None:
        return Fit(
            Verdict.TIGHT,
            f"{need}, more than {best.device} has ({_total(best)}); {lesser.device} has room",
            estimate,
            found,
        )
    together = sum(device.total or 0 for device in known)
    if len(known) > 1 and estimate.total <= together * _EASE:
        names = " and ".join(device.device for device in known)
        return Fit(Verdict.TIGHT, f"{need}; only {names} together have that ({human(together)})", estimate, found)
    return Fit(Verdict.NO, f"{need}, more than {best.device} has ({_total(best)})", estimate, found)


def _on(estimate: Estimate, room: Room) -> DeviceFit:
    needed = estimate.total if room.id == "cpu" else estimate.on_gpu
    if room.total is None or needed > room.total:
        verdict = Verdict.NO
    elif room.free is not None and needed <= room.free * _EASE:
        verdict = Verdict.YES
    else:
        verdict = Verdict.TIGHT
    return DeviceFit(room.id, verdict, needed, room.free, room.total)


def _how(estimate: Estimate) -> str:
    slots = "" if estimate.slots == 1 else f"{estimate.slots} x "
    guess = ", a guess" if estimate.guessed else ""
    return f" with {slots}{estimate.tokens} tokens of context{guess}"


def _left(device: DeviceFit) -> str:
    if device.free is None:
        return f"{device.device} has {_total(device)}, how much of it is free is not known"
    return f"{device.device} has {human(device.free)} free of {_total(device)}"


def _total(device: DeviceFit) -> str:
    return human(device.total or 0)


def placements(
    facts: Mapping[str, Any],
    size: int,
    demand: Demand,
    devices: Sequence[Room],
    remembered: Mapping[str, Mapping[str, int]] = _NOTHING,
) -> tuple[Placement, ...]:
    """The ways to put an engine, the best first: on a GPU, over several, partly on one, on the processor.

    A room's `total` is what engines may take of that device, whoever holds it now. Ways that would not fit there are
    left out; when none fits all are returned, so that whoever decides can say what is wanting. Empty only where there
    is no such device as `demand` asks for: see `refusal`. `remembered` holds measured bytes by device, under the `key`
    of a placement; they take the place of the estimate.
    """
    there = _Ground(facts, size, demand, devices, remembered)
    ways = [*there.whole(), *there.spread(), *there.partly(), *there.beside()]
    fitting = tuple(way for way in ways if there.holds(way))
    return fitting or tuple(ways)


def key(placement: Placement) -> str:
    """What a placement's footprint is remembered under: `cpu`, `cuda:0`, `cuda:0+cuda:1`, `cuda:0+cpu/12`."""
    graphics = [device for device in placement.devices if device != "cpu"]
    if placement.layers is None:
        return "+".join(graphics) or "cpu"
    return f"{'+'.join([*graphics, 'cpu'])}/{placement.layers}" if graphics else "cpu"


def refusal(facts: Mapping[str, Any], size: int, demand: Demand, devices: Sequence[Room]) -> tuple[str, str] | None:
    """Why no way to put it can ever be taken on this machine, and what to change; None when there is one."""
    there = _Ground(facts, size, demand, devices, _NOTHING)
    ways = placements(facts, size, demand, devices)
    if any(there.holds(way) for way in ways):
        return None
    if not ways:
        lost = [room for room in devices if room.lost is not None and _meant(room.id, demand.device or "", True)]
        if lost:
            return f"{lost[0].id} is gone: {lost[0].lost}", "See: corral hardware"
        found = ", ".join(room.id for room in devices) or "nothing that is known"
        several = f"{demand.parallel} devices" if demand.parallel > 1 else "a device"
        return f"it wants {several} {demand.device!r}, and this machine has {found}", "See: corral hardware"
    near = ways[-1] if demand.layers is None else ways[0]
    short = next(room for room in devices if (room.total or 0) < near.devices.get(room.id, 0))
    needed = human(near.devices[short.id])
    how = _how(there.estimate) if demand.fixed is None else ""
    reason = f"needs {needed}{how} {near.said}, more than {short.id} may give ({human(short.total or 0)})"
    if demand.fixed is not None:
        return reason, "Take less of it, or raise engines.memory."
    return reason, f"Try {'; or '.join(reach(facts, size, demand, short).advice)}."


class _Ground:
    """What the ways to put one engine are worked out from."""

    def __init__(
        self,
        facts: Mapping[str, Any],
        size: int,
        demand: Demand,
        devices: Sequence[Room],
        remembered: Mapping[str, Mapping[str, int]],
    ) -> None:
        self.estimate = estimate(facts, size, demand)
        self._demand = demand
        self._slices = slices(facts, self.estimate, demand)
        self._rooms = {room.id: room for room in devices}
        self._remembered = remembered
        self._gpus = self._graphics(devices)

    def holds(self, way: Placement) -> bool:
        """Whether there is as much on each device, whoever holds it."""
        rooms = ((self._rooms.get(device), needed) for device, needed in way.devices.items())
        return all(room is None or room.total is None or needed <= room.total for room, needed in rooms)

    def whole(self) -> list[Placement]:
        """All of it on one GPU, the largest first."""
        if self._demand.parallel > 1 or self._part() is not None:
            return []
        return [self._placed(self._alone(gpu), None, f"wholly on {gpu.id}") for gpu in self._gpus]

    def spread(self) -> list[Placement]:
        """Evenly over as many GPUs of one kind as were asked for."""
        wanted, found = self._demand.parallel, self.estimate
        if wanted < 2:
            return []
        ways = []
        for kind in dict.fromkeys(_kind(gpu.id) for gpu in self._gpus):
            group = [gpu for gpu in self._gpus if _kind(gpu.id) == kind][:wanted]
            if len(group) == wanted:
                share = -(-(found.weights + found.cells) // wanted) + found.compute + found.logits + found.overhead
                parts = {gpu.id: share for gpu in sorted(group, key=lambda gpu: gpu.id)} | {"cpu": found.process}
                ways.append(self._placed(parts, None, "over " + " and ".join(list(parts)[:-1])))
        return ways

    def partly(self) -> list[Placement]:
        """Some layers on a GPU that cannot take all, as many as it can; or as many as were asked for."""
        cut, asked = self._slices, self._part()
        if cut is None or not self._demand.splits or self._demand.parallel > 1:
            return []
        ways = []
        for gpu in self._gpus:
            if gpu.unified:
                continue
            if asked is None and self.holds(self._placed(self._alone(gpu), None, "")):
                continue
            tries = [self._split(gpu, cut, layers) for layers in range(asked or cut.count - 1, 0, -1)]
            held = next((way for way in tries if self.holds(way)), tries[0] if asked is not None else None)
            ways += [] if held is None else [held]
        return sorted(ways, key=lambda way: -(way.layers or 0))

    def beside(self) -> list[Placement]:
        """On the processor, and why not on a GPU where there is one."""
        device, layers = self._demand.device, self._demand.layers
        if device not in (None, "cpu") and layers != 0:
            return []
        said = "on the processor"
        lost = next((room for room in self._rooms.values() if room.lost is not None), None)
        if device is None and layers != 0 and lost is not None:
            said += f"; {lost.id} is gone: {lost.lost}"
        elif self._gpus and layers != 0:
            said += ", without a GPU"
        return [self._placed({"cpu": self.estimate.total}, None, said)]

    def _graphics(self, devices: Sequence[Room]) -> list[Room]:
        """The GPUs that may be taken: the largest first, of equals the emptier one."""
        if self._demand.layers == 0 or self._demand.device == "cpu":
            return []
        here = [room for room in devices if room.id != "cpu" and room.lost is None]
        exact = any(room.id == self._demand.device for room in here)
        meant = [
            room for room in here if self._demand.device is None or _meant(room.id, self._demand.device, not exact)
        ]
        return sorted(meant, key=lambda room: (-_size(room.total), -_size(room.free)))

    def _part(self) -> int | None:
        """The layers asked for, when that is not all of them."""
        asked = self._demand.layers
        known = asked is not None and self._slices is not None and 0 < asked < self._slices.count
        return asked if known and self._demand.splits else None

    def _alone(self, gpu: Room) -> dict[str, int]:
        found = self.estimate
        if gpu.unified:
            return {gpu.id: 0, "cpu": found.total}
        kept = self._slices.outer if self._demand.splits and self._slices is not None else 0
        return {gpu.id: found.on_gpu, "cpu": found.process + kept}

    def _split(self, gpu: Room, cut: Slices, layers: int) -> Placement:
        found = self.estimate
        taken = cut.taken(layers) + found.compute + found.logits + found.overhead
        said = f"{layers} of {cut.count} layers on {gpu.id}, the others on the processor"
        parts = {gpu.id: taken, "cpu": cut.left(layers) + found.compute + found.process}
        return self._placed(parts, layers, said)

    def _placed(self, parts: dict[str, int], layers: int | None, said: str) -> Placement:
        source = "guessed" if self.estimate.guessed else "estimated"
        placed = Placement(parts, layers, said, source)
        known = self._remembered.get(key(placed), {})
        if not known:
            return placed
        if parts[placed.device] == 0 or placed.device in known:
            source = "measured"
        return replace(placed, devices={name: known.get(name, count) for name, count in parts.items()}, source=source)


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _size(count: int | None) -> float:
    return inf if count is None else count


def _meant(device: str, asked: str, loosely: bool) -> bool:
    """Whether `asked` (`cuda`, `cuda:1`, `gpu`) means this device; torch calls AMD's `cuda`, too."""
    named = {device, _kind(device), "gpu"} if device != "cpu" else {device}
    if loosely and _kind(device) == "rocm":
        named |= {"cuda", device.replace("rocm", "cuda")}
    return asked in named or not asked


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one device reaches with a model. Bytes; tokens of each slot; None is not at all.

    Attributes:
        device: which.
        needed: bytes it must give for the demand as it is.
        total: bytes engines may take of it; None when unknown, and then nothing below is.
        free: bytes of that which nobody holds.
        context: the longest context with as many slots as were asked for, for the layers asked for; None also where
            the files do not say what a context takes.
        single: the longest with one slot.
        layers: the most layers it takes with the context asked for; None where a model cannot be cut.
        of: layers there are.
        verdict: whether the demand fits as it is, with what others hold counted.
        advice: what to change, most useful first.
    """

    device: str
    needed: int
    total: int | None
    free: int | None
    context: int | None
    single: int | None
    layers: int | None
    of: int | None
    verdict: Verdict | None
    advice: tuple[str, ...] = ()


def reach(facts: Mapping[str, Any], size: int, demand: Demand, room: Room) -> Reach:
    """The longest context and the most layers that a device can take, and what to change when it does not fit."""
    found = estimate(facts, size, demand)
    cut = slices(facts, found, demand) if demand.splits and room.id != "cpu" and not room.unified else None
    of = None if cut is None else cut.count
    needed = _share(facts, size, demand, room)
    if room.total is None:
        return Reach(room.id, needed, None, room.free, None, None, None, of, None)
    most = None if cut is None else _most_layers(facts, size, demand, room, cut)
    # Of a guess, nothing can be said for other contexts.
    context = None if found.guessed else _longest(facts, size, demand, room)
    single = None if found.guessed else _longest(facts, size, replace(demand, slots=1), room)
    verdict = _verdict(needed, room)
    advice = [] if verdict is not Verdict.NO else list(_advice(facts, size, demand, room, (context, single, most)))
    return Reach(room.id, needed, room.total, room.free, context, single, most, of, verdict, tuple(advice))


def _share(facts: Mapping[str, Any], size: int, demand: Demand, room: Room) -> int:
    """Bytes that this device must give."""
    found = estimate(facts, size, demand)
    if room.id == "cpu" or room.unified:
        return found.total
    cut = slices(facts, found, demand) if demand.splits else None
    if cut is None or demand.layers is None or demand.layers >= cut.count:
        return found.on_gpu
    return cut.taken(demand.layers) + found.compute + found.logits + found.overhead


def _longest(facts: Mapping[str, Any], size: int, demand: Demand, room: Room) -> int | None:
    """The longest context that fits, in steps; None when not even the shortest does."""
    most = trained_context(facts) or _LONGEST

    def fits(tokens: int) -> bool:
        return _share(facts, size, replace(demand, context=tokens), room) <= (room.total or 0)

    if fits(most):
        return most
    short, long = 0, -(-most // _STEP)
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if fits(middle * _STEP) else (short, middle)
    return short * _STEP or None


def _most_layers(facts: Mapping[str, Any], size: int, demand: Demand, room: Room, cut: Slices) -> int:
    tries = range(cut.count, 0, -1)
    room_for = (n for n in tries if _share(facts, size, replace(demand, layers=n), room) <= (room.total or 0))
    return next(room_for, 0)


def _verdict(needed: int, room: Room) -> Verdict:
    if needed > (room.total or 0):
        return Verdict.NO
    return Verdict.YES if room.free is not None and needed <= room.free * _EASE else Verdict.TIGHT


def _advice(
    facts: Mapping[str, Any], size: int, demand: Demand, room: Room, found: tuple[int | None, int | None, int | None]
) -> list[str]:
    """What would make it fit a device that it does not."""
    context, single, layers = found
    said = []
    if context is not None:
        said.append(f"context {context}")
    if single is not None and demand.slots > 1 and single > (context or 0):
        said.append(f"slots 1 with context {single}")
    if demand.keys in ("f16", "bf16", "f32") and demand.cache is None:
        smaller = replace(demand, keys="q8_0", values="q8_0")
        if _share(facts, size, smaller, room) <= (room.total or 0):
            said.append("cache_type_k and cache_type_v q8_0")
    if layers:
        said.append(f"{layers} layers on {room.id}")
    return said or ["a smaller model or quantisation"]
