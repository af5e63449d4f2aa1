"""Two runs side by side."""

from __future__ import annotations

from dataclasses import replace

import orjson

from corral.domain.workspace import Artifact, Run, RunStatus, Step, StepStatus
from corral.workspace.comparing import LARGEST, RunView, compare

RUN = Run(
    id="run-a", project="prj-a", name="page", source="name: page", inputs={"topic": "x", "n": 1}, seed=7,
    cost=2_000_000, status=RunStatus.COMPLETED, started_at=10.0, ended_at=12.5, input_tokens=10, output_tokens=20,
)  # fmt: skip
STEP = Step(
    run="run-a", key="code", name="code", status=StepStatus.COMPLETED, model="smollm2", output="a\nb\n",
    started_at=10.0, ended_at=11.0, cost=1_000_000,
)  # fmt: skip
ARTIFACT = Artifact(id="art-a", project="prj-a", name="src/A.tsx", kind="tsx", digest="d1")


async def read(artifact: Artifact) -> bytes:
    return CONTENTS[artifact.digest]


CONTENTS = {"d1": b"let a;\n", "d2": b"let b;\n", "d3": b"\xff\xfe"}


def _view(digest: str = "d1", name: str = "src/A.tsx") -> RunView:
    return RunView(RUN, (STEP,), (replace(ARTIFACT, digest=digest, size=len(CONTENTS[digest]), name=name),))


async def test_a_run_is_equal_to_itself() -> None:
    found = await compare(_view(), _view(), read)
    assert found["equal"] is True
    assert all(found["same"].values())
    assert found["changed"] == {"inputs": {}, "models": {}}
    assert found["difference"] == {"cost_usd": 0, "input_tokens": 0, "output_tokens": 0, "seconds": 0}
    assert found["steps"][0]["diff"] is None
    assert orjson.loads(orjson.dumps(found)) == found


async def test_what_another_model_made_of_it() -> None:
    run = replace(RUN, id="run-b", models={"*": "gemma"}, inputs={"topic": "y", "n": 1}, cost=5_000_000, ended_at=None)
    step = replace(STEP, run="run-b", model="gemma", output="a\nc\n")
    other = RunView(run, (step, replace(step, key="more", name="more")), _view("d2").artifacts)
    found = await compare(_view(), other, read)
    assert found["equal"] is False
    assert found["same"] == {"source": True, "inputs": False, "material": True, "models": False, "seed": True}
    assert found["changed"] == {"inputs": {"topic": ["x", "y"]}, "models": {"code": ["smollm2", "gemma"]}}
    assert found["difference"]["cost_usd"] == 0.003
    assert found["difference"]["seconds"] is None
    code, more = found["steps"]
    assert (code["key"], code["equal"], code["diff"]["unified"].splitlines()[-1]) == ("code", False, "+c")
    assert (more["a"], more["b"]["model"], more["equal"], more["diff"]) == (None, "gemma", False, None)
    assert found["artifacts"][0]["diff"]["added"] == 1


async def test_what_cannot_be_compared_by_lines_says_why() -> None:
    binary = (await compare(_view(), _view("d3"), read))["artifacts"][0]
    assert (binary["equal"], binary["diff"], binary["reason"]) == (False, None, "not text")
    alone = (await compare(_view(), RunView(RUN), read))["artifacts"][0]
    assert (alone["equal"], alone["b"], alone["reason"]) == (False, None, "")
    step = replace(STEP, output="ä" * (LARGEST // 2))
    long = (await compare(RunView(RUN, (STEP,)), RunView(RUN, (step,)), read))["steps"][0]
    assert (long["equal"], long["diff"]) == (False, None)
    assert long["reason"].startswith("too large")


class Content(bytes):
    """Bytes that are counted while somebody holds them."""

    now = most = 0

    def __init__(self, _content: bytes) -> None:
        Content.now += 1
        Content.most = max(Content.most, Content.now)

    def __del__(self) -> None:
        Content.now -= 1


class Shelf:
    """Contents that are made when they are read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def __call__(self, artifact: Artifact) -> bytes:
        self.read.append(artifact.digest)
        return Content(f"{artifact.digest}\n".encode() + b"x" * artifact.size)


def _many(side: str, count: int, size: int) -> RunView:
    made = (replace(ARTIFACT, name=f"{number}.txt", digest=f"{side}{number}", size=size) for number in range(count))
    return RunView(RUN, (), tuple(made))


async def test_contents_are_held_two_at_a_time_and_none_that_is_too_large_or_equal() -> None:
    shelf = Shelf()

    found = await compare(_many("a", 30, LARGEST // 2), _many("b", 30, LARGEST // 2), shelf)

    compared, left = found["artifacts"][:16], found["artifacts"][16:]
    assert all(each["diff"]["added"] == 1 for each in compared)
    assert {(each["diff"], each["equal"], each["reason"]) for each in left} == {
        (None, False, "more than is compared in one go")
    }
    assert len(shelf.read) == 32
    assert (Content.now, Content.most) == (0, 2)

    shelf = Shelf()
    assert (await compare(_many("a", 3, LARGEST), _many("a", 3, LARGEST), shelf))["equal"] is True
    large = (await compare(_many("a", 1, LARGEST), _many("b", 1, 1), shelf))["artifacts"][0]
    assert (large["equal"], large["diff"]) == (False, None)
    assert large["reason"].startswith("too large")
    assert shelf.read == []


async def test_a_long_output_is_told_in_part() -> None:
    step = replace(STEP, output="x" * 300_000)
    shown = (await compare(RunView(RUN, (step,)), RunView(RUN, (step,)), read))["steps"][0]["a"]
    assert (len(shown["output"]), shown["truncated"]) == (200_000, True)
