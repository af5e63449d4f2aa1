"""What the supervisor keeps and shows: launches, engines, their states, what was decided; and who measures memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from corral.domain.memory import Group, Placement
from corral.domain.ports import LaunchSpec, Runtime, Session
from corral.domain.states import State
from corral.kit.upstream import Target


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a model: the runtime and what it is told; where it may be put, best first; and the rules for it.

    `idle_timeout` in seconds. `placements` is empty for what takes no memory here. `resident`: once in memory it never
    has to make room. `limit` is how many requests the engine is given at once; None is as many as it says it has slots.
    """

    runtime: Runtime
    spec: LaunchSpec
    idle_timeout: float
    placements: tuple[Placement, ...] = ()
    resident: bool = False
    priority: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all models; see the settings `engines.*` and `groups`. Times in seconds."""

    groups: tuple[Group, ...] = ()
    patience: float = 20.0
    queue: int = 1000
    loads: int = 2
    measure_every: float = 15.0
    restarts: int = 3


class Gauge(Protocol):
    """Knows the memory of this machine, measures engines, and remembers what it learned."""

    def capacity(self, *, settled: bool) -> Mapping[str, int]:
        """Bytes of each device that engines may take now; `settled`: none is coming, going or unmeasured. Quick."""
        ...

    def limits(self) -> Mapping[str, int]:
        """Bytes of each device that engines may take at most, when nobody else takes any. Quick."""
        ...

    async def measure(self, engine: Engine) -> Mapping[str, int]:
        """Bytes by device that the engine takes now, as far as that can be told. Never raises."""
        ...

    def measured(self, engine: Engine) -> None:
        """The engine's `peak` has been brought up to date. Does not block."""
        ...

    def too_small(self, launch: Launch, placement: Placement) -> None:
        """An engine could not be loaded with the memory that was set aside. Does not block."""
        ...


class NoGauge:
    """Counts nothing: every model fits."""

    def capacity(self, *, settled: bool) -> Mapping[str, int]:
        """No device has a limit."""
        return {}

    def limits(self) -> Mapping[str, int]:
        """No device has one."""
        return {}

    async def measure(self, engine: Engine) -> Mapping[str, int]:
        """What the engine says of itself."""
        return (await engine.session.footprint()).devices

    def measured(self, engine: Engine) -> None:
        """Not remembered."""

    def too_small(self, launch: Launch, placement: Placement) -> None:
        """Not remembered."""


@dataclass(slots=True, eq=False)
class Engine:
    """A model that is ready. `load_seconds` is how long that took; `loaded_at` is Unix seconds.

    `last_used` and `ready_at` are in seconds of the supervisor's clock. `footprint` is what it took when it was last
    measured, `peak` the most that was ever found, both in bytes by device and empty until then; `asleep` is what it
    took when it last slept. `keep_alive` overrules the launch's idle time-out, in seconds. `gone` is set once the
    engine has ended or was told to stop: whoever finds it broken may wait for that. `awake` is whether it may have all
    of its memory: from when it was loaded or woken until it is told to sleep.
    """

    id: str
    model: str
    launch: Launch
    session: Session
    target: Target
    placement: Placement
    loaded_at: float
    load_seconds: float
    last_used: float
    ready_at: float = 0.0
    awake: bool = True
    limit: int | None = None
    in_flight: int = 0
    served: int = 0
    keep_alive: float | None = None
    footprint: Mapping[str, int] = field(default_factory=dict)
    peak: Mapping[str, int] = field(default_factory=dict)
    asleep: Mapping[str, int] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runtime(self) -> str:
        """The runtime's kind."""
        return self.launch.runtime.kind

    @property
    def remote(self) -> bool:
        """Whether it is not a process of ours: it takes no memory here and cannot end."""
        return self.session.facts.device == "remote"

    @property
    def idle_timeout(self) -> float:
        """Seconds it may be unused; without end for what takes no memory here."""
        if self.remote:
            return inf
        return self.launch.idle_timeout if self.keep_alive is None else self.keep_alive

    @property
    def revision(self) -> str | None:
        """The revision's identifier, for an engine that runs one."""
        return self.launch.spec.revision.id if self.launch.spec.revision else None

    @property
    def held(self) -> Mapping[str, int]:
        """Bytes by device that count as taken: the most that was measured, what was set aside where nothing was."""
        return {**self.placement.devices, **self.peak} if self.peak else self.placement.devices

    @property
    def full(self) -> bool:
        """Whether it has as many requests as it is given at once."""
        return self.limit is not None and self.in_flight >= self.limit

    def go_by(self, launch: Launch) -> None:
        """Keep the rules of this launch from now on; how it was started stays as it was."""
        self.launch = launch
        self.limit = launch.limit if launch.limit or self.remote else self.session.facts.slots

    def note(self, devices: Mapping[str, int]) -> None:
        """It was found to take this much."""
        self.footprint = devices
        self.peak = {device: max(size, self.peak.get(device, 0)) for device, size in devices.items()}


@dataclass(frozen=True, slots=True)
class Status:
    """One model as `ps` shows it.

    `idle_left` in seconds and `until` in Unix seconds: None while it is busy or has no time-out. `waiting` requests,
    the oldest `since` Unix seconds. `held` is what counts as taken, in bytes by device.
    """

    model: str
    state: State
    reason: str
    engine: Engine | None
    idle_left: float | None = None
    waiting: int = 0
    since: float | None = None
    until: float | None = None
    held: Mapping[str, int] = field(default_factory=dict)
    placement: Placement | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision that was carried out: `effect` is `load`, `evict`, `sleep`, `wake`, `hold` or `refuse`."""

    at: float
    model: str
    effect: str
    reason: str
    room_for: str = ""
