"""All facts of this machine at one moment, and the questions people ask of it."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

from corral.domain.hardware import Cpu, Gpu, Machine, Memory
from corral.hardware import nvidia, probes


def take(folder: Path, *, usage: bool = True) -> Machine:
    """The machine now; `folder` says which disk is meant. Never raises.

    Blocks: some 0.1 s to see how busy the processor is (not when `usage` is False), and as long again when NVIDIA's
    library is first loaded.
    """
    return _machine(folder, probes.cpu_usage() if usage else None)


class Looker:
    """Looks at the machine again and again; the processor's usage is that since the look before.

    A look blocks for some milliseconds, the first for 0.1 s. Not to be used by two threads at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: tuple[float, ...] | None = None

    def __call__(self) -> Machine:
        """The machine now."""
        now = probes.cpu_times()
        usage = probes.cpu_usage() if self._before is None or now is None else probes.busy(self._before, now)
        self._before = now
        return _machine(self._folder, usage)


class ResourceDetector:
    """What this machine has: processor, memory, graphics. Unknown is None; nothing raises."""

    def detect_cpu(self) -> Cpu:
        """The processor, watched for 0.1 s to see how busy it is."""
        return _cpu(probes.cpu_usage())

    def detect_memory(self) -> Memory:
        """Main memory, in bytes."""
        return probes.memory()

    def detect_gpu(self) -> tuple[Gpu, ...]:
        """The graphics processors that models can run on; empty when none is known."""
        return probes.gpus() or ()

    def best_device(self) -> str:
        """Where a model runs best here: `mps`, then `cuda`, then `cpu`."""
        return Machine(Cpu(), Memory(), probes.disk(Path()), probes.gpus()).best_device


def _machine(folder: Path, usage: float | None) -> Machine:
    driver = nvidia.driver()
    return Machine(_cpu(usage), probes.memory(), probes.disk(folder), probes.gpus(), driver, at=time.time())


def _cpu(usage: float | None) -> Cpu:
    count, cores, name, instructions = _processor()
    return Cpu(count, cores, name, usage, instructions)


@cache
def _processor() -> tuple[int | None, int | None, str | None, tuple[str, ...] | None]:
    """What does not change while this process lives."""
    return probes.cpu_count(), probes.cpu_cores(), probes.cpu_name(), probes.cpu_instructions()
