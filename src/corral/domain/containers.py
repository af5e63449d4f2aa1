"""Containers: model servers that a Docker engine runs for Corral. Values and the port; no I/O.

What is wanted of a container (`ContainerSpec`) and what the engine shows of it (`Seen`) are two things; the fleet makes
the second like the first. A container of Corral's is known by its labels:

    corral.yard    whose it is: the id of a Corral's home, so that two Corrals may share one engine
    corral.name    its name in the configuration
    corral.spec    fingerprint of the ContainerSpec that it was made from; another one is drift
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from corral.errors import InvalidName

if TYPE_CHECKING:
    from corral.domain.ports import Report

YARD_LABEL = "corral.yard"
NAME_LABEL = "corral.name"
SPEC_LABEL = "corral.spec"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,46}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the container on an address of this machine; `host` is loopback unless somebody said otherwise."""

    inside: int
    outside: int
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Mount:
    """Something of the machine in the container: a named volume, or a folder by its absolute path."""

    source: str
    target: str
    read_only: bool = False

    @property
    def named(self) -> bool:
        """Whether it is a volume that the Docker engine keeps."""
        return not self.source.startswith("/")


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that makes a container what it is: what differs here makes another container.

    Attributes:
        name: its name in the configuration, checked.
        container: its name on the Docker engine.
        kind: what serves in it: `ollama`, `llamacpp`, `vllm`, or `openai` for anything that speaks OpenAI's dialect.
        image: the image's reference; with `digest`, exactly that image (`sha256:…`).
        entrypoint: replaces the image's; None leaves it.
        command: arguments; None leaves the image's.
        environment: variables; may hold credentials, and is never shown.
        ports: on this machine. The first is the models' API.
        mounts: volumes and folders.
        tmpfs: folders in memory, with their options, such as `{"/tmp": "size=64m"}`.
        gpus: devices by number or UUID; `("all",)` all of them; empty none.
        memory: most bytes it may take; None is no limit. It may not swap beyond that.
        fitted: whether that is worked out from what its models take, and set while it runs; `memory` is None then.
        cpus: most processors it may take, such as 1.5.
        shm: bytes of shared memory.
        pids: most processes.
        user: who it runs as, `UID[:GID]`; None leaves it to the image.
        read_only: whether its root file system is.
        capabilities: Linux capabilities that it keeps; all others are dropped.
        network: the Docker network; `bridge`, `host`, `none`, or the name of one.
        stop_grace: seconds from SIGTERM to SIGKILL.
        labels: further labels.
        working: its working folder; None leaves it.
    """

    name: str
    container: str
    kind: str
    image: str
    digest: str | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    memory: int | None = None
    cpus: float | None = None
    shm: int | None = None
    pids: int | None = None
    user: str | None = None
    read_only: bool = False
    capabilities: tuple[str, ...] = ()
    network: str = "bridge"
    stop_grace: float = 20.0
    labels: Mapping[str, str] = field(default_factory=dict)
    working: str | None = None
    fitted: bool = False

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change when anything here does. Secrets cannot be read from it.

        What is as it is unless somebody says otherwise does not count: a Corral that knows of more than the one that
        made a container gives it the same fingerprint, and lets it be.
        """
        # Each look at each container needs it: `asdict`, which copies everything, would be most of that look.
        text = json.dumps(_said(self), sort_keys=True, separators=(",", ":"), default=_said)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def labelled(self, yard: str) -> dict[str, str]:
        """The labels by which a container made of this is known."""
        ours = {YARD_LABEL: yard, NAME_LABEL: self.name, SPEC_LABEL: self.fingerprint()}
        return {**self.labels, **ours}


@dataclass(frozen=True, slots=True)
class Watch:
    """How a container is watched. Seconds.

    Attributes:
        health: the path on its first port that answers 2xx while it is well; None is what its kind has.
        start_timeout: to become healthy.
        every: between two health checks.
        timeout: for one health check.
        failures: checks in a row that fail before it is started anew.
        restart: whether it is started again when it ends by itself.
        first: the pause before the first new start; each further one doubles it.
        longest: the longest such pause.
        settled: having been well for so long, its past is forgotten.
        crashes: ends in a row, without having settled in between, that are a crash loop: it stays down then.
        gpu: whether it has to be on a GPU once a model is loaded; fallen back to the CPU it is made anew.
    """

    health: str | None = None
    start_timeout: float = 300.0
    every: float = 10.0
    timeout: float = 5.0
    failures: int = 3
    restart: bool = True
    first: float = 1.0
    longest: float = 60.0
    settled: float = 60.0
    crashes: int = 5
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """One container of the configuration: what it is, what it is for, and how it is kept.

    `models` are names on the server in the container (`qwen2.5-coder:7b`); clients ask Corral for them by those names.
    `up` is whether it shall run.
    """

    spec: ContainerSpec
    purpose: str = ""
    models: tuple[str, ...] = ()
    watch: Watch = field(default_factory=Watch)
    up: bool = True

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Seen:
    """A container as the Docker engine shows it. Times in Unix seconds; None is unknown.

    Attributes:
        id: the engine's id, 64 hexadecimal digits.
        container: its name on the engine, without the slash.
        image: the reference it was made from.
        image_id: the image it runs, as `sha256:…`.
        running, paused, restarting, dead: as the engine says.
        created_only: it has never been started.
        exit_code: of its last end; None while it runs, or where a list does not tell.
        oom_killed: whether the kernel ended it for the memory it took.
        labels: all of them.
        ports: those that are published.
        memory: most bytes it may take, as an inspection shows it; None is no limit.
        detailed: whether it was inspected; a list alone does not tell everything.
        error: what the engine says of a start that failed.
    """

    id: str
    container: str
    image: str
    image_id: str = ""
    running: bool = False
    paused: bool = False
    restarting: bool = False
    dead: bool = False
    created_only: bool = False
    exit_code: int | None = None
    oom_killed: bool = False
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    memory: int | None = None
    detailed: bool = False
    error: str = ""

    @property
    def yard(self) -> str | None:
        """Whose it is; None: nobody's Corral."""
        return self.labels.get(YARD_LABEL)

    @property
    def name(self) -> str | None:
        """Its name in the configuration that it was made from."""
        return self.labels.get(NAME_LABEL)

    @property
    def spec(self) -> str | None:
        """The fingerprint of what it was made from."""
        return self.labels.get(SPEC_LABEL)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on the Docker engine: `what` as the engine calls it (`die`, `start`, `oom`, …).

    `at` in Unix seconds. `attributes` are the container's labels and what belongs to the event (`exitCode`, `signal`).
    """

    what: str
    id: str
    container: str
    at: float
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container takes at one time. Bytes; `cpu` in processors (1.5 is one and a half); None is unknown.

    `throttled` is the part of its scheduling periods, 0 to 1, in which it was held back by its limit.
    """

    at: float
    cpu: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    received: int | None = None
    sent: int | None = None
    read: int | None = None
    written: int | None = None
    pids: int | None = None
    throttled: float | None = None
    gpu_memory: int | None = None
    gpu_temperature: float | None = None
    gpu_utilization: float | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """A Docker engine: what it is and what it can. `runtimes` has `nvidia` where the container toolkit is installed."""

    address: str
    version: str
    api: str
    system: str = ""
    runtimes: tuple[str, ...] = ()
    cdi: bool = False
    rootless: bool = False
    cgroup: str = ""
    root: str = ""
    cpus: int | None = None
    memory: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image that is here: its id (`sha256:…`), its tags, and the digests that registries know it by."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    created_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a container printed. `at` in Unix seconds; `error` is its standard error."""

    text: str
    at: float | None = None
    error: bool = False


@runtime_checkable
class ContainerEngine(Protocol):
    """A Docker engine. Every method may raise DockerUnavailable, when it does not answer or may not be asked."""

    async def info(self) -> EngineInfo:
        """What it is and can."""
        ...

    async def list(self, yard: str | None = None) -> Sequence[Seen]:
        """Every container, running or not, in one call; with `yard` those of one Corral."""
        ...

    async def inspect(self, container: str) -> Seen:
        """One, by id or name, in detail.

        Raises:
            ContainerNotFound: there is none.
        """
        ...

    async def describe(self, container: str) -> ContainerSpec:
        """What a container that is there was made from, as a spec would have it, whoever made it.

        Raises:
            ContainerNotFound: there is none.
        """
        ...

    async def written(self, container: str) -> Sequence[str]:
        """The paths that it has written in its own file system, which goes with it, and not in a volume or folder.

        Raises:
            ContainerNotFound: there is none.
        """
        ...

    async def create(self, spec: ContainerSpec, yard: str) -> str:
        """Make it, with its labels, and return its id; it is not started, and nothing is pulled.

        Raises:
            ImageNotFound: its image is not here.
            Conflict: a container has its name; says whose it is.
            ContainerError: the engine refused.
        """
        ...

    async def start(self, container: str) -> bool:
        """Start it; False when it runs already.

        Raises:
            PortTaken: another program or container has its port; says which, where that can be told.
            ContainerError: it cannot be started.
        """
        ...

    async def stop(self, container: str, grace: float) -> bool:
        """End it, politely at first; False when it does not run."""
        ...

    async def limit(self, container: str, *, memory: int | None = None, cpus: float | None = None) -> None:
        """Set what it may take, in bytes and processors, while it runs or not; None leaves that as it is.

        Raises:
            ContainerNotFound: there is none.
            ContainerError: the engine refused, as for less memory than it takes now.
        """
        ...

    async def rename(self, container: str, name: str) -> None:
        """Give it another name."""
        ...

    async def remove(self, container: str, *, force: bool = False) -> bool:
        """Remove it; its named volumes stay. False when there is none."""
        ...

    def logs(self, container: str, *, lines: int, follow: bool = False) -> AsyncIterator[Line]:
        """Its last `lines` lines, oldest first; and with `follow` every further one, until it ends."""
        ...

    async def usage(self, container: str, *, brief: bool = False) -> Usage | None:
        """What it takes now; None while it does not run. May take a second, for the processors: `brief` is without."""
        ...

    def usages(self, container: str) -> AsyncIterator[Usage]:
        """What it takes, about once a second, until it ends."""
        ...

    def events(self, since: float | None = None) -> AsyncIterator[Event]:
        """What happens to containers from now on, or from `since` (Unix seconds).

        Raises:
            DockerUnavailable: the engine went away.
        """
        ...

    async def image(self, reference: str) -> ImageInfo | None:
        """An image that is here, by reference or id; None when it is not."""
        ...

    async def pull(self, reference: str, report: Report) -> ImageInfo:
        """Fetch an image.

        Raises:
            ImageNotFound: the registry has none of that name, or does not give it.
            ContainerError: it could not be fetched.
        """
        ...

    async def tag(self, image: str, reference: str) -> None:
        """Give an image that is here a further name, so that it is not lost with the next pull."""
        ...

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        ...


@runtime_checkable
class Containers(Protocol):
    """The Docker engine of this Corral, and who it is on it. Neither is looked for before it is asked for.

    What `yard` labels is the fleet's: a container that is nobody's entry in the configuration is an orphan to it, and
    may be removed. Whoever makes containers for another purpose labels them otherwise, such as `YARD.engines`.
    """

    @property
    def engine(self) -> ContainerEngine:
        """The Docker engine. Connects when it is used."""
        ...

    @property
    def yard(self) -> str:
        """The id of this Corral's home.

        Raises:
            StoreError: it can be neither read nor made.
        """
        ...


def check_container(name: str) -> str:
    """`name`, when it can name a container of the configuration.

    Raises:
        InvalidName: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:60]!r} cannot name a container.",
            "Use up to 48 of a-z, 0-9, '.', - and _, with a letter or digit at both ends.",
            param="container",
        )
    return name


def _said(value: object) -> dict[str, Any]:
    """What somebody said of a mapping or a dataclass: its fields that are not as they are by default."""
    if isinstance(value, Mapping):
        return dict(value)
    kind: Any = type(value)
    told = ((name, getattr(value, name), default) for name, default in _defaults(kind))
    return {name: given for name, given, default in told if given != default}


@cache
def _defaults(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass and what each is by default; MISSING, which nothing equals, where it is to be given."""
    return tuple(
        (each.name, each.default if each.default_factory is MISSING else each.default_factory())
        for each in fields(kind)
    )
