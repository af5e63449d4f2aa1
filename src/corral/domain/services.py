"""Services: long-lived servers of models that Corral starts, watches and takes up again. Values and the port; no I/O.

An engine is a child of the Corral that started it and dies with it. A service outlives Corral and the terminal: who
comes later finds it, and stops it cleanly.

    stopped ──start──▶ starting ──healthy──▶ running ◀──▶ unhealthy
                          ▲  │                  │             │
                       time  └──── it ends ─────┴── or hangs ─┘
                          │              │
                       waiting ◀─────────┴──▶ failed        too often, or it is not to be started again
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from corral.errors import InvalidName

if TYPE_CHECKING:
    from corral.domain.ports import Availability

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,46}[a-z0-9])?")


class ServiceState(StrEnum):
    """Where a service stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    WAITING = "waiting"
    STOPPING = "stopping"
    FAILED = "failed"

    @property
    def up(self) -> bool:
        """Whether somebody sees to it that it runs."""
        return self not in (ServiceState.STOPPED, ServiceState.FAILED)


@dataclass(frozen=True, slots=True)
class Vigilance:
    """How a service is watched. Seconds.

    Attributes:
        every: between two health checks; while it starts they come much faster.
        timeout: for one health check.
        failures: checks in a row that fail before it counts as hung and is started anew.
        first: the pause before the first new start; each further one doubles it.
        longest: the longest such pause.
        settled: having been well for so long, its past is forgotten.
        crashes: ends in a row, without having settled in between, that are too many: it stays down then.
    """

    every: float = 10.0
    timeout: float = 5.0
    failures: int = 3
    first: float = 1.0
    longest: float = 60.0
    settled: float = 60.0
    crashes: int = 5


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """Everything needed to run a service.

    Attributes:
        name: the user's name for it, checked.
        kind: what it is: `ollama`, `vllm`, `command`.
        argv: the program, by its absolute path, and its arguments.
        environment: variables beside those it inherits; may hold credentials, and is never shown.
        cwd: its working folder; None is the service's own.
        host: the address it listens on, as a number.
        port: where it listens; None where Corral is not told.
        health: the URL that answers 2xx while it is well. Without one it is well while its port takes connections, and
            without a port while it runs.
        stop_grace: seconds from SIGTERM to SIGKILL.
        start_timeout: seconds to become healthy.
        memory: most bytes it may take, where that can be enforced.
        restart: whether it is started again when it ends by itself.
        vigilance: how it is watched.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    health: str | None = None
    stop_grace: float = 20.0
    start_timeout: float = 300.0
    memory: int | None = None
    restart: bool = True
    vigilance: Vigilance = field(default_factory=Vigilance)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How a service stands; None is unknown, or does not apply.

    Attributes:
        pid: the program's own process.
        since: Unix seconds, when it came into this state.
        started_at: Unix seconds, when the process was started.
        restarts: starts after the first, since somebody last said `start`.
        last_exit: how it last ended, in words.
        healthy: what the last health check said.
        memory: bytes that it and its descendants hold.
        reason: why it is in this state, where that is not plain.
        log: where its output is: a file, or a command to read it.
        notes: remarks, such as a setting that this manager cannot follow.
        installed: whether it starts with the machine or the login.
    """

    name: str
    kind: str
    manager: str
    state: ServiceState
    pid: int | None = None
    since: float | None = None
    started_at: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    healthy: bool | None = None
    memory: int | None = None
    port: int | None = None
    reason: str = ""
    log: str | None = None
    notes: tuple[str, ...] = ()
    installed: bool = False


def describe(status: ServiceStatus, now: float) -> dict[str, Any]:
    """A status as every surface shows it; `now` in Unix seconds, `uptime` in seconds."""
    started = status.started_at
    told = {**asdict(status), "state": str(status.state), "notes": list(status.notes)}
    return {**told, "uptime": None if started is None else max(0.0, now - started)}


@runtime_checkable
class ServiceManager(Protocol):
    """What keeps services running on this machine. Every method may be called by several processes at once."""

    name: str

    async def probe(self) -> Availability:
        """Whether services can be kept in this way here. Cheap, and never raises."""
        ...

    async def install(self, spec: ServiceSpec) -> None:
        """See to it that the service starts with the machine, or with the login; it is not started now.

        Raises:
            ServiceUnavailable: this manager cannot.
            ServiceError: it was refused.
        """
        ...

    async def uninstall(self, spec: ServiceSpec) -> None:
        """Stop it and remove all that was written for it, but its log. Nothing happens when there is nothing."""
        ...

    async def start(self, spec: ServiceSpec) -> bool:
        """Start it, and return without waiting until it is healthy; False when it is up already.

        Raises:
            AddressInUse: another program has its port; says which, if that can be told.
            ServiceError: it could not be started.
        """
        ...

    async def stop(self, spec: ServiceSpec) -> bool:
        """End it and all of its processes, politely at first; False when it is not up."""
        ...

    async def status(self, spec: ServiceSpec) -> ServiceStatus:
        """How it stands. What a keeper that was killed has left is tidied up on the way."""
        ...

    async def log(self, spec: ServiceSpec, lines: int) -> Sequence[str]:
        """The last lines it printed, oldest first."""
        ...


def check_service(name: str) -> str:
    """`name`, when it can name a service, which becomes part of file and unit names.

    Raises:
        InvalidName: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:60]!r} cannot name a service.",
            "Use up to 48 of a-z, 0-9, - and _, with a letter or digit at both ends.",
            param="service",
        )
    return name
