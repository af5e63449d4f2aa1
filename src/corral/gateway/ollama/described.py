"""Models in Ollama's words: `/api/tags`, `/api/ps`, `/api/show`."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import orjson

from corral.catalog import published
from corral.domain.models import Capability
from corral.errors import CorralError
from corral.routing.keys import may_use, seen_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from corral.app import Corral
    from corral.app.corral import Definition
    from corral.domain.callers import Caller
    from corral.domain.models import Installed

_CAPABILITIES = {
    Capability.COMPLETION: "completion",
    Capability.CHAT: "completion",
    Capability.TOOLS: "tools",
    Capability.VISION: "vision",
    Capability.EMBEDDINGS: "embedding",
}
_INFO = {
    "block_count": "block_count",
    "context_length": "context_length",
    "embedding_length": "embedding_length",
    "head_count": "attention.head_count",
    "head_count_kv": "attention.head_count_kv",
    "vocab_size": "vocab_size",
}
"""Facts of a revision, and what they are called below the architecture's name."""
_PARAMETERS = {
    "context": "num_ctx",
    "max_tokens": "num_predict",
    "keep": "num_keep",
    **{
        name: name
        for name in (
            *("stop", "temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
            *("presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "seed"),
        )
    },
}
"""Options of ours that Ollama has as parameters, and their names there."""
_NEVER = 100 * 365 * 86400.0
"""Seconds from now that stand for a model that stays: clients want a moment."""
_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def shown(name: str) -> str:
    """The name as Ollama has it, with a tag: its clients put `latest` behind what has none, and look that up here."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def tags(corral: Corral, caller: Caller) -> dict[str, Any]:
    """Every model and route that the caller may ask for."""
    found = []
    for name in _names(corral, caller):
        with suppress(CorralError):  # what cannot be asked for is not offered; whoever names it is told why
            found.append(_entry(corral, name))
    return {"models": found}


def running(corral: Corral, caller: Caller) -> dict[str, Any]:
    """The models in the memory of this machine."""
    found = []
    for status in corral.supervisor.statuses():
        engine = status.engine
        if engine is None or engine.remote or engine.gone.is_set() or not may_use(caller, status.model):
            continue
        held = status.held
        left = engine.idle_timeout if status.idle_left is None else status.idle_left
        until = corral.clock.wall() + (min(left, _NEVER) if isfinite(left) else _NEVER)
        with suppress(CorralError):
            entry = _entry(corral, status.model)
            del entry["modified_at"]
            found.append(
                entry
                | {
                    "size": sum(held.values()),
                    "size_vram": sum(size for device, size in held.items() if device != "cpu"),
                    "expires_at": moment(until),
                    "context_length": engine.session.facts.context or 0,
                }
            )
    return {"models": found}


def show(corral: Corral, name: str, caller: Caller) -> dict[str, Any]:
    """All that Ollama tells of one model.

    Raises:
        ModelNotFound: the caller may ask for none of that name.
    """
    own = name if name in corral.routes.names() else corral.canonical(name)
    if not may_use(caller, own):
        raise corral.unknown(name, seen_by(caller))
    if own not in corral.routes.names():
        corral.definition(own, seen_by(caller))
    entry = _entry(corral, own)
    answer = {
        "modified_at": entry["modified_at"],
        "details": entry["details"],
        "capabilities": _capabilities(corral, own),
        "model_info": {},
        "modelfile": f"FROM {entry['name']}\n",
        "parameters": "",
        "template": "",
        "license": "",
    }
    if own in corral.routes.names():
        return answer
    definition = corral.definition(own)
    answer |= _said(definition)
    if definition.installed is not None:
        revision = definition.installed.revision
        answer["license"] = str(revision.facts.get("licence_text") or revision.licence or "")
        answer["model_info"] = _info(revision.facts)
        if not answer["template"]:
            answer["template"] = published.capabilities(revision)["prompt_template"] or ""
    return answer


def moment(seconds: float) -> str:
    """A moment as Ollama writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _names(corral: Corral, caller: Caller) -> Iterator[str]:
    return (name for name in dict.fromkeys((*corral.routes.names(), *corral.names())) if may_use(caller, name))


def _entry(corral: Corral, name: str) -> dict[str, Any]:
    definition = None if name in corral.routes.names() else corral.definition(name)
    installed = None if definition is None else definition.installed
    at = corral.clock.wall() if installed is None else installed.installed_at
    # Clients cut the digest to twelve characters without looking: what has no files gets one of its name.
    digest = hashlib.sha256(name.encode()).hexdigest() if installed is None else installed.revision.id
    return {
        "name": shown(name),
        "model": shown(name),
        "modified_at": moment(at),
        "size": 0 if installed is None else installed.revision.size,
        "digest": digest,
        "details": _details(definition, installed),
    }


def _details(definition: Definition | None, installed: Installed | None) -> dict[str, Any]:
    facts: Mapping[str, Any] = {} if installed is None else installed.revision.facts
    runtime = "route" if definition is None else definition.runtime
    family = str(facts.get("architecture") or runtime)
    parent = "" if definition is None or installed is None or installed.name == definition.name else installed.name
    return {
        "parent_model": shown(parent) if parent else "",
        "format": runtime if installed is None else installed.revision.format,
        "family": family,
        "families": [family],
        "parameter_size": _size(facts.get("parameters")),
        "quantization_level": str(facts.get("quantization") or ""),
    }


def _size(parameters: object) -> str:
    """How many parameters, as Ollama says it."""
    if not isinstance(parameters, int):
        return ""
    unit, letter = next(((unit, letter) for unit, letter in _UNITS if parameters >= unit), (1, ""))
    return f"{parameters / unit:.1f}{letter}" if letter else str(parameters)


def _capabilities(corral: Corral, name: str) -> list[str]:
    able: Iterable[Capability] | None = (
        None if name in corral.routes.names() else corral.routes.known(name).capabilities
    )
    if able is None:
        return ["completion"]
    return sorted({_CAPABILITIES[each] for each in able if each in _CAPABILITIES})


def _info(facts: Mapping[str, Any]) -> dict[str, Any]:
    family = str(facts.get("architecture") or "model")
    found: dict[str, Any] = {"general.architecture": family}
    if isinstance(facts.get("parameters"), int):
        found["general.parameter_count"] = facts["parameters"]
    return found | {f"{family}.{there}": facts[here] for here, there in _INFO.items() if here in facts}


def _said(definition: Definition) -> dict[str, str]:
    """What a model's options say of how it talks, as parameters, texts and the Modelfile that would say it."""
    options = definition.options
    lines = [
        (_PARAMETERS[name], each)
        for name, value in options.items()
        if name in _PARAMETERS
        for each in (value if isinstance(value, list | tuple) else [value])
    ]
    base = definition.name if definition.installed is None else definition.installed.name
    file = [f"FROM {shown(base)}"]
    found = {"parameters": "\n".join(f"{name:<30} {_literal(value)}" for name, value in lines)}
    template, system = options.get("chat_template"), options.get("system")
    if isinstance(template, str) and "{" in template:
        found["template"] = template
        file.append(f'TEMPLATE """{template}"""')
    if isinstance(system, str):
        found["system"] = system
        file.append(f'SYSTEM """{system}"""')
    file += [f"PARAMETER {name} {_literal(value)}" for name, value in lines]
    file += [f"MESSAGE {each['role']} {each['content']}" for each in options.get("opening") or ()]
    return found | {"modelfile": "\n".join(file) + "\n"}


def _literal(value: object) -> str:
    return orjson.dumps(value).decode() if isinstance(value, str) else str(value)
