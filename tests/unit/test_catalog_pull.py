"""Several files on their way into the store: from wherever they can be had, whole or not at all."""

import asyncio

import pytest

from corral.catalog.blobs import Blobs
from corral.catalog.caches import Caches
from corral.catalog.pull import Origin, Pull, files_of
from corral.catalog.tally import Tally
from corral.domain.models import Capability, Listing, ModelRef, RemoteFile, RemotePart
from corral.domain.ports import Progress
from corral.errors import CorruptModel, DigestMismatch, LoginRequired, SourceError, SourceNotFound, UnsafeFormat
from corral.kit.clock import SystemClock
from support import models, templates
from support.sources import MemorySource

SNAPSHOT = models.snapshot(3)
SPLIT = models.split_gguf(3, elements=1000)
ONE = models.gguf(4000, seed=1)
BASE = ModelRef("bucket", "s3://mirror")


class MirrorSource(MemorySource):
    """A second source: has files by digest, whatever they are called elsewhere."""

    def __init__(self, *contents: bytes) -> None:
        super().__init__({"blobs": {models.sha256(data): data for data in contents}})

    def mirrored(self, base, file):
        if file.sha256 is None or file.size is None:
            return None
        return RemoteFile(file.name, (RemotePart(f"memory:blobs/{file.sha256}"),), file.size, file.sha256)

    async def fetch(self, file, into, report):
        if file.sha256 not in self.models["blobs"]:
            raise SourceNotFound(f"no {file.sha256[:8]} here")
        await super().fetch(file, into, report)


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "models", SystemClock())


@pytest.fixture
def source():
    return MemorySource({"snapshot": SNAPSHOT, "split": SPLIT, "one": {"one.gguf": ONE}})


def failing(error, after=0):
    async def fail():
        nonlocal after
        after -= 1
        if after < 0:
            raise error

    return fail


async def pulled(blobs, source, locator, report=lambda _: None, **more):
    listing = await source.resolve(ModelRef("memory", locator))
    async with Pull(blobs, report, **more) as pull:
        await pull.bring_all(files_of(listing), source)
        revision = await pull.conclude(Origin.of(listing), templates.probe)
        assert pull.intact(revision.files)
    return revision


def assert_nothing_came_twice(source):
    """A block that was written while its fetch was ended is held, and not counted."""
    total = sum(map(len, SPLIT.values()))
    assert total - 3 * 500 <= source.sent <= total


def stored(blobs):
    folder = blobs.root
    return sorted(path.parent.name + "/" + path.name for path in folder.rglob("*") if path.is_file())


async def test_a_snapshot_comes_whole(blobs, source):
    revision = await pulled(blobs, source, "snapshot")
    assert (revision.format, revision.licence) == ("safetensors", "apache-2.0")
    assert [entry.name for entry in revision.files] == sorted(SNAPSHOT)
    assert revision.capabilities >= {Capability.CHAT, Capability.SYSTEM_ROLE}
    for entry in revision.files:
        assert blobs.path(entry.sha256).read_bytes() == SNAPSHOT[entry.name]
    assert not any(name.startswith("partial") for name in stored(blobs))


async def test_a_split_gguf_comes_whole(blobs, source):
    revision = await pulled(blobs, source, "split")
    assert [entry.role for entry in revision.files] == ["model", "split", "split"]
    assert (revision.format, revision.facts["parameters"]) == ("gguf", 3000)


async def test_equal_files_are_fetched_once_and_waited_for_by_nobody(blobs, source):
    same = models.safetensors({"a": ("F32", (900,))})
    source.models["twins"] = models.snapshot() | {f"{n}/model.safetensors": same for n in range(5)}
    revision = await pulled(blobs, source, "twins")
    assert source.sent == sum(len(data) for data in {*source.models["twins"].values()})
    assert len(revision.files) == len(source.models["twins"])


async def test_the_same_content_is_the_same_revision_whoever_lists_it(blobs, source):
    first = await pulled(blobs, source, "snapshot")
    source.models["snapshot"] = dict(reversed(SNAPSHOT.items()))
    assert (await pulled(blobs, source, "snapshot")).id == first.id


async def test_progress_is_of_all_files_and_never_goes_back(blobs, source):
    seen: list[Progress] = []
    total = sum(map(len, SPLIT.values()))
    await pulled(blobs, source, "split", seen.append)
    for phase in ("download", "check"):
        told = [item for item in seen if item.phase == phase]
        assert {item.total for item in told} == {total}
        assert [item.done for item in told] == sorted(item.done for item in told)
        assert told[-1].done == total
        assert {item.detail for item in told} == set(SPLIT)


async def test_what_is_there_already_counts_as_done(blobs, source):
    source.models["first"] = {name: SPLIT[name] for name in sorted(SPLIT)[:1]}
    first = len(next(iter(source.models["first"].values())))
    async with Pull(blobs, lambda _: None) as pull:
        await pull.bring_all((await source.resolve(ModelRef("memory", "first"))).files, source)
    seen: list[Progress] = []
    await pulled(blobs, source, "split", seen.append)
    assert Progress("check", 0, sum(map(len, SPLIT.values())), min(SPLIT)) in seen  # it is read again, which takes time
    downloads = [item.done for item in seen if item.phase == "download"]
    assert downloads[0] >= first
    assert downloads[-1] == sum(map(len, SPLIT.values()))


def test_a_total_is_told_when_it_is_known_and_is_never_less_than_what_is_done():
    seen: list[Progress] = []
    tally = Tally(seen.append)
    tally.expect("a", 10)
    tally.expect("b", None)
    tally.of("a")(Progress("download", 4, 10))
    tally.of("b")(Progress("download", 5, None, "b.part"))
    tally.of("b")(Progress("download", 5, 20))
    tally.of("b")(Progress("download", 0, 3))
    tally.of("b")(Progress("wait", detail="another"))
    tally.check("b", 3)
    assert seen == [
        Progress("download", 4, None, "a"),
        Progress("download", 9, None, "b.part"),
        Progress("download", 9, 30, "b"),
        Progress("download", 9, 13, "b"),
        Progress("wait", detail="another"),
        Progress("check", 3, 13, "b"),
    ]
    tally.of("a")(Progress("download", 50, 2))
    assert seen[-1] == Progress("download", 53, 53, "a")


async def test_the_keys_of_parts_are_told_before_they_are_opened(blobs, source):
    keys: list[str] = []

    def told(key):
        assert not (blobs.root / "partial" / f"{key}.part").exists()
        keys.append(key)

    await pulled(blobs, source, "split", on_part=told)
    assert sorted(keys) == sorted(f"sha256-{models.sha256(data)}" for data in SPLIT.values())


async def test_at_most_three_come_at_a_time(blobs, source):
    under_way, most = 0, 0

    async def count():
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    source.between = count
    source.models["snapshot"] |= {f"{n}.txt": str(n).encode() * 2000 for n in range(8)}
    await pulled(blobs, source, "snapshot")
    assert 1 < most <= 3


async def test_one_failure_ends_all_and_what_came_is_kept(blobs, source):
    source.between = failing(SourceError("the line is cut"), after=4)
    with pytest.raises(SourceError, match="the line is cut"):
        await pulled(blobs, source, "split")
    assert source.sent
    source.between = failing(SourceError("never"), after=1000)
    await pulled(blobs, source, "split")
    assert_nothing_came_twice(source)


async def test_a_cancelled_pull_is_taken_up(blobs, source):
    arrived = asyncio.Event()

    async def hang():
        if source.sent > 2000:
            arrived.set()
            await asyncio.Event().wait()

    source.between = hang
    task = asyncio.ensure_future(pulled(blobs, source, "split"))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    source.between = failing(SourceError("never"), after=1000)
    await pulled(blobs, source, "split")
    assert_nothing_came_twice(source)


async def test_two_pulls_that_meet_do_not_wait_for_each_other_forever(blobs, source):
    """One lists the files the other way round, and both want each other's."""
    source.models["back"] = dict(reversed(SPLIT.items()))
    both = await asyncio.gather(*(pulled(blobs, source, which) for which in ("split", "back") * 2))
    assert len({revision.id for revision in both}) == 1
    assert source.sent == sum(map(len, SPLIT.values()))


# A second source


async def test_a_mirror_goes_on_where_the_source_failed(blobs, source):
    mirror = MirrorSource(ONE)
    source.between = failing(SourceError("the line is cut"), after=4)
    revision = await pulled(blobs, source, "one", mirrors=[(BASE, MemorySource({})), (BASE, mirror)])
    assert blobs.path(revision.files[0].sha256).read_bytes() == ONE
    assert (source.sent, source.sent + mirror.sent) == (2000, len(ONE))


async def test_a_mirror_starts_again_where_the_source_sent_other_bytes(blobs, source):
    class Careful(MirrorSource):
        async def fetch(self, file, into, report):
            await super().fetch(file, into, report)
            if into.digest() != file.sha256:
                await into.restart()
                raise DigestMismatch("not what was promised")

    mirror = Careful(ONE)
    source.models["one"]["one.gguf"] = bytes(len(ONE))
    listing = Listing(
        ModelRef("memory", "one"),
        (RemoteFile("one.gguf", (RemotePart("memory:one/one.gguf"),), len(ONE), models.sha256(ONE)),),
    )
    source.between = failing(SourceError("cut"), after=3)
    async with Pull(blobs, lambda _: None, mirrors=[(BASE, mirror)]) as pull:
        await pull.bring_all(files_of(listing), source)
    assert mirror.sent == len(ONE) - 1500 + len(ONE)


async def test_every_reason_is_told_when_all_fail(blobs, source):
    source.between = failing(LoginRequired("Who are you?", "Set HF_TOKEN."))
    with pytest.raises(LoginRequired) as caught:
        await pulled(blobs, source, "one", mirrors=[(BASE, MirrorSource()), (BASE, MemorySource({}))])
    assert str(caught.value) == (
        f"one.gguf could not be had. Who are you? s3://mirror: no {models.sha256(ONE)[:8]} here Set HF_TOKEN."
    )
    assert stored(blobs) == []


async def test_a_mirrors_login_is_not_told(blobs, source):
    source.between = failing(SourceError("cut"))
    secret = ModelRef.parse("https://me:secret@mirror/store?sig=secret")
    with pytest.raises(SourceError, match="https://mirror/store: no") as caught:
        await pulled(blobs, source, "one", mirrors=[(secret, MirrorSource())])
    assert "secret" not in str(caught.value)


async def test_the_key_of_the_bytes_is_told_when_the_digest_was_not_known(blobs):
    told = []
    source = MemorySource({"one": {"one.gguf": ONE}}, lies=True)
    await pulled(blobs, source, "one", on_part=told.append)
    assert len(told) == 2
    assert told[0].startswith("ref-")
    assert told[1] == f"sha256-{models.sha256(ONE)}"


async def test_without_a_digest_no_mirror_is_asked(blobs):
    source = MemorySource({"one": {"one.gguf": ONE}}, lies=True)
    source.between = failing(SourceError("cut"))
    with pytest.raises(SourceError, match=r"^cut$"):
        await pulled(blobs, source, "one", mirrors=[(BASE, MirrorSource(ONE))])


async def test_bytes_that_are_not_the_promised_ones_leave_nothing(blobs, source):
    file = RemoteFile("one.gguf", (RemotePart("memory:one/one.gguf"),), len(ONE), "0" * 64)
    async with Pull(blobs, lambda _: None) as pull:
        with pytest.raises(DigestMismatch, match="arrived with"):
            await pull.bring_all([file], source)
    assert stored(blobs) == []


# Other programs' caches


@pytest.fixture
def caches(tmp_path):
    return Caches({"HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path / "ollama")})


def lay(caches, data, named=None):
    path = caches.ollama / "blobs" / f"sha256-{named or models.sha256(data)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o640)
    return path


async def test_what_another_cache_has_is_linked(blobs, source, caches):
    path = lay(caches, ONE)
    seen: list[Progress] = []
    revision = await pulled(blobs, source, "one", seen.append, caches=caches)
    blob = blobs.path(revision.files[0].sha256)
    assert blob.samefile(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert source.sent == 0
    assert [(item.done, item.total) for item in seen if item.phase == "download"] == [(len(ONE), len(ONE))]
    assert stored(blobs) == [f"sha256/{models.sha256(ONE)}"]


async def test_a_cache_that_has_other_bytes_under_that_name_is_not_believed(blobs, source, caches):
    lay(caches, bytes(len(ONE)), models.sha256(ONE))
    revision = await pulled(blobs, source, "one", caches=caches)
    assert blobs.path(revision.files[0].sha256).read_bytes() == ONE
    assert source.sent == len(ONE)
    assert stored(blobs) == [f"sha256/{models.sha256(ONE)}"]


async def test_a_linked_file_that_is_no_model_leaves_nothing(blobs, caches):
    data = models.gguf()[:-9]
    lay(caches, data)
    source = MemorySource({"bad": {"bad.gguf": data}})
    with pytest.raises(CorruptModel, match=r"bad\.gguf: .*truncated"):
        await pulled(blobs, source, "bad", caches=caches)
    assert stored(blobs) == []


# What is refused


@pytest.mark.parametrize("lies", [True, False])
async def test_a_pickle_under_another_name_leaves_nothing(blobs, lies):
    source = MemorySource({"bad": models.snapshot(tokenizer__json=b"\x80\x04\x95 a pickle")}, lies=lies)
    with pytest.raises(UnsafeFormat, match=r"tokenizer\.json"):
        await pulled(blobs, source, "bad")
    assert not any(models.sha256(b"\x80\x04\x95 a pickle") in name for name in stored(blobs))
    assert not any(name.startswith("partial/ref") and "tokenizer" in name for name in stored(blobs))


async def test_a_pickle_that_is_there_already_is_looked_at_again(blobs):
    files = {"config.json": b'{"architectures": ["XForCausalLM"]}', "pytorch_model.bin": b"\x80\x02."}
    source = MemorySource({"p": files, "q": {"weights": b"\x80\x02."}})
    listing = await source.resolve(ModelRef("memory", "p"))
    with pytest.raises(UnsafeFormat):
        files_of(listing)
    async with Pull(blobs, lambda _: None, unsafe=True) as pull:
        await pull.bring_all(files_of(listing, unsafe=True), source)
        revision = pull.revision(Origin.of(listing, unsafe=True))
    assert revision.format == "pickle"
    with pytest.raises(UnsafeFormat):
        await pulled(blobs, source, "q")


async def test_what_stays_at_the_source_is_said(blobs, source):
    source.models["snapshot"] = {**SNAPSHOT, "modeling_x.py": b"import os", "tf_model.h5": b"x"}
    revision = await pulled(blobs, source, "snapshot")
    assert revision.facts["ignored_files"] == ["modeling_x.py", "tf_model.h5"]
    assert [entry.name for entry in revision.files] == sorted(SNAPSHOT)


def test_an_origin_keeps_what_the_source_says():
    file = RemoteFile("a.gguf", (RemotePart("x"),))
    listing = Listing(
        ModelRef("memory", "x"), (file,), "7", "mit", "https://example.org/", {"temperature": 1}, {"title": "X"}
    )
    origin = Origin.of(listing)
    assert (origin.source, origin.version, origin.licence) == ("memory:x", "7", "mit")
    assert origin.defaults == {"temperature": 1}
    assert origin.facts == {"title": "X", "homepage": "https://example.org/"}
