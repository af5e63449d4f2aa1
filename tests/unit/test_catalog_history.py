"""What a name stood for: update, history, rollback, pin; instant where the files are here, refused where not."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.catalog import history
from corral.catalog.history import Record, Step
from corral.catalog.library import Entry, Library, PinnedFile
from corral.domain.models import FileEntry, ModelRef
from corral.errors import Conflict, ModelNotFound, ModelPinned, NotSupported, SourceError, SourceNotFound
from corral.kit.clock import SystemClock
from support import models
from support.stores import EYES, VERSIONS, Store, digest

IDS = [f"{number:064x}" for number in range(1, 8)]


def record(*ids, current=-1, **more):
    steps = tuple(Step(known, float(place)) for place, known in enumerate(ids))
    return Record("m", ids[current], steps, **more)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models")


# --- records as values


def test_a_record_is_read_as_it_was_written():
    one = Record("org/M:7b", IDS[1], (Step(IDS[0], 1.5, "hf:a", "v1"), Step(IDS[1], 2.5)), "hf:a", pinned=True)
    assert history.parse(history.dump(one)) == one


def test_a_record_of_the_first_corral_is_read():
    old = json.dumps({"corral": 1, "name": "m", "revision": IDS[0], "installed_at": 3.0})
    assert history.parse(old.encode()) == Record("m", IDS[0], (Step(IDS[0], 3.0),))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../evil"},
        {"name": "a\nb"},
        {"name": 5},
        {"revision": "../x"},
        {"revision": IDS[5]},
        {"history": [{"revision": IDS[0], "installed_at": 1}, {"revision": IDS[0], "installed_at": 1}]},
        {"history": [{"revision": "../../x", "installed_at": 1}]},
        {"history": []},
        {"history": [{"revision": IDS[0], "installed_at": 1, "source": 7}]},
        {"follows": None},
    ],
)
def test_a_record_that_cannot_be_is_refused(change):
    whole = json.loads(history.dump(record(IDS[0])))
    with pytest.raises((ValueError, TypeError, KeyError)):
        history.parse(json.dumps(whole | change).encode())


def test_an_install_becomes_the_newest_and_keeps_no_revision_twice():
    after = record(*IDS[:3], current=0).onto(Step(IDS[3], 9.0), "s")
    assert (after.revision, [step.revision for step in after.history]) == (IDS[3], [IDS[1], IDS[2], IDS[0], IDS[3]])
    again = after.onto(Step(IDS[1], 10.0), "s")
    assert [step.revision for step in again.history] == [IDS[2], IDS[0], IDS[3], IDS[1]]
    same = again.onto(Step(IDS[1], 99.0, "elsewhere", "v9"), "t")
    assert (same.current.installed_at, same.current.version, same.follows) == (10.0, "v9", "t")


def test_a_rollback_undoes_the_last_update_also_after_an_earlier_rollback():
    fled = replace(record(*IDS[:2]), revision=IDS[0])
    after = fled.onto(Step(IDS[2], 9.0), "s")
    assert after.target(None) == IDS[0]
    assert after.kept(2) == {IDS[0], IDS[2]}


def test_a_history_is_not_endless():
    long = record(IDS[0])
    for number in range(200):
        long = long.onto(Step(f"{number + 100:064x}", float(number)), "s")
    assert len(long.history) == 50
    assert long.current == long.history[-1]


def test_one_goes_back_step_by_step_and_anywhere_by_name():
    assert record(*IDS[:3]).target(None) == IDS[1]
    assert record(*IDS[:3], current=1).target(None) == IDS[0]
    with pytest.raises(Conflict, match="no earlier"):
        record(*IDS[:3], current=0).target(None)
    distinct = record("a" * 64, "ab" * 32, "c" * 64)
    assert distinct.target("c") == "c" * 64
    assert distinct.target("aa") == "a" * 64
    for unclear, words in (
        ("a", "Several revisions of m begin with 'a'"),
        ("d", "No revision of m begins"),
        ("", "No"),
    ):
        with pytest.raises(Conflict, match=words) as caught:
            distinct.target(unclear)
        assert "cccccccccccc (current)" in caught.value.hint


@given(st.integers(0, 6), st.integers(1, 7), st.integers(0, 10))
def test_the_current_revision_is_always_kept(current, count, keep):
    one = record(*IDS[:count], current=min(current, count - 1))
    kept = one.kept(keep)
    assert one.revision in kept
    assert len(kept) == max(1, min(keep, count))


# --- in a store


async def test_updates_and_rollbacks(store):
    one, two, three = await store.through("m", 0, 1, 2)
    assert [past.revision.id for past in store.history("m")] == [three, two, one]
    assert [past.current for past in store.history("m")] == [True, False, False]
    assert all(past.here for past in store.history("m"))
    sent = store.source.sent
    assert (await store.rollback("m")).revision.id == two
    assert (await store.rollback("m")).revision.id == one
    assert store.path(store.get("m").revision.files[0]).read_bytes() == VERSIONS[0]
    with pytest.raises(Conflict, match="no earlier"):
        await store.rollback("m")
    assert (await store.rollback("m", three[:9])).revision.id == three
    assert store.source.sent == sent


async def test_a_file_in_use_outlives_update_rollback_and_collection(store):
    await store.through("m", 0)
    with store.path(store.get("m").revision.files[0]).open("rb") as engine:
        await store.through("m", 1, 2)
        await store.rollback("m")
        await store.gc()
        assert engine.read() == VERSIONS[0]


async def test_a_rollback_to_what_is_gone_is_refused_with_what_to_type(store):
    one, _, _ = await store.through("m", 0, 1, 2)
    await store.gc()
    assert [past.here for past in store.history("m")] == [True, True, False]
    with pytest.raises(Conflict, match="no longer here") as caught:
        await store.rollback("m", one)
    assert "corral pull memory:m --name m" in caught.value.hint
    assert store.history("m")[0].current


async def test_a_check_downloads_nothing_and_says_what_would_change(store):
    store.offer("m", 0, {"m.gguf": VERSIONS[0], "mmproj.gguf": EYES})
    await store.install("memory:m")
    sent = store.source.sent
    same = await store.check("m")
    assert (same.changed, same.download, same.version) == (False, 0, "0")
    assert {item.kind for item in same.files} == {"same"}
    store.offer("m", 1)
    change = await store.check("m")
    assert change.changed
    assert change.version == "1"
    assert change.download == len(VERSIONS[1])
    assert {(item.name, item.kind) for item in change.files} == {("m.gguf", "changed"), ("mmproj.gguf", "removed")}
    assert store.source.sent == sent
    assert store.get("m").revision.version == "0"


async def test_a_check_where_the_source_tells_no_digests(tmp_path):
    store = Store(tmp_path)
    store.source._lies = True
    store.offer("m", 0)
    await store.install("memory:m")
    assert not (await store.check("m")).changed
    store.source.version = "1"
    change = await store.check("m")
    assert change.changed
    assert change.download == len(VERSIONS[0])


async def test_bytes_that_are_here_are_no_download(store):
    await store.through("other", 1)
    await store.through("m", 0)
    store.offer("m", 1)
    assert (await store.check("m")).download == 0


async def test_an_update_follows_the_reference(store):
    await store.through("m", 0)
    await store.install("memory:m", name="mine")
    store.offer("m", 1)
    assert (await store.update("mine")).revision.version == "1"
    assert store.get("mine").follows == "memory:m"
    assert store.get("m").revision.version == "0"
    before = store.get("mine")
    assert await store.update("mine") == before
    assert len(store.history("mine")) == 2


async def test_equal_files_of_a_newer_version_are_no_new_revision(store):
    await store.through("m", 0)
    store.source.version = "7"
    before = store.get("m")
    assert (await store.update("m")).revision == before.revision
    assert len(store.history("m")) == 1


async def test_an_update_that_fails_changes_nothing(store):
    await store.through("m", 0)
    before = store.get("m")
    del store.source.models["m"]
    with pytest.raises(SourceNotFound):
        await store.update("m")
    store.offer("m", 1)

    async def fail():
        raise SourceError("gone")

    store.source.between = fail
    with pytest.raises(SourceError):
        await store.update("m")
    assert store.get("m") == before
    assert len(store.history("m")) == 1


async def test_a_pinned_model_stays(store):
    one, two = await store.through("m", 0, 1)
    assert (await store.pin("m")).pinned
    store.offer("m", 2)
    for act in (lambda: store.update("m"), lambda: store.install("memory:m"), lambda: store.remove("m")):
        with pytest.raises(ModelPinned, match="pinned") as caught:
            await act()
        assert "corral pin m --off" in caught.value.hint
    with pytest.raises(ModelPinned):
        await store.rollback("m")
    assert store.get("m").revision.id == two
    assert store.all()[0].pinned
    held = await store.pin("m", one[:10])
    assert (held.revision.id, held.pinned) == (one, True)
    assert not (await store.unpin("m")).pinned
    assert (await store.update("m")).revision.version == "2"
    await store.pin("m")
    assert await store.remove("m", force=True) > 0
    assert store.names() == []


async def test_an_unchanged_pinned_model_may_be_pulled(store):
    await store.through("m", 0)
    pinned = await store.pin("m")
    assert await store.install("memory:m") == pinned


async def test_what_came_from_two_sources_says_so(store):
    store.offer("a", 0, {"same.gguf": VERSIONS[0]})
    await store.install("memory:a")
    store.offer("b", 5, {"same.gguf": VERSIONS[0]})
    await store.install("memory:b")
    assert store.get("a").revision.id == store.get("b").revision.id
    assert [(m.revision.source, m.revision.version) for m in store.all()] == [("memory:a", "0"), ("memory:b", "5")]
    assert store.get("a").revision.source == "memory:a"


async def test_removal_takes_the_history_with_it(store):
    await store.through("m", 0, 1)
    await store.through("n", 1)
    assert await store.remove("m") == len(VERSIONS[0])
    assert store.blobs() == {digest(1)}
    assert await store.remove("n") == len(VERSIONS[1])


@pytest.mark.parametrize("name", ["..", "a/../b", "x\0y", "x\ny", "x" * 10_000, "\ud800", "", "/etc/passwd"])
async def test_names_that_cannot_be_are_not_found_and_touch_nothing(store, name):
    await store.through("m", 0)
    assert name not in store
    for act in (store.check, store.update, store.rollback, store.pin, store.unpin, store.remove, store.verify):
        with pytest.raises(ModelNotFound):
            await act(name)
    for read in (store.get, store.history):
        with pytest.raises(ModelNotFound):
            read(name)
    assert store.page(name, 10) in ([], store.all())
    assert store.names() == ["m"]


async def test_a_clock_that_jumps_back_loses_nothing(tmp_path):
    class Jumping(SystemClock):
        shift = 0.0

        def wall(self):
            return super().wall() + self.shift

    clock = Jumping()
    store = Store(tmp_path, clock=clock)
    ids = await store.through("m", 0, 1)
    clock.shift = -86_400.0
    ids += await store.through("m", 2)
    assert [past.revision.id for past in store.history("m")] == ids[::-1]
    assert (await store.rollback("m")).revision.id == ids[1]
    assert Store(tmp_path, clock=clock).get("m").revision.id == ids[1]
    view = store._index.look()
    clock.shift = -1e6
    assert store._index.look() is not None
    assert view.names == store._index.look().names


async def test_a_push_needs_a_source_that_takes_it(store):
    await store.through("m", 0)
    with pytest.raises(NotSupported, match="memory"):
        await store.push("m", ModelRef("memory", "there"))


async def test_a_push_hands_over_the_files(tmp_path):
    class Shop:
        scheme = "shop"

        async def resolve(self, ref):
            raise SourceError("no")

        async def fetch(self, file, into, report):
            raise SourceError("no")

        async def search(self, query):
            return []

        async def push(self, installed, files, to, report):
            self.got = {known: path.read_bytes() for known, path in files.items()}
            return ModelRef("shop", f"{to.locator}/{installed.name}")

    shop = Shop()
    store = Store(tmp_path)
    store._sources = {**store._sources, "shop": shop}
    await store.through("m", 0)
    assert str(await store.push("m", ModelRef("shop", "shelf"))) == "shop:shelf/m"
    assert shop.got == {digest(0): VERSIONS[0]}
    assert models.sha256(VERSIONS[0]) == digest(0)


# --- models of the library


def entry(version, name="m", **more):
    data = VERSIONS[version]
    file = PinnedFile(FileEntry(f"{name}.gguf", len(data), digest(version)))
    ref = ModelRef("memory", f"{name}=={version}")
    return Entry(name, "d", ref, str(version), "MIT", (file,), (f"{name}:small",), **more)


def stocked(folder, version):
    store = Store(folder, library=Library((entry(version),)))
    for number, data in enumerate(VERSIONS):
        store.source.models[f"m=={number}"] = {"m.gguf": data}
    return store


async def test_a_library_model_follows_the_library(tmp_path):
    old = stocked(tmp_path, 0)
    await old.install("m")
    await old.install("m:small", name="mine")
    asked = old.source.resolved
    assert not (await old.check("m")).changed
    newer = stocked(tmp_path, 1)
    for name in ("m", "mine"):
        assert newer.get(name).follows == "m"
        change = await newer.check(name)
        assert (change.changed, change.version, change.download) == (True, "1", len(VERSIONS[1]) if name == "m" else 0)
        assert (await newer.update(name)).revision.files[0].sha256 == digest(1)
        assert not (await newer.check(name)).changed
    assert old.source.resolved == asked
    assert (await newer.rollback("mine")).revision.version == "0"
    assert len(newer.history("m")) == 2


async def test_what_the_first_corral_installed_is_updated_all_the_same(tmp_path):
    store = stocked(tmp_path, 0)
    installed = await store.install("m")
    path = tmp_path / "names" / "m.json"
    path.write_text(json.dumps({"corral": 1, "name": "m", "revision": installed.revision.id, "installed_at": 5.0}))
    store = stocked(tmp_path, 0)
    old = store.get("m")
    assert (old.revision, old.installed_at, old.follows, old.pinned) == (installed.revision, 5.0, "memory:m==0", False)
    assert await store.update("m") == old
    newer = stocked(tmp_path, 1)
    assert (await newer.install("m")).revision.version == "1"
    assert [past.revision.version for past in newer.history("m")] == ["1", "0"]
    assert newer.history("m")[1].installed_at == 5.0
