"""What is written down of containers, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from corral.db.engine import Database
from corral.domain.standings import ContainerState, Happening, ModelInside, Standing
from corral.fleet import rows as module
from corral.fleet.rows import Rows
from corral.kit.clock import SystemClock
from tests.support.database import Cluster, cluster


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = request.getfixturevalue("postgresql").new() if request.param == "postgresql" else None
    database = Database(url, tmp_path)
    yield database
    await database.close()


def _rows(database: Database, yard: str = "here") -> Rows:
    return Rows(database, lambda: yard, SystemClock())


def _standing(name: str = "one", **more: object) -> Standing:
    models = (ModelInside("a:1b", "sha256:1", 2**40, loaded=True), ModelInside("b:2b"))
    given = {"purpose": "code", "since": 1.5, "id": "f" * 64, "image": "i:1", "port": 11434, "models": models, **more}
    return Standing(name, f"corral-{name}", "ollama", ContainerState.HEALTHY, **given)  # type: ignore[arg-type]


async def test_what_is_noted_is_read_again(database: Database) -> None:
    rows = _rows(database)
    line = Happening(3.0, "one", "created", None, "starting", "there is none", {"exitCode": "0"})
    rows.note(_standing(reason="bad\0byte \ud800"), "abc", line)
    rows.note(_standing(restarts=2), "abc", Happening(4.0, "one", "started"))
    assert rows.waiting == 3  # one row, two lines
    assert [line.what for line in (await rows.history("one", 10))] == ["started", "created"]  # before it is written
    await rows.flush()
    assert rows.waiting == 0
    again = (await _rows(database).load())["one"]
    assert again == _standing(restarts=2)
    assert await rows.history("one", 1) == [Happening(4.0, "one", "started")]
    assert (await rows.history("one", 10))[1] == line
    rows.note(_standing(models=()), "abc")
    await rows.flush()
    assert (await rows.load())["one"].models == ()
    rows.forget("one", Happening(5.0, "one", "forgotten"))
    await rows.flush()
    assert await rows.load() == {}
    assert (await rows.history("one", 10))[0].what == "forgotten"


async def test_two_homes_in_one_database_and_two_writers_of_one(database: Database) -> None:
    here, again, there = _rows(database), _rows(database), _rows(database, "there")
    for each in (here, again, there):
        each.note(_standing(), "abc", Happening(1.0, "one", "created"))
    await asyncio.gather(here.flush(), again.flush(), there.flush())
    assert (await there.load()).keys() == {"one"}
    assert len(await here.history("one", 10)) == 2
    there.forget("one")
    await there.flush()
    assert (await here.load()).keys() == {"one"}


async def test_versions_over_time(database: Database) -> None:
    rows = _rows(database)
    for version in ("sha256:1", "sha256:1", "sha256:2"):
        rows.version("one", version, "i:1")
    rows.version("one", "sha256:3", "i:1", failed="it did not answer")
    rows.version("one", "sha256:9", "a:1b", model="a:1b")
    await rows.flush()
    found = [(row["model"], row["version"], row["status"], row["reason"]) for row in await rows.versions("one")]
    assert found == [
        ("a:1b", "sha256:9", "current", ""),
        (None, "sha256:3", "failed", "it did not answer"),
        (None, "sha256:2", "current", ""),
        (None, "sha256:1", "previous", ""),
    ]


async def test_only_the_last_lines_are_kept(database: Database) -> None:
    rows = _rows(database)
    for number in range(module.KEPT + 50):
        rows.tell(Happening(float(number), "one", "die"))
    rows.tell(Happening(1.0, "two", "die"))
    await rows.flush()
    await rows.prune()
    kept = await rows.history("one", 10_000)
    assert (len(kept), kept[-1].at) == (module.KEPT, 50.0)
    assert len(await rows.history("two", 10)) == 1
