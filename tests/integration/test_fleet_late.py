"""Answers of the Docker engine that come later than others that were asked for after them, on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from corral.app.fleet import Fleet
from corral.domain.containers import Seen
from corral.domain.standings import ContainerState as State
from corral.domain.standings import Happening
from corral.fleet.looking import looked
from corral.fleet.reconcile import Reconciler
from tests.support.docker import TINY, Engine
from tests.support.kept import Late, Place, reach, tiny

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place(docker: Engine, tmp_path: Path) -> Place:
    docker.image(TINY)
    return Place(docker, tmp_path)


@asynccontextmanager
async def kept(fleet: Fleet, told: asyncio.Event, what: str) -> AsyncIterator[None]:
    """Its containers are kept; `told` is set once the history has a line of `what`."""

    async def listen() -> None:
        async for change in fleet.changes():
            if isinstance(change, Happening) and change.what == what:
                told.set()

    tasks = [asyncio.ensure_future(listen()), asyncio.ensure_future(fleet.keep())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_what_ended_at_once_is_not_started_for_a_look_from_before_its_start(place: Place) -> None:
    """The look that follows the making of it is asked for before the start, and answers after the end."""
    place.write({"one": tiny("once", "/tmp/there", "exit", "3", restart=False)})
    asked, told = asyncio.Event(), asyncio.Event()

    async def after_looking(seen: Seen) -> None:
        if seen.created_only:
            asked.set()
            await told.wait()

    async with place.corral() as corral:
        late = Late(
            corral.docker,
            create=lambda _: asked.wait(),
            start=lambda _: place.by_hand("wait", "corral-one"),
            inspect=after_looking,
        )
        fleet = Fleet(corral, late)
        async with kept(fleet, told, "created"):
            ended = await reach(fleet, "one", State.EXITED)
            assert (ended.exit_code, ended.restarts) == (3, 0), "a second start ends well"
            assert ended.reason == "it failed (exit code 3); restart is false"
        assert "started" not in {line.what for line in await fleet.history("one")}


async def test_what_is_up_is_not_down_for_a_look_that_is_older(place: Place) -> None:
    """A look from while it was down answers after it was started by hand, and after that was seen."""
    place.write({"one": tiny()})
    asked, up = asyncio.Event(), asyncio.Event()

    async with place.corral() as corral:
        await corral.fleet.up()
        works = corral.fleet.works
        await place.by_hand("stop", "corral-one")

        async def after_looking(_: Seen) -> None:
            asked.set()
            await up.wait()

        slow = Late(corral.docker, inspect=after_looking)
        looking = asyncio.ensure_future(looked(works.observer, slow, "one", "corral-one"))
        await asked.wait()
        await place.by_hand("start", "corral-one")
        assert (await works.reconciler.look("one")).standing.state.up
        up.set()
        seen, _ = await looking
        assert seen is not None
        assert seen.running, "asked again"


async def test_what_was_made_is_not_gone_for_a_list_from_before_that(place: Place) -> None:
    """Whoever asks how all stand while they are being made has a list without them."""
    place.write({"one": tiny("once", "/tmp/there", "exit", "3", restart=False)})
    asked, ended = asyncio.Event(), asyncio.Event()

    async def after_listing(_: object) -> None:
        asked.set()
        await ended.wait()

    async with place.corral() as corral:
        works = corral.fleet.works
        await works.ready()
        slow = Late(corral.docker, list=after_listing)
        parts = works.parts
        other = Reconciler(works.observer, works.prober, lambda: slow, parts.wanted, parts.clock)
        surveying = asyncio.ensure_future(other.survey())
        await asked.wait()
        await corral.fleet.up()
        await place.by_hand("wait", "corral-one")
        made = (await works.reconciler.look("one")).standing
        ended.set()
        await surveying
        known = works.observer.known["one"]
        assert (known.standing, known.effects) == (made, ()), "else it would be made again"
        assert (made.state, made.exit_code) == (State.EXITED, 3)
