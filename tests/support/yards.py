"""A yard in virtual time: engines that load, answer, sleep, grow, crash and leave, by the decisions of the scheduler.

Every effect is carried out as the supervisor would, and looked at first: one that is not legal fails the test.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from math import inf

from corral.domain.memory import Group, Placement
from corral.domain.states import State
from corral.lifecycle.scheduler import (
    Admit,
    Decision,
    EngineView,
    Evict,
    Hold,
    Load,
    Queue,
    Refuse,
    Wake,
    Yard,
    decide,
    idle,
    next_check,
)


@dataclass(frozen=True)
class Model:
    """A model as it behaves. Seconds, and bytes by device; no placements: it runs on somebody else's machine."""

    name: str
    placements: tuple[Placement, ...] = ()
    load: float = 2.0
    stop: float = 0.5
    answer: float = 1.0
    limit: int | None = 4
    priority: int = 0
    resident: bool = False
    asleep: Mapping[str, int] | None = None
    wake: float = 0.5
    keep: float = inf


@dataclass(eq=False)
class Request:
    """One request: when it came, was admitted, and what became of it."""

    model: str
    at: float
    priority: int
    admitted: float | None = None
    done: float | None = None
    failed: str = ""


@dataclass(eq=False)
class Engine:
    model: Model
    state: State
    placement: Placement
    held: dict[str, int]
    since: float
    last_used: float = 0.0
    ready_at: float = -inf
    yields_to: str = ""
    served: list[Request] = field(default_factory=list)


class Simulation:
    """Run `models` under a budget. `until` moves time; everything that is asked is in `requests` afterwards."""

    def __init__(
        self,
        models: list[Model],
        capacity: Mapping[str, int],
        *,
        groups: tuple[Group, ...] = (),
        patience: float = 20.0,
        loads: int = 2,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.capacity, self.groups, self.patience, self.loads = capacity, groups, patience, loads
        self.now = 0.0
        self.engines: dict[str, Engine] = {}
        self.lines: dict[str, deque[Request]] = {name: deque() for name in self.models}
        self.lost: dict[str, float] = {}
        self.hints: set[str] = set()
        self.requests: list[Request] = []
        self.counts: Counter[str] = Counter()
        self.cold_waits: dict[str, list[float]] = {name: [] for name in self.models}
        self.waits: Mapping[str, str] = {}
        self.grew = False
        self.decisions = 0
        self._cold_since: dict[str, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._recheck = inf
        self._memory_short: Counter[str] = Counter()
        self._placements = {name: model.placements for name, model in self.models.items()}

    # What may happen

    def ask(self, model: str, at: float = 0.0, priority: int | None = None) -> None:
        request = Request(model, at, self.models[model].priority if priority is None else priority)
        self.requests.append(request)
        self._at(at, lambda: self._arrive(request))

    def hint(self, model: str, at: float = 0.0) -> None:
        self._at(at, lambda: self.hints.add(model))

    def crash(self, model: str, at: float) -> None:
        self._at(at, lambda: self._crash(model))

    def unload(self, model: str, at: float) -> None:
        self._at(at, lambda: self._unload(model))

    def grow(self, model: str, at: float, size: int) -> None:
        self._at(at, lambda: self._grow(model, size))

    def too_small(self, model: str) -> None:
        """Its next load finds too little memory; what it needs is known then, and it is tried once more."""
        self._memory_short[model] += 1

    def run(self, until: float = inf) -> None:
        """Let everything happen up to `until`; without end, until nothing more does."""
        while True:
            due = min(self._events[0][0] if self._events else inf, self._recheck)
            if due > until or due == inf:
                return
            assert self.decisions < 100_000, "it never comes to rest"
            self.now = max(self.now, due)
            if self._recheck <= self.now:
                self._recheck = inf
            while self._events and self._events[0][0] <= self.now:
                heappop(self._events)[2]()
            self._settle()

    def yard(self) -> Yard:
        queues = {
            name: Queue(
                name,
                len(line),
                min((r.at for r in line), default=self.now),
                max((r.priority for r in line), default=0),
                self._placements[name],
                hint=not line,
                lost=self.lost.get(name, -inf),
            )
            for name, line in self.lines.items()
            if line or (name in self.hints and name not in self.engines)
        }
        views = {name: self._view(engine) for name, engine in self.engines.items()}
        return Yard(views, queues, self.capacity, self.groups, self.patience, self.loads)

    def held(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for engine in self.engines.values():
            total.update(engine.held)
        return total

    @property
    def waiting(self) -> list[Request]:
        return [request for line in self.lines.values() for request in line]

    # Deciding

    def _settle(self) -> None:
        for effect in idle([self._view(e) for e in self.engines.values()], self.now):
            if not self.lines[effect.model]:
                self._evict(effect)
        yard = self.yard()
        decision = decide(yard, self.now)
        assert decide(yard, self.now) == decision
        self.decisions += 1
        self.waits = decision.waits
        self._recheck = self.now + decision.recheck
        for engine in self.engines.values():
            engine.yields_to = ""
        self._carry_out(decision)
        self._check(decision)
        wait = next_check([self._view(e) for e in self.engines.values()], self.now)
        if wait < inf and not any(self.lines.values()):
            self._recheck = min(self._recheck, self.now + max(wait, 0.001))
        for name, line in self.lines.items():
            engine = self.engines.get(name)
            if line and (engine is None or engine.state is not State.READY):
                self._cold_since.setdefault(name, self.now)
            elif name in self._cold_since:
                self.cold_waits[name].append(self.now - self._cold_since.pop(name))

    def _carry_out(self, decision: Decision) -> None:
        for effect in decision.effects:
            assert effect.reason
            self.counts[type(effect).__name__] += 1
            match effect:
                case Admit(model, count):
                    self._admit(model, count)
                case Load(model, placement):
                    self._load(model, placement)
                case Wake(model):
                    self._wake(model)
                case Evict():
                    self._evict(effect)
                case Hold(model, _, room_for):
                    engine = self.engines[model]
                    assert engine.state is State.READY
                    assert engine.served
                    assert not engine.model.resident
                    assert not any(isinstance(e, Admit) and e.model == model for e in decision.effects)
                    engine.yields_to = room_for
                case Refuse(model):
                    assert effect.hint
                    self._fail(model, "refused")
                    self.hints.discard(model)

    def _admit(self, model: str, count: int) -> None:
        engine = self.engines[model]
        assert engine.state is State.READY
        assert 0 < count <= len(self.lines[model])
        assert engine.model.limit is None or len(engine.served) + count <= engine.model.limit
        for _ in range(count):
            request = max(self.lines[model], key=lambda r: (r.priority, -r.at))
            self.lines[model].remove(request)
            self._serve(engine, request)

    def _serve(self, engine: Engine, request: Request) -> None:
        request.admitted = self.now
        engine.served.append(request)
        self._at(self.now + engine.model.answer, lambda: self._done(engine, request))

    def _load(self, model: str, placement: Placement) -> None:
        assert model not in self.engines
        self._put(model, Engine(self.models[model], State.LOADING, placement, {}, self.now), placement)

    def _wake(self, model: str) -> None:
        engine = self.engines[model]
        assert engine.state is State.SLEEPING
        self._put(model, engine, engine.placement)

    def _put(self, model: str, engine: Engine, placement: Placement) -> None:
        known = self.models[model]
        waking = engine.state is State.SLEEPING
        assert placement in self._placements[model] or waking or not known.placements
        self.engines[model] = engine
        engine.state, engine.held = State.LOADING, dict(placement.devices)
        self.hints.discard(model)
        held = self.held()
        for device in placement.devices:
            assert held[device] <= self.capacity.get(device, inf), f"{device} is over-committed by {model}"
        if placement.devices:
            loading = [e for e in self.engines.values() if e.state is State.LOADING and e.placement.devices]
            assert len(loading) <= self.loads
            assert not self.rivals(model)
        seconds = known.wake if waking else known.load
        self._at(self.now + seconds, lambda: self._loaded(model, engine))

    def _loaded(self, model: str, engine: Engine) -> None:
        if self.engines.get(model) is not engine or engine.state is not State.LOADING:
            return
        if self._memory_short[model] and engine.placement.devices:
            self._memory_short[model] -= 1
            self.counts["short"] += 1
            del self.engines[model]
            grown = {device: size + size // 4 for device, size in engine.placement.devices.items()}
            self._placements[model] = (replace(engine.placement, devices=grown),)
            return
        engine.state, engine.ready_at, engine.last_used = State.READY, self.now, self.now

    def _evict(self, effect: Evict) -> None:
        engine = self.engines[effect.model]
        assert not engine.served, "a busy engine is evicted"
        assert engine.state in (State.READY, State.SLEEPING)
        assert not (engine.model.resident and effect.room_for)
        if self.lines[effect.model]:
            self.lost[effect.model] = self.now
        if effect.to is State.SLEEPING:
            assert engine.state is State.READY
            assert engine.model.asleep is not None
            engine.state = State.SLEEPING
            for device in engine.model.asleep:
                more = engine.model.asleep[device] - engine.held.get(device, 0)
                if more > 0:
                    assert self.held()[device] + more <= self.capacity.get(device, inf)
                    engine.held[device] = engine.model.asleep[device]
            self._at(self.now + engine.model.stop, lambda: self._asleep(engine))
        else:
            self._end(engine)

    def _asleep(self, engine: Engine) -> None:
        if engine.state is State.SLEEPING and engine.model.asleep is not None:
            engine.held = dict(engine.model.asleep)

    def _end(self, engine: Engine) -> None:
        engine.state = State.STOPPING
        self._at(self.now + engine.model.stop, lambda: self._gone(engine))

    def _gone(self, engine: Engine) -> None:
        if self.engines.get(engine.model.name) is engine:
            del self.engines[engine.model.name]

    # Happening

    def _arrive(self, request: Request) -> None:
        engine, line = self.engines.get(request.model), self.lines[request.model]
        free = engine is not None and engine.state is State.READY and not engine.yields_to and not line
        if engine is not None and free and (engine.model.limit is None or len(engine.served) < engine.model.limit):
            self._serve(engine, request)  # the hot path: no decision
        else:
            line.append(request)

    def _done(self, engine: Engine, request: Request) -> None:
        if request in engine.served:
            engine.served.remove(request)
            engine.last_used = request.done = self.now

    def _crash(self, model: str) -> None:
        engine = self.engines.get(model)
        if engine is None or engine.state is State.STOPPING:
            return
        for request in engine.served:
            request.failed, request.done = "crashed", self.now
        engine.served.clear()
        self.lost[model] = self.now
        del self.engines[model]

    def _unload(self, model: str) -> None:
        engine = self.engines.get(model)
        if engine is not None and engine.state in (State.READY, State.SLEEPING) and not engine.served:
            self.lost[model] = self.now
            self._end(engine)

    def _grow(self, model: str, size: int) -> None:
        engine = self.engines.get(model)
        if engine is not None and engine.state is State.READY and engine.held:
            self.grew = True
            engine.held[engine.placement.device] += size

    def _fail(self, model: str, why: str) -> None:
        for request in self.lines[model]:
            request.failed, request.done = why, self.now
        self.lines[model].clear()

    def _at(self, at: float, event: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (at, self._count, event))

    # What must hold

    def _check(self, decision: Decision) -> None:
        for device, size in self.held().items():
            assert self.grew or size <= self.capacity.get(device, inf)
        for name, line in self.lines.items():
            engine = self.engines.get(name)
            if line and not (engine is not None and engine.state is State.LOADING):
                assert decision.waits.get(name), f"nobody says why {name} waits"
        for name, engine in self.engines.items():
            if engine.state is not State.SLEEPING and engine.placement.devices:
                assert not self.rivals(name)

    def rivals(self, model: str) -> list[str]:
        """Who is in memory with `model` and may not be, by the words of `Group` read again."""
        others = [n for n, e in self.engines.items() if e.state is not State.SLEEPING and n != model]
        found = []
        for other in others:
            swap = any(g.swap and {model, other} <= g.members for g in self.groups)
            pushes = any(self._pushes(a, b) for a, b in ((model, other), (other, model)))
            if (swap or pushes) and self.engines[other].placement.devices:
                found.append(other)
        return found

    def _pushes(self, one: str, other: str) -> bool:
        persistent = any(g.persistent and other in g.members for g in self.groups)
        return not persistent and any(g.exclusive and one in g.members and other not in g.members for g in self.groups)

    def _view(self, engine: Engine) -> EngineView:
        model = engine.model
        return EngineView(
            model.name,
            engine.state,
            dict(engine.held),
            len(engine.served),
            model.limit,
            engine.last_used,
            model.keep,
            model.load,
            model.resident,
            model.asleep is not None,
            model.asleep or {},
            engine.placement,
            model.priority,
            engine.ready_at,
            engine.yields_to,
        )


def units(**devices: int) -> Placement:
    """A placement in gigabytes: `units(cuda_0=4, cpu=1)`."""
    return Placement({name.replace("_", ":"): size * 10**9 for name, size in devices.items()})
