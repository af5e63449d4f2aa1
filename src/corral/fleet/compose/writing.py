"""Entries of `containers:` as a compose file that means the same, secrets left as references. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from corral.fleet.compose.keys import OFF
from corral.fleet.kinds import KINDS, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.config.containers import ContainerSettings
    from corral.domain.containers import ContainerSpec, Mount, Port, Wanted

_HEAD = """\
# Written by `corral containers export`. What compose has no key for stands in `x-corral`, which it does not read.
# `${NAME}` is taken from the shell or from a file .env: no secret is written here.
"""
_DOLLAR = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))?")


def to_compose(entries: Mapping[str, ContainerSettings], wanted: Mapping[str, Wanted], project: str = "corral") -> str:
    """A compose file of these containers, which makes them as Corral does.

    Args:
        entries: as configured: their environments, with references in them.
        wanted: what each has become, by name: everything else.
    """
    services = {name: _service(want, entries[name]) for name, want in wanted.items()}
    volumes = {
        mount.source: {"name": mount.source} for want in wanted.values() for mount in want.spec.mounts if mount.named
    }
    networks = {
        want.spec.network: {"name": want.spec.network, "external": True}
        for want in wanted.values()
        if want.spec.network not in ("bridge", "host")
    }
    whole: dict[str, Any] = {"name": project, "services": services}
    if volumes:
        whole["volumes"] = dict(sorted(volumes.items()))
    if networks:
        whole["networks"] = dict(sorted(networks.items()))
    return _HEAD + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=120)


def _service(want: Wanted, entry: ContainerSettings) -> dict[str, Any]:
    spec = want.spec
    found: dict[str, Any] = {
        "image": f"{spec.image}@{spec.digest}" if spec.digest else spec.image,
        "container_name": spec.container,
    }
    for key, words in (("entrypoint", spec.entrypoint), ("command", spec.command)):
        if words is not None:
            found[key] = [_plain(word) for word in words]
    if spec.environment:
        found["environment"] = _environment(spec, entry)
    found |= _surroundings(spec)
    found |= _limits(spec)
    found |= _rights(spec)
    if want.watch.health not in (None, KINDS[spec.kind].health):
        url = f"http://127.0.0.1:{spec.ports[0].inside}{want.watch.health}"
        found["healthcheck"] = {"test": ["CMD", "curl", "-f", _plain(url)]}
    found["restart"] = "unless-stopped" if want.watch.restart else "no"
    if not want.up:
        found["profiles"] = [OFF]
    found["stop_grace_period"] = _time(spec.stop_grace)
    if spec.labels:
        found["labels"] = {name: _plain(value) for name, value in sorted(spec.labels.items())}
    own = _own(want)
    return {**found, "x-corral": own} if own else found


def _own(want: Wanted) -> dict[str, Any]:
    """What compose has no key for."""
    own: dict[str, Any] = {}
    kind = KINDS[want.spec.kind]
    if kind_of(want.spec.image).name != kind.name or kind.name == "openai":
        own["kind"] = kind.name
    if want.purpose:
        own["purpose"] = _plain(want.purpose)
    if want.models:
        own["models"] = [_plain(model) for model in want.models]
    if want.spec.ports[0].inside != kind.inside:
        own["inside"] = want.spec.ports[0].inside
    if want.spec.network == "host":
        own |= {"port": want.spec.ports[0].outside, "host": want.spec.ports[0].host}
    if want.watch.start_timeout != 300.0:
        own["start_timeout"] = want.watch.start_timeout
    return own


def _environment(spec: ContainerSpec, entry: ContainerSettings) -> dict[str, str]:
    """Variables as they are configured; those that the kind needs are no secrets, and stand as they are."""
    found = {}
    for name, value in spec.environment.items():
        if name not in entry.environment:
            found[name] = _plain(value)
            continue
        text = entry.environment[name]
        text = str(text).lower() if isinstance(text, bool) else "" if text is None else str(text)
        found[name] = _DOLLAR.sub(_kept, text)
    return found


def _kept(match: re.Match[str]) -> str:
    """A reference as compose writes it; a dollar sign that is one, doubled."""
    name = match[2] or match[3]
    return f"${{{name}}}" if name else "$$"


def _surroundings(spec: ContainerSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if spec.network == "host":
        found["network_mode"] = "host"
    elif spec.network == "bridge":
        found["network_mode"] = "bridge"
    else:
        found["networks"] = [spec.network]
    if spec.network != "host":
        found["ports"] = [_port(port) for port in spec.ports]
    if spec.mounts:
        found["volumes"] = [_volume(mount) for mount in spec.mounts]
    if spec.tmpfs:
        found["tmpfs"] = [f"{place}:{_plain(options)}" for place, options in sorted(spec.tmpfs.items())]
    if spec.working is not None:
        found["working_dir"] = spec.working
    return found


def _port(port: Port) -> str:
    host = f"[{port.host}]" if ":" in port.host else port.host
    return f"{host}:{port.outside}:{port.inside}"


def _volume(mount: Mount) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "volume" if mount.named else "bind",
        "source": _plain(mount.source),
        "target": _plain(mount.target),
    }
    return {**found, "read_only": True} if mount.read_only else found


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    """Limits, and GPUs as a reservation, which every compose understands."""
    found: dict[str, Any] = {}
    if spec.memory is not None:
        found |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
    for key, value in (("cpus", spec.cpus), ("shm_size", spec.shm), ("pids_limit", spec.pids)):
        if value is not None:
            found[key] = value
    if spec.gpus:
        found["deploy"] = {"resources": {"reservations": {"devices": _devices(spec.gpus)}}}
    return found


def _devices(gpus: tuple[str, ...]) -> list[dict[str, Any]]:
    if gpus == ("all",):
        return [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    by_driver = {
        "nvidia": [device for device in gpus if "=" not in device],
        "cdi": [device for device in gpus if "=" in device],
    }
    return [{"driver": driver, "device_ids": ids, "capabilities": ["gpu"]} for driver, ids in by_driver.items() if ids]


def _rights(spec: ContainerSpec) -> dict[str, Any]:
    """As little as Corral gives it."""
    found: dict[str, Any] = {"cap_drop": ["ALL"]}
    if spec.capabilities:
        found["cap_add"] = list(spec.capabilities)
    found["security_opt"] = ["no-new-privileges:true"]
    found["init"] = True
    if spec.user is not None:
        found["user"] = spec.user
    if spec.read_only:
        found["read_only"] = True
    return found


def _time(seconds: float) -> str:
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"


def _plain(text: str) -> str:
    """A text in which compose fills nothing in."""
    return text.replace("$", "$$")
