"""What a model can do, read from its own files: never from its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from corral.domain.models import Capability

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.catalog.gguf import Header

_ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "modern-bert", "jina-bert-v2", "jina-bert-v3", "eurobert"}
    | {"gemma-embedding", "llama-embed", "t5encoder"}
)
_PROJECTORS = frozenset({"clip", "mmproj"})
_NO_POOLING = 0
_PRINTS_ROLE = re.compile(r"\{\{[^}]*\brole\b")


def is_projector(header: Header) -> bool:
    """Whether the file is no model but the eyes of one: a multimodal projector."""
    return header.architecture in _PROJECTORS or header.text("general.type") in _PROJECTORS


def read(header: Header, defaults: Mapping[str, Any], *, sees: bool = False) -> frozenset[Capability]:
    """What a model with that header can do, launched with `defaults`; `sees`: a projector comes with it.

    A chat template among the defaults counts instead of the file's own. Any model that writes text can be held to a
    JSON schema, since that is done by choosing among its tokens.
    """
    pooling = header.number("pooling_type")
    if header.architecture in _ENCODERS or (isinstance(pooling, int) and pooling != _NO_POOLING):
        return frozenset({Capability.EMBEDDINGS})
    able = {Capability.COMPLETION, Capability.JSON_SCHEMA}
    template = defaults.get("chat_template") or header.chat_template
    if template:
        able |= _of_template(str(template))
    if sees:
        able.add(Capability.VISION)
    return frozenset(able)


def _of_template(template: str) -> set[Capability]:
    able = {Capability.CHAT}
    # A template that prints each role as it comes (ChatML) takes a system message without naming it; one that names
    # the role only to refuse it does not.
    refuses = "raise_exception" in template and "system role not supported" in template.lower()
    if not refuses and ("system" in template or _PRINTS_ROLE.search(template)):
        able.add(Capability.SYSTEM_ROLE)
    if "tools" in template or "tool_calls" in template:
        able.add(Capability.TOOLS)
    return able
