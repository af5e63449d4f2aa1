"""The containers of the configuration: brought up, kept, watched and taken down. `corral.fleet`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from corral.app.contained import stands, way_on
from corral.app.sight import Orphans, Sight
from corral.domain.ports import silent
from corral.domain.standings import ContainerState, Standing
from corral.errors import Conflict, ContainerNotFound, ContainerUnhealthy, CorralError, DatabaseError, DockerUnavailable
from corral.fleet import plan
from corral.fleet.reconcile import How

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from corral.app.corral import Corral
    from corral.app.sight import Standings
    from corral.config import Settings
    from corral.domain.containers import ContainerEngine
    from corral.domain.ports import Report


class Fleet(Sight):
    """The containers of one `Corral`, as `containers.NAME` in its configuration describes them.

    Creating it does no I/O. Every method that asks the Docker engine raises DockerUnavailable when that does not
    answer, except `list`, `stack` and `history`, which tell what is known.

    Args:
        corral: whose.
        engine: the Docker engine; `corral.docker` when None.
    """

    def __init__(self, corral: Corral, engine: ContainerEngine | None = None) -> None:
        super().__init__(corral, engine)
        self._chores: set[asyncio.Task[Any]] = set()

    async def up(
        self,
        names: Sequence[str] = (),
        *,
        orphans: Orphans | None = None,
        recreate: bool = False,
        wait: bool = True,
        pull: bool = True,
        report: Report = silent,
    ) -> Standings:
        """Make them what the configuration says, and by default wait until their models' APIs answer.

        What could not be brought up is in the result with its reason; the others are up all the same.

        Args:
            names: which; none are all that are enabled.
            orphans: what becomes of those that are no longer configured; None is as `docker.orphans` says.
            recreate: also those that are as they should be are made anew.
            wait: until they are healthy, or it is plain that they will not be.
            pull: images that are not here are fetched, and models that servers lack, as far as is waited.
            report: told how far it is.

        Raises:
            ContainerNotFound: one is not configured.
        """
        self._check_all(names)
        await self.works.ready()
        meant, docker = self._meant(names), self._corral.settings.docker
        asked = plan.Asked(frozenset(names), recreate=recreate, orphans=orphans or docker.orphans)
        with self.works.reconciler.claim(meant):
            everything = await self.works.mended()
            for name in meant:
                self.works.observer.wish(name, True)
            steps = self.works.reconciler.plan(everything, await self.works.rows.yard(), asked)
            how = How(pull=pull, wait=wait, parallel=docker.parallel, report=report)
            wrong = await self.works.reconciler.carry_out(steps, how)
            if pull and wait:
                wrong |= await self._corral.inside.provide([name for name in meant if name not in wrong], report)
            if wait:
                wrong |= await self._all_well([name for name in meant if name not in wrong])
                if self.works.cut_short():  # by now it is known who is well, and what nobody has to go back to
                    await self.works.mended()
        return await self._result(names or self.names(), wrong)

    async def down(self, names: Sequence[str] = (), *, report: Report = silent) -> Standings:
        """Stop and remove their containers; volumes stay. They stay down until `up` or `start`."""
        self._check_all(names)
        await self.works.ready()
        meant, docker = names or self.names(), self._corral.settings.docker
        with self.works.reconciler.claim(meant):
            everything = await self.works.mended()
            for name in meant:
                self.works.observer.wish(name, False)
            steps = self.works.reconciler.plan(
                everything, await self.works.rows.yard(), plan.Asked(frozenset(names), down=True)
            )
            wrong = await self.works.reconciler.carry_out(steps, How(parallel=docker.parallel, report=report))
        return await self._result(meant, wrong)

    async def start(self, name: str, *, wait: bool = True) -> Standing:
        """Start it, made first where it is not there; one that is up is left as it is.

        Raises:
            ContainerNotFound, ImageNotFound, PortTaken, ContainerError: it cannot be started.
            ContainerUnhealthy: it did not become healthy in its time; with the end of its log.
        """
        await self._here(name)
        self.wanted(name)
        async with self.works.reconciler.alone(name):
            self.works.observer.wish(name, True)
            known = await self.works.reconciler.look(name)
            if known.seen is None:
                await self.works.reconciler.create(name, How())
            elif not known.seen.running:
                await self.works.reconciler.start(name, How())
        return await self._settled(name, wait=wait)

    async def stop(self, name: str) -> Standing:
        """End it. It stays down until `start` or `up`."""
        await self._here(name)
        async with self.works.reconciler.alone(name):
            self.works.observer.wish(name, False)
            known = await self.works.reconciler.look(name)
            if known.seen is not None and known.seen.running:
                await self.works.reconciler.stop(name)
        return await self._settled(name, wait=False)

    async def restart(self, name: str, *, wait: bool = True) -> Standing:
        """End it if it is up, and start it; one that was made otherwise than it is configured now is made anew.

        Raises:
            CorralError: as `start`.
        """
        await self._here(name)
        self.wanted(name)
        async with self.works.reconciler.alone(name):
            self.works.observer.wish(name, True)
            known = await self.works.reconciler.look(name)
            if known.seen is None:
                await self.works.reconciler.create(name, How())
            elif known.standing.drift:
                await self.works.reconciler.recreate(name, How(), known.standing.drift[0])
            else:
                await self.works.reconciler.restart(name, How())
        return await self._settled(name, wait=wait)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove its container, an orphan's too; volumes stay.

        Raises:
            ContainerNotFound: there is none.
            Conflict: it is up, and `force` is not given.
        """
        await self._here(name)
        async with self.works.reconciler.alone(name):
            known = await self.works.reconciler.look(name)
            if known.seen is None:
                raise ContainerNotFound(f"There is no container for {name!r} on the Docker engine.")
            if known.seen.running and not force:
                raise Conflict(
                    f"Container {name!r} is up.", f"Stop it first: corral containers stop {name}, or give --force."
                )
            if name in self.all_wanted():
                self.works.observer.wish(name, False)
            await self.works.reconciler.remove(name)
        await self.works.written()

    async def require(self, model: str, name: str) -> None:
        """Refuse a request for `model` while the container that has it is not up.

        Raises:
            ContainerUnhealthy: with the container's state, why, and what to do about it.
        """
        known = self.works.observer.known.get(name)
        if not self.works.keeper.connected:
            try:
                await self.works.ready()
                await self.works.reconciler.survey()
                await self.works.prober.check(name)
            except (DockerUnavailable, DatabaseError):
                return  # nobody knows; whoever asks the container will see
            known = self.works.observer.known.get(name)
        if known is None or known.standing.state in (ContainerState.UNKNOWN, ContainerState.FALLEN_BACK):
            return
        standing = known.standing
        if standing.state.active and model not in standing.missing:
            return
        if standing.state.active:
            raise ContainerUnhealthy(
                f"Container {name!r} does not have {model!r} yet.",
                f"Fetch it: corral containers models pull {name} {model}",
            )
        later = 1.0 if standing.state in (ContainerState.STARTING, ContainerState.WAITING) else None
        raise ContainerUnhealthy(
            f"Model {model!r} is in container {name!r}, which is {stands(standing)}.",
            way_on(standing),
            retry_after=later,
        )

    async def keep(self) -> None:
        """Keep them as they are wanted, until cancelled. Survives Docker going and coming.

        While there is nothing to keep, or `docker.keep` is off, it waits for a configuration that says otherwise.
        """
        await self.works.keep()

    def take_over(self, before: Settings) -> None:
        """The configuration has changed: it is kept to from now on."""
        after = self._corral.settings
        if before.docker != after.docker and self._engine is None and "docker" in self._corral.__dict__:
            self._spawn(self._corral.__dict__.pop("docker").close())
        if before.docker != after.docker or before.containers != after.containers:
            self.works.renew(same_engine=before.docker == after.docker)

    async def close(self) -> None:
        """Write down what is not yet, and close every connection. Containers go on running."""
        if self._chores:
            await asyncio.wait(self._chores)
        if "works" in self.__dict__:
            await self.works.close()
        if self._engine is not None:
            await self._engine.close()
        elif "docker" in self._corral.__dict__:
            await self._corral.docker.close()

    async def _settled(self, name: str, *, wait: bool) -> Standing:
        try:
            if wait:
                await self.works.reconciler.well(name)
        finally:
            await self.works.written()
        return self.works.observer.known[name].standing

    async def _all_well(self, names: Sequence[str]) -> dict[str, CorralError]:
        """Wait for each that runs; who is not well, and why."""

        async def one(name: str) -> None:
            known = self.works.observer.known.get(name)
            if known is not None and known.standing.state.up and not known.standing.state.active:
                try:
                    await self.works.reconciler.well(name)
                except CorralError as error:
                    wrong[name] = error

        wrong: dict[str, CorralError] = {}
        await asyncio.gather(*(one(name) for name in names))
        return wrong

    async def _result(self, names: Sequence[str], wrong: Mapping[str, CorralError]) -> Standings:
        """How these stand now; of those that went wrong, why."""
        await self.works.written()
        known, found = self.works.observer.known, []
        for name in names:
            if name in known:
                standing = known[name].standing
                error = wrong.get(name)
                found.append(standing if error is None else replace(standing, reason=error.message.rstrip(".")))
        return found

    def _changed(self, before: Standing, after: Standing) -> None:
        """Let go of the models of a container that is not up any more: their next request is told why."""
        if before.state.active and not after.state.active and after.state is not ContainerState.UNKNOWN:
            for model, container in self._corral.contained.items():
                if container == after.name:
                    self._spawn(self._let_go(model, f"its container is {after.state}"))

    async def _let_go(self, model: str, reason: str) -> None:
        with suppress(CorralError):
            await self._corral.supervisor.unload(model, force=True, reason=reason)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
