"""A whole compose file as entries of `containers:`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corral.config.loading import container_settings
from corral.domain.containers import check_container
from corral.errors import ConfigError, CorralError, InvalidName, UnknownOption
from corral.fleet.compose.keys import Unsupported
from corral.fleet.compose.service import Service, Surroundings
from corral.fleet.compose.text import Filling, Room, listed, mapping, parse, variables
from corral.fleet.desired import wanted

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""What compose looks for in a folder, in its order."""
_MOST_TEXT = 1 << 20
_TOP = frozenset({"services", "volumes", "networks", "name", "version"})
_LOCAL = (None, "local")


@dataclass(frozen=True, slots=True)
class Imported:
    """What a compose file becomes.

    Attributes:
        entries: for `containers:` of corral.yaml, by name, in the file's order.
        unsupported: every key that is not taken over, or not whole, and why.
        project: compose's name for it, by which its containers and volumes are known on the engine.
        services: the service that each entry is, by the entry's name.
    """

    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unsupported: tuple[Unsupported, ...] = ()
    project: str = ""
    services: Mapping[str, str] = field(default_factory=dict)


def plan_compose(path: Path, env: Mapping[str, str]) -> Imported:
    """What a compose file, or the one in a folder, becomes, with its `.env` beside it. Blocks.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f"{path} has no compose file.", f"It would be called {' or '.join(FILES)}.")
        path = found
    folder = path.absolute().parent
    text = _text(path)
    if text is None:
        raise ConfigError(f"{path} cannot be read.", "Check the path.")
    imported = read_compose(text, env, folder=folder, place=str(path), read=lambda name: _text(folder / name))
    over = [name for name in _overrides(path) if (folder / name).is_file()]
    more = [Unsupported("", name, "Compose reads it too, over this file; Corral reads one file.") for name in over]
    return Imported(imported.entries, (*imported.unsupported, *more), imported.project, imported.services)


def read_compose(
    text: str,
    env: Mapping[str, str],
    *,
    folder: Path = Path("/"),
    place: str = "compose.yaml",
    read: Callable[[str], str | None] = lambda _name: None,
) -> Imported:
    """What a compose file's text becomes.

    Args:
        env: the shell's variables.
        folder: where the file lies, absolute: relative paths are below it.
        place: the file's name, for messages.
        read: gives another file's text by its path, relative to `folder` or whole; None where there is none.

    Raises:
        ConfigError: it is no compose file, or a variable that it says is needed is not set.
    """
    raw = parse(text, place)
    if not isinstance(raw.get("services"), dict):
        raise ConfigError(f"{place} has no services.", "A compose file has `services:` with a mapping below it.")
    beside = variables(read(".env") or "", env.get)
    known = {**beside, **env}
    room = Room()
    filling = Filling(known.get, room=room)
    whole = {str(key): filling.filled(value) for key, value in raw.items() if key != "services"}
    project = _project(str(whole.get("name") or env.get("COMPOSE_PROJECT_NAME") or beside.get("COMPOSE_PROJECT_NAME")
        or folder.name))  # fmt: skip
    unsupported = _top(whole)
    around = Surroundings(
        folder=str(folder),
        home=env.get("HOME"),
        volumes=_volumes(mapping(whole.get("volumes")), project, unsupported),
        networks=_networks(mapping(whole.get("networks"))),
        profiles=frozenset(filter(None, known.get("COMPOSE_PROFILES", "").split(","))),
        known=known,
        read=read,
        room=room,
    )
    entries: dict[str, Mapping[str, Any]] = {}
    services: dict[str, str] = {}
    for key, content in raw["services"].items():
        service = Service(str(key), _filled(str(key), mapping(content), around, unsupported), around)
        if service.read():
            name = _entered(service, entries, folder, env)
            if name is not None:
                entries[name] = service.entry
                services[name] = service.name
        unsupported += service.unsupported
    return Imported(entries, tuple(unsupported), project, services)


def _filled(
    name: str, content: Mapping[str, Any], around: Surroundings, unsupported: list[Unsupported]
) -> dict[str, Any]:
    """A service with its variables filled in, but for its environment; what is not set is empty, and said to be."""
    found = {}
    for key, value in content.items():
        if key == "environment":
            found["environment"] = value
            continue
        filling = Filling(around.known.get, room=around.room)
        try:
            found[str(key)] = filling.filled(value)
        except ConfigError as error:
            raise ConfigError(f"services.{name}.{key}: {error.message}", error.hint) from error
        unsupported += [
            Unsupported(name, str(key), f"The variable {missing} is not set, and counts as empty.")
            for missing in sorted(filling.missing)
        ]
    return found


def _entered(service: Service, entries: Mapping[str, Any], folder: Path, env: Mapping[str, str]) -> str | None:
    """The name under which a service is entered, once its entry was found to be one that can be; None if it is not."""
    name = service.name.lower()
    try:
        check_container(name)
        settings = container_settings(service.entry, f"service {service.name}")
        variables_of = re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", str(service.entry.get("environment", "")))
        wanted(name, settings, {**dict.fromkeys(variables_of, "-"), **env}, base=folder)
    except (ConfigError, InvalidName, UnknownOption) as error:
        service.leave("", f"It is left out: {_said(error)}")
        return None
    if name in entries:
        service.leave("", f"It is left out: there is a service {name!r} already, and Corral's names have no capitals.")
        return None
    return name


def _said(error: CorralError) -> str:
    return f"{error.message} {error.hint}".strip()


def _top(whole: Mapping[str, Any]) -> list[Unsupported]:
    """What the file has beside services, volumes and networks."""
    why = {
        "secrets": "Write `environment: {NAME: $NAME}`, and set NAME for Corral.",
        "configs": "Mount a folder instead, with `volumes`.",
        "include": "Import that file too.",
    }
    return [
        Unsupported("", key, why.get(key, "Compose has no such key."))
        for key in sorted(whole.keys() - _TOP)
        if not key.startswith("x-")
    ]


def _volumes(of: Mapping[str, Any], project: str, unsupported: list[Unsupported]) -> dict[str, str]:
    """The engine's name of each volume; empty where it is none of the engine's own kind."""
    found = {}
    for key, content in of.items():
        volume = mapping(content)
        external = volume.get("external")
        name = mapping(external).get("name") or volume.get("name") or (key if external else f"{project}_{key}")
        plain = volume.get("driver") in _LOCAL and not volume.get("driver_opts")
        found[str(key)] = str(name) if plain or external else ""
        if volume.get("labels"):
            unsupported.append(Unsupported("", f"volumes.{key}.labels", "The engine keeps those that it has."))
    return found


def _networks(of: Mapping[str, Any]) -> dict[str, str]:
    """The engine's name of each network that others have made."""
    found = {}
    for key, content in of.items():
        external = mapping(content).get("external")
        if external:
            found[str(key)] = str(mapping(external).get("name") or mapping(content).get("name") or key)
    return found


def _project(name: str) -> str:
    """A name as compose makes it a project's."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "default"


def _overrides(path: Path) -> list[str]:
    return [f"{path.stem}.override{suffix}" for suffix in (".yml", ".yaml")] if path.name in FILES else listed(None)


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_TEXT + 1).decode()
    except (OSError, UnicodeDecodeError):
        return None
