"""llama-swap's configuration, as Corral would take it over: each model a command line, each group a group.

Models of its `peers`, which are servers elsewhere, become models of the runtime `openai`.

What is read is llama-swap's own format: macros are filled in as it fills them in, in its order; what Corral chooses
itself at each start (`${PORT}`, `${PID}`) stays for the runtime `command`.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from corral.catalog.imports import ImportPlan, mapping, yaml_mapping
from corral.domain.models import check_name
from corral.errors import ConfigError, InvalidName

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ENV = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_LEFT = re.compile(r"\$\{(?!PORT\}|PID\})([^}]*)\}")
_LOOPBACK = re.compile(r"https?://(localhost|127\.0\.0\.1):\$\{PORT\}/?")
_USUAL_TIMEOUT = 300  # seconds that Corral waits anyway
_UNGROUPED = "llama-swap"
_CONCURRENCY = 10

_MODEL = frozenset(
    {
        "cmd",
        "cmdStop",
        "proxy",
        "aliases",
        "env",
        "ttl",
        "checkEndpoint",
        "unlisted",
        "useModelName",
        "filters",
        "macros",
    }
    | {"concurrencyLimit", "name", "description"}
)
_WHOLE = frozenset({"models", "groups", "hooks", "healthCheckTimeout", "macros", "globalTTL"})
_OWN_WAY: Mapping[str, str] = {
    "apiKeys": "Keys are not taken over: set Corral's own, see docs/configuration.md.",
    "matrix": "Which models stand together follows from the memory there is; rules are written as `groups`.",
    "profiles": "Which models stand together follows from the memory there is; rules are written as `groups`.",
    "startPort": "Ports are chosen anew at each start.",
}


class _UnfitError(Exception):
    """Why a model cannot be taken over."""


def plan_llama_swap(path: Path, env: Mapping[str, str]) -> ImportPlan:
    """What a `config.yaml` of llama-swap becomes. `env` fills in `${env.NAME}`. Blocks.

    Raises:
        ConfigError: the file cannot be read, or is none of llama-swap's.
    """
    content = _content(path)
    skipped: list[tuple[str, str]] = []
    models: dict[str, Mapping[str, Any]] = {}
    macros, preload = mapping(content.get("macros")), _preloaded(content)
    for key, item in mapping(content.get("models")).items():
        name = str(key)
        try:
            check_name(name)
            entry = _Entry(name, mapping(item), {**macros, **mapping(mapping(item).get("macros"))}, env)
            made, aliases = entry.made(content.get("globalTTL"))
        except InvalidName as error:
            skipped.append((name[:200], error.message))
            continue
        except _UnfitError as error:
            skipped.append((name, str(error)))
            continue
        more = {"preload": True} if name in preload else {}
        models[name] = {**made, **({"aliases": aliases} if aliases else {}), **more}
        skipped += [(name, reason) for reason in entry.reasons]
    groups = _groups(content, models, skipped)
    for name, remote in _peers(content, macros, models, skipped).items():
        models[name] = {**remote, **({"preload": True} if name in preload else {})}
    skipped += [(name, _OWN_WAY.get(name, "Not taken over.")) for name in sorted(map(str, content.keys() - _WHOLE))]
    skipped += [
        (name, "It is preloaded, and no model that was taken over.") for name in sorted(preload - models.keys())
    ]
    timeout = content.get("healthCheckTimeout")
    if isinstance(timeout, int) and timeout > _USUAL_TIMEOUT:
        reason = f"It holds for all models here: write engines: {{load_timeout: {timeout}}}."
        skipped.append(("healthCheckTimeout", reason))
    return ImportPlan(models=models, groups=groups, skipped=tuple(skipped))


class _Entry:
    """One model: its settings with all macros filled in, made into an entry for corral.yaml."""

    def __init__(self, name: str, item: Mapping[str, Any], macros: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self.reasons: list[str] = []
        self._item = item
        self._env = env
        known: dict[str, str] = {"MODEL_ID": name}
        for macro, value in macros.items():
            known[str(macro)] = self._filled(_text(value), known)
        self._macros = known

    def made(self, usual_ttl: object) -> tuple[dict[str, Any], list[str]]:
        """The entry, and the other names it is asked for by."""
        cmd = self._text("cmd").strip()
        if not cmd:
            raise _UnfitError("It has no `cmd`.")
        options: dict[str, Any] = {"cmd": self._words("cmd", cmd)}
        self._address(options, cmd)
        self._check(options)
        stop = self._text("cmdStop").strip()
        if stop:
            options["cmd_stop"] = self._words("cmdStop", stop)
        if self._item.get("useModelName"):
            options["upstream_model"] = self._text("useModelName")
        self._environment(options)
        self._filters(options)
        entry: dict[str, Any] = {"runtime": "command", "options": options}
        entry["idle_timeout"] = self._idle(usual_ttl)
        limit = self._item.get("concurrencyLimit")
        entry["concurrency"] = limit if isinstance(limit, int) and limit > 0 else _CONCURRENCY
        if self._item.get("unlisted"):
            self.reasons.append("`unlisted` is not taken over: Corral lists all models.")
        for shown in ("name", "description"):
            if self._item.get(shown):
                self.reasons.append(f"`{shown}` is not taken over: Corral has no such text.")
        strange = sorted(map(str, self._item.keys() - _MODEL))
        if strange:
            self.reasons.append(f"Not taken over: {', '.join(strange)[:200]}.")
        return entry, self._other_names()

    def _filled(self, text: str, macros: dict[str, str]) -> str:
        def environment(found: re.Match[str]) -> str:
            if found[1] not in self._env:
                raise _UnfitError(f"It says ${{env.{found[1]}}}, and the environment has no {found[1]}.")
            return self._env[found[1]]

        text = _ENV.sub(environment, text)
        for name in reversed(macros):  # one macro may hold those that were defined before it
            text = text.replace(f"${{{name}}}", macros[name])
        return text

    def _text(self, key: str) -> str:
        text = self._filled(_text(self._item.get(key)), self._macros)
        unknown = _LEFT.search(text)
        if unknown:
            raise _UnfitError(f"`{key}` says ${{{unknown[1][:60]}}}, which no macro defines.")
        return text

    def _words(self, key: str, text: str) -> list[str]:
        rows = [row.removesuffix("\\") for row in text.splitlines() if not row.lstrip().startswith("#")]
        try:
            return shlex.split("\n".join(rows))
        except ValueError as error:
            raise _UnfitError(f"`{key}` cannot be split into words: {error}.") from error

    def _address(self, options: dict[str, Any], cmd: str) -> None:
        """Where it listens: said only where that is not what goes without saying."""
        proxy = self._text("proxy").strip()
        if not proxy and "${PORT}" not in cmd:
            raise _UnfitError("Neither its `cmd` says ${PORT} nor a `proxy` where it listens.")
        if not proxy or (_LOOPBACK.fullmatch(proxy) and "${PORT}" in cmd):
            return
        if not proxy.startswith("http://"):
            raise _UnfitError("Its `proxy` is no address of plain HTTP.")
        host, slash, path = proxy.removeprefix("http://").partition("/")
        options["url"] = f"http://{host}"
        if slash and path.strip("/"):
            options["base_path"] = f"/{path.strip('/')}/v1"

    def _check(self, options: dict[str, Any]) -> None:
        path = self._text("checkEndpoint").strip()
        if path and path != "/health":
            options["health"] = path if path == "none" or path.startswith("/") else f"/{path}"

    def _environment(self, options: dict[str, Any]) -> None:
        listed = self._item.get("env")
        pairs = (
            [self._filled(_text(item), self._macros).partition("=") for item in listed]
            if isinstance(listed, list)
            else []
        )
        good = {name: value for name, equals, value in pairs if name and equals}
        if good:
            options["env"] = good
        if len(good) < len(pairs):
            self.reasons.append("A line of `env` is not NAME=value.")

    def _filters(self, options: dict[str, Any]) -> None:
        filters = mapping(self._item.get("filters"))
        stripped = self._filled(_text(filters.get("stripParams") or filters.get("strip_params")), self._macros)
        names = sorted({name.strip() for name in stripped.split(",")} - {"", "model"})
        if names:
            options["strip"] = names
        given = {str(name): value for name, value in mapping(filters.get("setParams")).items() if name != "model"}
        if given:
            options["set"] = json.loads(self._filled(json.dumps(given), self._macros))
        strange = sorted(map(str, filters.keys() - {"stripParams", "strip_params", "setParams"}))
        if strange:
            self.reasons.append(f"Not taken over from `filters`: {', '.join(strange)[:200]}.")

    def _idle(self, usual: object) -> float | str:
        """llama-swap's `ttl`, of which 0 is never, and -1 what is usual."""
        own = self._item.get("ttl", -1)
        ttl = usual if not isinstance(own, (int, float)) or own < 0 else own
        return ttl if isinstance(ttl, (int, float)) and ttl > 0 else "never"

    def _other_names(self) -> list[str]:
        listed = self._item.get("aliases")
        found = (
            [item.get("id") if isinstance(item, dict) else item for item in listed] if isinstance(listed, list) else []
        )
        return [self._filled(str(item), self._macros) for item in found if item]


def _groups(
    content: Mapping[str, Any], models: Mapping[str, Any], skipped: list[tuple[str, str]]
) -> dict[str, Mapping[str, Any]]:
    """The groups, and for all models that are in none llama-swap's own rule: one at a time, alone."""
    groups: dict[str, Mapping[str, Any]] = {}
    grouped: set[str] = set()
    for key, item in mapping(content.get("groups")).items():
        group = mapping(item)
        listed = group.get("members")
        members = [str(member) for member in listed] if isinstance(listed, list) else []
        known = [member for member in members if member in models]
        skipped += [
            (str(key), f"{member!r} is no model that was taken over.") for member in members if member not in models
        ]
        grouped |= set(known)
        if known:
            groups[str(key)] = {
                "members": known,
                "swap": bool(group.get("swap", True)),
                "exclusive": bool(group.get("exclusive", True)),
                "persistent": bool(group.get("persistent", False)),
            }
    alone = [name for name in models if name not in grouped]
    if alone and "matrix" not in content:
        groups[_UNGROUPED] = {"members": alone, "swap": True, "exclusive": True, "persistent": False}
    return groups


def _peers(
    content: Mapping[str, Any], macros: Mapping[str, Any], taken: Mapping[str, Any], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Models of servers elsewhere. One that is here as well is asked here, as llama-swap does."""
    found: dict[str, dict[str, Any]] = {}
    for key, item in mapping(content.get("peers")).items():
        peer, where = mapping(item), f"peers.{key}"[:200]
        proxy = _text(peer.get("proxy")).rstrip("/")
        if not proxy.startswith(("http://", "https://")) or set(proxy) & set("?#@${} "):
            skipped.append((where, "Its `proxy` is no address, or has more in it than one."))
            continue
        shared: dict[str, Any] = {"base_url": f"{proxy}/v1"}
        shared |= _peers_key(where, peer, macros, skipped) | _peers_filters(where, peer, skipped)
        for name in map(str, listed if isinstance(listed := peer.get("models"), list) else []):
            try:
                check_name(name)
            except InvalidName as error:
                skipped.append((name[:200], error.message))
                continue
            if name in taken or name in found:
                skipped.append((where, f"{name!r} is a model already."))
                continue
            found[name] = {"runtime": "openai", "options": {**shared, "upstream_model": name}}
        strange = sorted(map(str, peer.keys() - {"proxy", "apiKey", "models", "filters"}))
        if strange:
            skipped.append((where, f"Not taken over: {', '.join(strange)[:200]}."))
    return found


def _peers_key(
    where: str, peer: Mapping[str, Any], macros: Mapping[str, Any], skipped: list[tuple[str, str]]
) -> dict[str, Any]:
    """The variable that holds a peer's key; the key itself is never taken over."""
    said = _text(peer.get("apiKey")).strip()
    if not said:
        return {}
    macro = _LEFT.fullmatch(said)
    if macro is not None and macro[1] in macros:
        said = _text(macros[macro[1]]).strip()
    named = _ENV.fullmatch(said)
    if named is not None:
        return {"api_key_env": named[1]}
    variable = re.sub(r"[^A-Z0-9]+", "_", where.partition(".")[2].upper()).strip("_")
    variable = f"{variable if variable[:1].isalpha() else f'PEER_{variable}'}_API_KEY"
    skipped.append(
        (where, f"Its key is written in the file, and is not copied: export {variable}=… where Corral runs.")
    )
    return {"api_key_env": variable}


def _peers_filters(where: str, peer: Mapping[str, Any], skipped: list[tuple[str, str]]) -> dict[str, Any]:
    filters = mapping(peer.get("filters"))
    stripped = {name.strip() for name in _text(filters.get("stripParams")).split(",")} - {"", "model"}
    found: dict[str, Any] = {"drop": sorted(stripped)} if stripped else {}
    given = {str(name): value for name, value in mapping(filters.get("setParams")).items() if name != "model"}
    if given:
        found["extra"] = given
        skipped.append((where, "`setParams` fills in what a request does not say; what it says is not overridden."))
    strange = sorted(map(str, filters.keys() - {"stripParams", "setParams"}))
    if strange:
        skipped.append((where, f"Not taken over from `filters`: {', '.join(strange)[:200]}."))
    return found


def _preloaded(content: Mapping[str, Any]) -> set[str]:
    listed = mapping(mapping(content.get("hooks")).get("on_startup")).get("preload")
    return {str(item) for item in listed} if isinstance(listed, list) else set()


def _content(path: Path) -> Mapping[str, Any]:
    content = yaml_mapping(path)
    if not isinstance(content.get("models"), dict):
        raise ConfigError(f"{path} has no mapping `models`.", "It should be a config.yaml of llama-swap.")
    return content


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
