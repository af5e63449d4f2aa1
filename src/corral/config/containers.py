"""Settings of the Docker engine and of the containers on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.config.items import mapping, setting
from corral.config.values import amount, choice, duration, flag, names, port, size, text, whole

AUTO = "auto"
"""A limit that is worked out from what a container's models take."""


def _words(value: Any) -> tuple[str, ...]:
    """A list of words as they are, or one text cut at its spaces, quotes kept together."""
    if isinstance(value, str):
        import shlex

        return tuple(shlex.split(value))
    if not isinstance(value, list | tuple):
        raise TypeError("not a list of words")
    return tuple(str(part) for part in value)


def _devices(value: Any) -> tuple[str, ...]:
    """GPUs: `all`, `none`, one number, or a list of numbers and UUIDs."""
    if value is None or value is False or value == "none":  # by identity: 0 and 1 are devices
        return ()
    if value is True or value == "all":
        return ("all",)
    return tuple(str(part) for part in (value if isinstance(value, list | tuple) else names(str(value))))


def _host_port(value: Any) -> int:
    found = port(value)
    if not found:
        raise ValueError("not a port from 1 to 65535")
    return found


def _mounts(value: Any) -> dict[str, str]:
    """Where to by what: a mapping, or a list of `SOURCE:TARGET[:ro]` as compose writes it."""
    if isinstance(value, Mapping):
        return {text(str(source)): text(target) for source, target in value.items()}
    found = {}
    for item in names(value):
        source, sign, target = item.partition(":")
        if not sign:
            raise ValueError(f"{item!r} says not where to; write SOURCE:TARGET or SOURCE:TARGET:ro")
        found[source] = target
    return found


def _ports(value: Any) -> tuple[str, ...]:
    """Further ports as `OUTSIDE:INSIDE`, or `HOST:OUTSIDE:INSIDE`."""
    found = tuple(str(item) for item in value) if isinstance(value, list | tuple) else names(str(value))
    for item in found:
        parts = item.rsplit(":", 2)
        if len(parts) < 2 or not all(_host_port(part) for part in parts[-2:]):
            raise ValueError(f"{item!r} is not OUTSIDE:INSIDE")
    return found


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """The Docker engine, and how Corral keeps containers on it."""

    host: str | None = setting(
        None, text, "Its address, `unix:///…`, `tcp://…`. Default: `DOCKER_HOST`, then the context, then the socket."
    )
    context: str | None = setting(None, text, "A context of the Docker command line. Default: the current one.")
    keep: bool = setting(True, flag, "While `serve` runs, containers of the configuration are kept as it says.")
    orphans: str = setting(
        "report", choice("report", "remove"), "What becomes of containers of Corral's that are no longer configured."
    )
    parallel: int = setting(4, whole, "Containers created, started or stopped at once.")
    timeout: float = setting(60.0, duration, "How long the engine may take to answer; it may pull for longer.")


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """A model server in a container; None and empty leave it to its kind or its image."""

    image: str | None = setting(None, text, "The image. Default: that of its kind.")
    digest: str | None = setting(None, text, "Exactly this image, as `sha256:…`.")
    kind: str | None = setting(
        None, choice("ollama", "llamacpp", "vllm", "openai"), "What serves in it. Default: told by the image's name."
    )
    container: str | None = setting(None, text, "Its name on the Docker engine. Default: `corral-NAME`.")
    purpose: str | None = setting(None, text, "What it is for, such as `code completion`; for people.")
    models: tuple[str, ...] = setting(
        (), names, "Models in it, by the names that it knows them by. Clients ask Corral for them by those."
    )
    port: int | None = setting(None, _host_port, "Port of this machine for its API. Default: that of its kind.")
    host: str = setting("127.0.0.1", text, "Address of this machine for its ports.")
    inside: int | None = setting(None, _host_port, "The port that it listens on. Default: that of its kind.")
    ports: tuple[str, ...] = setting((), _ports, "Further ports, as `OUTSIDE:INSIDE`.")
    gpus: tuple[str, ...] = setting((), _devices, "GPUs: `all`, `none`, or numbers and UUIDs.")
    memory: int | str | None = setting(
        None,
        lambda value: AUTO if value == AUTO else size(value),
        "Most memory. `auto`: worked out from its models, and set once they are known. Default: no limit.",
    )
    cpus: float | None = setting(None, amount, "Most processors, such as 1.5.")
    shm: int | None = setting(None, size, "Shared memory.")
    pids: int | None = setting(None, whole, "Most processes.")
    volumes: Mapping[str, str] = mapping(_mounts, "Volumes and folders in it: `{weights: /models}`; `:ro` after.")
    tmpfs: Mapping[str, str] = mapping(_mounts, "Folders in memory with their options: `{/tmp: size=64m}`.")
    environment: Mapping[str, Any] = mapping(None, "Variables of its environment; `$NAME` is one of Corral's own.")
    entrypoint: tuple[str, ...] | None = setting(None, _words, "Program in place of the image's.")
    command: tuple[str, ...] | None = setting(None, _words, "Arguments in place of the image's.")
    user: str | None = setting(None, lambda value: text(str(value)), "Who it runs as, `UID[:GID]`.")
    read_only: bool = setting(False, flag, "Nothing but volumes and `tmpfs` can be written.")
    capabilities: tuple[str, ...] = setting((), names, "Linux capabilities that it keeps; all others are dropped.")
    network: str = setting("bridge", text, "Its Docker network: `bridge`, `host`, `none` or the name of one.")
    working: str | None = setting(None, text, "Its working folder.")
    labels: Mapping[str, Any] = mapping(None, "Further labels.")
    health: str | None = setting(None, text, "Path that answers 2xx while it is well. Default: that of its kind.")
    start_timeout: float = setting(300.0, duration, "How long it may take to become healthy.")
    stop_grace: float = setting(20.0, duration, "How long it may take to stop before it is killed.")
    restart: bool = setting(True, flag, "Start it again when it ends by itself.")
    enabled: bool = setting(True, flag, "Whether it shall run.")
