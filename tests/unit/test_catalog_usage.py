"""df says what is shared and what removal frees; quotas hold before the first byte."""

import pytest

from corral.catalog.usage import Limits
from corral.errors import (
    DiskFull,
    QuotaExceeded,
)
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
