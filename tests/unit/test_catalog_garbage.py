"""gc takes what nobody needs and nothing else; verification says what is wrong."""

import fcntl
import os
from dataclasses import replace

import pytest

from corral.catalog.usage import Limits
from corral.errors import (
    DigestMismatch,
    ModelNotFound,
    SourceError,
    StoreError,
)
from corral.kit.disk import in_thread
from support import models
from support.stores import VERSIONS, Store, digest

SIZE = len(VERSIONS[0])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models", limits=Limits(keep_revisions=2))


def kept(*keys):
    """Says that what came with those keys is to be kept."""

    async def keep():
        return keys

    return keep


async def test_old_revisions_go_but_never_the_current_one(store):
    ids = await store.through("m", 0, 1, 2, 3)
    await store.rollback("m", ids[0])
    dry = await store.gc(dry_run=True)
    assert store.blobs() == {digest(version) for version in range(4)}
    done = await store.gc()
    assert done == dry
    assert set(done.revisions) == {ids[1], ids[2]}
    assert (done.blobs, done.bytes) == (2, 2 * SIZE)
    assert store.blobs() == {digest(0), digest(3)}
    assert (await store.gc()).blobs == 0
    assert await store.rollback("m", ids[3])


@pytest.mark.parametrize(("keep", "left"), [(0, 1), (1, 1), (3, 3), (9, 4)])
async def test_as_many_stay_as_are_to_be_kept(tmp_path, keep, left):
    store = Store(tmp_path, limits=Limits(keep_revisions=keep))
    await store.through("m", 0, 1, 2, 3)
    await store.pin("m")
    await store.gc()
    assert sum(past.here for past in store.history("m")) == left == len(store.blobs())


async def test_what_another_model_needs_stays(tmp_path):
    store = Store(tmp_path, limits=Limits(keep_revisions=1))
    await store.through("m", 0, 1)
    await store.through("n", 0)
    found = await store.gc()
    assert (found.revisions, found.blobs) == ((), 0)
    assert await store.rollback("m")


async def test_leftovers_of_killed_processes_go(store):
    await store.through("m", 0)
    root = store._blobs.root
    (root / "manifests" / ("a" * 64 + ".json")).write_text("{}")
    (root / "blobs" / "sha256" / ("b" * 64)).write_bytes(b"orphan")
    (root / "partial").mkdir(exist_ok=True)
    for name in ("sha256-x.part", "sha256-x~wheel.whl", "ref-y~wheel.whl", "sha256-keep.part", "sha256-keep~a"):
        (root / "partial" / name).write_bytes(b"12345")
    for folder in ("names", "manifests", "overrides", "blobs/sha256", "."):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "0123.tmp").write_bytes(b"123")
    (root / "overrides" / "gone.json").write_text("{}")
    (root / "views" / ("c" * 64)).mkdir(parents=True)
    dry = await store.gc(dry_run=True, keep=kept("sha256-keep"))
    assert (root / "partial" / "sha256-x.part").exists()
    found = await store.gc(keep=kept("sha256-keep"))
    assert found == dry
    assert found.parts == 2
    assert found.revisions == ("a" * 64,)
    assert any("sha256-keep" in item for item in found.kept)
    left = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    current = store.get("m").revision.id
    assert left == {
        "lock", "manifest.json", "names/m.json", f"manifests/{current}.json", f"blobs/sha256/{digest(0)}",
        "partial/sha256-keep.part", "partial/sha256-keep~a",
    }  # fmt: skip
    assert not (root / "views" / ("c" * 64)).exists()


async def test_what_somebody_holds_stays(store):
    await store.through("m", 0)
    root = store._blobs.root
    orphan = root / "blobs" / "sha256" / ("b" * 64)
    orphan.write_bytes(b"orphan")
    (root / "partial").mkdir(exist_ok=True)
    part = root / "partial" / "sha256-x.part"
    part.write_bytes(b"")
    holders = [os.open(path, os.O_RDWR) for path in (orphan, part)]
    try:
        for holder in holders:
            fcntl.flock(holder, fcntl.LOCK_SH)
        found = await store.gc()
        assert (found.blobs, found.parts, len(found.kept)) == (0, 0, 2)
        assert orphan.exists()
        assert part.exists()
    finally:
        for holder in holders:
            os.close(holder)
    found = await store.gc()
    assert (found.blobs, found.parts, found.kept) == (1, 1, ())


async def test_nothing_is_taken_from_under_a_damaged_record(store):
    await store.through("m", 0, 1, 2)
    await store.through("n", 3)
    (store._blobs.root / "names" / "n.json").write_text("{")
    before = store.blobs()
    found = await store.gc()
    assert (found.revisions, found.blobs) == ((), 0)
    assert any("damaged" in item for item in found.kept)
    assert store.blobs() == before


async def test_an_empty_store_has_no_garbage(store):
    found = await store.gc()
    assert (found.revisions, found.blobs, found.parts, found.bytes, found.kept) == ((), 0, 0, 0, ())


async def test_verification_of_everything_names_what_is_wrong(store):
    await store.through("m", 0, 1)
    await store.through("n", 1)
    await store.through("o", 2)
    seen = []
    findings = await store.verify_all(lambda progress: seen.append((progress.done, progress.total)))
    assert [(item.name, item.error) for item in findings] == [("m", None), ("m", None), ("n", None), ("o", None)]
    assert seen[-1] == (3 * SIZE, 3 * SIZE)
    blob = store._blobs.path(digest(1))
    blob.chmod(0o644)
    blob.write_bytes(VERSIONS[1][:-1] + b"!")
    (store._blobs.root / "names" / "o.json").write_text("{")
    wrong = {(item.name, type(item.error)) for item in await store.verify_all() if item.error}
    assert wrong == {("m", DigestMismatch), ("n", DigestMismatch), ("o", StoreError)}


def test_the_models_here_are_what_they_are_taken_for():
    assert len({len(data) for data in VERSIONS}) == 1
    assert models.sha256(VERSIONS[0]) == digest(0)


async def half_installed(store):
    """Install a model in two files, of which one arrives and the other fails; the keys that were told."""
    store.offer("half", 0, models.snapshot(shards=2))
    fetch, keys = store.source.fetch, set()

    async def fail(file, into, report):
        if file.name.startswith("model-00002"):
            raise SourceError("gone")
        await fetch(file, into, report)

    store.source.fetch = fail
    with pytest.raises(SourceError):
        await store.install("memory:half", on_part=keys.add)
    store.source.fetch = fetch
    assert store.blobs()
    return keys


async def test_what_came_whole_for_an_unfinished_install_stays(store):
    keys = await half_installed(store)
    before = store.blobs()
    found = await store.gc(keep=kept(*keys), dry_run=True)
    assert found == await store.gc(keep=kept(*keys))
    assert store.blobs() == before
    assert {f"{known}: an operation goes on from it" for known in before} <= set(found.kept)
    sent = store.source.sent
    await store.install("memory:half")
    whole = sum(len(data) for data in store.source.models["half"].values())
    assert store.source.sent - sent < whole
    await store.remove("half")
    await half_installed(store)
    await store.gc()
    assert store.blobs() == set()


async def test_what_came_whole_for_a_cancelled_install_goes(store):
    keys = await half_installed(store)
    await store.discard(keys)
    assert store.blobs() == set()
    assert store.usage().total == 0


async def test_a_cancelled_install_takes_nothing_that_a_model_needs_or_somebody_holds(store):
    keys = await half_installed(store)
    mine = {f"sha256-{digest(version)}" for version in range(3)}
    await store.through("m", 0, 1)
    (store._blobs.root / "blobs" / "sha256" / digest(2)).write_bytes(VERSIONS[2])
    held = await store._blobs.pin(digest(2))
    try:
        await store.discard(keys | mine | {"sha256-../../m", "ref-x"})
    finally:
        os.close(held)
    assert store.blobs() == {digest(0), digest(1), digest(2)}
    (store._blobs.root / "names" / "m.json").write_text("{")
    await store.discard(mine)
    assert store.blobs() == {digest(0), digest(1), digest(2)}


async def test_collecting_and_verifying_hold_no_reader_up(store):
    await store.through("m", 0, 1)
    view = store._index.look()
    with store._index._mutex:  # what a reader waits for when something changed
        collector = store._collector((), dry_run=True)
        assert (await in_thread(collector.collect, 2)).bytes == 0
        assert [finding.error for finding in await store.verify_all()] == [None, None]
    assert store._index._view is view


async def test_collection_mends_an_index_that_lies(store):
    await store.through("m", 0)
    record = store._index.look().records["m"]
    store._index.wrote("ghost", replace(record, name="ghost"))
    await store.gc()
    assert store._index.latest().names == ("m",)


async def gone(store, name):
    """Do of a removal what is done before it could be killed: the name goes, nothing else."""
    async with store._blobs.locked():
        store._manifests.forget(name)


@pytest.fixture
async def half_removed(store):
    await store.through("m", 0, 1)
    await store.pin("m")
    await store.set_override("m", {"context_length": 7})
    await gone(store, "m")
    assert store.names() == []
    return store


async def test_a_removal_that_was_killed_is_finished_by_another(half_removed):
    assert await half_removed.remove("m") == 2 * SIZE
    assert half_removed.blobs() == set()
    assert half_removed.override("m") == {}
    assert (await half_removed.gc()).bytes == 0
    with pytest.raises(ModelNotFound):
        await half_removed.remove("m")


async def test_a_removal_that_was_killed_is_finished_by_a_collection(half_removed):
    dry = await half_removed.gc(dry_run=True)
    assert dry == await half_removed.gc()
    assert half_removed.blobs() == set()
    assert half_removed.override("m") == {}
    with pytest.raises(ModelNotFound):
        await half_removed.remove("m")


async def test_what_was_said_of_a_model_half_removed_is_not_said_of_the_next(half_removed):
    half_removed.offer("m", 2)
    await half_removed.install("memory:m")
    assert half_removed.override("m") == {}
    assert half_removed.get("m").revision.facts["context_length"] != 7
    assert await half_removed.remove("m") == SIZE


async def test_a_removal_is_finished_also_when_its_record_cannot_be_read(half_removed):
    (half_removed._blobs.root / "names" / "m.gone").write_text("{")
    assert await half_removed.remove("m") == 2 * SIZE
    assert (await half_removed.gc()).bytes == 0
