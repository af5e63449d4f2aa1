"""Resident memory of the server after a million requests, over the same after ten thousand.

    python -m benchmarks.memory [--requests N] [--check]

Requests are of three kinds in turn: answered, for a model that there is not, and no JSON. The first ten thousand come
over one connection and the others over 16, in parts of some seconds, each with connections of its own. What is printed
on the way is the memory after each part. Target: a ratio of at most 1.1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace

import psutil

from benchmarks.peers import PLAIN, start_corral
from benchmarks.stage import MODEL, Call, Malfunction, Stage, lacking, staged

TARGET = 1.1
FIRST = 10_000
CONNECTIONS = 16
FIRST_PART, PART = 1, 5
"""Seconds."""
SETTLING = 2.0
"""Seconds before memory is looked at: what is written in batches is written by then."""


def kinds(call: Call) -> list[Call]:
    """The calls that are sent in turn; the second and third are refused."""
    absent = call.body.replace(f'"{MODEL}"', '"absent"')
    return [call, replace(call, body=absent), replace(call, body=call.body[:-1])]


def grow(stage: Stage, requests: int, *, plain: bool) -> tuple[list[tuple[int, int]], float]:
    """Requests answered so far and bytes then, at ten thousand and after each part that follows; answers a second."""
    corral = start_corral(stage, stage.upstream(), plain=plain)
    stage.wait(corral.name, corral.port, corral.call(), corral.good)
    process, calls = psutil.Process(corral.pid), kinds(corral.call())
    answered, seconds = 0, 0.0
    found: list[tuple[int, int]] = []
    while answered < requests:
        early = answered < FIRST
        load = stage.load(corral.port, calls, 1 if early else CONNECTIONS, FIRST_PART if early else PART)
        if not load.requests // 2 <= load.refused <= load.requests * 3 // 4:
            raise Malfunction(f"{load.refused} of {load.requests} were refused, where two of three should be.")
        answered += load.requests
        seconds += load.seconds
        if answered >= FIRST:
            time.sleep(SETTLING)
            found.append((answered, process.memory_info().rss))
            print(f"{answered:>10,} requests {found[-1][1] / 1e6:>8.1f} MB", file=sys.stderr, flush=True)
    return found, answered / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000, help=f"in all, more than {FIRST:,}")
    parser.add_argument("--plain", action="store_true", help=PLAIN)
    parser.add_argument("--check", action="store_true", help="exit with 1 when the target is missed")
    given = parser.parse_args()
    if given.requests <= FIRST:
        parser.error(f"--requests must be more than {FIRST}")
    if lacking("nginx", "wrk", "taskset"):
        return 2
    try:
        with staged() as stage:
            found, rate = grow(stage, given.requests, plain=given.plain)
    except (Malfunction, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 2
    (few, early), (many, late) = found[0], found[-1]
    print(f"after {few:>10,} requests {early / 1e6:>8.1f} MB")
    print(f"after {many:>10,} requests {late / 1e6:>8.1f} MB, {rate:.0f} a second")
    print(f"ratio {late / early:.3f} (target: at most {TARGET})")
    return 1 if given.check and late / early > TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
