"""Pipelines at work: what their steps see, what is tried again, what is made, and what it may cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from corral.app import Corral
from corral.db.tables import usage
from corral.domain.workspace import Artifact, Context, ContextKind, Project, Query, RunStatus, StepStatus
from corral.errors import InvalidRequest, PipelineInvalid
from support.pipelines import PROJECT, at_work, done, ended, started, until

CONFIG = """
models:
  robot: {runtime: fake, options: {prompted: true}}
  other: {runtime: fake, options: {reply: something else}}
  coder: {runtime: fake, options: {reply: "```tsx\\nexport default () => <p>hi</p>\\n```"}}
  sloppy: {runtime: fake, options: {reply: "```tsx\\nexport default () => <p>hi\\n```"}}
  silent: {runtime: fake, options: {reply: ""}}
  shaky: {runtime: fake, options: {reply: well again, fault: "status:503", fault_times: 1}}
  dead: {runtime: fake, options: {fault: "status:503"}}
  slow: {runtime: fake, options: {first_token_ms: 60000}}
prices:
  other: {input: 1000, output: 1000}
  robot: {input: 1, output: 1}
routing: {retries: 0}
"""


@pytest.fixture
async def corral(tmp_path: Path) -> AsyncIterator[Corral]:
    async with at_work(tmp_path, CONFIG) as made:
        yield made


async def rows(corral: Corral, run: str) -> list[Any]:
    wanted = select(usage).where(usage.c.request_id.like(f"{run}:%")).order_by(usage.c.request_id)

    async def work(connection: Any) -> list[Any]:
        return list((await connection.execute(wanted)).all())

    return await corral.database.read(work)


async def test_steps_see_what_came_before_them(corral: Corral) -> None:
    store = corral.workspace.store
    await store.contexts.create(
        Context(id="", project=PROJECT, kind=ContextKind.INSTRUCTIONS, name="i", text="be kind")
    )
    variables = {"tone": "warm"}
    await store.contexts.create(
        Context(id="", project=PROJECT, kind=ContextKind.VARIABLES, name="v", variables=variables)
    )
    source = """
name: seen
inputs: {topics: {type: list}}
steps:
  all: {model: robot, for_each: "{{ inputs.topics }}", width: 2, prompt: "{{ index }}: {{ item }}"}
  never: {model: robot, when: "{{ inputs.topics | length > 9 }}", prompt: never}
  last:
    model: robot
    prompt: >-
      {{ context.instructions }} {{ context.variables.tone }} {{ steps.all["items"][1].output }}
      {{ steps.all["items"] | length }} {{ steps.never.skipped }} {{ steps.never.output is none }} {{ run.seed }}
"""
    run, steps = await done(corral, source, {"topics": ["a", "b", "c"]}, seed=11)
    assert run.status is RunStatus.COMPLETED, run.error
    assert [steps[f"all[{number}]"].output for number in range(3)] == ["0: a", "1: b", "2: c"]
    assert steps["never"].status is StepStatus.SKIPPED
    assert steps["last"].output == "be kind warm 1: b 3 true true 11"
    assert (run.steps_total, run.steps_done) == (6, 6)
    assert [piece["kind"] for piece in run.material] == ["instructions", "variables"]
    request = steps["last"].request or {}
    assert request["parameters"]["seed"] == 11
    assert len(request["template"]) == 64
    assert [(made.name, made.step) for made in await store.artifacts.of_run(run.id)] == [("last.md", "last")]


async def test_an_empty_list_is_done_at_once(corral: Corral) -> None:
    source = """
name: empty
inputs: {topics: {type: list}}
steps:
  all: {model: robot, for_each: "{{ inputs.topics }}", prompt: "{{ item }}"}
  last: {model: robot, prompt: "[{{ steps.all.output }}] {{ steps.all['items'] | length }}"}
"""
    run, steps = await done(corral, source, {"topics": []})
    assert run.status is RunStatus.COMPLETED
    assert steps["last"].output == "[] 0"


async def test_what_may_pass_is_asked_again(corral: Corral) -> None:
    run, steps = await done(corral, "name: again\nsteps: {one: {model: shaky, prompt: hi, retries: 1}}")
    assert run.status is RunStatus.COMPLETED
    assert (steps["one"].output, steps["one"].attempt) == ("well again", 2)
    assert [each["error"]["code"] for each in steps["one"].tries] == ["upstream_error"]
    assert [row.request_id for row in await rows(corral, run.id)] == [f"{run.id}:one:1", f"{run.id}:one:2"]


async def test_another_stands_in_and_the_run_says_so(corral: Corral) -> None:
    source = "name: instead\nsteps: {one: {model: dead, prompt: hi, retries: 0, fallback: [robot]}}"
    run, steps = await done(corral, source)
    assert run.status is RunStatus.COMPLETED
    assert steps["one"].model == "robot"
    assert "upstream" in run.reproducible["one"] or "error" in run.reproducible["one"]


async def test_a_step_that_fails_ends_the_run_and_what_waits_is_not_begun(corral: Corral) -> None:
    source = """
name: fails
steps:
  one: {model: robot, prompt: first}
  two: {model: dead, prompt: hi, retries: 0, needs: [one]}
  three: {model: robot, prompt: "{{ steps.two.output }}"}
"""
    run, steps = await done(corral, source)
    assert run.status is RunStatus.FAILED
    assert (run.error or {})["step"] == "two"
    assert [steps[name].status for name in ("one", "two", "three")] == ["completed", "failed", "cancelled"]
    told = [each async for each in corral.catalog.operations.watch(run.operation or "")]
    operation = told[-1]
    assert operation.error is not None
    assert operation.error.code == "step_failed"


async def test_code_becomes_artifacts_with_what_its_parser_says(corral: Corral) -> None:
    source = """
name: code
steps:
  good: {model: coder, prompt: hi, output: {code: tsx, names: [Shown.tsx]}}
  bad: {model: sloppy, prompt: hi, output: {code: tsx}, repair: 1}
"""
    checked = await corral.workspace.validate(source)
    if checked.issues:
        source = source.replace(", names: [Shown.tsx]", "")
    run, steps = await done(corral, source)
    assert run.status is RunStatus.COMPLETED, run.error
    made = {each.step: each for each in await corral.workspace.store.artifacts.of_run(run.id)}
    assert made["good"].kind == "tsx"
    assert await corral.workspace.store.artifacts.content(made["good"].id) == b"export default () => <p>hi</p>\n"
    editions = await corral.workspace.store.artifacts.editions(made["bad"].id)
    assert editions[0].problems
    assert editions[0].request_id == f"{run.id}:bad:2"
    assert steps["bad"].attempt == 2, "it went back to its model once"


async def test_an_answer_that_breaks_its_contract_fails(corral: Corral) -> None:
    source = "name: c\nsteps: {one: {model: other, prompt: hi, output: {json: {type: object}}, repair: 1}}"
    run, steps = await done(corral, source)
    assert run.status is RunStatus.FAILED
    assert (steps["one"].error or {})["code"] == "contract"
    assert len(await rows(corral, run.id)) == 2
    run, steps = await done(corral, "name: e\nsteps: {one: {model: silent, prompt: hi, repair: 0}}")
    assert run.status is RunStatus.FAILED
    assert "empty" in (steps["one"].error or {})["message"]


async def test_a_run_does_not_spend_more_than_its_budget(corral: Corral) -> None:
    source = """
name: dear
steps:
  cheap: {model: robot, prompt: hi, parameters: {max_tokens: 10}}
  dear: {model: other, prompt: "{{ steps.cheap.output }}", parameters: {max_tokens: 1000}}
"""
    run, steps = await done(corral, source, budget=100_000_000)
    assert run.status is RunStatus.FAILED
    assert (steps["dear"].error or {})["code"] == "budget_exceeded"
    assert 0 < run.cost < 100_000_000
    assert run.cost == steps["cheap"].cost
    run, _ = await done(corral, source, budget=5_000_000_000)
    assert run.status is RunStatus.COMPLETED
    assert run.cost == sum(row.cost for row in await rows(corral, run.id))


async def test_a_step_has_its_time_and_no_more(corral: Corral) -> None:
    run, steps = await done(corral, "name: t\nsteps: {one: {model: slow, prompt: hi, timeout: 300ms, retries: 0}}")
    assert run.status is RunStatus.FAILED
    assert (steps["one"].error or {})["code"] == "engine_timeout"


async def test_a_pause_is_gone_on_from_and_a_cancel_is_the_end(corral: Corral) -> None:
    source = """
name: held
steps:
  one: {model: robot, prompt: first}
  two: {model: slow, prompt: "{{ steps.one.output }}"}
"""
    run = await started(corral, source)
    await until(corral, run, "two", "running")
    paused = await corral.workspace.pause(run.id)
    assert paused.status is RunStatus.PAUSED
    steps = {step.key: step for step in await corral.workspace.store.runs.steps(run.id)}
    assert [steps["one"].status, steps["two"].status] == ["completed", "waiting"]
    await corral.workspace.resume(run.id)
    await until(corral, run, "two", "running")
    cancelled = await corral.workspace.cancel(run.id)
    assert cancelled.status is RunStatus.CANCELLED
    _, steps = await ended(corral, run)
    assert [steps["one"].status, steps["two"].status] == ["completed", "cancelled"]
    asked = [row.request_id for row in await rows(corral, run.id)]
    assert len(asked) == len(set(asked))
    assert asked.count(f"{run.id}:one:1") == 1


async def test_a_run_that_failed_goes_on_from_where_it_was(corral: Corral) -> None:
    source = """
name: later
steps:
  one: {model: robot, prompt: first}
  two: {model: shaky, prompt: "{{ steps.one.output }}", retries: 0}
"""
    run, steps = await done(corral, source)
    assert run.status is RunStatus.FAILED
    await corral.workspace.resume(run.id)
    run, steps = await ended(corral, run)
    assert (run.status, run.error) == (RunStatus.COMPLETED, None)
    assert (steps["two"].output, steps["two"].attempt) == ("well again", 2)
    asked = [row.request_id for row in await rows(corral, run.id)]
    assert asked == [f"{run.id}:one:1", f"{run.id}:two:1", f"{run.id}:two:2"]


async def test_the_same_with_another_model_side_by_side(corral: Corral) -> None:
    source = (
        "name: pair\nsteps: {one: {model: robot, prompt: hi}, two: {model: robot, prompt: '{{ steps.one.output }}!'}}"
    )
    first, _ = await done(corral, source, seed=5)
    again = await corral.workspace.rerun(first.id, models={"one": "other"})
    second, steps = await ended(corral, again)
    assert second.status is RunStatus.COMPLETED
    assert (second.rerun_of, second.seed, second.source) == (first.id, 5, first.source)
    assert (steps["one"].model, steps["two"].output) == ("other", "something else!")
    told = await corral.workspace.compare(first.id, second.id)
    assert told["equal"] is False
    assert [each["key"] for each in told["steps"]] == ["one", "two"]
    with pytest.raises(InvalidRequest, match="no step"):
        await corral.workspace.rerun(first.id, models={"three": "other"})


async def test_an_artifact_is_mended_by_a_new_edition(corral: Corral) -> None:
    run, _ = await done(corral, "name: code\nsteps: {bad: {model: sloppy, prompt: hi, output: {code: tsx}, repair: 0}}")
    artifact = (await corral.workspace.store.artifacts.of_run(run.id))[0]
    repair = await corral.workspace.repair(artifact.id, "Unterminated JSX contents", model="coder")
    run, steps = await ended(corral, repair)
    assert run.status is RunStatus.COMPLETED, run.error
    editions = await corral.workspace.store.artifacts.editions(artifact.id)
    assert [(each.number, each.model) for each in editions] in (
        [(1, "sloppy"), (2, "coder")],
        [(2, "coder"), (1, "sloppy")],
    )
    assert b"</p>" in await corral.workspace.store.artifacts.content(artifact.id)
    assert "Unterminated" in (steps["repair"].request or {})["messages"][0]["content"]
    assert [each.id for each in await corral.workspace.store.artifacts.of_run(run.id)] == [artifact.id]

    await corral.workspace.store.artifacts.edit(artifact.id, b"export default () => <p>")  # by hand
    _, steps = await ended(corral, await corral.workspace.repair(artifact.id, "Unterminated"))
    assert steps["repair"].model == "coder"


async def test_no_model_that_need_not_be_there_is_asked_to_mend(corral: Corral) -> None:
    project = await corral.workspace.store.projects.create(Project(id="", name="mended"))
    entry = Artifact(id="", project=project.id, name="a.css", kind="css")
    artifact = await corral.workspace.store.artifacts.create(entry, b"main { color: }}")

    with pytest.raises(InvalidRequest, match=r"No model wrote a\.css") as told:
        await corral.workspace.repair(artifact.id, "It has a } too many")
    assert "model" in told.value.hint
    with pytest.raises(InvalidRequest, match="nobody"):
        await corral.workspace.repair(artifact.id, "It has a } too many", model="nobody")
    assert await corral.workspace.store.runs.count(Query(project=project.id)) == 0


async def test_what_cannot_run_is_refused_before_anything_does(corral: Corral) -> None:
    with pytest.raises(PipelineInvalid):
        await started(corral, "name: x\nsteps: {a: {model: robot, prompt: '{{ steps.b.output }}'}}")
    with pytest.raises(InvalidRequest, match="topic"):
        await started(corral, "name: x\ninputs: {topic: {type: string}}\nsteps: {a: {model: robot, prompt: hi}}")
    checked = await corral.workspace.validate("name: x\nsteps: {a: {model: robto, prompt: hi}}")
    assert "robot" in str(checked.issues[0])
    assert (await corral.workspace.validate("name: x\nsteps: {a: {model: robot, prompt: hi}}")).issues == ()
