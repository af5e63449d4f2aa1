"""One configuration: default < file < environment < flag, and where each value came from.

    home                     folder for everything Corral keeps
    server.*                 the address, who may ask, how much
    store.*                  where models lie
    engines.*                loading, idling, stopping
    upstream.*               time-outs towards engines and vendors
    log.*                    what is written to standard error
    runtimes.KIND.OPTION     launch options for every model of a runtime
    models.NAME.*            models by name, and what differs for them

`corral.yaml` (JSON is accepted as YAML) holds the same tree; the environment variable of `server.port` is
`CORRAL_SERVER_PORT`, and so on; the two maps can only be given in the file. Keys of vendors and of this server come
from the environment and are never written down. Reading blocks, once, at start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from corral.domain.models import check_name
from corral.errors import ConfigError, InvalidName, UnknownOption

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$")
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?$", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def duration(value: Any) -> float:
    """Seconds, from a number or a text such as `90`, `1.5s`, `5m`, `2h`; `never` and negative numbers mean infinity."""
    if value == "never":
        return float("inf")
    if isinstance(value, bool):
        raise TypeError("not a duration")
    if isinstance(value, int | float):
        return float(value) if value >= 0 else float("inf")
    match = _DURATION.match(str(value).strip())
    if match is None:
        raise ValueError("not a duration such as 90, 30s, 5m, 2h or never")
    return float(match[1]) * _SECONDS[match[2]]


def size(value: Any) -> int:
    """Bytes, from a number or a text such as `64MiB`, `50GB`."""
    if isinstance(value, bool):
        raise TypeError("not a size")
    match = _SIZE.match(str(value).strip())
    if match is None:
        raise ValueError("not a size such as 1048576, 64MiB or 50GB")
    unit = (match[2] or "").lower()
    base = 1024 if unit.endswith("i") else 1000
    return int(float(match[1]) * (base ** _POWERS[unit[0]] if unit else 1))


def _port(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", str(value)) or int(value) > 65535:
        raise ValueError("not a port from 0 to 65535")
    return int(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"0*[1-9][0-9]*", str(value)):
        raise ValueError("not a whole number of at least 1")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    if not value:
        raise ValueError("it is empty")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(_text(part) for part in value)


def _flag(value: Any) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise ValueError("not true or false") from None


def _level(value: Any) -> str:
    level = str(value).lower()
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError("not one of debug, info, warning, error")
    return level


def _path(value: Any) -> Path:
    try:
        return Path(_text(str(value) if isinstance(value, Path) else value)).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}") from error


def _placed(value: Any, base: Path, env: Mapping[str, str]) -> Any:
    """A path as it is meant: below `base` when relative, `~` being the home of `env`. Anything else is left alone."""
    text = str(value) if isinstance(value, str | Path) else ""
    if text == "~" or text.startswith("~/"):
        return str(_user_home(env) / text[2:])
    return str(base / text) if text and not text.startswith("~") else value


def _setting(default: Any, read: Callable[[Any], Any], doc: str) -> Any:
    return field(default=default, metadata={"read": read, "doc": doc})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The address, who may ask, and how much."""

    host: str = _setting(
        "127.0.0.1", _text, "Address to listen on. Beyond loopback a key is required (CORRAL_API_KEY)."
    )
    port: int = _setting(7860, _port, "Port to listen on; 0 lets the system choose.")
    allowed_hosts: tuple[str, ...] = _setting((), _names, "Host names answered to beside loopback's and `server.host`.")
    max_body: int = _setting(64 * 1024**2, size, "Largest request body, in bytes or as 64MiB.")
    request_timeout: float = _setting(
        60.0, duration, "How long a client may take to send a request's head, or be silent within its body."
    )
    shutdown_grace: float = _setting(10.0, duration, "How long answers under way may go on when the server stops.")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where models lie."""

    models_dir: Path | None = field(
        default=None, metadata={"read": _path, "doc": "Folder of the model store. Default: `models` under `home`."}
    )


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Loading, idling, stopping."""

    idle_timeout: float = _setting(300.0, duration, "A model unused for this long leaves memory; `never` keeps it.")
    load_timeout: float = _setting(120.0, duration, "How long an engine may take to become ready.")
    stop_grace: float = _setting(5.0, duration, "How long an engine may take to stop before it is killed.")
    drain_grace: float = _setting(30.0, duration, "How long `unload` waits for answers under way.")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Time-outs towards engines and vendors."""

    connect_timeout: float = _setting(10.0, duration, "Time to make a connection.")
    first_byte_timeout: float = _setting(600.0, duration, "Time to the first byte of an answer.")
    between_timeout: float = _setting(120.0, duration, "Longest silence within an answer.")
    total_timeout: float = _setting(float("inf"), duration, "Longest whole answer.")
    max_connections: int = _setting(512, _whole, "Connections to one engine or vendor at once.")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written to standard error."""

    level: str = _setting("info", _level, "debug, info, warning or error.")
    requests: bool = _setting(False, _flag, "Write a line for each request.")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the configuration says of one model; None and empty leave it to the defaults."""

    runtime: str | None = _setting(None, _text, "Runtime to use. Default: chosen by the model's files.")
    source: str | None = _setting(None, _text, "Where to install it from, as `scheme:name`, or another installed name.")
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"read": None, "doc": "The runtime's options."})
    idle_timeout: float | None = _setting(None, duration, "As `engines.idle_timeout`, for this model.")
    preload: bool = _setting(False, _flag, "Load it when the server starts.")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration, read once. `origins` says of each key where its value came from."""

    home: Path = field(
        default=Path("~/.corral"), metadata={"read": _path, "doc": "Folder for everything Corral keeps."}
    )
    server: ServerSettings = field(default_factory=ServerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    engines: EngineSettings = field(default_factory=EngineSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    log: LogSettings = field(default_factory=LogSettings)
    runtimes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
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
        for name, model in self.models.items():
            for item in fields(model):
                value = getattr(model, item.name)
                if value not in (None, {}, False):
                    yield f"models.{name}.{item.name}", value, self.origin(f"models.{name}")

    def value(self, key: str) -> Any:
        """The value of a dotted key."""
        if key == "store.models_dir":
            return self.models_dir
        found: Any = self
        for part in key.split("."):
            found = getattr(found, part)
        return found


_PATHS = ("home", "store.models_dir")
_SECTIONS: Mapping[str, type[Any]] = {
    "server": ServerSettings,
    "store": StoreSettings,
    "engines": EngineSettings,
    "upstream": UpstreamSettings,
    "log": LogSettings,
}


def reference() -> Iterator[tuple[str, Any, str]]:
    """Every single-valued key with its default and what it means."""
    for item in fields(Settings):
        if "doc" in item.metadata:
            yield item.name, item.default, item.metadata["doc"]
        for leaf in fields(_SECTIONS[item.name]) if item.name in _SECTIONS else ():
            yield f"{item.name}.{leaf.name}", leaf.default, leaf.metadata["doc"]


def variable(key: str) -> str:
    """The environment variable of a key: `server.port` → `CORRAL_SERVER_PORT`."""
    return "CORRAL_" + key.replace(".", "_").upper()


def load(
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    file: Path | None = None,
    cwd: Path | None = None,
) -> Settings:
    """The configuration from a file, `env` and `flags`.

    The file is `file`, or the first found of $CORRAL_CONFIG, ./corral.yaml and corral.yaml in the home. A relative path
    in it is beside the file, any other one in `cwd`. A variable that is empty, and a key without a value, give nothing.

    `flags` maps dotted keys to values; None means not given.

    Raises:
        ConfigError: the file cannot be read, or a value cannot be used; names the place.
        UnknownOption: the file has a key that nothing knows.
    """
    env = os.environ if env is None else env
    flags = {key: value for key, value in (flags or {}).items() if value is not None and value != ""}
    home = flags.get("home") or env.get("CORRAL_HOME") or _home_of(env)
    here = cwd or Path.cwd()
    path = _find_file(file, env, Path(_placed(home, here, env)), here)
    given: dict[str, tuple[Any, str]] = {"home": (str(_home_of(env)), "default")}
    if path is not None:
        tree, lines = _read_file(path)
        given |= _located(_from_tree(tree, lines, path), here / path.parent, env)
    named, warnings = _from_environment(env)
    flagged = {key: (value, f"flag --{key.rsplit('.', 1)[-1].replace('_', '-')}") for key, value in flags.items()}
    given |= _located(named | flagged, here, env)
    settings = _build(given)
    key = env.get("CORRAL_API_KEY", "").strip() or None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "CORRAL_API_KEY has characters that cannot stand in a header.", "Use ASCII letters and digits."
        )
    origins = {name: origin for name, (_, origin) in given.items() if origin != "default"}
    if key:
        origins["api_key"] = "environment CORRAL_API_KEY"
    return replace(settings, api_key=key, file=path, origins=origins, warnings=warnings)


def _user_home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path("~").expanduser()


def _home_of(env: Mapping[str, str]) -> Path:
    return _user_home(env) / ".corral"


def _located(values: dict[str, tuple[Any, str]], base: Path, env: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """`values` without those that are None, and with those that are paths made absolute."""
    return {
        key: (_placed(value, base, env), origin) if key in _PATHS else (value, origin)
        for key, (value, origin) in values.items()
        if value is not None
    }


def _find_file(file: Path | None, env: Mapping[str, str], home: Path, cwd: Path) -> Path | None:
    wanted = file or env.get("CORRAL_CONFIG")
    if wanted:
        named = Path(_placed(wanted, cwd, env))
        if not named.is_file():
            raise ConfigError(f"There is no configuration file {named}.", "Check --config or CORRAL_CONFIG.")
        return named
    return next((path for path in (cwd / "corral.yaml", home / "corral.yaml") if path.is_file()), None)


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's tree and the line of each dotted key."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{place} is not YAML: {getattr(error, 'problem', error)}.") from error
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} does not hold a mapping of settings.", "Begin with a line such as `server:`.")
    lines: dict[str, int] = {}
    _note_lines(node, (), lines, path)
    return tree, lines


def _note_lines(node: Any, at: tuple[str, ...], lines: dict[str, int], path: Path) -> None:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*at, str(key.value))
        dotted = ".".join(here)
        if dotted in lines:
            raise ConfigError(f"{path}:{key.start_mark.line + 1} gives {dotted!r} a second time.", "Keep one of them.")
        lines[dotted] = key.start_mark.line + 1
        _note_lines(value, here, lines, path)


def _from_tree(tree: dict[str, Any], lines: dict[str, int], path: Path) -> dict[str, tuple[Any, str]]:
    """The file's values by dotted key, each with its place."""
    known = {key for key, _, _ in reference()}
    sections = {key.split(".")[0] for key in known if "." in key}
    found: dict[str, tuple[Any, str]] = {}
    for name, value in tree.items():
        place = f"{path}:{lines.get(str(name), 1)}"
        if name in ("runtimes", "models"):
            for entry, content in _mapping(value, place).items():
                where = f"{path}:{lines.get(f'{name}.{entry}', 1)}"
                if name == "models":
                    _check_model_name(str(entry), where)
                found[f"{name}.{entry}"] = (_mapping(content, place), where)
        elif name in sections:
            for leaf, content in _mapping(value, place).items():
                key = f"{name}.{leaf}"
                where = f"{path}:{lines.get(key, 1)}"
                if key not in known:
                    raise UnknownOption.among(key, known, where)
                found[key] = (content, where)
        elif name in known:
            found[str(name)] = (value, place)
        elif name == "api_key":
            raise ConfigError(
                f"{place}: keys are not kept in files.", "Set the environment variable CORRAL_API_KEY instead."
            )
        else:
            raise UnknownOption.among(str(name), {*known, *sections, "runtimes", "models"}, place)
    return found


def _check_model_name(name: str, place: str) -> None:
    try:
        check_name(name)
    except InvalidName as error:
        raise ConfigError(f"{place}: {error.message}", error.hint) from error


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{place} must hold a mapping.")
    return value


_NOT_SETTINGS = {"CORRAL_CONFIG", "CORRAL_API_KEY", "CORRAL_URL"}


def _from_environment(env: Mapping[str, str]) -> tuple[dict[str, tuple[Any, str]], tuple[str, ...]]:
    """The values that the environment gives, and a warning for each variable that looks like ours and is not.

    An unknown variable is no error: orchestrators set some of their own, such as CORRAL_SERVICE_HOST for a service's
    name.
    """
    by_variable = {variable(key): key for key, _, _ in reference()}
    found: dict[str, tuple[Any, str]] = {}
    warnings: list[str] = []
    for name, value in env.items():
        if not name.startswith("CORRAL_") or name in _NOT_SETTINGS or not value:
            continue
        if name in by_variable:
            found[by_variable[name]] = (value, f"environment {name}")
        else:
            warnings.append(str(UnknownOption.among(name, by_variable, "the environment")))
    return found, tuple(warnings)


def _build(given: Mapping[str, tuple[Any, str]]) -> Settings:
    sections: dict[str, Any] = {"home": _read("home", _path, given, None)}
    for name, section in _SECTIONS.items():
        leaves = fields(section)
        sections[name] = section(
            **{leaf.name: _read(f"{name}.{leaf.name}", leaf.metadata["read"], given, leaf.default) for leaf in leaves}
        )
    runtimes = {key.split(".", 1)[1]: value for key, (value, _) in given.items() if key.startswith("runtimes.")}
    models = {
        key.split(".", 1)[1]: model_settings(value, origin)
        for key, (value, origin) in given.items()
        if key.startswith("models.")
    }
    return Settings(runtimes=runtimes, models=models, **sections)


def _read(key: str, read: Callable[[Any], Any], given: Mapping[str, tuple[Any, str]], default: Any) -> Any:
    if key not in given or given[key][0] is None:
        return default
    value, origin = given[key]
    try:
        return read(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(f"{key} is {value!r} ({origin}): {error}.", "See docs/configuration.md.") from error


def model_settings(content: Mapping[str, Any], place: str) -> ModelSettings:
    """One entry of `models`, checked.

    Raises:
        ConfigError, UnknownOption: as `load`.
    """
    leaves = {leaf.name: leaf for leaf in fields(ModelSettings)}
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in leaves:
            raise UnknownOption.among(str(name), leaves, place)
        if name == "options":
            values[name] = _mapping(value, place)
        else:
            leaf = leaves[name]
            values[name] = _read(name, leaf.metadata["read"], {name: (value, place)}, leaf.default)
    return ModelSettings(**values)
