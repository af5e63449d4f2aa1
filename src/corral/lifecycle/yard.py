"""The values of a decision about engines: what it is made from, what it orders, and how it is explained. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from corral.domain.memory import Group, Placement
from corral.domain.states import State


@dataclass(frozen=True, slots=True)
class EngineView:
    """What a decision may know of an engine. Times in seconds of one clock, memory in bytes by device.

    `held` is what it takes, or what was set aside for it while it loads; while it sleeps, what it still takes then.
    `limit` is how many requests it is given at once (None: any number), `in_flight` how many it has. `load_seconds` is
    what it costs to have it back. `resident`: it never has to make room. `sleeps`: it can give back its memory without
    ending, all but `asleep`. `placement` is where it stands, or stood when it went to sleep. `priority` is what a
    request for it counts for; `ready_at` when it last became ready; `yields_to` for whom the last decision held it.
    """

    model: str
    state: State
    held: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    limit: int | None = None
    last_used: float = 0.0
    idle_timeout: float = inf
    load_seconds: float = 1.0
    resident: bool = False
    sleeps: bool = False
    asleep: Mapping[str, int] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)
    priority: int = 0
    ready_at: float = -inf
    yields_to: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """The requests that wait for one model: how many, since when the oldest, and the highest of their priorities.

    `placements` are the ways to put the model, the best first; empty for one that takes no memory here. `hint`: nobody
    asks for it yet, somebody soon may; it is loaded only into memory that nobody holds. `lost` is when the model's last
    engine was taken from those who wait: they stand in line for memory since then, and not since before.
    """

    model: str
    count: int
    since: float
    priority: int = 0
    placements: tuple[Placement, ...] = ()
    hint: bool = False
    lost: float = -inf


@dataclass(frozen=True, slots=True)
class Yard:
    """Everything a decision is made from.

    `capacity` is what engines may take of each device; a device that is not in it has no limit. `patience` in seconds:
    each time a request has waited so long, it counts for one priority more. `loads` is how many models may be loading.
    """

    engines: Mapping[str, EngineView] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    patience: float = 20.0
    loads: int = 2


@dataclass(frozen=True, slots=True)
class Admit:
    """Give the oldest `count` waiting requests to the engine, which is ready."""

    model: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Load:
    """Start an engine, there; the memory is set aside from now on."""

    model: str
    placement: Placement
    reason: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Have the sleeping engine take its memory again; it is set aside from now on."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Take an engine that answers nobody out of memory: end it, or have it sleep. `room_for` is who needs the room."""

    model: str
    to: State
    reason: str
    room_for: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Give the engine no new requests: once it has answered those it has, it makes room for `room_for`."""

    model: str
    reason: str
    room_for: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell all who wait for the model that it cannot be had on this machine."""

    model: str
    reason: str
    hint: str = ""


Effect = Admit | Load | Wake | Evict | Hold | Refuse


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, in this order; why each queue that still waits does; and the seconds until to look again.

    Holds are not kept: an engine is held exactly as long as each decision says so again.
    """

    effects: tuple[Effect, ...] = ()
    waits: Mapping[str, str] = field(default_factory=dict)
    recheck: float = inf


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine as one that could make room: whether it may, whether it was taken, and why or why not.

    `worth` is what is lost with it: seconds of loading for each second that it has not been used, for as much as it
    frees of what is needed. Those worth least go first; infinity where it frees nothing that is needed.
    """

    model: str
    state: State
    possible: bool
    chosen: bool
    worth: float
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a request for `model` now.

    `verdict` is `answers now`, `loads` (perhaps once idle engines have left), `waits` or `refused`. `steps` are the
    reasons of everything that would be done for it, in order; `candidates` every engine in memory but its own.
    """

    model: str
    verdict: str
    reason: str
    steps: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
