"""Switch to a model that is not in memory, to its first token, over loading it directly in a script.

    python -m benchmarks.switch [--rounds N] [--check]      the installed smollm2, under two names

Corral may use memory for one of the two models. One is asked, then the other: its first token comes after the first has
left. The clock starts when the client sends its request and stops at the first token. Beside it, in turns: a fresh
process that loads the same file with xllamacpp alone (its import of that counts) and asks it the same. Both begin with
the file in the page cache. Target: a ratio of medians of at most 1.2.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.load import bare, first_token, installed
from benchmarks.serving import served

TARGET = 1.2
CONTEXT, SLOTS = 512, 1
MEMORY = 250_000_000
NAMES = ("one", "other")


def flags(home: str) -> dict[str, Any]:
    """The configuration of a Corral that may hold one of two models."""
    from corral.config import load

    return {
        "home": home,
        "store.models_dir": str(load().models_dir),
        "engines.memory": {"cpu": MEMORY},
        "groups.pair": {"members": list(NAMES), "swap": True},  # of one file, their measured memory would be shared
        "engines.patience": 0,
        "runtimes.llamacpp": {"context": CONTEXT, "slots": SLOTS, "device": "cpu"},
        **{f"models.{name}": {"source": "smollm2"} for name in NAMES},
    }


async def switched(address: str, model: str) -> float:
    """Seconds until the first token of `model`, which is not in memory, nor is there room for it."""
    start = time.perf_counter()
    await asyncio.to_thread(first_token, address, "", model)
    return time.perf_counter() - start


async def direct() -> float:
    """Seconds in a fresh process with xllamacpp alone."""
    command = [sys.executable, "-m", "benchmarks.switch", "--once"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"loading directly failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


async def measure(rounds: int) -> dict[str, list[float]]:
    """Both ways in turns; the first two switches, which load what nothing has measured yet, are not counted."""
    taken: dict[str, list[float]] = {"corral": [], "direct": []}
    with tempfile.TemporaryDirectory() as home:
        async with served(flags(home)) as (address, _):
            for number in range(rounds + 2):
                seconds = {"corral": await switched(address, NAMES[number % 2]), "direct": await direct()}
                print(number, seconds, file=sys.stderr, flush=True)
                if number >= 2:
                    for kind, found in seconds.items():
                        taken[kind].append(found)
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--check", action="store_true", help="exit with 1 when the target is missed")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(bare(Path(installed()), CONTEXT, SLOTS), flush=True)
        os._exit(0)  # closing the C++ server is not what is measured
    taken = asyncio.run(measure(given.rounds))
    for kind, times in taken.items():
        print(f"{kind:7} median {statistics.median(times):.3f} s  from {min(times):.3f} to {max(times):.3f}")
    ratio = statistics.median(taken["corral"]) / statistics.median(taken["direct"])
    best = min(taken["corral"]) / min(taken["direct"])
    print(f"ratio   {ratio:.2f}  (target: at most {TARGET}; of the fastest: {best:.2f})")
    return 1 if given.check and ratio > TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
