"""Stores of the workspace on real databases, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.db.engine import Database
from corral.domain.workspace import Artifact, Context, ContextKind, Made, Pipeline, Project, Run, Step, StepStatus
from corral.workspace.store import Store
from tests.support.clocks import HandClock
from tests.support.database import Cluster, cluster

LARGEST = 1 << 20
"""Bytes that a content may have in these stores."""
KINDS = ("sqlite", "postgresql")


def clusters(kind: str) -> Iterator[Cluster | None]:
    """What the stores of that kind need to run; for a fixture of a module."""
    if kind == "sqlite":
        yield None
        return
    with cluster() as running:
        yield running


class Wall(HandClock):
    """Time by hand, but for who waits for another's lock: that one really waits."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Place:
    """A store, its folder, and how another process or task opens the same."""

    store: Store
    database: Database
    home: Path
    url: str | None
    clock: Wall

    @asynccontextmanager
    async def another(self, home: Path | None = None) -> AsyncIterator[Store]:
        """The same database, opened once more; on the same disk, unless another home is named."""
        database = Database(self.url, home or self.home) if self.url else Database(None, self.home)
        try:
            yield Store(database, home or self.home, self.clock, max_artifact=LARGEST)
        finally:
            await database.close()


@asynccontextmanager
async def opened(running: Cluster | None, home: Path) -> AsyncIterator[Place]:
    """A store on a database of its own."""
    url, clock = None if running is None else running.new(), Wall()
    database = Database(url, home)
    try:
        yield Place(Store(database, home, clock, max_artifact=LARGEST), database, home, url, clock)
    finally:
        await database.close()


def project(name: str = "atlas", **more: Any) -> Project:
    """A project that nobody has written down yet."""
    return Project(id="", name=name, **more)


def context(text: str = "", *, of: str = "atlas", **more: Any) -> Context:
    """A context of instructions."""
    return Context(**{"id": "", "project": of, "kind": ContextKind.INSTRUCTIONS, "name": "how", "text": text, **more})


def pipeline(name: str = "page", **more: Any) -> Pipeline:
    """A pipeline of a source that nobody reads here."""
    return Pipeline(id="", name=name, **{"source": "steps: {}", **more})


def run(of: str = "atlas", **more: Any) -> Run:
    """A run of such a pipeline."""
    return Run(**{"id": "", "project": of, "name": "page", "source": "steps: {}", **more})


def artifact(name: str = "src/App.tsx", *, of: str = "atlas", **more: Any) -> Artifact:
    """An artifact without its content."""
    return Artifact(**{"id": "", "project": of, "name": name, "kind": "tsx", **more})


def completed(of: str, key: str = "code", **more: Any) -> Step:
    """A step that has ended well: 7 nanodollars, 3 tokens in and 2 out."""
    said = {"status": StepStatus.COMPLETED, "output": "done", "cost": 7, "input_tokens": 3, "output_tokens": 2}
    return Step(**{"run": of, "key": key, "name": key.partition("[")[0], **said, **more})


def made(name: str = "src/App.tsx", content: bytes = b"one", **more: Any) -> Made:
    """What a step made."""
    return Made(name, "tsx", "text/tsx", content, **more)
