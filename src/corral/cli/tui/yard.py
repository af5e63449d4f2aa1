"""What the menu knows of the server. Pure: messages and answers go in, and the topics that changed come out.

Topics: `models`, `queue`, `memory`, `happened`, `machine`, `containers`, `work`, `spend`, `link`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from corral.domain.operations import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable


HAPPENED = 500
"""Things that happened which are kept."""
TRAIL = 240
"""Figures in a row that are kept for a sparkline."""

Topics = frozenset[str]
NOTHING: Topics = frozenset()


class Connection(StrEnum):
    """Whether the server's events come in."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    AWAY = "away"
    REFUSED = "refused"


class Trail:
    """The last figures of one thing."""

    __slots__ = ("values",)

    def __init__(self, values: Iterable[float | None] = ()) -> None:
        self.values: deque[float | None] = deque(values, maxlen=TRAIL)

    @property
    def last(self) -> float | None:
        """The newest figure."""
        return self.values[-1] if self.values else None


@dataclass(slots=True)
class Yard:
    """All that is known. Bytes, seconds and Unix seconds as in docs/http.md; `fault` says why nothing comes in.

    `trails` are figures by name: `cpu` and `memory` of the machine, `cuda:0/usage`, and of a container
    `NAME/cpu` in processors and `NAME/memory`. `looked`: all containers have been told once.
    """

    models: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    installed: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)
    memory: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    happened: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=HAPPENED))
    machine: Mapping[str, Any] = field(default_factory=dict)
    trails: dict[str, Trail] = field(default_factory=dict)
    containers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    looked: bool = False
    docker: str | None = None
    operations: dict[str, Operation] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None
    budgets: Sequence[Mapping[str, Any]] | None = None
    connection: Connection = Connection.CONNECTING
    fault: tuple[str, str] = ("", "")
    url: str = ""

    def take(self, message: Mapping[str, Any]) -> Topics:
        """A message of the events feed."""
        match message.get("type"):
            case "snapshot" if "containers" in message:
                self.set_containers(message["containers"])
                return frozenset({"containers"})
            case "snapshot":
                self.set_models(message.get("models") or ())
                self.memory = dict(message.get("memory") or {})
                self.queues = dict(message.get("queues") or {})
                return frozenset({"models", "queue", "memory"})
            case "transition":
                return self._transition(message)
            case "decision":
                self.happened.append(message)
                return frozenset({"happened"})
            case "sample":
                return self._sample(message)
            case "device" | "lost" | "happening":
                self.happened.append(message)
                return frozenset({"happened", "machine"})
            case "container":
                return self._container(message)
        return NOTHING

    def set_models(self, models: Iterable[Mapping[str, Any]]) -> bool:
        """Every model that can be asked; whether that is news."""
        found = {str(model["name"]): model for model in models}
        changed = found != self.models
        self.models = found
        return changed

    def set_containers(self, containers: Iterable[Mapping[str, Any]]) -> bool:
        """Every container; whether that is news. Trails of those that are gone go, too."""
        found = {str(one["name"]): one for one in containers}
        for name in self.containers.keys() - found.keys():
            self._forget(name)
        changed = found != self.containers or self.docker is not None
        self.containers, self.docker, self.looked = found, None, True
        return changed

    def set_operations(self, operations: Iterable[Operation]) -> bool:
        """The newest operations, newest first; whether that is news."""
        found = {operation.id: operation for operation in operations}
        changed = found != self.operations
        self.operations = found
        return changed

    def set_operation(self, operation: Operation) -> None:
        """One operation as it stands; a new one comes first."""
        if operation.id in self.operations:
            self.operations[operation.id] = operation
        else:
            self.operations = {operation.id: operation, **self.operations}

    def set_history(self, history: Mapping[str, Any]) -> None:
        """The machine's figures of the last while, in columns."""
        self.trails["cpu"] = Trail(history.get("cpu") or ())
        self.trails["memory"] = Trail(history.get("memory") or ())
        for name, columns in (history.get("gpus") or {}).items():
            for what in ("used", "usage", "temperature", "power"):
                self.trails[f"{name}/{what}"] = Trail(columns.get(what) or ())

    def set_usage_of(self, name: str, usage: Mapping[str, Any]) -> None:
        """What a container takes now."""
        for what in ("cpu", "memory", "gpu_memory"):
            self.trail(f"{name}/{what}").values.append(usage.get(what))

    def trail(self, name: str) -> Trail:
        """The figures of that name."""
        return self.trails.setdefault(name, Trail())

    @property
    def at_work(self) -> list[Operation]:
        """Operations that have not ended, newest first."""
        return [operation for operation in self.operations.values() if not operation.status.ended]

    def _transition(self, message: Mapping[str, Any]) -> Topics:
        self.happened.append(message)
        name, state = str(message.get("model")), message.get("state")
        if name in self.models:
            self.models[name] = {**self.models[name], "state": state, "reason": message.get("reason") or ""}
        return frozenset({"happened", "models"})

    def _sample(self, message: Mapping[str, Any]) -> Topics:
        self.trail("cpu").values.append(message.get("cpu"))
        self.trail("memory").values.append(message.get("memory"))
        for name, figures in (message.get("gpus") or {}).items():
            for what, value in figures.items():
                self.trail(f"{name}/{what}").values.append(value)
        return frozenset({"machine"})

    def _container(self, message: Mapping[str, Any]) -> Topics:
        """How one stands now."""
        standing = message.get("container")
        if not self.looked or not isinstance(standing, dict) or not standing.get("name"):
            return NOTHING  # before all are known, one alone would look like all
        name = str(standing["name"])
        if standing.get("state") == "absent" and not standing.get("wanted", True):
            self.containers.pop(name, None)
            self._forget(name)
        else:
            self.containers[name] = standing
            if standing.get("uptime") is None:
                self._forget(name)
        return frozenset({"containers"})

    def _forget(self, name: str) -> None:
        for what in ("cpu", "memory", "gpu_memory"):
            self.trails.pop(f"{name}/{what}", None)
