"""What PostgreSQL gives up because of others is tried again, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from corral.db.engine import TRIES, Database
from corral.errors import Conflict, DatabaseError
from tests.support import workspaces
from tests.support.database import Cluster, cluster
from tests.support.workspaces import Place

Work = Callable[[AsyncConnection], Awaitable[None]]

# A number of a sequence stays taken when its transaction is given up: so a trigger can tell the tries apart.
_AT_COMMIT = (
    "CREATE SEQUENCE tries",
    """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('tries') < 3 THEN RAISE EXCEPTION 'not yet' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$""",
    """CREATE CONSTRAINT TRIGGER late AFTER INSERT ON marks DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse()""",
)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
async def place(postgresql: Cluster, tmp_path: Path) -> AsyncIterator[Place]:
    async with workspaces.opened(postgresql, tmp_path) as place:
        await place.database.write(_doing("CREATE TABLE marks (who text)", "CREATE TABLE sums (name text, sum int)"))
        await place.database.write(_doing("INSERT INTO sums VALUES ('one', 0), ('two', 0)"))
        yield place


async def test_of_two_changes_that_wait_for_each_other_both_are_done_once(place: Place) -> None:
    both, calls = asyncio.Barrier(2), {"one": 0, "two": 0}

    async def change(first: str, then: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            calls[first] += 1
            await connection.execute(text(f"UPDATE sums SET sum = sum + 1 WHERE name = '{first}'"))
            if calls[first] == 1:
                await both.wait()  # each has now what the other wants
            await connection.execute(text(f"UPDATE sums SET sum = sum + 10 WHERE name = '{then}'"))

        await place.store.write(work)

    await asyncio.gather(change("one", "two"), change("two", "one"))

    assert sorted(calls.values()) == [1, 2]
    assert await _found(place.database, "SELECT sum FROM sums") == [11, 11]


async def test_a_change_that_cannot_have_come_after_another_is_made_again(place: Place) -> None:
    calls = 0
    other = Database(place.url, place.home)

    async def work(connection: AsyncConnection) -> None:
        nonlocal calls
        calls += 1
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await connection.execute(text("SELECT sum FROM sums"))
        if calls == 1:
            await other.write(_doing("UPDATE sums SET sum = 5"))
        await connection.execute(text("UPDATE sums SET sum = sum + 1"))

    try:
        await place.database.write(work)
    finally:
        await other.close()
    assert calls == 2
    assert await _found(place.database, "SELECT sum FROM sums") == [6, 6]


async def test_what_is_given_up_when_it_is_committed_is_tried_again(place: Place) -> None:
    await place.database.write(_doing(*_AT_COMMIT))
    await place.database.write(_doing("INSERT INTO marks VALUES ('late')"))

    assert await _found(place.database, "SELECT who FROM marks") == ["late"]
    assert await _found(place.database, "SELECT last_value FROM tries") == [3]


@pytest.mark.parametrize("code", ["40P01", "40001"])
@pytest.mark.parametrize("reading", [False, True])
async def test_what_is_given_up_each_time_is_told_at_last(place: Place, code: str, reading: bool) -> None:
    calls: list[str] = []
    do = place.database.read if reading else place.database.write
    with pytest.raises(DatabaseError) as refused:
        await do(_refused(code, calls))

    assert len(calls) == TRIES
    assert f"gave this up {TRIES} times" in refused.value.message
    assert refused.value.hint == "Try again."
    assert await _found(place.database, "SELECT who FROM marks") == []


async def test_what_fails_for_another_reason_is_tried_once(place: Place) -> None:
    calls: list[str] = []
    with pytest.raises(DatabaseError):
        await place.database.write(_refused("22012", calls))
    assert len(calls) == 1

    async def refused(_: AsyncConnection) -> None:
        calls.append("again")
        raise Conflict("It is taken.")

    with pytest.raises(Conflict):
        await place.database.write(refused)
    assert calls[1:] == ["again"]


async def test_who_is_cancelled_tries_no_more(place: Place) -> None:
    calls: list[str] = []
    begun = asyncio.Event()
    task = asyncio.ensure_future(place.database.write(_refused("40001", calls, begun)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 1
    assert await _found(place.database, "SELECT who FROM marks") == []


def _doing(*statements: str) -> Work:
    async def work(connection: AsyncConnection) -> None:
        for statement in statements:
            await connection.execute(text(statement))

    return work


def _refused(code: str, calls: list[str], begun: asyncio.Event | None = None) -> Work:
    """Work that writes, and is then given up with that code."""

    async def work(connection: AsyncConnection) -> None:
        calls.append(code)
        if begun is not None:
            begun.set()
        await connection.execute(text("INSERT INTO marks VALUES ('half')"))
        await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$"))

    return work


async def _found(database: Database, query: str) -> list[object]:
    async def work(connection: AsyncConnection) -> list[object]:
        return list((await connection.execute(text(query))).scalars())

    return await database.read(work)
