"""The one way by which anything becomes known of a container: seen in a list, told by an event, asked, or done.

    event ┐
    list  ├─▶ observe ─▶ standing.stand (pure) ─▶ Known ─▶ row and line of history ─▶ database, a little later
    health┤                                         └────▶ whoever listens
    done  ┘

All of it happens in one loop without waiting, so that there is one writer and nothing in between.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from corral.domain.containers import Seen, Wanted
from corral.domain.standings import ContainerState, Happening, Health, Standing
from corral.fleet import plan, standing
from corral.fleet.desired import url_of
from corral.fleet.standing import Effect, News, Past, Stand
from corral.kit.announcing import Announcer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from types import EllipsisType

    from corral.domain.containers import ContainerSpec, Event
    from corral.domain.ports import Clock
    from corral.fleet.plan import Remembered
    from corral.fleet.rows import Rows
    from corral.fleet.standing import Do

ASIDE = ".before"
"""What the name of a container ends in that makes room for its successor until that is well."""

_TOLD = frozenset({"start", "die", "oom", "kill", "stop", "pause", "unpause", "destroy", "rename", "update", "restart"})
"""Events that are history even where the state stays."""
_WORTH = ("exitCode", "signal", "oldName")
_LOOKED = 60.0
"""Seconds after which the time of the last health check is written down though nothing else has changed."""
_CHANGED = "the configuration has changed since it was made"

Change = Standing | Happening


@dataclass(slots=True)
class Known:
    """One container, as it is known. `effects` are due now; `wake` (Unix seconds) is when to look without any news.

    `seen` None: there is none on the engine, or nobody has looked yet. `drift` in words, as an inspection found it.
    """

    name: str
    standing: Standing
    past: Past = field(default_factory=Past)
    want: Wanted | None = None
    seen: Seen | None = None
    health: Health | None = None
    drift: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    wake: float | None = None
    written: float = 0.0
    asked: int = 0
    """When that was asked which is known, by the observer's count."""


class Observer:
    """What is known of every container. Creating it does no I/O.

    Args:
        rows: where it is written down.
        wanted: what the configuration wants, by name.
        clock: time; its wall is the engine's, as far as this machine is the same.
    """

    def __init__(self, rows: Rows, wanted: Callable[[], Mapping[str, Wanted]], clock: Clock) -> None:
        self.rows = rows
        self._wanted = wanted
        self._clock = clock
        self.known: dict[str, Known] = {}
        self.everything: Sequence[Seen] = ()
        self._asked = 0
        self._announcer: Announcer[Change] = Announcer()
        self.on_change: list[Callable[[Standing, Standing], None]] = []

    async def load(self) -> None:
        """Begin with what is written down.

        Raises:
            DatabaseError: it cannot be read.
        """
        rows = await self.rows.load()
        wanted = self._wanted()
        for name, kept in rows.items():
            if name not in self.known:
                want = wanted.get(name)
                # Nobody wants an orphan to run; that says nothing of when it is configured again.
                said = kept.state is not ContainerState.ORPHAN and (want is None or kept.wanted != want.up)
                wish = kept.wanted if said else None
                self.known[name] = Known(name, kept, standing.recalled(kept, wish), written=self._clock.wall())

    def asking(self) -> int:
        """Somebody is about to ask the engine: when that is, by a count that only goes up."""
        self._asked += 1
        return self._asked

    def outdated(self, name: str, asked: int) -> bool:
        """Whether an answer that was asked for then is older than what is known, or than what was done since."""
        known = self.known.get(name)
        return known is not None and asked < known.asked

    def observe(
        self,
        name: str,
        *,
        seen: Seen | EllipsisType | None = ...,
        asked: int | None = None,
        event: Event | None = None,
        health: Health | None = None,
        gpu_memory: int | None = None,
    ) -> Known:
        """Take in what is new of a container; nothing at all is that time has passed. Never waits.

        Args:
            seen: as the engine shows it; None: there is none any more.
            asked: when that was asked, as `asking` gave it, and not outdated; None: it is so now.
            event: what the engine told of it.
            health: what asking its models' API has shown.
            gpu_memory: bytes that its processes have on GPUs.
        """
        known = self._of(name)
        if seen is not ...:
            if seen is None or known.seen is None or known.seen.id != seen.id:
                known.drift, known.health = (), None
            known.seen, known.asked = seen, self.asking() if asked is None else asked
        if health is not None:
            known.health = health
        now = self._clock.wall()
        known.want = self._wanted().get(name)
        stand = standing.stand(known.want, known.seen, known.past, now, News(event, health, gpu_memory))
        how = "health" if event is None and health is not None else "seen"
        return self._settle(known, stand, now, how if event is None else event.what, event)

    def seen_all(self, everything: Sequence[Seen], yard: str, asked: int) -> None:
        """Take in a full list, which was asked for then: what is in it, and what is not."""
        self.everything = everything
        found = mine(everything, yard, self._wanted())
        for name in {*self._wanted(), *self.known, *found}:
            if self.outdated(name, asked):
                continue  # whoever knows better has said so, or is about to
            seen, known = found.get(name), self.known.get(name)
            before = None if known is None else known.seen
            if seen is not None and before is not None and before.id == seen.id and before.detailed:
                seen = merged(before, seen)
            if known is None or seen != before or not self._at_rest(known):
                self.observe(name, seen=seen, asked=asked)

    def _at_rest(self, known: Known) -> bool:
        """Whether another look at the same thing would show nothing new."""
        same = known.want is self._wanted().get(known.name) and known.past.state not in (None, ContainerState.UNKNOWN)
        return same and not known.effects and (known.wake is None or known.wake > self._clock.wall())

    def unreachable(self, reason: str) -> None:
        """The engine does not answer: nobody knows how they stand."""
        now = self._clock.wall()
        for name in {*self.known, *self._wanted()}:
            known = self._of(name)
            self._settle(known, standing.gone(known.past, reason, now), now, "unreachable")

    def edited(self, name: str, drift: tuple[str, ...]) -> None:
        """An inspection has found it to be different from what it was made as, or that it is not."""
        known = self._of(name)
        known.drift = drift
        self.observe(name)

    def began(self, name: str, do: Do) -> None:
        """Corral begins to do that; what the engine tells of it meanwhile is its own doing."""
        known = self._of(name)
        known.past = standing.began(known.past, do, self._clock.wall())

    def done(
        self,
        name: str,
        what: str,
        reason: str = "",
        *,
        id: str | None = None,  # noqa: A002 # the engine's word
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """It is done: `what` is its word for the history, with its `detail`."""
        known, now = self._of(name), self._clock.wall()
        known.past = standing.done(known.past, now, id)
        if id is not None:
            known.asked = self.asking()
        self._tell(known, Happening(now, name, what, reason=reason, detail=detail or {}))

    def limited(self, name: str, memory: int, reason: str) -> None:
        """Its memory was given a limit that was worked out, in bytes; `reason` says from what."""
        told = f"{memory / 2**30:g} GiB of memory for {reason}"
        line = Happening(self._clock.wall(), name, "limited", reason=told, detail={"memory": memory})
        self._tell(self._of(name), line)

    def failed(self, name: str, reason: str, *, again: bool = True) -> None:
        """It could not be done; with `again` another try is due after a pause, however often that was so already."""
        known, now = self._of(name), self._clock.wall()
        wanted, past = self._wanted().get(name), known.past
        if wanted is not None and again:
            patient = replace(wanted.watch, crashes=sys.maxsize)  # what could not be started has not crashed
            known.past = replace(standing.failed(past, patient, reason, now), crashes=past.crashes)
        else:
            known.past = standing.done(past, now)
        self._tell(known, Happening(now, name, "failed", reason=reason))

    def untouched(self, name: str, reason: str) -> None:
        """Something with it failed before it was begun: it stands as it did."""
        self._tell(self._of(name), Happening(self._clock.wall(), name, "failed", reason=reason))

    def wish(self, name: str, up: bool) -> None:
        """Somebody says whether it shall run."""
        known = self._of(name)
        before, want = known.past, self._wanted().get(name)
        after = standing.wish(before, up, self._clock.wall())
        as_it_was = replace(after, wish=before.wish, wished_at=before.wished_at, wish_before=before.wish_before)
        if as_it_was != before or standing.shall_run(want, after) is not standing.shall_run(want, before):
            known.past = after
            self.observe(name)

    def note(self, name: str, *, previous: str | None) -> None:
        """The image that its last update replaced."""
        known = self._of(name)
        known.standing = replace(known.standing, previous=previous)
        self._write(known, None)

    def forget(self, name: str) -> None:
        """It is neither configured nor there."""
        known = self.known.pop(name, None)
        if known is not None:
            line = Happening(self._clock.wall(), name, "forgotten", before=str(known.standing.state))
            self.rows.forget(name, line)
            self._announcer.tell(replace(known.standing, state=ContainerState.ABSENT, id=None))
            self._announcer.tell(line)

    def remembered(self) -> dict[str, Remembered]:
        """What a plan has to know of the past."""
        now, wanted = self._clock.wall(), self._wanted()
        return {
            name: plan.Remembered(
                known.past.wish,
                standing.held(known.past, wanted[name].watch, now) if name in wanted else "",
                known.drift,
            )
            for name, known in self.known.items()
            if known.past.state is not None
        }

    def standings(self) -> list[Standing]:
        """How each stands: those of the configuration by name, orphans after them."""
        wanted = self._wanted()
        return [self.known[name].standing for name in sorted(self.known, key=lambda name: (name not in wanted, name))]

    def listen(self) -> AsyncIterator[Change]:
        """Every change from now on. A reader too slow by 256 changes loses the oldest."""
        return self._announcer.listen()

    def hush(self) -> None:
        """Send every listener home."""
        self._announcer.tell(None)

    def _of(self, name: str) -> Known:
        known = self.known.get(name)
        if known is None:
            want = self._wanted().get(name)
            container = name if want is None else want.spec.container
            kind = "" if want is None else want.spec.kind
            known = self.known[name] = Known(name, Standing(name, container, kind, ContainerState.ABSENT))
        return known

    def _settle(self, known: Known, stand: Stand, now: float, what: str, event: Event | None = None) -> Known:
        """Make `stand` what is known, write it down and tell of it as far as it is new."""
        before, state_before = known.standing, known.past.state
        known.past, known.effects, known.wake = stand.past, stand.effects, stand.wake
        known.standing = self._standing(known, stand)
        if known.name not in self._wanted() and known.seen is None and stand.state is not ContainerState.UNKNOWN:
            self.forget(known.name)
            return known
        line = None
        if stand.state is not state_before or (event is not None and event.what in _TOLD):
            detail = {} if event is None else {key: event.attributes[key] for key in _WORTH if key in event.attributes}
            told_before = None if state_before is None else str(state_before)
            at = now if event is None else event.at
            line = Happening(at, known.name, what, told_before, str(stand.state), known.standing.reason, detail)
        if line is not None or _plainly(before) != _plainly(known.standing) or now - known.written >= _LOOKED:
            known.written = now
            self._write(known, line)
            if _plainly(before) != _plainly(known.standing):
                self._announcer.tell(known.standing)
                for tell in self.on_change:
                    tell(before, known.standing)
            if line is not None:
                self._announcer.tell(line)
        return known

    def _standing(self, known: Known, stand: Stand) -> Standing:
        want, seen, past, before = self._wanted().get(known.name), known.seen, stand.past, known.standing
        health = known.health
        told = replace(
            before,
            state=stand.state,
            reason=stand.reason,
            since=past.since,
            wanted=standing.shall_run(want, past),
            id=None if seen is None else seen.id,
            exit_code=past.exit_code,
            restarts=past.restarts,
            started_at=past.started_at,
            finished_at=past.finished_at,
            checked_at=past.checked_at,
            drift=self._drift(want, known),
        )
        if seen is not None:
            told = replace(told, container=seen.container, image=seen.image, image_id=seen.image_id or before.image_id)
        if health is not None and (health.models or health.missing or health.healthy):
            told = replace(told, models=health.models, missing=health.missing, version=health.version or told.version)
        if not stand.state.up and stand.state is not ContainerState.UNKNOWN and told.models:
            told = replace(told, models=tuple(replace(model, loaded=False, in_gpu=None) for model in told.models))
        if want is None:
            return told
        spec = want.spec
        if seen is None:
            told = replace(told, container=spec.container, image=spec.image)
        return replace(
            told,
            kind=spec.kind,
            purpose=want.purpose,
            url=url_of(spec),
            port=spec.ports[0].outside if spec.ports else None,
            gpus=spec.gpus,
            memory_limit=_memory_limit(spec, seen, before),
            cpu_limit=spec.cpus,
        )

    def _drift(self, want: Wanted | None, known: Known) -> tuple[str, ...]:
        seen = known.seen
        if want is None or seen is None:
            return ()
        if known.drift:
            return known.drift
        return () if seen.spec == want.spec.fingerprint() else (_CHANGED,)

    def _tell(self, known: Known, line: Happening) -> None:
        state = None if known.past.state is None else str(known.past.state)
        line = replace(line, before=state, after=state)
        self._write(known, line)
        self._announcer.tell(line)

    def _write(self, known: Known, line: Happening | None) -> None:
        self.rows.note(known.standing, None if known.seen is None else known.seen.spec, line)


def _memory_limit(spec: ContainerSpec, seen: Seen | None, before: Standing) -> int | None:
    """What is configured; what was worked out is known from the container alone, and a list does not tell."""
    if not spec.fitted:
        return spec.memory
    if seen is None:
        return None
    return seen.memory if seen.detailed else before.memory_limit


def mine(everything: Iterable[Seen], yard: str, wanted: Mapping[str, Wanted]) -> dict[str, Seen]:
    """Of all containers those that are this Corral's, by their names in the configuration.

    Of two with one name it is the one that has the name on the engine that the configuration says, else the younger.
    """
    found: dict[str, Seen] = {}
    for seen in everything:
        name = seen.name
        if seen.yard != yard or name is None or is_aside(seen):
            continue
        other = found.get(name)
        if other is None or _rank(seen, wanted.get(name)) > _rank(other, wanted.get(name)):
            found[name] = seen
    return found


def is_aside(seen: Seen) -> bool:
    """Whether it has made room for its successor."""
    return seen.container.endswith(ASIDE)


def merged(before: Seen, listed: Seen) -> Seen:
    """What a list shows, with what an inspection has shown of the same container that a list does not tell."""
    if before.running != listed.running:
        return listed
    return replace(
        listed,
        image=before.image,
        exit_code=listed.exit_code if listed.exit_code is not None else before.exit_code,
        oom_killed=before.oom_killed,
        started_at=before.started_at,
        finished_at=before.finished_at,
        error=before.error,
        memory=before.memory,
        detailed=before.detailed,
    )


def _rank(seen: Seen, want: Wanted | None) -> tuple[bool, float]:
    return want is not None and seen.container == want.spec.container, seen.created_at or 0.0


def _plainly(told: Standing) -> Standing:
    """A standing without what changes with every look."""
    return replace(told, checked_at=None)
