"""Files on another disk: moved, verified, brought back, and missed by name."""

import asyncio

import pytest

from corral.catalog.move import Mover
from corral.catalog.usage import Limits
from corral.domain.ports import silent
from corral.errors import (
    Conflict,
    CorruptModel,
    DigestMismatch,
)
from corral.kit.clock import SystemClock
from support.stores import VERSIONS, Store, digest

SIZE = len(VERSIONS[0])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models", limits=Limits(keep_revisions=2))


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


class Queue(SystemClock):
    """Time that tells how many wait for a lock."""

    def __init__(self):
        self._waiting = set()
        self._came = asyncio.Event()

    async def sleep(self, seconds):
        self._waiting.add(asyncio.current_task())
        self._came.set()
        await super().sleep(seconds)

    async def until(self, count):
        while len(self._waiting) < count:
            self._came.clear()
            await self._came.wait()


async def test_two_moves_of_a_shared_file_to_one_folder_leave_it_there(store, tmp_path):
    await store.through("m", 0)
    store.offer("n", 0)
    await store.install("memory:n")
    disk = tmp_path / "disk"
    await asyncio.gather(store.move("m", disk), store.move("n", disk))
    for name in ("m", "n"):
        await store.verify(name)
    assert store._blobs.away(digest(0)).parent.parent == disk
    assert len(list(disk.glob("*/*"))) == 1
    await asyncio.gather(store.move("m", None), store.move("n", None))
    await store.verify("m")
    assert store._blobs.away(digest(0)) is None


async def test_who_loses_a_race_to_one_folder_does_not_remove_what_the_winner_links_to(tmp_path):
    clock = Queue()
    store = Store(tmp_path / "models", clock=clock)
    await store.through("m", 0)
    place = store._places.under(tmp_path / "disk")
    movers = [Mover(store._blobs, clock, place, silent) for _ in range(2)]
    async with store._blobs.locked():
        moves = []
        for count, mover in enumerate(movers, 1):
            moves.append(asyncio.create_task(mover.move({digest(0): SIZE})))
            await clock.until(count)  # it has copied, and wants to link: nobody has yet
    await asyncio.gather(*moves)
    await store.verify("m")
    assert store._blobs.path(digest(0)).is_symlink()


async def test_who_loses_a_race_to_another_folder_leaves_nothing_there(tmp_path):
    clock = Queue()
    store = Store(tmp_path / "models", clock=clock)
    await store.through("m", 0)
    places = [store._places.under(tmp_path / name) for name in ("one", "two")]
    async with store._blobs.locked():
        moves = []
        for count, place in enumerate(places, 1):
            moves.append(asyncio.create_task(Mover(store._blobs, clock, place, silent).move({digest(0): SIZE})))
            await clock.until(count)
    await asyncio.gather(*moves)
    await store.verify("m")
    assert sorted(len(list(place.iterdir())) for place in places) == [0, 1]
