"""How long the command line takes to start, over an empty Python, and what the idle server holds in memory.

    python -m benchmarks.startup [--runs N]

Each command runs in a process of its own, in turns, so that a slow moment of the machine falls on all
of them. Printed are the medians and their ratios to `python -c pass`; only the ratios mean anything elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORRAL = str(Path(sys.executable).with_name("corral"))
EMPTY = (sys.executable, "-c", "pass")
COMMANDS: dict[str, tuple[str, ...]] = {
    "python -c pass": EMPTY,
    "corral --version": (CORRAL, "--version"),
    "corral --help": (CORRAL, "--help"),
    "corral list": (CORRAL, "list"),
}
ALLOWED = {"corral --version": 4.0}


def seconds(command: tuple[str, ...], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def measure(runs: int, env: dict[str, str]) -> dict[str, float]:
    """The median seconds of each command."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command, env)  # the first run compiles and reads from the disk
    for _ in range(runs):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command, env))
    return {name: statistics.median(found) for name, found in times.items()}


def resident(env: dict[str, str]) -> int:
    """Bytes of memory that the server holds when it is ready and has loaded nothing."""
    import psutil

    command = (CORRAL, "serve", "--port", "0", "--json")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            json.loads(server.stdout.readline())
            return int(psutil.Process(server.pid).memory_info().rss)
        finally:
            server.send_signal(signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="runs of each command (default: 15)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as home:
        env = {key: value for key, value in os.environ.items() if not key.startswith("CORRAL_")} | {"CORRAL_HOME": home}
        medians = measure(runs, env)
        memory = resident(env)
    floor = medians["python -c pass"]
    failed = False
    for name, median in medians.items():
        ratio, allowed = median / floor, ALLOWED.get(name)
        verdict = "" if allowed is None else f"  (at most {allowed:g}: {'ok' if ratio <= allowed else 'MISSED'})"
        failed = failed or (allowed is not None and ratio > allowed)
        print(f"{name:<18} {median * 1000:7.1f} ms  {ratio:6.2f}{verdict}")
    print(f"server, no engines {memory / 1e6:7.1f} MB resident")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
