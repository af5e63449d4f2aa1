"""What containers hold on GPUs: the driver names processes, and the kernel says in which container one is.

Works where the engine runs on this machine, and its processes have the numbers that we see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from corral.domain.hardware import Gpu

PROC = Path("/proc")

# …/docker/ID, …/docker-ID.scope, …/libpod-ID.scope: whatever manages the control groups, the id is in there.
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Share:
    """What one container has of the GPUs: bytes, and the warmest and busiest of those that it is on."""

    memory: int = 0
    temperature: float | None = None
    utilization: float | None = None


def shares(gpus: Sequence[Gpu] | None, proc: Path = PROC) -> Mapping[str, Share] | None:
    """The share of each container on a GPU, by its id. Reads a file for each process that is on one.

    None when nothing is known: there is no GPU, or its driver does not tell whose the memory is. A container that is
    not in the mapping has nothing on any GPU.
    """
    if not gpus or any(gpu.processes is None for gpu in gpus):
        return None
    found: dict[str, Share] = {}
    for gpu in gpus:
        taken: dict[str, int] = {}
        for process in gpu.processes or ():
            container = container_of(process.pid, proc)
            if container is None:
                continue
            if process.bytes is None:
                return None
            taken[container] = taken.get(container, 0) + process.bytes
        for container, size in taken.items():
            before = found.get(container, Share())
            found[container] = Share(
                before.memory + size,
                _greatest((before.temperature, gpu.temperature)),
                _greatest((before.utilization, gpu.usage)),
            )
    return found


def container_of(pid: int, proc: Path = PROC) -> str | None:
    """The id of the container that a process is in; None when it is in none, or is gone."""
    try:
        text = (proc / str(pid) / "cgroup").read_text()
    except OSError:
        return None
    ids = _ID.findall(text)
    return ids[-1] if ids else None


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
