"""Two servers on one PostgreSQL: one does a run, the other sees it and says who has it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from corral.app import Corral
from corral.app.workspace import RunOrder
from corral.domain.workspace import Project, RunStatus
from corral.errors import Conflict
from support.database import cluster
from support.pipeline_vendor import Vendor, vendor
from support.pipeline_yard import PIPELINE, PROJECT, corral_of
from support.pipelines import ended


def place(folder: Path, asked: Vendor, url: str) -> Corral:
    folder.mkdir()
    return corral_of(folder, asked.url, f"database: {{url: '{url}'}}\n")


@pytest.mark.timeout(120)
async def test_a_run_is_done_by_one_and_the_other_says_who_has_it(tmp_path: Path) -> None:
    with cluster() as postgres:
        url = postgres.new()
        async with vendor(pause=0.05) as asked:
            one, other = (place(tmp_path / name, asked, url) for name in ("one", "other"))
            await one.workspace.store.projects.create(Project(id="", name=PROJECT))
            running = [
                asyncio.ensure_future(task)
                for each in (one, other)
                for task in (each.traffic.run(), each.catalog.operations.run(), each.workspace.keep())
            ]
            try:
                run = await one.workspace.start(RunOrder(project=PROJECT, source=PIPELINE, inputs={"topic": "t"}))
                await asyncio.wait_for(asked.heard.wait(), 30)
                for what in ("pause", "resume", "cancel", "perform"):
                    with pytest.raises(Conflict, match=f"{run.id} is another machine's") as refused:
                        await getattr(other.workspace, what)(run.id)
                    assert refused.value.hint.endswith(f"corral pipeline rerun {run.id}")
                run, _ = await ended(other, run)
                assert run.status is RunStatus.COMPLETED, run.error
                assert sorted(Counter(asked.asked).values()) == [1, 1, 1, 1, 1, 2]  # one was told what is wrong
                again = await other.workspace.rerun(run.id)
                assert (await ended(one, again))[0].status is RunStatus.COMPLETED
            finally:
                for task in running:
                    task.cancel()
                await asyncio.wait(running)
                await asyncio.gather(one.close(), other.close())
