"""One function for each fact about this machine. What cannot be found out is None; nothing here raises.

All of them block: the processor's usage for the time it is watched, NVIDIA's library for some 0.1 s when it is first
asked, the others for less than a millisecond.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil

from corral.domain.hardware import Disk, Gpu, Memory
from corral.hardware import amd, nvidia

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")

_INSTRUCTIONS = {
    "SSE4.2": "sse4_2",
    "AVX": "avx",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "AVX-VNNI": "avx_vnni",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "NEON": "asimd",
    "DOTPROD": "asimddp",
    "I8MM": "i8mm",
    "SVE": "sve",
    "SVE2": "sve2",
}
"""What people call a set, and the kernel's word for it."""

_FAILURES = (OSError, psutil.Error, RuntimeError, ValueError, NotImplementedError, AttributeError)
_COUNTED_TWICE = frozenset({"guest", "guest_nice"})
_WATCHED = 0.1
"""Seconds for which the processor is watched to tell its usage."""


def cpu_count() -> int | None:
    """Threads that may run at once, as many of them as this process is allowed."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)  # macOS has none
    return os.cpu_count() if affinity is None else len(affinity(0))


def cpu_cores() -> int | None:
    """Cores of the machine."""
    return _known(lambda: psutil.cpu_count(logical=False))


def cpu_name(cpuinfo: Path = CPUINFO) -> str | None:
    """What the maker calls it."""
    names = (value for key, value in _cpuinfo(cpuinfo) if key in ("model name", "Model"))
    return next(names, None) or platform.processor() or None


def cpu_instructions(cpuinfo: Path = CPUINFO, machine: str | None = None) -> tuple[str, ...] | None:
    """The instruction sets that matter to models; None when nobody tells."""
    flags = next((set(value.split()) for key, value in _cpuinfo(cpuinfo) if key in ("flags", "Features")), None)
    if flags is None:
        # Apple's all have it, and say so nowhere that is quickly read.
        return ("NEON",) if (machine or platform.machine()) == "arm64" else None
    return tuple(name for name, flag in _INSTRUCTIONS.items() if flag in flags)


def _cpuinfo(path: Path) -> list[tuple[str, str]]:
    """What is written of the first processor there."""
    first = (_text(path) or "").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def cpu_usage(watched: float = _WATCHED) -> float | None:
    """How busy all of it is, in percent, over the next `watched` seconds."""
    before = cpu_times()
    time.sleep(watched)
    return None if before is None else busy(before, cpu_times() or before)


def cpu_times() -> tuple[float, ...] | None:
    """A reading for `busy`."""
    return _known(psutil.cpu_times)


def busy(before: tuple[float, ...], after: tuple[float, ...]) -> float | None:
    """The share of the processor's time between two readings that was not idle; None when no time has passed.

    A reading is psutil's: seconds in each state by name, where a guest's time is also its user's.
    """
    spent = {
        name: getattr(after, name) - getattr(before, name)
        for name in getattr(after, "_fields", ())
        if name not in _COUNTED_TWICE
    }
    total: float = sum(spent.values())
    if total <= 0:
        return None  # some sandboxes count nothing
    idle: float = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
    return round(min(100.0, max(0.0, 100 * (total - idle) / total)), 1)


def memory(cgroup: Path = CGROUP, own: Path = OWN_GROUPS, meminfo: Path = MEMINFO) -> Memory:
    """Main memory, within the limits of the containers and groups that this process is in."""
    there = _known(psutil.virtual_memory)
    total = None if there is None else int(there.total)
    available = None if there is None else int(there.available)
    limit = None
    for most, used in _containers(cgroup, own):
        if total is not None and most >= total and limit is None:
            continue
        left = None if used is None else max(0, most - used)
        available = None if available is None or left is None else min(available, left)
        limit = most if limit is None else min(limit, most)
    swap_total, swap_free = _swap(meminfo)
    return Memory(total if limit is None else limit, available, limit, swap_total, swap_free)


def disk(folder: Path) -> Disk:
    """The disk that `folder` lies on, or would lie on."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return Disk()
    return Disk(usage.total, usage.free)


def gpus(environ: Mapping[str, str] = os.environ) -> tuple[Gpu, ...] | None:
    """Every graphics processor that models can run on; empty when there is none, None when that cannot be told.

    `environ` may leave some of NVIDIA's out, by `CUDA_VISIBLE_DEVICES`.
    """
    others = (*metal(), *amd.gpus())
    found = nvidia.gpus(visible=environ.get("CUDA_VISIBLE_DEVICES"))
    return (*others, *found) if found is not None else (others or None)


def metal(system: str | None = None, machine: str | None = None) -> tuple[Gpu, ...]:
    """The graphics part of an Apple processor, which shares main memory."""
    if (system or platform.system(), machine or platform.machine()) != ("Darwin", "arm64"):
        return ()
    return (Gpu("mps", cpu_name(), unified=True),)


def _containers(cgroup: Path, own: Path) -> list[tuple[int, int | None]]:
    """The limit and use of memory of every group that this process is in, from the innermost one to the outermost."""
    groups: list[tuple[int, int | None]] = []
    for line in (_text(own) or "0::/").splitlines():
        _, _, rest = line.partition(":")
        kinds, _, name = rest.partition(":")
        if kinds == "":
            groups += _groups(cgroup, name, ("memory.max", "memory.current", "inactive_file"))
            groups += _groups(cgroup / "unified", name, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in kinds.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            groups += _groups(cgroup / "memory", name, files)
    return groups


def _groups(root: Path, name: str, files: tuple[str, str, str]) -> list[tuple[int, int | None]]:
    """A group and those around it, as far as they can be seen: in a container the outer ones cannot."""
    limit_file, used_file, reclaimable = files
    groups = []
    inner = Path(name.strip("/"))
    for folder in [root / inner, *(root / parent for parent in inner.parents)] if name.strip("/") else [root]:
        limit, used = _number(folder / limit_file), _number(folder / used_file)
        if limit is not None:
            spare = _statistic(folder / "memory.stat", reclaimable)  # what was read of files, and is given up first
            groups.append((limit, None if used is None else max(0, used - spare)))
    return groups


def _statistic(path: Path, name: str) -> int:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _swap(meminfo: Path) -> tuple[int | None, int | None]:
    """Swap space, all and free."""
    found: dict[str, int] = {}
    for line in (_text(meminfo) or "").splitlines():
        key, _, value = line.partition(":")
        number = value.split()[:1]
        if key in ("SwapTotal", "SwapFree") and number and number[0].isdigit():
            found[key] = int(number[0]) * 1024
    return found.get("SwapTotal"), found.get("SwapFree")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # `max` is no limit
        return None


def _known(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except _FAILURES:
        return None
