"""Everything a fleet consists of, put together, and when it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from corral.config import DockerSettings
from corral.db.engine import Database
from corral.domain.containers import ContainerEngine, Seen, Wanted
from corral.domain.ports import Clock
from corral.errors import CorralError, DatabaseError, DockerUnavailable
from corral.fleet.fitting import unknown
from corral.fleet.keeper import Keeper, Parts
from corral.fleet.observing import Observer, is_aside
from corral.fleet.probing import Prober
from corral.fleet.reconcile import Reconciler
from corral.fleet.rows import Rows

_PAUSES = (0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries to read what is written down, each time it fails again; the last for ever after."""

_log = logging.getLogger("corral.containers")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a fleet has everything from. Each is asked anew each time: a configuration may change."""

    engine: Callable[[], ContainerEngine]
    wanted: Callable[[], Mapping[str, Wanted]]
    settings: Callable[[], DockerSettings]
    database: Callable[[], Database]
    yard: Callable[[], str]
    clock: Clock
    taken: Callable[[str], int | None] = unknown


class Works:
    """The parts of a fleet. Creating it does no I/O."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources
        self._loading = asyncio.Lock()
        self._loaded = False
        self._renewed = asyncio.Event()

    @cached_property
    def rows(self) -> Rows:
        """What is written down."""
        return Rows(self._from.database(), self._from.yard, self._from.clock)

    @cached_property
    def observer(self) -> Observer:
        """What is known."""
        return Observer(self.rows, self._from.wanted, self._from.clock)

    @cached_property
    def prober(self) -> Prober:
        """Asks the models' APIs."""
        return Prober(self.observer, self._from.engine, self._from.wanted, self._from.clock, self._from.taken)

    @cached_property
    def reconciler(self) -> Reconciler:
        """Does what is to be done."""
        return Reconciler(self.observer, self.prober, self._from.engine, self._from.wanted, self._from.clock)

    @cached_property
    def parts(self) -> Parts:
        """All of them together, for whoever does more with containers."""
        sources = self._from
        return Parts(
            self.observer,
            self.prober,
            self.reconciler,
            sources.engine,
            sources.wanted,
            sources.settings,
            sources.clock,
        )

    @cached_property
    def keeper(self) -> Keeper:
        """Keeps them, while `keep` runs."""
        return Keeper(self.parts)

    async def ready(self) -> None:
        """See to it that what is written down is known.

        Raises:
            CorralError: it cannot be read; or the configuration of a container cannot be used.
        """
        self._from.wanted()
        async with self._loading:
            if not self._loaded:
                await self.observer.load()
                self._loaded = True

    async def current(self) -> None:
        """See to it that it is known how they stand now, as far as the engine answers.

        Raises:
            CorralError: as `ready`.
        """
        await self.ready()
        if self.keeper.connected or self.keeper.problem:
            return
        try:
            await self.reconciler.survey()
        except DockerUnavailable as error:
            self.observer.unreachable(error.message.rstrip("."))
        await self.written()

    async def mended(self) -> Sequence[Seen]:
        """Every container of the engine, once what was cut short has been brought to an end.

        Raises:
            DockerUnavailable: the engine does not answer.
        """
        everything = await self.reconciler.survey()
        if await self.reconciler.mend(everything):
            everything = await self.reconciler.survey()
        return everything

    def cut_short(self) -> bool:
        """Whether, when it was last looked at, something stood aside for a successor."""
        return any(is_aside(seen) for seen in self.observer.everything)

    async def written(self) -> None:
        """Write down what is new, where nobody does so by himself. That it cannot be is logged."""
        if not self.keeper.running:
            try:
                await self.rows.flush()
            except DatabaseError as error:
                _log.warning("what happened to containers is not written down: %s", error)

    async def keep(self) -> None:
        """Keep them as they are wanted, until cancelled.

        While there is nothing to keep, or `docker.keep` is off, it waits for a configuration that says otherwise.
        """
        while True:
            self._renewed.clear()
            if self._from.settings().keep and await self._anything():
                await self._kept()
            else:
                await self._renewed.wait()

    def renew(self, *, same_engine: bool) -> None:
        """The configuration has changed: it is kept to from now on."""
        if same_engine and "keeper" in self.__dict__ and self.keeper.running:
            self.keeper.renew()
        else:
            self._renewed.set()

    async def close(self) -> None:
        """Write down what is not yet, and send every listener home."""
        if "observer" in self.__dict__:
            self.observer.hush()
            await self.written()

    async def _anything(self) -> bool:
        """Whether there is anything to keep: what is configured, or was and is not removed."""
        try:
            if self._from.wanted():
                return True
        except CorralError:
            return True  # whoever keeps them says what is wrong
        file = self._from.database().file
        if file is not None and not await asyncio.to_thread(file.exists):
            return False
        try:
            return bool(await self.rows.load())
        except CorralError as error:
            _log.warning("whether there are containers to keep cannot be read: %s", error)
            return False

    async def _kept(self) -> None:
        """Keep them until the engine is another one, or they are not to be kept any more."""
        if not await self._begun():
            return
        keeping, renewed = asyncio.ensure_future(self.keeper.run()), asyncio.ensure_future(self._renewed.wait())
        try:
            await asyncio.wait({keeping, renewed}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
        finally:
            keeping.cancel()
            renewed.cancel()
            await asyncio.wait({keeping, renewed})

    async def _begun(self) -> bool:
        """Wait until everything is known that has to be; False when the configuration has changed meanwhile."""
        failures = 0
        while True:
            try:
                await self.ready()
            except CorralError as error:
                # What somebody stopped must not be started: without what is written down, nothing is done.
                _log.error("containers are not kept: %s", error)
            else:
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSES[min(failures, len(_PAUSES) - 1)]):
                    await self._renewed.wait()
                return False
            failures += 1
