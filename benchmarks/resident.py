"""What the scheduler adds to a request for a model that is in memory, while others wait for theirs.

    python -m benchmarks.resident [--requests N] [--waiting N] [--check]

The engine is a value and answers at once, so that nothing is measured but the supervisor: from asking for the engine to
having it, and giving it back. Some models wait all the while for memory that nobody has. Beside it the same with
an empty lock of asyncio, which is the least that anything shared costs. Target: a p50 of under 0.2 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from corral.domain.memory import Placement
from corral.domain.ports import Availability, Endpoint, Footprint, LaunchSpec, Report, SessionFacts
from corral.kit.clock import SystemClock
from corral.lifecycle.engines import Engine, Launch, NoGauge, Rules
from corral.lifecycle.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

TARGET = 0.2
CLIENTS = 16
_TURNS = 100
"""Of the loop, until those who wait have been seen to."""


@dataclass(frozen=True)
class NoOptions:
    """There is nothing to choose."""


class Value:
    """An engine and its runtime that are only values."""

    kind = "value"
    options = NoOptions
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities: frozenset[Any] = frozenset()
    endpoint = Endpoint("http://127.0.0.1:9/v1")
    facts = SessionFacts(slots=CLIENTS + 1, device="cpu")

    async def probe(self) -> Availability:
        return Availability(usable=True)

    def demand(self, spec: LaunchSpec) -> None:
        return None

    async def start(self, spec: LaunchSpec, report: Report) -> Value:
        return self

    async def healthy(self) -> bool:
        return True

    async def footprint(self) -> Footprint:
        return Footprint({"cpu": 1})

    def processes(self) -> Sequence[int]:
        return ()

    async def ended(self) -> str:
        await asyncio.Event().wait()
        return ""

    def log(self) -> Sequence[str]:
        return ()

    async def stop(self, grace: float) -> None:
        return None


class OneByte(NoGauge):
    """There is memory for one model."""

    def capacity(self, *, settled: bool) -> Mapping[str, int]:
        return {"cpu": 1}


async def plan(model: str) -> Launch:
    return Launch(Value(), LaunchSpec(model, NoOptions()), inf, (Placement({"cpu": 1}),))


async def timed(count: int, once: Callable[[], Awaitable[float]]) -> list[float]:
    """Milliseconds of each call, of several clients at once; `once` adds what it took."""
    taken: list[float] = []

    async def client() -> None:
        taken.extend([await once() * 1000 for _ in range(count // CLIENTS)])

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return taken


async def measure(requests: int, waiting: int) -> dict[str, list[float]]:
    """Milliseconds by way."""
    supervisor = Supervisor(plan, SystemClock(), rules=Rules(queue=waiting + requests, patience=inf), gauge=OneByte())
    running = asyncio.create_task(supervisor.run())
    busy = await supervisor.acquire("here")  # so that it does not make room for the others
    others = [asyncio.ensure_future(supervisor.acquire(f"waits{number}")) for number in range(waiting)]
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if sum(status.waiting for status in supervisor.statuses()) != waiting:
        raise SystemExit("not all of the others wait")

    async def use() -> float:
        begun = time.perf_counter()
        engine: Engine = supervisor.begin("here") or await supervisor.acquire("here")
        asked = time.perf_counter() - begun
        await asyncio.sleep(0)  # it answers, and others ask meanwhile
        begun = time.perf_counter()
        supervisor.end(engine)
        return asked + time.perf_counter() - begun

    lock = asyncio.Lock()

    async def least() -> float:
        begun = time.perf_counter()
        async with lock:
            taken = time.perf_counter() - begun
        await asyncio.sleep(0)
        return taken

    taken = {"lock": await timed(requests, least), "corral": await timed(requests, use)}
    supervisor.end(busy)
    for other in others:
        other.cancel()
    await asyncio.wait(others) if others else None
    running.cancel()
    await asyncio.wait([running])
    await supervisor.close()
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--waiting", type=int, default=50)
    parser.add_argument("--check", action="store_true", help="exit with 1 when the target is missed")
    given = parser.parse_args()
    taken = asyncio.run(measure(given.requests, given.waiting))
    medians = {way: statistics.median(found) for way, found in taken.items()}
    for way, found in taken.items():
        ordered = sorted(found)
        print(f"{way:7} p50 {medians[way]:.4f} ms  p99 {ordered[len(ordered) * 99 // 100]:.4f} ms")
    print(f"ratio   {medians['corral'] / medians['lock']:.1f}  (target: a p50 under {TARGET} ms)")
    return 1 if given.check and medians["corral"] > TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
