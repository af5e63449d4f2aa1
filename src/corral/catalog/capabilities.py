"""What a model can do, read from its own files: never from its name. See docs/formats.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from corral.catalog import prompting, snapshots
from corral.domain.models import Capability

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from corral.catalog.formats import Shape
    from corral.catalog.gguf import Header
    from corral.catalog.prompting import Prompting, Template

_ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "modern-bert", "jina-bert-v2", "jina-bert-v3", "eurobert"}
    | {"gemma-embedding", "llama-embed", "t5encoder"}
)
_NO_POOLING = 0
_RANK = 4
_WRITES: Final = frozenset({Capability.COMPLETION, Capability.JSON_SCHEMA})

# `general.sampling.*` of a GGUF, in the words that requests use.
_SAMPLING: Final = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "repeat_last_n",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
_LARGEST: Final = 1 << 32
_LANGUAGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9\-_ ]{1,40}")


@dataclass(frozen=True, slots=True)
class Found:
    """What was read from a model's files; `facts` are ready for JSON."""

    capabilities: frozenset[Capability]
    facts: dict[str, Any] = field(default_factory=dict)


def template_of(shape: Shape, defaults: Mapping[str, Any]) -> Template | None:
    """The chat template that counts: one among the defaults, else the files' own."""
    pinned = defaults.get("chat_template")
    if isinstance(pinned, str) and pinned:
        return prompting.Template(pinned)
    if shape.header is None:
        return snapshots.template(shape)
    own = shape.header.chat_template
    return prompting.Template(own, shape.header.text("tokenizer.chat_template.tool_use")) if own else None


def of_shape(
    shape: Shape, defaults: Mapping[str, Any], probe: Callable[[Template], Prompting] = prompting.probe
) -> Found:
    """What the model that the files make up can do, launched with `defaults`, and its facts. Blocks.

    A chat template among the defaults counts instead of the files' own. Any model that writes text can be held to a
    JSON schema, since that is done by choosing among its tokens.

    Raises:
        CorruptModel: a snapshot's config.json cannot be read.
    """
    if shape.header is not None:
        able, facts = _of_header(shape.header, sees=shape.sees), _facts(shape.header)
    else:
        able, facts = snapshots.read(shape)
    template = template_of(shape, defaults)
    if template is None or Capability.COMPLETION not in able:
        return Found(able, facts)
    answer = probe(template)
    facts["allowed_roles"] = list(answer.roles)
    if "chat_template" not in defaults and answer.error != prompting.TOO_LONG:
        facts["chat_template"] = template.text
    if answer.error is not None:
        facts["template_error"] = answer.error
        return Found(able, facts)
    able |= {Capability.CHAT}
    able |= {Capability.SYSTEM_ROLE} if "system" in answer.roles else frozenset()
    able |= {Capability.TOOLS} if answer.tools else frozenset()
    return Found(able, facts)


def _of_header(header: Header, *, sees: bool) -> frozenset[Capability]:
    pooling = header.number("pooling_type")
    if pooling == _RANK:
        return frozenset({Capability.RERANK})
    if header.architecture in _ENCODERS or (isinstance(pooling, int) and pooling != _NO_POOLING):
        return frozenset({Capability.EMBEDDINGS})
    return _WRITES | ({Capability.VISION} if sees else frozenset())


def _facts(header: Header) -> dict[str, Any]:
    facts = header.facts()
    languages = [text for text in header.texts("general.languages") if _LANGUAGE.fullmatch(text)]
    if languages:
        facts["languages"] = languages
    sampling = {
        ours: value
        for theirs, ours in _SAMPLING.items()
        if isinstance(value := header.metadata.get(f"general.sampling.{theirs}"), int | float)
        and not isinstance(value, bool)
        and abs(value) < _LARGEST  # nor what is no number
    }
    if sampling:
        facts["sampling"] = sampling
    return facts
