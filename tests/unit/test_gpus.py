"""Graphics processors, as a driver's library or the kernel's files tell of them, and who holds their memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corral.domain.hardware import Gpu, GpuProcess
from corral.hardware import amd, nvidia, processes
from tests.support.nvml import Nvml

GB = 1 << 30


def process(pid: int, used: int | None) -> Any:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


MEMORY = {"total": 10 * GB, "free": 4 * GB}
FULL = {
    "name": "A",
    "memory": MEMORY,
    "usage": 75,
    "temperature": 61,
    "driver": "595.1",
    "power": 301_400,
    "power_limit": 450_000,
    "capability": (9, 0),
    "uuid": "GPU-a",
    "mig": [0, 0],
    "computing": [process(7, 5 * GB), process(9, None)],
    "drawing": [process(7, 5 * GB)],
}


def test_graphics_processors_tell_what_they_can() -> None:
    nvml = Nvml([FULL, {"name": "B"}, {}])

    found = nvidia.gpus(nvml)

    assert found == (
        Gpu(
            "cuda:0",
            "A",
            10 * GB,
            4 * GB,
            75.0,
            61.0,
            power=301.4,
            power_limit=450.0,
            capability="9.0",
            uuid="GPU-a",
            processes=(GpuProcess(7, 5 * GB), GpuProcess(9)),
        ),
        Gpu("cuda:1", "B", unified=True),
        Gpu("cuda:2", fault="GPU is lost"),
    )
    assert found[0].used == 6 * GB
    assert nvidia.driver(nvml) == "595.1"
    assert nvml.sessions == 0


def test_no_driver_is_no_gpu_and_a_broken_one_is_unknown() -> None:
    assert nvidia.gpus(Nvml([], "NVMLError_LibraryNotFound")) == ()
    assert nvidia.gpus(Nvml([], "NVMLError_DriverNotLoaded")) == ()
    assert nvidia.gpus(Nvml([], "NVMLError")) is None
    assert nvidia.driver(Nvml([], "NVMLError")) is None


def test_a_driver_that_fails_in_between_is_unknown() -> None:
    nvml = Nvml([])

    assert nvidia.gpus(nvml) is None
    assert nvidia.driver(Nvml([{}])) is None
    assert nvml.sessions == 0


def test_a_gpu_that_fell_off_the_bus_is_not_one_without_memory() -> None:
    (found,) = nvidia.gpus(Nvml([{"name": "A", "uuid": "GPU-a", "error": 15}])) or ()

    assert found.fault == "GPU is lost"
    assert not found.unified
    (other,) = nvidia.gpus(Nvml([{"name": "A", "error": 3}])) or ()
    assert other.fault is None
    assert other.unified


def test_the_parts_of_a_gpu_are_devices_of_their_own() -> None:
    part = {"name": "A 1g.10gb", "memory": {"total": GB, "free": GB}, "uuid": "MIG-1"}
    whole = {**FULL, "mig": [1, 1], "most_parts": 3, "parts": [part, {}, {**part, "uuid": "MIG-2"}]}
    found = nvidia.gpus(Nvml([whole, {"name": "B"}])) or ()

    assert [(gpu.id, gpu.uuid, gpu.part_of) for gpu in found] == [
        ("cuda:0", "MIG-1", "GPU-a"),
        ("cuda:1", "MIG-2", "GPU-a"),
        ("cuda:2", None, None),
    ]
    assert found[0].temperature == 61.0
    assert found[0].usage is None


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["A", "B", "C"]),
        ("2,0", ["C", "A"]),
        ("GPU-b", ["B"]),
        ("1,7,0", ["B"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_only_what_the_environment_shows_is_there(visible: str | None, names: list[str]) -> None:
    devices = [{"name": name, "uuid": f"GPU-{name.lower()}", "memory": MEMORY} for name in "ABC"]
    found = nvidia.gpus(Nvml(devices), visible) or ()

    assert [gpu.name for gpu in found] == names
    assert [gpu.id for gpu in found] == [f"cuda:{index}" for index in range(len(names))]


def gpu(number: int, *held: tuple[int, int | None], told: bool = True, used: int = 0) -> Gpu:
    named = tuple(GpuProcess(pid, size) for pid, size in held) if told else None
    return Gpu(f"cuda:{number}", total=80 * GB, free=80 * GB - used, processes=named)


def test_bytes_are_counted_by_process(tmp_path: Path) -> None:
    (tmp_path / "8").mkdir()
    found = [gpu(0, (7, GB), (8, 5 * GB)), gpu(1, (7, 2 * GB), (9, GB)), gpu(2)]

    assert processes.gpu_bytes([7, 9], tmp_path, found) == {"cuda:0": GB, "cuda:1": 3 * GB}
    assert processes.gpu_bytes([8], tmp_path, found) == {"cuda:0": 5 * GB}
    assert processes.gpu_bytes([], tmp_path, found) == {}
    assert processes.gpu_bytes([1], tmp_path, []) == {}


def test_a_driver_that_hides_whose_the_memory_is_is_not_taken_for_zero(tmp_path: Path) -> None:
    (tmp_path / "8").mkdir()

    assert processes.gpu_bytes([7], tmp_path, [gpu(0, (7, None))]) is None
    assert processes.gpu_bytes([7], tmp_path, [gpu(0, told=False)]) is None
    assert processes.gpu_bytes([7], tmp_path, [gpu(0, (31337, GB))]) is None  # the number of another name space
    assert processes.gpu_bytes([7], tmp_path, [gpu(0, used=9 * GB)]) is None
    assert processes.gpu_bytes([7], tmp_path, [gpu(0, (8, GB), used=9 * GB)]) == {}
    assert processes.gpu_bytes([7], tmp_path, [gpu(0, used=GB // 2)]) == {}


def test_this_machine_is_asked_without_harm() -> None:
    found = processes.gpu_bytes([1])

    assert found is None or all(size >= 0 for size in found.values())


def _amd(root: Path, card: int, address: str, **files: object) -> Path:
    device = root / "devices" / address
    (device / "hwmon/hwmon3").mkdir(parents=True)
    for name, content in {"vendor": "0x1002", **files}.items():
        (device / name.replace("__", "/")).write_text(f"{content}\n")
    (root / f"card{card}").mkdir()
    (root / f"card{card}" / "device").symlink_to(device)
    (root / f"card{card}-HDMI-A-1").mkdir()
    return device


def test_amds_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    drm, kfd = tmp_path / "drm", tmp_path / "kfd"
    drm.mkdir()
    device = _amd(
        drm,
        1,
        "0000:03:00.0",
        mem_info_vram_total=24 * GB,
        mem_info_vram_used=4 * GB,
        gpu_busy_percent=37,
        product_name="Radeon",
        unique_id="feed",
    )
    for name, value in {"temp1_input": 51000, "power1_average": 88_000_000, "power1_cap": 300_000_000}.items():
        (device / "hwmon/hwmon3" / name).write_text(f"{value}\n")
    _amd(drm, 0, "0000:81:00.0", mem_info_vram_total="?")
    _amd(drm, 2, "0000:00:02.0", vendor="0x8086", mem_info_vram_total=5)
    (kfd / "topology/nodes/1").mkdir(parents=True)
    (kfd / "topology/nodes/0").mkdir(parents=True)
    (kfd / "topology/nodes/1/properties").write_text("location_id 768\ndomain 0\nname x y\n")
    (kfd / "topology/nodes/1/gpu_id").write_text("4711\n")
    for pid, size in (("12", 3 * GB), ("x", 1)):
        (kfd / "proc" / pid).mkdir(parents=True)
        (kfd / "proc" / pid / "vram_4711").write_text(f"{size}\n")

    first, second = amd.gpus(drm, kfd)

    assert first == Gpu(
        "rocm:0",
        "Radeon",
        24 * GB,
        20 * GB,
        37.0,
        51.0,
        power=88.0,
        power_limit=300.0,
        uuid="feed",
        processes=(GpuProcess(12, 3 * GB),),
    )
    assert second == Gpu("rocm:1")
    assert amd.gpus(tmp_path / "none") == ()
