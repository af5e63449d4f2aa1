"""What other programs on this machine have, as Corral would take it over: read, planned, and changed by nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from corral.catalog.library import Library, shipped
from corral.domain.models import check_name
from corral.errors import ConfigError, InvalidName, SourceError
from corral.kit.ollama_store import Name, OllamaStore

_MODEL = "application/vnd.ollama.image.model"
_ADAPTER = "application/vnd.ollama.image.adapter"
_MOST_TEXT = 1 << 20
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
_VENDORS: Mapping[str, tuple[str, str]] = {
    "anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "claude": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "google": ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "gpt": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "grok": ("https://api.x.ai/v1", "XAI_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY"),
}
"""Where each vendor speaks OpenAI's dialect, and the variable its own clients read the key from."""

_KNOWN = frozenset(
    {"name", "model_type", "local", "api_key_env", "context_length", "base_url", "source", "path", "model_path"}
)


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would do.

    `installs` are references to install, each with the name to install it under. `models` are entries for `models:` in
    corral.yaml, `groups`, `routes` and `prices` for those; `sections` are single settings, such as
    `{"routing": {"retries": 2}}`. `skipped` names what is left out, or is not taken over whole, and why.
    """

    installs: tuple[tuple[str, str], ...] = ()
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    routes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()


def yaml_mapping(path: Path) -> Mapping[str, Any]:
    """What a YAML file of another program holds; empty where that is no mapping. Blocks.

    Raises:
        ConfigError: it cannot be read.
    """
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(_MOST_TEXT + 1)
        content = yaml.safe_load(data) if len(data) <= _MOST_TEXT else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML.", "Check the file.") from error
    return content if isinstance(content, dict) else {}


def mapping(value: object) -> Mapping[str, Any]:
    """`value` where it is a mapping; else an empty one."""
    return value if isinstance(value, dict) else {}


def plan_ollama(folder: Path) -> ImportPlan:
    """Install every whole model of Ollama's `folder` under the name that it has there, from the files that lie there.

    An update of such a model asks the registry it came from. Blocks.

    Raises:
        SourceError: it is no folder of Ollama's models.
    """
    store = OllamaStore(folder.expanduser().absolute())
    installs: list[tuple[str, str]] = []
    skipped: list[tuple[str, str]] = []
    for name in store.names():
        reason = _unfit(store, name)
        if reason:
            skipped.append((str(name), reason))
        else:
            installs.append((f"ollama:{store.folder}#{name}", str(name)))
    return ImportPlan(installs=tuple(installs), skipped=tuple(skipped))


def _unfit(store: OllamaStore, name: Name) -> str:
    """Why the model cannot be taken over; empty when it can."""
    try:
        check_name(str(name))
        manifest, _ = store.manifest(name)
    except FileNotFoundError:
        return "It was removed just now."
    except (InvalidName, SourceError) as error:
        return error.message
    kinds = {layer.media_type for layer in manifest.layers}
    if _ADAPTER in kinds:
        return "It is a model with an adapter on top, which is not supported."
    if _MODEL not in kinds:
        return "It has no GGUF file: a cloud model, or one in another format."
    missing = sum(store.blob(layer) is None for layer in manifest.layers)
    if missing:
        return f"{missing} of its {len(manifest.layers)} files are not there whole: its pull was not finished."
    return ""


def plan_models_json(path: Path, library: Library | None = None) -> ImportPlan:
    """Entries for corral.yaml from a `config/models.json`: `{"models": [{"name", "model_type", "local", …}]}`.

    A local model runs on llama.cpp, from what its `source` or `path` names or from the library when its name is there.
    A model in the cloud is reached in OpenAI's dialect, which all of the vendors known here speak. Blocks.

    Raises:
        ConfigError: the file cannot be read, or is no such file.
    """
    known = shipped() if library is None else library
    models: dict[str, Mapping[str, Any]] = {}
    skipped: list[tuple[str, str]] = []
    for number, item in enumerate(_entries(path), 1):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            skipped.append((f"entry {number}", "It has no name."))
            continue
        entry = cast("dict[str, Any]", item)
        made = _entry(name, entry, known, path.parent) if name not in models else "Its name is there twice."
        if isinstance(made, str):
            skipped.append((name[:200], made))
            continue
        models[name] = made
        strange = sorted(set(entry) - _KNOWN)
        if strange:
            skipped.append((name, f"Not taken over: {', '.join(strange)[:200]}."))
    return ImportPlan(models=models, skipped=tuple(skipped))


def _entries(path: Path) -> list[object]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_TEXT + 1)
        content = json.loads(data) if len(data) <= _MOST_TEXT else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON.", "Check the file.") from error
    entries = content.get("models") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"{path} has no list `models`.", 'It should read {"models": [{"name": …, …}]}.')
    return entries


def _entry(name: str, entry: Mapping[str, Any], library: Library, folder: Path) -> Mapping[str, Any] | str:
    """The entry for corral.yaml, or why there is none."""
    try:
        check_name(name)
    except InvalidName as error:
        return error.message
    context, local = entry.get("context_length"), entry.get("local", True)
    if not isinstance(local, bool):
        return "`local` must be true or false."
    if context is not None and (not isinstance(context, int) or isinstance(context, bool) or context < 1):
        return "`context_length` must be a positive whole number."
    options = {} if context is None else {"context": context}
    if local:
        return _local(name, entry, options, library, folder)
    return _cloud(name, entry, options)


def _local(
    name: str, entry: Mapping[str, Any], options: Mapping[str, Any], library: Library, folder: Path
) -> Mapping[str, Any] | str:
    source, file = entry.get("source"), entry.get("path") or entry.get("model_path")
    if not isinstance(source, str) or not source:
        if isinstance(file, str) and file:
            source = f"file:{(folder / Path(file).expanduser()).absolute()}"
        elif library.find(name) is not None:
            source = name
        else:
            return 'It names no file. Give it one, "path": "FILE.gguf", or where to pull it from, "source": "hf:…".'
    return {"source": source, "runtime": "llamacpp", **({"options": options} if options else {})}


def _cloud(name: str, entry: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any] | str:
    kind, variable, address = entry.get("model_type"), entry.get("api_key_env"), entry.get("base_url")
    vendor = _VENDORS.get(kind.lower()) if isinstance(kind, str) else None
    if variable is None and vendor is not None:
        variable = vendor[1]
    if variable is not None and (not isinstance(variable, str) or not _VARIABLE.fullmatch(variable)):
        return "`api_key_env` must name an environment variable; a key itself does not belong into a file."
    if address is None and vendor is not None:
        address = vendor[0]
    if not isinstance(address, str):
        return f'No address is known for vendors of the type {str(kind)[:80]!r}. Give it one: "base_url": "https://…".'
    key = {} if variable is None else {"api_key_env": variable}
    return {"runtime": "openai", "options": {"base_url": address, **key, "upstream_model": name, **options}}
