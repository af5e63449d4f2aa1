"""How containers stand: what is wanted of them beside what is there, and what was done about it. Values; no I/O.

What a container goes through:

    absent ──create──▶ created ──start──▶ starting ──its API answers──▶ healthy ◀──▶ unhealthy
                                             ▲                             │             │
                                           time                            ├── ends ─────┤
                                             │                             ▼             ▼
                                          waiting ◀──── exited · killed · oom_killed ────┘
                                             └──▶ crash_loop        too often in a row

Beside them: stopped (somebody wanted it so), paused, fallen_back (on the CPU, and it should not be), orphan (labelled
as ours, and no longer configured), unknown (the Docker engine does not answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class ContainerState(StrEnum):
    """Where a container stands."""

    ABSENT = "absent"
    CREATED = "created"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    FALLEN_BACK = "fallen_back"
    PAUSED = "paused"
    STOPPED = "stopped"
    EXITED = "exited"
    KILLED = "killed"
    OOM_KILLED = "oom_killed"
    WAITING = "waiting"
    CRASH_LOOP = "crash_loop"
    ORPHAN = "orphan"
    UNKNOWN = "unknown"

    @property
    def up(self) -> bool:
        """Whether its process runs."""
        return self in _UP

    @property
    def active(self) -> bool:
        """Whether its models can be asked."""
        return self in (ContainerState.HEALTHY, ContainerState.FALLEN_BACK)


_UP = frozenset(
    {
        ContainerState.STARTING,
        ContainerState.HEALTHY,
        ContainerState.UNHEALTHY,
        ContainerState.FALLEN_BACK,
        ContainerState.PAUSED,
    }
)


@dataclass(frozen=True, slots=True)
class ModelInside:
    """A model that a container's server has. Bytes; `digest` as its server tells it; None is unknown."""

    name: str
    digest: str | None = None
    size: int | None = None
    loaded: bool = False
    in_gpu: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What asking the models' own API has shown. `latency` in seconds; `said` is what a generation gave.

    Attributes:
        healthy: whether it answers as it should, with every model that it is to have.
        version: of the server in it.
        models: those it has.
        missing: those it should have, and has not.
        reason: what is wrong; empty where nothing is.
    """

    healthy: bool
    at: float
    version: str | None = None
    models: tuple[ModelInside, ...] = ()
    missing: tuple[str, ...] = ()
    latency: float | None = None
    said: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one container stands: what is wanted of it, beside what is there. Times in Unix seconds; None is unknown.

    Attributes:
        state: where it stands; `reason` says why, where that is not plain.
        since: when it came into that state.
        wanted: whether it shall run. Somebody who stops it by hand wants it stopped.
        drift: what differs from the configuration, in words; empty where nothing does.
        url: where its models' API is on this machine, without a trailing slash or path.
        version: of the server in it.
        restarts: starts by Corral since it last was well for a while.
        previous: the image that `rollback` would go back to.
    """

    name: str
    container: str
    kind: str
    state: ContainerState
    purpose: str = ""
    reason: str = ""
    since: float | None = None
    wanted: bool = True
    id: str | None = None
    image: str = ""
    image_id: str | None = None
    drift: tuple[str, ...] = ()
    url: str | None = None
    port: int | None = None
    gpus: tuple[str, ...] = ()
    memory_limit: int | None = None
    cpu_limit: float | None = None
    models: tuple[ModelInside, ...] = ()
    missing: tuple[str, ...] = ()
    version: str | None = None
    exit_code: int | None = None
    restarts: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    checked_at: float | None = None
    previous: str | None = None


def describe(standing: Standing, now: float) -> dict[str, Any]:
    """A container as every surface shows it. `status` is `active` or `inactive`; `uptime` in seconds."""
    up = standing.state.up and standing.started_at is not None
    told = asdict(standing)
    return {
        **told,
        "state": str(standing.state),
        "status": "active" if standing.state.active else "inactive",
        "uptime": max(0.0, now - (standing.started_at or now)) if up else None,
        "drift": list(standing.drift),
        "gpus": list(standing.gpus),
        "missing": list(standing.missing),
        "models": [asdict(model) for model in standing.models],
    }


@dataclass(frozen=True, slots=True)
class Happening:
    """A line of a container's history. `what` is an event's name or what Corral did, such as `restarted`."""

    at: float
    name: str
    what: str
    before: str | None = None
    after: str | None = None
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


class Step(StrEnum):
    """What is done to a container to make it what it shall be."""

    KEEP = "keep"
    CREATE = "create"
    START = "start"
    STOP = "stop"
    RECREATE = "recreate"
    ADOPT = "adopt"
    REMOVE = "remove"
    ORPHAN = "orphan"
    WAIT = "wait"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Planned:
    """One step, and why. `blocked` steps are not done: `reason` says what is in the way."""

    step: Step
    name: str
    reason: str = ""
    container: str = ""
