"""Runs that were left by processes that died: whoever keeps the workspace brings all of them in step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.app import Corral
from corral.app import workspace as kept
from corral.domain.workspace import Query, Run, RunStatus
from support.pipelines import PROJECT, at_work

COUNT = kept._TOGETHER * 2 + 10


@pytest.fixture
async def corral(tmp_path: Path) -> AsyncIterator[Corral]:
    async with at_work(tmp_path, "models:\n  robot: {runtime: fake}\n") as made:
        yield made


async def test_each_of_many_is_begun(corral: Corral) -> None:
    store = corral.workspace.store
    left = Run(id="", project=PROJECT, name="left", source="name: left\nsteps: {}", created_at=1.0, updated_at=1.0)
    await asyncio.gather(*(store.runs.create(left) for _ in range(COUNT)))
    begun = {"status": RunStatus.QUEUED, "operation": None}
    assert await store.runs.count(Query(filters=begun)) == COUNT

    await corral.workspace._tidy()

    assert await store.runs.count(Query(filters=begun)) == 0
