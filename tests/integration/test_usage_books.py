"""What was used, in real databases: each answer once, whatever happens to the database meanwhile."""

import asyncio
import json
import sqlite3
from dataclasses import replace

import pytest
from sqlalchemy import func, select, text

from corral.config.traffic import UsageSettings
from corral.db.engine import Database
from corral.db.tables import keys, usage, usage_days, usage_hours
from corral.domain.callers import Caller
from corral.domain.money import Usage
from corral.domain.receipts import Attempt
from corral.errors import DatabaseError, InvalidRequest, ReceiptNotFound
from corral.observability import usage as books_module
from corral.observability.queries import Question, moment
from corral.observability.usage import RECENT, Books
from support import database as databases
from support.clocks import HandClock
from support.records import AT, answered

WEEK = Question(AT - 86400, AT + 6 * 86400)
BOB = Caller("key-bob", "bob")


@pytest.fixture(scope="module")
def cluster():
    with databases.cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request, tmp_path):
    url = None if request.param == "sqlite" else request.getfixturevalue("cluster").new()
    database = Database(url, tmp_path)
    yield database
    await database.close()


class Failing:
    """A database that fails when it is told to: before its work, or after all of it is committed."""

    def __init__(self, database):
        self.database = database
        self.fail = ""

    async def write(self, work):
        if self.fail == "before":
            raise DatabaseError("The database is away.")
        result = await self.database.write(work)
        if self.fail == "after":
            raise DatabaseError("The connection was lost.")
        return result

    async def read(self, work):
        return await self.database.read(work)


class Busy(Failing):
    """A database that somebody writes to after each reading, and within it after each statement."""

    async def read(self, work):
        async def watched(connection):
            execute = connection.execute

            class Watched:
                dialect = connection.dialect

                async def execute(self, *given):
                    found = await execute(*given)
                    await more()
                    return found

            return await work(Watched())

        async def more():
            self.more.record(answered(self.more.written + 1))
            assert await self.more.flush()

        self.more = books(self.database) if not hasattr(self, "more") else self.more
        found = await self.database.read(watched)
        await more()
        return found


def books(database, settings=None, **more):
    return Books(database, HandClock(), settings or UsageSettings(), **more)


async def counted(database, table):
    async def work(connection):
        return await connection.scalar(select(func.count()).select_from(table))

    return await database.read(work)


async def summed(database, table, column="requests"):
    async def work(connection):
        return int(await connection.scalar(select(func.sum(table.c[column]))) or 0)

    return await database.read(work)


async def test_answers_are_written_with_their_receipts_and_added_up(database):
    book = books(database)
    failed = Attempt("big", "openai", None, "engine_died", "It ended.", 200, Usage(100, 7), 900, 0.2, billed=True)
    for number in range(1203):
        book.record(answered(number))
    book.record(answered("b", caller=BOB, project="", attempts=(failed,), cost=None))

    assert await book.flush()

    assert await counted(database, usage) == book.written == 1205
    for table in (usage_hours, usage_days):
        assert await summed(database, table) == 1204
        assert await summed(database, table, "cost") == 1203 * 5000 + 900
        assert await summed(database, table, "unpriced") == 1
    assert (await books(database).receipt("req-b"))["tries"][0]["model"] == "big"


async def test_a_report_is_of_one_moment(database):
    book = books(database)
    book.record(answered("first"))
    await book.close()

    found = await books(Busy(database)).report(WEEK)

    assert sum(row["requests"] for row in found["usage"]) == found["total"]["requests"] >= 1


async def test_a_receipt_is_there_before_it_is_written_and_for_who_comes_later(database):
    book = books(database)
    book.record(answered(7))

    assert (await book.receipt("req-7"))["model"] == "smollm2"
    for unknown in ("req-8", "", "a\0b", "x" * 500):
        with pytest.raises(ReceiptNotFound):
            await book.receipt(unknown)
    await book.close()
    assert await books(database).receipt("req-7") == await book.receipt("req-7")


async def test_the_last_answers_are_remembered_and_no_more(tmp_path):
    book = books(Database(None, tmp_path))
    for number in range(3 * RECENT + 1):
        book.record(answered(number))

    remembered = [number for number in range(3 * RECENT + 1) if book.recall(f"req-{number}")]

    assert remembered == list(range(2 * RECENT, 3 * RECENT + 1))


async def test_a_batch_is_counted_once_when_its_commit_was_never_confirmed(database):
    failing = Failing(database)
    book = books(failing)
    for number in range(700):
        book.record(answered(number))
    failing.fail = "after"
    assert not await book.flush()
    assert not await book.flush()
    failing.fail = ""
    book.record(answered("later"))

    assert await book.flush()

    assert await counted(database, usage) == await summed(database, usage_hours) == 701


async def test_a_batch_that_was_not_written_is_written_later(database):
    failing = Failing(database)
    book = books(failing)
    book.record(answered())
    failing.fail = "before"
    assert not await book.flush()
    assert book.waiting == 1
    failing.fail = ""

    assert await book.flush()

    assert await counted(database, usage) == await summed(database, usage_days) == 1
    assert book.waiting == 0


async def test_beyond_what_may_wait_rows_are_given_up_and_sums_are_not(database, caplog):
    failing = Failing(database)
    failing.fail = "before"
    book = books(failing, most=100)
    for number in range(250):
        book.record(answered(number))
    assert not await book.flush()
    for number in range(250, 400):
        book.record(answered(number))
    failing.fail = ""

    assert await book.flush()

    assert book.unrecorded == 150 + 50
    assert await counted(database, usage) == 200
    assert await summed(database, usage_hours) == await summed(database, usage_days) == 400
    assert "only added up" in caplog.text


async def test_an_answer_whose_id_is_there_already_stops_nothing(database):
    book = books(database)
    for _ in range(2):
        book.record(answered(1))
    book.record(answered(2))

    assert await book.flush()

    assert await counted(database, usage) == 2


async def test_the_writer_writes_every_so_often_and_the_rest_at_the_end(tmp_path):
    database = Database(None, tmp_path)
    book = books(database, UsageSettings(write_every=1.0))
    running = asyncio.create_task(book.run())
    book.record(answered(1))
    clock = book._clock
    while not book.written:
        await clock.advance(0.25)
        await asyncio.to_thread(int)  # the driver's thread has its say
    assert clock.now() >= 1001
    book.record(answered(2))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    await book.close()

    assert await counted(database, usage) == 2
    await database.close()


async def test_a_cancelled_writer_loses_nothing_and_counts_nothing_twice(tmp_path):
    database = Database(None, tmp_path)
    book = books(database)
    total = 0
    for turn in range(30):
        for number in range(300):
            book.record(answered(f"{turn}-{number}"))
            total += 1
        writing = asyncio.create_task(book.flush())
        for _ in range(turn):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    await book.close()

    assert await counted(database, usage) == await summed(database, usage_hours) == total
    await database.close()


async def test_old_answers_go_and_their_sums_stay(database):
    clock = HandClock()
    now = clock.wall()
    settings = UsageSettings(keep=86400.0, keep_hours=7 * 86400.0)
    book = Books(database, clock, settings)
    for number, age in enumerate((0.0, 3600.0, 90_000.0, 30 * 86400.0)):
        book.record(answered(number, at=now - age))
    await book.flush()
    await clock.advance(61)

    await book._prune()

    assert await counted(database, usage) == 2
    assert await summed(database, usage_hours) == 3
    assert await summed(database, usage_days) == 4
    with pytest.raises(ReceiptNotFound):
        await books(database).receipt("req-3")


async def test_no_more_answers_are_kept_than_may_be(database):
    clock = HandClock()
    book = Books(database, clock, replace(UsageSettings(), keep=float("inf"), keep_hours=float("inf"), keep_rows=100))
    for number in range(5350):
        book.record(answered(number))
    await book.flush()
    await clock.advance(61)

    await book._prune()
    assert await counted(database, usage) == 350  # a part at a time, so that nobody waits for it
    await book._prune()

    assert await counted(database, usage) == 100
    assert (await books(database).receipt("req-5349"))["request_id"] == "req-5349"


async def test_the_path_goes_on_while_the_database_is_locked(tmp_path):
    database = Database(None, tmp_path, patience=0.2)
    book = books(database)
    book.record(answered(1))
    await book.flush()
    with sqlite3.connect(tmp_path / "corral.db") as other:
        other.execute("BEGIN IMMEDIATE")
        book.record(answered(2))

        assert not await book.flush()
        book.record(answered(3))

    assert (await book.receipt("req-3"))["request_id"] == "req-3"
    other.close()
    assert await book.flush()
    assert await counted(database, usage) == await summed(database, usage_hours) == 3
    await database.close()


async def test_two_servers_add_to_the_same_sums(database):
    async def serve(name):
        book = books(database)
        for turn in range(10):
            for number in range(50):
                book.record(answered(f"{name}-{turn}-{number}", model=f"m{number % 7}"))
            assert await book.flush()

    await asyncio.gather(*(serve(name) for name in "abc"))

    assert await summed(database, usage_hours) == await summed(database, usage_days) == 1500


async def test_sums_by_everything(database):
    book = books(database)
    for number in range(10):
        book.record(answered(number, at=AT + number * 3600))
    book.record(answered("b", caller=BOB, project="", model="big", runtime="openai", cost=10**12, at=AT + 86400))
    book.record(answered("c", caller=BOB, project="", model="big", runtime="openai", error="engine_died", cost=None))
    await book.flush()

    async def by(*names, **more):
        return await book.sums(Question(AT - 86400, AT + 6 * 86400, names, **more))

    models = await by("model")
    assert [(row["model"], row["requests"], row["errors"], row["cost_usd"]) for row in models] == [
        ("big", 2, 1, 1000.0),
        ("smollm2", 10, 0, pytest.approx(0.00005)),
    ]
    assert models[1]["mean_ms"] == pytest.approx(50)
    assert models[1]["mean_first_ms"] == pytest.approx(10)
    assert models[0]["unpriced"] == 1
    assert [row["day"] for row in await by("day")] == ["2023-11-14", "2023-11-15"]
    assert [row["requests"] for row in await by("hour", key="key-ada")] == [1] * 10
    assert [(row["day"], row["model"]) for row in await by("day", "model")] == [
        ("2023-11-14", "smollm2"),
        ("2023-11-14", "big"),
        ("2023-11-15", "big"),
        ("2023-11-15", "smollm2"),
    ]
    assert [row["runtime"] for row in await by("runtime", project="atlas")] == ["llamacpp"]
    assert [row["requests"] for row in await by()] == [12]
    assert await by("model", model="none") == await by(model="none") == []
    year = await book.sums(Question(AT - 300 * 86400, AT + 60 * 86400, ("day",)))
    assert [row["requests"] for row in year] == [3, 9]


async def test_keys_are_named(database):
    async def work(connection):
        await connection.execute(
            keys.insert().values(
                id="key-bob", name="Bob", hash="h", shown="s", scope="infer", models=[], projects=[], strict=False,
                created_at=1.0,
            )
        )  # fmt: skip

    await database.write(work)
    book = books(database)
    book.record(answered(1, caller=BOB))
    book.record(answered(2))
    await book.flush()

    found = await book.sums(replace(WEEK, by=("key",)))

    assert {(row["key"], row["key_name"]) for row in found} == {("key-ada", None), ("key-bob", "Bob")}


async def test_single_answers_come_in_pages(database):
    book = books(database)
    for number in range(25):
        book.record(answered(number, at=AT + number // 3, caller=BOB if number % 2 else answered().caller))
    await book.flush()

    pages, before = [], None
    while True:
        page, before = await book.answers(WEEK, 10, before)
        pages.append([row["request_id"] for row in page])
        if before is None:
            break

    assert list(map(len, pages)) == [10, 10, 5]
    assert [each for page in pages for each in page] == [f"req-{number}" for number in reversed(range(25))]
    only, after = await book.answers(replace(WEEK, key="key-bob"), 100)
    assert [row["request_id"] for row in only] == [f"req-{number}" for number in range(23, 0, -2)]
    assert after is None
    for wrong in ("", "1", "1.0_", "x_1", "1.0_1; drop", "9" * 40 + ".0_1"):
        with pytest.raises(InvalidRequest):
            await book.answers(WEEK, 10, wrong)


async def test_a_rare_key_takes_many_short_pages_and_no_long_look(tmp_path):
    database = Database(None, tmp_path)
    book = books(database)
    for number in range(books_module.MOST_WAITING // 2):
        book.record(answered(number, at=AT + number / 1000))
    book.record(answered("rare", at=AT - 10, caller=BOB))
    await book.flush()

    found, looks, before = [], 0, None
    while True:
        page, before = await book.answers(replace(WEEK, key="key-bob"), 10, before)
        found += page
        looks += 1
        if before is None:
            break

    assert ([row["request_id"] for row in found], looks) == (["req-rare"], 3)
    await database.close()


async def test_plans_use_the_index(tmp_path):
    database = Database(None, tmp_path)
    await books(database).sums(WEEK)

    async def work(connection):
        sql = "EXPLAIN QUERY PLAN SELECT * FROM usage WHERE at < 5 AND at >= 1 ORDER BY at DESC, number DESC LIMIT 3"
        return [row[3] for row in await connection.execute(text(sql))]

    assert "usage_by_time" in (await database.read(work))[0]
    assert "TEMP B-TREE" not in json.dumps(await database.read(work))
    await database.close()


def test_moments():
    now = 1_700_000_000.0
    assert moment("7d", now) == now - 7 * 86400
    assert moment("2023-11-14", now) == 1_699_920_000
    assert moment("2023-11-14T22:13:20Z", now) == moment("2023-11-14T23:13:20+01:00", now) == now
    assert moment("1700000000", now) == now
    assert moment("999999999y", now) == 0
    for wrong in ("", "yesterday", "-5", "1e5", "9" * 300, "2023-13-01", "0001-01-01T00:00:00+10:00"):
        with pytest.raises(InvalidRequest):
            moment(wrong, now)


@pytest.mark.parametrize(
    ("by", "since", "until"),
    [(("model", "key", "day"), 0, 1), (("secret",), 0, 1), (("key", "key"), 0, 1), (("hour",), 0, 4e6), ((), 2, 1)],
)
def test_questions_that_make_no_sense(by, since, until):
    with pytest.raises(InvalidRequest):
        Question(since, until, by)
