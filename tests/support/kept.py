"""A Corral with containers on an engine of the tests' own, in this process; and what is done to them by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from corral.app.corral import Corral
from corral.app.fleet import Fleet
from corral.config import load
from corral.domain.standings import ContainerState, Happening, Standing
from tests.support.docker import TINY, Engine
from tests.support.ports import free_port

PATIENCE = 90.0
"""Seconds that a test waits for what Docker does on a slow machine."""


def tiny(*words: str, port: int | None = None, **more: Any) -> dict[str, Any]:
    """The entry of a container that serves, or does what `words` say."""
    port = port or free_port()
    command = list(words) or ["serve", str(port), "127.0.0.1"]
    entry = {"image": TINY, "kind": "openai", "network": "host", "port": port, "inside": port, "stop_grace": 2}
    return {**entry, "command": command, **more}


class Place:
    """A home, its configuration, and the Docker engine that it names."""

    def __init__(self, docker: Engine, folder: Path, address: str | None = None) -> None:
        self.docker = docker
        self.folder = folder
        self.address = address or docker.address
        self.env = {"HOME": str(folder), "CORRAL_HOME": str(folder / ".corral"), "PATH": "/usr/bin:/bin"}
        (folder / ".corral").mkdir(parents=True, exist_ok=True)

    def write(self, containers: Mapping[str, Any], docker: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Have corral.yaml say that."""
        said = {"docker": {"host": self.address, **(docker or {})}, "containers": dict(containers), **more}
        (self.folder / ".corral" / "corral.yaml").write_text(yaml.safe_dump(said))

    @asynccontextmanager
    async def corral(self, *, keep: bool = False) -> AsyncIterator[Corral]:
        """A Corral of this home; with `keep` its containers are kept, as a server does."""
        corral = Corral(load(self.env), env=self.env, again=lambda: load(self.env))
        keeping = asyncio.ensure_future(corral.fleet.keep()) if keep else None
        try:
            yield corral
        finally:
            if keeping is not None:
                keeping.cancel()
                with suppress(asyncio.CancelledError):
                    await keeping
            await corral.close()

    async def by_hand(self, *words: str) -> str:
        """The docker command line, while Corral goes on."""
        return await asyncio.to_thread(self.docker.cli, *words)


async def reach(
    fleet: Fleet,
    name: str,
    *states: ContainerState,
    when: Callable[[Standing], Any] = lambda _: True,
    doing: Awaitable[Any] | None = None,
) -> Standing:
    """How it stands as soon as it is in one of these states, and `when` holds; also where that has passed by now.

    What comes of something that is done by hand may have passed before that is over: give it as `doing`.
    """

    def fits(found: Standing | Happening | None) -> TypeGuard[Standing]:
        return isinstance(found, Standing) and found.name == name and found.state in states and bool(when(found))

    changes = fleet.changes()
    following = asyncio.ensure_future(anext(changes))
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0)  # now it listens, and nothing is missed
            if doing is not None:
                await doing
            known = fleet.works.observer.known.get(name)
            found: Standing | Happening | None = None if known is None else known.standing
            while not fits(found):
                found = await following
                following = asyncio.ensure_future(anext(changes))
            return found
    except TimeoutError:
        known = fleet.works.observer.known.get(name)
        raise AssertionError(f"{name} is never {states}, but {known}") from None
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


def states(standings: Sequence[Standing]) -> dict[str, ContainerState]:
    """The state of each by its name."""
    return {standing.name: standing.state for standing in standings}


class Counted:
    """A Docker engine that counts what it is asked."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._engine, name)

        def count(*args: Any, **more: Any) -> Any:
            self.calls.append(name)
            return asked(*args, **more)

        return count


class Late:
    """A Docker engine whose answers come late: each is there before what `after` has for the question is done."""

    def __init__(self, engine: Any, **after: Callable[[Any], Awaitable[Any]]) -> None:
        self._engine = engine
        self._after = after

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._engine, name)
        after = self._after.get(name)
        if after is None:
            return asked

        async def answer(*args: Any, **more: Any) -> Any:
            found = await asked(*args, **more)
            await after(found)
            return found

        return answer


def truth(docker: Engine, yard: str) -> dict[str, tuple[bool, str]]:
    """What the engine says of this Corral's containers: whether each runs, and its id, by its name."""
    return {
        each["Config"]["Labels"]["corral.name"]: (each["State"]["Running"], each["Id"])
        for each in docker.seen().values()
        if each["Config"]["Labels"].get("corral.yard") == yard
    }
