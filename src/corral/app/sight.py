"""What is seen of the containers of the configuration, and of what they do. Nothing here changes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from corral.app.contained import entry_of, stands, summed, way_on
from corral.config.containers import ContainerSettings
from corral.domain.containers import check_container
from corral.domain.standings import Standing, describe
from corral.errors import ContainerNotFound, ContainerUnhealthy, DockerUnavailable, ModelNotFound, StoreError, nearest
from corral.fleet import desired, plan
from corral.fleet.works import Sources, Works

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from corral.app.corral import Corral
    from corral.domain.containers import ContainerEngine, EngineInfo, Line, Usage, Wanted
    from corral.domain.standings import Happening, Health, Planned
    from corral.fleet.keeper import Parts

    # In the class `list` is a method.
    Standings = list[Standing]
    Steps = list[Planned]
    Lines = list[Happening]
    Rows = list[dict[str, Any]]
    Names = list[str]

Orphans = Literal["report", "remove", "adopt"]


class Sight:
    """The containers of one `Corral`, looked at. Creating it does no I/O.

    Args:
        corral: whose.
        engine: the Docker engine; `corral.docker` when None.
    """

    def __init__(self, corral: Corral, engine: ContainerEngine | None = None) -> None:
        self._corral = corral
        self._engine = engine
        self._wants: tuple[object, dict[str, Wanted]] = (None, {})

    @property
    def engine(self) -> ContainerEngine:
        """The Docker engine."""
        return self._engine if self._engine is not None else self._corral.docker

    @cached_property
    def works(self) -> Works:
        """What it consists of."""
        corral = self._corral
        works = Works(
            Sources(
                engine=lambda: self.engine,
                wanted=self.all_wanted,
                settings=lambda: corral.settings.docker,
                database=lambda: corral.database,
                yard=lambda: corral.yard,
                clock=corral.clock,
                taken=self._taken,
            )
        )
        works.observer.on_change.append(self._changed)
        return works

    @property
    def parts(self) -> Parts:
        """Its parts, for whoever does more with containers than is done here."""
        return self.works.parts

    def names(self) -> list[str]:
        """The containers that are configured, sorted."""
        return sorted(self._corral.settings.containers)

    def all_wanted(self) -> dict[str, Wanted]:
        """What the configuration wants, by name, in the file's order.

        Raises:
            ConfigError: an entry cannot be used, or two cannot be together.
        """
        settings = self._corral.settings
        if self._wants[0] is not settings.containers:
            self._wants = (settings.containers, desired.all_wanted(settings, self._corral.env))
        return self._wants[1]

    def wanted(self, name: str) -> Wanted:
        """What the configuration wants of `name`.

        Raises:
            ContainerNotFound: it is not configured; names the nearest.
            ConfigError: its settings cannot be used.
        """
        check_container(name)
        found = self.all_wanted().get(name)
        if found is None:
            raise _missing(name, self.names())
        return found

    async def info(self) -> EngineInfo:
        """The Docker engine: what it is, and what it can."""
        return await self.engine.info()

    async def list(self) -> list[Standing]:
        """How each stands, by name, orphans after them. With Docker away: as last known, state unknown, and why."""
        await self.works.current()
        return self.works.observer.standings()

    async def status(self, name: str) -> Standing:
        """How it stands.

        Raises:
            ContainerNotFound: it is neither configured nor an orphan; names the nearest.
        """
        works = self.works
        if works.keeper.running or name not in self.all_wanted():
            await works.current()
        self._check(name)
        if not works.keeper.running:
            await works.ready()
            try:
                await works.reconciler.look(name)
                await works.prober.check(name)
            except DockerUnavailable as error:
                works.observer.unreachable(error.message.rstrip("."))
            await works.written()
        standing = self.works.observer.known[name].standing
        return await self._explained(name, standing) if standing.state.up else standing

    async def plan(self, names: Sequence[str] = (), *, down: bool = False, orphans: Orphans = "report") -> Steps:
        """What `up`, or with `down` that, would do now, and why; nothing is done. No names are all.

        Raises:
            ContainerNotFound: one is not configured.
        """
        self._check_all(names)
        await self.works.ready()
        everything = await self.works.reconciler.survey()
        await self.works.written()
        asked = plan.Asked(frozenset(names), down=down, orphans=orphans)
        remembered = self.works.observer.remembered()
        if not down:
            for name in self._meant(names):
                if name in remembered:
                    remembered[name] = replace(remembered[name], up=True, hold="")
        return self.works.reconciler.plan(everything, await self.works.rows.yard(), asked, remembered)

    async def adopt(self, name: str) -> dict[str, Any]:
        """The entry of the configuration that would describe a container that is there: an orphan, or a stranger's.

        What Docker does not know of an orphan, its purpose and its models, is taken from what was written down of it.

        Raises:
            ContainerNotFound: there is none of that name.
        """
        await self.works.ready()
        everything = await self.works.reconciler.survey()
        yard = await self.works.rows.yard()
        ours = next((seen for seen in everything if seen.yard == yard and seen.name == name), None)
        found = ours or next((seen for seen in everything if seen.container == name), None)
        if found is None:
            raise _missing(name, [seen.container for seen in everything])
        spec = await self.engine.describe(found.id)
        known = self.works.observer.known.get(name) if ours else None
        if known is None:
            return entry_of(spec)
        usual = spec.stop_grace == ContainerSettings().stop_grace
        noted = {
            "purpose": known.standing.purpose,
            "models": [model.name for model in known.standing.models],
            "port": known.standing.port,  # with the network `host` there is none that Docker could tell
            "stop_grace": "" if usual else f"{spec.stop_grace:g}s",
        }
        return {**entry_of(spec), **{key: value for key, value in noted.items() if value}}

    async def logs(self, name: str, *, lines: int = 100, follow: bool = False) -> AsyncIterator[Line]:
        """Its last `lines` lines, oldest first; and with `follow` every further one, until it ends.

        Raises:
            ContainerNotFound: there is none.
        """
        async for line in self.engine.logs(await self._container(name), lines=lines, follow=follow):
            yield line

    async def usage(self, name: str) -> Usage | None:
        """What it takes now; None while it does not run.

        Raises:
            ContainerNotFound: there is none.
        """
        return await self.engine.usage(await self._container(name))

    async def usages(self, name: str) -> AsyncIterator[Usage]:
        """What it takes, about once a second, until it ends.

        Raises:
            ContainerNotFound: there is none.
        """
        async for usage in self.engine.usages(await self._container(name)):
            yield usage

    async def stack(self) -> dict[str, Any]:
        """The whole at a glance.

        `engine` (None with `reason` while it does not answer), `containers` counted by state, `usage` summed over what
        runs (`cpu` in processors; `memory`, `gpu_memory` and what was received, sent, read and written in bytes), and
        which containers have which `gpus`.
        """
        standings = await self.list()
        engine, reason = None, ""
        try:
            engine = asdict(await self.engine.info())
        except DockerUnavailable as error:
            reason = error.message
        up = [standing for standing in standings if standing.state.up and standing.id is not None]
        usages = await asyncio.gather(*(self._usage(standing) for standing in up))
        gpus: dict[str, list[str]] = {}
        for standing in up:
            for gpu in standing.gpus:
                gpus.setdefault(gpu, []).append(standing.name)
        return {
            "engine": engine,
            "reason": reason,
            "containers": dict(Counter(str(standing.state) for standing in standings)),
            "usage": summed([usage for usage in usages if usage is not None]),
            "gpus": gpus,
        }

    async def health(self, name: str, *, generate: bool = False) -> Health:
        """Ask its models' API now; with `generate` it has to say a word. Written down like any other look.

        Raises:
            ContainerNotFound: it is not configured.
            ContainerUnhealthy: it does not run, or has no port to be asked at.
        """
        await self._here(name)
        self.wanted(name)
        health = await self.works.prober.check(name, generate=generate)
        await self.works.written()
        if health is None:
            standing = self.works.observer.known[name].standing
            raise ContainerUnhealthy(f"Container {name!r} is {stands(standing)}.", way_on(standing))
        return health

    async def history(self, name: str, limit: int = 100) -> Lines:
        """What happened to it, newest first.

        Raises:
            DatabaseError: it cannot be read.
        """
        return await self.works.rows.history(name, limit)

    async def versions(self, name: str) -> Rows:
        """Its image and its models over time, newest first.

        Of each `model` (None: the image), `version`, `reference`, `status` (`current`, `previous`, `failed`), `reason`,
        and `at` in Unix seconds.

        Raises:
            DatabaseError: they cannot be read.
        """
        return await self.works.rows.versions(name)

    def changes(self) -> AsyncIterator[Standing | Happening]:
        """Each change from now on. A reader too slow by 256 changes loses the oldest."""
        return self.works.observer.listen()

    async def feed(self) -> AsyncIterator[Mapping[str, Any]]:
        """Each change from now on as a message for the feed of events.

        `{"type": "container", "at", "container": {…}}` is how one stands now, as `describe` has it; a line of history
        is `{"type": "container_event", "at", "name", "what", "before", "after", "reason", "detail"}`.
        """
        async for change in self.works.observer.listen():
            now = self._corral.clock.wall()
            if isinstance(change, Standing):
                yield {"type": "container", "at": now, "container": describe(change, now)}
            else:
                yield {"type": "container_event", **asdict(change)}

    async def sync(self) -> Standings:
        """Look at the Docker engine and at every container's API, and write down what is there; nothing is changed."""
        await self.works.ready()
        await self.works.reconciler.survey()
        await asyncio.gather(*(self.works.prober.check(name) for name in self.all_wanted()))
        await self.works.written()
        return self.works.observer.standings()

    async def _here(self, name: str) -> None:
        """See to it that `name` is known as it is now.

        Raises:
            ContainerNotFound: it is neither configured nor an orphan.
        """
        works = self.works
        await works.ready()
        if not works.keeper.connected:
            await works.reconciler.survey()
        self._check(name)

    async def _container(self, name: str) -> str:
        await self._here(name)
        seen = self.works.observer.known[name].seen
        if seen is None:
            raise ContainerNotFound(
                f"There is no container for {name!r} on the Docker engine.", f"Make it: corral containers up {name}"
            )
        return seen.id

    async def _explained(self, name: str, standing: Standing) -> Standing:
        """What exactly is different, and a limit that was worked out, as an inspection tells."""
        want = self.all_wanted().get(name)
        if want is None or standing.id is None:
            return standing
        with suppress(ContainerNotFound, DockerUnavailable):
            found = standing
            if want.spec.fitted and standing.memory_limit is None:
                found = replace(found, memory_limit=(await self.engine.inspect(standing.id)).memory)
            if standing.drift:
                drift = plan.drifted(want.spec, await self.engine.describe(standing.id))
                found = replace(found, drift=drift or standing.drift)
            return found
        return standing

    async def _usage(self, standing: Standing) -> Usage | None:
        with suppress(ContainerNotFound, DockerUnavailable):
            return await self.engine.usage(str(standing.id))
        return None

    def _taken(self, model: str) -> int | None:
        """Bytes that a model took on this machine, where it is installed here as well."""
        with suppress(ModelNotFound, StoreError):
            return self._corral.memory.taken(self._corral.registry.get(model).revision.id)
        return None

    def _meant(self, names: Sequence[str]) -> Names:
        """Whom an `up` of these names means: without any all that are enabled."""
        return [*names] or [name for name, want in self.all_wanted().items() if want.up]

    def _check(self, name: str) -> None:
        check_container(name)
        known = {*self.all_wanted(), *self.works.observer.known}
        if name not in known:
            raise _missing(name, known)

    def _check_all(self, names: Sequence[str]) -> None:
        for name in names:
            self.wanted(name)

    def _changed(self, before: Standing, after: Standing) -> None:
        """What is known of one has changed."""


def _missing(name: str, known: Iterable[str]) -> ContainerNotFound:
    close = nearest(name, known, 1)
    hint = f"Did you mean {close[0]}?" if close else f"Describe it in corral.yaml, under containers.{name[:60]}."
    return ContainerNotFound(f"There is no container {name[:60]!r}.", hint, param="container")
