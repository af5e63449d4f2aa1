"""Who makes room: what memory there is and will be, which engines may leave for a model, and which of them do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from corral.domain.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from corral.domain.memory import Group
    from corral.lifecycle.yard import EngineView, Yard

IN_MEMORY = frozenset({State.LOADING, State.READY, State.SLEEPING, State.STOPPING})
"""The states in which there is an engine."""
_MOMENT = 0.001
"""Seconds for which every engine counts as unused at least."""


@dataclass(slots=True)
class Claim:
    """A model that wants memory, and its place in line.

    `rank` is `priority` and one for each time that its requests have waited for the yard's patience since `since`.
    """

    model: str
    rank: int
    since: float
    priority: int = 0
    hint: bool = False


def kept(engine: EngineView) -> Mapping[str, int]:
    """What the engine will take for as long as nothing is done about it."""
    if engine.state is State.STOPPING:
        return {}
    return engine.asleep if engine.state is State.SLEEPING and engine.sleeps else engine.held


class Ledger:
    """The room on each device that has a limit.

    `now`: nobody holds it, nor was it given away in this decision. `later`: what it will be when all who leave have
    left, less what is promised to those who wait for that. Either is negative where engines have outgrown a device.
    """

    def __init__(self, capacity: Mapping[str, int], engines: Iterable[EngineView]) -> None:
        self.now = dict(capacity)
        self.later = dict(capacity)
        for engine in engines:
            take(self.now, engine.held)
            take(self.later, kept(engine))


def take(room: dict[str, int], devices: Mapping[str, int]) -> None:
    """Less room, by so much; a device without a limit has none to lose."""
    for device, size in devices.items():
        if device in room:
            room[device] -= size


def give(room: dict[str, int], devices: Mapping[str, int]) -> None:
    """More room, by so much."""
    for device, size in devices.items():
        if device in room:
            room[device] += size


def missing(room: Mapping[str, int], need: Mapping[str, int]) -> dict[str, int]:
    """What `room` lacks of `need`, on the devices where it lacks something. Of a device below nothing, nothing fits."""
    return {d: size - room[d] for d, size in need.items() if d in room and size > room[d]}


def fits(room: Mapping[str, int], need: Mapping[str, int]) -> bool:
    """Whether `room` lacks nothing of `need`. As quick as it can be: it is asked several times of all who wait."""
    lacks = False
    for device, size in need.items():
        lacks = lacks or size > room.get(device, inf)
    return not lacks


class Rivals:
    """Which of the models in memory, or on their way, may not be there together with another."""

    def __init__(self, groups: Sequence[Group], present: Iterable[str]) -> None:
        self._groups = groups
        self._of: dict[str, tuple[int, ...]] = {}
        for number, group in enumerate(groups):
            for member in group.members:
                self._of[member] = (*self._of.get(member, ()), number)
        self._present = set(present) if groups else set()
        self._found: dict[tuple[int, ...], list[str]] = {}

    def add(self, model: str) -> None:
        """It is on its way."""
        if self._groups:
            self._present.add(model)
            self._found.clear()

    def of(self, model: str) -> list[str]:
        """Those that would have to leave for `model`, by name."""
        if not self._groups:
            return []
        ours = self._of.get(model, ())
        if ours not in self._found:  # alike for all models of the same groups
            self._found[ours] = sorted(self._apart_from(ours))
        return [other for other in self._found[ours] if other != model]

    def _apart_from(self, ours: tuple[int, ...]) -> set[str]:
        found: set[str] = set()
        for number in ours:
            group = self._groups[number]
            if group.swap:
                found |= self._present & group.members
            if group.exclusive:
                found |= {m for m in self._present - group.members if not self._persists(self._of.get(m, ()))}
        if not self._persists(ours):
            for number, group in enumerate(self._groups):
                if group.exclusive and number not in ours:
                    found |= self._present & group.members
        return found

    def _persists(self, groups: Iterable[int]) -> bool:
        return any(self._groups[number].persistent for number in groups)


class Evictions:
    """The engines of a yard as those who make room, and who of them was taken so far (`taken`: for whom)."""

    def __init__(self, yard: Yard, now: float) -> None:
        self._yard = yard
        self._now = now
        self.engines = {model: e for model, e in yard.engines.items() if e.state in IN_MEMORY}
        self.ledger = Ledger(yard.capacity, self.engines.values())
        self.taken: dict[str, str] = {}
        self._reach: dict[int, dict[str, int]] = {}
        self._above: dict[int, int | None] = {}

    def wanted(self, engine: EngineView) -> bool:
        """Whether anybody is served by it, or will be as soon as it can."""
        if engine.in_flight or engine.state is State.LOADING:
            return True
        queue = self._yard.queues.get(engine.model)
        return queue is not None and not queue.hint

    def standing(self, engine: EngineView) -> int:
        """The priority of those whom it serves. Waiting makes no more of it: its own are served already."""
        queue = self._yard.queues.get(engine.model)
        return engine.priority if queue is None or queue.hint else max(engine.priority, queue.priority)

    def turn_left(self, engine: EngineView, claim: Claim) -> float:
        """Seconds for which it may still serve those who waited for it before the claim of equal priority.

        A turn is over when all are admitted who waited when it became ready, and at the latest after the patience, or
        after as long as it took to load where that is longer: else most of the time would go into loading.
        """
        queue = self._yard.queues.get(engine.model)
        if queue is None or queue.hint or engine.state is not State.READY or claim.priority > self.standing(engine):
            return 0.0
        if queue.since > min(engine.ready_at, claim.since):
            return 0.0
        return max(0.0, engine.ready_at + max(self._yard.patience, engine.load_seconds) - self._now)

    def obstacle(self, engine: EngineView, claim: Claim) -> str:
        """Why the engine cannot be taken for the claim now; empty when it can."""
        if engine.resident:
            return "it is resident: it never makes room"
        if engine.model in self.taken:
            return f"it makes room for {self.taken[engine.model]} already"
        if engine.state is State.STOPPING:
            return "it is leaving already"
        if not self.wanted(engine):
            return ""
        if self.standing(engine) >= claim.rank:
            return f"it {self.doing(engine)}, and {claim.model} does not go before those"
        if engine.state is State.LOADING:
            return "it is loading"
        return "it serves those who waited for it first" if self.turn_left(engine, claim) else ""

    def doing(self, engine: EngineView) -> str:
        """What the engine is at, for a person; goes on from its name, and stays the same while nothing happens."""
        if engine.state is State.LOADING:
            return "is loading"
        if engine.state is State.STOPPING:
            return "is leaving"
        if engine.in_flight:
            return f"is answering {requests(engine.in_flight)}"
        queue = self._yard.queues.get(engine.model)
        if queue is not None and not queue.hint:
            return f"has {requests(queue.count)} waiting"
        return "sleeps" if engine.state is State.SLEEPING else "is idle"

    def unused(self, engine: EngineView) -> float:
        """Seconds since it was last used."""
        return max(_MOMENT, self._now - engine.last_used)

    def worth(self, engine: EngineView, short: Mapping[str, int]) -> float:
        """Seconds of loading lost for each second that it was not used, for its share of what is short."""
        if not short:
            return engine.load_seconds / self.unused(engine)
        holds = kept(engine)
        share = sum(min(holds.get(d, 0), size) for d, size in short.items()) / sum(short.values())
        return engine.load_seconds / self.unused(engine) / share if share > 0 else inf

    def within_reach(self, need: Mapping[str, int], claim: Claim) -> bool:
        """Whether there would be room if all left who do not go before the claim, be it only after a while."""
        if claim.rank not in self._reach:
            room = self._reach[claim.rank] = dict(self.ledger.later)
            for engine in self.engines.values():
                if self.yields(engine, claim.rank):
                    give(room, kept(engine))
        return fits(self._reach[claim.rank], need)

    def yields(self, engine: EngineView, rank: int) -> bool:
        """Whether the engine will sooner or later make room for a claim of that rank, and does for nobody yet."""
        if engine.resident or engine.state is State.STOPPING or engine.model in self.taken:
            return False
        return not self.wanted(engine) or self.standing(engine) < rank

    def lowest_above(self, rank: int) -> int | None:
        """The lowest priority that is served and that a claim of that rank is not above; None when it is above all."""
        if rank not in self._above:
            others = (e for e in self.engines.values() if not e.resident and self.wanted(e))
            self._above[rank] = min((at for e in others if (at := self.standing(e)) >= rank), default=None)
        return self._above[rank]

    def pick(self, claim: Claim, need: Mapping[str, int], rivals: Sequence[EngineView]) -> list[EngineView] | None:
        """The engines to take so that `need` fits and no rival stays, the least loss first; None when that cannot be.

        Those that nobody needs go before those that are held until they have answered. As few as possible are taken.
        """
        if any(self.obstacle(rival, claim) for rival in rivals):
            return None
        room = dict(self.ledger.later)
        for rival in rivals:
            give(room, kept(rival))
        short = missing(room, need)
        if not short:
            return list(rivals)
        must = {rival.model for rival in rivals}
        found = [
            engine
            for engine in self.engines.values()
            if engine.model != claim.model
            and engine.model not in must
            and any(kept(engine).get(device, 0) > 0 for device in short)
            and not self.obstacle(engine, claim)
        ]
        found.sort(key=lambda engine: self._cost(engine, claim, short))
        chosen = self._enough(found, room, need)
        return None if chosen is None else [*rivals, *chosen]

    def surplus(self) -> list[EngineView]:
        """Idle engines to take because engines hold more than there is; fewer than needed when there are no more."""
        over = {device: -size for device, size in self.ledger.later.items() if size < 0}
        if not over:
            return []
        nobody = Claim("", 0, inf)
        found = [
            e
            for e in self.engines.values()
            if not self.wanted(e)
            and not self.obstacle(e, nobody)
            and any(kept(e).get(device, 0) > 0 for device in over)
        ]
        found.sort(key=lambda engine: (self.worth(engine, over), engine.model))
        room = dict(self.ledger.later)
        chosen = self._enough(found, room, dict.fromkeys(over, 0))
        return found if chosen is None else chosen

    def leave(self, chosen: Sequence[EngineView], room_for: str, need: Mapping[str, int]) -> dict[str, State]:
        """Take these, and tell of each that answers nobody whether it ends, or sleeps as there is room for that."""
        ledger = self.ledger
        for engine in chosen:
            self.taken[engine.model] = room_for
            give(ledger.later, kept(engine))
        self._reach.clear()
        spare = dict(ledger.later)
        take(spare, need)
        left = {}
        for engine in sorted((e for e in chosen if not e.in_flight), key=lambda e: -self.worth(e, {})):
            left[engine.model] = State.STOPPING
            if engine.sleeps and engine.state is State.READY:
                more = {d: b - engine.held.get(d, 0) for d, b in engine.asleep.items() if b > engine.held.get(d, 0)}
                if fits(spare, engine.asleep) and fits(ledger.now, more):
                    left[engine.model] = State.SLEEPING
                    take(spare, engine.asleep)
                    take(ledger.later, engine.asleep)
                    take(ledger.now, more)
        return left

    def promise(self, need: Mapping[str, int]) -> None:
        """Nobody else gets this room."""
        take(self.ledger.later, need)
        self._reach.clear()

    def _cost(self, engine: EngineView, claim: Claim, short: Mapping[str, int]) -> tuple[float | str, ...]:
        """What orders the engines that could make room: nobody's, those already held for it, those soonest done."""
        worth = self.worth(engine, short)
        if not self.wanted(engine):
            return (0, 0, 0, 0, worth, engine.model)
        queue = self._yard.queues.get(engine.model)
        work = engine.in_flight + (queue.count if queue else 0)
        return (1, engine.yields_to != claim.model, self.standing(engine), work, worth, engine.model)

    def _enough(
        self, found: Iterable[EngineView], room: dict[str, int], need: Mapping[str, int]
    ) -> list[EngineView] | None:
        chosen = []
        for engine in found:
            short = missing(room, need)
            if not short:
                break
            if any(kept(engine).get(device, 0) > 0 for device in short):
                chosen.append(engine)
                give(room, kept(engine))
        if not fits(room, need):
            return None
        for engine in list(reversed(chosen)):  # the dearest first: later ones may have made it needless
            take(room, kept(engine))
            if fits(room, need):
                chosen.remove(engine)
            else:
                give(room, kept(engine))
        return chosen


def requests(count: int) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} request{'s' * (count != 1)}"
