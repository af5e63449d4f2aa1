"""Facts of a machine: each from its own place, and None where that place is missing, empty or full of nonsense."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from corral.domain.hardware import Cpu, Disk, Gpu, Machine, Memory
from corral.hardware import probes, snapshot


class Times(NamedTuple):
    """A reading as psutil gives it."""

    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    guest: float


class FakeNvml:
    """NVIDIA's library as it behaves: errors are exceptions of its own, and each device may lack any fact."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, devices: list[dict[str, Any]], broken: str | None = None) -> None:
        self.NVMLError = type("NVMLError", (Exception,), {})
        self.NVMLError_LibraryNotFound = type("LibraryNotFound", (self.NVMLError,), {})
        self.NVMLError_DriverNotLoaded = type("DriverNotLoaded", (self.NVMLError,), {})
        self.nvmlInit = self._init
        self.nvmlShutdown = self._shutdown
        self.nvmlDeviceGetCount = self._count
        self.nvmlDeviceGetHandleByIndex = self._handle
        self.nvmlDeviceGetName = lambda device: self._tell(device, "name")
        self.nvmlDeviceGetMemoryInfo = lambda device: SimpleNamespace(**self._tell(device, "memory"))
        self.nvmlDeviceGetUtilizationRates = lambda device: SimpleNamespace(gpu=self._tell(device, "usage"))
        self.nvmlDeviceGetTemperatureV = lambda device, _: self._tell(device, "temperature")
        self.nvmlSystemGetDriverVersion = lambda: self._tell(devices[0], "driver")
        self.devices = devices
        self.broken = broken
        self.sessions = 0

    def _init(self) -> None:
        if self.broken is not None:
            raise getattr(self, self.broken)
        self.sessions += 1

    def _shutdown(self) -> None:
        self.sessions -= 1

    def _count(self) -> int:
        if not self.devices:
            raise self.NVMLError
        return len(self.devices)

    def _handle(self, index: int) -> dict[str, Any]:
        if not self.devices[index]:
            raise self.NVMLError
        return self.devices[index]

    def _tell(self, device: dict[str, Any], key: str) -> Any:
        if key not in device:
            raise self.NVMLError
        return device[key]


def test_graphics_processors_tell_what_they_can() -> None:
    memory = {"total": 10 << 30, "free": 4 << 30}
    nvml = FakeNvml(
        [{"name": "A", "memory": memory, "usage": 75, "temperature": 61, "driver": "595.1"}, {"name": "B"}, {}]
    )

    found = probes.nvidia(nvml)

    assert found == (
        Gpu("cuda:0", "A", 10 << 30, 4 << 30, 75.0, 61.0),
        Gpu("cuda:1", "B", unified=True),
        Gpu("cuda:2"),
    )
    assert found[0].used == 6 << 30
    assert probes.driver(nvml) == "595.1"
    assert nvml.sessions == 0


def test_no_driver_is_no_gpu_and_a_broken_one_is_unknown() -> None:
    assert probes.nvidia(FakeNvml([], "NVMLError_LibraryNotFound")) == ()
    assert probes.nvidia(FakeNvml([], "NVMLError_DriverNotLoaded")) == ()
    assert probes.nvidia(FakeNvml([], "NVMLError")) is None
    assert probes.driver(FakeNvml([], "NVMLError")) is None


def test_a_driver_that_fails_in_between_is_unknown() -> None:
    nvml = FakeNvml([])

    assert probes.nvidia(nvml) is None
    assert probes.driver(FakeNvml([{}])) is None
    assert nvml.sessions == 0


@pytest.mark.parametrize(
    ("system", "machine", "ids"), [("Darwin", "arm64", ["mps"]), ("Darwin", "x86_64", []), ("Linux", "arm64", [])]
)
def test_apples_graphics_share_main_memory(system: str, machine: str, ids: list[str]) -> None:
    found = probes.metal(system, machine)

    assert [gpu.id for gpu in found] == ids
    assert all(gpu.unified and gpu.total is None and gpu.used is None for gpu in found)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")

    assert probes.memory(tmp_path) == Memory(1_000_000, 600_000)
    assert probes.memory(tmp_path).used == 400_000


def test_an_older_kernels_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("1000000")

    assert probes.memory(tmp_path) == Memory(1_000_000, None)
    (tmp_path / "memory/memory.usage_in_bytes").write_text("2000000")
    assert probes.memory(tmp_path) == Memory(1_000_000, 0)


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712", "garbage", ""])
def test_no_limit_is_the_machines_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.max").write_text(text)

    assert probes.memory(tmp_path).total == probes.memory(tmp_path / "nowhere").total


def test_the_processors_name(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Fast One\nflags : a b\n")

    assert probes.cpu_name(info) == "Fast One"
    info.write_bytes(b"model name : \xff\n")
    assert probes.cpu_name(info) == "\ufffd"
    probes.cpu_name(tmp_path / "none")  # whatever the platform says, and no error


def test_usage_is_what_was_not_idle() -> None:
    before = Times(10, 0, 10, 100, 0, 5)

    assert probes.busy(before, Times(11, 0, 12, 106, 1, 6)) == 30.0
    assert probes.busy(before, before) is None
    assert probes.busy(before, Times(10, 0, 10, 99, 0, 5)) is None
    assert probes.busy((), ()) is None


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = probes.disk(tmp_path / "a" / "b")

    assert found.total is not None
    assert found.free is not None
    assert found.free <= found.total
    file = tmp_path / "file"
    file.touch()
    assert probes.disk(file / "x") != Disk()


def test_a_look_at_this_machine(tmp_path: Path) -> None:
    found = snapshot.take(tmp_path)

    assert found.cpu.count is not None
    assert found.memory.total
    assert found.disk == Disk(found.disk.total, found.disk.free)
    assert snapshot.take(tmp_path, usage=False).cpu.usage is None


@pytest.mark.parametrize(
    ("gpus", "device"),
    [(None, "cpu"), ((), "cpu"), ((Gpu("cuda:0"),), "cuda"), ((Gpu("cuda:0"), Gpu("mps")), "mps")],
)
def test_the_best_device(gpus: tuple[Gpu, ...] | None, device: str) -> None:
    assert Machine(Cpu(), Memory(), Disk(), gpus).best_device == device
    assert Memory().used is None


def test_the_detector_of_the_documents() -> None:
    detector = snapshot.ResourceDetector()

    assert detector.detect_cpu().count is not None
    assert detector.detect_memory().total is not None
    assert [gpu.id for gpu in detector.detect_gpu()] == [gpu.id for gpu in probes.gpus() or ()]
    assert detector.best_device() in ("mps", "cuda", "cpu")
