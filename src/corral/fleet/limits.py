"""Limits worked out from what a container's models take, and what a stop has released. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.domain.containers import Port, Usage, Wanted

_GIB = 2**30
_SERVER = _GIB
"""Bytes for the server itself, beside its models."""
_ROOM = 1.25
"""What a model may take more than was reckoned: a longer context, a second request."""
_MACHINE = 16
"""The part of the machine's memory, one in so many, that no container gets; at least a GiB of it."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one model takes. Bytes; `host` in the machine's memory, `devices` on GPUs."""

    host: int
    devices: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may take. Bytes and processors; None is no limit. `reason` says what they come from."""

    memory: int | None = None
    cpus: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Released:
    """What a stop has given back. Bytes; None is unknown. `left` is GPU memory that processes of it still have."""

    memory: int | None = None
    gpu_memory: int | None = None
    left: int | None = None
    ports: tuple[int, ...] = ()


def limits(
    needs: Sequence[Need | None], memory: int | None, processors: int | None = None, had: int | None = None
) -> Limits:
    """The limits of a container that has all these models in memory at once.

    A need of None is unknown, and then there is no limit: a guess would end a server that is well.

    Args:
        memory: the machine's, in bytes.
        processors: the machine's.
        had: the limit on memory that it has now; it stays while it is enough and not twice too much, so that a
            container is not made anew for little.
    """
    known = [need for need in needs if need is not None]
    if not known or len(known) < len(needs):
        return Limits(reason="what its models take is not known yet" if needs else "it has no models yet")
    asked = ceil((sum(need.host for need in known) * _ROOM + _SERVER) / _GIB) * _GIB
    most = None if memory is None else max(_GIB, memory - max(_GIB, memory // _MACHINE))
    wanted = asked if most is None else min(asked, most)
    if had is not None and wanted <= had <= 2 * wanted and (most is None or had <= most):
        wanted = had
    models = "its model" if len(known) == 1 else f"its {len(known)} models"
    reason = f"{models} and the server"
    if wanted < asked:
        reason += f", who would take {asked / _GIB:g} GiB, and the machine has not as much"
    return Limits(wanted, _processors(known, processors), reason)


def above(found: Limits, taken: int | None, had: int | None = None) -> Limits:
    """The limit, raised so far that it ends no server that takes more than was reckoned; none where that is not known.

    Args:
        taken: what the container takes now, in bytes.
        had: the limit that it has; one that would be no less is none.
    """
    if found.memory is None or taken is None:
        return replace(found, memory=None)
    least = ceil(taken * _ROOM / _GIB) * _GIB
    if found.memory >= least:
        return found
    if had is not None and least >= had:
        return replace(found, memory=None)
    return replace(found, memory=least, reason=f"{found.reason}, who take more now")


def limited(wanted: Wanted, worked_out: Limits) -> Wanted:
    """The container with those limits that its configuration does not give."""
    spec = wanted.spec
    memory = worked_out.memory if spec.memory is None else spec.memory
    cpus = worked_out.cpus if spec.cpus is None else spec.cpus
    return replace(wanted, spec=replace(spec, memory=memory, cpus=cpus))


def released(before: Usage | None, after: Usage | None, ports: Sequence[Port]) -> Released:
    """What a container gave back when it stopped, from what it took before and, should it still show, after."""
    left = None if after is None else after.gpu_memory
    if before is None:
        return Released(left=left, ports=tuple(port.outside for port in ports))
    on_gpu = before.gpu_memory if left is None or before.gpu_memory is None else max(0, before.gpu_memory - left)
    memory = before.memory if after is None or before.memory is None else max(0, before.memory - (after.memory or 0))
    return Released(memory, on_gpu, left, tuple(port.outside for port in ports))


def told(gave: Released) -> str:
    """What was given back, in words; empty where nothing is known."""
    words = [f"{size / 2**20:,.0f} MiB of {what}" for size, what in _sizes(gave) if size]
    words += [f"port {port}" for port in gave.ports]
    return f"it gave back {', '.join(words)}" if words else ""


def _sizes(gave: Released) -> tuple[tuple[int | None, str], ...]:
    return (gave.memory, "memory"), (gave.gpu_memory, "GPU memory")


def _processors(needs: Sequence[Need], there: int | None) -> float | None:
    """All but one where models are reckoned with processors; half, where GPUs do it. On small machines no limit."""
    if there is None or there < 4:
        return None
    on_gpus = all(need.devices > need.host for need in needs)
    return float(there // 2 if on_gpus else there - 1)
