"""Containers that are kept: whatever is done to them by hand, by the kernel, by Docker or by Corral's own end."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from corral.domain.standings import ContainerState as State
from corral.errors import ContainerUnhealthy
from tests.support.docker import TINY, Engine, until
from tests.support.kept import Place, reach, states, tiny, truth
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place(docker: Engine, tmp_path: Path) -> Place:
    docker.image(TINY)
    return Place(docker, tmp_path)


async def test_what_is_killed_by_hand_is_started_again(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral(keep=True) as corral:
        first = await reach(corral.fleet, "one", State.HEALTHY)
        kill = place.by_hand("kill", "corral-one")
        killed = await reach(corral.fleet, "one", State.KILLED, State.WAITING, doing=kill)
        assert "killed" in killed.reason
        again = await reach(corral.fleet, "one", State.HEALTHY)
        assert again.id == first.id
        assert (again.started_at or 0) > (first.started_at or 0)
        assert again.restarts == 1
        lines = [line.what for line in await corral.fleet.history("one")]
    assert {"created", "kill", "die", "started"} <= set(lines)


async def test_a_stop_by_hand_is_a_wish_and_a_start_by_hand_is_one_too(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral(keep=True) as corral:
        await reach(corral.fleet, "one", State.HEALTHY)
        await place.by_hand("stop", "corral-one")
        stopped = await reach(corral.fleet, "one", State.STOPPED)
        assert (stopped.wanted, stopped.reason) == (False, "stopped by hand")
    async with place.corral(keep=True) as corral:  # a Corral that is started anew knows it still
        await corral.fleet.works.ready()
        still = await reach(corral.fleet, "one", State.STOPPED)
        assert not still.wanted
        await place.by_hand("start", "corral-one")
        up = await reach(corral.fleet, "one", State.HEALTHY)
        assert up.wanted


async def test_a_pause_by_hand_is_seen_and_left(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral(keep=True) as corral:
        await reach(corral.fleet, "one", State.HEALTHY)
        await place.by_hand("pause", "corral-one")
        assert (await reach(corral.fleet, "one", State.PAUSED)).reason == "paused by hand"
        await place.by_hand("unpause", "corral-one")
        await reach(corral.fleet, "one", State.HEALTHY)


async def test_what_is_removed_by_hand_is_made_anew(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral(keep=True) as corral:
        first = await reach(corral.fleet, "one", State.HEALTHY)
        await place.by_hand("rm", "--force", "corral-one")
        await reach(corral.fleet, "one", State.HEALTHY, when=lambda now: now.id != first.id)


async def test_the_kernel_ends_one_that_takes_too_much(place: Place) -> None:
    port_and_hunger = tiny("after", "2", "eat", "200", memory="24MB")
    place.write({"greedy": port_and_hunger})
    async with place.corral(keep=True) as corral:
        dead = await reach(corral.fleet, "greedy", State.OOM_KILLED)
        assert "memory" in dead.reason
        assert dead.exit_code == 137


async def test_one_that_ends_again_and_again_is_left_down(place: Place) -> None:
    place.write({"mad": tiny("exit", "3")})
    async with place.corral(keep=True) as corral:
        looped = await reach(corral.fleet, "mad", State.CRASH_LOOP)
        assert "exit code 3" in looped.reason
        assert not truth(place.docker, await corral.fleet.works.rows.yard())["mad"][0]
        steps = await corral.fleet.plan()
        assert steps[0].step in ("start", "recreate")  # who asks for it by name gives it another chance


async def test_a_daemon_that_is_stopped_and_started_has_its_containers_up_again(place: Place) -> None:
    place.write({"one": tiny(), "two": tiny()})
    async with place.corral(keep=True) as corral:
        fleet = corral.fleet
        await reach(fleet, "one", State.HEALTHY)
        await reach(fleet, "two", State.HEALTHY)
        await place.by_hand("stop", "corral-two")
        await reach(fleet, "two", State.STOPPED)
        await asyncio.to_thread(place.docker.stop)
        away = await reach(fleet, "one", State.UNKNOWN)
        assert away.wanted
        assert away.reason
        assert states(await fleet.list())["one"] is State.UNKNOWN
        await asyncio.to_thread(place.docker.start)
        await reach(fleet, "one", State.HEALTHY)


async def test_a_daemon_that_is_killed_and_started_has_its_containers_up_again(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral(keep=True) as corral:
        await reach(corral.fleet, "one", State.HEALTHY)
        await asyncio.to_thread(place.docker.kill)
        await reach(corral.fleet, "one", State.UNKNOWN)
        await asyncio.to_thread(place.docker.start)
        await reach(corral.fleet, "one", State.HEALTHY)


async def test_an_event_is_in_the_database_soon(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.write({"one": tiny(restart=False)})
    async with place.corral(keep=True) as corral:
        fleet = corral.fleet
        await reach(fleet, "one", State.HEALTHY)
        await place.by_hand("kill", "corral-one")
        took = None
        async with asyncio.timeout(90):
            while took is None:
                row = (await fleet.works.rows.load())["one"]
                if row.state is State.KILLED:
                    took = time.time() - (row.finished_at or 0)
    with capsys.disabled():
        print(f"\nfrom the container's end to its row: {took * 1000:.0f} ms")


async def test_a_database_that_is_locked_holds_up_nothing(place: Place) -> None:
    place.write({"one": tiny()})
    async with place.corral(keep=True) as corral:
        fleet = corral.fleet
        first = await reach(fleet, "one", State.HEALTHY)
        await asyncio.to_thread(until, lambda: not fleet.works.rows.waiting)
        with closing(sqlite3.connect(place.folder / ".corral" / "corral.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await place.by_hand("kill", "corral-one")
            again = await reach(fleet, "one", State.HEALTHY, when=lambda now: now.started_at != first.started_at)
            assert fleet.works.rows.waiting
            other.execute("ROLLBACK")
        async with asyncio.timeout(90):
            while (await fleet.works.rows.load())["one"].started_at != again.started_at:
                pass  # reading the row gives the others their turn
        assert {"kill", "die", "started"} <= {line.what for line in await fleet.history("one")}


async def test_what_is_waited_for_ends_when_the_configuration_says_otherwise(place: Place) -> None:
    port = free_port()
    place.write({"one": tiny(port=port)})
    async with place.corral(keep=True) as corral:
        first = await reach(corral.fleet, "one", State.HEALTHY)
        place.write({"one": tiny("wait", port=port)})  # it will never answer
        await corral.reloading.reload()
        await reach(corral.fleet, "one", State.STARTING, State.HEALTHY, when=lambda now: now.id != first.id)
        place.write({"one": tiny(port=port)})
        await corral.reloading.reload()
        await asyncio.to_thread(until, lambda: set(place.docker.seen()) == {"corral-one"})
        last = await reach(corral.fleet, "one", State.HEALTHY)
        assert not last.drift


async def test_a_request_for_a_model_of_a_container_that_is_down_is_told_why(place: Place) -> None:
    place.write({"one": tiny(models=["m1"])})
    async with place.corral(keep=True) as corral:
        fleet = corral.fleet
        assert "m1" in corral.names()
        assert corral.definition("m1").runtime == "openai"
        await reach(fleet, "one", State.UNHEALTHY)  # it answers, and has no such model
        with pytest.raises(ContainerUnhealthy, match="m1"):
            await corral.load("m1")
        await fleet.stop("one")
        with pytest.raises(ContainerUnhealthy, match="stopped") as caught:
            await corral.load("m1")
        assert "corral containers start one" in (caught.value.hint or "")
