"""For how long nobody was at a run: so that its time, and that of its steps, is the time of their work.

A rest is from when to when nobody was at it, in Unix seconds. That it has begun is written down when it does, but for a
run that was killed: that rests since the last thing which is known of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corral.domain.workspace import Run, Step
    from corral.workspace.pipelines.journal import Answer

Rest = tuple[float, float]


def last_seen(run: Run, steps: Iterable[Step], answers: Iterable[Answer]) -> float:
    """When, by what is written down, somebody was last at a run that has begun. The journal's answers are newer."""
    known = [at for step in steps for at in (step.started_at, step.ended_at) if at is not None]
    # Killed before it had anything to write, it had gone on when its pauses until then were over.
    return max([(run.started_at or 0.0) + run.paused_seconds, *known, *(answer.at for answer in answers)])


def of_run(run: Run, rest: Rest | None) -> float:
    """Seconds for which nobody was at the run, when a rest has ended."""
    return run.paused_seconds + (0.0 if rest is None else rest[1] - rest[0])


def of_step(step: Step, before: float, rest: Rest | None) -> float:
    """Seconds of a step's time for which nobody was at the run: `before`, and what of a rest lies in that time."""
    if rest is None or step.started_at is None:
        return before
    until = rest[1] if step.ended_at is None else min(rest[1], step.ended_at)
    return before + max(until - max(rest[0], step.started_at), 0.0)
