"""What to do about engines, decided from values alone: (engines, who waits, memory, time) → effects with reasons.

Nothing here waits, starts or stops anything: `supervisor` carries the effects out, and is the only one to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    ending, all but `asleep`. `placement` is where it stands, or stood when it went to sleep.
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


@dataclass(frozen=True, slots=True)
class Queue:
    """The requests that wait for one model: how many, since when the oldest, and the highest of their priorities.

    `placements` are the ways to put the model, the best first; empty for one that takes no memory here. `hint`: nobody
    asks for it yet, somebody soon may; it is loaded only into memory that nobody holds.
    """

    model: str
    count: int
    since: float
    priority: int = 0
    placements: tuple[Placement, ...] = ()
    hint: bool = False


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


_BUSY_CHECK = 1.0
"""Seconds after which a busy engine is looked at again at the earliest."""


def decide(yard: Yard, now: float) -> Decision:
    """What to do about everyone who waits, now."""
    effects: list[Effect] = []
    for queue in yard.queues.values():
        engine = yard.engines.get(queue.model)
        if engine is None:
            effects.append(Load(queue.model, next(iter(queue.placements), Placement()), "it is not in memory"))
        elif engine.state is State.READY:
            effects.append(Admit(queue.model, queue.count, "it is in memory"))
        elif engine.state is State.SLEEPING:
            effects.append(Wake(queue.model, "it sleeps"))
    return Decision(tuple(effects))


def idle(engines: Iterable[EngineView], now: float) -> list[Evict]:
    """The engines that nobody has used for their time-out, longest unused first. A busy engine is never idle."""
    due = [e for e in engines if e.state is State.READY and not e.in_flight and now - e.last_used >= e.idle_timeout]
    due.sort(key=lambda e: e.last_used)
    return [
        Evict(
            e.model,
            State.STOPPING,
            f"unused for {now - e.last_used:.0f} s, its idle time-out is {e.idle_timeout:.0f} s",
        )
        for e in due
    ]


def next_check(engines: Iterable[EngineView], now: float) -> float:
    """Seconds until `idle` can next name an engine that is ready now; infinity when none ever will.

    A busy engine may become free at any time from now on, so it counts as used now; it is looked at again after a
    second at the earliest, however short its time-out.
    """
    ready = [e for e in engines if e.state is State.READY]
    waits = (max(e.idle_timeout, _BUSY_CHECK) if e.in_flight else e.last_used + e.idle_timeout - now for e in ready)
    return max(0.0, min(waits, default=inf))
