"""One service of a compose file as an entry of `containers:`. Pure.

What is not taken over is said, each with its key and the reason; nothing is passed over in silence.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.errors import ConfigError, nearest
from corral.fleet import checks
from corral.fleet.compose.keys import DEFAULTS, OFF, OTHER_KEYS, TAKEN, Unsupported
from corral.fleet.compose.text import Filling, Room, listed, mapping, pairs, scalar, unmarked, variables
from corral.fleet.compose.values import (
    further_port,
    long_port,
    same_size,
    seconds,
    short_port,
    short_volume,
    shown,
    size,
    tmpfs_options,
)
from corral.fleet.kinds import Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
"""What is in the name of a variable whose value nobody shall read."""
_URL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::[0-9]+)?(/[^\s'\"|&;>)]*)?")


@dataclass(slots=True)
class Surroundings:
    """What a service refers to beside itself.

    Attributes:
        folder: that relative paths are below, absolute.
        home: for `~`; None: unknown.
        volumes: the engine's name of each named volume, or why it cannot be told.
        networks: the engine's name of each external network.
        profiles: those that are asked for.
        known: variables that are set for compose, in the shell or in `.env`.
        read: a file's text below `folder`; None where there is none.
        room: for everything that is filled in.
    """

    folder: str
    home: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)
    profiles: frozenset[str] = frozenset()
    known: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[str], str | None] = lambda _path: None
    room: Room = field(default_factory=Room)


class Service:
    """One service being read: `entry` is what it becomes, `unsupported` what does not."""

    def __init__(self, name: str, filled: Mapping[str, Any], around: Surroundings) -> None:
        self.name = name
        self.entry: dict[str, Any] = {}
        self.unsupported: list[Unsupported] = []
        self._of = filled
        self._around = around

    def leave(self, key: str, reason: str) -> None:
        """Note what is not taken over."""
        self.unsupported.append(Unsupported(self.name, key, reason))

    def read(self) -> bool:
        """Make the entry; False when it is no model server, or cannot be one."""
        own = dict(mapping(self._of.get("x-corral")))
        image = self._of.get("image")
        if not isinstance(image, str) or not image:
            self.leave("image" if "build" not in self._of else "build", "It has no image. " + OTHER_KEYS["build"])
            return False
        try:
            kind = kind_of(image, None if own.get("kind") is None else str(own["kind"]))
        except ConfigError as error:
            self.leave("x-corral.kind", f"It is left out: {error.message} {error.hint}".rstrip())
            return False
        if kind.name == "openai" and "kind" not in own:
            why = "It is no model server by its image's name. If it is one, write it yourself with kind: openai."
            self.leave("image", why)
            return False
        self._own(own)
        self._image(image)
        self._ports(kind)
        self._volumes()
        self._environment()
        self._words()
        self._devices()
        self._limits()
        self._healthcheck()
        self._rights()
        self._network()
        self._rest()
        return True

    # Its parts.

    def _own(self, own: dict[str, Any]) -> None:
        """What we wrote ourselves, for which compose has no key."""
        for key in ("kind", "purpose", "models", "start_timeout", "inside", "health", "port", "host"):
            if key in own:
                self.entry[key] = own.pop(key)
        for key in sorted(own):
            self.leave(f"x-corral.{key}", "Corral writes no such key.")

    def _image(self, image: str) -> None:
        name, _, digest = image.partition("@")
        self.entry["image"] = name
        if digest:
            self.entry["digest"] = digest
        container = self._of.get("container_name")
        if container is not None:
            self.entry["container"] = str(container)

    def _ports(self, kind: Kind) -> None:
        found: list[tuple[str | None, int, int]] = []
        for item in listed(self._of.get("ports")):
            try:
                port = long_port(item) if isinstance(item, dict) else short_port(str(item))
            except ValueError as error:
                self.leave("ports", f"{shown(item)}: {error}")
                continue
            if isinstance(item, dict):
                strange = sorted(item.keys() - {"target", "published", "host_ip", "protocol", "mode"})
                for key in strange:
                    self.leave(f"ports.{key}", "It is a note for people, or for another engine.")
            found.append(port)
        if not found:
            return
        inside = self.entry.pop("inside", None) or kind.inside
        first = next((port for port in found if port[2] == inside), found[0])
        if first[2] != kind.inside:
            self.entry["inside"] = first[2]
        self.entry["port"] = first[1]
        if first[0] is None:
            why = (
                f"Compose opens {first[1]} on every network, Corral on this machine alone; for every one: host: 0.0.0.0"
            )
            self.leave("ports", why)
        elif first[0] != "127.0.0.1":
            self.entry["host"] = first[0]
        further = [port for port in found if port is not first]
        if further:
            own = self.entry.get("host", "127.0.0.1")
            self.entry["ports"] = [further_port(port, own) for port in further]

    def _volumes(self) -> None:
        found: dict[str, str] = {}
        memory: dict[str, str] = {}
        for item in listed(self._of.get("volumes")):
            try:
                if isinstance(item, dict) and item.get("type") == "tmpfs":
                    memory[str(item.get("target"))] = tmpfs_options(mapping(item.get("tmpfs")))
                    continue
                source, target, options = self._long_volume(item) if isinstance(item, dict) else short_volume(item)
                place = self._source(source)
                read_only = self._volume_options(source, options)
            except ValueError as error:
                self.leave("volumes", f"{shown(item)}: {error}")
                continue
            if place in found:
                self.leave("volumes", f"{shown(item)}: {source} is in it twice, and Corral takes it once.")
                continue
            found[place] = f"{target}:ro" if read_only else target
        for item in listed(self._of.get("tmpfs")):
            place, _, how = str(item).partition(":")
            memory[place] = how or "rw"
        if found:
            self.entry["volumes"] = found
        if memory:
            self.entry["tmpfs"] = memory

    def _long_volume(self, item: dict[str, Any]) -> tuple[str, str, list[str]]:
        if item.get("type", "volume") not in ("volume", "bind"):
            raise ValueError(f"Corral mounts no {item.get('type')}.")
        if not item.get("source"):
            raise ValueError("it has no name, and its content would be lost with the container. Give it a name.")
        for key in sorted(item.keys() - {"type", "source", "target", "read_only"}):
            content = mapping(item[key])
            if not (key == "bind" and set(content) <= {"create_host_path"}) and content:
                self.leave(f"volumes.{key}", f"{', '.join(sorted(content))}: Corral leaves it to the engine.")
        source = str(item["source"])
        if item.get("type") == "bind" and not source.startswith(("/", ".", "~")):
            source = f"./{source}"
        return source, str(item.get("target")), ["ro"] if item.get("read_only") is True else []

    def _volume_options(self, source: str, options: list[str]) -> bool:
        strange = [option for option in options if option not in ("ro", "rw")]
        if strange:
            self.leave("volumes", f"{source}: {','.join(strange)} is left to the engine.")
        return "ro" in options

    def _source(self, source: str) -> str:
        """The engine's name of a volume, or a folder's whole path."""
        if source.startswith(("/", ".", "~")):
            if source.startswith("~") and self._around.home is None:
                raise ValueError("whose home that is cannot be told.")
            home = source.replace("~", self._around.home or "", 1) if source.startswith("~") else source
            path = posixpath.normpath(posixpath.join(self._around.folder, home))
            reason = checks.refuse_mount(path)
            if reason is not None:
                raise ValueError(f"Corral does not mount it: {reason}.")
            return path
        name = self._around.volumes.get(source)
        if name is None:
            raise ValueError(f"the file has no volume {source!r}.")
        if not name:
            raise ValueError("its driver is not the engine's own, and Corral has no settings for another.")
        return name

    def _environment(self) -> None:
        """Variables; what only a shell sets, or is a secret of `.env`, stays a reference to Corral's own."""
        found: dict[str, str] = {}
        for path, required in self._env_files():
            text = self._around.read(path)
            if text is None:
                if required:
                    self.leave("env_file", f"{path} cannot be read.")
                continue
            for name, value in variables(text, self._around.known.get).items():
                if SECRET.search(name):
                    found[name] = f"${{{name}}}"
                    self.leave("env_file", f"{name} is kept out of corral.yaml: set it for Corral.")
                else:
                    found[name] = value.replace("$", "$$")
        for name, given in pairs(self._of.get("environment")).items():
            found[name] = f"${{{name}}}" if given is None else self._variable(name, given)
        if found:
            self.entry["environment"] = found

    def _variable(self, name: str, text: str) -> str:
        """A value; a variable in it that is not set now, or that nobody shall read, stays a reference."""
        secret = bool(SECRET.search(name))
        known = self._around.known
        filling = Filling(
            known.get, lambda other, is_set: secret or not is_set or bool(SECRET.search(other)), self._around.room
        )
        try:
            value = filling.text(text)
        except ConfigError as error:
            raise ConfigError(f"services.{self.name}.environment.{name}: {error.message}", error.hint) from error
        for other in sorted(filling.kept & known.keys()):
            self.leave(f"environment.{name}", f"It is kept out of corral.yaml: set {other} for Corral.")
        return unmarked(value)

    def _env_files(self) -> Iterable[tuple[str, bool]]:
        for item in listed(self._of.get("env_file")):
            if not isinstance(item, dict):
                yield str(item), True
                continue
            if item.get("format") not in (None, "raw"):
                self.leave("env_file.format", "Corral reads NAME=value.")
            yield str(item.get("path")), item.get("required", True) is not False

    def _words(self) -> None:
        for key in ("command", "entrypoint"):
            value = self._of.get(key)
            if value is None:
                continue
            try:
                self.entry[key] = shlex.split(value) if isinstance(value, str) else [scalar(word) for word in value]
            except (ValueError, TypeError) as error:
                self.leave(key, f"It cannot be cut into words: {error}.")

    def _devices(self) -> None:
        """GPUs, in each of the ways that compose has for them."""
        found: list[str] = []
        reserved = mapping(mapping(mapping(self._of.get("deploy")).get("resources")).get("reservations"))
        wanted = [("deploy.resources.reservations.devices", item) for item in listed(reserved.get("devices"))]
        if self._of.get("gpus") is not None:
            gpus = self._of["gpus"]
            wanted += [("gpus", {"count": gpus})] if not isinstance(gpus, list) else [("gpus", item) for item in gpus]
        for key, item in wanted:
            found += self._requested(key, mapping(item), named=key != "gpus")
        for device in map(str, listed(self._of.get("devices"))):
            if re.fullmatch(r"[a-z0-9.-]+/[a-z0-9_-]+=\S+", device):
                found.append(device)
            else:
                self.leave("devices", f"{device}: Corral gives a container GPUs, with `gpus`, and no other device.")
        runtime = self._of.get("runtime")
        if runtime == "nvidia":
            visible = pairs(self._of.get("environment")).get("NVIDIA_VISIBLE_DEVICES") or "all"
            if not found and visible not in ("none", "void"):
                found = ["all"] if "$" in visible else visible.split(",")
        elif runtime is not None:
            self.leave("runtime", f"{runtime}: Corral takes the engine's own runtime.")
        unique = list(dict.fromkeys(found))
        if unique:
            self.entry["gpus"] = "all" if "all" in unique else unique

    def _requested(self, key: str, item: Mapping[str, Any], *, named: bool) -> list[str]:
        """One request for devices as numbers or UUIDs."""
        driver = item.get("driver")
        capabilities = {str(word) for part in listed(item.get("capabilities")) for word in listed(part)}
        if driver not in (None, "nvidia", "cdi"):
            self.leave(key, f"driver {driver}: Corral gives GPUs of the driver nvidia, or by CDI.")
            return []
        if named and driver != "cdi" and not capabilities & {"gpu", "nvidia"}:
            self.leave(key, f"capabilities {sorted(capabilities)}: Corral gives GPUs, and no other device.")
            return []
        if item.get("options"):
            self.leave(f"{key}.options", "Corral leaves them to the driver.")
        ids = [str(device) for device in listed(item.get("device_ids"))]
        if ids:
            return ids
        count = item.get("count", "all")
        if str(count) == "all":
            return ["all"]
        if not re.fullmatch("[0-9]{1,2}", str(count)) or not 0 < int(count) <= 64:
            self.leave(f"{key}.count", f"{count} is no number of GPUs.")
            return []
        return [str(number) for number in range(int(count))]

    def _limits(self) -> None:
        deploy = mapping(self._of.get("deploy"))
        resources = mapping(deploy.get("resources"))
        limits = mapping(resources.get("limits"))
        for key, names, read in (
            ("memory", (limits.get("memory"), self._of.get("mem_limit")), size),
            ("cpus", (limits.get("cpus"), self._of.get("cpus")), float),
            ("pids", (limits.get("pids"), self._of.get("pids_limit")), int),
            ("shm", (self._of.get("shm_size"),), size),
        ):
            value = next((item for item in names if item is not None), None)
            if value in (None, 0, "0", -1):
                continue
            try:
                self.entry[key] = read(value)
            except (ValueError, TypeError, OverflowError):
                self.leave(key, f"{shown(value)} is no number that can be read.")
        for key in sorted(limits.keys() - {"memory", "cpus", "pids"}):
            self.leave(f"deploy.resources.limits.{key}", "Corral has no such limit.")
        for key in sorted(mapping(resources.get("reservations")).keys() - {"devices"}):
            why = "Corral reserves nothing: it limits, and places models by what they take."
            self.leave(f"deploy.resources.reservations.{key}", why)
        policy = mapping(deploy.get("restart_policy"))
        if "condition" in policy:
            self.entry["restart"] = policy["condition"] != "none"
        for key in sorted(policy.keys() - {"condition"}):
            self.leave(f"deploy.restart_policy.{key}", "Corral's own pauses hold, and name a crash loop.")
        if deploy.get("replicas") not in (None, 1):
            self.leave("deploy.replicas", "An entry is one container: write another entry.")
        for key in sorted(deploy.keys() - {"resources", "restart_policy", "replicas"}):
            self.leave(f"deploy.{key}", "It is for a cluster.")

    def _healthcheck(self) -> None:
        check = mapping(self._of.get("healthcheck"))
        if not check:
            return
        if check.get("disable") is True:
            self.leave("healthcheck.disable", "Corral always asks a container's API whether it is well.")
            return
        test = check.get("test")
        text = " ".join(map(str, test)) if isinstance(test, list) else str(test or "")
        found = _URL.search(text)
        if text and found and ("curl" in text or "wget" in text):
            self.entry.setdefault("health", found[1] or "/")
        elif text:
            self.leave("healthcheck.test", f"{text[:80]}: Corral asks its API itself, from outside.")
        if "start_period" in check:
            try:
                self.entry.setdefault("start_timeout", seconds(check["start_period"]))
            except ValueError as error:
                self.leave("healthcheck.start_period", str(error))
        for key in sorted(check.keys() - {"test", "start_period", "disable"}):
            self.leave(f"healthcheck.{key}", "Corral asks as often as its own settings say.")

    def _rights(self) -> None:
        if self._of.get("user") is not None:
            self.entry["user"] = str(self._of["user"])
        if self._of.get("read_only") is True:
            self.entry["read_only"] = True
        kept: list[str] = []
        for item in map(str, listed(self._of.get("cap_add"))):
            try:
                kept += checks.capabilities("cap_add", (item,))
            except ConfigError as error:
                self.leave("cap_add", f"{item}: {error.message}")
        if kept:
            self.entry["capabilities"] = kept
        dropped = [str(item) for item in listed(self._of.get("cap_drop")) if str(item).upper() != "ALL"]
        if dropped:
            self.leave("cap_drop", f"{', '.join(dropped)}: Corral drops all that `capabilities` does not keep.")

    def _network(self) -> None:
        mode = self._of.get("network_mode")
        if mode in ("host", "bridge"):
            self.entry["network"] = str(mode)
        elif mode is not None:
            self.leave("network_mode", f"{mode}: its models could not be asked, or only through another container.")
        names = self._of.get("networks")
        for name in map(str, names if isinstance(names, dict) else listed(names)):
            external = self._around.networks.get(name)
            if external and "network" not in self.entry:
                self.entry["network"] = external
            elif name != "default":
                why = "compose makes it, for its own services; clients ask through a port of this machine."
                self.leave("networks", f"{name}: " + ("a container is in one network." if external else why))

    def _rest(self) -> None:
        of = self._of
        if of.get("working_dir") is not None:
            self.entry["working"] = str(of["working_dir"])
        if of.get("stop_grace_period") is not None:
            try:
                self.entry["stop_grace"] = seconds(of["stop_grace_period"])
            except ValueError as error:
                self.leave("stop_grace_period", str(error))
        if of.get("restart") is not None:
            self.entry["restart"] = str(of["restart"]).lower() not in ("no", "false")
            if str(of["restart"]).startswith("on-failure"):
                self.leave("restart", "Corral starts again whatever the exit code, and names a crash loop.")
        self._labels()
        self._profiles()
        for key in sorted(of.keys() - TAKEN):
            if key.startswith("x-") or of[key] is None or of[key] in DEFAULTS.get(key, ()):
                continue
            if key == "memswap_limit" and same_size(of[key], self.entry.get("memory")):
                continue
            close = nearest(key, {*TAKEN, *OTHER_KEYS}, 1)
            unknown = f"Compose has no such key; did you mean {close[0]!r}?" if close else "Compose has no such key."
            self.leave(key, OTHER_KEYS.get(key, unknown))

    def _profiles(self) -> None:
        profiles = {str(item) for item in listed(self._of.get("profiles"))}
        if profiles and not profiles & self._around.profiles:
            self.entry["enabled"] = False
        if profiles - {OFF}:
            self.leave("profiles", f"{', '.join(sorted(profiles))}: Corral has `enabled`, and no names for it.")

    def _labels(self) -> None:
        found = {}
        for name, value in pairs(self._of.get("labels")).items():
            if name.startswith(("corral.", "com.docker.compose.")):
                self.leave(f"labels.{name}", "It is how containers are told apart, and set by whoever makes them.")
            else:
                found[name] = value or ""
        if found:
            self.entry["labels"] = found
