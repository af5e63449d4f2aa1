"""The configuration as specs: what is wanted of each container, checked. Pure.

The checks of single values that need nothing else (`checks.py`) are apart from those that put an entry together.
"""

from __future__ import annotations

from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from corral.config.containers import AUTO
from corral.domain.containers import ContainerSpec, Port, Wanted, Watch, check_container
from corral.errors import ConfigError, InvalidName
from corral.fleet import checks
from corral.fleet.checks import refuse_mount
from corral.fleet.kinds import MODELS, Kind, kind_of, serving

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from corral.config import Settings
    from corral.config.containers import ContainerSettings
    from corral.domain.containers import Mount

__all__ = ["all_wanted", "clash", "refuse_mount", "url_of", "wanted"]

_LAST_PORT = 65535


def all_wanted(settings: Settings, env: Mapping[str, str]) -> dict[str, Wanted]:
    """Every container of the configuration by its name, in the file's order.

    Ports that are given come first; each that is not is the first of its kind's that no entry has.

    Raises:
        ConfigError: an entry cannot be, or two cannot be together: names the keys and the place.
    """
    base = Path("/") if settings.file is None else settings.file.absolute().parent
    places = {name: settings.origin(f"containers.{name}") for name in settings.containers}
    given: list[Port] = []
    for name, entry in settings.containers.items():
        with _placed(places[name]):
            given += _given_ports(name, entry)
    found: dict[str, Wanted] = {}
    for name, entry in settings.containers.items():
        taken = [*given, *(port for other in found.values() for port in other.spec.ports)]
        found[name] = wanted(name, entry, env, taken=taken, base=base, place=places[name])
    _check_together(found)
    return found


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """An error says where its entry is."""
    try:
        yield
    except (ConfigError, InvalidName) as error:
        where = f"{place}: " if place and place != "default" else ""
        raise ConfigError(f"{where}{error.message}", error.hint) from error


def wanted(
    name: str,
    entry: ContainerSettings,
    env: Mapping[str, str],
    *,
    taken: Collection[Port] = (),
    base: Path = Path("/"),
    place: str = "",
) -> Wanted:
    """One container of the configuration.

    Args:
        env: Corral's environment, for `$NAME` in values of its environment.
        taken: ports that others have, of which it takes none unless it is told to.
        base: the folder that relative ones are in, absolute.
        place: where it is configured, for messages.

    Raises:
        ConfigError: it cannot be; names the key.
    """
    with _placed(place):
        return _Entry(name, entry, env, base).wanted(taken)


def url_of(spec: ContainerSpec) -> str | None:
    """Where its models' API is on this machine, without a trailing slash; None where it has no port."""
    if not spec.ports:
        return None
    port = spec.ports[0]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(port.host, port.host)  # noqa: S104 # asked, not listened on
    return f"http://[{host}]:{port.outside}" if ":" in host else f"http://{host}:{port.outside}"


class _Entry:
    """One entry, made into what is wanted."""

    def __init__(self, name: str, entry: ContainerSettings, env: Mapping[str, str], base: Path) -> None:
        self._name = name
        self._entry = entry
        self._env = env
        self._base = base
        self._key = f"containers.{name}"

    def wanted(self, taken: Collection[Port]) -> Wanted:
        entry, key = self._entry, self._key
        check_container(self._name)
        kind = kind_of(entry.image, entry.kind)
        image, digest = checks.image(f"{key}.image", entry.image or kind.image, entry.digest, kind.name)
        ports = self._ports(kind, taken)
        environment, mounts, tmpfs = self._surroundings(kind, ports[0])
        spec = ContainerSpec(
            name=self._name,
            container=checks.container(f"{key}.container", entry.container or f"corral-{self._name}"),
            kind=kind.name,
            image=image,
            digest=digest,
            entrypoint=entry.entrypoint,
            command=self._command(kind, ports[0]),
            environment=environment,
            ports=ports,
            mounts=mounts,
            tmpfs=tmpfs,
            gpus=checks.gpus(f"{key}.gpus", entry.gpus),
            memory=None if isinstance(entry.memory, str) else checks.memory(f"{key}.memory", entry.memory),
            fitted=entry.memory == AUTO,
            cpus=checks.cpus(f"{key}.cpus", entry.cpus),
            shm=checks.most(f"{key}.shm", entry.shm, "1GiB"),
            pids=checks.most(f"{key}.pids", entry.pids, "4096"),
            user=checks.user(f"{key}.user", entry.user),
            read_only=entry.read_only,
            capabilities=checks.capabilities(f"{key}.capabilities", entry.capabilities),
            network=checks.network(f"{key}.network", entry.network),
            stop_grace=checks.seconds(f"{key}.stop_grace", entry.stop_grace),
            labels=checks.labels(f"{key}.labels", entry.labels),
            working=checks.inside(f"{key}.working", entry.working) if entry.working else None,
        )
        watch = Watch(
            health=checks.health(f"{key}.health", entry.health or kind.health),
            start_timeout=checks.seconds(f"{key}.start_timeout", entry.start_timeout),
            restart=entry.restart,
            gpu=bool(spec.gpus),
        )
        return Wanted(spec, purpose=entry.purpose or "", models=entry.models, watch=watch, up=entry.enabled)

    def _ports(self, kind: Kind, taken: Collection[Port]) -> tuple[Port, ...]:
        """The models' API, and the further ones."""
        entry, key = self._entry, self._key
        host = checks.address(f"{key}.host", entry.host)
        further = _further(key, entry.ports, host)
        if entry.network == "host":
            if further:
                raise ConfigError(
                    f"{key}.ports cannot be with `network: host`, where every port is this machine's own.",
                    f"Remove {key}.ports, or {key}.network.",
                )
            if entry.port and entry.inside and entry.port != entry.inside:
                raise ConfigError(
                    f"{key}.port is {entry.port} and {key}.inside {entry.inside}: with `network: host` it is one port.",
                    f"Give only {key}.port.",
                )
            port = entry.port or entry.inside or _free(kind.port, host, [*taken])
            return (Port(entry.inside or port, port, host),)
        port = entry.port or _free(kind.port, host, [*taken, *further])
        return (Port(entry.inside or kind.inside, port, host), *further)

    def _surroundings(self, kind: Kind, port: Port) -> tuple[dict[str, str], tuple[Mount, ...], dict[str, str]]:
        """Environment, mounts and folders in memory, with what its kind needs of each."""
        entry, key = self._entry, self._key
        environment = checks.environment(f"{key}.environment", entry.environment, self._env)
        mounts = checks.mounts(f"{key}.volumes", entry.volumes, self._base, self._env)
        if port.inside != kind.inside or entry.network == "host":
            listens = port.host if entry.network == "host" else "0.0.0.0"  # noqa: S104 # in the container
            for variable, value in kind.listen(listens, port.inside).items():
                environment.setdefault(variable, value)
        if kind.variable is not None and kind.variable not in environment:
            at_home = any(_within(place, mount.target) for mount in mounts for place in kind.usual)
            if not at_home:
                environment[kind.variable] = MODELS
                if not any(_within(MODELS, mount.target) for mount in mounts):
                    mounts = (*mounts, checks.volume(f"corral-{self._name}-models", MODELS))
        tmpfs = checks.tmpfs(f"{key}.tmpfs", entry.tmpfs)
        if entry.read_only:
            covered = [*(mount.target for mount in mounts), *tmpfs]
            tmpfs |= {place: "rw" for place in kind.scratch if not any(_within(place, target) for target in covered)}
        checks.places(key, [mount.target for mount in mounts], tmpfs)
        return environment, mounts, tmpfs

    def _command(self, kind: Kind, port: Port) -> tuple[str, ...] | None:
        """Its arguments, with those that make it serve its model, and listen where it shall."""
        try:
            command = serving(kind, self._entry.models, self._entry.command)
        except ConfigError as error:
            raise ConfigError(f"{self._key}.models: {error.message}", error.hint) from error
        moved = port.inside != kind.inside or self._entry.network == "host"
        if kind.listen_flags is None or not moved or any(word.split("=")[0] == "--port" for word in command or ()):
            return command
        listens = port.host if self._entry.network == "host" else "0.0.0.0"  # noqa: S104 # in the container
        return (*(command or ()), *kind.listen_flags(listens, port.inside))


def _further(key: str, texts: Iterable[str], host: str) -> tuple[Port, ...]:
    """Ports written as `OUTSIDE:INSIDE` or `HOST:OUTSIDE:INSIDE`."""
    found = []
    for text in texts:
        *at, outside, inside = text.rsplit(":", 2)
        address = checks.address(f"{key}.ports", at[0].strip("[]")) if at else host
        found.append(Port(int(inside), int(outside), address))
    return tuple(found)


def _given_ports(name: str, entry: ContainerSettings) -> list[Port]:
    """The ports that an entry says itself."""
    key = f"containers.{name}"
    further = list(_further(key, entry.ports, checks.address(f"{key}.host", entry.host)))
    own = entry.port or (entry.inside if entry.network == "host" else None)
    return [Port(own, own, entry.host), *further] if own else further


def _free(first: int, host: str, taken: Collection[Port]) -> int:
    """The first port from `first` on that nobody has."""
    for number in range(first, _LAST_PORT + 1):
        if not any(clash(Port(number, number, host), port) for port in taken):
            return number
    raise ConfigError(f"Every port from {first} on is given away.", "Give it one with `port`.")


def clash(one: Port, other: Port) -> bool:
    """Whether two containers cannot have these ports together: one number, and one address or all of them."""
    if one.outside != other.outside:
        return False
    return one.host == other.host or any(_everywhere(port.host) for port in (one, other))


def _everywhere(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:  # a name, which is one address
        return not host


def _check_together(found: Mapping[str, Wanted]) -> None:
    """Whether these containers can be beside each other.

    Raises:
        ConfigError: two have one port, or one name.
    """
    seen: list[tuple[str, Port]] = []
    names: dict[str, str] = {}
    for name, want in found.items():
        for port in want.spec.ports:
            other = next((who for who, had in seen if clash(port, had)), None)
            if other == name:
                raise ConfigError(f"containers.{name} has port {port.outside} twice.", "Give each another one.")
            if other is not None:
                raise ConfigError(
                    f"containers.{name} has port {port.outside}, which containers.{other} has too.",
                    f"Give one of them another: containers.{name}.port: {_spare(found)}",
                )
            seen.append((name, port))
        other = names.setdefault(want.spec.container, name)
        if other != name:
            raise ConfigError(
                f"containers.{name}.container is {want.spec.container!r}, as that of containers.{other} is.",
                f"Give one of them another: containers.{name}.container: corral-{name}",
            )


def _spare(found: Mapping[str, Wanted]) -> int:
    """A port that no entry has, to suggest."""
    taken = [port for want in found.values() for port in want.spec.ports]
    return _free(min(port.outside for port in taken), "0.0.0.0", taken)  # noqa: S104 # free on every address


def _within(place: str, folder: str) -> bool:
    """Whether a folder of a container is another one, or lies in it."""
    return place == folder or place.startswith(folder.rstrip("/") + "/")
