"""Two hundred requests in turn to three models of which two fit, over the same in the best order by hand.

    python -m benchmarks.alternate [--requests N] [--rounds N] [--check]      three copies of the installed smollm2

All requests are sent at once, one to each model in turn, through Corral's HTTP with memory for two of the models. By
hand, with nothing in memory either: those for the first two models at once, and when all are answered those for the
third. Targets: a ratio of medians of at most 1.3, and no request that waits longer than the bound: the patience of the
settings, and what the answers and loads that it may have to wait for take by hand.
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

import aiohttp

from benchmarks.load import installed
from benchmarks.serving import served

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET = 1.3
NAMES = ("first", "second", "third")
PATIENCE = 20.0
TOKENS = 8
OPTIONS = {"context": 512, "slots": 2, "threads": 1, "device": "cpu"}


def copies(folder: Path) -> dict[str, Path]:
    """The model three times, each with another title and so with memory of its own."""
    whole = bytearray(Path(installed()).read_bytes())
    place = whole.index(b"general.name") + len(b"general.name") + 4 + 8
    made = {}
    for number, name in enumerate(NAMES):
        whole[place] = ord("A") + number
        made[name] = folder / f"{name}.gguf"
        made[name].write_bytes(whole)
    return made


def flags(home: Path, budget: int | None) -> dict[str, Any]:
    """The configuration of a Corral whose engines may take so many bytes."""
    return {
        "home": str(home),
        "engines.memory": None if budget is None else {"cpu": budget},
        "engines.patience": PATIENCE,
        "runtimes.llamacpp": OPTIONS,
    }


async def ask(client: aiohttp.ClientSession, address: str, model: str) -> float:
    """One short answer; returns the seconds that the request waited for its model, as its receipt says."""
    body = {"model": model, "max_tokens": TOKENS, "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]}
    async with client.post(f"{address}/v1/chat/completions", json=body) as answer:
        await answer.read()
        if answer.status != 200:
            raise SystemExit(f"{model} answered {answer.status}: {await answer.text()}")
        return int(answer.headers.get("x-corral-wait-ms", "0")) / 1000


async def run(address: str, turns: Sequence[Sequence[str]]) -> tuple[float, float, float]:
    """Seconds for all requests, each turn's sent at once when those before are answered; the longest turn and wait."""
    longest, waits = 0.0, []
    begun = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=900)) as client:
        for models in turns:
            turn = time.perf_counter()
            waits += await asyncio.gather(*(ask(client, address, model) for model in models))
            longest = max(longest, time.perf_counter() - turn)
    return time.perf_counter() - begun, longest, max(waits)


async def room_for_two(home: Path) -> int:
    """Bytes for two of the models, as measured, and half of a third."""
    async with served(flags(home, None)) as (address, gateway), aiohttp.ClientSession() as client:
        for name in NAMES[:2]:
            await ask(client, address, name)
        engines = [status.engine for status in gateway.corral.supervisor.statuses()]
        taken = [await gateway.corral.memory.measure(engine) for engine in engines if engine is not None]
        return sum(devices["cpu"] for devices in taken) * 5 // 4


async def measure(requests: int, rounds: int) -> tuple[list[float], list[float], list[float], float]:
    """Seconds by hand and in turn, waits, and the longest that the larger of the two parts took by hand."""
    in_turn = [NAMES[number % len(NAMES)] for number in range(requests)]
    by_hand = [[name for name in in_turn if name != NAMES[2]], [name for name in in_turn if name == NAMES[2]]]
    hand, corral, waits, longest = [], [], [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        await install(home, copies(Path(folder)))
        budget = await room_for_two(home)
        for number in range(rounds):
            async with served(flags(home, budget)) as (address, _):
                seconds, turn, _ = await run(address, by_hand)
            async with served(flags(home, budget)) as (address, gateway):
                taken, _, wait = await run(address, [in_turn])
                counted = dict(gateway.corral.supervisor.counters)
            print(f"{number}: by hand {seconds:.1f} s, in turn {taken:.1f} s {counted}", file=sys.stderr, flush=True)
            hand.append(seconds)
            corral.append(taken)
            waits.append(wait)
            longest = max(longest, turn)
    return hand, corral, waits, longest


async def install(home: Path, files: dict[str, Path]) -> None:
    """Put the models into a home."""
    from corral.app import Corral
    from corral.config import load

    corral = Corral(load(flags={"home": str(home)}))
    for name, file in files.items():
        await corral.origins.install(f"file:{file}", name=name)
    await corral.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    given = parser.parse_args()
    hand, corral, waits, longest = asyncio.run(measure(given.requests, given.rounds))
    ratio = statistics.median(corral) / statistics.median(hand)
    bound = PATIENCE + 2 * longest
    print(f"by hand median {statistics.median(hand):.1f} s, in turn {statistics.median(corral):.1f} s")
    print(f"ratio   {ratio:.2f}  (target: at most {TARGET})")
    print(f"longest wait {max(waits):.1f} s  (bound: {bound:.1f} s)")
    return 1 if given.check and (ratio > TARGET or max(waits) > bound) else 0


if __name__ == "__main__":
    sys.exit(main())
