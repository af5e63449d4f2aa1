"""The journal of a process that spends, and books that are closed from it: whole, cut, damaged, of another boot."""

from __future__ import annotations

import asyncio
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.db.engine import Database
from corral.domain.callers import Caller
from corral.routing import journal as journals
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.routing.journal import Journal, naming, read
from corral.routing.ledger import Amounts, Ledger
from corral.routing.recovery import recover
from corral.routing.treasury import Treasury
from support.clocks import HandClock

DAY, ALL = ("b-1", "2026-11-21"), ("b-2", "total")
ADA = Caller("key-ada", "ada")


def written(folder: Path, *lines: bytes) -> Journal:
    made = Journal(folder)
    made.note(naming(0, *DAY) + naming(1, *ALL))
    for line in lines:
        made.write(line)
    return made


def test_settled_is_booked_exactly_and_open_as_reserved(tmp_path: Path) -> None:
    made = written(
        tmp_path, b"h 1 0=5 1=50\n", b"h 2 0=6 1=60\n", b"s 1 0=4 1=70\n", b"h 3 0=7 1=7\n", b"s 3 0=0 1=0\n"
    )
    story = read(made.path.read_bytes(), 0)

    assert (story.holder, story.cut, story.damaged) == (made.holder, False, 0)
    assert story.settled == {DAY: 4, ALL: 70}
    assert story.open == {2: {DAY: 6, ALL: 60}}
    assert story.spent() == {DAY: 10, ALL: 130}
    made.remove()
    assert not made.path.exists()


def test_what_is_booked_is_not_booked_again(tmp_path: Path) -> None:
    made = written(tmp_path, b"h 1 0=5\n", b"h 2 0=6\n", b"s 1 0=4\n")
    applied = made.end
    made.write(b"s 2 0=3\n")

    assert read(made.path.read_bytes(), applied).settled == {DAY: 3}
    assert read(made.path.read_bytes(), made.end).spent() == {}
    made.leave()


def test_it_is_locked_while_its_process_lives(tmp_path: Path) -> None:
    made = written(tmp_path)
    descriptor = os.open(made.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made.leave()
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_shortened_journal_tells_the_same(tmp_path: Path) -> None:
    made = written(tmp_path, b"h 1 0=5\n", b"h 2 0=6 1=1\n", b"s 1 0=4\n")
    applied = made.end
    made.write(b"h 3 0=8\n")
    made.write(b"s 3 0=7\n")
    before, end = read(made.path.read_bytes(), applied), made.end
    made.shorten(applied, [naming(0, *DAY), naming(1, *ALL)], [b"h 2 0=6 1=1\n"])
    after = read(made.path.read_bytes(), applied)

    assert made.end == end
    assert (after.settled, after.open, after.cut) == (before.settled, before.open, False)
    made.write(b"s 2 0=1 1=1\n")
    assert read(made.path.read_bytes(), end).settled == {DAY: 1, ALL: 1}
    descriptor = os.open(made.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    made.leave()


@given(st.data())
def test_wherever_it_is_cut_what_it_tells_is_a_state_that_was(tmp_path_factory, data: st.DataObject) -> None:
    made = written(tmp_path_factory.mktemp("j"), b"h 1 0=500\n", b"s 1 0=499\n", b"h 2 0=1\n")
    content = made.path.read_bytes()
    made.remove()
    at = data.draw(st.integers(0, len(content)))
    story = read(content[:at], 0)

    assert story.spent() in ({}, {DAY: 500}, {DAY: 499})
    assert story.damaged == (0 if at > content.index(b"\n") else story.damaged)


@pytest.mark.parametrize(
    "noise", [b"\0" * 40 + b"\n", b"h 1 9=5\n", b"\xff\xfe\n", b"s x 0=1\n", b"h 1 0=-5\n", b"s 1 0=%d\n" % 10**18]
)
def test_damage_is_counted_and_makes_the_whole_lease_spent(tmp_path: Path, noise: bytes) -> None:
    made = written(tmp_path, noise, b"h 2 0=6\n")
    story = read(made.path.read_bytes(), 0)

    assert (story.damaged, story.cut) == (1, True)
    assert story.open == {2: {DAY: 6}}
    made.leave()


def test_a_journal_of_an_earlier_boot_or_one_that_is_too_short_may_lack_lines(tmp_path: Path) -> None:
    made = written(tmp_path, b"h 2 0=6\n")
    content = made.path.read_bytes()
    other = content.replace(content.split()[3], b"another-boot", 1)

    assert read(other, 0).cut
    assert read(content, made.end + 1).cut
    assert not read(content, made.end).cut
    assert read(b"", 0).cut
    made.leave()


async def dead(home: Path, clock: HandClock) -> tuple[Ledger, Database]:
    """A ledger whose process ends in the middle: one call settled, one open; 58 of 1000 leased."""
    database = Database(None, home)
    await Budgets(database, clock).create(Budget("", "b", "all", "", "tokens", "total", 1000))
    ledger = Ledger(database, home, clock)
    (await ledger.reserve(ADA, Amounts(0, 9))).settle(Amounts(0, 4))
    assert ledger.hold(ADA, Amounts(0, 7)) is not None
    journal = ledger._journal
    assert journal is not None
    journal.leave()
    return ledger, database


async def test_the_next_process_closes_the_books_once(tmp_path: Path) -> None:
    clock = HandClock()
    _, database = await dead(tmp_path, clock)
    heirs = [Ledger(database, tmp_path, clock) for _ in range(2)]
    found = [*await heirs[0].recover(), *await heirs[1].recover()]

    (recovery,) = found
    assert sum(recovery.booked.values()) == 4 + 7
    assert sum(recovery.abandoned.values()) == 7
    status = await Budgets(database, clock).get("b")
    assert (status.spent, status.leased, status.abandoned) == (11, 0, 7)
    assert list((tmp_path / "ledger").iterdir()) == []
    await database.close()


async def test_what_is_no_file_is_nobody_s_journal(tmp_path: Path) -> None:
    clock = HandClock()
    _, database = await dead(tmp_path, clock)
    folder = tmp_path / "ledger"
    (folder / f"a{journals.SUFFIX}").mkdir()
    (folder / f"b{journals.SUFFIX}").symlink_to("/dev/zero")
    (folder / f"c{journals.SUFFIX}").symlink_to("nowhere")

    assert len(await Ledger(database, tmp_path, clock).recover()) == 1
    assert len(list(folder.iterdir())) == 3
    await database.close()


async def test_a_kill_between_booking_and_removal_books_nothing_twice(tmp_path: Path) -> None:
    clock = HandClock()
    _, database = await dead(tmp_path, clock)
    (path,) = (tmp_path / "ledger").glob(f"*{journals.SUFFIX}")
    content = path.read_bytes()
    heir = Ledger(database, tmp_path, clock)
    await heir.recover()
    path.write_bytes(content)
    clock.time += 10**9

    assert await heir.recover() == []
    assert not path.exists()
    assert (await Budgets(database, clock).get("b")).spent == 11
    await database.close()


async def test_a_damaged_journal_costs_the_lease_and_no_more(tmp_path: Path) -> None:
    clock = HandClock()
    _, database = await dead(tmp_path, clock)
    (path,) = (tmp_path / "ledger").glob(f"*{journals.SUFFIX}")
    budgets = Budgets(database, clock)
    leased = (await budgets.get("b")).leased
    path.write_bytes(path.read_bytes()[:-3] + b"\0\0\0\n")
    await Ledger(database, tmp_path, clock).recover()

    status = await budgets.get("b")
    assert leased > 11
    assert (status.spent, status.leased, status.abandoned) == (leased, 0, leased - 4)
    await database.close()


async def test_a_living_process_is_left_alone_and_one_of_elsewhere_released_by_hand(tmp_path: Path) -> None:
    clock = HandClock()
    ledger, database = await dead(tmp_path / "a", clock)
    there = Ledger(database, tmp_path / "b", clock)
    hold = await there.reserve(ADA, Amounts(0, 3))

    assert await Ledger(database, tmp_path / "b", clock).recover() == []
    hold.settle(Amounts(0, 3))
    await there.close()
    budgets = Budgets(database, clock)
    (lost,) = await budgets.holders()
    leased = sum(lost.leases.values())
    await Ledger(database, tmp_path / "b", clock).recover()
    assert len(await budgets.holders()) == 1
    assert await ledger._treasury.release(lost.id, spent=True) is not None
    assert await ledger._treasury.release(lost.id, spent=True) is None

    status = await budgets.get("b")
    assert (status.spent, status.leased) == (3 + leased, 0)
    await database.close()


async def test_a_long_journal_is_made_shorter_while_calls_are_under_way(tmp_path: Path) -> None:
    clock = HandClock()
    database = Database(None, tmp_path)
    await Budgets(database, clock).create(Budget("", "b", "all", "", "tokens", "total", 10**12))
    ledger = Ledger(database, tmp_path, clock)
    open_ = await ledger.reserve(ADA, Amounts(0, 5))
    count = 0
    while not ledger._journal.long:
        for _ in range(1000):
            hold = ledger.hold(ADA, Amounts(0, 3))
            assert hold is not None
            hold.settle(Amounts(0, 2))
            count += 1
    await ledger.flush()
    (await ledger.reserve(ADA, Amounts(0, 1))).settle(Amounts(0, 1))

    assert ledger._journal.path.stat().st_size < 1000
    assert open_.open
    ledger._journal.leave()
    await Ledger(database, tmp_path, clock).recover()
    assert (await Budgets(database, clock).get("b")).spent == 5 + 2 * count + 1
    await database.close()


class Leaving(ThreadPoolExecutor):
    """Cancels who waits for its second piece of work, as soon as that has been handed in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(1)
        self._loop = loop
        self._pieces = 0
        self.waits: asyncio.Task[object] | None = None

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self._pieces += 1
        if self._pieces == 2 and self.waits is not None:
            self._loop.call_soon(self.waits.cancel)
        return super().submit(*args, **kwargs)


async def test_who_is_cancelled_while_a_dead_journal_is_taken_leaves_it_to_others(tmp_path: Path) -> None:
    dead = written(tmp_path)
    dead.leave()
    loop = asyncio.get_running_loop()
    threads = Leaving(loop)
    loop.set_default_executor(threads)
    database = Database(None, tmp_path)
    threads.waits = asyncio.create_task(recover(tmp_path, Treasury(database), HandClock()))
    with pytest.raises(asyncio.CancelledError):
        await threads.waits
    descriptor = os.open(dead.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
        await database.close()
