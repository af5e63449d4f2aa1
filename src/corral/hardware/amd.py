"""AMD's processors, as the kernel's driver writes them down under `/sys/class/drm`.

Reading takes less than a millisecond. What is not written there is None.
"""

from __future__ import annotations

from pathlib import Path

from corral.domain.hardware import Gpu, GpuProcess

DRM = Path("/sys/class/drm")
KFD = Path("/sys/class/kfd/kfd")

_AMD = "0x1002"


def gpus(drm: Path = DRM, kfd: Path = KFD) -> tuple[Gpu, ...]:
    """Every one with memory of its own, `rocm:0` and so on in the order of the bus; empty when there is none."""
    devices = sorted({path.resolve() for path in drm.glob("card*/device")}, key=lambda path: path.name)
    found = (device for device in devices if _text(device / "vendor") == _AMD)
    own = (device for device in found if (device / "mem_info_vram_total").exists())
    return tuple(_gpu(device, index, kfd) for index, device in enumerate(own))


def _gpu(device: Path, index: int, kfd: Path) -> Gpu:
    total, used = _number(device / "mem_info_vram_total"), _number(device / "mem_info_vram_used")
    sensors = next(iter(sorted(device.glob("hwmon/hwmon*"))), device / "hwmon")
    busy = _number(device / "gpu_busy_percent")
    power = _scaled(sensors / "power1_average", 1_000_000)
    return Gpu(
        id=f"rocm:{index}",
        name=_text(device / "product_name"),
        total=total,
        free=None if total is None or used is None else max(0, total - used),
        usage=None if busy is None else float(busy),
        temperature=_scaled(sensors / "temp1_input", 1000),
        power=_scaled(sensors / "power1_input", 1_000_000) if power is None else power,
        power_limit=_scaled(sensors / "power1_cap", 1_000_000),
        uuid=_text(device / "unique_id"),
        processes=_processes(device, kfd),
    )


def _processes(device: Path, kfd: Path) -> tuple[GpuProcess, ...] | None:
    """Who computes on it; the kernel names each processor by a number of its own there."""
    number = _node(device.name, kfd)
    if number is None:
        return None
    paths = (path for path in kfd.glob(f"proc/*/vram_{number}") if path.parent.name.isdigit())
    found = (GpuProcess(int(path.parent.name), _number(path)) for path in paths)
    return tuple(sorted(found, key=lambda process: process.pid))


def _node(address: str, kfd: Path) -> str | None:
    """The number of the processor at a place on the bus, `0000:03:00.0`."""
    for node in sorted(kfd.glob("topology/nodes/*")):
        pairs = (line.split() for line in (_text(node / "properties") or "").splitlines())
        facts = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        place, domain = facts.get("location_id", ""), facts.get("domain", "0")
        if place.isdigit() and domain.isdigit():
            bus, slot, function = int(place) >> 8, (int(place) >> 3) & 31, int(place) & 7
            if f"{int(domain):04x}:{bus:02x}:{slot:02x}.{function}" == address:
                return _text(node / "gpu_id")
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _scaled(path: Path, by: int) -> float | None:
    value = _number(path)
    return None if value is None else round(value / by, 1)
