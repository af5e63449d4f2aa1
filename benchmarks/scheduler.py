"""What a decision about 1,000 models costs for which 10,000 requests wait, over sorting those requests once.

    python -m benchmarks.scheduler [--runs N] [--check]

Decisions are made from queues, one a model, that say how many wait, since when and with what priority; here 1,000 of
them, for ten requests each. What the supervisor spends on keeping them is not in it. Four yards are decided about, in
turns with the reference, in one process: the list of the 10,000 requests sorted by priority and age, which is what a
scheduler could do at the least that looked at each of them. Printed are medians of processor time, so that other work
of the machine counts for little.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Final

from corral.domain.memory import Group, Placement
from corral.domain.states import State
from corral.lifecycle.scheduler import EngineView, Queue, Yard, decide

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS: Final = 1_000
REQUESTS: Final = 10_000
ALLOWED: Final = 0.005
_GB: Final = 10**9
_NOW: Final = 1_000.0


def _queue(number: int, waited: float, chance: random.Random, priority: int = 0) -> Queue:
    size = chance.randint(1, 12) * _GB
    ways = (Placement({f"cuda:{number % 4}": size, "cpu": _GB}), Placement({"cpu": size + _GB}))
    return Queue(f"model-{number}", REQUESTS // MODELS, _NOW - chance.uniform(0, waited), priority, ways)


def _engine(number: int, busy: int) -> EngineView:
    held = {f"cuda:{number % 4}": 4 * _GB, "cpu": _GB}
    return EngineView(
        f"model-{number}", State.READY, held, busy, 4, _NOW - number, load_seconds=3.0, placement=Placement(held)
    )


def yards() -> dict[str, Yard]:
    """The yards, by what is special about them."""
    chance = random.Random(4)
    cold = [_queue(number, 15.0, chance) for number in range(MODELS)]
    aged = [_queue(number, 900.0, chance, number % 3) for number in range(MODELS)]
    capacity = {"cuda:0": 24 * _GB, "cuda:1": 24 * _GB, "cuda:2": 24 * _GB, "cuda:3": 24 * _GB, "cpu": 256 * _GB}
    few = {f"other-{e.model}": e for e in (_engine(n, 2) for n in range(24))}
    idle = {model: _engine(n, 0) for n, model in enumerate(few)}
    half = {engine.model: engine for engine in (_engine(number, 2) for number in range(MODELS // 2))}
    wide = dict.fromkeys(capacity, 1_000 * _GB)
    groups = tuple(Group(frozenset(q.model for q in cold[at : at + 10]), swap=True) for at in range(0, MODELS, 10))
    named = {model: EngineView(model, e.state, e.held, e.in_flight) for model, e in few.items()}
    return {
        "nothing to evict, all wait": Yard(named, {q.model: q for q in cold}, capacity, loads=4),
        "idle engines make room": Yard(
            {model: EngineView(model, e.state, e.held, last_used=e.last_used) for model, e in idle.items()},
            {q.model: q for q in cold},
            capacity,
            loads=4,
        ),
        "aged queues, busy engines are held": Yard(named, {q.model: q for q in aged}, capacity, loads=4),
        "500 engines, a hundred groups": Yard(half, {q.model: q for q in cold}, wide, groups, loads=4),
    }


def _seconds(work: Callable[[], object], runs: int) -> float:
    took = []
    for _ in range(runs):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return statistics.median(took)


def main() -> int:
    """Measure and print; with `--check`, 1 when a decision takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="decisions a round; there are five rounds")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    given = parser.parse_args()
    chance = random.Random(7)
    waiting = [(-chance.randint(0, 3), chance.random(), number) for number in range(REQUESTS)]
    cases: dict[str, Callable[[], object]] = {f"sort {REQUESTS:,} requests": lambda: sorted(waiting)}
    for title, yard in yards().items():
        cases[title] = lambda yard=yard: decide(yard, _NOW)  # type: ignore[misc]  # mypy infers no default
    took: dict[str, list[float]] = {title: [] for title in cases}
    gc.collect()
    for _ in range(5):
        for title, work in cases.items():
            took[title].append(_seconds(work, given.runs))
    medians = {title: statistics.median(values) for title, values in took.items()}
    reference = next(iter(medians.values()))
    for title, seconds in medians.items():
        print(f"{title:40} {seconds * 1000:8.2f} ms   {seconds / reference:6.2f} of the reference")
    slowest = max(list(medians.values())[1:])
    print(f"slowest decision {slowest * 1000:.2f} ms, target under {ALLOWED * 1000:.0f} ms")
    return int(given.check and slowest >= ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
