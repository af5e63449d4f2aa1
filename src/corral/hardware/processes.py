"""What processes take: of main memory what nobody else could have, and of GPUs what their drivers say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from corral.hardware import amd, nvidia

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from corral.domain.hardware import Gpu

PROC = Path("/proc")
_OWN = (b"Pss_Anon:", b"Pss_Shmem:")


def gpu_bytes(pids: Iterable[int], proc: Path = PROC, gpus: Sequence[Gpu] | None = None) -> dict[str, int] | None:
    """Bytes that these processes hold on each GPU; a device on which they hold none is left out.

    None when the drivers do not tell whose the memory is, as in some containers. Blocks for some milliseconds. `gpus`
    are the devices as they were just seen; the drivers are asked where that is None.
    """
    wanted = set(pids)
    if gpus is None:
        found = nvidia.gpus()
        if found is None:
            return None
        gpus = (*found, *amd.gpus())
    return nvidia.held(gpus, wanted, proc)


def private(pids: Iterable[int], proc: Path = PROC) -> int:
    """Bytes that these processes hold and that are no part of a file: the kernel cannot take them back from them.

    A mapped model file is such a part: the kernel counts it as memory to be had, and so must whoever adds up. Processes
    that are gone, and those of others, count nothing. Blocks for some milliseconds.
    """
    return sum(_private(pid, proc) for pid in pids)


def _private(pid: int, proc: Path) -> int:
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_bytes().splitlines()
    except FileNotFoundError:
        return 0 if (proc / "self").exists() else _resident(pid)
    except OSError:  # it is ending, or belongs to somebody else
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_OWN))


def _resident(pid: int) -> int:
    """The nearest there is where the kernel tells no better."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
