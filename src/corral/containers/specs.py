"""What is wanted of a container in the words of the engine's API, and what the API shows in ours. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from corral.domain.containers import (
    NAME_LABEL,
    SPEC_LABEL,
    YARD_LABEL,
    ContainerSpec,
    Event,
    ImageInfo,
    Mount,
    Port,
    Seen,
)
from corral.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PIDS = 4096
"""Most processes and threads of a container that is told no other number."""

_CLOSED = tuple(map(PurePosixPath, ("/etc", "/proc", "/sys", "/dev", "/boot")))
_LOGS = {"Type": "json-file", "Config": {"max-size": "16m", "max-file": "3"}}
_EXITED = re.compile(r"Exited \((\d+)\)")
_CDI_GPU = re.compile(r"[^/=]+/(?:gpu|mig)[\w-]*=.+")
_NAMELESS = re.compile(r"[0-9a-f]{64}")
_OURS = (YARD_LABEL, NAME_LABEL, SPEC_LABEL)
_ANYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - what the engine says, not where we listen


def creation(spec: ContainerSpec, yard: str, image: str, *, init: bool = True) -> dict[str, Any]:
    """The body that makes a container of `spec` from `image`, with no right that it does not need.

    Without `init` its program is the container's first process, and answers for the signals that it does not handle.
    """
    body: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in sorted(spec.environment.items())],
        "Labels": spec.labelled(yard),
        "ExposedPorts": {f"{port.inside}/tcp": {} for port in spec.ports},
        "StopTimeout": math.ceil(spec.stop_grace),
        "HostConfig": _host(spec, init=init),
    }
    if spec.entrypoint is not None:
        body["Entrypoint"] = list(spec.entrypoint)
    if spec.command is not None:
        body["Cmd"] = list(spec.command)
    if spec.user is not None:
        body["User"] = spec.user
    if spec.working is not None:
        body["WorkingDir"] = spec.working
    return body


def limits(memory: int | None, cpus: float | None) -> dict[str, Any]:
    """What a container may take; None is not said. It does not swap beyond its memory."""
    found: dict[str, Any] = {} if memory is None else {"Memory": memory, "MemorySwap": memory}
    return found if cpus is None else {**found, "NanoCpus": round(cpus * 1e9)}


def refuse_mounts(mounts: Sequence[Mount], sockets: Sequence[str], root: str) -> None:
    """Refuse folders of the machine from which a container could take it over. Paths are those that links lead to.

    Raises:
        ConfigError: it is one of the system's, or the engine's socket or data can be reached from it.
    """
    for mount in mounts:
        if mount.named:
            continue
        path = PurePosixPath(mount.source)
        engine = [PurePosixPath(each) for each in (*sockets, root) if each]
        inside_system = any(path.is_relative_to(closed) for closed in _CLOSED)
        reaches_engine = any(each.is_relative_to(path) for each in engine) or (
            bool(root) and path.is_relative_to(PurePosixPath(root))
        )
        if path == PurePosixPath("/") or inside_system or reaches_engine:
            why = "the Docker engine itself could be reached from it" if reaches_engine else "it is the system's own"
            raise ConfigError(
                f"{mount.source} is not mounted into a container: {why}.",
                "Mount a folder of its own, or a named volume.",
                param="volumes",
            )


def refuse_capabilities(capabilities: Sequence[str]) -> None:
    """Refuse what would be no least privilege at all.

    Raises:
        ConfigError: all capabilities are asked for.
    """
    if any(name.upper().removeprefix("CAP_") == "ALL" for name in capabilities):
        raise ConfigError(
            "A container does not get all capabilities.", "Name those that it needs.", param="capabilities"
        )


def seen_in_list(entry: Mapping[str, Any]) -> Seen:
    """One entry of the engine's list, with the exit code from its words; what a list does not tell is None."""
    state = entry.get("State", "")
    names = [name.removeprefix("/") for name in entry.get("Names") or () if name.count("/") == 1]
    told = _EXITED.match(entry.get("Status", ""))
    up = state in ("running", "paused", "restarting")
    return Seen(
        id=entry["Id"],
        container=names[0] if names else "",
        image=entry.get("Image", ""),
        image_id=entry.get("ImageID", ""),
        running=up,
        paused=state == "paused",
        restarting=state == "restarting",
        dead=state == "dead",
        created_only=state == "created",
        exit_code=int(told[1]) if told and not up else None,
        created_at=float(entry["Created"]) if entry.get("Created") else None,
        labels=dict(entry.get("Labels") or {}),
        ports=_listed_ports(entry.get("Ports") or ()),
    )


def seen_in_detail(found: Mapping[str, Any]) -> Seen:
    """What the engine says of one container."""
    state = found["State"]
    config = found.get("Config") or {}
    up = bool(state.get("Running"))
    created_only = state.get("Status") == "created"
    return Seen(
        id=found["Id"],
        container=found["Name"].removeprefix("/"),
        image=config.get("Image", ""),
        image_id=found.get("Image", ""),
        running=up,
        paused=bool(state.get("Paused")),
        restarting=bool(state.get("Restarting")),
        dead=bool(state.get("Dead")),
        created_only=created_only,
        exit_code=None if up or created_only else state.get("ExitCode"),
        oom_killed=bool(state.get("OOMKilled")),
        created_at=moment(found.get("Created")),
        started_at=moment(state.get("StartedAt")),
        finished_at=moment(state.get("FinishedAt")),
        labels=dict(config.get("Labels") or {}),
        ports=_published((found.get("NetworkSettings") or {}).get("Ports"))
        or _published((found.get("HostConfig") or {}).get("PortBindings")),
        memory=(found.get("HostConfig") or {}).get("Memory") or None,
        detailed=True,
        error=state.get("Error") or "",
    )


def spec_of(found: Mapping[str, Any], image: Mapping[str, Any] | None = None) -> ContainerSpec:
    """What a container was made from, whoever made it; what it has from its `image` is left out.

    `name` is its label's, or its own name; `kind` is empty: only its image's name tells, and that is not judged here.
    """
    config, host = found["Config"], found.get("HostConfig") or {}
    base = (image or {}).get("Config") or {}
    container = found["Name"].removeprefix("/")
    labels = {key: value for key, value in (config.get("Labels") or {}).items() if key not in _OURS}
    given = [item for item in config.get("Env") or () if item not in (base.get("Env") or ())]
    limits = {name: host.get(name) or None for name in ("Memory", "NanoCpus", "PidsLimit")}
    return ContainerSpec(
        name=(config.get("Labels") or {}).get(NAME_LABEL, container),
        container=container,
        kind="",
        image=config.get("Image", ""),
        entrypoint=_differs(config.get("Entrypoint"), base.get("Entrypoint")),
        command=_differs(config.get("Cmd"), base.get("Cmd")),
        environment=dict(item.partition("=")[::2] for item in given),
        ports=_published(host.get("PortBindings")),
        mounts=_mounts(found),
        tmpfs=dict(host.get("Tmpfs") or {}),
        gpus=_gpus(host.get("DeviceRequests") or ()),
        memory=limits["Memory"],
        cpus=limits["NanoCpus"] / 1e9 if limits["NanoCpus"] else None,
        shm=None if host.get("ShmSize") in (None, 0, 64 * 1024**2) else host["ShmSize"],
        pids=limits["PidsLimit"] if (limits["PidsLimit"] or 0) > 0 and limits["PidsLimit"] != PIDS else None,
        user=None if config.get("User", "") in ("", base.get("User", "")) else config["User"],
        read_only=bool(host.get("ReadonlyRootfs")),
        capabilities=tuple(sorted(name.removeprefix("CAP_") for name in host.get("CapAdd") or ())),
        network="bridge" if host.get("NetworkMode") in (None, "", "default") else host["NetworkMode"],
        stop_grace=float(config.get("StopTimeout") or 10.0),
        labels={key: value for key, value in labels.items() if (base.get("Labels") or {}).get(key) != value},
        working=None if config.get("WorkingDir", "") in ("", base.get("WorkingDir", "")) else config["WorkingDir"],
    )


def event_of(said: Mapping[str, Any]) -> Event:
    """One line of the engine's events."""
    actor = said.get("Actor") or {}
    attributes = dict(actor.get("Attributes") or {})
    at = said["timeNano"] / 1e9 if said.get("timeNano") else float(said.get("time", 0))
    return Event(
        what=str(said.get("Action", "")),
        id=str(actor.get("ID", "")),
        container=attributes.get("name", ""),
        at=at,
        attributes=attributes,
    )


def image_of(found: Mapping[str, Any]) -> ImageInfo:
    """What the engine says of an image."""
    config = found.get("Config") or {}
    ports = [name.partition("/") for name in config.get("ExposedPorts") or {}]
    return ImageInfo(
        id=found["Id"],
        tags=tuple(found.get("RepoTags") or ()),
        digests=tuple(found.get("RepoDigests") or ()),
        size=int(found.get("Size") or 0),
        created_at=moment(found.get("Created")),
        labels=dict(config.get("Labels") or {}),
        exposed=tuple(sorted(int(port) for port, _, kind in ports if kind in ("", "tcp") and port.isdigit())),
        volumes=tuple(sorted(config.get("Volumes") or {})),
        user=config.get("User") or "",
    )


def moment(text: str | None) -> float | None:
    """Unix seconds of a time in the engine's words; None for none, which it writes as the year 1."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).timestamp()


def parted(reference: str) -> tuple[str, str | None]:
    """An image's repository and its tag; None where the reference has none. A digest is cut off."""
    name = reference.partition("@")[0]
    repository, sign, tag = name.rpartition(":")
    return (repository, tag) if sign and "/" not in tag else (name, None)


def _host(spec: ContainerSpec, *, init: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "NetworkMode": spec.network,
        "RestartPolicy": {"Name": "no"},
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": sorted(spec.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": spec.read_only,
        "PidsLimit": spec.pids or PIDS,
        "IpcMode": "private",
        "LogConfig": _LOGS,
        "PortBindings": _bindings(spec.ports) if spec.network != "host" else {},
        "Mounts": [
            {
                "Type": "volume" if mount.named else "bind",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
            }
            for mount in spec.mounts
        ],
        "Tmpfs": dict(spec.tmpfs),
    }
    if init:
        found["Init"] = True
    found |= limits(spec.memory, spec.cpus)
    if spec.shm is not None:
        found["ShmSize"] = spec.shm
    if spec.gpus:
        found["DeviceRequests"] = _requests(spec.gpus)
    return found


def _bindings(ports: Sequence[Port]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        found.setdefault(f"{port.inside}/tcp", []).append({"HostIp": port.host, "HostPort": str(port.outside)})
    return found


def _listed_ports(entries: Sequence[Mapping[str, Any]]) -> tuple[Port, ...]:
    return _ordered(
        Port(entry["PrivatePort"], entry["PublicPort"], _host_of(entry.get("IP", "")))
        for entry in entries
        if entry.get("PublicPort") and entry.get("Type", "tcp") == "tcp"
    )


def _published(bindings: Mapping[str, Any] | None) -> tuple[Port, ...]:
    return _ordered(
        Port(int(inside.partition("/")[0]), int(each["HostPort"]), _host_of(each.get("HostIp", "")))
        for inside, places in (bindings or {}).items()
        if inside.endswith("/tcp")
        for each in places or ()
        if each.get("HostPort", "").isdigit() and each["HostPort"] != "0"
    )


def _ordered(ports: Any) -> tuple[Port, ...]:
    return tuple(sorted(set(ports), key=lambda port: (port.inside, port.outside, port.host)))


def _host_of(address: str) -> str:
    """Every address of the machine is one word, whatever the version of the protocol."""
    return "0.0.0.0" if not address or address in _ANYWHERE else address  # noqa: S104


def _mounts(found: Mapping[str, Any]) -> tuple[Mount, ...]:
    """Folders and named volumes, in the order that was asked for, as far as the engine keeps it.

    A volume without a name of its own comes with the image, and is left out.
    """
    asked = [each.get("Target") for each in (found.get("HostConfig") or {}).get("Mounts") or ()]
    mounts = []
    for each in found.get("Mounts") or ():
        if each.get("Type") == "bind":
            mounts.append(Mount(each["Source"], each["Destination"], not each.get("RW", True)))
        elif each.get("Type") == "volume" and not _NAMELESS.fullmatch(each.get("Name", "")):
            mounts.append(Mount(each["Name"], each["Destination"], not each.get("RW", True)))

    def place(mount: Mount) -> tuple[int, str]:
        return (asked.index(mount.target) if mount.target in asked else len(asked), mount.target)

    return tuple(sorted(mounts, key=place))


def _requests(gpus: Sequence[str]) -> list[dict[str, Any]]:
    """Each GPU asked of who gives it: the engine's own driver for NVIDIA's, or the container device interface."""
    if tuple(gpus) == ("all",):
        return [{"Driver": "nvidia", "Capabilities": [["gpu"]], "Count": -1}]
    numbered = [device for device in gpus if "=" not in device]
    described = [device for device in gpus if "=" in device]
    found: list[dict[str, Any]] = []
    if numbered:
        found.append({"Driver": "nvidia", "Capabilities": [["gpu"]], "DeviceIDs": numbered})
    if described:
        found.append({"Driver": "cdi", "DeviceIDs": described})
    return found


def _gpus(requests: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The GPUs of all requests, without what else is asked for; numbers and UUIDs come before those with a `=`."""
    found: list[str] = []
    for request in requests:
        named = [str(device) for device in request.get("DeviceIDs") or ()]
        if request.get("Driver") == "cdi":
            found += [device for device in named if _CDI_GPU.fullmatch(device)]
        elif any("gpu" in group for group in request.get("Capabilities") or ()):
            count = int(request.get("Count") or 0)
            if count < 0:
                return ("all",)
            found += named or [str(number) for number in range(count)]
    return tuple(sorted(dict.fromkeys(found), key=lambda device: ("=" in device, device)))


def _differs(value: Sequence[str] | None, base: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if list(value or ()) == list(base or ()) else tuple(value or ())
