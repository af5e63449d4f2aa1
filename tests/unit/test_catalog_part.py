"""Parts: what is appended is held and hashed, survives its writer, and appears whole or not at all."""

import asyncio
import os
from pathlib import Path

import pytest

from corral.domain.ports import Progress
from corral.errors import NoPermission, QuotaExceeded, StoreError
from corral.kit import disk
from corral.kit.part import Part
from support.clocks import HandClock, settle
from support.models import sha256

DATA = bytes(range(256)) * 40


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def clock():
    return HandClock()


async def test_a_part_holds_and_hashes(tmp_path, clock):
    part = await Part.open(tmp_path / "new" / "a.part", clock)
    await part.append(DATA[:100])
    await part.append(DATA[100:])
    assert (part.size, part.digest(), part.path.read_bytes()) == (len(DATA), sha256(DATA), DATA)
    await part.restart()
    assert (part.size, part.digest(), part.path.read_bytes()) == (0, sha256(b""), b"")
    await part.append(b"x")
    assert part.path.read_bytes() == b"x"
    part.close()
    part.close()


async def test_a_part_asks_before_it_grows(tmp_path, clock):
    (tmp_path / "original").write_bytes(DATA)
    part = await Part.open(tmp_path / "a.part", clock)
    left = len(DATA) + 100

    def ask(count):
        nonlocal left
        if count > left:
            raise QuotaExceeded("no")
        left -= count

    part.ask = ask
    await part.append(DATA[:100])
    with pytest.raises(QuotaExceeded):
        await part.append(DATA + b"x")
    assert (part.size, part.digest()) == (100, sha256(DATA[:100]))
    left = 10
    with pytest.raises(QuotaExceeded):
        await part.clone(tmp_path / "original")
    assert part.size in {0, len(DATA)}  # shared blocks take no room
    part.close()


async def test_what_a_dead_writer_left_is_taken_up(tmp_path, clock):
    (tmp_path / "a.part").write_bytes(DATA[:5000])
    part = await Part.open(tmp_path / "a.part", clock)
    assert (part.size, part.digest()) == (5000, sha256(DATA[:5000]))
    await part.append(DATA[5000:])
    assert (part.digest(), part.path.read_bytes()) == (sha256(DATA), DATA)
    part.close()


async def test_publishing_moves_and_seals(tmp_path, clock):
    part = await Part.open(tmp_path / "a.part", clock)
    await part.append(DATA)
    part.scratch("wheel").write_bytes(b"zip")
    (tmp_path / "b~wheel").write_bytes(b"somebody else's")
    target = tmp_path / "blobs" / "x"
    await part.publish(target)
    assert target.read_bytes() == DATA
    assert target.stat().st_mode & 0o777 == 0o444
    assert names_in(tmp_path) == {"b~wheel", "blobs"}
    part.close()


async def test_a_published_file_can_be_shared_but_not_locked_alone(tmp_path, clock):
    part = await Part.open(tmp_path / "a.part", clock)
    await part.publish(tmp_path / "x")
    with (tmp_path / "x").open("rb") as other:
        assert not disk.try_lock(other.fileno())
        assert disk.try_lock(other.fileno(), shared=True)
    part.close()


async def test_a_part_that_somebody_else_wrote_to_is_not_published(tmp_path, clock):
    part = await Part.open(tmp_path / "a.part", clock)
    await part.append(DATA)
    with part.path.open("ab") as other:
        other.write(b"more")
    with pytest.raises(StoreError, match="changed by somebody else"):
        await part.publish(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    part.close()


async def test_discarding_takes_the_scratch_along(tmp_path, clock):
    part = await Part.open(tmp_path / "a.part", clock)
    part.scratch("wheel").write_bytes(b"zip")
    await part.discard()
    part.close()
    assert names_in(tmp_path) == set()


async def test_scratch_stays_beside_the_part(tmp_path, clock):
    part = await Part.open(tmp_path / "a.part", clock)
    with pytest.raises(ValueError, match="not a file name"):
        part.scratch("../b")
    part.close()


async def test_cloning_holds_the_other_file_and_nothing_else(tmp_path, clock):
    original = tmp_path / "original"
    original.write_bytes(DATA)
    part = await Part.open(tmp_path / "a.part", clock)
    await part.append(b"old")
    seen: list[Progress] = []
    await part.clone(original, seen.append)
    assert (part.digest(), part.path.read_bytes()) == (sha256(DATA), DATA)
    assert seen[-1] == Progress("download", len(DATA), len(DATA))
    with original.open("r+b") as edited:
        edited.write(b"edited in place")
    assert part.path.read_bytes() == DATA
    part.close()


async def test_the_second_writer_waits_and_gets_a_new_file(tmp_path, clock):
    first = await Part.open(tmp_path / "a.part", clock)
    await first.append(DATA)
    told: list[bool] = []
    second = asyncio.ensure_future(Part.open(tmp_path / "a.part", clock, lambda: told.append(True)))
    while not told:
        await settle()
    await clock.advance(1)
    assert told == [True]
    assert not second.done()
    await first.publish(tmp_path / "x")
    first.close()
    while not second.done():
        await clock.advance(1)
    part = await second
    assert part.size == 0
    assert (tmp_path / "x").read_bytes() == DATA
    part.close()


async def test_a_cancelled_wait_leaves_nothing_open(tmp_path, clock):
    first = await Part.open(tmp_path / "a.part", clock)
    before = len(names_in(Path("/dev/fd")))
    told: list[bool] = []
    second = asyncio.ensure_future(Part.open(tmp_path / "a.part", clock, lambda: told.append(True)))
    while not told:
        await settle()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(names_in(Path("/dev/fd"))) == before
    first.close()


async def test_a_cancelled_thread_is_waited_for():
    release, entered = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    done: list[str] = []

    def work():
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        done.append("work")

    task = asyncio.ensure_future(disk.in_thread(work))
    await entered.wait()
    task.cancel()
    await settle()
    task.cancel()
    await settle()
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["work"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (98362432, "98.4 MB"),
        (253113024, "253 MB"),
        (8 * 10**12, "8.0 TB"),
    ],
)
def test_sizes_are_told_as_people_write_them(size, text):
    assert disk.human(size) == text


@pytest.mark.parametrize(
    ("number", "kind"),
    [(13, NoPermission), (30, NoPermission), (28, disk.DiskFull), (122, disk.DiskFull), (5, StoreError)],
)
def test_the_systems_errors_become_the_stores(tmp_path, number, kind):
    with pytest.raises(kind, match="writing") as caught, disk.translated("writing", tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert caught.value.hint


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "a.json"
    disk.write_whole(path, b"one")
    disk.write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert names_in(path.parent) == {"a.json"}


def test_a_failed_replacement_leaves_what_was_there(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        disk.write_whole(tmp_path / "a.json", b"two")
    assert names_in(tmp_path) == {"a.json"}


# Linking


async def linked(path, clock, original, digest=None):
    part = await Part.open(path, clock)
    return part, await part.link(original, digest or sha256(original.read_bytes()))


async def test_a_link_stands_for_the_same_file_and_leaves_its_mode(tmp_path, clock):
    original = tmp_path / "original"
    original.write_bytes(DATA)
    original.chmod(0o640)
    part = await Part.open(tmp_path / "a.part", clock)
    await part.append(b"held")
    seen: list[Progress] = []
    assert await part.link(original, sha256(DATA), seen.append)
    assert (part.size, part.digest(), part.held_at.read_bytes()) == (len(DATA), sha256(DATA), DATA)
    assert seen == [Progress("download", len(DATA), len(DATA))]
    with pytest.raises(ValueError, match="cannot be added to"):
        await part.append(b"x")
    await part.publish(tmp_path / "blob")
    assert (tmp_path / "blob").samefile(original)
    assert original.stat().st_mode & 0o777 == 0o640
    with (tmp_path / "blob").open("rb") as other:
        assert not disk.try_lock(other.fileno())
        assert disk.try_lock(other.fileno(), shared=True)
    part.close()
    assert names_in(tmp_path) == {"original", "blob"}


async def test_what_turns_out_to_be_something_else_changes_nothing(tmp_path, clock):
    (tmp_path / "original").write_bytes(DATA)
    part = await Part.open(tmp_path / "a.part", clock)
    await part.append(b"held")
    assert not await part.link(tmp_path / "original", sha256(b"other"))
    assert (part.size, part.digest(), part.held_at) == (4, sha256(b"held"), part.path)
    assert not await part.link(tmp_path / "none", sha256(DATA))
    assert not await part.link(tmp_path, sha256(DATA))
    (tmp_path / "link").symlink_to("original")
    assert not await part.link(tmp_path / "link", sha256(DATA))
    os.mkfifo(tmp_path / "pipe")
    assert not await part.link(tmp_path / "pipe", sha256(b""))
    part.close()
    assert names_in(tmp_path) == {"original", "link", "pipe", "a.part"}


@pytest.mark.parametrize("end", ["discard", "close", "restart"])
async def test_a_link_that_is_not_wanted_leaves_the_original(tmp_path, clock, end):
    original = tmp_path / "original"
    original.write_bytes(DATA)
    part, held = await linked(tmp_path / "a.part", clock, original)
    assert held
    if end == "discard":
        await part.discard()
    elif end == "restart":
        await part.restart()
        assert (part.size, part.path.read_bytes()) == (0, b"")
        await part.append(b"new")
        assert part.path.read_bytes() == b"new"
    part.close()
    assert original.read_bytes() == DATA
    assert names_in(tmp_path) == {"original"} | (set() if end == "discard" else {"a.part"})


async def test_a_linked_file_that_grew_is_not_published(tmp_path, clock):
    original = tmp_path / "original"
    original.write_bytes(DATA)
    part, _ = await linked(tmp_path / "a.part", clock, original)
    original.write_bytes(DATA + b"more")
    with pytest.raises(StoreError, match="changed by somebody else"):
        await part.publish(tmp_path / "blob")
    part.close()


async def test_what_cannot_be_linked_is_copied(tmp_path, clock):
    """A scratch that is in the way as a folder: no link can be made there, as on another disk."""
    original = tmp_path / "original"
    original.write_bytes(DATA)
    part = await Part.open(tmp_path / "a.part", clock)
    part.scratch("link").mkdir()
    assert await part.link(original, sha256(DATA))
    assert (part.size, part.digest(), part.held_at) == (len(DATA), sha256(DATA), part.path)
    part.scratch("link").rmdir()
    await part.publish(tmp_path / "blob")
    part.close()
    assert not (tmp_path / "blob").samefile(original)
    assert (tmp_path / "blob").read_bytes() == DATA


async def test_a_waiter_goes_on_when_the_file_is_renamed_though_its_lock_is_kept(tmp_path, clock):
    first = await Part.open(tmp_path / "a.part", clock)
    told: list[bool] = []
    second = asyncio.ensure_future(Part.open(tmp_path / "a.part", clock, lambda: told.append(True)))
    while not told:
        await settle()
    await first.publish(tmp_path / "x")  # and not closed: whoever waits must not wait for that
    while not second.done():
        await clock.advance(1)
    part = await second
    assert part.size == 0
    part.close()
    first.close()
