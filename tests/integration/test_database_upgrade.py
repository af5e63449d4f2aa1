"""A database that an older Corral wrote, brought up to date where it is used; on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from corral.db.engine import Database
from corral.db.migrations import HEAD, replay, stored
from corral.db.tables import version
from corral.db.workspace_tables import metadata, runs, snapshots, steps
from corral.domain.workspace import RunStatus
from tests.support import workspaces
from tests.support.database import Cluster
from tests.support.workspaces import LARGEST, Wall

RUN = "run-000000000001"
_COUNTS = {"cost": 1, "input_tokens": 2, "output_tokens": 3}
_ENTRY = {"id": RUN, "version": 1, "created_at": 1.0, "updated_at": 2.0, "tags": []}
_WORDS = {"name": "page", "title": "", "caller": "local", "models": {}, "environment": {}, "reproducible": {}}
_TIMES = {"started_at": 1.0, "ended_at": 2.0}
OLD_RUN = {
    **_ENTRY,
    **_WORDS,
    **_TIMES,
    **_COUNTS,
    "project": "prj-000000000001",
    "source": "s",
    "inputs": {},
    "material": "m",
    "status": "completed",
    "steps_total": 1,
    "steps_done": 1,
}
OLD_STEP = {
    "run": RUN,
    "key": "a",
    "name": "a",
    "position": 0,
    "status": "completed",
    "attempt": 1,
    "tries": [],
    "reason": "",
    **_TIMES,
    **_COUNTS,
}


@pytest.fixture(scope="module", params=workspaces.KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    yield from workspaces.clusters(request.param)


async def test_runs_of_before_pauses_were_kept_have_had_none(running: Cluster | None, tmp_path: Path) -> None:
    url = None if running is None else running.new()
    await as_of_0004(url, tmp_path)
    database = Database(url, tmp_path)
    try:
        store = workspaces.Store(database, tmp_path, Wall(), max_artifact=LARGEST)
        run = await store.runs.get(RUN)
        assert (run.status, run.paused_seconds, run.paused_at) == (RunStatus.COMPLETED, 0.0, None)
        assert [(step.key, step.paused_seconds) for step in await store.runs.steps(RUN)] == [("a", 0.0)]
        assert await database.read(lambda connection: connection.scalar(select(version.c.version_num))) == HEAD
        changed = await store.runs.update(RUN, paused_seconds=2.5, paused_at=7.0)
        assert (changed.paused_seconds, changed.paused_at) == (2.5, 7.0)
        assert (await store.runs.get(RUN)) == changed
    finally:
        await database.close()


async def as_of_0004(url: str | None, home: Path) -> None:
    """Have the database as it was in that form, with a run in it."""
    kept = [{"digest": each, "body": "{}" if each == "s" else "[]", "used_at": 1.0} for each in ("s", "m")]
    entries = [insert(snapshots).values(kept), insert(runs).values(OLD_RUN), insert(steps).values(OLD_STEP)]
    if url is None:
        engine = create_engine(f"sqlite:///{home / 'corral.db'}")
        with engine.begin() as connection:
            replay(connection, "0004")
            for entry in entries:
                connection.execute(entry)
            assert stored(connection) == "0004"
        engine.dispose()
        return
    database = Database(url, home)

    async def make(connection: AsyncConnection) -> None:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(replay, "0004")
        for entry in entries:
            await connection.execute(entry)
        assert await connection.run_sync(stored) == "0004"

    try:
        await database.write(make)
    finally:
        await database.close()
