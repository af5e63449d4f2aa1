"""All facts of this machine at one moment, and the questions people ask of it."""

from __future__ import annotations

from pathlib import Path

from corral.domain.hardware import Cpu, Gpu, Machine, Memory
from corral.hardware import probes


def take(folder: Path, *, usage: bool = True) -> Machine:
    """The machine now; `folder` says which disk is meant. Never raises.

    Blocks: some 0.1 s to see how busy the processor is (not when `usage` is False), and as long again when NVIDIA's
    library is first loaded.
    """
    cpu = Cpu(probes.cpu_count(), probes.cpu_cores(), probes.cpu_name(), probes.cpu_usage() if usage else None)
    return Machine(cpu, probes.memory(), probes.disk(folder), probes.gpus(), probes.driver())


class ResourceDetector:
    """What this machine has: processor, memory, graphics. Unknown is None; nothing raises."""

    def detect_cpu(self) -> Cpu:
        """The processor, watched for 0.1 s to see how busy it is."""
        return Cpu(probes.cpu_count(), probes.cpu_cores(), probes.cpu_name(), probes.cpu_usage())

    def detect_memory(self) -> Memory:
        """Main memory, in bytes."""
        return probes.memory()

    def detect_gpu(self) -> tuple[Gpu, ...]:
        """The graphics processors that models can run on; empty when none is known."""
        return probes.gpus() or ()

    def best_device(self) -> str:
        """Where a model runs best here: `mps`, then `cuda`, then `cpu`."""
        return Machine(Cpu(), Memory(), probes.disk(Path()), probes.gpus()).best_device
