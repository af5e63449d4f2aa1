"""Single values of a container's configuration, checked: what may be, and what to write instead. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from ipaddress import ip_address
from math import isfinite
from typing import TYPE_CHECKING, Any

from corral.domain.containers import Mount
from corral.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

_IMAGE = re.compile(
    r"(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:[0-9]+)(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_REFERENCE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_GPU = re.compile(r"[0-9]{1,3}|(?:GPU|MIG)-[0-9A-Za-z/-]{4,80}|[a-z0-9.-]+/[a-z0-9_-]+=[A-Za-z0-9_:.-]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
_CAPABILITY = re.compile(r"[A-Z][A-Z_]{2,40}")
_LEAST_MEMORY = 6 * 1024 * 1024
"""Bytes below which the Docker engine makes no container."""
_ASIDE = ".before"
"""What the name of a container ends in that makes room for its successor; as in `observing.py`."""
_MOST = 2**53
"""Bytes, and processes, of which no machine has more."""
_MOST_CPUS = 65536.0
_MOST_VALUE = 120_000
"""Bytes of a variable: Linux takes 131072 with its name."""
_LONGEST = 1e9
"""Seconds after which nobody waits any more, and the engine's own numbers end soon."""
_AS_ROOT = frozenset(
    {"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "SYS_BOOT", "BPF", "DAC_READ_SEARCH"}
)
"""Capabilities with which a container has the machine."""

_REFUSED = ("/etc", "/proc", "/sys", "/dev", "/boot", "/var/lib/docker", "/var/lib/containerd", "/run/containerd")
_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock")


def image(key: str, given: str | None, digest: str | None, kind: str) -> tuple[str, str | None]:
    """An image's reference and its digest, which may stand in either."""
    if given is None:
        raise ConfigError(f"{key} is not given, and kind {kind} has no image of its own.", f"Write {key}: NAME:TAG")
    name, _, pinned = given.partition("@")
    if not _IMAGE.fullmatch(name) and not _IMAGE_ID.fullmatch(given):
        raise ConfigError(f"{key} is {given[:200]!r}, which names no image.", f"Write it as {key}: ollama/ollama:0.5.4")
    if pinned and digest and pinned != digest:
        raise ConfigError(f"{key} has another digest than the entry.", "Keep one of them.")
    exact = pinned or digest
    if exact and not _DIGEST.fullmatch(exact):
        raise ConfigError(
            f"{key.removesuffix('image')}digest is {exact[:100]!r}, which is no digest.",
            "Write sha256: and 64 hexadecimal digits, as the registry shows it.",
        )
    return name, exact or None


def container(key: str, name: str) -> str:
    """A name on the Docker engine."""
    if not _CONTAINER.fullmatch(name):
        raise ConfigError(f"{key} is {name[:80]!r}, which cannot name a container.", "Use letters, digits, _, . and -.")
    if name.endswith(_ASIDE):
        hint = "Set `container` to another name."
        raise ConfigError(f"{key} is {name[:80]!r}: what ends so makes room for its successor.", hint)
    return name


def address(key: str, host: str) -> str:
    """An address of this machine."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(host))
    except ValueError:
        hint = "Write 127.0.0.1 for this machine alone, or 0.0.0.0 for every network."
        raise ConfigError(f"{key} is {host[:80]!r}, which is no address.", hint) from None


def environment(key: str, given: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
    """Variables with their values; `$NAME` and `${NAME}` are of `env`, `$$` is a dollar sign."""
    found = {}
    for name, value in given.items():
        if not _VARIABLE.fullmatch(str(name)):
            raise ConfigError(f"{key} has {str(name)[:80]!r}, which is no variable's name.", "Write NAME: value.")
        if isinstance(value, Mapping | list):
            raise ConfigError(f"{key}.{name} is no text.", f'Write {name}: "value"')
        found[str(name)] = _passable(f"{key}.{name}", _filled(f"{key}.{name}", _text(value), env))
    return found


def _passable(key: str, value: str) -> str:
    """A value as a program can be given it: what refuses another one shows all of it, and it may be a secret."""
    if "\0" in value:
        raise ConfigError(f"{key} has a NUL in it, and no program can be given that.", "Write it as base64, perhaps.")
    if len(value.encode("utf-8", "replace")) > _MOST_VALUE:
        raise ConfigError(f"{key} is longer than a program can be given it.", "Mount a file that holds it: `volumes`.")
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _filled(key: str, value: str, env: Mapping[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name = match[2] or match[3]
        if name not in env:
            hint = f"Set {name} for Corral, or write $$ for a dollar sign."
            raise ConfigError(f"{key} is to have ${name}, which is not in Corral's environment.", hint)
        return env[name]

    return _REFERENCE.sub(fill, value)


def mounts(key: str, given: Mapping[str, str], base: Path, env: Mapping[str, str]) -> tuple[Mount, ...]:
    """Volumes and folders; a relative folder is below `base`, and `~` the home of `env`."""
    return tuple(_mount(key, source, target, base, env.get("HOME")) for source, target in given.items())


def _mount(key: str, source: str, text: str, base: Path, home: str | None) -> Mount:
    target, *options = text.split(":")
    unknown = [option for option in options if option not in ("ro", "rw")]
    if unknown or len(options) > 1:
        hint = "Write ro after it for what cannot be written, or nothing."
        raise ConfigError(f"{key}.{source} has {':'.join(options)!r} after its place.", hint)
    read_only = options == ["ro"]
    if _VOLUME.fullmatch(source):
        return Mount(source, inside(f"{key}.{source}", target), read_only)
    place = source
    if source == "~" or source.startswith("~/"):
        if not home:
            hint = f"Write the folder's whole path, such as {key}: {{/srv/models: {target}}}"
            raise ConfigError(f"{key} has {source!r}, and Corral's environment has no HOME.", hint)
        place = home + source[1:]
    elif not source.startswith(("/", ".")):
        hint = f"Write ./{source} for a folder beside corral.yaml, or a volume's name without a slash."
        raise ConfigError(f"{key} has {source[:200]!r}, which is neither a volume's name nor a folder.", hint)
    path = posixpath.normpath(posixpath.join(str(base), place))
    reason = refuse_mount(path)
    if reason is not None:
        raise ConfigError(f"{key} has {source!r}: {reason}.", "Mount a folder that holds models and nothing else.")
    if ":" in path:
        raise ConfigError(f"{key} has {source!r}, and Docker takes no folder with a colon.", "Rename the folder.")
    return Mount(path, inside(f"{key}.{source}", target), read_only)


def refuse_mount(source: str, also: Collection[str] = ()) -> str | None:
    """Why a folder of the machine may not be in a container; None when it may.

    `also` are the engine's own places, such as its root folder and its socket. A link is not followed: pass its end.
    """
    path = "/" + posixpath.normpath(source).lstrip("/")
    if path == "/":
        return "it is the whole machine"
    for place in (*_SOCKETS, *also):
        if path == place:
            return "whoever has the Docker engine has the machine"
        if _under(place, path):
            return f"{place} lies in it, and whoever has the Docker engine has the machine"
    for place in (*_REFUSED, *also):
        if _under(path, place):
            return f"{place} is the system's own"
        if _under(place, path):
            return f"{place} lies in it, and is the system's own"
    return None


def _under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def volume(name: str, target: str) -> Mount:
    """A named volume."""
    return Mount(name, target)


def inside(key: str, target: str) -> str:
    """A folder in the container."""
    if not target.startswith("/") or posixpath.normpath(target) == "/":
        raise ConfigError(f"{key} goes to {target[:200]!r}, which is no folder in a container.", "Write /models.")
    return posixpath.normpath(target)


def tmpfs(key: str, given: Mapping[str, str]) -> dict[str, str]:
    """Folders in memory, with their options."""
    return {inside(key, place): options for place, options in given.items()}


def places(key: str, targets: Iterable[str], memory: Iterable[str]) -> None:
    """Refuse two things at one place of a container."""
    seen: set[str] = set()
    for target in (*targets, *memory):
        if target in seen:
            raise ConfigError(f"{key} has two volumes or folders at {target}.", "Put each at a place of its own.")
        seen.add(target)


def gpus(key: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Devices by number or UUID, or all."""
    if given == ("all",):
        return given
    for device in given:
        if not _GPU.fullmatch(device):
            hint = "Write all, none, a number such as 0, or a UUID that starts with GPU-."
            raise ConfigError(f"{key} has {device[:80]!r}, which names no GPU.", hint)
    if len(set(given)) != len(given):
        raise ConfigError(f"{key} names a GPU twice.", "Keep one of them.")
    return tuple(sorted(given, key=lambda device: ("=" in device, device)))  # their order says nothing


def memory(key: str, given: int | None) -> int | None:
    """Bytes of memory that a container can live with."""
    if given is not None and given < _LEAST_MEMORY:
        raise ConfigError(f"{key} is {given} bytes, and Docker takes at least 6 MiB.", f"Write {key}: 8GiB")
    return most(key, given, "8GiB")


def most(key: str, given: int | None, example: str) -> int | None:
    """A number of something that a machine may have so many of."""
    if given is not None and given > _MOST:
        raise ConfigError(f"{key} is {given:.3g}, and no machine has so many.", f"Write {key}: {example}")
    return given


def cpus(key: str, given: float | None) -> float | None:
    """Processors, more than none."""
    if given is not None and given < 0.01:
        raise ConfigError(f"{key} is {given:g}: without a processor it never starts.", f"Write {key}: 2")
    if given is not None and given > _MOST_CPUS:
        raise ConfigError(f"{key} is {given:g}, and no machine has so many.", f"Write {key}: 2")
    return given


def seconds(key: str, given: float) -> float:
    """A time that ends."""
    if not isfinite(given) or given > _LONGEST:
        raise ConfigError(f"{key} never ends.", f"Write {key}: 5m")
    return given


def user(key: str, given: str | None) -> str | None:
    """A user, and perhaps a group."""
    if given is not None and not _USER.fullmatch(given):
        raise ConfigError(f"{key} is {given[:80]!r}, which is no user.", f"Write {key}: 1000:1000")
    return given


def capabilities(key: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Linux capabilities, as Docker names them, in order."""
    found = sorted({item.upper().removeprefix("CAP_") for item in given})
    for item in found:
        if item in _AS_ROOT:
            raise ConfigError(f"{key} has {item}, with which a container has the machine.", "Leave it out.")
        if not _CAPABILITY.fullmatch(item):
            raise ConfigError(f"{key} has {item[:80]!r}, which is no capability.", f"Write {key}: [IPC_LOCK]")
    return tuple(found)


def network(key: str, given: str) -> str:
    """A network through which a container can be asked."""
    if given == "none":
        raise ConfigError(f"{key} is none, and nobody could ask its models.", f"Leave {key} out.")
    if not _CONTAINER.fullmatch(given):
        raise ConfigError(f"{key} is {given[:80]!r}, which names no network.", "Write bridge, host, or a name.")
    return given


def labels(key: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Labels, none of them Corral's own."""
    ours = [name for name in given if str(name).startswith("corral.")]
    if ours:
        raise ConfigError(f"{key} has {ours[0][:80]!r}: those are how Corral knows its containers.", "Rename it.")
    return {str(name): _text(value) for name, value in given.items()}


def health(key: str, path: str) -> str:
    """A path to ask."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ConfigError(f"{key} is {path[:80]!r}, which is no path.", f"Write {key}: /health")
    return path
