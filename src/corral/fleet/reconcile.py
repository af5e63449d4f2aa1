"""What a plan says, done: containers made, started, stopped, made anew, removed. One thing at a time to one container.

A container is made anew beside the one that is there, which steps aside under another name until its successor is well:

    corral-coder ──stop──▶ corral-coder.before ─────────────────────────────▶ removed
                              corral-coder (new) ──start──▶ its API answers ──┘
                                                     └─ it does not: the new one goes, the old one comes back

Should Corral end in between, `mend` brings that to an end: forward where the new one is well, else back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from corral.domain.ports import Progress, Report, silent
from corral.domain.standings import Planned, Step
from corral.errors import ContainerError, ContainerNotFound, ContainerUnhealthy, CorralError, DockerUnavailable
from corral.fleet import aside, images
from corral.fleet.gathering import all_done, gathered
from corral.fleet.looking import looked
from corral.fleet.observing import ASIDE, is_aside, mine
from corral.fleet.plan import phases, plan
from corral.fleet.releasing import given_back, taken
from corral.fleet.standing import Do, ended

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Iterator,
        Mapping,
        Sequence,
    )

    from corral.domain.containers import ContainerEngine, ContainerSpec, ImageInfo, Seen, Wanted
    from corral.domain.ports import Clock
    from corral.domain.standings import Health
    from corral.fleet.observing import Known, Observer
    from corral.fleet.plan import Asked, Remembered
    from corral.fleet.probing import Prober

_LOOK = 0.1
_SLOWER = 1.5
_LONGEST = 2.0
"""Seconds between two looks at a container that is starting, at most."""
_LAST_LINES = 5
_FOREIGN_GRACE = 20.0
"""Seconds to end for a container of which no configuration says how long it may take."""

_log = logging.getLogger("corral.containers")


Gate: TypeAlias = "Callable[[str], Awaitable[None]]"


async def _no_gate(_: str) -> None:
    """Being well is enough."""


@dataclass(frozen=True, slots=True)
class How:
    """How steps are carried out.

    Attributes:
        pull: images that are not here are fetched.
        wait: until what is started is healthy, or it is plain that it will not be.
        parallel: containers that are worked on at once.
        report: told how far it is.
        gate: a last question to what was made anew and is well; if it raises, what was there before comes back.
    """

    pull: bool = True
    wait: bool = False
    parallel: int = 4
    report: Report = silent
    gate: Gate = _no_gate


class Reconciler:
    """Does to containers what is to be done. Creating it does no I/O.

    Args:
        observer: told of everything that is done, before and after.
        prober: tells whether a container is well.
        engine: the Docker engine.
        wanted: what the configuration wants, by name.
        clock: time.
    """

    def __init__(
        self,
        observer: Observer,
        prober: Prober,
        engine: Callable[[], ContainerEngine],
        wanted: Callable[[], Mapping[str, Wanted]],
        clock: Clock,
    ) -> None:
        self._observer = observer
        self._prober = prober
        self._engine = engine
        self._wanted = wanted
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}
        self._claims: Counter[str] = Counter()

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[None]:
        """Keep everybody else in this process from doing anything to that container meanwhile."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield

    @contextmanager
    def claim(self, names: Collection[str]) -> Iterator[None]:
        """Say that a plan for these is being carried out, so that nobody begins with a part of it by himself."""
        self._claims.update(names)
        try:
            yield
        finally:
            self._claims.subtract(names)

    def busy(self, name: str) -> bool:
        """Whether something is being done to it, or is about to be."""
        return self._claims[name] > 0 or self._at_work(name)

    def _at_work(self, name: str) -> bool:
        lock = self._locks.get(name)
        return lock is not None and lock.locked()

    async def survey(self) -> Sequence[Seen]:
        """Look at the engine: one list, and an inspection of each that is not as it was; what counts for a plan.

        Raises:
            DockerUnavailable: the engine does not answer.
        """
        yard, observer = await self._observer.rows.yard(), self._observer
        asked = observer.asking()
        everything = await self._engine().list()
        found = mine(everything, yard, self._wanted())
        fresh = [seen for name, seen in found.items() if not _as_known(seen, observer.known.get(name))]
        details = dict(zip((seen.id for seen in fresh), await gathered(self._inspect, fresh), strict=True))
        observer.seen_all([details.get(seen.id) or seen for seen in everything], yard, asked)
        return everything

    def plan(
        self,
        everything: Sequence[Seen],
        yard: str,
        asked: Asked,
        remembered: Mapping[str, Remembered] | None = None,
    ) -> list[Planned]:
        """The steps that make them what they shall be; who stepped aside for a successor is none of its business."""
        there = [seen for seen in everything if not (seen.yard == yard and is_aside(seen))]
        known = self._observer.remembered() if remembered is None else remembered
        return plan(self._wanted(), there, yard, known, asked)

    async def carry_out(self, steps: Sequence[Planned], how: How) -> dict[str, CorralError]:
        """Do what a plan says, a few containers at a time; what went wrong, by name. The others are done all the same.

        Raises:
            DockerUnavailable: never; it is what went wrong then.
        """
        wrong: dict[str, CorralError] = {}
        room, total, count = asyncio.Semaphore(how.parallel), 0, 0
        groups = phases(steps)
        total = sum(len(group) for group in groups)

        async def one(step: Planned) -> None:
            nonlocal count
            if step.name in wrong:
                return
            async with room:
                how.report(Progress(str(step.step), count, total, step.name))
                try:
                    await self.take(step, how)
                except CorralError as error:
                    wrong[step.name] = error
                count += 1
                how.report(Progress(str(step.step), count, total, step.name))

        for group in groups:
            await all_done(one(step) for step in group)
        for step in steps:
            if step.step is Step.BLOCKED:
                wrong[step.name] = ContainerError(f"Container {step.name!r} is not brought up: {step.reason}.")
        return wrong

    async def take(self, step: Planned, how: How) -> None:
        """Do one step.

        Raises:
            CorralError: it could not be done.
        """
        name = step.name
        async with self.alone(name):
            if step.step is Step.REMOVE:
                await self.remove(name, step.container, step.reason)
            elif step.step is Step.STOP:
                await self.stop(name, step.reason)
            elif step.step is Step.CREATE and self._absent(name):
                await self.create(name, how, step.reason)
            elif step.step is Step.CREATE:  # somebody was quicker
                await self.start(name, how, step.reason)
            elif step.step is Step.RECREATE:
                await self.recreate(name, how, step.reason)
            elif step.step is Step.START:
                await self.start(name, how, step.reason)
            elif step.step is Step.ADOPT:
                await self.look(name)

    async def create(self, name: str, how: How, reason: str = "") -> None:
        """Make it and start it.

        Raises:
            ImageNotFound, Conflict, PortTaken, ContainerError: it could not be.
            ContainerUnhealthy: it does not become well, where that is waited for.
        """
        spec = self._spec(name)
        async with self._doing(name, Do.CREATE):
            image = await images.present(self._engine(), spec, pull=how.pull, report=how.report)
            made = await self._engine().create(spec, await self._observer.rows.yard())
            await self._engine().start(made)
            self._observer.done(name, "created", reason, id=made)
        self._note_image(spec, image)
        await self._look_at(name, made)
        if how.wait:
            await self.well(name)

    async def start(self, name: str, how: How, reason: str = "", do: Do = Do.START) -> None:
        """Start the container that is there.

        Raises:
            PortTaken, ContainerError: it could not be.
            ContainerUnhealthy: it does not become well, where that is waited for.
        """
        container = self._there(name)
        async with self._doing(name, do):
            await self._engine().start(container)
            self._observer.done(name, "started", reason, id=container)
        await self._look_at(name, container)
        if how.wait:
            await self.well(name)

    async def stop(self, name: str, reason: str = "") -> None:
        """End it; nothing where it does not run.

        Raises:
            ContainerError: it could not be.
        """
        container = self._there(name)
        async with self._doing(name, Do.STOP):
            before = await taken(self._engine(), container)
            await self._engine().stop(container, self._grace(name))
            said, detail = given_back(self._wanted().get(name), before, reason)
            self._observer.done(name, "stopped", said, id=container, detail=detail)
        await self._look_at(name, container)

    async def restart(self, name: str, how: How, reason: str = "") -> None:
        """End it if it runs, and start it.

        Raises:
            CorralError: as `stop` and `start`.
        """
        container = self._there(name)
        async with self._doing(name, Do.RESTART):
            await self._engine().stop(container, self._grace(name))
            await self._engine().start(container)
            self._observer.done(name, "restarted", reason, id=container)
        await self._look_at(name, container)
        if how.wait:
            await self.well(name)

    async def remove(self, name: str, container: str | None = None, reason: str = "") -> None:
        """End it and remove it; volumes stay. Nothing where there is none.

        Raises:
            ContainerError: it could not be.
        """
        known = self._observer.known.get(name)
        seen = None if known is None else known.seen
        which = container or (seen.id if seen is not None else None)
        if which is None:
            return
        own = seen is not None and which in (seen.id, seen.container)
        async with self._doing(name, Do.STOP):
            before = await taken(self._engine(), which)
            await self._stop(which, self._grace(name))
            await self._engine().remove(which, force=True)
            for old in self._observer.everything:
                if own and is_aside(old) and old.name == name and old.yard == await self._observer.rows.yard():
                    await self._engine().remove(old.id, force=True)
            said, detail = given_back(self._wanted().get(name), before, reason)
            self._observer.done(name, "removed", said, detail=detail)
        if own:
            self._observer.observe(name, seen=None)

    async def recreate(self, name: str, how: How, reason: str = "") -> None:
        """Make it anew. What was there stays aside until its successor is well, and comes back where that is not.

        Raises:
            ContainerUnhealthy: the new one is not well; where the old one was, that is back.
            CorralError: as `create`; it is as it was.
        """
        spec, known = self._spec(name), self._observer.known.get(name)
        old = None if known is None else known.seen
        if old is None or known is None:
            await self.create(name, how, reason)
            return
        engine, was_well = self._engine(), known.standing.state.active
        async with self._doing(name, Do.RECREATE):
            image = await images.present(self._engine(), spec, pull=how.pull, report=how.report)
            old = await self._step_aside(old, spec, was_well)
            try:
                made = await engine.create(spec, await self._observer.rows.yard())
                if self._shall_run(name):
                    await engine.start(made)
                    await self._look_at(name, made)
                    if was_well:
                        await self.well(name)
                    await how.gate(name)
            except CorralError as error:
                await self._undo(name, old, spec, error)
                raise
            await engine.remove(old.id, force=True)
            self._observer.done(name, "recreated", reason, id=made)
        self._note_image(spec, image)
        if old.image_id and image.id and old.image_id != image.id:
            self._observer.note(name, previous=old.image_id)
        await self._look_at(name, made)
        if how.wait and not was_well and self._shall_run(name):
            await self.well(name)

    async def mend(self, everything: Sequence[Seen]) -> bool:
        """Bring to an end what was cut short while a container was made anew; whether anything was done.

        What cannot be is known of the container, and logged: nobody else waits for it.

        Raises:
            DockerUnavailable: the engine does not answer.
        """
        yard, done = await self._observer.rows.yard(), False
        for old in everything:
            name = old.name
            if old.yard != yard or name is None or not is_aside(old) or self._at_work(name):
                continue
            async with self.alone(name):
                try:
                    done |= await self._mend(name, old)
                except DockerUnavailable:
                    raise
                except CorralError as error:
                    _log.warning("container %s: what was cut short is not mended: %s", name, error)
        return done

    async def _mend(self, name: str, old: Seen) -> bool:
        known = self._observer.known.get(name)
        new = None if known is None else known.seen
        if new is not None and known is not None and known.standing.state.up:
            if not known.standing.state.active:
                return False  # it is starting: whether it will be well is not yet known
            async with self._doing(name, Do.RECREATE):
                await self._engine().remove(old.id, force=True)
                self._observer.done(name, "removed", "its successor is well", id=new.id)
            return True
        async with self._doing(name, Do.RECREATE):
            if new is not None:
                await self._engine().remove(new.id, force=True)
            await self._engine().rename(old.id, old.container.removesuffix(ASIDE))
            self._observer.done(name, "undone", "its successor was never well", id=old.id)
        await self._look_at(name, old.id)
        return True

    async def well(self, name: str) -> Health | None:
        """Wait until it answers; it may lack models that can be fetched into it.

        Raises:
            ContainerUnhealthy: it does not in its time, or has ended; with the end of its log.
        """
        want, pause = self._wanted()[name], _LOOK
        until = self._clock.now() + want.watch.start_timeout
        if not want.spec.ports:
            return None
        while True:
            health = await self._prober.check(name)
            if health is not None and (health.healthy or health.missing):
                return health
            known = await self.look(name)
            if known.seen is None or not known.seen.running or self._clock.now() >= until:
                break
            await self._clock.sleep(pause)
            pause = min(pause * _SLOWER, _LONGEST)
        why = _why(known) or (health.reason if health is not None else "") or "it does not answer"
        raise ContainerUnhealthy(
            f"Container {name!r} did not become healthy: {why}.{await self._last_words(known)}",
            f"See more of it with: corral containers logs {name}",
        )

    async def look(self, name: str) -> Known:
        """Look at it on the engine now.

        Raises:
            DockerUnavailable: the engine does not answer.
        """
        known = self._observer.known.get(name)
        seen = None if known is None else known.seen
        if seen is not None:
            return await self._look_at(name, seen.id)
        want, yard = self._wanted().get(name), await self._observer.rows.yard()
        if want is None:
            return self._observer.observe(name, seen=None)
        found, asked = await looked(self._observer, self._engine(), name, want.spec.container)
        ours = found is not None and found.yard == yard and found.name == name
        return self._observer.observe(name, seen=found if ours else None, asked=asked)

    async def _inspect(self, seen: Seen) -> Seen | None:
        try:
            return await self._engine().inspect(seen.id)
        except ContainerNotFound:
            return None

    async def _look_at(self, name: str, container: str) -> Known:
        seen, asked = await looked(self._observer, self._engine(), name, container)
        return self._observer.observe(name, seen=seen, asked=asked)

    @asynccontextmanager
    async def _doing(self, name: str, do: Do) -> AsyncIterator[None]:
        """What is done inside is Corral's own doing; what goes wrong in it is known of the container."""
        self._observer.began(name, do)
        try:
            yield
        except CorralError as error:
            again = not isinstance(error, DockerUnavailable)  # else everything is looked at anew when it is back
            self._observer.failed(name, error.message.rstrip("."), again=again)
            known = self._observer.known.get(name)
            if known is not None:
                self._observer.observe(name)
            raise
        except asyncio.CancelledError:
            self._observer.done(name, "interrupted", str(do))
            raise

    async def _step_aside(self, old: Seen, spec: ContainerSpec, was_well: bool) -> Seen:
        """Make room; who is brought back if need be: one that was never well has its own predecessor for that.

        Raises:
            Conflict: somebody else's container has the name under which it would step aside.
        """
        engine, before = self._engine(), await aside.before(self._engine(), old)
        if before is not None and not was_well:
            await engine.remove(old.id, force=True)
            return replace(before, container=old.container, running=True)
        if before is not None:
            await engine.remove(before.id, force=True)
        await self._stop(old.id, spec.stop_grace)
        await engine.rename(old.id, f"{old.container}{ASIDE}")
        return old

    async def _undo(self, name: str, old: Seen, spec: ContainerSpec, error: CorralError) -> None:
        """Bring the old container back."""
        engine = self._engine()
        try:
            if not is_aside(await engine.inspect(old.id)):
                return
            await aside.remove_successor(engine, spec.container, old)
            await engine.rename(old.id, old.container)
            if old.running:
                await engine.start(old.id)
            await self._look_at(name, old.id)
        except CorralError as second:
            _log.error("container %s could not be brought back after %s: %s", name, error.message, second)

    async def _stop(self, container: str, grace: float) -> None:
        """End it, whoever it is; one that is gone is ended."""
        try:
            await self._engine().stop(container, grace)
        except ContainerNotFound:
            return

    def _note_image(self, spec: ContainerSpec, image: ImageInfo) -> None:
        self._observer.rows.version(spec.name, image.id, images.reference(spec))

    async def _last_words(self, known: Known) -> str:
        if known.seen is None:
            return ""
        lines = [line.text async for line in self._engine().logs(known.seen.id, lines=_LAST_LINES) if line.text.strip()]
        return f" It last said: {' | '.join(line[:300] for line in lines)}." if lines else ""

    def _spec(self, name: str) -> ContainerSpec:
        return self._wanted()[name].spec

    def _absent(self, name: str) -> bool:
        known = self._observer.known.get(name)
        return known is None or known.seen is None

    def _shall_run(self, name: str) -> bool:
        return self._observer.known[name].standing.wanted

    def _grace(self, name: str) -> float:
        want = self._wanted().get(name)
        return _FOREIGN_GRACE if want is None else want.spec.stop_grace

    def _there(self, name: str) -> str:
        known = self._observer.known.get(name)
        if known is None or known.seen is None:
            raise ContainerNotFound(
                f"There is no container for {name!r} on the Docker engine.", f"Make it: corral containers up {name}"
            )
        return known.seen.id


def _why(known: Known) -> str:
    """Why it is not well; while something is being done to it, its state does not say so yet."""
    seen = known.seen
    if seen is None:
        return "it is gone"
    if not seen.running:
        return "it took too much memory" if seen.oom_killed else ended(seen.exit_code)
    return known.standing.reason


def _as_known(seen: Seen, known: Known | None) -> bool:
    """Whether it is as it was when it was last looked at, as far as a list tells."""
    if known is None:
        return False
    same = known.past.id == seen.id and known.past.running == seen.running
    return same and (seen.running or known.past.finished_at is not None)
