"""How many threads an engine computes with, and how they wait for each other.

llama.cpp's threads meet after every step of a computation, hundreds of times for one token, and wait for each other by
spinning. Two engines on the same cores then spend their time waiting for threads that are not running: measured on two
cores, 120 tokens a second each fell to 10. So they sleep instead of spinning, and a model so small that waking a thread
costs more than its help writes with one. `benchmarks/threads.py` has the figures.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.runtimes._llamacpp.options import LlamaCppOptions

SMALL = 200_000_000
"""Bytes of weights up to which one thread writes faster alone than several that sleep between steps."""

_PROC = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_MODEL = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads that write token after token (`decode`), and those that read a prompt or write several at once."""

    decode: int
    batch: int


def chosen(options: LlamaCppOptions, size: int, cores: int) -> Threads:
    """What the options say; else every core, and one for the writing of a model of few bytes (`size`)."""
    decode = options.threads or (1 if size <= SMALL else cores)
    return Threads(decode, options.threads_batch or options.threads or cores)


def cores() -> int:
    """Cores this process may use: its affinity and its control group's quota count. Reads a few files."""
    import psutil

    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    known = (mine, psutil.cpu_count(logical=False), quota())
    return max(1, min(count for count in known if count))


def quota(membership: Path = _PROC, root: Path = _CGROUPS) -> int | None:
    """Processors that the control group may keep busy, rounded up; None where there is no limit."""
    limits = [limit for folder in _groups(membership, root) if (limit := _limit(folder)) is not None]
    return max(1, math.ceil(min(limits))) if limits else None


def waiting(env: Mapping[str, str], poll: int) -> dict[str, str]:
    """The variables that make the threads of the OpenMP library sleep while they wait, unless someone has set them."""
    return {} if poll or any(name in env for name in _MODEL) else {"OMP_WAIT_POLICY": "passive"}


def _groups(membership: Path, root: Path) -> list[Path]:
    """The folders that may hold a limit, from this process's own group up to the root, in both versions' places."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        base = root if not controllers else root / "cpu" if "cpu" in controllers.split(",") else None
        if base is not None:
            inner = path.strip("/")
            names = inner.split("/") if inner else []
            found += [base.joinpath(*names[:count]) for count in range(len(names), -1, -1)]
    return found


def _limit(folder: Path) -> float | None:
    """Processors' worth of time that a group's own files allow it."""
    try:
        if (folder / "cpu.max").is_file():
            most, _, period = (folder / "cpu.max").read_text(encoding="ascii").partition(" ")
            return None if most.strip() == "max" else int(most) / int(period)
        most = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
        period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(most) / int(period) if int(most) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
