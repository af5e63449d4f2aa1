"""NVIDIA's processors, as the driver's own library (NVML) tells of them.

Every function takes the library, so that tests play it. All of them block: some 0.1 s when the library is first loaded,
milliseconds after that. What one device or driver does not tell is None.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from corral.domain.hardware import Gpu, GpuProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

PROC = Path("/proc")

_LOST = 15
"""NVML's number for a GPU that fell off the bus."""
_MIG = 1
_UNEXPLAINED = 1 << 30
"""Bytes in use on a GPU of which the driver names no user, from which on it hides them; less is the driver's own."""


def gpus(library: Any = None, visible: str | None = None) -> tuple[Gpu, ...] | None:
    """Every one that may be used, parts of one (MIG) each on its own; None when the driver does not answer.

    `visible` is what `CUDA_VISIBLE_DEVICES` says. Numbers follow the bus: CUDA counts so, too, where
    `CUDA_DEVICE_ORDER=PCI_BUS_ID` is set.
    """
    nvml = library or _library()
    if nvml is None:
        return ()
    try:
        with _session(nvml):
            found = [gpu for index in range(nvml.nvmlDeviceGetCount()) for gpu in _gpus(nvml, index)]
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return ()
    except nvml.NVMLError:
        return None
    chosen = found if visible is None else _visible(found, visible)
    return tuple(_numbered(gpu, index) for index, gpu in enumerate(chosen))


def driver(library: Any = None) -> str | None:
    """The driver's version."""
    nvml = library or _library()
    if nvml is None:
        return None
    with suppress(nvml.NVMLError), _session(nvml):
        version: str = nvml.nvmlSystemGetDriverVersion()
        return version
    return None


def cuda(library: Any = None) -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, such as (13, 0)."""
    nvml = library or _library()
    if nvml is None:
        return None
    with suppress(nvml.NVMLError), _session(nvml):
        number: int = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return number // 1000, number % 1000 // 10
    return None


def held(found: Sequence[Gpu], processes: Iterable[int], proc: Path = PROC) -> dict[str, int] | None:
    """Bytes that these processes hold on each GPU; None when the driver does not tell whose they are.

    A driver outside a container may name processes by numbers that mean nothing inside, or name none.
    """
    ours, taken = set(processes), dict[str, int]()
    if not ours or not found:
        return {}
    hidden = False
    for gpu in found:
        named = gpu.processes
        mine = [process for process in named or () if process.pid in ours]
        if any(process.bytes is None for process in mine):
            return None
        if mine:
            taken[gpu.id] = sum(process.bytes or 0 for process in mine)
        elif named is None or (not named and (gpu.used or 0) > _UNEXPLAINED):
            hidden = True
        else:
            hidden |= any(not (proc / str(process.pid)).exists() for process in named)
    return None if hidden and not taken else taken


def _gpus(nvml: Any, index: int) -> Iterator[Gpu]:
    """The processor at a place on the bus, or its parts."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        yield Gpu("", fault=_fault(error))
        return
    whole = _gpu(nvml, handle)
    mode = _asked(nvml, "nvmlDeviceGetMigMode", handle)
    if not mode or mode[0] != _MIG:
        yield whole
        return
    for part in range(_asked(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        inner = _asked(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, part)
        if inner is not None:
            yield _gpu(nvml, inner, whole)


def _gpu(nvml: Any, handle: Any, whole: Gpu | None = None) -> Gpu:
    """One processor; a part of a `whole` one shares its temperature and power."""
    fault = None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        memory = None
        fault = _fault(error) if getattr(error, "value", None) == _LOST else None
    rates = _asked(nvml, "nvmlDeviceGetUtilizationRates", handle)
    about = whole or Gpu(
        "",
        temperature=_scaled(_asked(nvml, "nvmlDeviceGetTemperatureV", handle, nvml.NVML_TEMPERATURE_GPU), 1),
        power=_scaled(_asked(nvml, "nvmlDeviceGetPowerUsage", handle), 1000),
        power_limit=_scaled(_asked(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle), 1000),
        capability=_capability(_asked(nvml, "nvmlDeviceGetCudaComputeCapability", handle)),
    )
    return Gpu(
        id="",
        name=_asked(nvml, "nvmlDeviceGetName", handle),
        total=None if memory is None else int(memory.total),
        free=None if memory is None else int(memory.free),
        usage=None if rates is None else float(rates.gpu),
        temperature=about.temperature,
        unified=memory is None and fault is None,  # it has none of its own to tell of
        power=about.power,
        power_limit=about.power_limit,
        capability=about.capability,
        uuid=_asked(nvml, "nvmlDeviceGetUUID", handle),
        part_of=None if whole is None else whole.uuid,
        processes=_processes(nvml, handle),
        fault=fault,
    )


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...] | None:
    kinds = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
    answers = [_asked(nvml, kind, handle) for kind in kinds]
    if all(answer is None for answer in answers):
        return None
    # One that computes and draws is in both lists, with the same bytes.
    found = {int(process.pid): process.usedGpuMemory for answer in answers for process in answer or ()}
    return tuple(GpuProcess(pid, None if size is None else int(size)) for pid, size in sorted(found.items()))


def _visible(found: Sequence[Gpu], visible: str) -> list[Gpu]:
    """Those that are named, by number or by the beginning of their name, up to the first that is not there."""
    chosen = []
    for name in filter(None, (item.strip() for item in visible.split(","))):
        if name.isdigit():
            gpu = found[int(name)] if int(name) < len(found) else None
        else:
            gpu = next((gpu for gpu in found if gpu.uuid is not None and gpu.uuid.startswith(name)), None)
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def _numbered(gpu: Gpu, index: int) -> Gpu:
    return replace(gpu, id=f"cuda:{index}")


def _asked(nvml: Any, question: str, *about: Any) -> Any:
    """The driver's answer; None where this device, driver or library has none."""
    ask: Callable[..., Any] | None = getattr(nvml, question, None)
    if ask is None:
        return None
    try:
        return ask(*about)
    except nvml.NVMLError:
        return None


def _scaled(value: float | None, by: int) -> float | None:
    return None if value is None else round(value / by, 1)


def _capability(found: tuple[int, int] | None) -> str | None:
    return None if found is None else f"{found[0]}.{found[1]}"


def _fault(error: Exception) -> str:
    return str(error) or type(error).__name__


@contextmanager
def _session(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _library() -> Any:
    try:
        return import_module("pynvml")
    except ImportError:
        return None
