"""The workspace's store on SQLite and on PostgreSQL: what is written, changed, put away, thrown away, and had back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral.domain.workspace import ContextKind, Query, RunStatus, StepStatus
from corral.errors import Conflict, DatabaseError, EntryNotFound, InvalidName, InvalidRequest, NotSupported, Stale
from corral.workspace.store import Store
from tests.support import workspaces
from tests.support.database import Cluster
from tests.support.workspaces import Place, artifact, completed, context, made, pipeline, project, run


@pytest.fixture(scope="module", params=workspaces.KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    yield from workspaces.clusters(request.param)


@pytest.fixture
async def place(running: Cluster | None, tmp_path: Path) -> AsyncIterator[Place]:
    async with workspaces.opened(running, tmp_path) as place:
        await place.store.projects.create(project())
        yield place


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


async def test_a_project_is_written_down_and_found_by_id_and_name(store: Store) -> None:
    made = await store.projects.create(project("beta", title="The beta", tags=("web", "web "), settings={"model": "m"}))

    assert made.id.startswith("prj-")
    assert (made.version, made.tags, made.created_at) == (1, ("web",), made.updated_at)
    assert await store.projects.get(made.id) == await store.projects.get("beta") == made


async def test_no_two_projects_have_a_name_until_one_is_deleted(store: Store) -> None:
    with pytest.raises(Conflict, match="There is a project 'atlas' already"):
        await store.projects.create(project())
    await store.projects.delete("atlas")
    second = await store.projects.create(project())

    assert (await store.projects.get("atlas")).id == second.id
    first = (await store.projects.page(Query(deleted=True))).items[0]
    with pytest.raises(Conflict, match="already"):
        await store.projects.restore(first.id)
    assert (await store.projects.get(first.id, deleted=True)).deleted_at is not None


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "a" * 81, "prj-0123456789ab", "a\0b", "über", "-a"])
async def test_what_cannot_name_a_project_is_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidName):
        await store.projects.create(project(name))


async def test_an_id_that_somebody_made_up_is_refused(store: Store) -> None:
    for identifier in ("prj-1", "run-0123456789ab", "prj-0123456789AB", "prj-0123456789ab\n"):
        with pytest.raises(InvalidRequest, match="is no id"):
            await store.projects.create(replace(project("beta"), id=identifier))
    for identifier in ("", "nobody", "\0", "\ud800", "art-" + "0" * 12, "x" * 100_000):
        with pytest.raises(EntryNotFound):
            await store.artifacts.get(identifier)
        with pytest.raises(EntryNotFound):
            await store.pipelines.get(identifier, project="prj-0123456789ab")
        with pytest.raises(EntryNotFound):
            await store.runs.steps(identifier)
        assert await store.artifacts.of_run(identifier) == []
        assert await store.artifacts.bulk("delete", [identifier]) == {identifier: "entry_missing"}


async def test_an_id_is_taken_once(store: Store) -> None:
    await store.contexts.create(context(id="ctx-0123456789ab"))
    with pytest.raises(Conflict, match="already"):
        await store.contexts.create(context(id="ctx-0123456789ab"))


async def test_a_change_makes_the_next_version_and_what_is_no_change_does_not(place: Place) -> None:
    store = place.store
    await place.clock.advance(5)
    first = await store.projects.change("atlas", {"title": "Maps", "tags": ("a", "b")})
    same = await store.projects.change("atlas", {"title": "Maps"})

    assert (first.version, first.title, first.updated_at - first.created_at) == (2, "Maps", 5.0)
    assert same == first == await store.projects.get("atlas")
    for field in ("name", "id", "version", "created_at", "nonsense"):
        with pytest.raises(InvalidRequest, match="cannot be changed"):
            await store.projects.change("atlas", {field: "other"})


async def test_a_change_of_what_has_changed_since_is_refused(store: Store) -> None:
    seen = await store.projects.change("atlas", {"title": "one"})
    for act in (
        store.projects.change("atlas", {"title": "two"}, version=1),
        store.projects.archive("atlas", version=1),
        store.projects.delete("atlas", version=3),
    ):
        with pytest.raises(Stale, match=r"project atlas has version 2 by now") as caught:
            await act
        assert caught.value.http_status == 412
    assert (await store.projects.change("atlas", {"title": "two"}, version=seen.version)).version == 3


async def test_what_is_put_away_is_in_no_list_until_it_is_had_back(store: Store) -> None:
    entry = await store.artifacts.create(artifact(tags=("t",)), b"words inside")
    away = await store.artifacts.archive(entry.id)

    assert (away.version, away.archived_at is not None) == (2, True)
    assert (await store.artifacts.archive(entry.id)).version == 2
    assert await store.artifacts.count(Query()) == await store.artifacts.count(Query(deleted=True)) == 0
    assert (await store.artifacts.page(Query(archived=True))).items == (away,)
    assert await store.artifacts.count(Query(archived=None)) == 1
    assert (await store.search("inside")).items == ()
    assert len((await store.search("inside", archived=True)).items) == 1
    back = await store.artifacts.restore(entry.id)
    assert (back.archived_at, back.version) == (None, 3)
    assert len((await store.search("inside")).items) == 1


async def test_what_is_deleted_is_nowhere_and_comes_back_as_it_was(store: Store) -> None:
    entry = await store.artifacts.archive((await store.artifacts.create(artifact(), b"words inside")).id)
    await store.artifacts.delete(entry.id)

    for act in (
        store.artifacts.get(entry.id),
        store.artifacts.change(entry.id, {"title": "x"}),
        store.artifacts.delete(entry.id),
        store.artifacts.content(entry.id),
        store.artifacts.editions(entry.id),
        store.artifacts.edit(entry.id, b"x"),
        store.artifacts.duplicate(entry.id),
    ):
        with pytest.raises(EntryNotFound):
            await act
    assert await store.artifacts.content(entry.id, deleted=True) == b"words inside"
    assert await store.artifacts.count(Query(deleted=True, archived=None)) == 1
    assert (await store.search("inside", archived=None)).items == ()
    back = await store.artifacts.restore(entry.id)
    assert (back.deleted_at, back.archived_at) == (None, entry.archived_at)


async def test_what_is_in_a_project_goes_and_comes_with_it(place: Place) -> None:
    store = place.store
    kept = await store.artifacts.create(artifact("kept.tsx"), b"kept")
    before = await store.artifacts.create(artifact("before.tsx"), b"before")
    await store.contexts.create(context("told"))
    await store.pipelines.create(pipeline(project="atlas"))
    await store.runs.create(run(status=RunStatus.COMPLETED))
    await store.artifacts.delete(before.id)
    await place.clock.advance(1)
    await store.projects.delete("atlas")

    for entries in (store.artifacts, store.contexts, store.pipelines, store.runs):
        assert await entries.count(Query()) == 0
    assert (await store.search("kept")).items == ()
    with pytest.raises(EntryNotFound):
        await store.artifacts.restore(kept.id)
    with pytest.raises(EntryNotFound, match="no project 'atlas'"):
        await store.contexts.create(context())
    await store.projects.restore("atlas")
    for entries in (store.artifacts, store.contexts, store.pipelines, store.runs):
        assert await entries.count(Query(project="atlas")) == 1
    assert (await store.artifacts.get(kept.id)).version == 3
    assert [hit.id for hit in (await store.search("kept")).items] == [kept.id]
    with pytest.raises(EntryNotFound):
        await store.artifacts.get(before.id)


async def test_a_pipeline_that_came_meanwhile_keeps_its_name(place: Place) -> None:
    store = place.store
    await store.pipelines.create(pipeline(project="atlas"))
    gone = await store.projects.delete("atlas")
    other = await store.pipelines.create(pipeline())
    await store.projects.restore(gone.id)

    assert (await store.pipelines.get("page")).id == other.id
    assert (await store.pipelines.get("page", project=gone.id)).project == gone.id


async def test_a_pipeline_of_several_projects_is_named_by_its_id(store: Store) -> None:
    beta = await store.projects.create(project("beta"))
    await store.pipelines.create(pipeline(project="atlas"))
    second = await store.pipelines.create(pipeline(project="beta"))
    with pytest.raises(Conflict, match="in several projects"):
        await store.pipelines.get("page")
    assert await store.pipelines.get("page", project=beta.id) == second
    with pytest.raises(Conflict, match="already"):
        await store.pipelines.create(pipeline(project="beta"))


async def test_nothing_is_deleted_or_moved_under_a_run(store: Store) -> None:
    await store.projects.create(project("beta"))
    entry = await store.runs.create(run())
    for act in (
        store.runs.delete(entry.id),
        store.runs.purge(entry.id),
        store.runs.move(entry.id, "beta"),
        store.projects.delete("atlas"),
        store.projects.purge("atlas"),
    ):
        with pytest.raises(Conflict, match=r"cannot be (delete|purge|move)d"):
            await act
    await store.runs.update(entry.id, status=RunStatus.PAUSED)
    await store.runs.delete(entry.id)


async def test_purged_is_gone_for_good_with_all_that_hung_on_it(store: Store) -> None:
    entry = await store.runs.create(run(status=RunStatus.COMPLETED))
    await store.runs.commit(completed(entry.id), [made(content=b"purgeable")])
    await store.projects.purge("atlas")

    with pytest.raises(EntryNotFound):
        await store.runs.get(entry.id, deleted=True)
    with pytest.raises(EntryNotFound):
        await store.runs.commit(completed(entry.id, "late"), [made()])
    assert (await store.search("purgeable", archived=None)).items == ()
    assert await store.artifacts.count(Query(deleted=True, archived=None)) == 0


async def test_a_run_that_is_deleted_leaves_its_artifacts(store: Store) -> None:
    entry = await store.runs.create(run(status=RunStatus.COMPLETED))
    (kept,) = await store.runs.commit(completed(entry.id), [made()])
    await store.runs.purge(entry.id)

    assert (await store.artifacts.get(kept.id)).run == entry.id
    assert await store.artifacts.content(kept.id) == b"one"


async def test_a_copy_of_a_project_has_its_contexts_and_pipelines(store: Store) -> None:
    await store.contexts.create(context("first"))
    await store.contexts.create(context("second", name="more"))
    await store.pipelines.create(pipeline(project="atlas"))
    await store.runs.create(run())
    copy = await store.projects.duplicate("atlas")
    again = await store.projects.duplicate("atlas")

    assert [copy.name, again.name] == ["atlas-copy", "atlas-copy-2"]
    assert [each["text"] for each in await store.contexts.material(copy.id)] == ["first", "second"]
    assert await store.pipelines.count(Query(project=copy.id)) == 1
    assert await store.runs.count(Query(project=copy.id)) == 0
    with pytest.raises(Conflict):
        await store.projects.duplicate("atlas", name="atlas-copy")


async def test_a_copy_of_an_artifact_has_its_editions_and_is_of_no_run(store: Store) -> None:
    entry = await store.runs.create(run())
    (first,) = await store.runs.commit(completed(entry.id), [made(content=b"copied words")])
    await store.artifacts.edit(first.id, b"changed words", note="by hand")
    copy = await store.artifacts.duplicate(first.id, name="src/Other.tsx")

    assert copy.name == "src/Other.tsx"
    assert [(each.number, each.note) for each in await store.artifacts.editions(copy.id)] == [(1, ""), (2, "by hand")]
    assert await store.artifacts.content(copy.id, 1) == b"copied words"
    assert [each.id for each in await store.artifacts.of_run(entry.id)] == [first.id]
    assert {hit.id for hit in (await store.search("changed")).items} == {first.id, copy.id}
    with pytest.raises(NotSupported):
        await store.runs.duplicate(entry.id)


async def test_what_is_moved_is_of_the_other_project(store: Store) -> None:
    beta = await store.projects.create(project("beta"))
    entry = await store.runs.create(run(status=RunStatus.COMPLETED, title="quaint"))
    (kept,) = await store.runs.commit(completed(entry.id), [made()])
    shared = await store.pipelines.create(pipeline(project="atlas"))
    moved = await store.runs.move(entry.id, "beta")

    assert (moved.project, (await store.artifacts.get(kept.id)).project) == (beta.id, beta.id)
    assert len((await store.search("quaint", project="beta")).items) == 1
    assert (await store.search("quaint", project="atlas")).items == ()
    assert (await store.pipelines.move(shared.id, "")).project is None
    with pytest.raises(EntryNotFound):
        await store.runs.move(entry.id, "nowhere")
    with pytest.raises(NotSupported):
        await store.projects.move("atlas", "beta")


async def test_many_at_once_each_with_what_became_of_it(store: Store) -> None:
    entries = [await store.artifacts.create(artifact(f"{number}.tsx", tags=("old",)), b"") for number in range(3)]
    ids = [entry.id for entry in entries]
    going = await store.runs.create(run())

    asked = [*sorted(ids, reverse=True), "art-000000000000"]
    done = await store.artifacts.bulk("tag", asked, add=("new",), remove=("old",))
    assert list(done) == asked
    assert done == {**dict.fromkeys(ids), "art-000000000000": "entry_missing"}
    assert (await store.artifacts.get(ids[0])).tags == ("new",)
    assert await store.artifacts.count(Query(tags=("new",))) == 3
    assert await store.artifacts.bulk("delete", ids[:2]) == dict.fromkeys(ids[:2])
    assert await store.artifacts.bulk("restore", ids[:1]) == {ids[0]: None}
    assert await store.artifacts.bulk("purge", ids[1:]) == dict.fromkeys(ids[1:])
    assert await store.runs.bulk("delete", [going.id]) == {going.id: "conflict"}
    assert [each.id for each in (await store.artifacts.page(Query())).items] == [ids[0]]
    with pytest.raises(InvalidRequest, match="no action"):
        await store.artifacts.bulk("explode", ids)


async def test_one_of_many_that_fails_takes_no_other_with_it(store: Store) -> None:
    first = await store.pipelines.create(pipeline("page", project="atlas"))
    await store.pipelines.delete(first.id)
    second = await store.pipelines.create(pipeline("page", project="atlas"))
    third = await store.pipelines.create(pipeline("other", project="atlas"))
    await store.pipelines.delete(third.id)

    done = await store.pipelines.bulk("restore", [first.id, second.id, third.id])

    assert done == {first.id: "conflict", second.id: None, third.id: None}
    assert {each.name for each in (await store.pipelines.page(Query())).items} == {"page", "other"}


async def test_contexts_have_an_order(store: Store) -> None:
    one, two, three = [await store.contexts.create(context(name=name)) for name in ("one", "two", "three")]
    ordered = await store.contexts.reorder("atlas", [three.id, one.id])

    assert [each.name for each in ordered] == ["three", "one", "two"]
    assert [each.version for each in ordered] == [2, 2, 2]
    listed = await store.contexts.page(Query(sort="position"))
    assert [each.id for each in listed.items] == [three.id, one.id, two.id]
    await store.projects.create(project("beta"))
    other = await store.contexts.create(context(of="beta"))
    with pytest.raises(EntryNotFound):
        await store.contexts.reorder("atlas", [other.id])
    with pytest.raises(InvalidRequest, match="once"):
        await store.contexts.reorder("atlas", [one.id, one.id])


async def test_material_is_what_is_enabled_and_there(store: Store) -> None:
    await store.contexts.create(context("told"))
    off = await store.contexts.create(context("untold", enabled=False))
    away = await store.contexts.create(context("away"))
    await store.contexts.archive(away.id)
    variables = context(kind=ContextKind.VARIABLES, name="v", variables={"colour": "red"})
    await store.contexts.create(variables)

    given = await store.contexts.material("atlas")
    assert [(each["kind"], each["text"], each["variables"]) for each in given] == [
        ("instructions", "told", {}),
        ("variables", "", {"colour": "red"}),
    ]
    await store.contexts.change(off.id, {"enabled": True})
    assert len(await store.contexts.material("atlas")) == 3
    with pytest.raises(InvalidRequest, match="Only a context of kind 'variables'"):
        await store.contexts.create(context(variables={"a": 1}))


async def test_a_file_of_a_context_is_kept_by_its_bytes(store: Store) -> None:
    entry = await store.contexts.create(context(kind=ContextKind.FILE, name="notes.pdf"))
    with pytest.raises(EntryNotFound, match="has no file"):
        await store.contexts.content(entry.id)
    put = await store.contexts.put(entry.id, b"%PDF\0\xff", "application/pdf", "as it reads", version=1)

    assert (put.size, put.media_type, put.text, put.version) == (6, "application/pdf", "as it reads", 2)
    assert await store.contexts.content(entry.id) == b"%PDF\0\xff"
    with pytest.raises(Stale):
        await store.contexts.put(entry.id, b"other", "text/plain", "", version=1)
    told = await store.contexts.create(context())
    with pytest.raises(InvalidRequest, match="has no file"):
        await store.contexts.put(told.id, b"", "text/plain", "")


async def test_an_edit_makes_an_edition_and_the_old_ones_stay(store: Store) -> None:
    entry = await store.artifacts.create(artifact(), b"before", model="m", problems=[{"line": 1}])
    edited = await store.artifacts.edit(entry.id, "später".encode(), version=1, note="by hand")
    same = await store.artifacts.edit(entry.id, "später".encode())

    assert (edited.number, edited.version, edited.size) == (2, 2, 7)
    assert same == edited
    first, second = await store.artifacts.editions(entry.id)
    assert (first.model, first.problems, second.note) == ("m", ({"line": 1},), "by hand")
    assert await store.artifacts.content(entry.id) == "später".encode()
    assert await store.artifacts.content(entry.id, 1) == b"before"
    for number in (0, 3, -1, 1 << 62):
        with pytest.raises(EntryNotFound, match=r"has no edition"):
            await store.artifacts.content(entry.id, number)
    assert [hit.id for hit in (await store.search("spater")).items] == [entry.id]
    assert (await store.search("before")).items == ()
    renamed = await store.artifacts.change(entry.id, {"name": "lib/New.tsx"})
    assert [hit.title for hit in (await store.search("lib später")).items] == [renamed.name]


async def test_a_run_keeps_what_it_was_given(store: Store) -> None:
    told = await store.contexts.create(context("as it was"))
    given = await store.contexts.material("atlas")
    entry = await store.runs.create(run(material=given, inputs={"topic": "bears"}, seed=7, budget=10**9))
    await store.contexts.change(told.id, {"text": "changed"})
    await store.contexts.purge(told.id)

    kept = await store.runs.get(entry.id)
    assert kept == entry
    assert [each["text"] for each in kept.material] == ["as it was"]
    assert [hit.id for hit in (await store.search("bears")).items] == [entry.id]


async def test_a_run_goes_on(place: Place) -> None:
    store = place.store
    entry = await store.runs.create(run())
    await place.clock.advance(1)
    going = await store.runs.update(entry.id, status=RunStatus.RUNNING, operation="op-1", started_at=5.0)

    assert (going.status, going.operation, going.version) == (RunStatus.RUNNING, "op-1", 2)
    assert going.updated_at > entry.updated_at
    failed = await store.runs.update(entry.id, status=RunStatus.FAILED, error={"message": "a\0b\ud800"})
    assert failed.error == {"message": "a\ufffdb\ufffd"}
    with pytest.raises(InvalidRequest, match="does not change"):
        await store.runs.update(entry.id, source="other")
    with pytest.raises(InvalidRequest, match="cannot be changed"):
        await store.runs.change(entry.id, {"status": "completed"})


async def test_a_run_begins_with_all_its_steps_or_not_at_all(store: Store) -> None:
    planned = [completed("", key, status=StepStatus.WAITING, output=None, cost=0) for key in ("b", "a")]
    entry = await store.runs.begin(run(), planned)
    assert (entry.steps_total, entry.version) == (2, 1)
    assert {each.run for each in await store.runs.steps(entry.id)} == {entry.id}
    with pytest.raises(DatabaseError):
        await store.runs.begin(run(title="twice"), [*planned, planned[0]])
    assert [each.id for each in (await store.runs.page(Query())).items] == [entry.id]
    assert await store.runs.steps((await store.runs.begin(run(), [])).id) == []


async def test_steps_are_planned_once_and_saved(store: Store) -> None:
    entry = await store.runs.create(run())
    planned = [completed(entry.id, key, status=StepStatus.WAITING, output=None, cost=0) for key in ("b", "a")]
    await store.runs.plan(entry.id, [replace(planned[0], position=1), planned[1]])
    await store.runs.save(replace(planned[1], status=StepStatus.RUNNING, started_at=1.0))
    fans = [replace(planned[0], key=f"b[{number}]", name="b", index=number, position=1) for number in range(11)]
    await store.runs.plan(entry.id, [*planned, *reversed(fans)])

    steps = await store.runs.steps(entry.id)
    assert [each.key for each in steps] == ["a", "b", *(f"b[{number}]" for number in range(11))]
    assert steps[0].status is StepStatus.RUNNING
    kept = await store.runs.get(entry.id)
    assert (kept.steps_total, kept.steps_done) == (13, 0)
    await store.runs.save(replace(planned[1], status=StepStatus.SKIPPED, reason="no\0need"))
    assert (await store.runs.steps(entry.id))[0].reason == "no\ufffdneed"
    assert (await store.runs.get(entry.id)).steps_done == 1


async def test_a_snapshot_is_there_once(store: Store) -> None:
    first = await store.runs.create(run(status=RunStatus.COMPLETED, source="x" * 1000))
    await store.runs.create(run(status=RunStatus.COMPLETED, source="x" * 1000))
    page = await store.runs.page(Query())
    assert [len(each.source) for each in page.items] == [1000, 1000]
    assert await store.runs.forget_snapshots() == 0
    await store.runs.purge(first.id)
    assert (await store.runs.page(Query())).items[0].source == "x" * 1000
