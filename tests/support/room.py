"""A supervisor with little room, and engines that are only values: what one test tells, all of them see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

from corral.domain.memory import Placement
from corral.domain.ports import Availability, Endpoint, Footprint, LaunchSpec, Report, SessionFacts
from corral.domain.states import State
from corral.errors import EngineStartFailed, NotSupported
from corral.lifecycle.engines import Engine, Launch, Rules
from corral.lifecycle.supervisor import Supervisor
from support.clocks import HandClock, settle


@dataclass(frozen=True)
class NoOptions:
    pass


@dataclass(eq=False)
class Session:
    """An engine that is only a value."""

    yard: Yard
    spec: LaunchSpec
    facts: SessionFacts
    endpoint: Endpoint = field(default_factory=lambda: Endpoint("http://127.0.0.1:9/v1"))
    end: asyncio.Event = field(default_factory=asyncio.Event)
    asleep: bool = False
    sleepless: bool = False
    mortal: bool = False
    said: tuple[str, ...] = ()
    slow: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.slow.set()

    async def healthy(self) -> bool:
        return not self.end.is_set()

    async def footprint(self) -> Footprint:
        return Footprint({})

    def processes(self) -> Sequence[int]:
        return ()

    async def ended(self) -> str:
        await self.end.wait()
        return "crashed"

    def log(self) -> Sequence[str]:
        return self.said

    async def stop(self, grace: float) -> None:
        await self.slow.wait()
        self.end.set()
        self.yard.running.discard(self.spec.model)

    async def sleep(self) -> None:
        if self.sleepless:
            raise NotSupported("it cannot sleep now")
        self.asleep = True

    async def wake(self) -> None:
        if self.sleepless:
            raise EngineStartFailed("it does not wake")
        await self.yard.gate.wait()
        if self.mortal:
            self.end.set()
            await settle()
        self.asleep = False


class Runtime:
    kind = "value"
    options = NoOptions
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities: frozenset = frozenset()

    def __init__(self, yard: Yard) -> None:
        self._yard = yard

    async def probe(self) -> Availability:
        return Availability(usable=True)

    def demand(self, spec: LaunchSpec) -> None:
        return None

    async def start(self, spec: LaunchSpec, report: Report) -> Session:
        yard = self._yard
        yard.starts.append(spec)
        await yard.gate.wait()
        failures = yard.failures.get(spec.model)
        if failures:
            raise failures.pop(0)
        yard.running.add(spec.model)
        yard.most = max(yard.most, len(yard.running))
        facts = SessionFacts(slots=yard.slots, device="cpu", sleeps=yard.sleeps)
        yard.sessions[spec.model] = Session(yard, spec, facts)
        return yard.sessions[spec.model]


class Yard:
    """A supervisor with room for two models of 10 bytes, and a gauge that says what the test says."""

    def __init__(self, room: int = 20, rules: Rules | None = None) -> None:
        self.clock = HandClock()
        self.gate = asyncio.Event()
        self.gate.set()
        self.starts: list[LaunchSpec] = []
        self.running: set[str] = set()
        self.most = 0
        self.sessions: dict[str, Session] = {}
        self.failures: dict[str, list[Exception]] = {}
        self.room = room
        self.most_room = 0
        self.needs: dict[str, int] = {}
        self.takes: dict[str, int] = {}
        self.settled: list[bool] = []
        self.measures = 0
        self.driver = asyncio.Event()
        self.driver.set()
        self.learned: list[tuple[str, Mapping[str, int]]] = []
        self.slots: int | None = 2
        self.sleeps = False
        self.resident: set[str] = set()
        self.priorities: dict[str, int] = {}
        self.supervisor = Supervisor(self.plan, self.clock, rules=rules, gauge=self)

    async def plan(self, model: str) -> Launch:
        need = Placement({"cpu": self.needs.get(model, 10)}, said="on the processor")
        return Launch(
            Runtime(self),
            LaunchSpec(model, NoOptions()),
            inf,
            (need,),
            resident=model in self.resident,
            priority=self.priorities.get(model, 0),
        )

    def capacity(self, *, settled: bool) -> Mapping[str, int]:
        self.settled.append(settled)
        return {"cpu": self.room}

    def limits(self) -> Mapping[str, int]:
        return {"cpu": self.most_room or self.room}

    async def measure(self, engine: Engine) -> Mapping[str, int]:
        self.measures += 1
        await self.driver.wait()
        if self.sessions[engine.model].asleep:
            return {"cpu": 1}
        return {"cpu": self.takes.get(engine.model, engine.placement.devices["cpu"])}

    def measured(self, engine: Engine) -> None:
        self.learned.append((engine.model, engine.peak))

    def too_small(self, launch: Launch, placement: Placement) -> None:
        self.needs[launch.spec.model] = placement.devices["cpu"] + 10

    def state(self, model: str) -> State:
        return next((s.state for s in self.supervisor.statuses() if s.model == model), State.COLD)

    def reason(self, model: str) -> str:
        return next(s.reason for s in self.supervisor.statuses() if s.model == model)

    async def ask(self, model: str, **more: int) -> Engine:
        """A request that is answered at once."""
        engine = await self.supervisor.acquire(model, **more)
        self.supervisor.end(engine)
        return engine

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """While the supervisor looks after idle engines and after time."""
        task = asyncio.create_task(self.supervisor.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
