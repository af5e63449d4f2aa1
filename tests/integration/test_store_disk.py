"""Full disks and folders that may not be written: a clear error, nothing half installed, and the next try goes on."""

import asyncio
import os
import shutil
import subprocess
from contextlib import suppress

import pytest

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.domain.models import FileEntry
from corral.errors import DiskFull, NoPermission, StoreError
from corral.kit.clock import SystemClock
from corral.kit.part import Part
from support import models
from support.sources import MemorySource

MODEL = models.gguf(700_000, seed=1)


@pytest.fixture
def mounted(tmp_path):
    """Mounts small disks of memory; skips aloud where that is not allowed."""
    folders = []

    def mount(options):
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("mounting a small disk needs root")
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", folder], check=True)


def registry(folder, source):
    return Registry(folder, {"memory": source}, SystemClock(), Library(()))


async def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(mounted):
    folder = mounted("size=2m")
    source = MemorySource({"big": {"big.gguf": MODEL}})
    with pytest.raises(DiskFull, match=r"memory:big needs 2\.8 MB more in .*, where 2\.\d MB are free\. Free 7\d\d kB"):
        await registry(folder, source).install("memory:big")
    assert source.sent == 0
    assert registry(folder, source).names() == []


async def test_a_disk_that_fills_up_on_the_way(mounted):
    folder = mounted("size=4m")
    source = MemorySource({"big": {"big.gguf": MODEL}}, block=100_000)
    ballast = folder / "ballast"

    async def fill():
        if source.sent >= 1_000_000 and not ballast.exists():
            ballast.write_bytes(bytes(2_000_000))

    source.between = fill
    reg = registry(folder, source)
    with pytest.raises(DiskFull, match="No room while writing"):
        await reg.install("memory:big")
    assert reg.names() == []
    ballast.unlink()
    source.between = lambda: asyncio.sleep(0)
    installed = await reg.install("memory:big")
    assert reg.path(installed.revision.files[0]).read_bytes() == MODEL
    assert source.sent <= len(MODEL) + 100_000


async def test_what_fitted_is_held_and_hashed(mounted):
    folder = mounted("size=1m")
    part = await Part.open(folder / "a.part", SystemClock())
    data = os.urandom(1_500_000)
    with pytest.raises(DiskFull):
        await part.append(data)
    assert 0 < part.size < len(data)
    assert part.path.read_bytes() == data[: part.size]
    assert part.digest() == models.sha256(data[: part.size])
    part.close()


@pytest.fixture
def sealed(request, tmp_path):
    """A folder in which nothing can be written; root may write everywhere, so for root it is a read-only disk."""
    if os.geteuid() == 0:
        yield request.getfixturevalue("mounted")("ro,size=8m")
        return
    tmp_path.chmod(0o555)
    yield tmp_path
    tmp_path.chmod(0o755)


async def test_a_folder_that_may_not_be_written(sealed):
    reg = registry(sealed / "models", MemorySource({"big": {"big.gguf": MODEL}}))
    assert reg.names() == []
    with pytest.raises(NoPermission, match="Not allowed") as caught:
        await reg.install("memory:big")
    assert ("read-only" if os.geteuid() == 0 else "who owns") in caught.value.hint


async def test_a_store_that_may_only_be_read_can_be_read(mounted):
    folder = mounted("size=8m")
    source = MemorySource({"big": {"big.gguf": MODEL}})
    installed = await registry(folder, source).install("memory:big")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    reg = registry(folder, source)
    assert reg.get("big") == installed
    assert (await reg.verify("big")) == installed
    assert await reg.install("memory:big") == installed
    with pytest.raises(NoPermission):
        await reg.remove("big")
    assert reg.path(FileEntry("big.gguf", len(MODEL), models.sha256(MODEL))).exists()


async def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "models").write_text("")
    reg = registry(tmp_path / "models", MemorySource({"big": {"big.gguf": MODEL}}))
    assert reg.names() == []
    with pytest.raises(StoreError, match="opening"):
        await reg.install("memory:big")


async def test_an_update_for_which_there_is_no_room_leaves_the_model_as_it_was(mounted):
    folder = mounted("size=5m")
    source = MemorySource({"big": {"big.gguf": MODEL}}, block=100_000)
    reg = registry(folder, source)
    before = await reg.install("memory:big")
    source.models["big"]["big.gguf"] = models.gguf(700_000, seed=2)
    source.version = "2"
    with pytest.raises(DiskFull, match=r"memory:big needs 2\.8 MB more"):
        await reg.update("big")
    ballast = folder / "ballast"
    source.models["big"]["big.gguf"] = smaller = models.gguf(400_000, seed=3)

    async def fill():
        if source.sent >= len(MODEL) + 500_000 and not ballast.exists():
            ballast.write_bytes(bytes(1_100_000))

    source.between = fill
    with pytest.raises(DiskFull, match="No room while writing"):
        await reg.update("big")
    assert (reg.get("big"), len(reg.history("big"))) == (before, 1)
    await reg.verify("big")
    assert (await reg.gc()).parts == 1
    ballast.unlink()
    source.between = lambda: asyncio.sleep(0)
    after = await reg.update("big")
    assert reg.path(after.revision.files[0]).read_bytes() == smaller
    assert (await reg.rollback("big")).revision == before.revision


async def test_a_record_that_cannot_be_written_changes_nothing(mounted):
    """The disk is full to the last byte when the name's record is written."""
    folder = mounted("size=4m")
    reg = registry(folder, MemorySource({"a": {"a.gguf": models.gguf(1000, seed=4)}}))
    await reg.install("memory:a")
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", 0) as out:
        while True:
            out.write(bytes(4096))
    with pytest.raises(DiskFull):
        await reg.pin("a")
    assert not reg.get("a").pinned
    assert not registry(folder, reg._sources["memory"]).get("a").pinned
    assert not list(folder.rglob("*.tmp"))
    assert await reg.remove("a") > 0
    ballast.unlink()


async def test_a_move_to_a_disk_that_is_too_small(mounted, tmp_path):
    source = MemorySource({"big": {"big.gguf": MODEL}})
    reg = registry(tmp_path / "models", source)
    await reg.install("memory:big")
    disk = mounted("size=2m")
    with pytest.raises(DiskFull, match=r"2\.8 MB are to be moved to .*, where 2\.\d MB are free"):
        await reg.move("big", disk)
    await reg.verify("big")
    await reg.gc()
    assert not list(disk.rglob("*"))


async def test_a_store_that_may_only_be_read_says_what_it_may_not(mounted):
    folder = mounted("size=8m")
    source = MemorySource({"big": {"big.gguf": MODEL}})
    reg = registry(folder, source)
    await reg.install("memory:big")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    for act in (lambda: reg.pin("big"), reg.gc, lambda: reg.set_override("big", {}), lambda: reg.move("big", folder)):
        with pytest.raises(NoPermission, match="Not allowed"):
            await act()
    assert reg.usage().models[0].size == len(MODEL)
    assert not (await reg.check("big")).changed
    assert [item.error for item in await reg.verify_all()] == [None]
