"""A project that is archived: nothing begins in it, and nothing of what had begun is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.app import Corral
from corral.domain.workspace import Query, RunStatus
from corral.errors import Conflict
from support.pipelines import PROJECT, at_work, done, ended, started, until

CONFIG = """
models:
  robot: {runtime: fake, options: {prompted: true}}
  coder: {runtime: fake, options: {reply: "```css\\nmain { color: teal }\\n```"}}
  shaky: {runtime: fake, options: {reply: well again, fault: "status:503", fault_times: 1}}
  slow: {runtime: fake, options: {first_token_ms: 60000}}
routing: {retries: 0}
"""
CODE = "name: code\nsteps: {one: {model: coder, prompt: hi, output: {code: css}}}"
SHAKY = (
    "name: shaky\nsteps: {one: {model: robot, prompt: hi}, two: {model: shaky, prompt: ho, retries: 0, needs: [one]}}"
)
SLOW = "name: slow\nsteps: {one: {model: slow, prompt: hi}}"


@pytest.fixture
async def corral(tmp_path: Path) -> AsyncIterator[Corral]:
    async with at_work(tmp_path, CONFIG) as made:
        yield made


async def test_no_run_begins_in_it(corral: Corral) -> None:
    parts = corral.workspace
    run, _ = await done(corral, CODE)
    (artifact,) = await parts.store.artifacts.of_run(run.id)
    await parts.store.projects.archive(PROJECT)

    for begin in (
        lambda: started(corral, CODE),
        lambda: parts.rerun(run.id),
        lambda: parts.repair(artifact.id, "teal is no colour"),
    ):
        with pytest.raises(Conflict, match=f"'{PROJECT}' is archived") as told:
            await begin()
        assert told.value.hint.endswith(f"corral projects restore {PROJECT}")
    assert await parts.store.runs.count(Query(archived=None)) == 1, "and nothing of them is left behind"

    await parts.store.projects.restore(PROJECT)
    again, _ = await ended(corral, await parts.rerun(run.id))
    assert again.status is RunStatus.COMPLETED


async def test_what_had_begun_goes_on(corral: Corral) -> None:
    parts = corral.workspace
    failed, _ = await done(corral, SHAKY)
    assert failed.status is RunStatus.FAILED
    paused = await started(corral, SLOW)
    await until(corral, paused, "one", "running")
    await parts.pause(paused.id)
    await parts.store.projects.archive(PROJECT)

    await parts.resume(failed.id)
    run, steps = await ended(corral, failed)
    assert (run.status, steps["two"].output) == (RunStatus.COMPLETED, "well again")
    await parts.resume(paused.id)
    await until(corral, paused, "one", "running")
    assert (await parts.cancel(paused.id)).status is RunStatus.CANCELLED
