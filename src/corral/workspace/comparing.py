"""Two runs side by side: what was asked, what each step answered, what came of it, and what that took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corral.domain.money import NANO
from corral.domain.workspace import Artifact, Run, Step
from corral.workspace.code import diffs

if TYPE_CHECKING:
    from collections.abc import Mapping


_LARGEST = 1024**2
"""Characters of the largest text whose lines are compared here; of a larger one only whether it is the same."""
_LONGEST = 200_000
"""Characters of an output that are told."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its steps, and its artifacts with their contents."""

    run: Run
    steps: tuple[Step, ...] = ()
    artifacts: tuple[tuple[Artifact, bytes], ...] = ()


def compare(a: RunView, b: RunView) -> dict[str, Any]:
    """How two runs differ, as JSON.

        a, b          {id, name, title, status, seed, models, cost_usd, input_tokens, output_tokens, seconds, …}
        difference    {cost_usd, input_tokens, output_tokens, seconds}: b less a; None where one is not known
        same          {source, inputs, material, models, seed}: whether both were given the same
        changed       {inputs, models}: {name: [of a, of b]}
        steps         [{key, equal, a, b, diff}], in the order of a, then what only b has
        artifacts     [{name, equal, a, b, diff}], likewise
        equal         whether all outputs and artifacts are the same

    A step is {status, model, output, error, attempt, cost_usd, …}, an artifact {id, kind, size, digest}; None where
    a run has it not. `diff` is that of `diffs.compare`; None for equal texts, for texts of one side, and for such as
    are no text or too large, where `reason` says so.
    """
    steps = _steps(a, b)
    artifacts = _artifacts(a, b)
    left, right = _run(a), _run(b)
    return {
        "a": left,
        "b": right,
        "difference": {
            name: _less(left[name], right[name]) for name in ("cost_usd", "input_tokens", "output_tokens", "seconds")
        },
        "same": {
            name: getattr(a.run, name) == getattr(b.run, name)
            for name in ("source", "inputs", "material", "models", "seed")
        },
        "changed": {"inputs": _changed(a.run.inputs, b.run.inputs), "models": _models(a, b)},
        "steps": steps,
        "artifacts": artifacts,
        "equal": all(one["equal"] for one in (*steps, *artifacts)),
    }


def _run(view: RunView) -> dict[str, Any]:
    run = view.run
    return {
        "id": run.id,
        "name": run.name,
        "title": run.title,
        "status": run.status.value,
        "seed": run.seed,
        "models": dict(run.models),
        "cost_usd": run.cost / NANO,
        "input_tokens": run.input_tokens,
        "output_tokens": run.output_tokens,
        "seconds": _seconds(run),
        "rerun_of": run.rerun_of,
        "reproducible": dict(run.reproducible),
    }


def _seconds(entry: Run | Step) -> float | None:
    if entry.started_at is None or entry.ended_at is None:
        return None
    return max(entry.ended_at - entry.started_at, 0.0)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else b - a


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*a, *b])
    return {
        name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name) or (name in a) != (name in b)
    }


def _models(a: RunView, b: RunView) -> dict[str, list[Any]]:
    """The models that answered, by step, where they are others."""
    left, right = ({step.key: step.model for step in view.steps} for view in (a, b))
    return {key: [left[key], right[key]] for key in left if key in right and left[key] != right[key]}


def _steps(a: RunView, b: RunView) -> list[dict[str, Any]]:
    left, right = ({step.key: step for step in view.steps} for view in (a, b))
    found = []
    for key in dict.fromkeys([*left, *right]):
        one, two = left.get(key), right.get(key)
        texts = [None if step is None else step.output for step in (one, two)]
        both = one is not None and two is not None
        told = _told(texts[0], texts[1], (f"a/{key}", f"b/{key}")) if both else {"diff": None, "reason": ""}
        equal = both and one is not None and two is not None and (one.status, one.output) == (two.status, two.output)
        found.append({"key": key, "equal": equal, "a": _step(one), "b": _step(two), **told})
    return found


def _step(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return {
        "status": step.status.value,
        "model": step.model,
        "output": None if step.output is None else step.output[:_LONGEST],
        "truncated": step.output is not None and len(step.output) > _LONGEST,
        "error": step.error,
        "attempt": step.attempt,
        "cost_usd": step.cost / NANO,
        "input_tokens": step.input_tokens,
        "output_tokens": step.output_tokens,
        "seconds": _seconds(step),
    }


def _artifacts(a: RunView, b: RunView) -> list[dict[str, Any]]:
    left, right = ({artifact.name: (artifact, content) for artifact, content in view.artifacts} for view in (a, b))
    found = []
    for name in dict.fromkeys([*left, *right]):
        one, two = left.get(name), right.get(name)
        told: dict[str, Any] = {"diff": None, "reason": ""}
        if one is not None and two is not None:
            texts = _text(one[1]), _text(two[1])
            if one[1] != two[1] and None in texts:
                told["reason"] = "not text"
            else:
                told = _told(texts[0], texts[1], (f"a/{name}", f"b/{name}"))
        equal = one is not None and two is not None and one[1] == two[1]
        found.append({"name": name, "equal": equal, "a": _artifact(one), "b": _artifact(two), **told})
    return found


def _artifact(found: tuple[Artifact, bytes] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    artifact, content = found
    return {"id": artifact.id, "kind": artifact.kind, "size": len(content), "digest": artifact.digest}


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _told(a: str | None, b: str | None, names: tuple[str, str]) -> dict[str, Any]:
    """How two texts differ; one that is None is empty."""
    a, b = a or "", b or ""
    if a == b:
        return {"diff": None, "reason": ""}
    if len(a) + len(b) > _LARGEST:
        return {"diff": None, "reason": "too large to be compared line by line"}
    return {"diff": diffs.compare(a, b, names=names), "reason": ""}
