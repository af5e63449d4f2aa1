"""Two runs side by side: what was asked, what each step answered, what came of it, and what that took."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corral.domain.money import NANO
from corral.domain.workspace import Artifact, Run, Step
from corral.workspace.code import diffs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

LARGEST = 1024**2
"""Bytes of two texts together whose lines are compared here; of larger ones only whether they are the same."""
TOGETHER = 16 * LARGEST
"""Bytes of all texts whose lines are compared in one go."""
_LONGEST = 200_000
"""Characters of an output that are told."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its steps, and its artifacts as it made them."""

    run: Run
    steps: tuple[Step, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(slots=True)
class _Room:
    """How many bytes of text may still be compared line by line."""

    left: int = TOGETHER

    def refusal(self, size: int) -> str:
        """Why texts of that size together are not compared; empty where they are, and then they are counted."""
        if size > LARGEST:
            return "too large to be compared line by line"
        if size > self.left:
            return "more than is compared in one go"
        self.left -= size
        return ""


async def compare(a: RunView, b: RunView, read: Callable[[Artifact], Awaitable[bytes]]) -> dict[str, Any]:
    """How two runs differ, as JSON. `read` gives the content of an artifact; of two at a time at most.

        a, b          {id, name, title, status, seed, models, cost_usd, input_tokens, output_tokens, seconds, …}
        difference    {cost_usd, input_tokens, output_tokens, seconds}: b less a; None where one is not known
        same          {source, inputs, material, models, seed}: whether both were given the same
        changed       {inputs, models}: {name: [of a, of b]}
        steps         [{key, equal, a, b, diff}], in the order of a, then what only b has
        artifacts     [{name, equal, a, b, diff}], likewise
        equal         whether all outputs and artifacts are the same

    A step is {status, model, output, error, attempt, cost_usd, …}, an artifact {id, kind, size, digest}; None where
    a run has it not. `diff` is that of `diffs.compare`; None for equal texts, for texts of one side, and for such as
    are no text, too large or too many, where `reason` says so.
    """
    room = _Room()
    steps = await asyncio.to_thread(_steps, a, b, room)
    artifacts = await _artifacts(a, b, room, read)
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
    return max(entry.ended_at - entry.started_at - entry.paused_seconds, 0.0)


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


def _steps(a: RunView, b: RunView, room: _Room) -> list[dict[str, Any]]:
    left, right = ({step.key: step for step in view.steps} for view in (a, b))
    found = []
    for key in dict.fromkeys([*left, *right]):
        one, two = left.get(key), right.get(key)
        texts = [None if step is None else step.output for step in (one, two)]
        both = one is not None and two is not None
        told = _told(texts[0] or "", texts[1] or "", key, room) if both else _untold()
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


async def _artifacts(
    a: RunView, b: RunView, room: _Room, read: Callable[[Artifact], Awaitable[bytes]]
) -> list[dict[str, Any]]:
    left, right = ({artifact.name: artifact for artifact in view.artifacts} for view in (a, b))
    found = []
    for name in dict.fromkeys([*left, *right]):
        one, two = left.get(name), right.get(name)
        told, equal = _untold(), False
        if one is not None and two is not None:
            equal = one.digest == two.digest
            refusal = "" if equal else room.refusal(one.size + two.size)
            if refusal:
                told = _untold(refusal)
            elif not equal:
                told = await asyncio.to_thread(_differing, [await read(one), await read(two)], name)
        found.append({"name": name, "equal": equal, "a": _artifact(one), "b": _artifact(two), **told})
    return found


def _artifact(artifact: Artifact | None) -> dict[str, Any] | None:
    if artifact is None:
        return None
    return {"id": artifact.id, "kind": artifact.kind, "size": artifact.size, "digest": artifact.digest}


def _differing(contents: list[bytes], name: str) -> dict[str, Any]:
    """How two contents differ that are not the same. They are taken out, so that nobody holds them any longer."""
    b, a = contents.pop(), contents.pop()
    try:
        texts = a.decode(), b.decode()
    except UnicodeDecodeError:
        return _untold("not text")
    return {"diff": diffs.compare(*texts, names=(f"a/{name}", f"b/{name}")), "reason": ""}


def _told(a: str, b: str, name: str, room: _Room) -> dict[str, Any]:
    """How two texts differ."""
    if a == b:
        return _untold()
    refusal = room.refusal(len(a.encode()) + len(b.encode()))
    return (
        _untold(refusal) if refusal else {"diff": diffs.compare(a, b, names=(f"a/{name}", f"b/{name}")), "reason": ""}
    )


def _untold(reason: str = "") -> dict[str, Any]:
    return {"diff": None, "reason": reason}
