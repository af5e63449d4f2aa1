"""Runs in hurried and hostile hands: two who resume at once, and what they made, moved meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from corral.app import Corral
from corral.db.tables import usage
from corral.domain.workspace import Artifact, Project, Run, RunStatus, Step
from support.pipelines import PROJECT, at_work, done, ended

CONFIG = """
models:
  robot: {runtime: fake, options: {prompted: true}}
  shaky: {runtime: fake, options: {reply: well again, fault: "status:400", fault_times: 1}}
  coder: {runtime: fake, options: {reply: "```tsx\\nexport default () => <p>hi</p>\\n```"}}
routing: {retries: 0}
"""
TWO = "name: x\nsteps:\n  first: {model: robot, prompt: hi}\n  last: {model: robot, prompt: hello}"


@pytest.fixture
async def corral(tmp_path: Path) -> AsyncIterator[Corral]:
    async with at_work(tmp_path, CONFIG) as made:
        yield made


async def asked(corral: Corral, run: str) -> list[str]:
    wanted = select(usage.c.request_id).where(usage.c.request_id.like(f"{run}:%")).order_by(usage.c.request_id)

    async def work(connection: Any) -> list[str]:
        return list((await connection.execute(wanted)).scalars())

    return await corral.database.read(work)


async def test_two_who_resume_at_once_have_it_done_once(corral: Corral) -> None:
    run, _ = await done(corral, TWO.replace("robot, prompt: hi", "shaky, prompt: hi, retries: 0"))
    assert run.status is RunStatus.FAILED

    found = await asyncio.gather(*(corral.workspace.resume(run.id) for _ in range(4)), return_exceptions=True)

    assert sorted(type(each).__name__ for each in found) == ["Conflict", "Conflict", "Conflict", "Run"]
    after, steps = await ended(corral, run)
    assert after.status is RunStatus.COMPLETED
    assert {key: step.output for key, step in steps.items()} == {"first": "well again", "last": "hello"}
    assert await asked(corral, run.id) == [f"{run.id}:{each}" for each in ("first:1", "first:2", "last:1")]


async def test_a_run_that_is_ordered_twice_is_done_once(corral: Corral) -> None:
    """As two servers do that find it without an operation, each in the same moment."""
    store = corral.workspace.store
    project = await store.projects.get(PROJECT)
    left = await store.runs.create(Run(id="", project=project.id, name="x", source=TWO))
    await store.runs.plan(left.id, [Step(run=left.id, key=name, name=name) for name in ("first", "last")])

    await asyncio.gather(*(corral.workspace.perform(left.id) for _ in range(3)))

    after, steps = await ended(corral, left)
    assert after.status is RunStatus.COMPLETED
    assert {step.attempt for step in steps.values()} == {1}
    assert await asked(corral, left.id) == [f"{left.id}:first:1", f"{left.id}:last:1"]


async def mended(corral: Corral) -> tuple[Run, Run, Artifact]:
    """A run that wrote a file, one that mended it, and the file."""
    store = corral.workspace.store
    run, _ = await done(corral, "name: x\nsteps:\n  code: {model: coder, prompt: hi, output: {code: tsx}}")
    made = (await store.artifacts.of_run(run.id))[0]
    repair, _ = await ended(corral, await corral.workspace.repair(made.id, "it is broken", model="coder"))
    assert repair.status is RunStatus.COMPLETED
    return run, repair, await store.artifacts.get(made.id)


async def test_what_was_moved_away_is_no_longer_seen_through_its_run(corral: Corral) -> None:
    store = corral.workspace.store
    run, repair, artifact = await mended(corral)
    vault = await store.projects.create(Project(id="", name="vault"))
    await store.artifacts.move(artifact.id, vault.id)
    await store.artifacts.edit(artifact.id, b"secret")

    for each in (run, repair):
        assert await store.artifacts.of_run(each.id) == []
        assert (await anext(corral.workspace.watch(each.id)))["artifacts"] == []
    assert (await corral.workspace.compare(run.id, repair.id))["artifacts"] == []


async def test_a_repair_that_is_run_again_writes_into_no_other_project(corral: Corral) -> None:
    store = corral.workspace.store
    _, repair, artifact = await mended(corral)
    vault = await store.projects.create(Project(id="", name="vault"))
    moved = await store.artifacts.move(artifact.id, vault.id)

    again, _ = await ended(corral, await corral.workspace.rerun(repair.id))

    assert again.status is RunStatus.COMPLETED
    assert await store.artifacts.get(artifact.id) == moved
    assert [each.project for each in await store.artifacts.of_run(again.id)] == [again.project]


async def test_a_repair_of_what_was_deleted_meanwhile_is_not_lost(corral: Corral) -> None:
    store = corral.workspace.store
    _, repair, artifact = await mended(corral)
    await store.artifacts.purge(artifact.id)

    again, _ = await ended(corral, await corral.workspace.rerun(repair.id))

    assert again.status is RunStatus.COMPLETED, again.error
    assert [each.id != artifact.id for each in await store.artifacts.of_run(again.id)] == [True]


async def test_runs_are_compared_by_what_they_made_and_not_by_what_was_made_of_it(corral: Corral) -> None:
    run, repair, artifact = await mended(corral)
    first = (await corral.workspace.store.artifacts.editions(artifact.id))[0]
    await corral.workspace.store.artifacts.edit(artifact.id, b"all new")

    compared = await corral.workspace.compare(run.id, repair.id)

    assert compared["artifacts"][0]["a"]["digest"] == first.digest
    assert compared["artifacts"][0]["equal"] is True
