"""Chunks a second and time to first byte of streams through Corral, over the same through nginx on the same core.

    python -m benchmarks.stream [--rounds N] [--seconds N] [--check]

64 streams of 256 chunks at once for the chunks a second, 16 for the time from request to first chunk. One upstream
answers both and each chunk is a write of its own (`stream_ends.py`); nginx does not buffer. Proxies have one core, the
client and the upstream the other; rounds alternate, medians are printed.

The upstream writes as fast as it is read, and then at the pace of an engine, a hundred chunks a second: there every
chunk is handed on by itself, and the first does not wait for those of other streams. The processor time for a chunk
stands beside, without a target: it differs also where client and upstream are what is slow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

from benchmarks.peers import PLAIN, Peer, start_corral, start_nginx
from benchmarks.stage import ROOT, Call, Malfunction, Stage, free_port, lacking, staged
from benchmarks.stream_ends import CHUNKS, DONE, ENGINE, MARK, MOST, body

MANY, FEW = 64, 16
LEAST_RATE, MOST_FIRST = 0.5, 4.0
LEAST_PACED = 4.0
"""Seconds: a stream takes more than two at the pace of an engine."""
NGINX_MORE = "proxy_buffering off;"


@dataclass(slots=True)
class Measured:
    """What was measured of one, in each round.

    `rates` are chunks a second and `costs` microseconds of processor time for one, both at 64 streams; `firsts` are
    milliseconds at 16 streams; those of the last two that are `paced` are at the pace of an engine.
    """

    peer: Peer
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    paced_firsts: list[float] = field(default_factory=list)
    paced_costs: list[float] = field(default_factory=list)

    def medians(self) -> list[float]:
        """Of each of them, in that order."""
        return [
            statistics.median(found)
            for found in (self.rates, self.costs, self.firsts, self.paced_firsts, self.paced_costs)
        ]


def whole(said: bytes) -> bool:
    """Whether an answer has every chunk and its end."""
    return said.count(MARK) == CHUNKS and said.endswith(DONE)


def read(stage: Stage, peer: Peer, streams: int, seconds: float, pace: str = MOST) -> tuple[float, float, float]:
    """Chunks a second, milliseconds to the first one (the median), and microseconds of processor time for each."""
    command = ["taskset", "-c", str(stage.load_core), sys.executable, "-m", "benchmarks.stream_ends", "client"]
    command += [str(peer.port), str(streams), str(seconds), pace, json.dumps(dict(peer.headers))]
    before = peer.worked()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False, cwd=ROOT)
    if done.returncode:
        raise Malfunction(f"the client failed on {peer.name}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    if said["trouble"] or not said["streams"]:
        raise Malfunction(f"{peer.name}: {said['streams']} streams ended well; {said['trouble']}")
    return said["rate"], said["first"], (peer.worked() - before) / (said["rate"] * seconds) * 1e6


def start(stage: Stage, *, plain: bool) -> list[Measured]:
    """Start the upstream, nginx and Corral, and see that both give a whole stream."""
    upstream, call = free_port(), Call(body=body(MOST))
    command = [sys.executable, "-m", "benchmarks.stream_ends", "upstream", str(upstream)]
    stage.start("upstream", stage.load_core, command, {"PYTHONPATH": str(ROOT)})
    stage.wait("upstream", upstream, call, whole)
    peers = [start_nginx(stage, upstream, NGINX_MORE), start_corral(stage, upstream, plain=plain)]
    for peer in peers:
        stage.wait(peer.name, peer.port, Call(call.path, peer.headers, call.body), whole)
    return [Measured(peer) for peer in peers]


def run(stage: Stage, measured: list[Measured], rounds: int, seconds: float) -> None:
    for each in measured:
        read(stage, each.peer, MANY, 1)  # warm
    for number in range(rounds):
        for each in measured if number % 2 == 0 else reversed(measured):
            rate, _, cost = read(stage, each.peer, MANY, seconds)
            each.rates.append(rate)
            each.costs.append(cost)
            each.firsts.append(read(stage, each.peer, FEW, seconds)[1])
            slowly = max(seconds, LEAST_PACED)
            each.paced_firsts.append(read(stage, each.peer, FEW, slowly, ENGINE)[1])
            each.paced_costs.append(read(stage, each.peer, MANY, slowly, ENGINE)[2])


def report(measured: list[Measured]) -> bool:
    """Print the tables; returns whether the targets are met."""
    for each in measured:
        print(f"{each.peer.name:10}{each.peer.version}")
    print(f"\n{'':10}{'as fast as it goes':^42}{'at the pace of an engine':^32}")
    print(f"{'':10}{'chunks/s':>10}{'µs a chunk':>14}{'first byte ms':>16}{'first byte ms':>18}{'µs a chunk':>14}")
    for each in measured:
        rate, cost, first, paced_first, paced_cost = each.medians()
        print(f"{each.peer.name:10}{rate:>10.0f}{cost:>14.2f}{first:>16.2f}{paced_first:>18.2f}{paced_cost:>14.2f}")
    nginx, corral = (each.medians() for each in measured)
    rate, cost, first, paced_first, paced_cost = (own / other for own, other in zip(corral, nginx, strict=True))
    most = f"(target: at most {MOST_FIRST:g})"
    print(f"\nchunks a second at {MANY} streams over nginx's: {rate:.2f} (target: at least {LEAST_RATE})")
    print(f"time to first byte at {FEW} streams over nginx's, p50: {first:.2f} {most}; paced {paced_first:.2f} {most}")
    print(f"processor time for a chunk over nginx's: {cost:.2f}; paced {paced_cost:.2f}")
    return rate >= LEAST_RATE and max(first, paced_first) <= MOST_FIRST


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="for one measurement")
    parser.add_argument("--plain", action="store_true", help=PLAIN)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    given = parser.parse_args()
    if lacking("nginx", "taskset"):
        return 2
    try:
        with staged() as stage:
            measured = start(stage, plain=given.plain)
            run(stage, measured, given.rounds, given.seconds)
    except (Malfunction, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if report(measured) or not given.check else 1


if __name__ == "__main__":
    sys.exit(main())
