"""Containers among others that mean no good: names that somebody has already, and servers that say what cannot be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from corral.app.fleet import Fleet
from corral.domain.containers import Event
from corral.domain.ports import Progress
from corral.domain.standings import ContainerState as State
from corral.domain.standings import describe
from corral.errors import Conflict
from corral.fleet.asking import Asker
from corral.kit.clock import SystemClock
from tests.support.docker import TINY, Engine
from tests.support.kept import Place, reach, tiny
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place(docker: Engine, tmp_path: Path) -> Place:
    docker.image(TINY)
    return Place(docker, tmp_path)


def stranger(docker: Engine, name: str) -> str:
    """A container that is nobody's we know; its id."""
    return docker.cli("run", "-d", "--name", name, "--network", "none", TINY, "wait")


@asynccontextmanager
async def saying(**answers: Any) -> AsyncIterator[int]:
    """A server on loopback that plays Ollama, and says that; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        body = answers.get(path.rpartition("/")[2], {"models": []})
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def test_a_strangers_container_by_the_name_under_which_ours_would_step_aside_stays(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral() as corral:
        await corral.fleet.up()
        ours = place.docker.seen()["corral-one"]["Id"]
        theirs = stranger(place.docker, "corral-one.before")
        (standing,) = await corral.fleet.up(["one"], recreate=True)
        assert "corral-one.before" in standing.reason
        assert "not its own" in standing.reason
        there = place.docker.seen()
        assert there["corral-one.before"]["Id"] == theirs
        assert there["corral-one"]["Id"] == ours
        assert there["corral-one"]["State"]["Running"]
        place.docker.cli("rename", "corral-one.before", "other")
        (standing,) = await corral.fleet.up(["one"], recreate=True)
        assert standing.state is State.HEALTHY
    there = place.docker.seen()
    assert there["corral-one"]["Id"] != ours
    assert sorted(there) == ["corral-one", "other"]


async def test_a_strangers_container_by_the_name_that_ours_is_to_have_stays_and_ours_comes_back(place: Place) -> None:
    port = free_port()
    place.write({"one": tiny(port=port)})
    async with place.corral() as corral:
        await corral.fleet.up()
    ours, theirs = place.docker.seen()["corral-one"]["Id"], stranger(place.docker, "web")
    place.write({"one": tiny(port=port, container="web")})
    async with place.corral() as corral:
        with pytest.raises(Conflict, match="not Corral's"):
            await corral.fleet.restart("one")
    there = place.docker.seen()
    assert {name: each["Id"] for name, each in there.items()} == {"corral-one": ours, "web": theirs}
    assert all(each["State"]["Running"] for each in there.values())


async def test_what_was_cut_short_and_cannot_be_mended_holds_up_nobody_else(place: Place) -> None:
    place.write({"one": tiny(), "two": tiny()})
    async with place.corral() as corral:
        await corral.fleet.up()
    place.docker.cli("rename", "corral-one", "corral-one.before")
    place.docker.cli("kill", "corral-one.before", "corral-two")
    theirs = stranger(place.docker, "corral-one")
    async with place.corral(keep=True) as corral:
        await reach(corral.fleet, "two", State.HEALTHY)  # the keeper has started it
        assert corral.fleet.works.keeper.connected
        assert place.docker.seen()["corral-one"]["Id"] == theirs
        await place.by_hand("rm", "--force", "corral-one")
        one = (await corral.fleet.up(["one"]))[0]
        assert one.state is State.HEALTHY
    assert sorted(place.docker.seen()) == ["corral-one", "corral-two"]


async def test_what_a_killed_corral_left_aside_goes_with_the_next_up(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral() as corral:
        await corral.fleet.up()
        yard = await corral.fleet.works.rows.yard()
    labels = [f"--label=corral.{key}={value}" for key, value in (("yard", yard), ("name", "one"), ("spec", "old"))]
    place.docker.cli("create", "--name", "corral-one.before", *labels, TINY, "wait")
    async with place.corral() as corral:
        (standing,) = await corral.fleet.up()
        assert standing.state is State.HEALTHY
    assert sorted(place.docker.seen()) == ["corral-one"]


class Late:
    """A Docker engine whose clock is `behind` ours by so many seconds."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.behind = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def events(self, since: float | None = None) -> AsyncIterator[Event]:
        async for event in self._engine.events(since):
            yield replace(event, at=event.at - self.behind)


async def test_an_engine_whose_clock_is_set_back_is_still_heard(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral() as corral:
        late = Late(corral.docker)
        fleet = Fleet(corral, late)  # type: ignore[arg-type]  # all of an engine by delegation
        keeping = asyncio.ensure_future(fleet.keep())
        try:
            await reach(fleet, "one", State.HEALTHY)
            late.behind = 3600.0
            await place.by_hand("pause", "corral-one")  # a check every ten seconds would not tell that
            await reach(fleet, "one", State.PAUSED)
            await place.by_hand("unpause", "corral-one")
            await reach(fleet, "one", State.HEALTHY, State.STARTING)
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            await fleet.close()


@pytest.mark.parametrize(
    "said",
    [
        {"tags": {"models": [{"name": "m:latest", "size": 10**30, "digest": "d"}]}},
        {
            "tags": {"models": [{"name": "m:latest"}]},
            "ps": {"models": [{"name": "m:latest", "size_vram": 10**30, "size": -1}]},
        },
        {"tags": {"models": [{"name": "m:latest"}]}, "version": b'{"version": "1\\ud800"}'},
        {"tags": {"models": [{"name": "m:latest"}]}, "version": b'{"version": "1\\u0000\\u001b[2J"}'},
        {"tags": {"models": [{"name": "m:latest"}, {"name": "\x1b]0;x\x07"}, 5, {"name": ["a"]}, {"name": "a\0b"}]}},
        {"tags": {"models": [{"name": "m:latest"}] + [{"name": f"{n}{'x' * 150}"} for n in range(20_000)]}},
    ],
    ids=["size", "gpu", "surrogate", "terminal", "names", "many"],
)
async def test_whatever_a_server_says_containers_are_kept_written_down_and_told(place: Place, said: Any) -> None:
    answers = {"version": {"version": "1.0"}, **said}
    async with saying(**answers) as port:
        other = free_port()
        entry = tiny("serve", str(other), "127.0.0.1", port=port, kind="ollama", models=["m"])
        place.write({"liar": entry, "two": tiny()})
        async with place.corral(keep=True) as corral:
            liar = await reach(corral.fleet, "liar", State.HEALTHY)
            await reach(corral.fleet, "two", State.HEALTHY)
            await corral.fleet.works.rows.flush()
            assert corral.fleet.works.keeper.running
            assert "\\u00" not in orjson.dumps(describe(liar, 0.0)).decode()  # nothing that a terminal would take up
            assert len(liar.models) <= 1000
            kill = place.by_hand("kill", "corral-two")  # and all are kept as before
            await reach(corral.fleet, "two", State.KILLED, State.WAITING, doing=kill)
            await reach(corral.fleet, "two", State.HEALTHY)
        async with place.corral() as corral:
            await corral.fleet.works.ready()
            assert corral.fleet.works.observer.known["liar"].standing.models


async def test_how_far_a_pull_is_is_believed_as_far_as_it_can_be():
    lines = [
        {"digest": ["a"], "total": 1},
        {"digest": "d", "completed": 10**30, "total": 10**30},
        {"status": "success"},
    ]
    told: list[Progress] = []
    async with saying(pull=b"".join(json.dumps(line).encode() + b"\n" for line in lines)) as port:
        await Asker("ollama", f"http://127.0.0.1:{port}", SystemClock()).pull("m", told.append)
    assert told[-1].phase == "download"
    assert all(progress.done < 2**53 and (progress.total or 0) < 2**53 for progress in told)
