"""The small layers of a model of Ollama's, read: parameters, licences, configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from corral.errors import SourceError
from corral.kit import advice

_MOST_MESSAGES = 100
_ROLES = frozenset({"user", "assistant"})
_LONGEST_LICENCE = 32_000
_LONGEST_TITLE = 80


@dataclass(frozen=True, slots=True)
class Parameters:
    """Launch options by the names of the runtime `llamacpp`, and what cannot be honoured, with the reason."""

    options: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)


_OPTIONS: Mapping[str, str] = {
    "num_ctx": "context",
    "num_predict": "max_tokens",
    "num_keep": "keep",
    **{
        name: name
        for name in (
            *("stop", "temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
            *("presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "seed"),
        )
    },
}
"""What our launch options are called there."""

_OF_THE_MACHINE = frozenset(
    {"num_gpu", "main_gpu", "num_thread", "num_batch", "low_vram", "numa", "use_mmap", "use_mlock"}
)


def parameters(data: bytes, what: str) -> Parameters:
    """What the layer of parameters says; `what` names it in errors.

    Raises:
        SourceError: it is no JSON object.
    """
    options: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for name, value in _object(data, what).items():
        option = _OPTIONS.get(name)
        given = [value] if option == "stop" and isinstance(value, str) else value
        if option is None:
            ours = "it is about the machine, which is yours" if name in _OF_THE_MACHINE else "nothing here does that"
            ignored[name[:100]] = f"{value!r:.80}: {ours}"
        elif not advice.OPTIONS[option](given):
            ignored[name] = f"{value!r:.80}: no such value can be set"
        else:
            options[option] = given
    return Parameters(options, ignored)


def messages(data: bytes) -> list[dict[str, str]] | None:
    """The messages that every conversation begins with; None when they are of a kind that cannot be honoured."""
    try:
        content = orjson.loads(data)
    except ValueError:
        return None
    if not isinstance(content, list) or len(content) > _MOST_MESSAGES:
        return None
    found = [
        {"role": item["role"], "content": item["content"]}
        for item in content
        if isinstance(item, dict) and item.get("role") in _ROLES and isinstance(item.get("content"), str)
    ]
    return found if len(found) == len(content) else None


def configuration(data: bytes, what: str) -> Mapping[str, Any]:
    """What the configuration says.

    Raises:
        SourceError: it is no JSON object.
    """
    return _object(data, what)


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        content = orjson.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise SourceError(f"{what} is no JSON object.", "The model was not made as Ollama makes them.")
    return cast("dict[str, Any]", content)


_LICENCES: tuple[tuple[str, str], ...] = (
    (r"\bapache license\b", "Apache-2.0"),
    (r"^apache-2\.0$", "Apache-2.0"),
    (r"\bmit license\b|^mit$", "MIT"),
    (r"\bbsd 3-clause\b|^bsd-3-clause$", "BSD-3-Clause"),
    (r"\bbsd 2-clause\b|^bsd-2-clause$", "BSD-2-Clause"),
    (r"creative commons attribution-noncommercial 4\.0|^cc-by-nc-4\.0$", "CC-BY-NC-4.0"),
    (r"creative commons attribution 4\.0|^cc-by-4\.0$", "CC-BY-4.0"),
    (r"gnu affero general public license", "AGPL-3.0-only"),
    (r"gnu general public license", "GPL-3.0-only"),
    (r"^gemma terms of use", "gemma"),
    (r"^deepseek license", "deepseek"),
)
_LLAMA = re.compile(r"llama (\d(?:\.\d)?)(?: version release date| community license)", re.IGNORECASE)


def licence(texts: Sequence[str]) -> str | None:
    """What the licence is called: its SPDX name or the one the field uses, else its first line. None without one."""
    for text in texts:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        head = " ".join(lines[:3])
        llama = _LLAMA.search(head)
        if llama is not None:
            return f"llama{llama[1]}"
        for pattern, name in _LICENCES:
            if re.search(pattern, head.lower()):
                return name
        if lines:
            return lines[0][:_LONGEST_TITLE]
    return None


def licence_text(texts: Sequence[str]) -> str:
    """All licences as one text, cut where it becomes too long."""
    whole = "\n\n".join(text.strip() for text in texts)
    return whole if len(whole) <= _LONGEST_LICENCE else f"{whole[:_LONGEST_LICENCE]}\n…"
