"""Keeps containers as they are wanted, for as long as it runs: listens to the Docker engine, asks, starts anew.

    connect ─▶ events since the last one ─▶ a full list ─▶ what was cut short is mended ─▶ reconcile
       ▲                                                        │
       └── a pause, longer each time ◀── the engine is gone ◀───┴── each event: inspected, observed, acted upon

State comes from events and from the list after each connection, never from asking the engine again and again; only the
models' own APIs are asked from time to time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corral.config import DockerSettings
from corral.domain.containers import NAME_LABEL, YARD_LABEL, ContainerEngine, Event, Seen, Wanted
from corral.domain.ports import Clock
from corral.errors import ContainerError, ContainerNotFound, CorralError, DockerUnavailable
from corral.fleet import plan
from corral.fleet.looking import looked
from corral.fleet.observing import Known, Observer, is_aside
from corral.fleet.probing import Prober
from corral.fleet.reconcile import How, Reconciler
from corral.fleet.standing import Do, Effect

if TYPE_CHECKING:
    from corral.domain.standings import Standing

_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries to reach the engine, each time it does not answer again; the last for ever after."""
_SETTLE = 0.2
"""Seconds in which an engine tells of what happened while nobody listened, before anything is done about it."""
_OVERLAP = 1.0
"""Seconds of the past that are told again at the first connection: a list takes a moment."""
_SETTLED = 2.0
"""Seconds that are waited for that at most."""
_ENDS = ("kill", "die", "stop")
_LONGEST = 60.0
"""Seconds without any look at what may be due."""
_SILENT = ("exec_", "health_status", "top", "attach", "resize", "archive-path", "export", "commit", "copy", "detach")

_log = logging.getLogger("corral.containers")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a keeper needs."""

    observer: Observer
    prober: Prober
    reconciler: Reconciler
    engine: Callable[[], ContainerEngine]
    wanted: Callable[[], Mapping[str, Wanted]]
    settings: Callable[[], DockerSettings]
    clock: Clock


class Keeper:
    """Keeps the containers of one Corral.

    `connected` while what is known is current; `problem` is why the engine does not answer, `running` whether `run`
    does.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._observer = parts.observer
        self._clock = parts.clock
        self._acts: dict[str, asyncio.Task[None]] = {}
        self._checks: set[asyncio.Task[Any]] = set()
        self._stirred = asyncio.Event()
        self._renewed = asyncio.Event()
        self._last: float | None = None
        self._yard = ""
        self._reached = 0
        self._room = asyncio.Semaphore()
        self.running = False
        self.connected = False
        self.problem = ""
        parts.observer.on_change.append(self._changed)

    async def run(self) -> None:
        """Keep them, until cancelled; what is being done is then left as it is. Containers go on running."""
        self._yard = await self._observer.rows.yard()
        self._room = asyncio.Semaphore(self._parts.settings().parallel)
        self.running, self.problem = True, ""
        works = [self._observer.rows.run(), self._stay_connected(), self._watch()]
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            await asyncio.gather(*tasks)
        finally:
            self.connected = self.running = False
            await _end([*tasks, *self._acts.values(), *self._checks])

    def renew(self) -> None:
        """The configuration has changed: what is being done to containers ends, and all of them are looked at anew."""
        for task in self._acts.values():
            task.cancel()
        self._renewed.set()

    # The engine

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            reached = self._reached
            try:
                await self._connection()
            except CorralError as error:
                failures = 0 if self._reached > reached else failures
                if not failures:
                    _log.warning("containers are not watched for now: %s", error)
                self._away(error.message.rstrip("."))
            await self._clock.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1

    async def _connection(self) -> None:
        """Everything from an engine that answers to one that does not any more.

        Raises:
            CorralError: it does not, or what was seen cannot be taken in.
        """
        engine = self._parts.engine()
        queue: asyncio.Queue[Event | CorralError] = asyncio.Queue()
        since = self._last if self._last is not None else self._clock.wall() - _OVERLAP
        pump = asyncio.ensure_future(_pump(engine, since, queue))
        try:
            await engine.list(self._yard)  # one that is coming up takes questions long before it answers them
            await self._settled(queue)
            everything = await self._parts.reconciler.survey()
            self.problem, self._reached = "", self._reached + 1
            reconciling = asyncio.ensure_future(self._reconciling(everything))
            try:
                while True:
                    await self._take(await _batch(queue))
            finally:
                await _end([reconciling])
        finally:
            self.connected = False
            await _end([pump])

    async def _settled(self, queue: asyncio.Queue[Event | CorralError]) -> None:
        """Take in what happened while nobody listened.

        How something ended then tells nothing of what anybody wished: an engine that comes up again ends what still
        runs of its predecessor just as if somebody had done so by hand.
        """
        until = self._clock.now() + _SETTLED
        while self._clock.now() < until:
            try:
                async with asyncio.timeout(_SETTLE):
                    batch = await _batch(queue)
            except TimeoutError:
                return
            await self._take([event for event in batch if not (self._reached and event.what in _ENDS)])

    def _away(self, reason: str) -> None:
        self.connected, self.problem = False, reason
        for task in self._acts.values():
            task.cancel()
        self._observer.unreachable(reason)

    # Events

    async def _take(self, batch: list[Event]) -> None:
        """Take in events in their order; each container is inspected once, after the last of them."""
        ours = [event for event in batch if self._concerns_us(event)]
        looks = {event.id: event.attributes[NAME_LABEL] for event in ours}
        asking = (self._look(name, id_) for id_, name in looks.items())
        found = dict(zip(looks, await asyncio.gather(*asking), strict=True))
        for event in ours:
            self._last = event.at
            name = event.attributes[NAME_LABEL]
            if self._observer.outdated(name, found[event.id][1]):
                found[event.id] = await self._look(name, event.id)
            seen, asked = found[event.id]
            known = self._observer.known.get(name)
            current = None if known is None else known.seen
            if seen is None:
                if current is None or current.id != event.id:
                    continue
            elif is_aside(seen) or not self._counts(name, seen, current):
                continue
            known = self._observer.observe(name, seen=seen, asked=asked, event=event)
            if event.what in ("update", "rename"):
                await self._compare(known)
            self._act(known)
        self._stirred.set()

    def _concerns_us(self, event: Event) -> bool:
        if event.what.startswith(_SILENT):
            return False
        # Whatever its time: a clock that was set back must not make us deaf until it has caught up.
        return event.attributes.get(YARD_LABEL) == self._yard and NAME_LABEL in event.attributes

    def _counts(self, name: str, seen: Seen, current: Seen | None) -> bool:
        """Whether it is the container of that name, of perhaps two."""
        if current is None or current.id == seen.id:
            return True
        want = self._parts.wanted().get(name)
        return want is None or seen.container == want.spec.container

    async def _look(self, name: str, container: str) -> tuple[Seen | None, int]:
        return await looked(self._observer, self._parts.engine(), name, container)

    async def _compare(self, known: Known) -> None:
        """Look whether somebody has changed it by hand."""
        want, seen = self._parts.wanted().get(known.name), known.seen
        if want is None or seen is None:
            return
        with suppress(ContainerNotFound):
            made = await self._parts.engine().describe(seen.id)
            self._observer.edited(known.name, plan.drifted(want.spec, made))

    # What is due

    def _changed(self, before: Standing, after: Standing) -> None:
        if after.state == before.state:
            return
        self._stirred.set()
        cut_short = any(seen.name == after.name and is_aside(seen) for seen in self._observer.everything)
        if after.state.active and cut_short and self.connected:
            self._keep(self._checks, self._mend())

    async def _mend(self) -> None:
        """Bring to an end what was cut short before this Corral began, now that it is known how."""
        try:
            await self._parts.reconciler.mend(await self._parts.reconciler.survey())
        except CorralError as error:
            _log.warning("what was cut short is not mended: %s", error)

    async def _watch(self) -> None:
        """Ask who is to be asked, and look at what may be due without any news."""
        while True:
            self._stirred.clear()
            if self.connected:
                for name in self._parts.prober.due():
                    self._keep(self._checks, self._check(name))
                for known in list(self._observer.known.values()):
                    if known.wake is not None and known.wake <= self._clock.wall():
                        self._observer.observe(known.name)
                    self._act(known)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait()):
                    await self._stirred.wait()

    def _wait(self) -> float:
        if not self.connected:
            return _LONGEST
        now = self._clock.wall()
        wakes = [known.wake - now for known in self._observer.known.values() if known.wake is not None]
        asked = self._parts.prober.wait()
        return max(0.01, min([*wakes, _LONGEST if asked is None else asked, _LONGEST]))

    async def _check(self, name: str) -> None:
        await self._parts.prober.check(name)
        known = self._observer.known.get(name)
        if known is not None:
            self._act(known)

    def _act(self, known: Known) -> None:
        """Begin with what is due, where nothing is being done to it already."""
        name = known.name
        if known.effects and self.connected and name not in self._acts and not self._parts.reconciler.busy(name):
            task = self._acts[name] = asyncio.ensure_future(self._carry_out(name))
            task.add_done_callback(lambda _: self._acted(name))

    def _acted(self, name: str) -> None:
        self._acts.pop(name, None)
        self._stirred.set()

    async def _carry_out(self, name: str) -> None:
        reconciler = self._parts.reconciler
        async with self._room, reconciler.alone(name):
            known = self._observer.observe(name)  # what was due when it was begun may have been done meanwhile
            for effect in known.effects[:1]:
                try:
                    await self._do(known, effect)
                except CorralError as error:
                    _log.warning("container %s: %s: %s", name, effect.do, error)

    async def _do(self, known: Known, effect: Effect) -> None:
        reconciler, how, name = self._parts.reconciler, How(), known.name
        _log.info("container %s: %s: %s", name, effect.do, effect.reason)
        if effect.do is Do.CREATE:
            await reconciler.create(name, how, effect.reason)
        elif effect.do is Do.START:
            await reconciler.start(name, how, effect.reason)
        elif effect.do is Do.STOP:
            await reconciler.stop(name, effect.reason)
        elif effect.do is Do.RESTART:
            await reconciler.restart(name, how, effect.reason)
        else:
            await reconciler.recreate(name, how, effect.reason)

    # The whole

    async def _reconciling(self, everything: Sequence[Seen]) -> None:
        """Make everything what it shall be: now, and each time the configuration has changed, whatever was begun."""
        while True:
            self._renewed.clear()
            work = asyncio.ensure_future(self._reconcile(everything))
            renewed = asyncio.ensure_future(self._renewed.wait())
            try:
                await asyncio.wait({work, renewed}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
                    await renewed
            except DockerUnavailable:
                return  # the events end too, and it is done again after the next connection
            except CorralError as error:
                _log.warning("containers are not all as they shall be: %s", error)
                await renewed
            finally:
                await _end([work, renewed])
            everything = await self._parts.reconciler.survey()

    async def _reconcile(self, everything: Sequence[Seen]) -> None:
        reconciler, settings = self._parts.reconciler, self._parts.settings()
        try:
            if await reconciler.mend(everything):
                everything = await reconciler.survey()
        except ContainerError as error:
            if isinstance(error, DockerUnavailable):
                raise
            _log.warning("what was cut short is not mended: %s", error)
        steps = reconciler.plan(everything, self._yard, plan.Asked(orphans=settings.orphans))
        with reconciler.claim({step.name for step in steps}):
            self.connected = True  # from now on what is due is done as well; what the plan does is claimed already
            self._stirred.set()
            wrong = await reconciler.carry_out(steps, How(parallel=settings.parallel))
        for name, why in wrong.items():
            _log.warning("container %s: %s", name, why)
        self._stirred.set()

    def _keep(self, where: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        where.add(task)
        task.add_done_callback(where.discard)


async def _pump(engine: ContainerEngine, since: float, queue: asyncio.Queue[Event | CorralError]) -> None:
    try:
        async for event in engine.events(since):
            queue.put_nowait(event)
        queue.put_nowait(DockerUnavailable("The Docker engine ended its events.", "It is asked again."))
    except CorralError as error:
        queue.put_nowait(error)


async def _batch(queue: asyncio.Queue[Event | CorralError]) -> list[Event]:
    """What has come, at least one; an end of the events is raised once all before it are taken."""
    first = await queue.get()
    found: list[Event] = []
    while True:
        if isinstance(first, CorralError):
            if not found:
                raise first
            queue.put_nowait(first)
            return found
        found.append(first)
        if queue.empty():
            return found
        first = queue.get_nowait()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
