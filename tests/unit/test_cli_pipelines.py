"""What `corral pipeline` makes of the messages of a run, and of what is typed: trees, lines, JSON, inputs."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.cli.invocation import Invocation
from corral.cli.output import Mode, Output
from corral.cli.pipelines import step_shown
from corral.cli.pipelines_comparison import shown as side_by_side
from corral.cli.pipelines_inputs import check_given, inputs, is_file, kinds_of, models, pairs, value_of
from corral.cli.pipelines_live import follow, shown
from corral.cli.pipelines_runs import outcome
from corral.cli.pipelines_tree import View, lines, told
from corral.cli.table import cells
from corral.domain.workspace import Artifact, Run, RunStatus, Step, StepStatus
from corral.errors import InvalidRequest
from corral.workspace.comparing import RunView, compare
from corral.workspace.described import describe
from corral.workspace.pipelines.definition import read

NOW = 1_000_000.0
RUN = Run(
    id="run-0123456789ab",
    project="prj-0123456789ab",
    name="page",
    source="",
    status=RunStatus.RUNNING,
    started_at=NOW - 5,
    steps_total=4,
    steps_done=1,
    cost=1_200_000,
    input_tokens=120,
    output_tokens=88,
)
ANALYSIS = Step(
    run=RUN.id,
    key="analysis",
    name="analysis",
    status=StepStatus.COMPLETED,
    attempt=1,
    model="smollm2",
    started_at=NOW - 5,
    ended_at=NOW - 4.1,
    cost=1_200_000,
    input_tokens=120,
    output_tokens=88,
)
FIRST = Step(
    run=RUN.id,
    key="code[0]",
    name="code",
    index=0,
    position=1,
    status=StepStatus.COMPLETED,
    attempt=1,
    model="gemma3",
    started_at=NOW - 4,
    ended_at=NOW - 2,
)
SECOND = replace(FIRST, key="code[1]", index=1, status=StepStatus.RUNNING, attempt=2, started_at=NOW - 2, ended_at=None)
LAST = Step(run=RUN.id, key="files", name="files", position=2)
MADE = Artifact(
    id="art-0123456789ab", project=RUN.project, name="src/Counter.tsx", kind="tsx", run=RUN.id, step="code[0]"
)


def snapshot(*steps: Step, run: Run = RUN, artifacts: tuple[Artifact, ...] = ()) -> dict[str, Any]:
    return {
        "type": "snapshot",
        "at": NOW,
        "run": describe(run),
        "steps": [describe(step) for step in steps],
        "artifacts": [describe(artifact) for artifact in artifacts],
    }


def viewed(*messages: dict[str, Any]) -> View:
    view = View()
    for message in messages:
        view.hear(message)
    return view


def drawn(view: View, width: int | None = None) -> list[str]:
    return lines(view, NOW, width, lambda text, _: text)


def step(changed: Step) -> dict[str, Any]:
    return {"type": "step", "at": NOW, "step": describe(changed)}


def text(words: str, key: str = "code[1]") -> dict[str, Any]:
    return {"type": "text", "at": NOW, "step": key, "text": words}


WHOLE = snapshot(ANALYSIS, FIRST, SECOND, LAST, artifacts=(MADE,))


def test_a_tree_has_a_row_for_each_step_and_each_item() -> None:
    head, titles, analysis, code, first, second, files = drawn(viewed(WHOLE, text("const [count, setCount")))

    assert head == "page  run-0123456789ab  running  1/4 steps  5s  208 tokens  $0.0012"
    assert titles.split() == ["STEP", "STATE", "MODEL", "TOKENS", "TIME", "COST"]
    assert analysis.split() == ["├─", "✓", "analysis", "completed", "smollm2", "208", "900ms", "$0.0012"]
    assert code.split()[:5] == ["├─", "●", "code", "1/2", "gemma3"]
    assert first.startswith("│  ├─ ✓ [0]")
    assert first.endswith("src/Counter.tsx")
    assert second.startswith("│  └─ ● [1]")
    assert second.endswith("try 2  const [count, setCount")
    assert files.split() == ["└─", "·", "files", "waiting"]


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
def test_a_tree_is_as_wide_as_the_terminal(width: int) -> None:
    tree = drawn(viewed(WHOLE, text("words and more words " * 20)), width)

    assert max(map(cells, tree)) <= width
    assert "analysis"[:3] in "\n".join(tree)


@pytest.mark.parametrize("width", [80, 90])
def test_a_narrow_terminal_cuts_a_remark_and_leaves_none_out(width: int) -> None:
    failed = replace(LAST, status=StepStatus.FAILED, error={"code": "engine_died", "message": "The engine died. " * 9})
    tree = drawn(viewed(WHOLE, text("begin " * 40 + "日本 the end"), step(failed)), width)

    assert tree[5].endswith("the end")
    assert "try 2  …" in tree[5]
    assert "The engine" in tree[6]
    assert max(map(cells, tree)) <= width


def test_an_answer_under_way_has_no_tokens_yet() -> None:
    assert drawn(viewed(WHOLE))[5].split() == ["│", "└─", "●", "[1]", "running", "gemma3", "2s", "try", "2"]


def test_what_a_model_writes_is_shown_at_its_end_and_goes_with_the_try() -> None:
    view = viewed(WHOLE, text("begin " * 40), text("the end"))
    assert drawn(view)[-2].endswith("begin the end")
    assert "…" in drawn(view)[-2]

    view.hear(step(replace(SECOND, attempt=3)))
    assert "the end" not in "\n".join(drawn(view))


def test_a_step_that_failed_or_was_skipped_says_why() -> None:
    failed = replace(SECOND, status=StepStatus.FAILED, error={"code": "engine_died", "message": "The engine\ndied."})
    skipped = replace(LAST, status=StepStatus.SKIPPED, reason="when is false")
    tree = drawn(viewed(WHOLE, step(failed), step(skipped)))

    assert tree[3].split()[1:4] == ["✗", "code", "1/2"]
    assert tree[5].endswith("The engine died.")
    assert tree[6].endswith("when is false")


def test_costs_and_the_end_change_the_head() -> None:
    cost = {"type": "cost", "at": NOW, "cost_usd": 0.5, "input_tokens": 1000, "output_tokens": 500}
    view = viewed(WHOLE, cost, {"type": "end", "at": NOW, "status": "completed"})

    assert "completed" in drawn(view)[0]
    assert "1.5k tokens  $0.50" in drawn(view)[0]


def test_a_message_of_a_kind_that_nobody_knows_changes_nothing() -> None:
    assert drawn(viewed(WHOLE, {"type": "weather", "at": NOW})) == drawn(viewed(WHOLE))


def test_a_log_has_a_line_for_each_change() -> None:
    view, said = View(), []
    done = replace(SECOND, status=StepStatus.COMPLETED, ended_at=NOW)
    made = {"type": "artifact", "at": NOW, "artifact": describe(MADE)}
    ended = {"type": "run", "at": NOW, "run": describe(replace(RUN, status=RunStatus.COMPLETED))}
    first = snapshot(ANALYSIS, FIRST, LAST)
    for message in (first, step(SECOND), step(SECOND), text("x"), made, step(done), ended, ended):
        said += told(view, message)
        view.hear(message)

    assert said == [
        "page: run-0123456789ab, running, 3 steps",
        "code[1]: running — gemma3, try 2",
        "code[0]: made src/Counter.tsx (art-0123456789ab)",
        "code[1]: completed — 0 tokens, $0.00, 2s",
        "run-0123456789ab: completed",
    ]


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


async def heard(output: Output, *messages: dict[str, Any]) -> View:
    """What is in view when these have been shown."""

    async def told_one_by_one() -> AsyncGenerator[dict[str, Any], None]:
        for message in messages:
            yield message

    view = View()
    with shown(output, view, iter(range(100)).__next__) as screen:
        await follow(told_one_by_one(), screen)
    return view


def test_a_terminal_sees_the_tree_and_keeps_nothing_of_it() -> None:
    stdout, stderr = io.StringIO(), Terminal()
    env = {"TERM": "xterm", "COLUMNS": "90", "NO_COLOR": "1"}
    output = Output(stdout=stdout, stderr=stderr, env=env)

    asyncio.run(heard(output, WHOLE, text("const \x1b[31m count")))

    assert "├─ ✓ analysis" in stderr.getvalue()
    assert "const [31m count" in stderr.getvalue()
    assert stderr.getvalue().rstrip().endswith("\x1b[2K")  # wiped away
    assert stdout.getvalue() == ""


def test_what_a_run_has_come_to_is_told_in_colours() -> None:
    stdout = Terminal()
    given = Invocation(Output(stdout=stdout, stderr=io.StringIO(), env={"TERM": "xterm"}))

    outcome(given, describe(RUN), [describe(ANALYSIS)], [])

    assert stdout.getvalue().startswith("\x1b[1mpage\x1b[0m  \x1b[33mrun-0123456789ab")
    assert "\x1b[32mcompleted\x1b[0m" in stdout.getvalue()


def test_programs_get_the_messages_as_they_came() -> None:
    stdout = io.StringIO()
    asyncio.run(heard(Output(Mode.JSON, stdout=stdout, stderr=io.StringIO()), WHOLE, text("x")))

    assert [json.loads(line) for line in stdout.getvalue().splitlines()] == [WHOLE, text("x")]


@pytest.mark.parametrize("mode", [Mode.QUIET, Mode.HUMAN])
def test_others_see_lines_or_nothing(mode: Mode) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    view = asyncio.run(heard(Output(mode, stdout=stdout, stderr=stderr), WHOLE, step(SECOND)))

    assert view.status == "running"
    assert stdout.getvalue() == ""
    assert stderr.getvalue() == ("" if mode is Mode.QUIET else "page: run-0123456789ab, running, 4 steps\n")


async def test_who_follows_stops_when_the_run_rests() -> None:
    paused = snapshot(ANALYSIS, run=replace(RUN, status=RunStatus.PAUSED))
    seen: list[str] = []

    async def goes_on() -> AsyncGenerator[dict[str, Any], None]:
        for message in (WHOLE, paused, WHOLE):
            seen.append(message["run"]["status"])
            yield message

    with shown(Output(Mode.QUIET, stdout=io.StringIO(), stderr=io.StringIO()), View()) as screen:
        await follow(goes_on(), screen)

    assert seen == ["running", "paused"]


def test_inputs_have_the_types_that_the_pipeline_says(tmp_path: Path) -> None:
    source = "inputs: {topic: {type: string}, count: {type: integer}, tags: {type: list}, dark: boolean}\nsteps: {}"
    (tmp_path / "inputs.yaml").write_text("count: 1\nextra: [a]\n")
    (tmp_path / "topic.txt").write_text("bees\n")

    kinds = kinds_of(source)
    given = ["topic=2027", "count=3", 'tags=["a", "b"]', "dark=true", "other=null", "word=plain words"]
    found = inputs(given, [str(tmp_path / "inputs.yaml")], kinds)

    assert found == {
        "topic": "2027",
        "count": 3,
        "tags": ["a", "b"],
        "dark": True,
        "extra": ["a"],
        "other": None,
        "word": "plain words",
    }
    assert value_of(f"@{tmp_path}/topic.txt", "string") == "bees\n"
    assert value_of("@@home", "string") == "@home"


@pytest.mark.parametrize("source", ["[", "inputs: 3", "inputs: [1]", "", "- a"])
def test_a_pipeline_that_cannot_be_read_declares_nothing(source: str) -> None:
    assert kinds_of(source) == {}


@pytest.mark.parametrize("given", ["topic", "=bees", " =x"])
def test_what_is_no_pair_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match="is no NAME=VALUE"):
        pairs([given], "--input")


def test_what_is_not_of_its_type_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="Input count: 'three' is no integer"):
        inputs(["count=three"], [], {"count": "integer"})


@pytest.mark.parametrize("content", ["- a", "{", "text"])
def test_a_file_that_holds_no_inputs_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "inputs.yaml").write_text(content)

    with pytest.raises(InvalidRequest):
        inputs([], [str(tmp_path / "inputs.yaml")], {})


def test_a_step_that_failed_shows_what_was_answered_and_not_taken() -> None:
    stdout = io.StringIO()
    tried = ({"attempt": 1, "text": "no JSON"}, {"attempt": 2, "text": ""}, {"attempt": 3, "text": "[1]"})
    failed = replace(ANALYSIS, status=StepStatus.FAILED, tries=tried)

    step_shown(Invocation(Output(stdout=stdout, stderr=io.StringIO())), describe(failed))

    said = stdout.getvalue()
    assert "answer of try 1, which was not taken:\nno JSON\n" in said
    assert said.endswith("answer of try 3, which was not taken:\n[1]\n")
    assert "try 2" not in said


def test_all_inputs_that_are_missing_are_named_with_what_to_type() -> None:
    source = "inputs:\n  a:\n  b: integer\n  c: {default: 1}\n  d: {required: false}\n  e: {type: list}\n"

    with pytest.raises(InvalidRequest) as refused:
        check_given(source, {"e": []})

    assert refused.value.message == "What the pipeline is given lacks: a (string), b (integer)."
    assert refused.value.hint == "Give them: --input a=… --input b=…"
    check_given(source, {"a": "", "b": 1, "e": []})
    check_given("no pipeline", {})


@pytest.mark.parametrize(
    "declared",
    [
        *("", "string", "{}", "{type: string}", "{default: null}", "{default: x}", "{default: ''}"),
        *(f"{{required: {required}}}" for required in ("true", "false", "null")),
        *(f"{{required: {required}, default: x}}" for required in ("false", "null")),
        "{required: true, default: null}",
    ],
)
def test_what_is_needed_is_so_for_the_command_line_and_the_reader_alike(declared: str) -> None:
    source = f"name: page\ninputs:\n  topic: {declared}\nsteps: {{a: {{model: m, prompt: hi}}}}\n"
    refused = pytest.raises(InvalidRequest, match="lacks: topic")
    with refused if read(source).inputs["topic"].required else nullcontext():
        check_given(source, {})


def test_models_are_for_a_step_or_for_all() -> None:
    assert models(["gemma3:270m", "code=qwen"]) == {"*": "gemma3:270m", "code": "qwen"}
    with pytest.raises(InvalidRequest):
        models(["code="])


def compared(one: str, other: str) -> str:
    """What is said of two runs whose only step answered so, which made a file of its answer."""
    views = []

    async def read(artifact: Artifact) -> bytes:
        return artifact.digest.encode()

    for number, words in enumerate((one, other)):
        run = replace(RUN, id=f"run-{number:012}", seed=number, status=RunStatus.COMPLETED, ended_at=NOW)
        step = replace(ANALYSIS, run=run.id, output=words, model=f"model-{number}")
        views.append(RunView(run, (step,), (replace(MADE, name="analysis.md", digest=words, size=len(words)),)))
    stdout = io.StringIO()
    side_by_side(Output(stdout=stdout), asyncio.run(compare(*views, read)))
    return stdout.getvalue()


def test_two_runs_stand_side_by_side() -> None:
    text = compared("one\ntwo\n", "one\n2\n")

    assert "run-000000000000  run-000000000001" in text
    assert "model-0 → model-1" in text
    assert text.count("differs") == 2
    assert text.count("+2") == 1  # the file that is the whole answer is not told again
    assert "All answers and artifacts are the same." in compared("one\n", "one\n")


def test_a_file_is_told_from_a_saved_pipeline(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("")

    assert all(map(is_file, ["page.yaml", "page.yml", "-", "./page", str(tmp_path / "page")]))
    assert not is_file("page")
