"""A Corral in this loop whose operations are done, and runs of pipelines in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from corral.app import Corral
from corral.app.workspace import RunOrder
from corral.config import load
from corral.domain.workspace import Project, Run, Step

PROJECT = "game"


@asynccontextmanager
async def at_work(home: Path, config: str) -> AsyncIterator[Corral]:
    """A Corral with that configuration and a project, at work for the block's length."""
    file = home / "corral.yaml"
    file.write_text(config)
    env = {"HOME": str(home), "NO_PROXY": "*"}
    corral = Corral(load(env, file=file, cwd=home), env=env)
    running: list[asyncio.Task[Any]] = []
    try:
        if not (await corral.workspace.store.projects.page(_all())).items:
            await corral.workspace.store.projects.create(Project(id="", name=PROJECT))
        tasks = [corral.traffic.run(), corral.catalog.operations.run(), corral.supervisor.run()]
        running = [asyncio.ensure_future(task) for task in tasks]
        yield corral
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        await corral.close()


def _all() -> Any:
    from corral.domain.workspace import Query

    return Query()


async def started(corral: Corral, source: str, inputs: dict[str, Any] | None = None, **more: Any) -> Run:
    """A run that has just been ordered."""
    return await corral.workspace.start(RunOrder(project=PROJECT, source=source, inputs=inputs or {}, **more))


async def ended(corral: Corral, run: Run) -> tuple[Run, dict[str, Step]]:
    """The run when it has ended, and its steps by key."""
    async with asyncio.timeout(120):
        async for _ in corral.workspace.watch(run.id):
            pass
    store = corral.workspace.store.runs
    return await store.get(run.id), {step.key: step for step in await store.steps(run.id)}


async def done(
    corral: Corral, source: str, inputs: dict[str, Any] | None = None, **more: Any
) -> tuple[Run, dict[str, Step]]:
    """A run from its order to its end."""
    return await ended(corral, await started(corral, source, inputs, **more))


async def until(corral: Corral, run: Run, key: str, status: str) -> None:
    """Wait until a step stands so."""
    async with asyncio.timeout(120):
        async for message in corral.workspace.watch(run.id):
            steps = message["steps"] if message["type"] == "snapshot" else [message.get("step")]
            if any(isinstance(each, dict) and (each["key"], each["status"]) == (key, status) for each in steps):
                return
    raise AssertionError(f"{key} never was {status}")
