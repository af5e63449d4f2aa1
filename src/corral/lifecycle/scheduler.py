"""What to do about engines, decided from values alone: (engines, who waits, memory, time) → effects with reasons.

Nothing here waits, starts or stops anything: `supervisor` carries the effects out, and is the only one to.

Models that are not in memory stand in one line: by rank (priority, and one more for each patience waited), then by who
began first. Each in turn is given room; or it takes room from engines that nobody needs; or, when its rank is above the
priority of those whom an engine serves and that engine has had its turn, from those, once they have answered. What
was promised to one is not given to the next. `eviction` says who leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor, inf
from typing import TYPE_CHECKING

from corral.domain.memory import Placement
from corral.domain.sizes import human
from corral.domain.states import State
from corral.lifecycle.eviction import Claim, Evictions, Rivals, fits, give, kept, missing, requests, take
from corral.lifecycle.yard import (
    Admit,
    Candidate,
    Decision,
    Effect,
    EngineView,
    Evict,
    Explanation,
    Hold,
    Load,
    Queue,
    Refuse,
    Wake,
    Yard,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Admit",
    "Candidate",
    "Decision",
    "Effect",
    "EngineView",
    "Evict",
    "Explanation",
    "Hold",
    "Load",
    "Queue",
    "Refuse",
    "Wake",
    "Yard",
    "decide",
    "explain",
    "idle",
    "next_check",
]

_BUSY_CHECK = 1.0
"""Seconds after which a busy engine is looked at again at the earliest."""
_SOON = 0.001
"""Seconds until a decision is looked at again at the earliest."""
_SAID = 2
"""Engines that are named as holding a device."""


def decide(yard: Yard, now: float) -> Decision:
    """What to do about everyone who waits, now."""
    return _Round(yard, now).decide()


def explain(yard: Yard, model: str, placements: tuple[Placement, ...], now: float) -> Explanation:
    """What would happen to a request for `model` now, and why; nothing is done."""
    queue = yard.queues.get(model)
    if queue is None or queue.hint:
        queue = Queue(model, 0, now, lost=queue.lost if queue else -inf)
    queue = replace(queue, count=queue.count + 1, placements=queue.placements or placements)
    asked = replace(yard, queues={**yard.queues, model: queue})
    hearing = _Round(asked, now, model)
    return hearing.explanation(queue, hearing.decide())


def idle(engines: Iterable[EngineView], now: float) -> list[Evict]:
    """The engines that nobody has used for their time-out, longest unused first. A busy engine is never idle."""
    due = [e for e in engines if e.state is State.READY and not e.in_flight and now - e.last_used >= e.idle_timeout]
    due.sort(key=lambda e: e.last_used)
    return [
        Evict(
            e.model,
            State.STOPPING,
            f"unused for {now - e.last_used:.0f} s, its idle time-out is {e.idle_timeout:.0f} s",
        )
        for e in due
    ]


def next_check(engines: Iterable[EngineView], now: float) -> float:
    """Seconds until `idle` can next name an engine that is ready now; infinity when none ever will.

    A busy engine may become free at any time from now on, so it counts as used now; it is looked at again after a
    second at the earliest, however short its time-out.
    """
    ready = [e for e in engines if e.state is State.READY]
    waits = (max(e.idle_timeout, _BUSY_CHECK) if e.in_flight else e.last_used + e.idle_timeout - now for e in ready)
    return max(0.0, min(waits, default=inf))


@dataclass(slots=True)
class _Wish:
    """What a model in line is to be given: how it is put, the bytes that takes, and which models may not be beside it.

    `aside` says why it is not put better, where that is so.
    """

    queue: Queue
    claim: Claim
    placement: Placement
    need: Mapping[str, int]
    rivals: list[str]
    aside: str


class _Round:
    """One decision while it is made. One request for the model `supposed`, where there is one, is only thought of."""

    def __init__(self, yard: Yard, now: float, supposed: str = "") -> None:
        self._yard = yard
        self._now = now
        self._supposed = supposed
        self._out = Evictions(yard, now)
        self._engines = self._out.engines
        self._rivals = Rivals(yard.groups, (m for m, e in self._engines.items() if e.state is not State.SLEEPING))
        self._coming: set[str] = set()
        self._loads = yard.loads - sum(e.state is State.LOADING and _takes_memory(e) for e in self._engines.values())
        self._fixed = self._for_good()
        self._patience = max(yard.patience, _SOON)
        self._admitted: list[Effect] = []
        self._refused: list[Effect] = []
        self._left: list[Effect] = []
        self._loaded: list[Effect] = []
        self._waits: dict[str, str] = {}
        self._recheck = inf
        self._full = f"no more than {yard.loads} model{'s' * (yard.loads != 1)} may be loading at once"
        self._lacking: dict[tuple[str, int], str] = {}
        self._holders: dict[str, str] = {}

    def decide(self) -> Decision:
        """The decision."""
        self._get_right()
        line: list[tuple[bool, int, float, str]] = []
        served: list[Queue] = []
        for model, queue in self._yard.queues.items():
            engine = self._engines.get(model)
            if engine is not None and engine.state is State.READY:
                served.append(queue)
            elif engine is not None and engine.state is State.LOADING:
                self._waits[model] = "it is loading"
            else:
                since = max(queue.since, queue.lost)
                line.append((queue.hint, -self._rank(queue, since), since, model))
        line.sort()
        for hint, rank, since, model in line:
            queue = self._yard.queues[model]
            self._place(queue, Claim(model, -rank, since, queue.priority, hint))
        for queue in served:
            self._admit(queue)
        effects = (*self._refused, *self._admitted, *self._left, *self._loaded)
        return Decision(effects, self._waits, self._recheck)

    # Those in memory

    def _get_right(self) -> None:
        """Let idle engines go where engines have outgrown what there is."""
        chosen = self._out.surplus()
        left = self._out.leave(chosen, "", {})
        for engine in chosen:
            over = next(d for d, size in self._yard.capacity.items() if size < self._held(d) and d in kept(engine))
            reason = f"engines hold {human(self._held(over))} of {over}, of which they may have "
            reason += f"{human(self._yard.capacity[over])}; {engine.model} {self._out.doing(engine)}"
            self._left.append(Evict(engine.model, left[engine.model], reason))

    def _admit(self, queue: Queue) -> None:
        """Requests for an engine that is ready go to it, as many as it takes, unless it makes room."""
        model = queue.model
        engine = self._engines[model]
        if model in self._out.taken:
            self._waits[model] = f"it makes room for {self._out.taken[model]}, and is loaded again after that"
            return
        room = queue.count if engine.limit is None else max(0, engine.limit - engine.in_flight)
        count = min(queue.count, room)
        if count:
            self._admitted.append(Admit(model, count, "it is in memory"))
        if count < queue.count:
            self._waits[model] = f"{model} answers {requests(engine.in_flight + count)} at once, and no more"

    # Those who want memory

    def _place(self, queue: Queue, claim: Claim) -> None:
        """Give the model room, make room for it, or say why it waits."""
        model = queue.model
        own = self._engines.get(model)
        if not queue.placements or not queue.placements[0].devices:
            if own is not None and own.state is State.STOPPING:
                self._waits[model] = "its last engine is leaving"
            else:
                nowhere = queue.placements[0] if queue.placements else Placement()
                self._loaded.append(Load(model, nowhere, f"{self._asked(queue)}; it takes no memory here"))
            return
        rivals = self._rivals.of(model)
        placement, aside = self._chosen(queue, own, rivals)
        if placement is None:
            hint = "Ask for less (context, layers on the GPU), raise engines.memory, or let what is resident go."
            self._refused.append(Refuse(model, aside, hint))
            return
        if self._loads <= 0:
            self._waits[model] = self._full
            return
        need = placement.devices
        if not all(need.values()):
            need = {device: size for device, size in need.items() if size}
        wish = _Wish(queue, claim, placement, need, rivals, aside)
        if own is not None and own.state is State.SLEEPING:
            self._from_sleep(wish, own)
        if not self._give(wish):
            self._make_room(wish)

    def _give(self, wish: _Wish) -> bool:
        """Give the model what room there is, or is about to be; whether that was enough."""
        model, ledger = wish.queue.model, self._out.ledger
        own = self._engines.get(model)
        enough = fits(ledger.later, wish.need) and all(self._leaves(rival) for rival in wish.rivals)
        whole = enough and not wish.rivals and not self._leaves(model) and fits(ledger.now, wish.need)
        if wish.claim.hint and not whole:
            self._waits[model] = "nobody asks for it yet: it is loaded only into memory that nobody holds"
            return True
        if not enough:
            return False
        self._promise(wish)
        if not whole:
            self._waits[model] = self._why(wish)
            return True
        take(ledger.now, wish.need)
        if own is not None and own.state is State.SLEEPING:
            self._loaded.append(Wake(model, self._asked(wish.queue)))
        else:
            self._loaded.append(Load(model, wish.placement, self._asked(wish.queue) + wish.aside))
        return True

    def _make_room(self, wish: _Wish) -> None:
        """Take room from others, where that may be done; else wait."""
        model, claim, out = wish.queue.model, wish.claim, self._out
        if self._would_yield(wish):
            staying = [self._engines[rival] for rival in wish.rivals if not self._leaves(rival)]
            chosen = out.pick(claim, wish.need, staying)
            if chosen is not None:
                self._take(wish, chosen)
            else:  # soon: nobody behind it in line gets in between
                out.promise(wish.need)
                self._rivals.add(model)
                self._coming.add(model)
                turns = [out.turn_left(engine, claim) for engine in self._engines.values()]
                self._look_again(min((turn for turn in turns if turn > 0), default=inf))
        elif (standing := out.lowest_above(claim.rank)) is not None:
            steps = standing - claim.priority + 1
            self._look_again(steps * self._patience - (self._now - claim.since))
        self._waits[model] = self._why(wish)

    def _would_yield(self, wish: _Wish) -> bool:
        """Whether all who are in the way will make room in the end, by the place in line alone."""
        rank, out = wish.claim.rank, self._out
        for rival in wish.rivals:
            if rival in self._coming or not (self._leaves(rival) or out.yields(self._engines[rival], rank)):
                return False
        own, need = self._engines.get(wish.queue.model), wish.need
        if own is not None and out.yields(own, rank):  # what its own sleeping engine holds is nothing to reach for
            need = dict(need)
            give(need, kept(own))
        return out.within_reach(need, wish.claim)

    def _take(self, wish: _Wish, chosen: list[EngineView]) -> None:
        """Have these engines make room."""
        short = self._lack(wish)
        left = self._out.leave(chosen, wish.queue.model, wish.need)
        for engine in chosen:
            why = f"{wish.queue.model} {short}; {engine.model} {self._out.doing(engine)}"
            if engine.in_flight:
                self._left.append(Hold(engine.model, why, wish.queue.model))
            else:
                why += f", unused for {self._out.unused(engine):.0f} s, and took {engine.load_seconds:.1f} s to load"
                self._left.append(Evict(engine.model, left[engine.model], why, wish.queue.model))
        self._promise(wish)

    def _promise(self, wish: _Wish) -> None:
        """Nobody behind the model in line gets its room, its load, or a place that excludes it."""
        self._loads -= 1
        self._lacking.clear()
        self._holders.clear()
        self._out.promise(wish.need)
        self._rivals.add(wish.queue.model)
        self._coming.add(wish.queue.model)

    def _from_sleep(self, wish: _Wish, own: EngineView) -> None:
        """What a sleeping engine holds already need not be found; where its place is gone for good, it ends."""
        if wish.placement is own.placement:
            holds = kept(own)
            wish.need = {d: size - holds.get(d, 0) for d, size in wish.need.items() if size > holds.get(d, 0)}
            return
        left = self._out.leave([own], own.model, {})
        self._left.append(Evict(own.model, left[own.model], f"it cannot have its place again{wish.aside}", own.model))

    def _chosen(self, queue: Queue, own: EngineView | None, rivals: list[str]) -> tuple[Placement | None, str]:
        """The best way to put the model that can ever be had, and why it is none of those before; or why none can."""
        for rival in rivals:
            other = self._engines.get(rival)
            if other is not None and other.resident and not self._leaves(rival):
                return None, f"it may not be in memory together with {rival}, which is resident"
        room = self._fixed
        if own is not None and own.resident and own.state is State.SLEEPING:
            room = dict(room)
            give(room, kept(own))
        if own is not None and own.state is State.SLEEPING and fits(room, own.placement.devices):
            return own.placement, ""
        short: list[str] = []
        for placement in queue.placements:
            if fits(room, placement.devices):
                return placement, f", as {'; '.join(short)}" if short else ""
            device = next(iter(missing(room, placement.devices)))
            short.append(f"it needs {human(placement.devices[device])} on {device}, {self._at_most(device)}")
        return None, "; ".join(short)

    def _at_most(self, device: str) -> str:
        """How much of a device can ever be had."""
        capacity, room = self._yard.capacity[device], self._fixed[device]
        said = f"where engines may have {human(capacity)}"
        if room == capacity:
            return said
        holders = [m for m, e in self._engines.items() if e.resident and kept(e).get(device, 0) > 0]
        return f"{said}, of which {human(capacity - room)} stay with {', '.join(holders)}"

    def _for_good(self) -> dict[str, int]:
        """The room on each device if everything left that can be made to."""
        room = dict(self._yard.capacity)
        for engine in self._engines.values():
            if engine.resident:
                take(room, kept(engine))
        return room

    # Reasons

    def _asked(self, queue: Queue) -> str:
        """Why a model is loaded."""
        if queue.hint:
            return "it may soon be asked for"
        count = queue.count - (queue.model == self._supposed)
        if not count:
            return "it is not in memory, and nothing else must leave for it"
        return f"{requests(count)} wait{'s' * (count == 1)} for it"

    def _lack(self, wish: _Wish) -> str:
        """What a model lacks, for a person; goes on from its name."""
        ledger = self._out.ledger
        for room in (ledger.now, ledger.later):
            short = missing(room, wish.need)
            if short:
                device = max(short, key=short.__getitem__)
                free = human(max(0, room[device]))
                return f"needs {human(wish.need[device])} of {device}, which has {free} free"
        rivals = [rival for rival in wish.rivals if rival != wish.queue.model]
        return f"may not be in memory together with {', '.join(rivals)}" if rivals else "is ending"

    def _why(self, wish: _Wish) -> str:
        """Why a model waits: what it lacks, and who has that."""
        ledger = self._out.ledger
        short = missing(ledger.now, wish.need) or missing(ledger.later, wish.need)
        if short:
            device = next(iter(short)) if len(short) == 1 else max(short, key=short.__getitem__)
            key = device, wish.need[device]
            if key not in self._lacking:  # many need as much of the same
                free, need = human(max(0, ledger.now[device])), human(wish.need[device])
                self._lacking[key] = f"{device} has {free} free of the {need} it needs; {self._who_holds(device)}"
            return self._lacking[key]
        if wish.rivals:
            return "; ".join(f"{rival} {self._doing(rival)}, and may not be in memory with it" for rival in wish.rivals)
        return "its last engine is leaving"

    def _who_holds(self, device: str) -> str:
        """Those who hold most of a device, and what they are at."""
        if device not in self._holders:
            holders = [e for e in self._engines.values() if e.held.get(device, 0) > 0]
            holders.sort(key=lambda e: (-e.held[device], e.model))
            said = [f"{e.model} {self._doing(e.model)}" for e in holders[:_SAID]]
            more = len(holders) - _SAID
            said += [f"{more} more hold{'s' * (more == 1)} some"] if more > 0 else []
            self._holders[device] = "; ".join(said) or "the rest is set aside for those before it"
        return self._holders[device]

    def _doing(self, model: str) -> str:
        engine = self._engines.get(model)
        if engine is None or model in self._coming:
            return "comes before it"
        doing = self._out.doing(engine)
        if engine.resident:
            return f"{doing} and is resident"
        return f"{doing} and is held" if model in self._out.taken and engine.in_flight else doing

    # Small questions

    def _rank(self, queue: Queue, since: float) -> int:
        """Its priority, and one more for each patience waited."""
        return queue.priority if queue.hint else queue.priority + floor(max(0.0, self._now - since) / self._patience)

    def _leaves(self, model: str) -> bool:
        """Whether there is an engine of the model that is about to be gone."""
        engine = self._engines.get(model)
        return engine is not None and (engine.state is State.STOPPING or model in self._out.taken)

    def _held(self, device: str) -> int:
        return sum(engine.held.get(device, 0) for engine in self._engines.values())

    def _look_again(self, seconds: float) -> None:
        self._recheck = min(self._recheck, max(_SOON, seconds))

    # Explaining

    def explanation(self, queue: Queue, decision: Decision) -> Explanation:
        """What the decision means for one more request in `queue`."""
        model = queue.model
        refused = next((e for e in self._refused if e.model == model), None)
        loaded = next((e for e in self._loaded if e.model == model), None)
        admitted = any(e.model == model for e in self._admitted)
        ours = [e for e in decision.effects if model in (e.model, getattr(e, "room_for", ""))]
        if isinstance(refused, Refuse):
            verdict, reason = "refused", refused.reason
        elif admitted and model not in decision.waits:
            verdict, reason = "answers now", "it is in memory"
        elif loaded is not None:
            verdict, reason = "loads", loaded.reason
        else:
            held = any(isinstance(effect, Hold) for effect in ours)
            makes_room = any(isinstance(effect, Evict) for effect in ours)
            verdict = "loads" if makes_room and not held else "waits"
            reason = decision.waits.get(model, "")
        steps = tuple(f"{type(effect).__name__.lower()} {effect.model}: {effect.reason}" for effect in ours)
        return Explanation(model, verdict, reason, steps, self._candidates(queue))

    def _candidates(self, queue: Queue) -> tuple[Candidate, ...]:
        """Every engine as one that could make room for the queue, those first that would go first."""
        since = max(queue.since, queue.lost)
        claim = Claim(queue.model, self._rank(queue, since), since, queue.priority)
        placement, _ = self._chosen(queue, None, [])
        need = dict((placement or Placement()).devices)
        found = []
        for engine in self._engines.values():
            if engine.model == queue.model or not _takes_memory(engine):
                continue
            chosen = self._out.taken.get(engine.model) == queue.model
            obstacle = "" if chosen else self._out.obstacle(engine, claim)
            worth = self._out.worth(engine, need)
            if chosen:
                reason = "it makes room"
            elif obstacle:
                reason = obstacle
            elif worth == inf:
                reason = "it holds nothing of what is needed"
            else:
                reason = "it need not go: there is room, or others that are worth less make enough"
            found.append(Candidate(engine.model, engine.state, not obstacle, chosen, worth, reason))
        found.sort(
            key=lambda candidate: (not candidate.chosen, not candidate.possible, candidate.worth, candidate.model)
        )
        return tuple(found)


def _takes_memory(engine: EngineView) -> bool:
    """Whether it is anything that counts here; a model of somebody else's machine is not."""
    return bool(engine.held or engine.placement.devices)
