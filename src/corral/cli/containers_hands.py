"""Who does what is asked of containers: the server that runs, or this process. Both answer in the same words."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from corral.domain.standings import Standing, describe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from corral.app import Corral
    from corral.cli.invocation import Invocation
    from corral.cli.server import Server
    from corral.domain.standings import Happening

T = TypeVar("T")
Found = dict[str, Any]

_BASE = "/api/v1/containers"


class Hands(Protocol):
    """What can be asked of containers. They are described as `corral.domain.standings.describe` does.

    Raises (every method):
        CorralError: it cannot be had, or not be done.
    """

    async def all(self) -> list[Found]:
        """Every container of the configuration, and every orphan."""
        ...

    async def one(self, name: str) -> Found:
        """One container."""
        ...

    async def plan(self, names: Sequence[str], *, down: bool, orphans: str) -> list[Found]:
        """What `up` or `down` would do."""
        ...

    async def up(self, wish: Mapping[str, Any]) -> list[Found]:
        """Bring them up: `names`, `orphans`, `recreate`, `wait`, `pull`."""
        ...

    async def down(self, names: Sequence[str]) -> list[Found]:
        """Stop and remove them."""
        ...

    async def sync(self) -> list[Found]:
        """Look at what is there."""
        ...

    async def do(self, verb: str, name: str, *, wait: bool | None = None) -> Found:
        """`start`, `stop` or `restart` one; how it stands then."""
        ...

    async def rollback(self, name: str, model: str | None) -> Found:
        """Back to its image before, or to what a model in it was; how it stands then."""
        ...

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove one."""
        ...

    async def adopt(self, name: str) -> Found:
        """What one that is there would be in the configuration: `entry`, and `secrets`, the variables to set before."""
        ...

    async def stack(self) -> Found:
        """All at a glance."""
        ...

    def logs(self, name: str, lines: int, *, follow: bool) -> AsyncGenerator[Found, None]:
        """Its last lines; and with `follow` each further one."""
        ...

    async def usage(self, name: str) -> Found | None:
        """What it takes now; None while it does not run."""
        ...

    def usages(self, name: str) -> AsyncGenerator[Found, None]:
        """What it takes, about once a second."""
        ...

    def changes(self) -> AsyncGenerator[Found, None]:
        """Each change of a container, as it stands then."""
        ...

    async def health(self, name: str, *, generate: bool) -> Found:
        """Ask its models' API."""
        ...

    async def history(self, name: str, limit: int) -> list[Found]:
        """What happened to it."""
        ...

    async def versions(self, name: str) -> list[Found]:
        """Its images and models over time."""
        ...

    async def models(self, name: str) -> list[Found]:
        """The models in it."""
        ...

    async def remove_model(self, name: str, model: str) -> None:
        """Remove a model in it."""
        ...

    async def test(self, name: str, model: str) -> Found:
        """Have a model in it say a word."""
        ...

    async def export(self) -> str:
        """The containers of the configuration as a compose file."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Here:
    """The Docker engine and the database of this home, asked by this process."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._fleet = corral.fleet

    async def all(self) -> list[Found]:
        """Every container."""
        return self._described(await self._fleet.list())

    async def one(self, name: str) -> Found:
        """One."""
        return self._one(await self._fleet.status(name))

    async def plan(self, names: Sequence[str], *, down: bool, orphans: Any) -> list[Found]:
        """What would be done."""
        return [asdict(step) for step in await self._fleet.plan(names, down=down, orphans=orphans)]

    async def up(self, wish: Mapping[str, Any]) -> list[Found]:
        """Bring them up."""
        return self._described(await self._fleet.up(**wish))

    async def down(self, names: Sequence[str]) -> list[Found]:
        """Take them down."""
        return self._described(await self._fleet.down(names))

    async def sync(self) -> list[Found]:
        """Look."""
        return self._described(await self._fleet.sync())

    async def do(self, verb: str, name: str, *, wait: bool | None = None) -> Found:
        """Do it."""
        given = {} if wait is None else {"wait": wait}
        return self._one(await getattr(self._fleet, verb)(name, **given))

    async def rollback(self, name: str, model: str | None) -> Found:
        """Back."""
        return self._one(await self._corral.inside.rollback(name, model=model))

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove it."""
        await self._fleet.remove(name, force=force)

    async def adopt(self, name: str) -> Found:
        """Its entry."""
        from corral.app import composition

        entry, secrets = await composition.adopted(self._corral, name)
        return {"entry": entry, "secrets": secrets}

    async def stack(self) -> Found:
        """All at a glance."""
        return await self._fleet.stack()

    async def logs(self, name: str, lines: int, *, follow: bool) -> AsyncGenerator[Found, None]:
        """Its lines."""
        async for line in self._fleet.logs(name, lines=lines, follow=follow):
            yield asdict(line)

    async def usage(self, name: str) -> Found | None:
        """What it takes."""
        usage = await self._fleet.usage(name)
        return None if usage is None else asdict(usage)

    async def usages(self, name: str) -> AsyncGenerator[Found, None]:
        """What it takes, again and again."""
        async for usage in self._fleet.usages(name):
            yield asdict(usage)

    async def changes(self) -> AsyncGenerator[Found, None]:
        """Each change."""
        changes: AsyncIterator[Standing | Happening] = self._fleet.changes()
        async for change in changes:
            if isinstance(change, Standing):
                yield self._one(change)

    async def health(self, name: str, *, generate: bool) -> Found:
        """Ask."""
        return asdict(await self._fleet.health(name, generate=generate))

    async def history(self, name: str, limit: int) -> list[Found]:
        """What happened."""
        return [asdict(line) for line in await self._fleet.history(name, limit)]

    async def versions(self, name: str) -> list[Found]:
        """Images and models."""
        return await self._fleet.versions(name)

    async def models(self, name: str) -> list[Found]:
        """Those in it."""
        return [asdict(model) for model in await self._corral.inside.models(name)]

    async def remove_model(self, name: str, model: str) -> None:
        """Remove it."""
        await self._corral.inside.remove(name, model)

    async def test(self, name: str, model: str) -> Found:
        """Try it."""
        return asdict(await self._corral.inside.test(name, model))

    async def export(self) -> str:
        """A compose file."""
        from corral.app import composition

        return composition.export(self._corral)

    async def close(self) -> None:
        """Close the parts."""
        await self._corral.close()

    def _one(self, standing: Standing) -> Found:
        return describe(standing, self._corral.clock.wall())

    def _described(self, standing: Iterable[Standing]) -> list[Found]:
        return [self._one(one) for one in standing]


class There:
    """The server that runs."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def all(self) -> list[Found]:
        """Every container."""
        return list((await self._server.question(_BASE, "containers"))["containers"])

    async def one(self, name: str) -> Found:
        """One."""
        return dict((await self._server.question(_path(name), "container"))["container"])

    async def plan(self, names: Sequence[str], *, down: bool, orphans: str) -> list[Found]:
        """What would be done."""
        query = urlencode([("name", name) for name in names] + [("down", str(down).lower()), ("orphans", orphans)])
        return list((await self._server.question(f"{_BASE}/plan?{query}", "plan"))["plan"])

    async def up(self, wish: Mapping[str, Any]) -> list[Found]:
        """Bring them up."""
        return await self._many("/up", wish)

    async def down(self, names: Sequence[str]) -> list[Found]:
        """Take them down."""
        return await self._many("/down", {"names": list(names)})

    async def sync(self) -> list[Found]:
        """Look."""
        return await self._many("/sync")

    async def do(self, verb: str, name: str, *, wait: bool | None = None) -> Found:
        """Do it."""
        body = None if wait is None else {"wait": wait}
        return dict((await self._server.tell("POST", f"{_path(name)}/{verb}", "container", body))["container"])

    async def rollback(self, name: str, model: str | None) -> Found:
        """Back."""
        body = None if model is None else {"model": model}
        return dict((await self._server.tell("POST", f"{_path(name)}/rollback", "container", body))["container"])

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove it."""
        await self._server.tell("DELETE", f"{_path(name)}?force={str(force).lower()}", "message")

    async def adopt(self, name: str) -> Found:
        """Its entry."""
        found = await self._server.tell("POST", f"{_path(name)}/adopt", "entry")
        return {"entry": dict(found["entry"]), "secrets": list(found["secrets"])}

    async def stack(self) -> Found:
        """All at a glance."""
        return dict((await self._server.question(f"{_BASE}/stack", "stack"))["stack"])

    async def logs(self, name: str, lines: int, *, follow: bool) -> AsyncGenerator[Found, None]:
        """Its lines."""
        if not follow:
            for line in (await self._server.question(f"{_path(name)}/logs?lines={lines}", "lines"))["lines"]:
                yield line
            return
        async with aclosing(self._server.told(f"{_path(name)}/logs?lines={lines}&follow=true")) as told:
            async for line in told:
                yield line

    async def usage(self, name: str) -> Found | None:
        """What it takes."""
        usage: Found | None = (await self._server.question(f"{_path(name)}/stats", "usage"))["usage"]
        return usage

    def usages(self, name: str) -> AsyncGenerator[Found, None]:
        """What it takes, again and again."""
        return self._server.told(f"{_path(name)}/stats?stream=true")

    async def changes(self) -> AsyncGenerator[Found, None]:
        """Each change."""
        async with aclosing(self._server.told(f"{_BASE}/events")) as told:
            async for event in told:
                if event.get("type") == "container":
                    yield dict(event["container"])

    async def health(self, name: str, *, generate: bool) -> Found:
        """Ask."""
        query = f"?generate={str(generate).lower()}"
        return dict((await self._server.question(f"{_path(name)}/health{query}", "health"))["health"])

    async def history(self, name: str, limit: int) -> list[Found]:
        """What happened."""
        return list((await self._server.question(f"{_path(name)}/history?limit={limit}", "history"))["history"])

    async def versions(self, name: str) -> list[Found]:
        """Images and models."""
        return list((await self._server.question(f"{_path(name)}/versions", "versions"))["versions"])

    async def models(self, name: str) -> list[Found]:
        """Those in it."""
        return list((await self._server.question(f"{_path(name)}/models", "models"))["models"])

    async def remove_model(self, name: str, model: str) -> None:
        """Remove it."""
        await self._server.tell("DELETE", f"{_path(name)}/models/{quote(model, safe='')}", "message")

    async def test(self, name: str, model: str) -> Found:
        """Try it."""
        path = f"{_path(name)}/models/{quote(model, safe='')}/test"
        return dict((await self._server.tell("POST", path, "trial"))["trial"])

    async def export(self) -> str:
        """A compose file."""
        return str((await self._server.question(f"{_BASE}/export", "compose"))["compose"])

    async def close(self) -> None:
        """Hang up."""
        await self._server.close()

    async def _many(self, verb: str, body: Mapping[str, Any] | None = None) -> list[Found]:
        return list((await self._server.tell("POST", _BASE + verb, "containers", body))["containers"])


def ask(given: Invocation, question: Callable[[Hands], Awaitable[T]]) -> T:
    """Put a question to whoever can answer it, and wait for the answer.

    Raises:
        CorralError: what was answered.
    """

    async def talk() -> T:
        from corral.cli.server import Server

        hands: Hands = There(Server.of(given)) if given.running() is not None else Here(given.corral())
        try:
            return await question(hands)
        finally:
            await hands.close()

    return asyncio.run(talk())


def _path(name: str) -> str:
    return f"{_BASE}/{quote(name, safe='')}"
