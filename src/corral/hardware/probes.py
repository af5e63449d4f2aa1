"""One function for each fact about this machine. What cannot be found out is None; nothing here raises.

All of them block: the processor's usage for the time it is watched, NVIDIA's library for some 0.1 s when it is first
asked, the others for less than a millisecond.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from corral.domain.hardware import Disk, Gpu, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")

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
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip() or None
    return platform.processor() or None


def cpu_usage(watched: float = _WATCHED) -> float | None:
    """How busy all of it is, in percent, over the next `watched` seconds."""
    before = _known(psutil.cpu_times)
    time.sleep(watched)
    return None if before is None else busy(before, _known(psutil.cpu_times) or before)


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


def memory(cgroup: Path = CGROUP) -> Memory:
    """Main memory, within the limit of the container where there is one."""
    there = _known(psutil.virtual_memory)
    total = None if there is None else int(there.total)
    available = None if there is None else int(there.available)
    limit, used = _container(cgroup)
    if limit is not None and (total is None or limit < total):
        total = limit
        left = None if used is None else max(0, limit - used)
        available = None if available is None or left is None else min(available, left)
    return Memory(total, available)


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


def gpus() -> tuple[Gpu, ...] | None:
    """Every graphics processor that models can run on; empty when there is none, None when that cannot be told."""
    return (*metal(), *there) if (there := nvidia()) is not None else (metal() or None)


def metal(system: str | None = None, machine: str | None = None) -> tuple[Gpu, ...]:
    """The graphics part of an Apple processor, which shares main memory."""
    if (system or platform.system(), machine or platform.machine()) != ("Darwin", "arm64"):
        return ()
    return (Gpu("mps", cpu_name(), unified=True),)


def driver(library: Any = None) -> str | None:
    """The version of NVIDIA's driver."""
    nvml = library or _nvml()
    return None if nvml is None else _session(nvml, lambda: _asked(nvml, nvml.nvmlSystemGetDriverVersion))


def nvidia(library: Any = None) -> tuple[Gpu, ...] | None:
    """NVIDIA's processors, as its driver's library tells of them; None when the driver is there and does not answer."""
    nvml = library or _nvml()
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return ()
    except nvml.NVMLError:
        return None
    try:
        return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError:
        return None
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = _asked(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Gpu(f"cuda:{index}")
    memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _asked(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    temperature = _asked(nvml, nvml.nvmlDeviceGetTemperatureV, handle, nvml.NVML_TEMPERATURE_GPU)
    return Gpu(
        id=f"cuda:{index}",
        name=_asked(nvml, nvml.nvmlDeviceGetName, handle),
        total=None if memory is None else int(memory.total),
        free=None if memory is None else int(memory.free),
        usage=None if rates is None else float(rates.gpu),
        temperature=None if temperature is None else float(temperature),
        unified=memory is None,  # it has none of its own to tell of
    )


def _asked(nvml: Any, question: Callable[..., T], *about: Any) -> T | None:
    """The driver's answer; None where this device or driver has none."""
    try:
        return question(*about)
    except nvml.NVMLError:
        return None


def _session(nvml: Any, ask: Callable[[], T]) -> T | None:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return ask()
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _nvml() -> Any:
    try:
        return import_module("pynvml")
    except ImportError:
        return None


def _container(cgroup: Path) -> tuple[int | None, int | None]:
    """The limit and use of memory that the kernel holds this process's container to."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        found = _number(cgroup / limit)
        if found is not None:
            return found, _number(cgroup / used)
    return None, None


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
