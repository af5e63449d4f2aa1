"""Facts of a machine: each from its own place, and None where that place is missing, empty or full of nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

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


@pytest.mark.parametrize(
    ("system", "machine", "ids"), [("Darwin", "arm64", ["mps"]), ("Darwin", "x86_64", []), ("Linux", "arm64", [])]
)
def test_apples_graphics_share_main_memory(system: str, machine: str, ids: list[str]) -> None:
    found = probes.metal(system, machine)

    assert [gpu.id for gpu in found] == ids
    assert all(gpu.unified and gpu.total is None and gpu.used is None for gpu in found)


NOWHERE = Path("/nowhere")


def _group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    _group(tmp_path, memory__max=1_000_000, memory__current=400_000)

    found = probes.memory(tmp_path, NOWHERE)
    assert (found.total, found.available, found.limit) == (1_000_000, 600_000, 1_000_000)
    assert found.used == 400_000


def test_every_group_around_this_process_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/user.slice/corral.service\n")
    _group(tmp_path / "user.slice", memory__max=2_000_000, memory__current=1_900_000)
    _group(tmp_path / "user.slice/corral.service", memory__max=3_000_000, memory__current=500_000)

    found = probes.memory(tmp_path, own)
    assert (found.total, found.available) == (2_000_000, 100_000)


def test_what_was_read_of_files_is_given_up_first(tmp_path: Path) -> None:
    _group(tmp_path, memory__max=1_000_000, memory__current=900_000, memory__stat="anon 1\ninactive_file 300000")

    assert probes.memory(tmp_path, NOWHERE).available == 400_000


def test_an_older_kernels_limit_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu:/a\n4:memory:/docker/a\n0::/\n")
    _group(tmp_path / "memory", memory__limit_in_bytes=1_000_000)

    found = probes.memory(tmp_path, own)
    assert found.total == 1_000_000
    _group(tmp_path / "memory", memory__usage_in_bytes=2_000_000)
    assert probes.memory(tmp_path, own).available == 0
    _group(tmp_path / "memory/docker/a", memory__limit_in_bytes=500_000, memory__usage_in_bytes=100_000)
    assert probes.memory(tmp_path, own).total == 500_000


@pytest.mark.parametrize("text", ["max", "9223372036854771712", "garbage", ""])
def test_no_limit_is_the_machines_memory(tmp_path: Path, text: str) -> None:
    _group(tmp_path, memory__max=text)

    found = probes.memory(tmp_path, NOWHERE)
    assert found.total == probes.memory(NOWHERE, NOWHERE).total
    assert found.limit is None


def test_swap(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 5 kB\nSwapTotal:  2048 kB\nSwapFree: 1024 kB\n")

    found = probes.memory(NOWHERE, NOWHERE, info)
    assert (found.swap_total, found.swap_free) == (2 << 20, 1 << 20)
    info.write_text("SwapTotal: kB\nSwapFree: many kB\n")
    assert probes.memory(NOWHERE, NOWHERE, info).swap_total is None
    assert probes.memory(NOWHERE, NOWHERE, NOWHERE).swap_free is None


@pytest.mark.parametrize(
    ("line", "sets"),
    [
        ("flags : fpu avx avx2 avx512f amx_tile x", ("AVX", "AVX2", "AVX-512", "AMX")),
        ("Features : asimd sve", ("NEON", "SVE")),
        ("flags :", ()),
    ],
)
def test_instruction_sets(tmp_path: Path, line: str, sets: tuple[str, ...]) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\n{line}\n\nprocessor : 1\nflags : avx512_vnni\n")

    assert probes.cpu_instructions(info) == sets


def test_instruction_sets_that_nobody_tells() -> None:
    assert probes.cpu_instructions(NOWHERE, "x86_64") is None
    assert probes.cpu_instructions(NOWHERE, "arm64") == ("NEON",)


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
    [
        (None, "cpu"),
        ((), "cpu"),
        ((Gpu("cuda:0"),), "cuda"),
        ((Gpu("rocm:0"),), "cuda"),
        ((Gpu("cuda:0"), Gpu("mps")), "mps"),
    ],
)
def test_the_best_device(gpus: tuple[Gpu, ...] | None, device: str) -> None:
    assert Machine(Cpu(), Memory(), Disk(), gpus).best_device == device
    assert Memory().used is None


def test_a_look_again_tells_the_usage_since_the_look_before(tmp_path: Path) -> None:
    look = snapshot.Looker(tmp_path)

    first, second = look(), look()
    assert first.memory.total == second.memory.total
    assert second.at is not None
    assert first.at is not None
    assert second.at >= first.at
    assert second.cpu.count == first.cpu.count


def test_the_detector_of_the_documents() -> None:
    detector = snapshot.ResourceDetector()

    assert detector.detect_cpu().count is not None
    assert detector.detect_memory().total is not None
    assert [gpu.id for gpu in detector.detect_gpu()] == [gpu.id for gpu in probes.gpus() or ()]
    assert detector.best_device() in ("mps", "cuda", "cpu")
