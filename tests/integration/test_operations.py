"""Operations across processes, on SQLite and PostgreSQL: killed, started twice, at one database together."""

import asyncio
import os
import random
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, inspect, select, text

from corral.db.engine import Database
from corral.db.migrations import HEAD, replay
from corral.db.tables import metadata, operations, version
from corral.domain.operations import OperationStatus, Order
from corral.errors import DatabaseError
from corral.kit.clock import SystemClock
from corral.operations.durable import Limits, Operations
from support import database as databases

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def cluster():
    with databases.cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    """What `database.url` says: nothing, or an empty database of PostgreSQL."""
    return None if request.param == "sqlite" else request.getfixturevalue("cluster").new()


@asynccontextmanager
async def child(home, url, *arguments):
    """One of the processes; killed at the end whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "support.operator", str(home), url or "-", *arguments),
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read(process, lines=10**9):
    """The next lines it tells, at most so many."""
    told = []
    while len(told) < lines and (line := (await process.stdout.readline()).decode().strip()):
        told.append(line)
    return told


async def none(operation, work):
    """A handler for orders that others carry out."""


@asynccontextmanager
async def opened(home, url):
    found = Operations(Database(url, home), home, {"install": none}, SystemClock(), limits=Limits())
    try:
        yield found
    finally:
        await found.close()


def noted(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []


async def test_a_killed_process_loses_nothing(tmp_path, database_url):
    """Killed at random points, a few of them while it is still ordering; the last process is let alone."""
    chance = random.Random(7)
    killed_at = []
    for number in range(5):
        async with child(tmp_path, database_url, "run", f"a{number}", f"b{number}", f"c{number}") as process:
            killed_at.append((await read(process, chance.randrange(2, 40)))[-1])
            process.kill()
    async with child(tmp_path, database_url, "run") as process:
        last = await read(process)
        assert await process.wait() == 0

    assert last[-1] == "done"
    assert any(line.startswith("step") for line in killed_at), killed_at
    async with opened(tmp_path, database_url) as found:
        ended = await found.page(100)
    assert len(ended) >= 5
    for each in ended:
        if each.status is OperationStatus.FAILED:
            assert each.error.code == "interrupted"
            assert each.attempts == 3
        else:
            assert (each.status, each.progress) == (OperationStatus.COMPLETED, 100)
    assert OperationStatus.COMPLETED in {each.status for each in ended}
    assert noted(tmp_path / "faults") == []


async def test_two_processes_do_each_once(tmp_path, database_url):
    async with opened(tmp_path, database_url) as found:
        ordered = [
            (await found.submit(Order("install", f"{lane}{n}", lane=lane))).id for n in range(3) for lane in "abc"
        ]
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(child(tmp_path, database_url, "run")) for _ in range(2)]
        told = await asyncio.gather(*map(read, both))

    assert [lines[-1] for lines in told] == ["done", "done"]
    assert sorted(noted(tmp_path / "starts")) == sorted(ordered)
    assert noted(tmp_path / "faults") == []


async def test_one_is_performed_once_however_many_want_it(tmp_path, database_url):
    async with opened(tmp_path, database_url) as found:
        identifier = (await found.submit(Order("install", "a"))).id
    async with AsyncExitStack() as stack:
        all_of_them = [
            await stack.enter_async_context(child(tmp_path, database_url, "perform", identifier)) for _ in range(3)
        ]
        told = await asyncio.gather(*map(read, all_of_them))

    assert [lines[-1] for lines in told] == ["ended completed"] * 3
    assert noted(tmp_path / "starts") == [identifier]


async def test_who_watches_takes_over_from_who_is_killed(tmp_path, database_url):
    async with opened(tmp_path, database_url) as found:
        identifier = (await found.submit(Order("install", "a"))).id
    async with child(tmp_path, database_url, "perform", identifier) as first:
        assert await read(first, 3) == ["begin a", "step a 1", "step a 2"]
        async with child(tmp_path, database_url, "perform", identifier) as second:
            first.kill()
            told = await read(second)

    assert told[0] == "begin a"
    assert told[-1] == "ended completed"
    assert noted(tmp_path / "starts") == [identifier] * 2
    assert noted(tmp_path / "faults") == []


async def test_a_new_database_is_made_once_however_many_open_it(tmp_path, database_url):
    async with AsyncExitStack() as stack:
        every = [await stack.enter_async_context(child(tmp_path, database_url, "open")) for _ in range(4)]
        told = await asyncio.gather(*map(read, every))

    assert told == [["opened"]] * 4
    database = Database(database_url, tmp_path)
    assert await database.read(lambda c: c.scalar(select(func.count()).select_from(version))) == 1
    await database.close()


async def test_equal_orders_at_once_are_one(tmp_path, database_url):
    async with AsyncExitStack() as stack:
        every = [await stack.enter_async_context(opened(tmp_path, database_url)) for _ in range(6)]
        await asyncio.gather(*(each.page(1) for each in every))
        ordered = await asyncio.gather(*(each.submit(Order("install", "a")) for each in every))
        kept = await every[0].page(9)

    assert {each.id for each in ordered} == {each.id for each in kept}
    assert len(kept) == 1


def shape(connection):
    """Everything about the tables that a program could notice."""
    found = inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in found.get_columns(table)],
            found.get_pk_constraint(table),
            sorted(map(repr, found.get_indexes(table))),
            sorted(map(repr, found.get_unique_constraints(table))),
            sorted(map(repr, found.get_foreign_keys(table))),
        )
        for table in sorted(found.get_table_names())
    }


async def test_on_postgresql_a_new_database_equals_a_migrated_one(cluster, tmp_path):
    shapes = []
    for make in (metadata.create_all, replay):
        database = Database(cluster.new(), tmp_path)

        def again(connection, make=make):
            metadata.drop_all(connection)
            make(connection)
            return shape(connection)

        shapes.append(await database.write(lambda c, again=again: c.run_sync(again)))
        await database.close()

    assert shapes[0] == shapes[1]
    assert "operations_unfinished" in str(shapes[0])


async def test_homes_that_share_a_database_do_their_own(cluster, tmp_path):
    url = cluster.new()
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    async with opened(ours, url) as here, opened(theirs, url) as there:
        mine = await here.submit(Order("install", "a"))
        other = await there.submit(Order("install", "a"))
        assert mine.id != other.id
        assert [each.id for each in await here.page(9)] == [mine.id]

        async with child(ours, url, "run") as process:
            assert (await read(process))[-1] == "done"

        assert (await here.get(mine.id)).status is OperationStatus.COMPLETED
        assert (await there.get(other.id)).status is OperationStatus.PENDING


async def test_a_restart_of_postgresql_is_survived(cluster, tmp_path):
    url = cluster.new()
    async with opened(tmp_path, url) as found:
        identifier = (await found.submit(Order("install", "a"))).id
        cluster.stop()
        try:
            with pytest.raises(DatabaseError, match="database postgresql://") as caught:
                await found.get(identifier)
        finally:
            cluster.start()

        assert "PostgreSQL runs" in caught.value.hint
        assert (await found.get(identifier)).id == identifier


async def test_a_newer_postgresql_database_is_refused_by_name(cluster, tmp_path):
    url = cluster.new()
    database = Database(url, tmp_path)
    await database.write(lambda c: c.execute(version.update().values(version_num="9999")))
    await database.close()

    with pytest.raises(DatabaseError, match=f"newer Corral.*'9999'.*'{HEAD}'"):
        await database.read(lambda c: c.execute(select(operations)))


async def test_a_slow_postgresql_is_not_waited_for_for_ever(cluster, tmp_path):
    url = cluster.new()
    holder, database = Database(url, tmp_path), Database(url, tmp_path, patience=0.3)
    locked, go = asyncio.Event(), asyncio.Event()

    async def hold(connection):
        await connection.execute(text("LOCK TABLE operations"))
        locked.set()
        await go.wait()

    holding = asyncio.create_task(holder.write(hold))
    await locked.wait()
    try:
        with pytest.raises(DatabaseError, match="no answer in time"):
            await database.write(lambda c: c.execute(select(operations)))
    finally:
        go.set()
        await holding
    assert (await database.read(lambda c: c.execute(select(operations)))).all() == []
    await holder.close()
    await database.close()


async def test_a_postgresql_that_is_not_there_is_named_without_its_password(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        database = Database(f"postgresql://ada:lovelace@127.0.0.1:{taken.getsockname()[1]}/corral", tmp_path)
        with pytest.raises(DatabaseError, match=r"postgresql://ada@127\.0\.0\.1:\d+/corral failed") as caught:
            await database.read(lambda c: c.execute(select(operations)))

    assert "lovelace" not in str(caught.value) + str(caught.value.__cause__)
    await database.close()


async def test_a_password_that_is_wrong_is_not_told(cluster, tmp_path):
    url = cluster.new().replace("postgres@", "nobody:lovelace@")
    database = Database(url, tmp_path)
    with pytest.raises(DatabaseError, match='role "nobody" does not exist') as caught:
        await database.read(lambda c: c.execute(select(operations)))

    assert "lovelace" not in str(caught.value) + str(caught.value.__cause__)
    await database.close()
