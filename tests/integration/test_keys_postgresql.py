"""Keys that several servers share, in PostgreSQL: what one changes the others know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.db.engine import Database
from corral.domain.keys import KeyWish
from corral.kit.clock import SystemClock
from corral.routing.audit import TERMINAL, Audit
from corral.routing.keys import Keys
from tests.support.database import Cluster, cluster


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


async def test_what_one_server_changes_the_other_knows(postgresql: Cluster, tmp_path: Path) -> None:
    url, clock = postgresql.new(), SystemClock()
    databases = [Database(url, tmp_path / name) for name in ("one", "two")]
    here, there = (Keys(database, clock) for database in databases)
    try:
        _, old = await here.create(KeyWish("ci", models=("smol*",), strict=True), TERMINAL)
        await there.refresh()
        first = there.find(old.encode())
        assert first is not None
        assert (first.models, first.strict) == (("smol*",), True)
        _, new = await there.rotate("ci", TERMINAL, grace=3600)
        await here.refresh()
        assert here.find(old.encode()) is here.find(new.encode()) is not None
        await here.flush()
        assert (await there.get("ci")).used_at is not None
        await here.revoke("ci", TERMINAL)
        await there.refresh()
        assert there.find(new.encode()) is None
        await here.delete("ci", TERMINAL)
        await there.refresh()
        assert not there.exist
    finally:
        for database in databases:
            await database.close()


async def test_no_change_is_missed_when_many_write_at_once(postgresql: Cluster, tmp_path: Path) -> None:
    url, clock = postgresql.new(), SystemClock()
    databases = [Database(url, tmp_path / str(number)) for number in range(3)]
    one, two, watcher = (Keys(database, clock) for database in databases)
    try:
        await one.refresh()
        known: list[str] = []

        async def make(keys: Keys, name: str) -> None:
            for number in range(20):
                _, secret = await keys.create(KeyWish(f"{name}{number}"), TERMINAL)
                known.append(secret)

        async def look(done: asyncio.Event) -> None:
            while not done.is_set():
                await watcher.refresh()
            await watcher.refresh()

        done = asyncio.Event()
        looking = asyncio.ensure_future(look(done))
        await asyncio.gather(make(one, "a"), make(two, "b"))
        done.set()
        await looking
        assert len(known) == 40
        assert [key for key in known if watcher.find(key.encode()) is None] == []
        numbers = [entry.number for entry in await Audit(databases[0], clock).page(100)]
        assert len(numbers) == 40
    finally:
        for database in databases:
            await database.close()
