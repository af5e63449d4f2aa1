"""What a machine has: values only. Sizes in bytes, shares in percent; what is not known is None, never a guess."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: how many threads run at once, how many cores they run on, and how busy it is.

    `instructions` are the sets that matter to models: `AVX2`, `AVX-512`, `AMX`, `NEON`, …
    """

    count: int | None = None
    cores: int | None = None
    name: str | None = None
    usage: float | None = None
    instructions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory as this process may use it: a container's limit counts. `available` is to be had without swapping.

    `limit` is the container's, where it is less than the machine has.
    """

    total: int | None = None
    available: int | None = None
    limit: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None

    @property
    def used(self) -> int | None:
        """What is not to be had."""
        return None if self.total is None or self.available is None else self.total - self.available


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that a folder lies on."""

    total: int | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that a GPU's driver knows, and the bytes it holds there."""

    pid: int
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One graphics processor. `id` is `cuda:0`, `cuda:1`, …, `rocm:0` or `mps`.

    Attributes:
        temperature: degrees Celsius.
        unified: its memory is main memory, of which no part is the processor's own.
        power: watts.
        power_limit: watts it may take.
        capability: of NVIDIA's, what it can compute (`9.0`).
        uuid: what it is called wherever it is plugged in.
        part_of: of a part of a GPU (MIG), the whole one's `uuid`.
        processes: who uses it, as far as the driver tells.
        fault: why it cannot be used, in the driver's words.
    """

    id: str
    name: str | None = None
    total: int | None = None
    free: int | None = None
    usage: float | None = None
    temperature: float | None = None
    unified: bool = False
    power: float | None = None
    power_limit: float | None = None
    capability: str | None = None
    uuid: str | None = None
    part_of: str | None = None
    processes: tuple[GpuProcess, ...] | None = None
    fault: str | None = None

    @property
    def used(self) -> int | None:
        """Bytes in use, by whomever."""
        return None if self.total is None or self.free is None else self.total - self.free


@dataclass(frozen=True, slots=True)
class LostGpu:
    """A GPU that was there and no longer is: as it was last seen, since when, in Unix seconds, and why."""

    gpu: Gpu
    lost_at: float
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A GPU was lost, or is `back`. `at` in Unix seconds."""

    device: str
    back: bool
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Machine:
    """One look at a machine. `gpus` None: it could not be found out; empty: there are none. `lost` were there before.

    `at` in Unix seconds.
    """

    cpu: Cpu
    memory: Memory
    disk: Disk
    gpus: tuple[Gpu, ...] | None = None
    driver: str | None = None
    lost: tuple[LostGpu, ...] = ()
    at: float | None = None

    @property
    def best_device(self) -> str:
        """Where a model runs best: `mps`, then `cuda`, then `cpu`.

        AMD's count as `cuda`, as torch has it. One that was lost is still what it was: nothing falls back to the
        processor without a word.
        """
        there = [gpu.id for gpu in self.gpus or ()] + [lost.gpu.id for lost in self.lost]
        kinds = {device.partition(":")[0].replace("rocm", "cuda") for device in there}
        return next((kind for kind in ("mps", "cuda") if kind in kinds), "cpu")
