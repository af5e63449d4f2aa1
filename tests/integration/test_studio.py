"""`Workspace`: projects, pipelines and artifacts from Python, over `fake` engines and a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from corral import Workspace
from corral.config import Settings, load
from corral.domain.workspace import RunStatus, StepStatus
from corral.errors import Conflict, EntryNotFound, InvalidName, InvalidRequest, NotSupported, PipelineInvalid, Stale

CONFIG = """
models:
  parrot: {runtime: fake}
  coder: {runtime: fake, options: {reply: "```css\\nmain { color: teal; }\\n```"}}
  poet: {runtime: fake, options: {reply: "```css\\nmain { color: red; }\\n```"}}
  held: {runtime: fake, options: {hold_after: 1, reply: "one two three"}}
  sick: {runtime: fake, options: {fault: "status:400"}}
"""
PAGE = """
name: page
description: Two steps
inputs:
  topic: {type: string, required: true}
steps:
  idea:
    model: parrot
    prompt: "{{ context.instructions }} {{ inputs.topic }}"
  style:
    model: coder
    prompt: "{{ steps.idea.output }}"
    output: {code: [css]}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "corral.yaml"
    file.write_text(CONFIG)
    return load({"HOME": str(tmp_path)}, {"home": str(tmp_path / "home")}, file)


@pytest.fixture
async def workspace(settings: Settings) -> Any:
    async with Workspace(settings=settings) as workspace:
        await workspace.projects.create("shop", title="The shop")
        yield workspace


async def test_a_run_its_material_and_what_came_of_it(workspace: Workspace) -> None:
    await workspace.contexts.instruct("shop", "Be brief.")
    await workspace.contexts.variables("shop", {"colour": "teal"})
    heard: list[dict[str, Any]] = []

    page = PAGE.replace("{{ inputs", "{{ context.variables.colour }} {{ inputs")
    result = await workspace.run(page, project="shop", inputs={"topic": "bees"}, seed=7, heard=heard.append)

    assert result.status is RunStatus.COMPLETED
    assert result.run.seed == 7
    assert result.output("idea") == "Be brief. teal bees"
    assert [step.status for step in result.steps.values()] == [StepStatus.COMPLETED] * 2
    assert heard[0]["type"] == "snapshot"
    assert heard[-1]["type"] == "end"
    (made,) = result.artifacts
    assert result.artifact(made.name) == made
    assert await workspace.artifacts.text(made) == "main { color: teal; }\n"
    assert result.cost_usd == 0
    for missing in (lambda: result.output("nothing"), lambda: result.artifact("nothing")):
        with pytest.raises(KeyError):
            missing()


async def test_the_same_again_and_the_difference(workspace: Workspace) -> None:
    result = await workspace.run(PAGE, project="shop", inputs={"topic": "bees"})
    same = await workspace.rerun(result)
    other = await workspace.rerun(result.id, models={"style": "poet"}, inputs={"topic": "ants"})

    assert (await workspace.compare(result, same))["equal"]
    assert other.run.rerun_of == result.id
    found = await workspace.compare(result, other)
    assert found["changed"] == {"inputs": {"topic": ["bees", "ants"]}, "models": {"style": ["coder", "poet"]}}
    assert "+main { color: red; }" in found["artifacts"][0]["diff"]["unified"]
    everything = await workspace.rerun(result, models="poet")
    assert {step.model for step in everything.steps.values()} == {"poet"}


async def test_a_pipeline_is_meant_by_name_file_or_text(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "page.yaml"
    file.write_text(PAGE)
    saved = await workspace.pipelines.save(file)
    own = await workspace.pipelines.save(file, project="shop")
    again = await workspace.pipelines.save(PAGE.replace("Two steps", "2 steps"))

    assert (again.id, again.description, saved.project) == (saved.id, "2 steps", None)
    assert own.id != saved.id
    for pipeline in (saved, saved.id, str(file), file, PAGE):
        run = await workspace.start(pipeline, project="shop", inputs={"topic": "bees"}, budget=0.5)
        assert (run.status, run.budget) == (RunStatus.QUEUED, 500_000_000)
    assert (await workspace.start(own, inputs={"topic": "bees"})).project == own.project
    assert (await workspace.start(own.name, project="shop", inputs={"topic": "bees"})).pipeline == own.id
    with pytest.raises(Conflict, match="none is named"):
        await workspace.start(saved, inputs={"topic": "bees"})
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await workspace.run(tmp_path / "none.yaml", project="shop")
    with pytest.raises(EntryNotFound):
        await workspace.run("none", project="shop")
    with pytest.raises(InvalidRequest, match="neither a YAML file nor YAML"):
        await workspace.pipelines.save("page")


async def test_a_pipeline_that_cannot_run_asks_nobody(workspace: Workspace) -> None:
    broken = PAGE.replace("steps.idea", "steps.ideas")

    checked = await workspace.pipelines.validate(broken)
    assert checked.definition is None
    assert "ideas" in checked.issues[0].message
    with pytest.raises(PipelineInvalid, match="ideas"):
        await workspace.run(broken, project="shop", inputs={"topic": "bees"})
    with pytest.raises(InvalidRequest, match="topic"):
        await workspace.run(PAGE, project="shop")
    assert await workspace.runs.all() == []


async def test_a_run_that_fails_is_a_result_and_can_be_resumed(workspace: Workspace) -> None:
    failed = await workspace.run(PAGE.replace("coder", "sick"), project="shop", inputs={"topic": "bees"})
    assert failed.steps["idea"].status is StepStatus.COMPLETED
    again = await workspace.resume(failed)

    assert failed.status is again.status is RunStatus.FAILED
    assert failed.run.error is not None
    assert failed.steps["idea"].request_id == again.steps["idea"].request_id
    with pytest.raises(Conflict):
        await workspace.cancel(failed)


async def test_whoever_is_cancelled_leaves_a_run_that_rests(settings: Settings) -> None:
    source = PAGE.replace("coder", "held").replace("output: {code: [css]}", "")
    async with Workspace(settings=settings) as workspace:
        await workspace.projects.create("shop")
        under_way = asyncio.Event()

        def hear(message: dict[str, Any]) -> None:
            if message["type"] == "text" and message["step"] == "style":
                under_way.set()

        running = asyncio.ensure_future(
            workspace.run(source, project="shop", inputs={"topic": "bees"}, models={"style": "held"}, heard=hear)
        )
        await under_way.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        (run,) = await workspace.runs.all()
        assert not hasattr(run, "source")
        assert (await workspace.runs.get(run)).source == source
        before = await workspace.result(run)
        assert before.status is RunStatus.PAUSED
        assert before.steps["style"].status is StepStatus.WAITING

    file = Path(settings.home).parent / "corral.yaml"
    file.write_text(CONFIG.replace("hold_after: 1, ", ""))
    free = load({"HOME": str(file.parent)}, {"home": str(settings.home)}, file)
    async with Workspace(settings=free) as workspace:
        after = await workspace.resume(run)

    assert after.status is RunStatus.COMPLETED
    assert after.output("style") == "one two three"
    assert after.steps["idea"] == before.steps["idea"]


async def test_entries_are_changed_by_one_at_a_time(workspace: Workspace) -> None:
    project = await workspace.projects.get("shop")
    changed = await workspace.projects.change(project, title="Another", version=project.version)

    assert (changed.title, changed.version) == ("Another", project.version + 1)
    with pytest.raises(Stale):
        await workspace.projects.change(project, title="Late", version=project.version)
    with pytest.raises(InvalidName):
        await workspace.projects.create("Not A Name")
    with pytest.raises(Conflict):
        await workspace.projects.create("shop")


async def test_material_is_ordered_removed_and_had_back(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "brief.md").write_text("# Brief\n")
    style = await workspace.contexts.instruct("shop", "Be brief.", name="style")
    brief = await workspace.contexts.add_file("shop", tmp_path / "brief.md")
    notes = await workspace.contexts.add_file("shop", b"notes\n", name="notes.txt")

    assert (brief.name, brief.text, brief.media_type) == ("brief.md", "# Brief\n", "text/markdown")
    assert await workspace.contexts.content(notes) == b"notes\n"
    order = await workspace.contexts.reorder("shop", [notes, brief])
    assert [each.name for each in order] == ["notes.txt", "brief.md", "style"]
    await workspace.contexts.remove(style)
    assert [each.name for each in await workspace.contexts.all(project="shop", sort="position")] == [
        "notes.txt",
        "brief.md",
    ]
    assert (await workspace.contexts.restore(style)).name == "style"
    with pytest.raises(NotSupported, match="not text"):
        await workspace.contexts.add_file("shop", b"\x00\xff", name="picture")
    with pytest.raises(InvalidRequest, match="has no name"):
        await workspace.contexts.add_file("shop", b"x")
    with pytest.raises(InvalidRequest, match="has no file"):
        await workspace.contexts.put(style, b"x")


async def test_artifacts_have_editions(workspace: Workspace) -> None:
    made = await workspace.artifacts.put("shop", "src/site.css", "main { color: teal; }\n")
    second = await workspace.artifacts.put("shop", "src/site.css", b"main { color: red; }\n", note="redder")
    third = await workspace.artifacts.edit(second, "main {", version=second.version)

    assert (made.id, made.kind, third.number) == (third.id, "css", 3)
    assert [each.note for each in await workspace.artifacts.editions(made)] == ["", "redder", ""]
    assert (await workspace.artifacts.editions(made))[2].problems
    assert await workspace.artifacts.text(made, 1) == "main { color: teal; }\n"
    assert (await workspace.artifacts.export(made)).name == "site.css"
    other = await workspace.artifacts.put("shop", "src/other.css", "main { color: red; }\n")
    assert "main" in (await workspace.artifacts.diff(made, other))["unified"]
    assert [hit.id for hit in await workspace.search("redder OR teal", project="shop")] in ([], [made.id])
    assert {hit.kind for hit in await workspace.search("shop")} == {"project"}


async def test_a_project_goes_to_another_store(workspace: Workspace, settings: Settings, tmp_path: Path) -> None:
    await workspace.artifacts.put("shop", "src/site.css", "main { color: teal; }\n")
    result = await workspace.run(PAGE, project="shop", inputs={"topic": "bees"})
    file = await workspace.export("shop", tmp_path / "shop.zip")
    with pytest.raises(Conflict):
        await workspace.export("shop", file)

    elsewhere = load({"HOME": str(tmp_path)}, {"home": str(tmp_path / "other")}, tmp_path / "corral.yaml")
    async with Workspace(settings=elsewhere) as other:
        project = await other.load(file, name="shop-2")
        there = {each.name: each.digest for each in await other.artifacts.all(project=project)}
        (run,) = await other.runs.all(project=project)
        steps = (await other.result(run)).steps
    here = {each.name: each.digest for each in await workspace.artifacts.all(project="shop")}

    assert there == here
    assert {key: step.output for key, step in steps.items()} == {key: step.output for key, step in result.steps.items()}
    with pytest.raises(InvalidRequest):
        await workspace.load(tmp_path / "corral.yaml")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await workspace.load(tmp_path / "none.zip")


async def test_pages_are_counted_and_go_on(workspace: Workspace) -> None:
    for number in range(5):
        await workspace.projects.create(f"p{number}")

    first = await workspace.projects.page(limit=4, sort="name", total=True)
    rest = await workspace.projects.page(limit=4, sort="name", cursor=first.next)

    assert (first.total, rest.next) == (6, None)
    assert [each.name for each in (*first.items, *rest.items)] == ["p0", "p1", "p2", "p3", "p4", "shop"]


async def test_a_closed_workspace_runs_nothing(settings: Settings) -> None:
    workspace = Workspace(settings=settings)
    await workspace.close()
    await workspace.close()

    with pytest.raises(Conflict, match="closed"):
        await workspace.perform("run-000000000000")
