"""The registry: install, look up, remove; nothing half done is ever seen."""

import asyncio
import json
import re

import pytest

from corral.catalog.library import Entry, Library, PinnedFile, PinnedPart
from corral.catalog.registry import Registry
from corral.domain.models import Capability, FileEntry, ModelRef
from corral.domain.ports import Progress
from corral.errors import (
    Conflict,
    CorruptModel,
    DigestMismatch,
    InvalidName,
    ModelNotFound,
    SourceError,
    SourceNotFound,
    StoreError,
)
from corral.kit.clock import SystemClock
from support import models
from support.sources import MemorySource

ONE, TWO = models.gguf(seed=1), models.gguf(seed=2)
EYES = models.gguf(seed=3, general__architecture="clip")


@pytest.fixture
def source():
    return MemorySource({"one": {"one.gguf": ONE}, "two": {"two.gguf": TWO}, "same": {"other-name.gguf": ONE}})


def pinned(name="one", data=ONE, **changes):
    file = PinnedFile(FileEntry(f"{name}.gguf", len(data), models.sha256(data)))
    values = {"description": "d", "version": "1", "licence": "MIT", "files": (file,), "aliases": (f"{name}:small",)}
    return Entry(**{"name": name, "ref": ModelRef("memory", name)} | values | changes)


@pytest.fixture
def registry(tmp_path, source):
    return Registry(tmp_path / "models", {"memory": source}, SystemClock(), Library((pinned(),)))


def stored(registry):
    """Every file of the store, but for its lock and what is derived."""
    root, derived = registry._blobs.root, {"lock", "manifest.json", "index.json"}
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name not in derived)


def blobs(registry):
    return [item.rpartition("/")[2] for item in stored(registry) if item.startswith("blobs")]


async def test_an_empty_store_is_no_error(registry, tmp_path):
    assert registry.names() == []
    assert registry.all() == []
    assert not (tmp_path / "models").exists()
    with pytest.raises(ModelNotFound, match="corral pull one"):
        registry.get("one")
    with pytest.raises(ModelNotFound, match="Install one with: corral pull one"):
        registry.get("onee")


async def test_a_reference_is_installed(registry):
    seen: list[Progress] = []
    installed = await registry.install("memory:two", report=seen.append)
    assert installed == registry.get("two") == registry.all()[0]
    revision = installed.revision
    assert (revision.source, revision.version, revision.format, revision.licence) == ("memory:two", "1", "gguf", "mit")
    assert revision.files == (FileEntry("two.gguf", len(TWO), models.sha256(TWO)),)
    assert revision.capabilities >= {Capability.CHAT, Capability.COMPLETION}
    assert revision.facts["architecture"] == "llama"
    assert registry.path(revision.files[0]).read_bytes() == TWO
    downloads = [item.done for item in seen if item.phase == "download"]
    assert downloads == sorted(downloads)
    assert downloads[-1] == len(TWO)
    assert stored(registry) == [
        f"blobs/sha256/{models.sha256(TWO)}",
        f"manifests/{revision.id}.json",
        "names/two.json",
    ]


async def test_a_library_name_is_installed_and_found_by_its_alias(registry):
    installed = await registry.install("one:small")
    assert installed.name == "one"
    assert registry.get("one:small") == registry.get("one") == installed
    assert installed.revision.licence == "MIT"


async def test_the_second_install_fetches_nothing(registry, source):
    first = await registry.install("one")
    sent, resolved = source.sent, source.resolved
    assert await registry.install("one") == first
    assert (source.sent, source.resolved) == (sent, resolved)
    await registry.install("memory:two")
    sent = source.sent
    await registry.install("memory:two")
    assert source.sent == sent


async def test_known_bytes_are_not_fetched_again(registry, source):
    await registry.install("memory:same", name="mine")
    sent, resolved = source.sent, source.resolved
    installed = await registry.install("one")
    assert (source.sent, source.resolved) == (sent, resolved)
    assert installed.revision.files[0].name == "one.gguf"
    assert len(blobs(registry)) == 1


async def test_a_new_version_takes_the_place_of_the_old(registry, source):
    await registry.install("memory:two")
    source.models["two"]["two.gguf"] = ONE
    source.version = "2"
    installed = await registry.install("memory:two")
    assert registry.get("two") == installed
    assert registry.path(installed.revision.files[0]).read_bytes() == ONE
    assert blobs(registry) == sorted([models.sha256(ONE), models.sha256(TWO)])  # the old one stays, to go back to


async def test_another_model_does_not_take_a_name(registry):
    await registry.install("one")
    with pytest.raises(Conflict, match="from memory:one"):
        await registry.install("memory:two", name="one")
    assert registry.get("one").revision.source == "memory:one"


@pytest.mark.parametrize("what", ["onee", "nowhere:thing", "gemma3:270m", "ONE-7b"])
async def test_what_nobody_has_is_refused_with_the_nearest(registry, what):
    with pytest.raises(ModelNotFound, match="one"):
        await registry.install(what)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("tiny.gguf", r"corral pull file:\./tiny\.gguf"),
        ("../a:b/tiny.gguf", r"corral pull file:\.\./a:b/tiny\.gguf"),
        ("/models/tiny.gguf", "corral pull file:/models/tiny.gguf"),
        ("hf:someone/thing", r"'hf' a source.*Sources: memory:\. Short names: one"),
    ],
)
async def test_what_was_perhaps_meant_is_named(registry, what, says):
    with pytest.raises(ModelNotFound) as caught:
        await registry.install(what)
    assert re.search(says, str(caught.value))


async def test_a_source_without_it_says_so(registry):
    with pytest.raises(SourceNotFound):
        await registry.install("memory:three")
    assert registry.names() == []


@pytest.mark.parametrize("name", ["../evil", "/abs", "a b", "", "-c", "--help"])
async def test_bad_names_are_refused(registry, name):
    with pytest.raises(InvalidName):
        await registry.install("memory:two", name=name)


@pytest.mark.parametrize("name", ["org/Model:7b", "a" * 200, "A/" * 90 + "z", "UPPER", "..."])
async def test_any_lawful_name_can_be_kept(registry, name):
    await registry.install("memory:two", name=name)
    assert registry.names() == [name]
    assert registry.get(name).revision.source == "memory:two"
    await registry.remove(name)
    assert stored(registry) == []


async def test_names_that_differ_in_case_are_two(registry):
    await registry.install("memory:two", name="a")
    await registry.install("memory:same", name="A")
    assert len({path.lower() for path in stored(registry) if path.startswith("names")}) == 2


async def test_a_model_with_eyes(registry, source):
    source.models["pair"] = {"mmproj.gguf": EYES, "model.gguf": TWO}
    revision = (await registry.install("memory:pair")).revision
    assert [(file.name, file.role) for file in revision.files] == [("mmproj.gguf", "mmproj"), ("model.gguf", "model")]
    assert Capability.VISION in revision.capabilities


@pytest.mark.parametrize("files", [{"a.gguf": ONE, "b.gguf": TWO}, {"a.gguf": EYES}])
async def test_a_model_is_one_file(registry, source, files):
    source.models["odd"] = files
    with pytest.raises(CorruptModel, match="one GGUF file"):
        await registry.install("memory:odd")
    assert registry.names() == []


@pytest.mark.parametrize("files", [{}, {"../a.gguf": ONE}])
async def test_impossible_listings_are_refused(registry, source, files):
    source.models["odd"] = files
    with pytest.raises(SourceError):
        await registry.install("memory:odd")
    assert stored(registry) == []


@pytest.mark.parametrize("data", [b"not a model at all", TWO[:-7]])
@pytest.mark.parametrize("lies", [True, False])
async def test_what_is_no_sound_model_leaves_nothing(tmp_path, data, lies):
    source = MemorySource({"bad": {"bad.gguf": data}}, lies=lies)
    registry = Registry(tmp_path, {"memory": source}, SystemClock(), Library(()))
    with pytest.raises(CorruptModel, match=r"bad\.gguf"):
        await registry.install("memory:bad")
    assert stored(registry) == []


async def test_a_source_that_brings_other_bytes_leaves_nothing(tmp_path, source):
    registry = Registry(tmp_path, {"memory": source}, SystemClock(), Library((pinned(data=TWO),)))
    with pytest.raises(DigestMismatch, match=r"another one\.gguf than the library pins"):
        await registry.install("one")
    liar = MemorySource({"one": {"one.gguf": ONE}}, lies=True)
    registry = Registry(tmp_path, {"memory": liar}, SystemClock(), Library((pinned(data=TWO),)))
    with pytest.raises(DigestMismatch, match="arrived with"):
        await registry.install("one")
    assert stored(registry) == []


async def test_pins_of_parts_are_held_to(tmp_path, source):
    def registry(*parts):
        file = PinnedFile(FileEntry("one.gguf", len(ONE), models.sha256(ONE)), parts)
        return Registry(tmp_path, {"memory": source}, SystemClock(), Library((pinned(files=(file,)),)))

    with pytest.raises(SourceError, match="2 parts"):
        await registry(PinnedPart(1, "a" * 64), PinnedPart(2, "b" * 64)).install("one")
    missing = pinned(files=(PinnedFile(FileEntry("gone.gguf", 5, "0" * 64)),))
    with pytest.raises(DigestMismatch, match=r"no longer has gone\.gguf"):
        await Registry(tmp_path, {"memory": source}, SystemClock(), Library((missing,))).install("one")
    assert (await registry(PinnedPart(len(ONE), models.sha256(ONE))).install("one")).name == "one"


async def test_a_failed_source_is_resumed(registry, source):
    async def fail():
        if source.sent >= 1000:
            raise SourceError("gone")

    source.between = fail
    with pytest.raises(SourceError, match="gone"):
        await registry.install("memory:two")
    assert registry.names() == []
    assert [item.partition("/")[0] for item in stored(registry)] == ["partial"]

    async def pass_on():
        pass

    source.between = pass_on
    await registry.install("memory:two")
    assert source.sent == len(TWO)
    assert registry.path(registry.get("two").revision.files[0]).read_bytes() == TWO


async def test_a_cancelled_install_is_resumed(registry, source):
    arrived, never = asyncio.Event(), asyncio.Event()

    async def hang():
        if source.sent >= 1000:
            arrived.set()
            await never.wait()

    source.between = hang
    task = asyncio.ensure_future(registry.install("memory:two"))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    never.set()
    await registry.install("memory:two")
    assert source.sent == len(TWO)


async def test_two_at_once_fetch_once(tmp_path, source):
    clock, phases = SystemClock(), []
    several = [Registry(tmp_path, {"memory": source}, clock, Library((pinned(),))) for _ in range(3)]
    results = await asyncio.gather(*(r.install("one", report=lambda p: phases.append(p.phase)) for r in several))
    assert source.sent == len(ONE)
    assert len({item.revision.id for item in results}) == 1
    assert "wait" in phases
    assert [item.partition("/")[0] for item in stored(several[0])] == ["blobs", "manifests", "names"]


async def test_reads_see_what_others_did_at_once(tmp_path, registry, source):
    other = Registry(tmp_path / "models", {"memory": source}, SystemClock(), Library((pinned(),)))
    for _ in range(20):
        await other.install("one")
        assert registry.names() == ["one"]
        await other.remove("one")
        assert registry.names() == []


async def test_removal_frees_what_nobody_else_needs(registry):
    await registry.install("one")
    await registry.install("memory:same", name="shared")
    await registry.install("memory:two")
    assert await registry.remove("one") == 0
    assert await registry.remove("two") == len(TWO)
    assert await registry.remove("shared") == len(ONE)
    assert stored(registry) == []
    with pytest.raises(ModelNotFound):
        await registry.remove("one")


async def test_removal_by_alias(registry):
    await registry.install("one")
    assert await registry.remove("one:small") == len(ONE)


async def test_removal_never_takes_what_an_install_relies_on(tmp_path, registry, source):
    """The install found the blob in the store and is about to name it; the model that named it goes away."""
    await registry.install("one")
    source.models["pair"] = {"one.gguf": ONE, "mmproj.gguf": EYES}
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang():
        reached.set()
        await go_on.wait()

    source.between = hang
    install = asyncio.ensure_future(registry.install("memory:pair"))
    await reached.wait()
    other = Registry(tmp_path / "models", {}, SystemClock(), Library(()))
    assert await other.remove("one") == 0
    go_on.set()
    installed = await install
    assert {registry.path(file).read_bytes() for file in installed.revision.files} == {ONE, EYES}


class Tearing(SystemClock):
    """Removes a file at the last moment, which is when the time of an install is asked for."""

    def __init__(self, path, times):
        self.path = path
        self.times = times

    def wall(self):
        if self.times and self.path.exists():
            self.times -= 1
            self.path.unlink()
        return super().wall()


@pytest.mark.parametrize("times", [1, 2])
async def test_an_install_whose_file_was_torn_away_starts_again(tmp_path, source, times):
    clock = Tearing(tmp_path / "blobs" / "sha256" / models.sha256(ONE), times)
    registry = Registry(tmp_path, {"memory": source}, clock, Library(()))
    installed = await registry.install("memory:one")
    assert clock.times == 0
    assert registry.path(installed.revision.files[0]).read_bytes() == ONE


async def test_an_install_that_is_torn_away_each_time_gives_up(tmp_path, source):
    clock = Tearing(tmp_path / "blobs" / "sha256" / models.sha256(ONE), 100)
    registry = Registry(tmp_path, {"memory": source}, clock, Library(()))
    with pytest.raises(StoreError, match="again and again"):
        await registry.install("memory:one")
    assert registry.names() == []


class Moving(SystemClock):
    """Moves a file to yet another disk at the last moment."""

    def __init__(self, path):
        self.path = path
        self.times = 0

    def wall(self):
        if self.path.exists():
            self.times += 1
            disk = self.path.parent.parent / f"disk{self.times}"
            disk.write_bytes(self.path.read_bytes())
            self.path.unlink()
            self.path.symlink_to(disk)
        return super().wall()


async def test_an_install_whose_file_is_moved_again_and_again_is_none_the_worse(tmp_path, source):
    clock = Moving(tmp_path / "blobs" / "sha256" / models.sha256(ONE))
    registry = Registry(tmp_path, {"memory": source}, clock, Library(()))
    installed = await registry.install("memory:one")
    assert clock.times
    assert registry.path(installed.revision.files[0]).read_bytes() == ONE
    assert source.resolved == 1


async def test_a_blob_of_the_wrong_size_is_not_used(registry):
    installed = await registry.install("one")
    path = registry.path(installed.revision.files[0])
    path.chmod(0o644)
    path.write_bytes(ONE[:-1])
    with pytest.raises(CorruptModel, match=r"one\.gguf is not in the store"):
        registry.path(installed.revision.files[0])
    with pytest.raises(CorruptModel):
        await registry.verify("one")
    await registry.install("one")
    assert path.read_bytes() == ONE


@pytest.mark.parametrize("what", ["memory:same", "one"])
@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"!", lambda data: data[:24] + b"\xff" * 24 + data[48:]])
async def test_a_damaged_blob_is_not_handed_on_but_mended(registry, source, what, damage):
    installed = await registry.install("one", name="first")
    path = registry.path(installed.revision.files[0])
    path.chmod(0o644)
    path.write_bytes(damage(ONE))
    await registry.install(what, name="second")
    assert path.read_bytes() == ONE
    assert await registry.verify("second")
    assert await registry.verify("first")


async def test_verification_reads_every_byte(registry):
    installed = await registry.install("one")
    assert await registry.verify("one") == installed
    path = registry.path(installed.revision.files[0])
    path.chmod(0o644)
    path.write_bytes(ONE[:-1] + b"!")
    with pytest.raises(DigestMismatch) as caught:
        await registry.verify("one")
    return path, caught.value.hint


async def test_what_is_found_damaged_is_brought_again_also_of_a_pinned_model(registry):
    path, hint = await test_verification_reads_every_byte(registry)
    assert hint.endswith("corral pull memory:one --name one")
    await registry.pin("one")
    assert not registry.sound(registry.get("one").revision)

    await registry.install("one")

    assert path.read_bytes() == ONE
    assert registry.sound((await registry.verify("one")).revision)


async def test_a_doubt_ends_with_a_sound_verification(registry):
    path, _ = await test_verification_reads_every_byte(registry)
    path.write_bytes(ONE)
    await registry.verify("one")
    assert registry.sound(registry.get("one").revision)


@pytest.mark.parametrize(
    "damage",
    [
        lambda root, name: name.write_text("{"),
        lambda root, name: name.write_text('{"name": "other", "revision": "a", "installed_at": 1}'),
        lambda root, name: name.write_text('{"name": "one", "revision": "../x", "installed_at": 1}'),
        lambda root, name: next((root / "manifests").iterdir()).unlink(),
        lambda root, name: next((root / "manifests").iterdir()).write_text("[]"),
    ],
)
async def test_a_damaged_record_spoils_nothing_else(registry, damage):
    await registry.install("one")
    damage(registry._blobs.root, registry._manifests.names / "one.json")
    await registry.install("memory:two")
    registry._index.changed()
    assert registry.names() == ["two"]
    with pytest.raises(StoreError, match="damaged"):
        registry.get("one")
    assert list(registry.damaged()) == ["one"]
    # What the damaged record needs is not known, so nothing is taken from under it.
    await registry.remove("two")
    assert models.sha256(ONE) in blobs(registry)
    await registry.remove("one")
    assert stored(registry) == []


@pytest.mark.parametrize("name", ["one", "A:b/c", "x.Y_z-1"])
async def test_a_damaged_record_is_known_by_its_name(registry, name):
    assert registry.damaged() == {}
    await registry.install("one", name=name)
    next(registry._manifests.names.iterdir()).write_text("{")
    registry._index.changed()
    assert list(registry.damaged()) == [name]


async def test_a_changed_manifest_is_noticed(registry):
    await registry.install("one")
    path = next((registry._blobs.root / "manifests").iterdir())
    record = json.loads(path.read_text())
    record["files"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="damaged"):
        Registry(registry._blobs.root, {}, SystemClock(), Library(())).get("one")


async def test_a_digest_cannot_climb_out_of_the_store(registry):
    with pytest.raises(StoreError, match="not a SHA-256"):
        registry.path(FileEntry("x", 1, "../../names/one.json"))
