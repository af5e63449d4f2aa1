"""Contents of several entries, some of which are purged while sweeps go by: nothing that is named vanishes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from corral.domain.workspace import ContextKind, Query, RunStatus
from corral.errors import EntryNotFound
from corral.workspace.artifacts import Artifacts
from corral.workspace.contents import Contents
from corral.workspace.contexts import Contexts
from corral.workspace.exports.archive import export_project, import_project
from tests.support import workspaces
from tests.support.database import Cluster, cluster
from tests.support.workspaces import LARGEST, Place, artifact, completed, context, made, project, run

DAY = 86400.0


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with workspaces.opened(None, tmp_path) as place:
        await place.store.projects.create(project())
        yield place


class Meddled(Contents):
    """Contents before whose first reading something happens."""

    def __init__(self, place: Place, before: Callable[[], Awaitable[object]]) -> None:
        super().__init__(place.home / "workspace", place.clock, LARGEST)
        self._before: Callable[[], Awaitable[object]] | None = before

    async def read(self, digest: str) -> bytes:
        before, self._before = self._before, None
        if before is not None:
            await before()
        return await super().read(digest)


async def test_what_is_purged_while_its_project_is_taken_out_is_in_the_archive(place: Place) -> None:
    store = place.store
    kept = [await store.artifacts.create(artifact(f"{n}.tsx"), b"x" * n) for n in range(1, 5)]
    pieces = export_project(store, "atlas")
    archive = b""
    while b"contents/" not in archive:
        archive += await anext(pieces)
    async with place.another() as other:
        for each in kept:
            await other.artifacts.purge(each.id)
        await other.sweep(place.clock.wall(), DAY)
        async for piece in pieces:
            archive += piece
        await other.sweep(place.clock.wall(), DAY)
    assert not any((place.home / "workspace" / "blobs" / "sha256").iterdir())
    await import_project(store, io.BytesIO(archive), name="again")
    found = (await store.artifacts.page(Query(project="again"))).items
    assert sorted([await store.artifacts.content(each.id) for each in found]) == [b"x" * n for n in range(1, 5)]


async def test_what_is_purged_while_it_is_read_is_not_there(place: Place) -> None:
    store = place.store
    made = await store.artifacts.create(artifact(), b"one")

    async def purged() -> None:
        await store.artifacts.purge(made.id)
        await store.sweep(place.clock.wall(), DAY)

    with pytest.raises(EntryNotFound):
        await Artifacts(place.database, place.clock, Meddled(place, purged)).content(made.id)


async def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_is_then(place: Place) -> None:
    store = place.store
    made = await store.contexts.create(context(kind=ContextKind.FILE, name="brief.md"))
    await store.contexts.put(made.id, b"before", "text/plain", "before")

    async def replaced() -> None:
        await store.contexts.put(made.id, b"after", "text/plain", "after")
        await store.sweep(place.clock.wall(), DAY)

    contexts = Contexts(place.database, place.clock, Meddled(place, replaced))
    assert await contexts.content(made.id) == b"after"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["create", "purge", "delete", "edit", "step", "run", "purge run"])
async def test_what_is_changed_while_its_project_is_taken_out_spoils_no_archive(place: Place, what: str) -> None:
    """After each piece of an archive something happens in the project; it is brought in all the same."""
    store, pieces = place.store, 1
    for at in range(1, 100):
        home = f"home-{at}"
        await store.projects.create(project(home))
        first, second = [await store.artifacts.create(artifact(name, of=home), b"one") for name in ("a", "b")]
        runs = [await store.runs.create(run(home, status=RunStatus.PAUSED)) for _ in range(2)]
        await store.runs.commit(completed(runs[0].id), [made("of-run.tsx")])
        happens: dict[str, Callable[[], Awaitable[object]]] = {
            "create": lambda home=home: store.artifacts.create(artifact("c", of=home), b"new"),  # type: ignore[misc]
            "purge": lambda second=second: store.artifacts.purge(second.id),  # type: ignore[misc]
            "delete": lambda second=second: store.artifacts.delete(second.id),  # type: ignore[misc]
            "edit": lambda first=first: store.artifacts.edit(first.id, b"two"),  # type: ignore[misc]
            "step": lambda runs=runs: store.runs.commit(completed(runs[0].id, "more"), [made("m.tsx", b"m")]),  # type: ignore[misc]
            "run": lambda home=home: store.runs.create(run(home)),  # type: ignore[misc]
            "purge run": lambda runs=runs: store.runs.purge(runs[1].id),  # type: ignore[misc]
        }
        archive, pieces = b"", 0
        async for piece in export_project(store, home):
            archive, pieces = archive + piece, pieces + 1
            if pieces == at:
                await happens[what]()
        carried = await import_project(store, io.BytesIO(archive), name=f"again-{at}")
        for each in (await store.artifacts.page(Query(project=carried.id))).items:
            assert await store.artifacts.content(each.id)
        if at > pieces:
            return
    raise AssertionError("there is no end to it")


@pytest.mark.timeout(60)
async def test_a_copy_names_nothing_that_is_swept_before_it_is_seen(postgresql: Cluster, tmp_path: Path) -> None:
    """A copy that waits for a project, and a purge and a sweep meanwhile: it comes to nothing, or is whole."""
    async with workspaces.opened(postgresql, tmp_path) as place:
        store = place.store
        for name in ("atlas", "other"):
            await store.projects.create(project(name))
        made = await store.artifacts.create(artifact(), b"one")
        held, go = asyncio.Event(), asyncio.Event()

        async def hold(connection: AsyncConnection) -> None:
            await connection.execute(text("SELECT 1 FROM projects WHERE name = 'other' FOR UPDATE"))
            held.set()
            await go.wait()

        async def waits(connection: AsyncConnection) -> bool:
            found = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool((await connection.execute(text(found))).scalar_one())

        async with place.another() as other:
            holding = asyncio.ensure_future(other.write(hold))
            await held.wait()
            copying = asyncio.ensure_future(store.artifacts.duplicate(made.id, project="other"))
            while not await other.write(waits):
                pass
            await other.artifacts.purge(made.id)
            await other.sweep(place.clock.wall(), DAY)
            go.set()
            await holding
        with pytest.raises(EntryNotFound):
            await copying
