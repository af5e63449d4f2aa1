"""Models that lie on this machine."""

import os

import pytest

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.domain.models import ModelRef
from corral.domain.ports import Query
from corral.errors import CorruptModel, NotSupported, SourceError, SourceNotFound, UnsafeFormat
from corral.kit.clock import SystemClock
from corral.sources.file import File, _moment
from support import models

TINY = models.gguf(seed=1)


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "home" / "My Model.gguf"
    path.parent.mkdir()
    path.write_bytes(TINY)
    return path


@pytest.fixture
def registry(tmp_path):
    source = File({"HOME": str(tmp_path / "home")})
    return Registry(tmp_path / "models", {"file": source}, SystemClock(), Library(()))


@pytest.mark.parametrize(
    "text",
    [
        "file:{0}/My Model.gguf",
        "file://{0}/My%20Model.gguf",
        "file://localhost{0}/My%20Model.gguf",
        "file:~/My Model.gguf",
    ],
)
async def test_a_file_is_installed_by_any_of_its_names(registry, original, text):
    installed = await registry.install(text.format(original.parent))
    assert (installed.name, installed.revision.source) == ("my-model", f"file:{original}")
    assert registry.path(installed.revision.files[0]).read_bytes() == TINY


async def test_what_is_installed_does_not_change_with_the_original(registry, original):
    first = await registry.install(f"file:{original}")
    path = registry.path(first.revision.files[0])
    changed = models.gguf(seed=2)
    with original.open("r+b") as edited:
        edited.write(changed)
    assert path.read_bytes() == TINY
    assert not path.samefile(original)
    second = await registry.install(f"file:{original}")
    assert registry.path(second.revision.files[0]).read_bytes() == changed
    assert second.revision.id != first.revision.id


async def test_an_unchanged_file_is_not_read_again(registry, original):
    first = await registry.install(f"file:{original}")
    seen = []
    assert await registry.install(f"file:{original}", report=seen.append) == first
    assert [item.phase for item in seen] == ["resolve"]


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        (1_700_000_000_000_000_005, "2023-11-14T22:13:20.000000005Z"),
        (253_402_300_800 * 10**9, "253402300800000000000 ns"),
        (-62_135_596_801 * 10**9, "-62135596801000000000 ns"),
        (10**40, f"{10**40} ns"),
    ],
)
def test_time_stamps_of_any_calendar(stamp, told):
    """Few disks keep these, so no file is made with them."""
    assert _moment(stamp) == told


@pytest.mark.parametrize("cut", [1, 500])
async def test_a_truncated_file_is_refused(registry, original, cut):
    original.write_bytes(TINY[:-cut])
    with pytest.raises(CorruptModel, match=r"truncated|ends in"):
        await registry.install(f"file:{original}")
    assert registry.names() == []


async def test_a_pipe_is_not_waited_for(registry, original):
    original.unlink()
    os.mkfifo(original)
    with pytest.raises(SourceError, match="pipe or device"):
        await registry.install(f"file:{original}")


async def test_what_is_no_model_is_refused_at_once(registry, original):
    original.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(SourceError, match="not a GGUF file"):
        await registry.install(f"file:{original}")
    with pytest.raises(UnsafeFormat, match=r"My Model\.gguf"):
        await registry.install(f"file:{original.parent}")
    original.unlink()
    (original.parent / "notes.txt").write_text("no model")
    with pytest.raises(SourceError, match="is a folder without a model in it"):
        await registry.install(f"file:{original.parent}")


@pytest.mark.parametrize("text", ["/nowhere/x.gguf", "x\0y.gguf"])
async def test_what_is_not_there_is_not_found(registry, text):
    with pytest.raises(SourceNotFound):
        await registry.install(f"file:{text}")


async def test_a_file_that_changes_while_it_is_read_is_refused(registry, original):
    def write(progress):
        if progress.phase == "download":
            original.write_bytes(TINY + b"more")

    with pytest.raises(SourceError, match="changed while it was read"):
        await registry.install(f"file:{original}", report=write)
    assert registry.names() == []


async def test_a_listing_of_something_else_is_refused(tmp_path, original):
    source = File({})
    listing = await source.resolve(ModelRef("file", str(original)))
    assert listing.files[0].size == len(TINY)
    with pytest.raises(NotSupported):
        await source.search(Query("model"))


def lay(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.mark.parametrize("files", [models.snapshot(3), models.split_gguf(3)])
async def test_a_folder_with_a_model_is_installed(registry, tmp_path, files):
    folder = lay(tmp_path / "Tiny", {**files, ".cache/x": b"hidden", "x.py": b"code"})
    installed = await registry.install(f"file:{folder}")
    assert (installed.name, installed.revision.source) == ("tiny", f"file:{folder}")
    assert [(entry.name, entry.size) for entry in installed.revision.files] == [(n, len(d)) for n, d in files.items()]
    assert installed.revision.facts["ignored_files"] == ["x.py"]


async def test_a_folder_is_listed_with_what_lies_below(tmp_path):
    folder = lay(tmp_path, {"model.safetensors": b"1", "a/b/c/deep.json": b"2", "a/b/c/d/deeper.json": b"3"})
    (folder / "link.json").symlink_to("model.safetensors")
    (folder / "self").symlink_to(".")
    os.mkfifo(folder / "pipe")
    listing = await File({}).resolve(ModelRef("file", str(folder)))
    assert [file.name for file in listing.files] == ["a/b/c/deep.json", "link.json", "model.safetensors"]
    version = listing.version
    os.utime(folder / "a/b/c/deep.json", (1, 1))
    assert (await File({}).resolve(ModelRef("file", str(folder)))).version != version


async def test_a_folder_of_too_many_files_is_refused(tmp_path):
    for number in range(2001):
        (tmp_path / f"{number}.gguf").touch()
    with pytest.raises(SourceError, match="more than 2000 files"):
        await File({}).resolve(ModelRef("file", str(tmp_path)))
