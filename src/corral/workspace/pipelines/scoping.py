"""What templates of a run see: its inputs, the project's material as it was, and what its steps have made. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corral.domain.workspace import ContextKind

if TYPE_CHECKING:
    from corral.domain.workspace import Run


@dataclass(frozen=True, slots=True)
class File:
    """A file that a step wrote: its `kind` as in `workspace/code/languages.py`, and what its parser found."""

    name: str
    kind: str
    text: str
    problems: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a step, or one item of it, came to. `value` is its output as JSON, where that is its contract."""

    output: str | None = None
    value: Any = None
    files: tuple[File, ...] = ()
    skipped: bool = False

    def seen(self) -> dict[str, Any]:
        """As templates see it."""
        return {
            "output": self.output,
            "value": self.value,
            "files": [{"name": file.name, "kind": file.kind, "content": file.text} for file in self.files],
            "skipped": self.skipped,
        }


SKIPPED = Result(skipped=True)
"""What a step came to that was not done."""


def gathered(items: Sequence[Result]) -> tuple[Result, list[dict[str, Any]]]:
    """What a step that fanned out came to, and its items as templates see them."""
    values = [each.value for each in items]
    whole = Result(
        "\n\n".join(each.output for each in items if each.output),
        None if all(value is None for value in values) else values,
        tuple(file for each in items for file in each.files),
    )
    return whole, [{**each.seen(), "index": index} for index, each in enumerate(items)]


def base_scope(run: Run) -> dict[str, Any]:
    """What every template of a run sees before anything is done."""
    return {"inputs": dict(run.inputs), "context": _context(run.material), "steps": {}, "run": {"seed": run.seed}}


def _context(material: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    pieces: dict[str, list[dict[str, str]]] = {kind: [] for kind in ContextKind}
    for each in material:
        kind = str(each["kind"])
        if kind == ContextKind.VARIABLES:
            variables.update(each.get("variables") or {})
        elif kind in pieces:
            pieces[kind].append({"name": str(each["name"]), "text": str(each.get("text") or "")})
    return {
        "instructions": "\n\n".join(piece["text"] for piece in pieces[ContextKind.INSTRUCTIONS] if piece["text"]),
        "files": pieces[ContextKind.FILE] + pieces[ContextKind.DOCUMENT],
        "documents": pieces[ContextKind.DOCUMENT],
        "variables": variables,
    }
