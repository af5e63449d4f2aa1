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
from corral.domain.workspace import Run, RunStatus, Step
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
