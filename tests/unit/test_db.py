"""The database as every process meets it: new, old, newer, locked, broken; SQLite, in files of the test's own."""

import asyncio
import json
import sqlite3
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, func, inspect, select

from corral.db.engine import Database
from corral.db.migrations import HEAD, known, migrate, replay
from corral.db.tables import metadata, operations, version
from corral.errors import ConfigError, DatabaseError


@pytest.fixture
async def database(tmp_path):
    database = Database(None, tmp_path)
    yield database
    await database.close()


async def count(connection):
    return await connection.scalar(select(func.count()).select_from(operations))


def shape(connection):
    """Everything about the tables that a program could notice."""
    found = inspect(connection)
    return {
        table: {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], c["default"], c.get("autoincrement"))
                for c in found.get_columns(table)
            ],
            "key": found.get_pk_constraint(table),
            "indexes": sorted(json.dumps(each, default=str) for each in found.get_indexes(table)),
            "unique": sorted(map(repr, found.get_unique_constraints(table))),
            "foreign": sorted(map(repr, found.get_foreign_keys(table))),
        }
        for table in sorted(found.get_table_names())
    }


def programs(connection):
    """What SQLite does by itself: indexes of words, and triggers, as they were written down."""
    written = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' OR sql LIKE 'CREATE VIRTUAL%' ORDER BY name"
    return [tuple(row) for row in connection.exec_driver_sql(written)]


def test_a_new_database_equals_a_migrated_one(tmp_path):
    shapes = []
    for name, make in (("new", metadata.create_all), ("old", replay)):
        engine = create_engine(f"sqlite:///{tmp_path / name}")
        with engine.begin() as connection:
            make(connection)
            shapes.append((shape(connection), programs(connection)))
        engine.dispose()

    assert shapes[0] == shapes[1]
    tables, programmed = shapes[0]
    of_words = {name for name in tables if name.startswith("entry_words")}  # the index and what it keeps for itself
    assert set(tables) - of_words == {"alembic_version", *metadata.tables}
    assert [name for name, _ in programmed] == [
        "entry_texts_came",
        "entry_texts_changed",
        "entry_texts_went",
        "entry_words",
    ]


def test_head_is_the_last_migration():
    assert known()[-1] == HEAD
    assert known() == sorted(known())


async def test_it_is_made_at_the_first_use(database, tmp_path):
    assert list(tmp_path.iterdir()) == []

    assert await database.read(count) == 0

    assert (tmp_path / "corral.db").stat().st_mode & 0o077 == 0
    async with asyncio.timeout(5):
        settings = await database.read(pragmas)
    assert settings == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 10000}


async def pragmas(connection):
    names = ("journal_mode", "foreign_keys", "busy_timeout")
    return {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in names}


async def test_many_at_once_open_it_once(database):
    assert await asyncio.gather(*(database.read(count) for _ in range(5))) == [0] * 5


async def test_a_database_without_any_form_yet_is_brought_up(tmp_path):
    """Such as one whose first process died before it wrote anything."""
    sqlite3.connect(tmp_path / "corral.db").close()
    database = Database(None, tmp_path)

    assert await database.read(count) == 0

    await database.close()


async def test_a_newer_database_is_refused_by_name(database, tmp_path):
    await database.write(lambda c: c.execute(version.update().values(version_num="9999")))
    await database.close()

    with pytest.raises(DatabaseError, match=r"corral\.db was written by a newer Corral.*'9999'") as caught:
        await database.read(count)

    assert "pip install --upgrade corral" in caught.value.hint


def test_an_older_one_is_replayed(tmp_path):
    """Any revision that the scripts know is a start; here, the last one: nothing is left to do."""
    engine = create_engine(f"sqlite:///{tmp_path / 'old'}")
    with engine.begin() as connection:
        replay(connection)
        migrate(connection, "it")

        assert connection.execute(select(version)).scalars().all() == [HEAD]
    engine.dispose()


async def test_what_fails_leaves_nothing(database):
    async def half(connection):
        await connection.execute(version.update().values(version_num="half"))
        raise LookupError("midway")

    with pytest.raises(LookupError):
        await database.write(half)

    assert await database.read(lambda c: c.scalar(select(version.c.version_num))) == HEAD


async def test_what_was_begun_is_ended_when_nobody_waits_any_more(database):
    begun = asyncio.Event()
    go = asyncio.Event()

    async def slow(connection):
        begun.set()
        await go.wait()
        await connection.execute(version.update().values(version_num="written"))

    await database.read(count)
    writing = asyncio.create_task(database.write(slow))
    await begun.wait()
    writing.cancel()
    await asyncio.sleep(0)
    writing.cancel()
    go.set()

    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await database.read(lambda c: c.scalar(select(version.c.version_num))) == "written"


async def test_a_locked_one_says_so(tmp_path):
    database = Database(None, tmp_path, patience=0.05)
    await database.read(count)
    other = sqlite3.connect(tmp_path / "corral.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")

        assert await database.read(count) == 0
        with pytest.raises(DatabaseError, match=r"corral\.db is locked"):
            await database.write(count)
    finally:
        other.close()

    assert await database.write(count) == 0
    await database.close()


async def test_who_means_to_write_holds_the_lock_from_the_start(database, tmp_path):
    """Otherwise two that read first could both find that they may write."""
    impatient = Database(None, tmp_path, patience=0.05)
    await impatient.read(count)
    looked, go = asyncio.Event(), asyncio.Event()

    async def look_and_write(connection):
        await connection.execute(select(version))
        looked.set()
        await go.wait()
        await connection.execute(version.update().values(version_num="first"))

    first = asyncio.create_task(database.write(look_and_write))
    await looked.wait()
    with pytest.raises(DatabaseError, match="is locked"):
        await impatient.write(lambda c: c.execute(version.update().values(version_num="second")))
    go.set()
    await first

    assert await impatient.read(lambda c: c.scalar(select(version.c.version_num))) == "first"
    await impatient.close()


async def test_what_is_no_database_says_so(tmp_path):
    (tmp_path / "corral.db").write_bytes(b"something else entirely, and long enough to be looked at" * 40)
    database = Database(None, tmp_path)

    with pytest.raises(DatabaseError, match=r"corral\.db failed: file is not a database") as caught:
        await database.read(count)

    assert caught.value.hint


async def test_a_home_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    database = Database(None, tmp_path / "file")

    with pytest.raises(DatabaseError, match="failed"):
        await database.read(count)


async def test_the_stamp_changes_with_what_another_writes(database, tmp_path):
    await database.read(count)
    before = database.stamp()
    assert database.stamp() == before

    other = Database(None, tmp_path)
    await other.write(lambda c: c.execute(version.update().values(version_num=HEAD)))

    assert database.stamp() != before
    await other.close()


@pytest.mark.parametrize("url", ["mysql://ada:lovelace@there/db", "nonsense", "postgresql://ada:lovelace@there:port/x"])
def test_an_address_of_something_else_is_refused(url, tmp_path):
    with pytest.raises(ConfigError, match="no address of PostgreSQL") as caught:
        Database(url, tmp_path)

    assert "lovelace" not in str(caught.value)


def test_the_place_holds_no_secret(tmp_path):
    url = "postgresql://ada:lovelace@db.example:5433/corral?sslmode=require&password=lovelace"

    assert Database(url, tmp_path).place == "The database postgresql://ada@db.example:5433/corral"
    assert Database("postgresql:///c?host=/run/pg", tmp_path).place.endswith("postgresql:///c?host=%2Frun%2Fpg")


async def test_an_address_that_the_driver_cannot_use_is_refused_without_its_secret(tmp_path):
    database = Database("postgresql://ada:lovelace@127.0.0.1:1/x?sslmode=lovelace", tmp_path)

    with pytest.raises(ConfigError, match="cannot be used") as caught:
        await database.read(count)

    assert "lovelace" not in str(caught.value)
    await database.close()


def test_a_missing_driver_is_named():
    script = """
import pathlib, sys
sys.modules["asyncpg"] = None
from corral.db.engine import Database
from corral.errors import ConfigError
try:
    Database("postgresql://localhost/x", pathlib.Path())
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert "pip install 'corral[postgres]'" in done.stdout


def test_alembic_stays_away_when_there_is_nothing_to_do(tmp_path):
    script = """
import asyncio, pathlib, sys
from corral.db.engine import Database
async def main():
    database = Database(None, pathlib.Path(sys.argv[1]))
    await database.read(lambda connection: connection.exec_driver_sql("SELECT 1"))
    await database.close()
    print("alembic" in sys.modules)
asyncio.run(main())
"""
    for _ in range(2):  # a new one, and then one that is as it should be
        command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == ["False"]
        assert done.stderr == ""


async def test_one_that_was_removed_while_it_was_open_says_so(database, tmp_path):
    await database.read(count)
    (tmp_path / "corral.db").unlink()
    for work in (database.read, database.write):
        with pytest.raises(DatabaseError, match="removed or replaced"):
            await work(count)
    await database.close()
    assert await database.read(count) == 0
