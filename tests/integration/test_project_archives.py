"""A project as one archive and an archive as a project, between stores in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from corral.db.engine import Database
from corral.domain.workspace import Artifact, Project, Query, RunStatus, StepStatus
from corral.errors import BodyTooLarge, Conflict, CorralError, EntryNotFound, InvalidRequest, StoreError
from corral.kit.clock import SystemClock
from corral.workspace.exports.archive import export_project, import_project
from corral.workspace.store import Store
from tests.support.carried import COUNTER, contents, furnish, packed, repacked
from tests.support.database import Cluster, cluster

Opener = Callable[[], Store]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens stores of their own, each in a folder and a database of its own."""
    opened: list[Database] = []
    number = count()

    def open_() -> Store:
        home = tmp_path / f"home-{next(number)}"
        url = request.getfixturevalue("postgresql").new() if request.param == "postgresql" else None
        opened.append(Database(url, home))
        return Store(opened[-1], home, SystemClock(), max_artifact=1 << 20)

    yield open_
    for database in opened:
        await database.close()


async def _taken(store: Store, archive: bytes, **more: Any) -> Project:
    return await import_project(store, io.BytesIO(archive), **more)


async def test_what_is_carried_to_another_store_is_equal(opener: Opener) -> None:
    here, there = opener(), opener()
    project = await furnish(here)
    (resting,) = (await here.runs.page(Query(filters={"status": "paused"}))).items
    await here.runs.update(resting.id, started_at=1.0, paused_at=2.0, paused_seconds=0.5)
    archive = await packed(here, "garden")

    made = await _taken(there, archive)

    assert made == project
    before, after = await contents(here, project.id), await contents(there, "garden")
    paused = before["runs"][2]
    stopped = replace(paused, status=RunStatus.CANCELLED, operation=None, error=after["runs"][2].error)
    # It rests no more: it has ended, when it was paused.
    assert after["runs"][2] == replace(stopped, ended_at=2.0, paused_at=None)
    assert after["runs"][2].error["code"] == "imported"
    assert [step.status for step in after["steps"][2]] == [StepStatus.FAILED, StepStatus.CANCELLED]
    before["runs"] = [replace(run, operation=None) for run in before["runs"]]
    for found in (before, after):
        del found["runs"][2], found["steps"][2]
    before["steps"][1][1] = replace(before["steps"][1][1], status=StepStatus.CANCELLED)
    assert after == before
    assert {COUNTER, b"# Hello\n"} <= set(after["bytes"])
    assert await packed(there, made.id) != b""


async def test_what_came_in_can_be_found_tagged_and_changed(opener: Opener) -> None:
    here, there = opener(), opener()
    await furnish(here)
    made = await _taken(there, await packed(here, "garden"))

    assert {hit.kind for hit in (await there.search("zebra")).items} == {"artifact"}
    assert [hit.kind for hit in (await there.search("unicode")).items] == ["context"]
    assert (await there.projects.page(Query(tags=("x",)))).items == (made,)
    artifact = (await there.artifacts.page(Query(search="zebra"))).items[0]
    edited = await there.artifacts.edit(artifact.id, b"export default 1\n", version=artifact.version)
    assert (edited.number, edited.run) == (2, artifact.run)
    assert len(await there.artifacts.of_run(str(artifact.run))) == 2
    await there.sweep(SystemClock().wall(), 3600.0)
    assert await there.artifacts.content(artifact.id, 1) == COUNTER


async def test_beside_itself_it_has_ids_of_its_own(opener: Opener) -> None:
    store = opener()
    project = await furnish(store)
    run = (await store.runs.page(Query(project=project.id, filters={"status": "completed"}))).items[0]
    await store.runs.delete(run.id)  # its artifacts stay, and say that they came of it
    archive = await packed(store, project.id)

    made = await _taken(store, archive, name="garden-2")

    assert made.id != project.id
    old, new = await contents(store, project.id), await contents(store, made.id)
    assert new["bytes"] == old["bytes"]
    ids = {each.id for kind in ("contexts", "pipelines", "runs", "artifacts") for each in old[kind]}
    assert not ids & {each.id for kind in ("contexts", "pipelines", "runs", "artifacts") for each in new[kind]}
    runs = {each.id for each in new["runs"]}
    assert all(run.pipeline == new["pipelines"][0].id for run in new["runs"])
    assert {run.material[0]["id"] for run in new["runs"]} == {new["contexts"][0].id}
    assert {run.rerun_of for run in new["runs"]} <= runs | {None, run.id}
    assert {each.run for each in new["artifacts"]} == {None}  # what they came of is another's here
    assert len(await store.artifacts.of_run(run.id)) == 2
    assert all(step.run in runs for steps in new["steps"] for step in steps)


async def test_a_name_that_is_taken_is_refused_and_nothing_is_left(opener: Opener) -> None:
    here, there = opener(), opener()
    await furnish(here)
    archive = await packed(here, "garden")
    taken = await there.projects.create(Project(id="", name="garden"))

    with pytest.raises(Conflict):
        await _taken(there, archive)

    assert (await there.projects.page(Query(archived=None))).items == (taken,)
    await _nothing(there, besides=1)


async def test_imports_beside_each_other_and_beside_a_sweep(opener: Opener) -> None:
    here, there = opener(), opener()
    project = await furnish(here)
    archive = await packed(here, "garden")
    before = (await contents(here, project.id))["bytes"]

    async def sweep() -> None:
        for _ in range(5):
            await there.sweep(SystemClock().wall(), 0.0)

    imports = (_taken(there, archive, name=name) for name in ("one", "two", "one"))
    done = await asyncio.gather(*imports, sweep(), return_exceptions=True)

    assert [type(each) for each in done].count(Conflict) == 1, done
    assert [type(each) for each in done].count(Project) == 2, done
    for name in ("one", "two"):
        assert (await contents(there, name))["bytes"] == before


async def _nothing(store: Store, besides: int = 0) -> None:
    """Nothing of an import is there: no entry, no step, no word, no content."""
    for entries in (store.contexts, store.pipelines, store.runs, store.artifacts):
        assert await entries.count(Query(archived=None)) == 0
    assert await store.projects.count(Query(archived=None)) == besides
    for word in ("zebra", "unicode", "zoo"):
        assert (await store.search(word)).items == ()
    await store.sweep(SystemClock().wall(), 3600.0)
    kept = store.contents._blobs.root / "blobs" / "sha256"
    assert not kept.is_dir() or not list(kept.iterdir())


def _lines(members: dict[str, bytes], kind: str, change: Callable[[list[dict[str, Any]]], object]) -> dict[str, bytes]:
    """The members with other entries of a kind."""
    name = f"entries/{kind}.jsonl"
    entries = [json.loads(line) for line in members[name].splitlines()]
    made = change(entries)
    entries = made if isinstance(made, list) else entries
    return members | {name: b"".join(json.dumps(each).encode() + b"\n" for each in entries)}


def _set(kind: str, /, **values: Any) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: _lines(members, kind, lambda entries: entries[0].update(values))


def _manifest(**values: Any) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        return members | {"manifest.json": json.dumps(json.loads(members["manifest.json"]) | values).encode()}

    return change


def _content(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.startswith("contents/"))


def _foreign(members: dict[str, bytes]) -> dict[str, bytes]:
    return members | {f"contents/{hashlib.sha256(b'more').hexdigest()}": b"more"}


def _turned(members: dict[str, bytes]) -> dict[str, bytes]:
    """A content as long as it was, with one other byte."""
    name = _content(members)
    return members | {name: members[name][:-1] + bytes([members[name][-1] ^ 1])}


def _swapped(members: dict[str, bytes]) -> dict[str, bytes]:
    """An artifact that says the content of another."""

    def change(artifacts: list[dict[str, Any]]) -> None:
        other = next(each for each in artifacts if each["digest"] != artifacts[0]["digest"])
        artifacts[0] |= {name: other[name] for name in ("digest", "size")}

    return _lines(members, "artifacts", change)


def _spare(members: dict[str, bytes]) -> dict[str, bytes]:
    sizes = json.loads(members["manifest.json"])["contents"]
    return _manifest(contents={**sizes, hashlib.sha256(b"more").hexdigest(): 4})(_foreign(members))


HOSTILE: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "a path that climbs": lambda members: members | {"../evil": b"x"},
    "a path that climbs inside": lambda members: members | {"contents/../../evil": b"x"},
    "an absolute path": lambda members: members | {"/etc/passwd": b"x"},
    "a path of Windows": lambda members: members | {"C:\\evil": b"x"},
    "a file that is no part of it": lambda members: members | {"readme.txt": b"x"},
    "a folder": lambda members: members | {"entries/": b""},
    "no manifest": lambda members: {name: data for name, data in members.items() if name != "manifest.json"},
    "a manifest that is no JSON": lambda members: members | {"manifest.json": b"{"},
    "a manifest that is nested": lambda members: members | {"manifest.json": b"[" * 500 + b"]" * 500},
    "a manifest of something else": _manifest(format="corral-recipes"),
    "another version": _manifest(version=2),
    "a version that is no number": _manifest(version=[1]),
    "contents that are no list": _manifest(contents=[]),
    "a content too few": lambda members: {n: d for n, d in members.items() if n != _content(members)},
    "a content too many": _foreign,
    "a content of nothing": _spare,
    "a content that is nearly the same": _turned,
    "an artifact with the content of another": _swapped,
    "a content that is another": lambda members: members | {_content(members): b"other"},
    "no runs": lambda members: {name: data for name, data in members.items() if name != "entries/runs.jsonl"},
    "two projects": lambda members: _lines(members, "project", lambda entries: entries * 2),
    "no project": lambda members: _lines(members, "project", lambda _: []),
    "a project that climbs": _set("project", name="../x"),
    "an id that is none": _set("artifacts", id="art-../../x"),
    "an id of another kind": _set("artifacts", id="run-000000000000"),
    "an artifact that climbs": _set("artifacts", name="../../etc/cron.d/x"),
    "an artifact of an unknown kind": _set("artifacts", kind="spell"),
    "an artifact of another project": _set("artifacts", project="prj-000000000000"),
    "an artifact with fewer editions": _set("artifacts", number=3),
    "an artifact that was deleted": _set("artifacts", deleted_at=1.0),
    "an edition of nothing": _set("editions", artifact="art-000000000000"),
    "an edition with another digest": _set("editions", digest="0" * 64),
    "an edition out of turn": _set("editions", number=2),
    "a size that is not so": _set("editions", size=1),
    "a digest that climbs": _set("editions", digest="../../../etc/passwd"),
    "a step of nothing": _set("steps", run="run-000000000000"),
    "a step twice": lambda members: _lines(members, "steps", lambda entries: [entries[0], *entries]),
    "a status that is none": _set("runs", status="flying"),
    "a context of an unknown kind": _set("contexts", kind="spell"),
    "a field too many": _set("runs", more=1),
    "a number that is a text": _set("runs", cost="1"),
    "a number that is too large": _set("runs", cost=2**70),
    "a text with a zero byte": _set("runs", title="a\0b"),
    "tags that are no list": _set("project", tags="x"),
    "a tag of two lines": _set("project", tags=["a\nb"]),
    "a number that is below nothing": _set("steps", cost=-1),
    "a version before the first": _set("artifacts", version=0),
    "a time that never was": _set("runs", created_at=-1.0),
    "a time that never comes": _set("runs", started_at=1e300),
    "a key of a step that is too long": _set("steps", key="x" * 201),
    "a pipeline whose id is too long": _set("runs", pipeline="x" * 41),
    "material that is none": _set("runs", material=[{"x": 1}]),
    "variables that are none": _set("runs", material=[{"kind": "variables", "name": "v", "variables": 3}]),
    "half a line": lambda members: members | {"entries/runs.jsonl": members["entries/runs.jsonl"][:-3]},
    "a name twice": lambda members: _lines(
        members, "pipelines", lambda entries: [*entries, {**entries[0], "id": "pip-000000000000"}]
    ),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    async def make() -> bytes:
        home = tmp_path_factory.mktemp("source")
        database = Database(None, home)
        try:
            store = Store(database, home, SystemClock(), max_artifact=1 << 20)
            await furnish(store)
            return await packed(store, "garden")
        finally:
            await database.close()

    return asyncio.run(make())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    database = Database(None, tmp_path)
    yield Store(database, tmp_path, SystemClock(), max_artifact=1 << 20)
    await database.close()


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_archives_are_refused_and_leave_nothing(store: Store, archive: bytes, name: str) -> None:
    bad = repacked(archive, HOSTILE[name])

    with pytest.raises(CorralError) as error:
        await _taken(store, bad)

    assert error.value.http_status in {400, 413}, error.value
    await _nothing(store)


async def test_entries_that_were_changed_are_refused_by_their_sum(store: Store, archive: bytes) -> None:
    bad = repacked(archive, _set("runs", title="another"), sums=False)

    with pytest.raises(InvalidRequest, match="runs in the archive are not those"):
        await _taken(store, bad)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
async def test_what_is_cut_is_refused(store: Store, archive: bytes, part: float) -> None:
    with pytest.raises(InvalidRequest):
        await _taken(store, archive[: int(len(archive) * part)])

    await _nothing(store)


async def test_bytes_that_were_turned_are_refused(store: Store, archive: bytes) -> None:
    for at in range(0, len(archive), max(1, len(archive) // 40)):
        bad = bytearray(archive)
        bad[at] ^= 0xFF
        # A byte that says nothing, such as one of a time, does no harm.
        with suppress(InvalidRequest, BodyTooLarge):
            await store.projects.purge((await _taken(store, bytes(bad))).id)
    await _nothing(store)


async def test_bombs_are_refused_before_they_burst(store: Store, archive: bytes) -> None:
    bomb = repacked(archive, lambda members: members | {f"contents/{'0' * 64}": bytes(64 << 20)})
    assert len(bomb) < 1 << 20

    with pytest.raises(BodyTooLarge, match="unpacks to more"):
        await _taken(store, bomb, largest=16 << 20)

    # One that lies about its size is no longer than it says.
    lie = bomb.replace((64 << 20).to_bytes(4, "little"), (64).to_bytes(4, "little"))
    assert lie != bomb
    with pytest.raises(InvalidRequest):
        await _taken(store, lie, largest=16 << 20)
    await _nothing(store)


async def test_members_that_are_no_plain_files_are_refused(store: Store, archive: bytes) -> None:
    for mode in (0o120777, 0o040755, 0o010644):
        made = io.BytesIO(archive)
        with zipfile.ZipFile(made, "a") as write:
            about = zipfile.ZipInfo(f"contents/{'0' * 64}")
            about.external_attr = mode << 16
            write.writestr(about, "/etc/passwd")
        with pytest.raises(InvalidRequest, match="no plain file"):
            await _taken(store, made.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")
async def test_members_that_are_there_twice_are_refused(store: Store, archive: bytes) -> None:
    made = io.BytesIO(archive)
    with zipfile.ZipFile(made, "a") as write:
        write.writestr("manifest.json", "{}")

    with pytest.raises(InvalidRequest, match="in it twice"):
        await _taken(store, made.getvalue())


async def test_contents_larger_than_contents_may_be_are_refused(store: Store, tmp_path: Path, archive: bytes) -> None:
    small = Store(store._database, tmp_path, SystemClock(), max_artifact=1000)

    with pytest.raises(BodyTooLarge):
        await _taken(small, archive)

    await _nothing(store)


async def test_an_archive_that_fails_in_the_middle_leaves_nothing(store: Store, archive: bytes) -> None:
    """Entries are written in one transaction: the last of them, which cannot be, takes all back."""
    name = "an artifact's title is longer than titles may be"
    bad = repacked(archive, lambda members: _lines(members, "artifacts", lambda all_: all_[-1].update(title=name * 99)))

    with pytest.raises(InvalidRequest):
        await _taken(store, bad)

    await _nothing(store)


async def test_what_is_not_there_is_not_exported(store: Store) -> None:
    with pytest.raises(EntryNotFound):
        await packed(store, "nothing")


async def test_a_content_that_is_gone_ends_the_archive(store: Store) -> None:
    project = await furnish(store)
    for path in (store.contents._blobs.root / "blobs" / "sha256").iterdir():
        path.unlink()
    pieces = bytearray()

    async def take() -> None:
        async for piece in export_project(store, project.id):
            pieces.extend(piece)

    with pytest.raises(StoreError):
        await take()

    with pytest.raises(InvalidRequest):
        await _taken(store, bytes(pieces), name="other")


async def test_an_archive_is_written_piece_by_piece(store: Store) -> None:
    project = await store.projects.create(Project(id="", name="large"))
    for number in range(8):
        noise = hashlib.shake_256(bytes([number])).digest(1 << 20)
        entry = Artifact(id="", project=project.id, name=f"n{number}.txt", kind="text")
        await store.artifacts.create(entry, noise)

    largest = 0
    async for piece in export_project(store, project.id):
        largest = max(largest, len(piece))

    assert largest < 1 << 20
