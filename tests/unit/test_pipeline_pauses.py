"""For how long nobody was at a run, and at a step of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.cli.pipelines_tree import View, lines, rested, told, worked
from corral.domain.workspace import Run, RunStatus, Step, StepStatus
from corral.errors import InvalidRequest
from corral.workspace.exports import records
from corral.workspace.pipelines import pauses
from corral.workspace.pipelines.journal import Answer


def run(**more: Any) -> Run:
    return Run(id="run-000000000001", project="p", name="page", source="", **{"started_at": 100.0, **more})


def step(**more: Any) -> Step:
    return Step(**{"run": "run-000000000001", "key": "a", "name": "a", "started_at": 110.0, **more})


def answer(at: float) -> Answer:
    return Answer("a", 1, "id", "m", at=at)


@pytest.mark.parametrize(
    ("paused", "steps", "answers", "seen"),
    [
        (0.0, [], [], 100.0),
        (0.0, [step(started_at=None)], [], 100.0),
        (0.0, [step(), step(ended_at=140.0)], [], 140.0),
        (0.0, [step(ended_at=140.0)], [answer(150.0), answer(120.0)], 150.0),
        # Killed twice, the second time before it had written anything: it went on at 190, after a pause of 90.
        (90.0, [step(ended_at=140.0)], [], 190.0),
    ],
)
def test_a_run_was_seen_last_when_the_last_was_written_of_it(
    paused: float, steps: list[Step], answers: list[Answer], seen: float
) -> None:
    assert pauses.last_seen(run(paused_seconds=paused), steps, answers) == seen


def test_a_rest_of_a_run_is_added_to_those_before() -> None:
    assert pauses.of_run(run(paused_seconds=5.0), (200.0, 230.0)) == 35.0
    assert pauses.of_run(run(paused_seconds=5.0), None) == 5.0


@pytest.mark.parametrize(
    ("started", "ended", "rest", "paused"),
    [
        (110.0, None, None, 0.0),
        (None, None, (120.0, 150.0), 0.0),
        (110.0, 160.0, (120.0, 150.0), 30.0),  # begun before, ended after
        (110.0, None, (120.0, 150.0), 30.0),
        (130.0, 160.0, (120.0, 150.0), 20.0),
        (155.0, 160.0, (120.0, 150.0), 0.0),  # begun after
        (110.0, 115.0, (120.0, 150.0), 0.0),  # ended before, though it is written down only now
        (110.0, 130.0, (120.0, 150.0), 10.0),
    ],
)
def test_of_a_rest_a_step_has_what_lies_in_its_time(
    started: float | None, ended: float | None, rest: tuple[float, float] | None, paused: float
) -> None:
    assert pauses.of_step(step(started_at=started, ended_at=ended), 7.0, rest) == 7.0 + paused


@pytest.mark.parametrize(
    ("timed", "seconds", "said"),
    [
        ({"started_at": 100.0, "ended_at": 160.0}, 60.0, ""),  # as an older server tells it
        ({"started_at": 100.0, "ended_at": 160.0, "paused_seconds": 0.4, "paused_at": None}, 59.6, ""),
        ({"started_at": 100.0, "ended_at": 4000.0, "paused_seconds": 3600.0}, 300.0, "paused 1h"),
        ({"started_at": 100.0, "ended_at": None, "paused_seconds": 10.0, "paused_at": None}, 890.0, "paused 10s"),
        ({"started_at": 100.0, "ended_at": None, "paused_seconds": 10.0, "paused_at": 150.0}, 40.0, "paused 14m 20s"),
        ({"started_at": 100.0, "ended_at": None, "paused_at": 2000.0}, 1900.0, ""),  # by a clock ahead of this one
    ],
)
def test_the_time_of_work_is_told_and_the_pause_beside_it(timed: dict[str, Any], seconds: float, said: str) -> None:
    assert worked(timed, 1000.0) == seconds
    assert rested(timed, 1000.0) == said


def test_a_tree_tells_the_time_of_work() -> None:
    timed = {"started_at": 100.0, "ended_at": 3720.0, "paused_seconds": 3600.0}
    counted = {"cost_usd": 0.0, "input_tokens": 1, "output_tokens": 1}
    one = {"key": "a", "name": "a", "index": None, "position": 0, "attempt": 1, "model": "m", "error": None}
    ended = {**one, **timed, **counted, "status": StepStatus.COMPLETED.value, "reason": ""}
    view = View({"id": "run-1", "name": "page", "status": RunStatus.COMPLETED.value, **timed, **counted})
    view.steps["a"] = ended
    head, _, row = lines(view, 3720.0, None, lambda text, _: text)
    assert "20s  paused 1h" in head
    assert "20s" in row
    assert told(View(), {"type": "step", "step": ended}) == ["a: completed — 2 tokens, $0.00, 20s, paused 1h"]


def test_an_archive_of_before_pauses_were_kept_is_taken() -> None:
    for entry in (run(ended_at=160.0), step(ended_at=160.0)):
        old = json.loads(records.write(entry))
        for name in ("paused_seconds", "paused_at"):
            old.pop(name, None)
        assert records.read(json.dumps(old).encode(), type(entry)) == entry
        with pytest.raises(InvalidRequest, match="has other fields than it should: ended_at"):
            records.read(json.dumps({name: old[name] for name in old if name != "ended_at"}).encode(), type(entry))
