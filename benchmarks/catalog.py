"""What ten thousand installed models cost: lists, start-up, a page and an install, over the same with few.

    python -m benchmarks.catalog [--runs N] [--many N] [--check]

Each command runs in a process of its own, the small and the large store in turns, so that a slow moment of the machine
falls on both. Printed are medians and their ratios; only the ratios mean anything elsewhere. The stores hold tiny
manifests that share one blob; nothing but the records is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from corral.catalog import history, manifests
from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.domain.models import Capability, FileEntry, Revision
from corral.kit.clock import SystemClock
from corral.sources.file import File

if TYPE_CHECKING:
    from collections.abc import Callable

CORRAL = str(Path(sys.executable).with_name("corral"))
LIST, PLAIN = (CORRAL, "list", "--json"), (CORRAL, "list")
BLOB = b"GGUF" + bytes(64)


def fill(home: Path, count: int) -> dict[str, str]:
    """A store of `count` models under `home`; the environment in which `corral` uses it."""
    root = home / "models"
    for folder in ("blobs/sha256", "manifests", "names"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(BLOB).hexdigest()
    (root / "blobs" / "sha256" / digest).write_bytes(BLOB)
    for number in range(count):
        revision = Revision(
            source=f"hf:someone/model-{number:05d}-gguf:Q4_K_M",
            format="gguf",
            files=(FileEntry(f"model-{number:05d}.Q4_K_M.gguf", len(BLOB), digest),),
            version=f"{number:040x}",
            licence="apache-2.0",
            capabilities=frozenset({Capability.CHAT, Capability.COMPLETION, Capability.SYSTEM_ROLE}),
            facts={"architecture": "llama", "context_length": 8192, "parameters": 1_000_000, "quantization": "Q4_K_M"},
        )
        name, known = f"someone/model-{number:05d}", revision.id
        record = history.Record(name, known, (history.Step(known, 1.7e9 + number),), revision.source)
        (root / "manifests" / f"{known}.json").write_bytes(manifests.dump(revision))
        (root / "names" / f"{manifests.encode(name)}.json").write_bytes(history.dump(record))
    return {key: item for key, item in os.environ.items() if not key.startswith("CORRAL_")} | {
        "CORRAL_HOME": str(home),
        "NO_COLOR": "1",
    }


def seconds(command: tuple[str, ...], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def start(env: dict[str, str]) -> float:
    """Seconds until `corral serve` says that it answers."""
    command = (CORRAL, "serve", "--port", "0", "--json")
    started = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            json.loads(server.stdout.readline())
            return time.perf_counter() - started
        finally:
            server.send_signal(signal.SIGTERM)


def alternate(runs: int, few: Callable[[], float], many: Callable[[], float]) -> tuple[float, float]:
    """The medians of both, measured in turns after one run of each that does not count."""
    few()
    many()
    pairs = [(few(), many()) for _ in range(runs)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def install(home: Path, runs: int) -> list[float]:
    """Seconds of each of `runs` installs of another tiny model, in one process."""
    clock = SystemClock()
    registry = Registry(home / "models", {"file": File(os.environ)}, clock, Library(()))

    async def work() -> list[float]:
        found = []
        for number in range(runs + 1):
            path = home / f"new-{number}.gguf"
            path.write_bytes(tiny(number))
            begun = time.perf_counter()
            await registry.install(f"file:{path}", name=f"new/{number}")
            found.append(time.perf_counter() - begun)
            await registry.remove(f"new/{number}")
            await asyncio.sleep(0.2)  # until a change can be told from the next by the folder's time stamp
        return found[1:]

    return asyncio.run(work())


def tiny(number: int) -> bytes:
    """A sound GGUF file of one tensor."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("general.name") + struct.pack("<I", 8) + text(f"model {number}")
    head += text("weights") + struct.pack("<IQIQ", 1, 8, 0, 0)
    return head + bytes(-len(head) % 32) + bytes(32)


def page(home: Path) -> float:
    """Median seconds of a page of 50 from the middle of the registry, once it has been read."""
    registry = Registry(home / "models", {}, SystemClock(), Library(()))
    names = registry.names()
    found = []
    for number in range(200):
        begun = time.perf_counter()
        registry.page(names[(number * 50) % len(names)], 50)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="runs of each command (default: 7)")
    parser.add_argument("--many", type=int, default=10_000, help="models of the large store (default: 10000)")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        homes = {count: Path(folder, str(count)) for count in (10, 100, options.many)}
        envs = {count: fill(home, count) for count, home in homes.items()}
        big, runs = envs[options.many], options.runs
        results: list[tuple[str, float | None, tuple[float, float]]] = [
            (
                "list --json, over 100",
                3.0,
                alternate(runs, lambda: seconds(LIST, envs[100]), lambda: seconds(LIST, big)),
            ),
            ("list, over 100", 3.0, alternate(runs, lambda: seconds(PLAIN, envs[100]), lambda: seconds(PLAIN, big))),
            ("serve until it answers, over 10", 1.5, alternate(runs, lambda: start(envs[10]), lambda: start(big))),
        ]
        few, many = install(homes[10], 3 * runs), install(homes[options.many], 3 * runs)
        results.append(("install in one process, over 10", None, (statistics.median(few), statistics.median(many))))
        one = page(homes[options.many])
    missed = False
    for name, allowed, (small, large) in results:
        ratio = large / small
        verdict = "" if allowed is None else f"  (at most {allowed:g}: {'ok' if ratio <= allowed else 'MISSED'})"
        missed = missed or (allowed is not None and ratio > allowed)
        print(f"{name:<34} {small * 1000:8.1f} ms {large * 1000:8.1f} ms  {ratio:6.2f}{verdict}")
    verdict = "ok" if one < 0.001 else "MISSED"
    print(f"{'a page of 50 of the registry':<34} {one * 1000:8.3f} ms  (at most 1 ms: {verdict})")
    return 1 if options.check and (missed or one >= 0.001) else 0


if __name__ == "__main__":
    raise SystemExit(main())
