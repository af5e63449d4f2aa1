"""Two runs side by side."""

from __future__ import annotations

from dataclasses import replace

import orjson

from corral.domain.workspace import Artifact, Run, RunStatus, Step, StepStatus
from corral.workspace.comparing import RunView, compare

RUN = Run(
    id="run-a", project="prj-a", name="page", source="name: page", inputs={"topic": "x", "n": 1}, seed=7,
    cost=2_000_000, status=RunStatus.COMPLETED, started_at=10.0, ended_at=12.5, input_tokens=10, output_tokens=20,
)  # fmt: skip
STEP = Step(
    run="run-a", key="code", name="code", status=StepStatus.COMPLETED, model="smollm2", output="a\nb\n",
    started_at=10.0, ended_at=11.0, cost=1_000_000,
)  # fmt: skip
ARTIFACT = Artifact(id="art-a", project="prj-a", name="src/A.tsx", kind="tsx", digest="d1")


def _view(content: bytes = b"let a;\n") -> RunView:
    return RunView(RUN, (STEP,), ((ARTIFACT, content),))


def test_a_run_is_equal_to_itself() -> None:
    found = compare(_view(), _view())
    assert found["equal"] is True
    assert all(found["same"].values())
    assert found["changed"] == {"inputs": {}, "models": {}}
    assert found["difference"] == {"cost_usd": 0, "input_tokens": 0, "output_tokens": 0, "seconds": 0}
    assert found["steps"][0]["diff"] is None
    assert orjson.loads(orjson.dumps(found)) == found


def test_what_another_model_made_of_it() -> None:
    run = replace(RUN, id="run-b", models={"*": "gemma"}, inputs={"topic": "y", "n": 1}, cost=5_000_000, ended_at=None)
    step = replace(STEP, run="run-b", model="gemma", output="a\nc\n")
    other = RunView(run, (step, replace(step, key="more", name="more")), ((ARTIFACT, b"let b;\n"),))
    found = compare(_view(), other)
    assert found["equal"] is False
    assert found["same"] == {"source": True, "inputs": False, "material": True, "models": False, "seed": True}
    assert found["changed"] == {"inputs": {"topic": ["x", "y"]}, "models": {"code": ["smollm2", "gemma"]}}
    assert found["difference"]["cost_usd"] == 0.003
    assert found["difference"]["seconds"] is None
    code, more = found["steps"]
    assert (code["key"], code["equal"], code["diff"]["unified"].splitlines()[-1]) == ("code", False, "+c")
    assert (more["a"], more["b"]["model"], more["equal"], more["diff"]) == (None, "gemma", False, None)
    assert found["artifacts"][0]["diff"]["added"] == 1


def test_what_cannot_be_compared_by_lines_says_why() -> None:
    binary = compare(_view(), _view(b"\xff\xfe"))["artifacts"][0]
    assert (binary["equal"], binary["diff"], binary["reason"]) == (False, None, "not text")
    large = compare(_view(), _view(b"x\n" * 600_000))["artifacts"][0]
    assert (large["equal"], large["diff"]) == (False, None)
    assert large["reason"].startswith("too large")
    alone = compare(_view(), RunView(RUN))["artifacts"][0]
    assert (alone["equal"], alone["b"], alone["reason"]) == (False, None, "")


def test_a_long_output_is_told_in_part() -> None:
    step = replace(STEP, output="x" * 300_000)
    shown = compare(RunView(RUN, (step,)), RunView(RUN, (step,)))["steps"][0]["a"]
    assert (len(shown["output"]), shown["truncated"]) == (200_000, True)
