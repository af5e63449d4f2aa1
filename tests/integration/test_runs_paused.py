"""The time of a run that rested for a while, by whoever's wish: that of its work, and the pause beside it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from corral.app import Corral
from corral.db.workspace_tables import runs, steps
from corral.domain.workspace import Run, RunStatus, Step
from corral.operations.leases import Lease
from corral.workspace.comparing import compare
from support.pipeline_vendor import Vendor, vendor
from support.pipelines import at_work, ended, started, until

LONG = 1000.0
WORK = 60.0
"""Seconds that the work itself takes, at most, on any machine."""
NEVER = 50.0
"""Seconds until an answer that nobody waits for: longer than any machine stands still."""
SOURCE = """
name: rests
steps:
  one: {model: quick, prompt: hi}
  two: {model: alpha, prompt: "tell of {{ steps.one.output }}"}
  three: {model: quick, prompt: "{{ steps.two.output }}"}
"""
FAN = """
name: fans
steps:
  each: {model: alpha, prompt: "tell of {{ item }}", for_each: "{{ [1, 2] }}"}
"""
FAILING = """
name: fails
steps:
  one: {model: quick, prompt: hi}
  two: {model: shaky, prompt: "{{ steps.one.output }}", retries: 0}
"""


@pytest.fixture
async def asked() -> AsyncIterator[Vendor]:
    async with vendor() as made:
        yield made


@pytest.fixture
async def corral(asked: Vendor, tmp_path: Path) -> AsyncIterator[Corral]:
    async with at_work(tmp_path, config(asked)) as made:
        yield made


def config(asked: Vendor, parallel: int = 4) -> str:
    return f"""
workspace: {{parallel: {parallel}}}
models:
  alpha: {{runtime: openai, options: {{base_url: '{asked.url}', upstream_model: alpha}}}}
  quick: {{runtime: fake}}
  shaky: {{runtime: fake, options: {{reply: well again, fault: "status:503", fault_times: 1}}}}
routing: {{retries: 0}}
"""


async def long_ago(corral: Corral, run: Run, home: Path, **more: Any) -> None:
    """Have all that is known of a run be of some time ago."""
    journal = home / ".corral" / "workspace" / "runs" / f"{run.id}.journal"
    if journal.exists():
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        journal.write_text("".join(json.dumps({**line, "at": line["at"] - LONG}) + "\n" for line in lines))

    async def work(connection: Any) -> None:
        for table, key, names in (
            (runs, runs.c.id, ("started_at", "ended_at", "paused_at")),
            (steps, steps.c.run, ("started_at", "ended_at")),
        ):
            moved = {name: table.c[name] - LONG for name in names}
            await connection.execute(update(table).where(key == run.id).values(**moved))
        if more:
            await connection.execute(update(runs).where(runs.c.id == run.id).values(**more))

    await corral.database.write(work)


def worked(entry: Run | Step) -> float:
    assert entry.started_at is not None
    assert entry.ended_at is not None
    return entry.ended_at - entry.started_at - entry.paused_seconds


async def paused(corral: Corral, asked: Vendor, source: str = SOURCE, step: str = "two") -> Run:
    """A run that was paused while a step was being answered: its second."""
    asked.pause = NEVER
    run = await paused_in(corral, asked, await started(corral, source), step)
    assert run.status is RunStatus.PAUSED
    assert run.paused_at is not None
    return run


async def resumed_and_paused(corral: Corral, asked: Vendor, run: Run, step: str) -> Run:
    """The run, gone on with and paused once more while that step is being answered."""
    asked.pause = NEVER
    return await paused_in(corral, asked, await corral.workspace.resume(run.id), step)


async def paused_in(corral: Corral, asked: Vendor, run: Run, step: str) -> Run:
    """The run, paused while that step is being answered; whoever asks next is answered at once."""
    await until(corral, run, step, "running")
    run = await corral.workspace.pause(run.id)
    asked.pause = 0.0
    return run


@pytest.mark.timeout(60)
@pytest.mark.parametrize("killed", [False, True])
async def test_a_pause_is_no_part_of_the_time(corral: Corral, asked: Vendor, tmp_path: Path, killed: bool) -> None:
    run = await paused(corral, asked)
    # Of one that was killed nobody wrote down that it rests.
    await long_ago(corral, run, tmp_path, **({"status": "running", "paused_at": None} if killed else {}))
    await corral.workspace.resume(run.id)
    run, found = await ended(corral, run)

    assert run.status is RunStatus.COMPLETED, run.error
    assert LONG <= run.paused_seconds < LONG + WORK
    assert run.paused_at is None
    assert 0 <= worked(run) < WORK
    assert all(0 <= worked(step) < WORK for step in found.values())
    assert [step.paused_seconds >= LONG - WORK for step in found.values()] == [False, True, False]
    view = await corral.workspace.runs.view(run.id)
    told = await compare(view, view, lambda artifact: corral.workspace.store.contents.read(artifact.digest))
    assert told["a"]["seconds"] == pytest.approx(worked(run))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("source", "step"), [(SOURCE, "two"), (FAN, "each[1]")])
async def test_pauses_add_up(corral: Corral, asked: Vendor, tmp_path: Path, source: str, step: str) -> None:
    run = await paused(corral, asked, source, step)
    await long_ago(corral, run, tmp_path)
    await resumed_and_paused(corral, asked, run, step)
    await long_ago(corral, run, tmp_path)
    await corral.workspace.resume(run.id)
    run, found = await ended(corral, run)

    assert 2 * LONG <= run.paused_seconds < 2 * LONG + WORK
    assert 0 <= worked(run) < WORK
    assert all(0 <= worked(step) < WORK for step in found.values())


@pytest.mark.timeout(60)
async def test_pauses_add_up_of_what_was_not_begun_between_them(asked: Vendor, tmp_path: Path) -> None:
    two = SOURCE.replace("{{ steps.one.output }}", "cats").replace("hi", "dogs").replace("quick", "alpha", 1)
    async with at_work(tmp_path, config(asked)) as corral:
        run = await paused(corral, asked, two)
        assert [step.started_at is None for step in await corral.workspace.store.runs.steps(run.id)][:2] == [False] * 2
        await long_ago(corral, run, tmp_path)
    async with at_work(tmp_path, config(asked, parallel=1)) as corral:
        await resumed_and_paused(corral, asked, run, "one")
        await long_ago(corral, run, tmp_path)
        await corral.workspace.resume(run.id)
        run, found = await ended(corral, run)

    assert 2 * LONG <= run.paused_seconds < 2 * LONG + WORK
    assert all(0 <= worked(step) < WORK for step in found.values())


@pytest.mark.timeout(60)
async def test_who_is_called_off_while_it_rests_had_no_more_time(corral: Corral, asked: Vendor, tmp_path: Path) -> None:
    run = await paused(corral, asked)
    await long_ago(corral, run, tmp_path)
    run = await corral.workspace.cancel(run.id)

    assert run.status is RunStatus.CANCELLED
    assert run.paused_seconds >= LONG
    assert run.paused_at is None
    assert 0 <= worked(run) < WORK


@pytest.mark.timeout(60)
async def test_from_its_failure_until_it_goes_on_a_run_rests(corral: Corral, tmp_path: Path) -> None:
    run, _ = await ended(corral, await started(corral, FAILING))
    assert run.status is RunStatus.FAILED
    await long_ago(corral, run, tmp_path)
    await corral.workspace.resume(run.id)
    run, found = await ended(corral, run)

    assert run.status is RunStatus.COMPLETED
    assert run.paused_seconds >= LONG
    assert 0 <= worked(run) < WORK
    assert 0 <= worked(found["two"]) < WORK


@pytest.mark.timeout(60)
async def test_what_rested_before_it_was_called_off_is_no_work_once_it_goes_on(
    corral: Corral, asked: Vendor, tmp_path: Path
) -> None:
    run = await paused(corral, asked)
    await long_ago(corral, run, tmp_path)
    await corral.workspace.cancel(run.id)
    await long_ago(corral, run, tmp_path)
    await corral.workspace.resume(run.id)
    run, found = await ended(corral, run)

    assert run.status is RunStatus.COMPLETED
    assert 2 * LONG <= run.paused_seconds < 2 * LONG + WORK
    assert 0 <= worked(run) < WORK
    assert all(0 <= worked(step) < WORK for step in found.values())


@pytest.mark.timeout(60)
async def test_what_somebody_has_go_on_just_now_is_left_to_them(corral: Corral, asked: Vendor, tmp_path: Path) -> None:
    run, store = await paused(corral, asked), corral.workspace.store.runs
    assert run.operation is not None
    lease = Lease.take(tmp_path / ".corral" / "operations", run.operation)
    assert lease is not None
    try:  # as of who resumes it: the run is told first, and its operation is written down after that
        await store.update(run.id, status=RunStatus.QUEUED)
        await corral.workspace._tidy()
        assert (await store.get(run.id)).status is RunStatus.QUEUED
    finally:
        lease.free()
    await corral.workspace._tidy()
    assert (await store.get(run.id)).status is RunStatus.PAUSED, "of who died before the second"


@pytest.mark.timeout(60)
async def test_who_died_in_calling_off_what_rests_keeps_nobody_from_going_on(corral: Corral, asked: Vendor) -> None:
    run, store = await paused(corral, asked), corral.workspace.store.runs
    # The run is told first, and its operation is written down after that.
    await store.update(run.id, status=RunStatus.CANCELLED, ended_at=run.paused_at, paused_at=None)
    await corral.workspace.resume(run.id)
    run, _ = await ended(corral, run)
    assert run.status is RunStatus.COMPLETED
