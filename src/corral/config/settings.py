"""Every setting: its default, how it is read, and what it means. Values only; nothing is looked up here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from corral.config.containers import ContainerSettings, DockerSettings
from corral.config.items import setting
from corral.config.traffic import (
    AuthSettings,
    LedgerSettings,
    PriceSettings,
    RouteSettings,
    RoutingSettings,
    UsageSettings,
)
from corral.config.values import (
    choice,
    count,
    duration,
    flag,
    integer,
    level,
    names,
    path,
    paths,
    port,
    size,
    sizes,
    text,
    whole,
)
from corral.config.workspace import WorkspaceSettings


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The address, who may ask, and how much."""

    host: str = setting("127.0.0.1", text, "Address to listen on. Beyond loopback a key is required (CORRAL_API_KEY).")
    port: int = setting(7860, port, "Port to listen on; 0 lets the system choose.")
    allowed_hosts: tuple[str, ...] = setting((), names, "Host names answered to beside loopback's and `server.host`.")
    max_body: int = setting(64 * 1024**2, size, "Largest request body, in bytes or as 64MiB.")
    request_timeout: float = setting(
        60.0, duration, "How long a client may take to send a request's head, or be silent within its body."
    )
    shutdown_grace: float = setting(10.0, duration, "How long answers under way may go on when the server stops.")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where models lie, and how much of them."""

    models_dir: Path | None = field(
        default=None, metadata={"read": path, "doc": "Folder of the model store. Default: `models` under `home`."}
    )
    discover: tuple[Path, ...] = setting(
        (Path("models"),),
        paths,
        "Folders whose GGUF files and snapshots are offered where they lie; nothing is copied.",
    )
    quota: int = setting(50 * 1000**3, size, "Most the store may take on disk.")
    quotas: Mapping[str, int] = field(
        default_factory=dict,
        metadata={"read": sizes, "doc": "Most that models of one source may take, by source, such as `hf: 20GB`."},
    )
    keep_revisions: int = setting(2, whole, "Revisions kept of a model by `gc`, the current one among them.")
    default_model_size: int = setting(4 * 1000**3, size, "What a model is taken for when its source tells no size.")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Fetching models."""

    mirrors: tuple[str, ...] = setting(
        (), names, "Buckets or addresses (`s3://…`, `https://…`) where bytes of known digest are looked for, too."
    )
    allow_private: tuple[str, ...] = setting(
        (), names, "Hosts (`name` or `name:port`) that addresses may lead to although they are private or loopback."
    )
    allow_pickle: tuple[str, ...] = setting(
        (), names, "References whose files may be pickles, which can run code when they are opened."
    )
    stall_timeout: float = setting(30.0, duration, "A connection that is silent for this long is opened anew.")
    retries: int = setting(5, whole, "Tries in a row without any progress before a download fails.")


@dataclass(frozen=True, slots=True)
class OperationSettings:
    """Long work: installs, updates, moves."""

    parallel: int = setting(3, whole, "Operations at work at once.")
    per_host: int = setting(2, whole, "Operations at once that fetch from one host.")
    attempts: int = setting(3, whole, "Times an operation is tried before it counts as failed.")
    keep: float = setting(30 * 86400.0, duration, "How long ended operations stay in the history.")


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where operations, keys, budgets and usage are written down."""

    url: str | None = field(
        default=None,
        metadata={"read": text, "doc": "`postgresql://…` for a team. Default: SQLite, in `corral.db` under `home`."},
    )


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Loading, idling, stopping."""

    idle_timeout: float = setting(300.0, duration, "A model unused for this long leaves memory; `never` keeps it.")
    load_timeout: float = setting(300.0, duration, "How long an engine may take to become ready.")
    stop_grace: float = setting(5.0, duration, "How long an engine may take to stop before it is killed.")
    drain_grace: float = setting(30.0, duration, "How long `unload` waits for answers under way.")
    memory: Mapping[str, int] = field(
        default_factory=dict,
        metadata={
            "read": sizes,
            "doc": "Most that engines take, by device, as `cpu: 12GB`. Default: what it has, less `reserve`.",
        },
    )
    reserve: int = setting(1024**3, size, "Memory of each device that engines leave to everything else.")
    patience: float = setting(
        20.0, duration, "How long a request waits for a model out of memory before those in memory must make room."
    )
    queue: int = setting(1000, whole, "Requests that may wait for models; one more is refused with 503.")
    loads: int = setting(2, whole, "Models loaded at once.")
    measure_every: float = setting(15.0, duration, "How often the memory of running engines is measured.")
    restarts: int = setting(3, count, "Times in a row that a model's engine may end by itself before it has to wait.")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Time-outs towards engines and vendors."""

    connect_timeout: float = setting(10.0, duration, "Time to make a connection.")
    first_byte_timeout: float = setting(600.0, duration, "Time to the first byte of an answer.")
    between_timeout: float = setting(120.0, duration, "Longest silence within an answer.")
    total_timeout: float = setting(float("inf"), duration, "Longest whole answer.")
    max_connections: int = setting(512, whole, "Connections to one engine or vendor at once.")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written to standard error."""

    level: str = setting("info", level, "debug, info, warning or error.")
    requests: bool = setting(False, flag, "Write a line for each request.")
    format: str = setting("text", choice("text", "json"), "`text` for people, or `json`, an object in each line.")
    prompts: bool = setting(False, flag, "Write prompts and answers into the log, too. They may hold secrets.")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the configuration says of one model; None and empty leave it to the defaults."""

    runtime: str | None = setting(None, text, "Runtime to use. Default: chosen by the model's files.")
    source: str | None = setting(None, text, "Where to install it from, as `scheme:name`, or another installed name.")
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"read": None, "doc": "The runtime's options."})
    idle_timeout: float | None = setting(None, duration, "As `engines.idle_timeout`, for this model.")
    preload: bool = setting(False, flag, "Load it when the server starts.")
    resident: bool = setting(False, flag, "Once in memory it never has to make room for another.")
    priority: int = setting(0, integer, "Its requests go before those of models with a smaller number.")
    concurrency: int | None = setting(None, whole, "Requests it is given at once. Default: as many as it has slots.")
    aliases: tuple[str, ...] = setting((), names, "Other names that it can be asked for by.")
    fallback: tuple[str, ...] = setting((), names, "Models asked in its place, in this order, when it cannot be had.")


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Models that have a rule in common."""

    members: tuple[str, ...] = setting((), names, "The models.")
    swap: bool = setting(True, flag, "Only one of them is in memory at a time.")
    exclusive: bool = setting(False, flag, "While one of them is in memory, no model of another group is.")
    persistent: bool = setting(False, flag, "They need not leave for a group that is exclusive.")


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """A long-lived server that Corral starts and watches."""

    kind: str | None = setting(None, text, "`ollama`, `vllm` or `command`. Default: the service's name.")
    manager: str | None = setting(
        None, text, "`systemd-user`, `systemd` or `local`. Default: systemd where it runs, else local."
    )
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"read": None, "doc": "What the kind takes."})
    environment: Mapping[str, Any] = field(
        default_factory=dict, metadata={"read": None, "doc": "Variables of its environment."}
    )
    stop_grace: float = setting(20.0, duration, "How long it may take to stop before it is killed.")
    start_timeout: float = setting(300.0, duration, "How long it may take to become healthy.")
    restart: bool = setting(True, flag, "Start it again when it ends by itself.")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration, read once. `origins` says of each key where its value came from."""

    home: Path = field(default=Path("~/.corral"), metadata={"read": path, "doc": "Folder for everything Corral keeps."})
    server: ServerSettings = field(default_factory=ServerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    sources: SourceSettings = field(default_factory=SourceSettings)
    operations: OperationSettings = field(default_factory=OperationSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    engines: EngineSettings = field(default_factory=EngineSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    usage: UsageSettings = field(default_factory=UsageSettings)
    workspace: WorkspaceSettings = field(default_factory=WorkspaceSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    docker: DockerSettings = field(default_factory=DockerSettings)
    log: LogSettings = field(default_factory=LogSettings)
    runtimes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    routes: Mapping[str, RouteSettings] = field(default_factory=dict)
    prices: Mapping[str, PriceSettings] = field(default_factory=dict)
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)
    services: Mapping[str, ServiceSettings] = field(default_factory=dict)
    containers: Mapping[str, ContainerSettings] = field(default_factory=dict)
    api_key: str | None = field(default=None, repr=False)
    file: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def models_dir(self) -> Path:
        """The store's folder."""
        return self.store.models_dir or self.home / "models"

    def origin(self, key: str) -> str:
        """Where the value of `key` came from: `default`, `FILE:LINE`, an environment variable, or a flag."""
        return self.origins.get(key, "default")

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Every key with its value and origin, in the order of the table above; the server's key is never shown."""
        for key, _, _ in reference():
            yield key, self.value(key), self.origin(key)
        yield "api_key", "set" if self.api_key else None, self.origin("api_key")
        for kind, options in self.runtimes.items():
            for name, value in options.items():
                yield f"runtimes.{kind}.{name}", value, self.origin(f"runtimes.{kind}")
        for kind in ENTRIES:
            for name, entry in getattr(self, kind).items():
                for item in fields(entry):
                    value = getattr(entry, item.name)
                    if value != default_of(item):
                        yield f"{kind}.{name}.{item.name}", value, self.origin(f"{kind}.{name}")

    def value(self, key: str) -> Any:
        """The value of a dotted key."""
        if key == "store.models_dir":
            return self.models_dir
        if key == "database.url" and self.database.url is not None:
            return _without_password(self.database.url)
        found: Any = self
        for part in key.split("."):
            found = getattr(found, part)
        return found


def default_of(item: Field[Any]) -> Any:
    """What an item of a section is when nobody says."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def _without_password(url: str) -> str:
    return re.sub(r"(://[^/@:]*):[^@]*@", r"\1:…@", url)


PATHS = ("home", "store.models_dir")
PATH_LISTS = ("store.discover",)
SECTIONS: Mapping[str, type[Any]] = {
    "server": ServerSettings,
    "store": StoreSettings,
    "sources": SourceSettings,
    "operations": OperationSettings,
    "database": DatabaseSettings,
    "engines": EngineSettings,
    "upstream": UpstreamSettings,
    "routing": RoutingSettings,
    "ledger": LedgerSettings,
    "usage": UsageSettings,
    "workspace": WorkspaceSettings,
    "auth": AuthSettings,
    "docker": DockerSettings,
    "log": LogSettings,
}


ENTRIES: Mapping[str, type[Any]] = {
    "models": ModelSettings,
    "routes": RouteSettings,
    "prices": PriceSettings,
    "groups": GroupSettings,
    "services": ServiceSettings,
    "containers": ContainerSettings,
}
"""Maps of the file whose entries have names of the user's choosing."""


def reference() -> Iterator[tuple[str, Any, str]]:
    """Every single-valued key with its default and what it means."""
    for item in fields(Settings):
        if "doc" in item.metadata:
            yield item.name, item.default, item.metadata["doc"]
        for leaf in fields(SECTIONS[item.name]) if item.name in SECTIONS else ():
            yield f"{item.name}.{leaf.name}", default_of(leaf), leaf.metadata["doc"]
