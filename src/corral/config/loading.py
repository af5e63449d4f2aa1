"""Reading the configuration: the file, the environment and flags, each value with the place it came from."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from corral.config import values
from corral.config.containers import ContainerSettings
from corral.config.settings import ENTRIES, PATH_LISTS, PATHS, SECTIONS, ModelSettings, Settings, default_of, reference
from corral.domain.models import check_name
from corral.errors import ConfigError, InvalidName, UnknownOption

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


T = TypeVar("T")


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
    here = cwd or Path.cwd()
    path = _find_file(file, env, home(env, flags.get("home"), here), here)
    given: dict[str, tuple[Any, str]] = {"home": (str(_home_of(env)), "default")}
    beside = here if path is None else here / path.parent
    given["store.discover"] = ([str(beside / "models")], "default")
    if path is not None:
        tree, lines = _read_file(path)
        given |= _located(_from_tree(tree, lines, path), beside, env)
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


def home(env: Mapping[str, str], given: str | Path | None = None, cwd: Path | None = None) -> Path:
    """The folder for everything Corral keeps, as far as that can be told without a configuration file."""
    return Path(_placed(given or env.get("CORRAL_HOME") or _home_of(env), cwd or Path.cwd(), env))


def _placed(value: Any, base: Path, env: Mapping[str, str]) -> Any:
    """A path as it is meant: below `base` when relative, `~` being the home of `env`. Anything else is left alone."""
    text = str(value) if isinstance(value, str | Path) else ""
    if text == "~" or text.startswith("~/"):
        return str(_user_home(env) / text[2:])
    return str(base / text) if text and not text.startswith("~") else value


def _user_home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path("~").expanduser()


def _home_of(env: Mapping[str, str]) -> Path:
    return _user_home(env) / ".corral"


def _located(given: dict[str, tuple[Any, str]], base: Path, env: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """`values` without those that are None, and with those that are paths made absolute."""
    located = {key: entry for key, entry in given.items() if entry[0] is not None}
    for key, (value, origin) in given.items():
        if key in PATHS and value is not None:
            located[key] = (_placed(value, base, env), origin)
        elif key in PATH_LISTS and value is not None:
            located[key] = ([_placed(item, base, env) for item in _listed(value)], origin)
    return located


def _listed(value: Any) -> list[Any]:
    """The items of a list, or of a text with commas; anything else as its one item, for its reader to refuse."""
    return list(values.names(value)) if isinstance(value, str | list | tuple) else [value]


def _find_file(file: Path | None, env: Mapping[str, str], home: Path, cwd: Path) -> Path | None:
    wanted = file or env.get("CORRAL_CONFIG")
    if wanted:
        named = Path(_placed(wanted, cwd, env))
        if not named.is_file():
            raise ConfigError(f"There is no configuration file {named}.", "Check --config or CORRAL_CONFIG.")
        return named
    for path in (cwd / "corral.yaml", home / "corral.yaml"):
        try:
            if path.is_file():
                return path
        except OSError as error:  # a folder that may not be entered, or a name that is too long
            hint = "Check who owns the folder, or choose another with CORRAL_HOME."
            raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint) from error
    return None


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
        if name == "runtimes" or name in ENTRIES:
            for entry, content in _mapping(value, place, name).items():
                where = f"{path}:{lines.get(f'{name}.{entry}', 1)}"
                if name != "runtimes":
                    _check_model_name(str(entry), where)
                found[f"{name}.{entry}"] = (_mapping(content, where, f"{name}.{entry}"), where)
        elif name in sections:
            for leaf, content in _mapping(value, place, name).items():
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
            raise UnknownOption.among(str(name), {*known, *sections, "runtimes", *ENTRIES}, place)
    return found


def _check_model_name(name: str, place: str) -> None:
    try:
        check_name(name)
    except InvalidName as error:
        raise ConfigError(f"{place}: {error.message}", error.hint) from error


def _mapping(value: Any, place: str, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{place}: {key} is {value!r}, and must hold names with values.", f"Write {key}: {{name: value}}."
        )
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
    sections: dict[str, Any] = {"home": _read("home", values.path, None, given)}
    for name, section in SECTIONS.items():
        how = {leaf.name: (leaf.metadata["read"], default_of(leaf)) for leaf in fields(section)}
        read = {leaf: _read(f"{name}.{leaf}", reader, default, given) for leaf, (reader, default) in how.items()}
        sections[name] = section(**read)
    runtimes = {key.split(".", 1)[1]: value for key, (value, _) in given.items() if key.startswith("runtimes.")}
    entries: dict[str, Any] = {
        kind: {
            key.split(".", 1)[1]: _entry(type_, value, origin)
            for key, (value, origin) in given.items()
            if key.startswith(f"{kind}.")
        }
        for kind, type_ in ENTRIES.items()
    }
    return Settings(runtimes=runtimes, **entries, **sections)


def _read(key: str, read: Callable[[Any], Any], default: Any, given: Mapping[str, tuple[Any, str]]) -> Any:
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
    return _entry(ModelSettings, content, place)


def container_settings(content: Mapping[str, Any], place: str) -> ContainerSettings:
    """One entry of `containers`, checked.

    Raises:
        ConfigError, UnknownOption: as `load`.
    """
    return _entry(ContainerSettings, content, place)


def _entry(kind: type[T], content: Mapping[str, Any], place: str) -> T:
    leaves = {leaf.name: leaf for leaf in fields(kind)}  # type: ignore[arg-type] # they are dataclasses
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in leaves:
            raise UnknownOption.among(str(name), leaves, place)
        leaf = leaves[name]
        if leaf.metadata["read"] is None:
            values[name] = _mapping(value, place, name)
        else:
            values[name] = _read(name, leaf.metadata["read"], leaf.default, {name: (value, place)})
    return kind(**values)
