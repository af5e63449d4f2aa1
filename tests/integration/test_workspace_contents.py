"""What lies on disk: bytes by digest, swept when nothing names them, and whole whenever who writes them is killed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.domain.workspace import Project, Query
from corral.errors import BodyTooLarge, EntryNotFound, StoreError
from corral.workspace.contents import Contents
from tests.support import workspaces
from tests.support.clocks import HandClock
from tests.support.workspaces import LARGEST, Place, artifact, completed, context, made, project, run

DAY = 86400.0

WRITER = """
import asyncio, os, pathlib, sys
from corral.db.engine import Database
from corral.domain.workspace import Artifact
from corral.kit.clock import SystemClock
from corral.workspace.store import Store

async def main():
    home = pathlib.Path(sys.argv[1])
    store = Store(Database(None, home), home, SystemClock(), max_artifact=1 << 20)
    async def write(worker):
        number = 0
        while True:
            content = os.urandom(20_000) if number % 3 else b"the same for all"
            entry = Artifact(id="", project="atlas", name=f"{worker}/{number}.bin", kind="text")
            made = await store.artifacts.create(entry, content)
            await store.artifacts.edit(made.id, os.urandom(9_000))
            print(made.id, flush=True)
            number += 1
    await asyncio.gather(*(write(worker) for worker in range(3)))
asyncio.run(main())
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with workspaces.opened(None, tmp_path) as place:
        await place.store.projects.create(project())
        yield place


def blobs(home: Path) -> set[str]:
    return {path.name for path in (home / "workspace" / "blobs" / "sha256").glob("*")}


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_equal_contents_lie_there_once_and_read_only(place: Place) -> None:
    for number in range(3):
        await place.store.artifacts.create(artifact(f"{number}.tsx"), b"same")

    assert blobs(place.home) == {name_of(b"same")}
    path = place.home / "workspace" / "blobs" / "sha256" / name_of(b"same")
    assert path.stat().st_mode & 0o777 == 0o444
    assert list((place.home / "workspace" / "partial").iterdir()) == []


async def test_nothing_is_on_disk_before_something_is_written(tmp_path: Path) -> None:
    async with workspaces.opened(None, tmp_path) as place:
        assert list(tmp_path.iterdir()) == []
        await place.store.projects.create(project())
        assert await place.store.sweep(place.clock.wall(), 0.0) == 0
        assert not (tmp_path / "workspace").exists()


async def test_what_is_too_large_leaves_nothing(place: Place) -> None:
    large = bytes(50 << 20)
    entry = await place.store.runs.create(run())
    kept = await place.store.artifacts.create(artifact(), b"small")
    for act in (
        place.store.artifacts.create(artifact("large.bin"), large),
        place.store.artifacts.edit(kept.id, large),
        place.store.runs.commit(completed(entry.id), [made(content=b"fine"), made("large.bin", large)]),
    ):
        with pytest.raises(BodyTooLarge, match=r"50(\.0)? MiB|52\.4 MB") as caught:
            await act
        assert caught.value.http_status == 413
    assert blobs(place.home) == {name_of(b"small")}
    assert await place.store.runs.steps(entry.id) == []
    assert (await place.store.artifacts.create(artifact("most.bin"), large[:LARGEST])).size == LARGEST


async def test_a_large_content_is_kept_where_that_is_allowed(tmp_path: Path) -> None:
    """50 MB in and out again, while the loop goes on."""
    contents, data = Contents(tmp_path, HandClock(), 64 << 20), random.Random(1).randbytes(50 << 20)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.ensure_future(beat())
    try:
        async with contents.kept([data]) as (digest,):
            assert await contents.read(digest) == data
    finally:
        beating.cancel()
    assert beats > 10


async def test_what_was_deleted_goes_when_its_time_is_over(place: Place) -> None:
    store, clock = place.store, place.clock
    await store.projects.create(project("beta"))
    old = await store.artifacts.create(artifact("old.tsx"), b"old")
    edited = await store.artifacts.edit(old.id, b"older")
    await store.artifacts.create(artifact("shared.tsx", of="beta"), b"old")
    kept = await store.artifacts.create(artifact("kept.tsx", of="beta"), b"kept")
    told = await store.contexts.create(context(of="beta"))
    await store.artifacts.delete(edited.id)
    await clock.advance(DAY)
    await store.artifacts.delete(kept.id)
    await store.contexts.delete(told.id)
    await clock.advance(DAY / 2)

    assert await store.sweep(clock.wall(), DAY) == 1
    with pytest.raises(EntryNotFound):
        await store.artifacts.get(old.id, deleted=True)
    assert blobs(place.home) == {name_of(b"old"), name_of(b"kept")}
    assert (await store.artifacts.restore(kept.id)).id == kept.id
    assert await store.artifacts.content(kept.id) == b"kept"
    await store.projects.delete("beta")
    await clock.advance(2 * DAY)
    assert await store.sweep(clock.wall(), DAY) == 1
    assert blobs(place.home) == set()
    assert await store.projects.count(Query(deleted=True)) == 0
    assert await store.sweep(clock.wall(), DAY) == 0


async def test_snapshots_go_with_the_last_run_that_had_them(place: Place) -> None:
    store = place.store
    entry = await store.runs.create(run(status="completed"))
    await store.runs.delete(entry.id)
    await place.clock.advance(2 * DAY)

    assert await store.sweep(place.clock.wall(), DAY) == 1
    again = await store.runs.create(run(status="completed"))
    assert (await store.runs.get(again.id)).source == "steps: {}"
    await place.clock.advance(2 * DAY)
    await store.sweep(place.clock.wall(), DAY)
    assert (await store.runs.get(again.id)).source == "steps: {}"
    await store.runs.purge(again.id)
    assert await store.runs.forget_snapshots() == 2


async def test_a_sweep_takes_nothing_that_somebody_is_about_to_name(place: Place) -> None:
    """Bytes that are kept and not yet named are held; once they are let go, they are swept."""
    contents = place.store.contents
    async with contents.kept([b"coming"]):
        await place.store.sweep(place.clock.wall(), DAY)
        assert blobs(place.home) == {name_of(b"coming")}
    await place.store.sweep(place.clock.wall(), DAY)
    assert blobs(place.home) == set()


async def test_sweeps_and_writers_at_once_lose_nothing(place: Place) -> None:
    async with place.another() as other:

        async def write(number: int) -> None:
            content = b"shared" if number % 2 else str(number).encode()
            entry = await other.artifacts.create(artifact(f"{number}.tsx"), content)
            if number % 3 == 0:
                await other.artifacts.purge(entry.id)

        async def sweep() -> None:
            for _ in range(6):
                await place.store.sweep(place.clock.wall(), DAY)

        await asyncio.gather(sweep(), *(write(number) for number in range(24)))

    listed = await place.store.artifacts.page(Query(limit=100))
    assert len(listed.items) == 16
    for each in listed.items:
        assert await place.store.artifacts.content(each.id)
    await place.store.sweep(place.clock.wall(), DAY)
    assert blobs(place.home) == {each.digest for each in listed.items}


async def test_damage_on_the_disk_is_noticed(place: Place) -> None:
    entry = await place.store.artifacts.create(artifact(), b"as it was")
    path = place.home / "workspace" / "blobs" / "sha256" / entry.digest
    path.chmod(0o644)
    path.write_bytes(b"as it wa5")
    with pytest.raises(StoreError, match="is damaged"):
        await place.store.artifacts.content(entry.id)
    path.write_bytes(b"cut")
    await place.store.artifacts.create(artifact("again.tsx"), b"as it was")
    assert await place.store.artifacts.content(entry.id) == b"as it was"
    path.unlink()
    with pytest.raises(StoreError, match=r"is not in .*workspace"):
        await place.store.artifacts.content(entry.id)


async def test_a_writer_that_is_killed_at_any_moment_leaves_whole_entries(tmp_path: Path) -> None:
    async with workspaces.opened(None, tmp_path) as place:
        await place.store.projects.create(Project(id="", name="atlas"))
        chance, known = random.Random(7), set[str]()
        for _ in range(6):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
            )
            assert child.stdout is not None
            async with asyncio.timeout(60):
                for _ in range(chance.randrange(1, 12)):
                    known.add((await child.stdout.readline()).decode().strip())
                child.kill()
                rest = await child.stdout.read()
                await child.wait()
            known |= {line for line in rest.decode().split("\n")[:-1] if line}
        await check(place, known)


async def check(place: Place, known: set[str]) -> None:
    """Everything that was said to be there is, and all that is there is whole."""
    found, query = {}, Query(limit=500, sort="name")
    while True:
        page = await place.store.artifacts.page(query)
        found |= {each.id: each for each in page.items}
        if page.next is None:
            break
        query = Query(limit=500, sort="name", cursor=page.next)
    assert known <= set(found)
    named = set()
    for each in found.values():
        editions = await place.store.artifacts.editions(each.id)
        assert [edition.number for edition in editions] == list(range(1, each.number + 1))
        for edition in editions:
            named.add(edition.digest)
            assert len(await place.store.artifacts.content(each.id, edition.number)) == edition.size
    await place.store.sweep(place.clock.wall(), DAY)
    assert blobs(place.home) == named
    assert os.listdir(place.home / "workspace" / "partial") == []  # noqa: PTH208
