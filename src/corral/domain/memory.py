"""Memory, as the scheduler counts it: what an engine asks for, where it may be put, and what may not stand together.

Bytes throughout. A device is `cpu`, `cuda:0`, `rocm:0`, `mps`, …; one that is not listed somewhere is unknown there,
never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Demand:
    """What an engine will want, in its runtime's terms; `lifecycle.footprint` makes bytes of it. None leaves it open.

    Attributes:
        context: tokens of each slot, prompt and answer together.
        slots: requests answered at the same time.
        keys: number format of the keys in the context.
        values: number format of the values.
        weights: what the weights take in memory over what their files take, as when they are quantised at load.
        process: bytes of main memory beside all that: interpreter, libraries, buffers.
        overhead: bytes that the runtime takes on each GPU it uses, beside weights and context.
        cache: bytes set aside for the context once and for all, in place of `context` times `slots`.
        fixed: bytes of the whole, where the runtime knows; nothing is estimated then.
        device: where it must go: `cpu`, `cuda`, `cuda:1`, `mps`; None is the best there is.
        layers: layers put on the GPU; None as many as fit.
        splits: whether it can stand with some layers on the GPU and the others beside it.
        parallel: GPUs over which it is spread evenly.
    """

    context: int | None = None
    slots: int = DEFAULT_SLOTS
    keys: str = "f16"
    values: str = "f16"
    weights: float = 1.0
    process: int = 40 * 1024**2
    overhead: int = 0
    cache: int | None = None
    fixed: int | None = None
    device: str | None = None
    layers: int | None = None
    splits: bool = False
    parallel: int = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """One way to put an engine: bytes set aside on each device; the first device named is the one it computes on.

    `layers` on the GPU, None for all of them (or where there is no such thing). `said` describes it to a person.
    `source` tells where the bytes come from: `estimated`, `measured`, or `guessed` when the files did not say enough.
    """

    devices: Mapping[str, int] = field(default_factory=dict)
    layers: int | None = None
    said: str = ""
    source: str = "estimated"

    @property
    def device(self) -> str:
        """Where it computes."""
        return next(iter(self.devices), "cpu")

    @property
    def total(self) -> int:
        """Bytes on all devices together."""
        return sum(self.devices.values())


@dataclass(frozen=True, slots=True)
class Group:
    """Models that have a rule in common.

    `swap`: only one of them is in memory at a time. `exclusive`: while one of them is, none of another group that is
    not persistent. `persistent`: no exclusive group makes them leave.
    """

    members: frozenset[str] = frozenset()
    swap: bool = False
    exclusive: bool = False
    persistent: bool = False
