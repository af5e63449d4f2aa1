"""What a machine has: values only. Sizes in bytes, shares in percent; what is not known is None, never a guess."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: how many threads run at once, how many cores they run on, and how busy it is."""

    count: int | None = None
    cores: int | None = None
    name: str | None = None
    usage: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory as this process may use it: a container's limit counts. `available` is to be had without swapping."""

    total: int | None = None
    available: int | None = None

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
class Gpu:
    """One graphics processor. `id` is `cuda:0`, `cuda:1`, … or `mps`; `temperature` in degrees Celsius.

    `unified` memory is main memory, of which no part is the processor's own.
    """

    id: str
    name: str | None = None
    total: int | None = None
    free: int | None = None
    usage: float | None = None
    temperature: float | None = None
    unified: bool = False

    @property
    def used(self) -> int | None:
        """Bytes in use, by whomever."""
        return None if self.total is None or self.free is None else self.total - self.free


@dataclass(frozen=True, slots=True)
class Machine:
    """One look at a machine. `gpus` None: it could not be found out; empty: there are none."""

    cpu: Cpu
    memory: Memory
    disk: Disk
    gpus: tuple[Gpu, ...] | None = None
    driver: str | None = None

    @property
    def best_device(self) -> str:
        """Where a model runs best: `mps`, then `cuda`, then `cpu`."""
        kinds = {gpu.id.partition(":")[0] for gpu in self.gpus or ()}
        return next((kind for kind in ("mps", "cuda") if kind in kinds), "cpu")
