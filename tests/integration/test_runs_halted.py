"""Runs that cannot go on for want of room or of a database: they rest, say why, and nothing is asked or paid twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from corral.app import Corral
from corral.app.workspace import RunOrder
from corral.db.tables import operations, usage
from corral.domain.operations import OperationStatus
from corral.domain.workspace import Project, Run, RunStatus, Step, StepStatus
from corral.errors import Conflict, DatabaseError, StoreError
from corral.workspace.pipelines.journal import Answer, Journal, folder
from support.database import cluster
from support.pipeline_vendor import Vendor, vendor
from support.pipeline_yard import PIPELINE, PROJECT, corral_of
from support.pipelines import ended

REPAIRED = """
name: repaired
steps:
  review: {model: beta, prompt: data of it, output: {json: {type: object, required: [verdict]}}, repair: 1}
"""


@asynccontextmanager
async def at_work(home: Path, asked: Vendor, more: str = "") -> AsyncIterator[Corral]:
    corral = corral_of(home, asked.url, more)
    running = [asyncio.ensure_future(task) for task in (corral.traffic.run(), corral.catalog.operations.run())]
    try:
        with suppress(Conflict):  # the second time
            await corral.workspace.store.projects.create(Project(id="", name=PROJECT))
        yield corral
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await corral.close()


async def stands(corral: Corral, run: Run, status: RunStatus) -> Run:
    """The run, once it stands so."""
    async with asyncio.timeout(50):
        async for message in corral.workspace.watch(run.id):
            if message.get("run", {}).get("status") == status:
                return await corral.workspace.store.runs.get(run.id)
    raise AssertionError(f"it never was {status}")


async def paid(corral: Corral, run: Run) -> tuple[int, int, int]:
    """What it cost by the run's sums, by its steps and by the books."""
    store = corral.workspace.store.runs

    async def booked(connection: Any) -> int:
        wanted = select(func.sum(usage.c.cost)).where(usage.c.request_id.like(f"{run.id}:%"))
        return int((await connection.execute(wanted)).scalar_one() or 0)

    steps = await store.steps(run.id)
    return (await store.get(run.id)).cost, sum(step.cost for step in steps), await corral.database.read(booked)


async def begun(corral: Corral, source: str) -> Run:
    inputs = {"topic": "t"} if source is PIPELINE else {}
    return await corral.workspace.start(RunOrder(project=PROJECT, source=source, inputs=inputs))


async def stuck(corral: Corral, asked: Vendor, home: Path, source: str) -> tuple[Run, Callable[[], None]]:
    """A run whose first answer could not be written down, since a file lies where its journal's folder would be.

    What is returned with it takes that away.
    """
    run = await begun(corral, source)
    await asyncio.wait_for(asked.heard.wait(), 30)
    file = home / ".corral" / "workspace" / "runs"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    return await stands(corral, run, RunStatus.PAUSED), file.unlink


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("source", "calls"), [(PIPELINE, 7), (REPAIRED, 2)])
async def test_an_answer_that_cannot_be_written_down_is_neither_lost_nor_paid_twice(
    tmp_path: Path, source: str, calls: int
) -> None:
    async with vendor(pause=0.05) as asked, at_work(tmp_path, asked) as corral:
        run, free = await stuck(corral, asked, tmp_path, source)
        assert (run.error or {})["code"] == StoreError.code
        assert str(tmp_path) in (run.error or {})["message"]
        assert len(asked.asked) == 1, "nobody else is asked"

        free()
        await corral.workspace.resume(run.id)
        run, steps = await ended(corral, run)
        assert (run.status, run.error) == (RunStatus.COMPLETED, None)
        assert {step.status for step in steps.values()} <= {StepStatus.COMPLETED, StepStatus.SKIPPED}
        assert len(asked.asked) == calls
        cost = await paid(corral, run)
        assert cost[0] > 0
        assert len(set(cost)) == 1


@pytest.mark.timeout(60)
async def test_a_run_called_off_where_nothing_could_be_written_has_its_books_closed(tmp_path: Path) -> None:
    async with vendor(pause=0.05) as asked, at_work(tmp_path, asked) as corral:
        run, free = await stuck(corral, asked, tmp_path, REPAIRED)
        assert run.cost == 0
        free()
        run = await corral.workspace.cancel(run.id)
        assert run.status is RunStatus.CANCELLED
        cost = await paid(corral, run)
        assert cost[0] > 0
        assert len(set(cost)) == 1


@pytest.mark.timeout(60)
async def test_a_damaged_journal_is_told_and_holds_its_run_only_as_long_as_it_lies_there(tmp_path: Path) -> None:
    async with vendor(pause=0.05) as asked:
        async with at_work(tmp_path, asked) as corral:
            run, free = await stuck(corral, asked, tmp_path, REPAIRED)
        free()
        journal = tmp_path / ".corral" / "workspace" / "runs" / f"{run.id}.journal"
        journal.parent.mkdir()
        journal.write_text("no line\n")
        async with at_work(tmp_path, asked) as corral:
            await corral.workspace.resume(run.id)
            run = await stands(corral, run, RunStatus.PAUSED)
            assert (run.error or {})["message"] == f"Line 1 of {journal} is damaged."
            assert (run.error or {})["hint"].startswith("Remove the file")
            journal.unlink()
            await corral.workspace.resume(run.id)
            run, _ = await ended(corral, run)
            assert run.status is RunStatus.COMPLETED, run.error


@pytest.mark.timeout(120)
async def test_a_run_waits_for_a_database_that_is_away_for_a_moment(tmp_path: Path) -> None:
    with cluster() as postgres:
        more = f"database: {{url: '{postgres.new()}'}}\n"
        async with vendor(pause=0.05) as asked, at_work(tmp_path, asked, more) as corral:
            run = await begun(corral, PIPELINE)
            while len(asked.asked) < 3:
                asked.heard.clear()
                await asyncio.wait_for(asked.heard.wait(), 30)
            await asyncio.to_thread(postgres.stop)
            with pytest.raises(DatabaseError, match="postgresql://"):
                await corral.workspace.store.runs.get(run.id)
            await asyncio.to_thread(postgres.start)
            run, _ = await ended(corral, run)
            assert run.status is RunStatus.COMPLETED, run.error
            assert len(asked.asked) == 7
            assert len(set(await paid(corral, run))) == 1


@pytest.mark.timeout(60)
async def test_a_run_whose_operation_ended_unheard_is_gone_on_with_at_once(tmp_path: Path) -> None:
    async with vendor(pause=0.05) as asked, at_work(tmp_path, asked) as corral:
        source = "name: no\nsteps: {one: {model: beta, prompt: tell, output: {json: {}}, repair: 0}}"
        run, _ = await ended(corral, await begun(corral, source))
        assert run.status is RunStatus.FAILED
        async for _ in corral.catalog.operations.watch(run.operation or ""):
            pass
        await corral.workspace.store.runs.update(run.id, status=RunStatus.RUNNING, ended_at=None)  # as it was killed
        await corral.workspace.resume(run.id)
        await ended(corral, run)
        assert len(asked.asked) == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("journal", [True, False])
async def test_what_had_failed_before_a_kill_is_neither_asked_nor_counted_again(tmp_path: Path, journal: bool) -> None:
    async with vendor() as asked, at_work(tmp_path, asked) as corral:
        run, step, before = await refused(corral)
        # As it is once the failure of the step is written down, and that of the run is not.
        if journal:
            kept = Journal(folder(corral.settings.home) / f"{run.id}.journal")
            measures = {name: getattr(step, name) for name in ("cost", "input_tokens", "output_tokens")}
            kept.write(Answer("review", 1, str(step.request_id), "beta", "I would rather not.", **measures))
            kept.close()
        left = {"status": RunStatus.RUNNING, "operation": None, "ended_at": None, "error": None}
        await corral.workspace.store.runs.update(run.id, **left)

        again = await corral.workspace.perform(run.id)

        assert (again.status, again.error) == (RunStatus.FAILED, run.error)
        assert await paid(corral, run) == before
        assert len(asked.asked) == 1


@pytest.mark.timeout(60)
async def test_a_run_that_had_failed_before_a_kill_stays_so(tmp_path: Path) -> None:
    async with vendor() as asked, at_work(tmp_path, asked) as corral:
        run, _, _ = await refused(corral)
        told = await corral.catalog.operations.get(str(run.operation))
        # As it is once the failure of the run is written down, and that of its operation is not.
        left = update(operations).where(operations.c.id == run.operation)
        unended = left.values(status=OperationStatus.IN_PROGRESS, ended_at=None, error=None)
        await corral.database.write(lambda connection: connection.execute(unended))

        operation = await corral.catalog.operations.perform(str(run.operation))

        assert (operation.status, operation.error) == (OperationStatus.FAILED, told.error)
        assert await corral.workspace.store.runs.get(run.id) == run
        assert len(asked.asked) == 1


async def refused(corral: Corral) -> tuple[Run, Step, tuple[int, int, int]]:
    """A run of one step that failed and has cost something: that step, and how much."""
    order = RunOrder(project=PROJECT, source=REPAIRED.replace("repair: 1", "repair: 0"))
    run, steps = await ended(corral, await corral.workspace.start(order))
    async for _ in corral.catalog.operations.watch(str(run.operation)):
        pass
    cost = await paid(corral, run)
    assert (run.status, cost[0] > 0) == (RunStatus.FAILED, True)
    return run, steps["review"], cost
