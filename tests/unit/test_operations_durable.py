"""The life of an operation: queued, begun, told of, paused, called off, tried again, taken up, forgotten."""

import asyncio
import sqlite3
from contextlib import contextmanager, suppress

import pytest

from corral.db.engine import Database
from corral.domain.operations import OperationStatus as S
from corral.domain.operations import Order, describe
from corral.domain.ports import Progress
from corral.errors import Conflict, NotSupported, OperationNotFound, SourceError, SourceNotFound, StoreError
from corral.operations.durable import Operations
from corral.operations.leases import Lease, home_id
from support.clocks import HandClock
from support.operations import Bench


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


@pytest.fixture
def worker(bench):
    return bench.worker


async def statuses(bench):
    return {each.order.model: str(each.status) for each in await bench.operations.page(100)}


async def test_it_is_done_and_says_so(bench, worker):
    order = Order("install", "smollm2", {"what": "smollm2", "name": None}, lane="smollm2", host="hub")
    waiting = await bench.operations.submit(order)
    assert (waiting.status, waiting.order, waiting.attempts) == (S.PENDING, order, 0)

    async with bench.run():
        await bench.until(lambda: worker.begun)
        running = await bench.operations.get(waiting.id)
        worker.end("smollm2", {"revision": "abc"})
        ended = await bench.ended(waiting.id)

    assert (running.status, running.attempts, running.ended_at) == (S.IN_PROGRESS, 1, None)
    assert running.started_at is not None
    assert (ended.status, ended.progress, ended.result, ended.error) == (S.COMPLETED, 100, {"revision": "abc"}, None)
    assert ended.created_at <= ended.started_at <= ended.ended_at
    assert list((bench.home / "operations").iterdir()) == []


async def test_a_secret_in_an_address_is_kept_as_long_as_it_is_needed(bench, worker):
    address = "https://me:secret@host.test/m.gguf?signature=secret"
    waiting = await bench.operations.submit(Order("install", "m", {"what": address, "force": True}))
    assert "secret" not in str(describe(waiting))

    async with bench.run():
        await bench.until(lambda: worker.begun)
        assert (await bench.operations.get(waiting.id)).order.params["what"] == address
        worker.end("m")
        ended = await bench.ended(waiting.id)

    (row,) = await bench.operations.page(1)
    assert row.id == ended.id
    assert dict(row.order.params) == {"what": "https://host.test/m.gguf", "force": True}


async def test_what_nobody_does_is_refused(bench):
    with pytest.raises(NotSupported, match="'dance'") as caught:
        await bench.operations.submit(Order("dance", "smollm2"))

    assert caught.value.hint == "Known: install, verify."


@pytest.mark.parametrize("ask", ["get", "pause", "resume", "cancel", "perform"])
async def test_what_is_not_there_is_named(bench, ask):
    with pytest.raises(OperationNotFound, match="'op-1'"):
        await getattr(bench.operations, ask)("op-1")


async def test_equal_orders_are_one_until_it_has_ended(bench, worker):
    first = await bench.order("a", what="a")
    assert (await bench.order("a", what="a")).id == first.id
    assert (await bench.order("a", what="b")).id != first.id
    assert (await bench.order("a", kind="verify", what="a")).id != first.id

    async with bench.run():
        await bench.until(lambda: worker.begun)
        await bench.flow(bench.operations.cancel(first.id))

    assert (await bench.order("a", what="a")).id != first.id


async def test_equal_orders_at_once_are_one(bench):
    other = bench.more()

    both = await asyncio.gather(*(each.submit(Order("install", "a")) for each in (bench.operations, other) * 3))

    assert len({each.id for each in both}) == 1


async def test_an_order_wakes_an_equal_one_that_is_paused(bench):
    first = await bench.order("a")
    await bench.operations.pause(first.id)

    again = await bench.order("a")

    assert (again.id, again.status) == (first.id, S.PENDING)


async def test_an_order_while_an_equal_one_is_being_called_off_is_a_new_one(bench, worker):
    first = await bench.order("a")
    async with bench.run():
        await bench.until(lambda: worker.begun)
        _, second = await bench.flow(asyncio.gather(bench.operations.cancel(first.id), bench.order("a")))

    assert second.id != first.id


async def test_the_limits_and_the_order_hold(bench, worker):
    for model in "abcde":
        await bench.order(model, lane="lane" if model in "ab" else "", host="host" if model in "acd" else "")
    async with bench.run():
        await bench.until(lambda: len(worker.begun) == 3)
        assert worker.begun == ["a", "c", "e"]
        worker.end("e")
        await bench.until(lambda: "e" not in worker.at_work)
        await bench.a_while()
        assert len(worker.begun) == 3
        worker.end("a")
        await bench.until(lambda: len(worker.begun) == 5)
        assert worker.begun[3:] == ["b", "d"]


async def test_progress_is_seen_at_once_and_written_down(bench, worker):
    identifier = (await bench.order("a")).id
    other = bench.more()
    async with bench.run():
        await bench.until(lambda: worker.begun)
        seen, watching = bench.watch(identifier)
        for n in range(1, 11):
            worker.at_work["a"].report(Progress("download", n * 1000, 10_000, f"file {n}"))
            await bench.clock.advance(1)
        worker.at_work["a"].on_part("part-1")
        await bench.until(lambda: seen[-1].parts)

        async def written():
            now = await other.get(identifier)
            return now if now.parts else None

        while not (elsewhere := await written()):
            await bench.clock.advance(0.5)
        worker.at_work["a"].message("nearly there")
        await bench.until(lambda: seen[-1].message == "nearly there")
        worker.end("a")
        await bench.flow(watching)

    assert (elsewhere.progress, elsewhere.done, elsewhere.total) == (95, 10_000, 10_000)
    assert elsewhere.phase == "download"
    assert elsewhere.message == "file 10"
    assert elsewhere.rate > 0
    assert max(now.rate or 0 for now in seen) == pytest.approx(1000, rel=0.1)
    assert elsewhere.parts == {"part-1"}
    assert [now.progress for now in seen] == sorted(now.progress for now in seen)
    assert seen[-1].status is S.COMPLETED
    assert len({now.done for now in seen}) > 5


async def test_a_watcher_hears_ten_times_a_second_at_most(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        seen, watching = bench.watch(identifier)
        await bench.until(lambda: seen)
        start = len(seen)
        for n in range(1000):
            worker.at_work["a"].report(Progress("download", n, 1000))
            await bench.clock.advance(0.001)
        heard = len(seen) - start
        worker.end("a")
        await bench.flow(watching)

    assert 5 <= heard <= 12


async def test_pause_keeps_the_parts_and_resume_goes_on_from_there(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.at_work["a"].on_part("part-1")
        worker.at_work["a"].report(Progress("download", 60, 100))
        paused = await bench.flow(bench.operations.pause(identifier))

        assert (paused.status, paused.parts, paused.progress, paused.attempts) == (S.PAUSED, {"part-1"}, 57, 0)
        assert worker.cleaned == ["a"]
        assert await bench.operations.parts() == {"part-1"}
        with pytest.raises(Conflict, match="is paused"):
            await bench.operations.pause(identifier)
        await bench.a_while()
        assert worker.begun == ["a"]

        await bench.operations.resume(identifier)
        await bench.until(lambda: len(worker.begun) == 2)
        worker.at_work["a"].report(Progress("download", 10, 100))
        again = await bench.operations.get(identifier)
        worker.end("a")
        ended = await bench.ended(identifier)

    assert (again.progress, again.parts, again.attempts) == (57, {"part-1"}, 1)
    assert (ended.status, ended.parts) == (S.COMPLETED, frozenset())
    assert bench.discarded == []


async def test_what_is_not_paused_is_not_resumed(bench, worker):
    identifier = (await bench.order("a")).id
    with pytest.raises(Conflict, match="not paused: pending"):
        await bench.operations.resume(identifier)
    async with bench.run():
        await bench.until(lambda: worker.begun)
        with pytest.raises(Conflict, match="not paused: in_progress"):
            await bench.operations.resume(identifier)


async def test_cancel_gives_back_only_the_parts_that_nobody_else_needs(bench, worker):
    mine, other = (await bench.order("a")).id, (await bench.order("b")).id
    async with bench.run():
        await bench.until(lambda: len(worker.begun) == 2)
        for part in ("shared", "mine"):
            worker.at_work["a"].on_part(part)
        worker.at_work["b"].on_part("shared")
        first = await bench.flow(bench.operations.cancel(mine))
        assert (first.status, first.parts) == (S.CANCELLED, frozenset())
        assert bench.discarded == [{"mine"}]
        await bench.flow(bench.operations.cancel(other))

    assert bench.discarded == [{"mine"}, {"shared"}]
    assert worker.cleaned == ["a", "b"]


@pytest.mark.parametrize("before", ["nothing", "pause"])
async def test_cancel_before_it_is_begun(bench, before):
    identifier = (await bench.order("a")).id
    if before == "pause":
        await bench.operations.pause(identifier)

    assert (await bench.operations.cancel(identifier)).status is S.CANCELLED
    for ask in (bench.operations.cancel, bench.operations.pause, bench.operations.resume):
        with pytest.raises(Conflict, match="has ended: cancelled"):
            await ask(identifier)


@pytest.mark.parametrize("error", [StoreError("They cannot be removed."), PermissionError("nor by anybody else")])
async def test_files_that_stay_do_not_keep_it_from_ending(tmp_path, bench, error):
    async def refuse(parts, keep):
        raise error

    async def work(operation, work):
        work.on_part("part-1")
        begun.set()
        await asyncio.Event().wait()

    begun = asyncio.Event()
    operations = Operations(Database(None, tmp_path), tmp_path, {"install": work}, bench.clock, on_cancelled=refuse)
    identifier = (await operations.submit(Order("install", "a"))).id
    async with bench.run(operations):
        await bench.until(begun.is_set)
        ended = await bench.flow(operations.cancel(identifier))
    await operations.close()

    assert ended.status is S.CANCELLED


async def test_what_is_done_before_it_can_be_called_off_is_done(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.end("a", {"done": True})
        ended = await bench.flow(bench.operations.cancel(identifier))

    assert (ended.status, ended.result) == (S.COMPLETED, {"done": True})


async def test_what_may_pass_is_tried_again_with_growing_pauses(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        for tries, wait in ((1, 2), (2, 4)):
            await bench.until(lambda tries=tries: len(worker.begun) == tries)
            assert (await bench.operations.get(identifier)).attempts == tries
            worker.fail("a", SourceError("The hub is away.", "Wait."))
            await bench.until(lambda: not worker.at_work)
            meanwhile = await bench.operations.get(identifier)
            assert meanwhile.status is S.IN_PROGRESS
            assert meanwhile.message == f"The hub is away. Try {tries + 1} of 3 in {wait} s."
            await bench.clock.advance(wait - 0.01)
            assert len(worker.begun) == tries
        await bench.until(lambda: len(worker.begun) == 3)
        worker.fail("a", SourceError("The hub is away.", "Wait."))
        ended = await bench.ended(identifier)

    assert (ended.status, ended.attempts) == (S.FAILED, 3)
    assert (ended.error.code, ended.error.message, ended.error.hint) == ("source_error", "The hub is away.", "Wait.")


async def test_what_lasts_is_not(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.at_work["a"].on_part("part-1")
        worker.fail("a", SourceNotFound("There is no such file."))
        ended = await bench.ended(identifier)

    assert (ended.status, ended.error.code, worker.begun) == (S.FAILED, "source_not_found", ["a"])
    assert ended.parts == {"part-1"}
    assert await bench.operations.parts() == frozenset()


@pytest.mark.parametrize("ask", ["pause", "cancel"])
async def test_it_can_be_stopped_between_two_tries(bench, worker, ask):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.fail("a", SourceError("The hub is away."))
        await bench.until(lambda: not worker.at_work)
        stopped = await bench.flow(getattr(bench.operations, ask)(identifier))

    assert str(stopped.status) == {"pause": "paused", "cancel": "cancelled"}[ask]


async def test_a_fault_is_told_and_logged(bench, worker, caplog):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.fail("a", ZeroDivisionError("by nothing"))
        ended = await bench.ended(identifier)

    assert (ended.error.code, ended.error.message) == ("internal_error", "ZeroDivisionError: by nothing")
    assert "ZeroDivisionError" in caplog.text


async def test_work_that_stops_by_itself_has_failed(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.fail("a", asyncio.CancelledError())
        ended = await bench.ended(identifier)

    assert (ended.status, ended.error.code) == (S.FAILED, "stopped")


async def test_a_server_that_ends_leaves_work_to_the_next_one(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.at_work["a"].report(Progress("download", 60, 100))
    assert worker.cleaned == ["a"]
    left = await bench.operations.get(identifier)
    assert (left.status, left.progress, left.attempts) == (S.PENDING, 57, 0)

    other = bench.more()
    async with bench.run(other):
        await bench.until(lambda: len(worker.begun) == 2)
        assert (await other.get(identifier)).progress == 57
        worker.end("a")
        assert (await bench.ended(identifier, other)).status is S.COMPLETED


async def kill(bench, operations, times=1):
    """Leave one at work as a killed process would: its row says so, and its lease is free."""
    for _ in range(times):
        left = await operations._rows.unfinished()
        lease = Lease.take(bench.home / "operations", left[0].operation.id)
        operation = await operations._rows.claim(left[0].operation.id, operations._limits, bench.clock.wall())
        lease.free()
        with suppress(IndexError):
            await operations._survey()
    return operation


async def test_what_has_ended_is_not_begun_again_by_one_who_had_looked_before(bench):
    """A killed process may have its last word under way to PostgreSQL when its lease is free."""
    stale = await bench.order("a")
    ended = await bench.operations.cancel(stale.id)

    await bench.operations._rows.save(stale)

    assert await bench.operations.get(stale.id) == ended


async def test_what_a_killed_process_left_goes_on(bench, worker):
    identifier = (await bench.order("a")).id
    await kill(bench, bench.more())

    async with bench.run():
        await bench.until(lambda: worker.begun)
        assert (await bench.operations.get(identifier)).attempts == 2
        worker.end("a")
        assert (await bench.ended(identifier)).status is S.COMPLETED


async def test_what_kills_every_process_is_given_up(bench, worker):
    identifier = (await bench.order("a")).id
    await kill(bench, bench.operations, times=3)

    ended = await bench.operations.get(identifier)

    assert (ended.status, ended.error.code) == (S.FAILED, "interrupted")
    assert "3 tries" in ended.error.message
    assert worker.begun == []


@pytest.mark.parametrize("ask", ["pause", "cancel"])
async def test_what_a_killed_process_left_can_be_stopped(bench, ask):
    identifier = (await bench.order("a")).id
    lease = Lease.take(bench.home / "operations", identifier)
    await bench.operations._rows.claim(identifier, bench.operations._limits, 0)
    lease.free()

    stopped = await getattr(bench.operations, ask)(identifier)

    assert str(stopped.status) == {"pause": "paused", "cancel": "cancelled"}[ask]


@pytest.mark.parametrize("ask", ["pause", "cancel"])
async def test_another_process_can_have_it_stopped(bench, worker, ask):
    """The second `Operations` knows nothing of the first but what lies on disk."""
    identifier = (await bench.order("a")).id
    other = bench.more()
    async with bench.run():
        await bench.until(lambda: worker.begun)
        asked = await getattr(other, ask)(identifier)
        assert asked.status is S.IN_PROGRESS
        await bench.until(lambda: worker.cleaned)
        await bench.until(lambda: not bench.operations._jobs)

    assert str((await other.get(identifier)).status) == {"pause": "paused", "cancel": "cancelled"}[ask]


@pytest.mark.parametrize("ask", ["pause", "cancel", "resume"])
async def test_a_wish_that_nobody_heeded_is_done_by_the_next_one(bench, worker, ask):
    """Such as one left for a process that was just then killed."""
    identifier = (await bench.order("a")).id
    if ask == "resume":
        await bench.operations.pause(identifier)
    lease = Lease.take(bench.home / "operations", identifier)
    asked = await getattr(bench.operations, ask)(identifier)
    assert asked.status is (S.PAUSED if ask == "resume" else S.PENDING)
    lease.free()

    async with bench.run():
        if ask == "resume":
            await bench.until(lambda: worker.begun)
        else:
            async with asyncio.timeout(10):
                while (await bench.operations.get(identifier)).status is S.PENDING:
                    await bench.clock.advance(1)
            assert worker.begun == []


async def test_orders_of_another_process_are_noticed(bench, worker):
    other = bench.more()
    async with bench.run():
        await bench.until(lambda: bench.operations._swept is not None)
        await other.submit(Order("install", "a"))
        await bench.until(lambda: worker.begun)


async def test_one_that_is_at_work_elsewhere_takes_its_place_here(bench, worker):
    first = (await bench.order("a", lane="lane")).id
    await bench.order("b", lane="lane")
    await bench.order("c")
    other = bench.more()
    performing = asyncio.create_task(other.perform(first))
    await bench.until(lambda: worker.begun)
    async with bench.run():
        await bench.until(lambda: len(worker.begun) == 2)
        assert worker.begun == ["a", "c"]
        worker.end("a")
        assert (await bench.flow(performing)).status is S.COMPLETED
        await bench.until(lambda: "b" in worker.begun)


async def test_perform_does_it_here(bench, worker):
    identifier = (await bench.order("a")).id
    told = []
    performing = asyncio.create_task(bench.operations.perform(identifier, told.append))
    await bench.until(lambda: worker.begun)
    worker.at_work["a"].report(Progress("download", 1, 2))
    worker.end("a")

    assert (await bench.flow(performing)).status is S.COMPLETED
    assert told == [Progress("download", 1, 2)]
    assert (await bench.operations.perform(identifier)).status is S.COMPLETED


async def test_perform_watches_what_another_process_does(bench, worker):
    identifier = (await bench.order("a")).id
    told = []
    other = bench.more()
    async with bench.run():
        await bench.until(lambda: worker.begun)
        performing = asyncio.create_task(other.perform(identifier, told.append))
        worker.at_work["a"].report(Progress("download", 1, 2, "a.gguf"))
        await bench.until(lambda: Progress("download", 1, 2, "a.gguf") in told)
        worker.end("a")
        assert (await bench.flow(performing)).status is S.COMPLETED
    assert worker.begun == ["a"]


async def test_perform_waits_for_its_lane(bench, worker):
    await bench.order("a", lane="lane")
    second = (await bench.order("b", lane="lane")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        performing = asyncio.create_task(bench.more().perform(second))
        await bench.a_while()
        assert worker.begun == ["a"]
        worker.end("a")
        await bench.until(lambda: len(worker.begun) == 2)
        worker.end("b")
        assert (await bench.flow(performing)).status is S.COMPLETED


async def test_perform_is_held_up_by_no_dead_process(bench, worker):
    await bench.order("a", lane="lane")
    second = (await bench.order("b", lane="lane")).id
    lease = Lease.take(bench.home / "operations", "other")
    await bench.operations._rows.claim((await bench.operations.page(2))[1].id, bench.operations._limits, 0)
    performing = asyncio.create_task(bench.operations.perform(second))
    await bench.until(lambda: worker.begun)
    worker.end("b")
    await bench.flow(performing)
    lease.free()

    assert await statuses(bench) == {"a": "pending", "b": "completed"}


async def test_perform_that_is_interrupted_leaves_it_paused(bench, worker):
    identifier = (await bench.order("a")).id
    performing = asyncio.create_task(bench.operations.perform(identifier))
    await bench.until(lambda: worker.begun)
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bench.flow(performing)

    assert (await bench.operations.get(identifier)).status is S.PAUSED
    assert (await bench.operations.perform(identifier)).status is S.PAUSED


async def test_the_history_is_read_in_pages(bench):
    identifiers = [(await bench.order(model)).id for model in "abcde"]
    await bench.operations.cancel(identifiers[0])
    page = bench.operations.page

    assert [each.order.model for each in await page(2)] == ["e", "d"]
    assert [each.order.model for each in await page(2, before=identifiers[3])] == ["c", "b"]
    assert [each.order.model for each in await page(9, status=S.CANCELLED)] == ["a"]
    assert [each.order.model for each in await page(9, model="b")] == ["b"]
    with pytest.raises(OperationNotFound):
        await page(2, before="op-1")


async def test_the_history_is_forgotten_after_a_while(tmp_path):
    bench = Bench(tmp_path, keep=100)
    old, new = (await bench.order("a")).id, (await bench.order("b")).id
    await bench.operations.cancel(old)
    bench.clock.time += 90
    await bench.operations.pause(new)
    (tmp_path / "operations" / f"{old}.lock").write_text("")
    bench.clock.time += 20
    async with bench.run():
        await bench.until(lambda: bench.operations._swept is not None)

    assert await statuses(bench) == {"b": "paused"}
    assert list((tmp_path / "operations").iterdir()) == []
    await bench.close()


async def test_a_database_that_is_away_is_waited_for(tmp_path, caplog):
    bench = Bench(tmp_path / "home")
    (tmp_path / "home").write_text("in the way")
    async with bench.run():
        await bench.until(lambda: "operations wait" in caplog.text)
        (tmp_path / "home").unlink()
        await bench.order("a")
        await bench.until(lambda: bench.worker.begun)
    await bench.close()

    assert caplog.text.count("operations wait") == 1


@contextmanager
def locked(home):
    """Somebody else writes to the database, for the block."""
    other = sqlite3.connect(home / "corral.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


async def test_an_end_that_cannot_be_written_is_written_later(tmp_path, caplog):
    bench = Bench(tmp_path, patience=0.01)
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: bench.worker.begun)
        with locked(tmp_path):
            bench.worker.end("a")
            await bench.until(lambda: "which is not written" in caplog.text)
            assert Lease.take(tmp_path / "operations", identifier) is None
        assert (await bench.ended(identifier)).status is S.COMPLETED
    await bench.close()


async def test_a_server_that_ends_does_not_wait_for_the_database(tmp_path, caplog):
    bench = Bench(tmp_path, patience=0.01)
    identifier = (await bench.order("a")).id
    running = bench.run()
    await running.__aenter__()
    await bench.until(lambda: bench.worker.begun)
    with locked(tmp_path):
        await running.__aexit__(None, None, None)
    assert caplog.text.count("which is not written") == 1
    assert (await bench.operations.get(identifier)).status is S.IN_PROGRESS

    async with bench.run():
        await bench.until(lambda: len(bench.worker.begun) == 2)
    await bench.close()


async def test_a_loop_that_ends_leaves_the_lease(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        bench.operations._jobs[identifier].finished.cancel()  # as asyncio.run does at its end
        await bench.until(lambda: len(worker.begun) == 2)

    assert worker.cleaned[0] == "a"


async def test_what_servers_say_can_be_written_whatever_it_is(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.at_work["a"].report(Progress("p" * 99, 10**30, 10**31, "\0 \udc80"))
        paused = await bench.flow(bench.operations.pause(identifier))

        assert (paused.phase, paused.done, paused.message) == ("p" * 40, 2**63 - 1, "? ?")
        await bench.operations.resume(identifier)
        await bench.until(lambda: len(worker.begun) == 2)
        worker.fail("a", SourceNotFound("\0 \udc80"))
        assert (await bench.ended(identifier)).error.message == "? ?"


async def test_a_stalled_one_is_not_written_again_and_again(bench, worker):
    identifier = (await bench.order("a")).id
    async with bench.run():
        await bench.until(lambda: worker.begun)
        worker.at_work["a"].report(Progress("download", 1, 2))
        other = bench.more()
        while not (await other.get(identifier)).done:
            await bench.clock.advance(0.5)
        stamp = bench.operations._rows.database.stamp()
        for _ in range(40):
            await bench.clock.advance(0.5)
            await other.get(identifier)

        assert bench.operations._rows.database.stamp() == stamp


class Jumping(HandClock):
    """Somebody sets the clock on the wall."""

    jump = 0.0

    def wall(self):
        return super().wall() + self.jump


async def test_a_wall_clock_that_is_set_back_changes_neither_turn_nor_rate(tmp_path):
    clock = Jumping()
    bench = Bench(tmp_path, clock=clock, parallel=1)
    first = (await bench.order("first")).id
    clock.jump = -1e6
    await bench.order("second")
    assert [each.order.model for each in await bench.operations.page(9)] == ["second", "first"]
    async with bench.run():
        await bench.until(lambda: bench.worker.begun)
        assert bench.worker.begun == ["first"]
        for n in range(5):
            clock.jump = n * 1e5
            bench.worker.at_work["first"].report(Progress("download", n * 1000, 10_000))
            await clock.advance(1)
        now = await bench.operations.get(first)
        assert (now.rate, now.eta) == (pytest.approx(1000), pytest.approx(6))
    await bench.close()


async def test_a_history_can_be_kept_for_ever(tmp_path):
    bench = Bench(tmp_path, keep=float("inf"))
    await bench.operations.cancel((await bench.order("a")).id)
    async with bench.run():
        await bench.until(lambda: bench.operations._swept is not None)

    assert await statuses(bench) == {"a": "cancelled"}
    await bench.close()


async def test_an_order_of_a_kind_that_is_gone_fails_with_the_reason(tmp_path, bench):
    identifier = (await bench.order("a")).id
    operations = Operations(Database(None, tmp_path), tmp_path, {}, bench.clock)
    async with bench.run(operations):
        ended = await bench.ended(identifier, operations)
    await operations.close()

    assert (ended.status, ended.error.code) == (S.FAILED, "not_supported")


def test_a_home_keeps_its_name(tmp_path):
    assert home_id(tmp_path) == home_id(tmp_path)
    assert home_id(tmp_path) != home_id(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["id"]

    (tmp_path / "id").write_text("something else")
    with pytest.raises(StoreError, match="id is damaged"):
        home_id(tmp_path)


def test_a_lease_is_for_one(tmp_path):
    first = Lease.take(tmp_path, "op-1")
    assert Lease.take(tmp_path, "op-1") is None
    assert Lease.take(tmp_path, "op-2") is not None

    first.free()
    first.free()

    assert not (tmp_path / "op-1.lock").exists()
    assert Lease.take(tmp_path, "op-1") is not None


def test_a_folder_that_takes_no_leases_says_so(tmp_path):
    (tmp_path / "operations").write_text("")

    with pytest.raises(StoreError, match="locking"):
        Lease.take(tmp_path / "operations", "op-1")
