"""df says what is shared and what removal frees; quotas hold before the first byte."""

import asyncio
from dataclasses import replace

import pytest

from corral.catalog.pull import key_of
from corral.catalog.usage import Limits
from corral.domain.models import RemoteFile, RemotePart
from corral.errors import (
    DiskFull,
    QuotaExceeded,
)
from support.sources import MemorySource, nothing
from support.stores import EYES, VERSIONS, Store, digest

SIZE = len(VERSIONS[0])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models", limits=Limits(keep_revisions=2))


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


def unsized(store):
    """Let the source tell neither sizes nor digests."""
    source = store.source = MemorySource(store.source.models, lies=True)
    resolve = source.resolve

    async def without_sizes(ref):
        listing = await resolve(ref)
        files = [replace(file, parts=(replace(file.parts[0], size=None, length=None),)) for file in listing.files]
        return replace(listing, files=tuple(files))

    source.resolve = without_sizes
    store._sources = {"memory": source}


async def at_once(*installs):
    """What becomes of each of them: None, or the error."""
    done = await asyncio.gather(*installs, return_exceptions=True)
    return [item if isinstance(item, BaseException) else None for item in done]


async def test_two_installs_at_once_do_not_exceed_a_quota_together(tmp_path):
    store = Store(tmp_path, limits=Limits(quota=SIZE * 3 // 2))
    for version, name in enumerate("ab"):
        store.offer(name, version)
    errors = await at_once(store.install("memory:a"), store.install("memory:b"))
    assert sorted(map(str, map(type, errors))) == sorted(map(str, (type(None), QuotaExceeded)))
    assert store.usage().total == SIZE
    # What failed and what ended have let go of what they were promised.
    await store.remove(store.names()[0])
    await store.install("memory:b")


async def test_two_installs_of_the_same_bytes_need_them_once(tmp_path):
    store = Store(tmp_path, limits=Limits(quota=SIZE * 3 // 2, quotas={"memory": SIZE * 2}))
    for name in "ab":
        store.offer(name, 0)
    assert await at_once(store.install("memory:a"), store.install("memory:b")) == [None, None]


async def test_two_installs_at_once_do_not_exceed_a_quota_of_their_source(tmp_path):
    store = Store(tmp_path, limits=Limits(quotas={"memory": SIZE * 3 // 2}))
    for version, name in enumerate("ab"):
        store.offer(name, version)
    errors = await at_once(store.install("memory:a"), store.install("memory:b"))
    assert [type(error) for error in errors if error] == [QuotaExceeded]
    assert "'memory'" in str(next(error for error in errors if error))


async def test_what_others_left_unfinished_takes_room_too(tmp_path):
    store = Store(tmp_path, limits=Limits(quota=2 * SIZE))
    await store.through("a", 0)
    (tmp_path / "partial").mkdir(exist_ok=True)
    other = tmp_path / "partial" / "ref-other.part"
    other.write_bytes(bytes(100))
    store.offer("b", 1)
    with pytest.raises(QuotaExceeded):
        await store.install("memory:b")
    # What arrived of its own file is not needed again.
    other.rename(tmp_path / "partial" / f"sha256-{digest(1)}.part").write_bytes(VERSIONS[1][:100])
    await store.install("memory:b")


async def test_of_two_processes_that_had_room_the_second_is_refused_at_the_end(tmp_path):
    limits = Limits(quota=SIZE * 3 // 2)
    mine, other = Store(tmp_path, limits=limits), Store(tmp_path, limits=limits)
    mine.offer("a", 0)
    other.offer("b", 1)

    async def meanwhile():
        mine.source.between = nothing
        await other.install("memory:b")

    mine.source.between = meanwhile
    keys = set()
    with pytest.raises(QuotaExceeded, match=r"a needs .* more; the store takes"):
        await mine.install("memory:a", on_part=keys.add)
    assert mine.names() == ["b"]
    await mine.discard(keys)
    assert mine.usage().total == SIZE
    mine.offer("b", 1)
    await mine.install("memory:b", name="again")  # brings nothing


async def test_of_two_processes_the_second_is_refused_by_the_quota_of_a_source(tmp_path):
    limits = Limits(quotas={"memory": SIZE * 3 // 2})
    mine, other = Store(tmp_path, limits=limits), Store(tmp_path, limits=limits)
    mine.offer("a", 0)
    other.offer("b", 1)

    async def meanwhile():
        mine.source.between = nothing
        await other.install("memory:b")

    mine.source.between = meanwhile
    with pytest.raises(QuotaExceeded, match="models of 'memory' take"):
        await mine.install("memory:a")


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(quota=1000, default_model_size=10), "exceed the store's quota, 1.0 kB"),
        (Limits(quotas={"memory": 1000}, default_model_size=10), "the quota of 'memory', 1.0 kB"),
    ],
)
async def test_a_file_of_unknown_size_ends_where_the_quota_does(tmp_path, limits, says):
    store = Store(tmp_path, limits=limits)
    store.offer("m", 0)
    unsized(store)
    with pytest.raises(QuotaExceeded, match=says) as caught:
        await store.install("memory:m")
    assert "corral gc" in caught.value.hint
    assert 0 < store.usage().total <= 1000
    await store.gc()
    assert store.usage().total == 0


async def test_files_of_unknown_size_share_what_there_is(tmp_path):
    store = Store(tmp_path, limits=Limits(quota=4 * SIZE, quotas={"memory": 4 * SIZE}, default_model_size=10))
    for version, name in enumerate("ab"):
        store.offer(name, version)
    unsized(store)
    assert await at_once(store.install("memory:a"), store.install("memory:b")) == [None, None]
    assert store.usage().total == 2 * SIZE


def test_a_file_of_unknown_size_leaves_the_disk_some_room(tmp_path):
    store = Store(tmp_path)
    with store._claim([], "memory", "m") as claim:
        claim.take(1000)
        with pytest.raises(DiskFull, match="not known beforehand"):
            claim.take(10**18)


def test_what_a_file_arrived_as_is_not_promised_any_more(tmp_path):
    store = Store(tmp_path, limits=Limits(quota=1000))
    file = RemoteFile("x", (RemotePart("memory:x/x", 900, length=900),), 900)
    with store._claim([file], "memory", "m") as claim:
        claim.reserve()
        with pytest.raises(QuotaExceeded, match="others on their way 900 B"):
            store.require_room(200, "file", "y")
        claim.arrived(key_of(file))
        store.require_room(200, "file", "y")
        claim.take(10)
        with pytest.raises(QuotaExceeded):  # some more than that was granted
            store.require_room(600, "file", "y")
    store.require_room(1000, "file", "y")
