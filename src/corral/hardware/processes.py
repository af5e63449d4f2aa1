"""What processes take of main memory that nobody else could have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

PROC = Path("/proc")
_OWN = (b"Pss_Anon:", b"Pss_Shmem:")


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
