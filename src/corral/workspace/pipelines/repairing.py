"""A pipeline of one step that mends an artifact: what is wrong with it goes to a model together with it. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from corral.errors import InvalidRequest
from corral.workspace.code.languages import KINDS

if TYPE_CHECKING:
    from corral.domain.workspace import Artifact

NAME = "repair"
_PROMPT = (
    "This file, {{ inputs.name }}, does not work:\n\n```{{ inputs.kind }}\n{{ inputs.content }}\n```\n\n"
    "What was reported:\n\n{{ inputs.error }}\n\n"
    "Mend it. Answer with the whole file in one block of code, and with nothing else."
)
_LONGEST = 200_000
"""Characters of a file that a model is given."""
_LONGEST_ERROR = 8_000


def repair_run(artifact: Artifact, content: bytes, error: str, model: str) -> tuple[str, dict[str, Any]]:
    """The source of the pipeline that mends `artifact`, and its inputs.

    Raises:
        InvalidRequest: it is no text, too long for a model, or nothing is said of what is wrong.
    """
    if not error.strip():
        raise InvalidRequest(
            "Nothing is said of what is wrong.", "Say what was seen, such as the error.", param="error"
        )
    if artifact.kind not in KINDS:
        raise InvalidRequest(f"{artifact.name} is {artifact.media_type}, which no model mends.")
    try:
        text = content.decode()
    except UnicodeDecodeError as problem:
        raise InvalidRequest(f"{artifact.name} is no text.") from problem
    if len(text) > _LONGEST:
        raise InvalidRequest(f"{artifact.name} has {len(text):,} characters; {_LONGEST:,} can be mended at most.")
    definition = {
        "name": NAME,
        "inputs": {name: {"type": "string"} for name in ("name", "kind", "content", "error")},
        "steps": {NAME: {"model": model, "prompt": _PROMPT, "output": {"code": artifact.kind}}},
    }
    inputs = {"name": artifact.name, "kind": artifact.kind, "content": text, "error": error[:_LONGEST_ERROR]}
    return json.dumps(definition), inputs  # JSON is YAML
