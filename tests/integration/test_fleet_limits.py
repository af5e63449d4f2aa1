"""Limits that follow what a container's models take, on a real engine; and what a stop gives back."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from corral.domain.standings import ContainerState as State
from corral.domain.standings import Step
from corral.fleet.fitting import Fitter
from tests.support.docker import PLAYER, Engine
from tests.support.kept import Late, Place, reach
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)
GIB = 2**30


@pytest.fixture
def place(docker: Engine, tmp_path: Path) -> Place:
    docker.image(PLAYER)
    return Place(docker, tmp_path)


def player(port: int, **more: Any) -> dict[str, Any]:
    entry = {"kind": "ollama", "image": PLAYER, "network": "host", "port": port, "stop_grace": "2s"}
    return {**entry, "models": ["tiny:1b", "embedder"], **more}


def limit(place: Place) -> tuple[int, int, str]:
    there = place.docker.seen()["corral-one"]
    return there["HostConfig"]["Memory"], there["HostConfig"]["MemorySwap"], there["Id"]


async def test_a_limit_follows_the_models_and_makes_nothing_anew(place: Place) -> None:
    port = free_port()
    place.write({"one": player(port, memory="auto")})
    async with place.corral() as corral:
        (up,) = await corral.fleet.up()
        assert up.state is State.HEALTHY, up
        assert up.memory_limit == 2 * GIB, "two small models and a GiB for the server"
        memory, swap, made = limit(place)
        assert (memory, swap, made) == (2 * GIB, 2 * GIB, up.id)
        (line,) = [line for line in await corral.fleet.history("one") if line.what == "limited"]
        assert line.reason == "2 GiB of memory for its 2 models and the server"
    async with place.corral() as corral:  # another process finds it as it is
        assert {step.step for step in await corral.fleet.plan()} == {Step.KEEP}
        shown = await corral.fleet.status("one")
        assert (shown.memory_limit, shown.drift, shown.id) == (2 * GIB, (), made)


async def test_a_limit_goes_up_when_it_has_to_and_is_let_be_when_it_does(place: Place) -> None:
    place.write({"one": player(free_port(), memory="auto")})
    async with place.corral(keep=True) as corral:
        fleet = corral.fleet
        made = (await reach(fleet, "one", State.HEALTHY, State.UNHEALTHY)).id
        await fleet.up()
        await reach(fleet, "one", State.HEALTHY, when=lambda it: it.memory_limit == 2 * GIB)
        for by_hand, stands in ((3, 3), (1, 2), (5, 2)):
            update = place.by_hand("update", "--memory", f"{by_hand}g", "--memory-swap", f"{by_hand}g", "corral-one")
            size = by_hand * GIB
            await reach(fleet, "one", State.HEALTHY, when=lambda it, size=size: it.memory_limit == size, doing=update)
            await fleet.health("one")
            assert limit(place) == (stands * GIB, stands * GIB, made)
            standing = await reach(fleet, "one", State.HEALTHY)
            assert (standing.memory_limit, standing.drift) == (stands * GIB, ())


async def test_what_is_set_by_hand_while_a_limit_is_worked_out_is_worked_out_from(place: Place) -> None:
    place.write({"one": player(free_port(), memory="auto")})

    async def three(_: object) -> None:
        await place.by_hand("update", "--memory", "3g", "--memory-swap", "3g", "corral-one")

    async with place.corral() as corral:
        await corral.fleet.up()
        works = corral.fleet.works
        for question, first in (("usage", 5), ("limit", 1)):
            await place.by_hand("update", "--memory", f"{first}g", "--memory-swap", f"{first}g", "corral-one")
            await works.reconciler.look("one")
            late = Late(corral.docker, **{question: three})
            await Fitter(works.observer, lambda late=late: late).fit("one")
            assert limit(place)[:2] == (3 * GIB, 3 * GIB), question
            known = works.observer.known["one"]
            assert known.standing.memory_limit == 3 * GIB, "what is known is what is there"


async def test_a_limit_is_worked_out_once_though_two_look_at_once(place: Place) -> None:
    place.write({"one": player(free_port(), memory="auto")})
    async with place.corral() as corral:
        await corral.fleet.up()
        works = corral.fleet.works
        await place.by_hand("update", "--memory", "5g", "--memory-swap", "5g", "corral-one")
        await works.reconciler.look("one")
        fitter = Fitter(works.observer, lambda: corral.docker)
        await asyncio.gather(fitter.fit("one"), fitter.fit("one"))
        lines = [line for line in await corral.fleet.history("one") if line.what == "limited"]
        assert (len(lines), limit(place)[0]) == (2, 2 * GIB), "one by coming up, one by both"


async def test_what_a_model_was_found_to_take_here_counts_where_it_is_more(place: Place) -> None:
    place.write({"one": player(free_port(), memory="auto")})
    async with place.corral() as corral:
        (up,) = await corral.fleet.up()
        works = corral.fleet.works
        found = {"tiny:1b": 3 * GIB, "embedder:latest": 1}
        await Fitter(works.observer, lambda: corral.fleet.engine, found.get).fit("one")
        assert limit(place) == (5 * GIB, 5 * GIB, up.id)


async def test_none_is_no_limit_and_another_wish_than_auto(place: Place) -> None:
    port = free_port()
    place.write({"one": player(port)})
    async with place.corral() as corral:
        (up,) = await corral.fleet.up()
        assert (up.state, up.memory_limit, limit(place)[0]) == (State.HEALTHY, None, 0)
    place.write({"one": player(port, memory="auto")})
    async with place.corral() as corral:
        assert {step.step for step in await corral.fleet.plan()} == {Step.RECREATE}


@pytest.mark.parametrize("what", ["stopped", "removed"])
async def test_what_an_end_gives_back_is_in_the_history(place: Place, what: str) -> None:
    port = free_port()
    place.write({"one": player(port, models=[])})
    async with place.corral() as corral:
        for _ in range(5):  # an end does not wait long for what it gives back, and the machine may be busy
            await corral.fleet.up()
            await (corral.fleet.stop("one") if what == "stopped" else corral.fleet.down())
            line = next(line for line in await corral.fleet.history("one") if line.what == what)
            if line.detail:
                break
    assert 2**20 < line.detail["released"]["memory"] < GIB
    assert line.detail["released"]["ports"] == [port]
    assert re.search(rf"it gave back \d+ MiB of memory, port {port}$", line.reason), line
