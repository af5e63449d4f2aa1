"""Fifty kills of whole Corrals in the middle of runs: each run comes to the same end, and everything is there once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from corral.app import Corral
from corral.db.tables import holders, leases, spending, usage
from corral.domain.workspace import Project, Query, Run, RunStatus, Step, StepStatus
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from support.pipeline_vendor import Vendor, vendor
from support.pipeline_yard import PROJECT, corral_of, unfinished

TESTS = Path(__file__).parent.parent
KILLS = 50
NANO = 10**9


@asynccontextmanager
async def nursery(home: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.pipeline_yard", str(home), url),
        env=os.environ | {"PYTHONPATH": str(TESTS), "NO_PROXY": "*"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    try:
        yield child
    finally:
        child.stdin.close()
        await child.wait()


async def killed(child: asyncio.subprocess.Process, asked: Vendor, chance: random.Random, turn: int) -> None:
    """Let a Corral live until the vendor has been asked some times more and a moment longer; or just for a moment."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"go\n")
    pid = int(await child.stdout.readline())
    if turn % 5:
        enough = len(asked.asked) + chance.randint(2, 9)
        while len(asked.asked) < enough:
            asked.heard.clear()
            await asyncio.wait_for(asked.heard.wait(), 120)
        await asyncio.sleep(chance.uniform(0, 0.05))  # the moment of the kill is what is random here
    else:
        await asyncio.sleep(chance.uniform(0, 0.6))
    os.kill(pid, signal.SIGKILL)
    status = int(await child.stdout.readline())
    assert status == -signal.SIGKILL, "the process failed by itself"


async def all_ended(corral: Corral) -> None:
    """Go on with what is left, as the next server does."""
    tasks = [corral.traffic.run(), corral.catalog.operations.run(), corral.workspace.keep()]
    running = [asyncio.ensure_future(task) for task in tasks]
    while waiting := await unfinished(corral):
        async with asyncio.timeout(120):
            async for _ in corral.workspace.watch(waiting[0].id):
                pass
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def outcome(corral: Corral, run: Run) -> Any:
    """What a run came to, as far as that must be the same each time."""
    store = corral.workspace.store
    steps = [(step.key, step.status, step.output, step.value) for step in await store.runs.steps(run.id)]
    made = sorted((each.step, each.name, each.kind, each.digest, each.number) for each in await made_by(corral, run))
    return steps, made


async def made_by(corral: Corral, run: Run) -> list[Any]:
    return await corral.workspace.store.artifacts.of_run(run.id)


async def rows(corral: Corral) -> list[Any]:
    wanted = select(usage.c.request_id, usage.c.attempt, usage.c.cost, usage.c.error).where(
        usage.c.request_id.like("run-%")
    )

    async def work(connection: Any) -> list[Any]:
        return list((await connection.execute(wanted)).all())

    return await corral.database.read(work)


async def books(corral: Corral) -> tuple[int, int]:
    """What the budget says was spent, and what of it was held by calls of which nobody knows the end."""

    async def work(connection: Any) -> tuple[int, int]:
        sums = select(func.sum(spending.c.spent), func.sum(spending.c.abandoned), func.sum(spending.c.leased))
        spent, abandoned, leased = (await connection.execute(sums)).one()
        assert (await connection.execute(select(func.count()).select_from(holders))).scalar_one() == 0
        assert (await connection.execute(select(func.count()).select_from(leases))).scalar_one() == 0
        assert leased == 0
        return int(spent), int(abandoned)

    return await corral.database.read(work)


def answered(step: Step) -> int:
    """How many answers of models a step takes."""
    return {"plan": 1, "parts": 1, "code": 1, "review": 2}.get(step.name, 0) if step.request is not None else 0


@pytest.mark.timeout(600)
async def test_fifty_kills_change_nothing_and_nothing_is_there_twice(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with vendor() as asked:
        corral = corral_of(tmp_path, asked.url)
        await corral.workspace.store.projects.create(Project(id="", name=PROJECT))
        budgets = Budgets(corral.database, corral.clock)
        await budgets.create(Budget("", "all", "project", PROJECT, "usd", "total", 1000 * NANO))
        await corral.close()
        async with nursery(tmp_path, asked.url) as child:
            for turn in range(KILLS):
                await killed(child, asked, chance, turn)

        corral = corral_of(tmp_path, asked.url)
        await all_ended(corral)
        await corral.traffic.close()
        runs = (await corral.workspace.store.runs.page(Query(limit=200))).items
        assert len(runs) >= 5, "the test has tried too little"
        assert {run.status for run in runs} == {RunStatus.COMPLETED}
        written = await rows(corral)
        assert max(Counter((row.request_id, row.attempt) for row in written).values()) == 1
        spent, abandoned = await books(corral)
        for run in runs:
            await check_run(corral, run, [row for row in written if row.request_id.startswith(f"{run.id}:")])
        total = sum(row.cost for row in written)
        # What was answered is paid: once. A kill between the journal's line and the ledger's leaves a hold, no more.
        assert spent - abandoned <= total <= spent
        assert len(asked.answered) >= len(written)
        assert len(asked.asked) > len([row for row in written if row.error is None]), "nothing was ever asked again"
        assert not list((corral.settings.home / "workspace" / "runs").glob("*"))

        # The same once more, and nobody is killed.
        for run in runs[:10]:
            again = await corral.workspace.perform((await corral.workspace.rerun(run.id)).id)
            assert again.status is RunStatus.COMPLETED
            assert await outcome(corral, again) == await outcome(corral, run), run.id
            assert again.cost == run.cost
        await corral.close()


async def check_run(corral: Corral, run: Run, written: list[Any]) -> None:
    """Rows, sums and artifacts of one run: each there, and once."""
    steps = await corral.workspace.store.runs.steps(run.id)
    done = Counter(step.status for step in steps)
    assert done == {StepStatus.COMPLETED: len(steps) - 1, StepStatus.SKIPPED: 1}
    for step in steps:
        mine = [row for row in written if row.request_id.rpartition(":")[0] == f"{run.id}:{step.key}"]
        assert len([row for row in mine if row.error is None]) == answered(step), (run.id, step.key, mine)
        assert step.cost == sum(row.cost for row in mine)
    assert run.cost == sum(row.cost for row in written) == sum(step.cost for step in steps)
    made = [(each.step, each.name) for each in await made_by(corral, run)]
    assert sorted(made) == [("all", "all.md"), ("code", "code.css"), ("code", "code.tsx")]
