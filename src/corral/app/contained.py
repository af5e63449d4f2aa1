"""Containers in other words: their models as models that clients may ask for, their specs as configuration."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from corral.config import ModelSettings
from corral.domain.models import check_name
from corral.domain.standings import ContainerState
from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.config import Settings
    from corral.domain.containers import ContainerSpec, Usage
    from corral.domain.standings import Standing

_log = logging.getLogger("corral.containers")


def endpoints(settings: Settings, env: Mapping[str, str]) -> tuple[dict[str, ModelSettings], dict[str, str]]:
    """Entries of `models` for the models in containers, and which container has each; both by the model's name.

    A name that `models` has already is that one's, and of two containers with one model the first in the file has it.
    What cannot be is left out and logged: whoever brings the containers up is told why.
    """
    if not settings.containers:
        return {}, {}
    from corral.fleet import desired, kinds

    try:
        wanted = desired.all_wanted(settings, env)
    except CorralError as error:
        _log.warning("the models in containers cannot be asked for: %s", error)
        return {}, {}
    entries: dict[str, ModelSettings] = {}
    inside: dict[str, str] = {}
    for name, want in wanted.items():
        url = desired.url_of(want.spec)
        speaks = kinds.KINDS[want.spec.kind].dialect
        for model in want.models if url is not None else ():
            if model in settings.models or model in entries:
                continue
            try:
                check_name(model)
            except CorralError as error:
                _log.warning("container %s: its model cannot be asked for: %s", name, error)
                continue
            if speaks == "ollama":
                options = {"base_url": url, "model": model, "pull": False, "serve": False}
                entries[model] = ModelSettings(runtime="ollama", options=options)
            else:
                options = {"base_url": f"{url}/v1", "upstream_model": model}
                entries[model] = ModelSettings(runtime="openai", options=options)
            inside[model] = name
    return entries, inside


def entry_of(spec: ContainerSpec) -> dict[str, Any]:
    """The entry of `containers` in the configuration that describes `spec`; what is as by default is left out."""
    from corral.fleet import kinds

    first, further = (spec.ports[0] if spec.ports else None), spec.ports[1:]
    kind = spec.kind or kinds.kind_of(spec.image).name
    entry: dict[str, Any] = {"image": spec.image, "container": spec.container, "kind": kind}
    told: dict[str, Any] = {
        "digest": spec.digest,
        "port": None if first is None else first.outside,
        "inside": None if first is None else first.inside,
        "host": None if first is None or first.host == "127.0.0.1" else first.host,
        "ports": [f"{port.host}:{port.outside}:{port.inside}" for port in further],
        "gpus": list(spec.gpus),
        "memory": "auto" if spec.fitted else spec.memory,
        "cpus": spec.cpus,
        "shm": spec.shm,
        "pids": spec.pids,
        "volumes": {mount.source: f"{mount.target}:ro" if mount.read_only else mount.target for mount in spec.mounts},
        "tmpfs": dict(spec.tmpfs),
        "environment": {name: value.replace("$", "$$") for name, value in spec.environment.items()},
        "entrypoint": None if spec.entrypoint is None else list(spec.entrypoint),
        "command": None if spec.command is None else list(spec.command),
        "user": spec.user,
        "read_only": spec.read_only or None,
        "capabilities": list(spec.capabilities),
        "network": None if spec.network == "bridge" else spec.network,
        "working": spec.working,
        "labels": dict(spec.labels),
    }
    return entry | {key: value for key, value in told.items() if value not in (None, [], {})}


def stands(standing: Standing) -> str:
    """Its state and the reason, to be put into a sentence."""
    state = str(standing.state).replace("_", " ")
    return f"{state}: {standing.reason}" if standing.reason not in ("", state) else state


def way_on(standing: Standing) -> str:
    """What to do about a container that is not up."""
    name, state = standing.name, standing.state
    if state in (ContainerState.STARTING, ContainerState.WAITING):
        return "Ask again in a moment."
    if state is ContainerState.ABSENT:
        return f"Make it: corral containers up {name}"
    if state is ContainerState.PAUSED:
        return f"Let it go on: docker unpause {standing.container}"
    if state in (ContainerState.STOPPED, ContainerState.CREATED):
        return f"Start it: corral containers start {name}"
    return f"See why: corral containers logs {name}"


def summed(usages: Sequence[Usage]) -> dict[str, Any]:
    """What they take together; None where none of them tells."""
    found: dict[str, Any] = {}
    for key in ("cpu", "memory", "gpu_memory", "received", "sent", "read", "written"):
        values = [value for usage in usages if (value := getattr(usage, key)) is not None]
        found[key] = sum(values) if values else None
    return found
