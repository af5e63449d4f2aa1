"""gc takes what nobody needs and nothing else; df says beforehand what is shared."""

import fcntl
import os

import pytest

from corral.catalog.usage import Limits
from corral.domain.models import Capability
from corral.errors import (
    ConfigError,
    Conflict,
    CorruptModel,
    DigestMismatch,
    DiskFull,
    InvalidRequest,
    ModelNotFound,
    QuotaExceeded,
    StoreError,
    UnknownOption,
)
from support import models
from support.stores import EYES, VERSIONS, Store, digest

SIZE = len(VERSIONS[0])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models", limits=Limits(keep_revisions=2))


# --- gc


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
    dry = await store.gc(dry_run=True, keep={"sha256-keep"})
    assert (root / "partial" / "sha256-x.part").exists()
    found = await store.gc(keep={"sha256-keep"})
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


# --- df


async def test_usage_says_what_is_shared_and_what_removal_frees(tmp_path):
    store = Store(tmp_path, limits=Limits(quota=10**9))
    store.offer("pair", 0, {"one.gguf": VERSIONS[0], "mmproj.gguf": EYES})
    await store.install("memory:pair")
    await store.through("m", 0, 1)
    (tmp_path / "partial").mkdir(exist_ok=True)
    (tmp_path / "partial" / "x.part").write_bytes(b"12345")
    usage = store.usage()
    by_name = {item.name: item for item in usage.models}
    assert (by_name["m"].size, by_name["m"].shared, by_name["m"].unique, by_name["m"].revisions) == (
        2 * SIZE, SIZE, SIZE, 2,
    )  # fmt: skip
    assert (by_name["pair"].shared, by_name["pair"].unique) == (SIZE, len(EYES))
    assert (usage.blobs, usage.partial, usage.quota) == (2 * SIZE + len(EYES), 5, 10**9)
    assert usage.total == usage.blobs + 5
    assert usage.free > 0
    for name in ("m", "pair"):
        expected = {item.name: item.unique for item in store.usage().models}[name]
        assert await store.remove(name) == expected
    assert store.usage().blobs == 0


# --- quota


async def test_the_quota_holds_before_the_first_byte(tmp_path):
    store = Store(tmp_path, limits=Limits(quota=2 * SIZE + 10))
    await store.through("a", 0)
    await store.through("b", 1)
    sent = store.source.sent
    store.offer("c", 2)
    with pytest.raises(QuotaExceeded, match=r"memory:c needs 1\.6 kB more; the store takes 3\.2 kB of its"):
        await store.install("memory:c")
    assert store.source.sent == sent
    await store.install("memory:a", name="again")  # takes nothing more
    store.offer("a", 2)
    with pytest.raises(QuotaExceeded) as caught:
        await store.update("again")
    assert "corral gc" in caught.value.hint
    await store.remove("b")
    assert (await store.update("again")).revision.files[0].sha256 == digest(2)


async def test_a_source_has_a_quota_of_its_own(tmp_path):
    store = Store(tmp_path, limits=Limits(quotas={"memory": SIZE + 10, "hf": 1}))
    await store.through("a", 0)
    store.offer("b", 1)
    with pytest.raises(QuotaExceeded, match="'memory' take"):
        await store.install("memory:b")
    store.require_room(10**6, "file", "x")
    with pytest.raises(QuotaExceeded, match="'hf'"):
        store.require_room(2, "hf", "x")


def test_an_unknown_size_counts_as_a_usual_one(tmp_path):
    limits = Limits(quota=3 * 10**9)
    with pytest.raises(QuotaExceeded, match=r"x needs 4\.0 GB"):
        Store(tmp_path, limits=limits).require_room(None, "hf", "x")
    Store(tmp_path, limits=Limits(quota=10**9, default_model_size=10)).require_room(None, "hf", "x")
    with pytest.raises(DiskFull, match=r"needs 1000000\.0 TB more"):
        Store(tmp_path).require_room(10**18, "hf", "x")
    Store(tmp_path, limits=Limits(quota=0)).require_room(0, "hf", "x")


# --- overrides


async def test_what_the_user_says_survives_updates(store):
    await store.through("m", 0)
    before = store.get("m")
    said = {
        "capabilities": {"supports_function_calling": True, "supports_chat": False, "allowed_roles": ["user"]},
        "runtime": "vllm",
        "context_length": 99,
    }
    await store.set_override("m", said)
    assert store.override("m") == said
    for item in (store.get("m"), store.all()[0], store.page(None, 1)[0]):
        able = item.revision.capabilities
        assert Capability.TOOLS in able
        assert Capability.CHAT not in able
        assert (item.revision.facts["context_length"], item.revision.facts["allowed_roles"]) == (99, ["user"])
        assert item.revision.id == before.revision.id
    await store.through("m", 1)
    assert store.get("m").revision.facts["context_length"] == 99
    assert store.history("m")[0].revision.facts["context_length"] == 128
    await store.set_override("m", None)
    assert store.override("m") == {}
    assert store.get("m").revision.facts["context_length"] == 128
    await store.set_override("m", {"context_length": 5})
    await store.remove("m")
    await store.through("m", 0)
    assert store.override("m") == {}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"contextlength": 5}, UnknownOption),
        ({"capabilities": {"supports_tols": True}}, UnknownOption),
        ({"capabilities": {"supports_tools": "yes"}}, InvalidRequest),
        ({"capabilities": ["tools"]}, InvalidRequest),
        ({"capabilities": {"allowed_roles": "user"}}, InvalidRequest),
        ({"capabilities": {"allowed_roles": [1]}}, InvalidRequest),
        ({"runtime": ""}, InvalidRequest),
        ({"runtime": 5}, InvalidRequest),
        ({"context_length": True}, InvalidRequest),
        ({"context_length": 0}, InvalidRequest),
        ({"context_length": 10**12}, InvalidRequest),
    ],
)
async def test_what_cannot_be_said_is_refused(store, said, error):
    await store.through("m", 0)
    with pytest.raises(error):
        await store.set_override("m", said)
    assert store.override("m") == {}


async def test_a_damaged_override_is_named(store):
    await store.through("m", 0)
    await store.set_override("m", {"context_length": 5})
    path = store._blobs.root / "overrides" / "m.json"
    for content in ("{", "[]", '{"name": "n", "override": 5}', '{"name": "m", "override": {"x": 1}}'):
        path.write_text(content)
        with pytest.raises(StoreError, match="override"):
            store.get("m")
    with pytest.raises(ModelNotFound):
        await store.set_override("n", {})
    assert not issubclass(StoreError, ConfigError)


# --- move


async def test_files_move_to_another_disk_and_back(store, tmp_path):
    disk = tmp_path / "disk"
    await store.through("m", 0, 1)
    seen = []
    assert await store.move("m", disk, report=lambda progress: seen.append(progress.done)) == 2 * SIZE
    assert seen == sorted(seen)
    assert seen[-1] == 2 * SIZE
    path = store.path(store.get("m").revision.files[0])
    assert path.is_symlink()
    assert path.read_bytes() == VERSIONS[1]
    assert path.stat().st_mode & 0o777 == 0o444
    assert await store.move("m", disk) == 0
    await store.verify("m")
    await store.rollback("m")
    await store.verify("m")
    assert store.usage().blobs == 2 * SIZE
    other = tmp_path / "other"
    assert await store.move("m", other) == 2 * SIZE
    assert not list(disk.glob("*/*"))
    assert await store.move("m", None) == 2 * SIZE
    assert not store.path(store.get("m").revision.files[0]).is_symlink()
    assert not list(other.glob("*/*"))
    await store.verify("m")
    found = await store.gc()
    assert found.kept == ()
    assert not list(disk.iterdir())
    assert store._places.known() == []


async def test_removal_and_collection_take_both_ends(store, tmp_path):
    disk = tmp_path / "disk"
    await store.through("m", 0)
    await store.through("n", 1, 2, 3)
    await store.move("m", disk)
    await store.move("n", disk)
    assert await store.remove("m") == SIZE
    assert len(list(disk.glob("*/*"))) == 3
    assert (await store.gc()).bytes == SIZE
    assert len(list(disk.glob("*/*"))) == 2 == len(store.blobs())


async def test_a_disk_that_is_not_there_is_said_by_name(store, tmp_path):
    disk = tmp_path / "disk"
    await store.through("m", 0, 1)
    await store.move("m", disk)
    disk.rename(tmp_path / "unplugged")
    entry = store.get("m").revision.files[0]
    for read in (lambda: store.path(entry), lambda: store.files(store.get("m"))):
        with pytest.raises(CorruptModel, match=r"moved to .*disk.*, which is not there"):
            read()
    with pytest.raises(CorruptModel, match="not there"):
        await store.move("m", None)
    assert (await store.verify_all())[0].error is not None
    found = await store.gc()
    assert any("not there" in item for item in found.kept)
    (tmp_path / "unplugged").rename(disk)
    await store.verify("m")
    disk.rename(tmp_path / "unplugged")
    store.offer("m", 1)
    await store.install("memory:m")  # it is fetched again, and lies in the store
    await store.verify("m")


async def test_a_moved_file_that_is_damaged_on_the_way_stays_where_it_is(store, tmp_path):
    await store.through("m", 0)
    path = store.path(store.get("m").revision.files[0])
    path.chmod(0o644)
    path.write_bytes(VERSIONS[0][:-1] + b"!")
    with pytest.raises(DigestMismatch):
        await store.move("m", tmp_path / "disk")
    assert not path.is_symlink()
    assert not list((tmp_path / "disk").glob("*/*"))


async def test_what_a_killed_move_left_is_gone_on_with_or_collected(store, tmp_path):
    disk = tmp_path / "disk"
    await store.through("m", 0)
    place = store._places.under(disk)
    (place / f"move-{digest(0)}.part").write_bytes(VERSIONS[0][:700])
    (place / "move-other.part").write_bytes(b"12345")
    (place / f"sha256-{digest(3)}").write_bytes(VERSIONS[3])
    assert await store.move("m", disk) == SIZE
    found = await store.gc(dry_run=True)
    assert found == await store.gc()
    assert (found.parts, found.bytes) == (1, 5 + SIZE)
    assert [path.name for path in place.iterdir()] == [f"sha256-{digest(0)}"]


async def test_a_folder_within_the_store_is_refused(store):
    await store.through("m", 0)
    with pytest.raises(Conflict, match="within the store"):
        await store.move("m", store._blobs.root / "elsewhere")


# --- verify


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
