"""What a pipeline takes beside the same calls made by hand, with a fake engine whose calls take 20 ms.

    python -m benchmarks.pipelines [--rounds N] [--check]

This process is Corral, without a server: both ways ask the same loaded engine through the same router. By hand is a
loop of calls, and eight calls at a time; the pipeline does them as runs: planned, journalled, written down, reported. A
run is measured from the order to its end. The two take turns, and printed are the medians of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from corral.app import Corral

TARGETS = {"sequence": 1.1, "fan-out": 1.3}
STEPS = 40
"""Calls of a run, one after the other."""
WAVES = 20
"""Fan-outs of a run, one after the other."""
WIDTH = 8
CALL = 0.020
CONFIG = f"models: {{robot: {{runtime: fake, options: {{reply: a short answer, first_token_ms: {CALL * 1000:g}}}}}}}\n"


def sequence() -> str:
    """A pipeline whose steps wait for each other."""
    steps = [
        f"  s{at}: {{model: robot, prompt: 'say {at}', needs: [{f's{at - 1}' if at else ''}]}}" for at in range(STEPS)
    ]
    return "\n".join(["name: sequence", "steps:", *steps])


def fan_out() -> str:
    """A pipeline of fan-outs, each over eight items, that wait for each other."""
    items = ", ".join(map(str, range(WIDTH)))
    steps = [
        f"  s{at}: {{model: robot, for_each: [{items}], prompt: 'say {{{{ item }}}}', "
        f"needs: [{f's{at - 1}' if at else ''}]}}"
        for at in range(WAVES)
    ]
    return "\n".join(["name: fan-out", "steps:", *steps])


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


async def ask(corral: Corral, said: str) -> None:
    """One call by hand, as the executor makes it: a stream to its end."""
    from corral.routing.generation import Generator

    body = {"model": "robot", "messages": [{"role": "user", "content": said}], "seed": 1, "stream": True}
    stream = await Generator(corral.carrier).open(body | {"stream_options": {"include_usage": True}})
    try:
        async for _ in stream.texts():
            pass
    finally:
        await stream.close()


async def by_hand(corral: Corral, kind: str) -> None:
    if kind == "sequence":
        for at in range(STEPS):
            await ask(corral, f"say {at}")
        return
    for _ in range(WAVES):
        await asyncio.gather(*(ask(corral, f"say {item}") for item in range(WIDTH)))


async def by_pipeline(corral: Corral, source: str) -> None:
    from corral.app.workspace import RunOrder
    from corral.domain.workspace import RunStatus

    run = await corral.workspace.start(RunOrder(project="bench", source=source))
    async for message in corral.workspace.watch(run.id):
        if message["type"] == "end" and message["status"] != RunStatus.COMPLETED:
            raise SystemExit(f"the run ended so: {message['status']}")


async def measure(rounds: int) -> dict[str, list[float]]:
    """The ratios, by kind."""
    from corral.app import Corral
    from corral.config import load
    from corral.domain.workspace import Project

    ratios: dict[str, list[float]] = {kind: [] for kind in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "corral.yaml"
        file.write_text(CONFIG)
        corral = Corral(load({"HOME": folder}, file=file))
        tasks = [corral.traffic.run(), corral.catalog.operations.run()]
        running = [asyncio.ensure_future(task) for task in tasks]
        try:
            await corral.workspace.store.projects.create(Project(id="", name="bench"))
            sources = {"sequence": sequence(), "fan-out": fan_out()}
            for number in range(rounds + 1):
                for kind, source in sources.items():
                    ways = [lambda kind=kind: by_hand(corral, kind), lambda source=source: by_pipeline(corral, source)]
                    first = number % 2
                    taken = {first: await timed(ways[first])}
                    taken[1 - first] = await timed(ways[1 - first])
                    if number:  # the first round loads the engine and imports
                        ratios[kind].append(taken[1] / taken[0])
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await corral.close()
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    asked = parser.parse_args()
    ratios = asyncio.run(measure(asked.rounds))
    missed = False
    for kind, target in TARGETS.items():
        found = statistics.median(ratios[kind])
        missed = missed or found > target
        spread = f"{min(ratios[kind]):.3f} to {max(ratios[kind]):.3f}"
        print(f"{kind:<10} {found:.3f} of the same calls by hand ({spread}); target: at most {target}")
    return int(missed and asked.check)


if __name__ == "__main__":
    sys.exit(main())
