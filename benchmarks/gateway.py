"""Requests a second and p50 through Corral to a static upstream, beside others that do the same on the same core.

    python -m benchmarks.gateway            measure and print
    python -m benchmarks.gateway --check    and exit with 1 when a target is missed

One run starts all of them, each pinned to one core; the load (wrk) and the upstream (nginx) have another. Then they are
measured one after the other, in rounds whose order alternates; what is printed is the median. Ratios are what counts:
the figures themselves belong to the machine. The processor time for a request stands beside: other work on the machine
changes it least. Loopback only. Needs nginx, wrk and taskset, and for Portkey's gateway
node and npm; the peers are installed into environments of their own under `.cache/` the first time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.peers import PLAIN, STARTERS, Peer, start_corral, start_nginx
from benchmarks.stage import Malfunction, Stage, lacking, staged

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = (1, 16)
WARM = 4.0
"""Seconds before anything counts: LiteLLM's first answers take one or two."""
TARGETS = {"rate/litellm": 150.0, "rate/portkey": 10.0, "rate/vllm-router": 0.5, "p50/nginx": 2.5}
AIMS = {"rate/vllm-router": 0.8}


@dataclass(slots=True)
class Measured:
    """A peer and what was measured of it, by number of connections: requests a second, milliseconds, microseconds."""

    peer: Peer
    rates: dict[int, list[float]] = field(default_factory=dict)
    p50s: dict[int, list[float]] = field(default_factory=dict)
    costs: dict[int, list[float]] = field(default_factory=dict)

    def rate(self, connections: int) -> float:
        """Requests a second, the median of the rounds."""
        return statistics.median(self.rates[connections])

    def p50(self, connections: int) -> float:
        """Milliseconds, the median of the rounds."""
        return statistics.median(self.p50s[connections])

    def cost(self, connections: int) -> float:
        """Microseconds of processor time for a request, the median of the rounds."""
        return statistics.median(self.costs[connections])


def start(stage: Stage, names: Sequence[str], *, plain: bool) -> dict[str, Measured]:
    """Start nginx and those named, and see that each gives the upstream's answer."""
    upstream = stage.upstream()
    peers = [start_nginx(stage, upstream)]
    starters = STARTERS | {"corral": partial(start_corral, plain=plain)}
    peers += [starters[name](stage, upstream) for name in names]
    check(stage, peers)
    return {peer.name: Measured(peer) for peer in peers}


def check(stage: Stage, peers: Sequence[Peer]) -> None:
    for peer in peers:
        stage.wait(peer.name, peer.port, peer.call(), peer.good)


def measure(stage: Stage, each: Measured, connections: int, seconds: float) -> tuple[float, float, float]:
    """Requests a second, p50 in milliseconds and microseconds of processor time for a request."""
    before = each.peer.worked()
    try:
        found = stage.load(each.peer.port, [each.peer.call()], connections, seconds)
    except Malfunction as error:
        raise Malfunction(f"{each.peer.name}: {error}") from error
    if found.refused:
        raise Malfunction(f"{each.peer.name} refused {found.refused} of {found.requests} requests.")
    return found.rate, found.p50, (each.peer.worked() - before) / found.requests * 1e6


def run(stage: Stage, measured: dict[str, Measured], rounds: int, seconds: float) -> None:
    """Measure all in rounds, and see that they still give the same answer."""
    order = list(measured.values())
    for each in order:
        measure(stage, each, CONNECTIONS[-1], WARM)
    for number in range(rounds):
        for connections in CONNECTIONS:
            for each in order if number % 2 == 0 else reversed(order):
                rate, p50, cost = measure(stage, each, connections, seconds)
                each.rates.setdefault(connections, []).append(rate)
                each.p50s.setdefault(connections, []).append(p50)
                each.costs.setdefault(connections, []).append(cost)
    check(stage, [each.peer for each in order])


def ratios(measured: dict[str, Measured], name: str) -> dict[str, float]:
    """How `name` compares with the others: requests a second at many connections, p50 at one."""
    own, many = measured[name], CONNECTIONS[-1]
    found = {
        f"rate/{other}": own.rate(many) / each.rate(many)
        for other, each in measured.items()
        if other not in {"corral", "floor"}
    }
    return found | {"p50/nginx": own.p50(1) / measured["nginx"].p50(1)}


def report(measured: dict[str, Measured]) -> dict[str, dict[str, float]]:
    """Print the tables and return the ratios of Corral, and of the floor, to the others."""
    for each in measured.values():
        print(f"{each.peer.name:14}{each.peer.version}")
    print(f"\n{'':14}{'connections':>12}{'requests/s':>12}{'p50 ms':>9}{'processor µs':>14}")
    for each in measured.values():
        for connections in CONNECTIONS:
            rate, p50, cost = each.rate(connections), each.p50(connections), each.cost(connections)
            print(f"{each.peer.name:14}{connections:>12}{rate:>12.0f}{p50:>9.3f}{cost:>14.1f}")
    print()
    names = [name for name in measured if name in {"corral", "floor"}]
    found = {name: ratios(measured, name) for name in names}
    for name, values in found.items():
        for ratio, value in values.items():
            where = "1 connection" if ratio.startswith("p50") else f"{CONNECTIONS[-1]} connections"
            print(f"{name} {ratio} at {where}: {value:.2f}{wanted(ratio)}")
    return found


def wanted(ratio: str) -> str:
    """The target of a ratio in words, if it has one."""
    if ratio not in TARGETS:
        return ""
    aim = f", aim {AIMS[ratio]}" if ratio in AIMS else ""
    return f" (target: at {'most' if ratio.startswith('p50') else 'least'} {TARGETS[ratio]:g}{aim})"


def missed(found: dict[str, float]) -> list[str]:
    """The targets that were not reached."""
    return [
        name
        for name, value in found.items()
        if name in TARGETS and (value > TARGETS[name] if name.startswith("p50") else value < TARGETS[name])
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="for one measurement, whole seconds")
    parser.add_argument(
        "--peers", default="vllm-router,litellm,portkey,corral", help=f"besides nginx, of {', '.join(STARTERS)}"
    )
    parser.add_argument("--plain", action="store_true", help=PLAIN)
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON in the last line")
    given = parser.parse_args()
    names = [name for name in given.peers.split(",") if name != "nginx"]
    unknown = sorted(set(names) - set(STARTERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(STARTERS)}, and nginx always")
    if lacking("nginx", "wrk", "taskset", *(("node", "npm") if "portkey" in names else ())):
        return 2
    try:
        with staged() as stage:
            measured = start(stage, names, plain=given.plain)
            run(stage, measured, given.rounds, given.seconds)
    except (Malfunction, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 2
    found = report(measured)
    if given.json:
        print(json.dumps(found))
    short = missed(found.get("corral") or found.get("floor") or {})
    if short:
        print(f"Missed: {', '.join(short)}", file=sys.stderr)
    return 1 if short and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
