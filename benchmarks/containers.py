"""What Corral adds to the Docker engine's own calls, and how soon it knows what happened there.

    python -m benchmarks.containers [--runs N] [--containers N] [--check]

A Docker engine of its own (Linux, root, `docker.io`), with tiny containers; nothing is pulled. Each operation and the
bare calls that it needs are done in turns, so that a slow moment falls on both. Printed are medians and their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from corral.app import Corral
from corral.config import load
from corral.domain.standings import ContainerState
from tests.support.docker import TINY, running
from tests.support.ports import free_port

if TYPE_CHECKING:
    from tests.support.docker import Engine

Call = Callable[[], Awaitable[Any]]

API = "http://docker/v1.41"


def configured(docker: Engine, names: list[str]) -> dict[str, Any]:
    """A fleet of tiny containers that answer at a port each."""
    entries = {}
    for name in names:
        port = free_port()
        entries[name] = {
            "kind": "openai",
            "image": TINY,
            "network": "host",
            "port": port,
            "inside": port,
            "command": ["serve", str(port), "127.0.0.1"],
            "health": "/health",
            "memory": "32MiB",
            "stop_grace": "2s",
        }
    return {"docker": {"host": docker.address}, "containers": entries}


async def taken(call: Call) -> float:
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


async def beside(runs: int, bare: Call, ours: Call, between: Call | None = None) -> tuple[float, float]:
    """Median seconds of each, done in turns; `between` undoes what each has done."""
    both: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs + 1):
        for call, times in zip((bare, ours), both, strict=True):
            times.append(await taken(call))
            if between is not None:
                await between()
    return statistics.median(both[0][1:]), statistics.median(both[1][1:])


async def heard(corral: Corral, docker: Engine, names: list[str]) -> float:
    """Median seconds from `docker kill` having returned to the state that says so."""
    found = []
    for name in names:
        changes = corral.fleet.changes()
        waiting = asyncio.ensure_future(_seen(changes, name))
        await asyncio.sleep(0)
        await asyncio.to_thread(docker.cli, "kill", f"corral-{name}")
        started = time.perf_counter()
        await asyncio.wait_for(waiting, 30)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


async def _seen(changes: Any, name: str) -> None:
    down = {ContainerState.KILLED, ContainerState.WAITING, ContainerState.EXITED}
    async for change in changes:
        if change.name == name and getattr(change, "state", None) in down:
            return


async def measure(docker: Engine, corral: Corral, names: list[str], runs: int) -> dict[str, tuple[float, float, float]]:
    """Seconds of the bare calls, seconds of ours, and the ratio that is allowed, by operation."""
    fleet, one = corral.fleet, names[0]
    connector = aiohttp.UnixConnector(str(docker.socket))
    async with aiohttp.ClientSession(connector=connector) as client:

        async def call(method: str, path: str) -> Any:
            async with client.request(method, f"{API}{path}") as answer:
                body = await answer.read()
                assert answer.status < 400, (answer.status, body)
                return json.loads(body) if body else None

        def lists() -> Awaitable[Any]:
            return call("GET", "/containers/json?all=1")

        async def stopped() -> None:
            await fleet.stop(one)

        async def started() -> None:
            await fleet.start(one, wait=False)

        place = f"/containers/corral-{one}"
        found = {
            "list": (*await beside(runs, lists, fleet.list), 1.5),
            "status": (*await beside(runs, lambda: call("GET", f"{place}/json"), lambda: fleet.status(one)), 1.5),
            "menu refresh (list and usage of one)": (
                *await beside(
                    3,
                    lambda: asyncio.gather(lists(), call("GET", f"{place}/stats?stream=0")),
                    lambda: asyncio.gather(fleet.list(), fleet.usage(one)),
                ),
                1.5,
            ),
            "reconcile with nothing to do": (*await beside(runs, lists, lambda: fleet.up(wait=False)), 3.0),
        }
        await stopped()
        found["start"] = (
            *await beside(max(3, runs // 4), lambda: call("POST", f"{place}/start"), started, stopped),
            1.5,
        )
        await started()
        found["stop"] = (
            *await beside(max(3, runs // 4), lambda: call("POST", f"{place}/stop?t=2"), stopped, started),
            1.5,
        )
        return found


async def run(docker: Engine, home: Path, count: int, runs: int) -> bool:
    names = [f"c{number:02}" for number in range(count)]
    (home / "corral.yaml").write_text(json.dumps(configured(docker, names)))
    env = {"HOME": str(home), "CORRAL_HOME": str(home)}
    corral = Corral(load(env, cwd=home), env=env)
    begun = time.perf_counter()
    keeping = asyncio.ensure_future(corral.fleet.keep())
    try:
        await corral.fleet.up()
        print(f"{count} containers up and healthy after {time.perf_counter() - begun:.1f} s")
        found = await measure(docker, corral, names, runs)
        latency = await heard(corral, docker, names[: min(10, count)])
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await corral.close()
    good = True
    for what, (bare, ours, allowed) in found.items():
        ratio = ours / bare
        good &= ratio <= allowed
        verdict = "ok" if ratio <= allowed else "MISSED"
        figures = f"bare {bare * 1e3:7.1f} ms  ours {ours * 1e3:7.1f} ms  {ratio:5.2f}"
        print(f"{what:<38} {figures}  (at most {allowed:g}: {verdict})")
    good &= latency < 1
    print(f"an event is in the state after {latency * 1e3:.1f} ms (at most 1 s: {'ok' if latency < 1 else 'MISSED'})")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="runs of each operation (default: 20)")
    parser.add_argument("--containers", type=int, default=50, help="containers of the fleet (default: 50)")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    given = parser.parse_args()
    with running() as docker, tempfile.TemporaryDirectory() as home:
        docker.image(TINY)
        print(f"Docker {docker.json('version')['Server']['Version']}")
        good = asyncio.run(run(docker, Path(home), given.containers, given.runs))
    return 0 if good or not given.check else 1


if __name__ == "__main__":
    raise SystemExit(main())
