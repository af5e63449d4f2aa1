"""Tokens a second through Corral, over the same running engine asked directly, at 1 and at 8 streams.

    python -m benchmarks.engine [--rounds N] [--seconds N] [--check]      the installed smollm2

This process is Corral: its server, and one llama.cpp child behind it. Another process is the client; it is given both
addresses, the server's and the engine's own, and asks them in turns, changing who is first. Each
pair gives one ratio; printed are the medians. The same tokens are asked for every time (greedy, and no early end).
An engine's threads wait for each other by spinning: on a machine that does other work the figures mean nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TARGET = 0.97
MODEL = "smollm2"
TOKENS = {1: 128, 8: 64}  # streams → tokens of each
TIMES = {1: 3, 8: 1}  # streams → pairs in a round: one stream feels each stumble of the machine
PROMPT = "Write a long story about a horse that learns to count."


@dataclass(frozen=True)
class Job:
    """What the client is to do: `streams` requests at once to `url`, each for `tokens` tokens."""

    url: str
    headers: dict[str, str]
    streams: int
    tokens: int


def body(tokens: int) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def client() -> None:
    """Read jobs from standard input, a line each, and write the tokens a second of each."""
    import aiohttp

    async def stream(session: aiohttp.ClientSession, job: Job) -> int:
        url = f"{job.url}/chat/completions"
        async with session.post(url, json=body(job.tokens), headers=job.headers) as answer:
            last = b""
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    last = line
            if answer.status != 200:
                raise SystemExit(f"{job.url} answered {answer.status}")
            return int(json.loads(last[6:])["usage"]["completion_tokens"])

    # A fresh connection for each request, both ways: llama.cpp closes its own after a stream.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        while line := await asyncio.to_thread(sys.stdin.readline):
            job = Job(**json.loads(line))
            begun = time.perf_counter()
            counts = await asyncio.gather(*(stream(session, job) for _ in range(job.streams)))
            taken = time.perf_counter() - begun
            if counts != [job.tokens] * job.streams:
                raise SystemExit(f"{job.url} wrote {counts} tokens instead of {job.tokens} each")
            print(sum(counts) / taken, flush=True)


class Client:
    """The client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def measure(self, job: Job) -> float:
        """Tokens a second, all streams together."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the client has no pipes")
        self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("the client ended; see above")
        return float(line)


@asynccontextmanager
async def apart() -> AsyncIterator[Client]:
    """The client, in a process of its own for the block's length."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.engine", "--client", stdin=pipe, stdout=pipe
    )
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def served(home: str) -> AsyncIterator[tuple[str, str, dict[str, str]]]:
    """Corral's address, and the address and credentials of the engine that it has loaded."""
    import uvicorn

    from corral.app import Corral
    from corral.config import load
    from corral.gateway.application import Gateway
    from corral.gateway.server import listen, url_of

    models = str(load().models_dir)
    slots = {"context": 512, "slots": max(TOKENS)}
    settings = load(flags={"home": home, "store.models_dir": models, "runtimes.llamacpp": slots})
    corral = Corral(settings)
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        Gateway(corral), http="httptools", ws="none", lifespan="on", log_config=None, access_log=False, backlog=2048
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        engine = await corral.supervisor.load(MODEL)
        endpoint = engine.session.endpoint
        yield f"{url_of(listener)}/v1", endpoint.url, dict(endpoint.headers)
    finally:
        server.should_exit = True
        await serving


async def compare(rounds: int, seconds: float) -> dict[int, float]:
    """Measure, print, and return the median ratio for each number of streams. No round begins after `seconds`."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        async with served(home) as (through, direct, headers), apart() as ask:
            ways = {"through": (through, dict[str, str]()), "direct": (direct, headers)}
            rates: dict[tuple[str, int], list[float]] = {(way, streams): [] for way in ways for streams in TOKENS}
            for number in range(rounds + 1):
                if number > 1 and time.monotonic() - begun > seconds:
                    break
                turns = [streams for streams in TOKENS for _ in range(TIMES[streams])]
                for turn, streams in enumerate(turns, number):
                    for way in ways if turn % 2 else reversed(ways):
                        job = Job(*ways[way], streams, TOKENS[streams] if number else 16)
                        rate = await ask.measure(job)
                        if number:  # the first round fills caches
                            rates[way, streams].append(rate)
    return report(rates)


def report(rates: dict[tuple[str, int], list[float]]) -> dict[int, float]:
    ratios = {}
    print(f"{'streams':>7}  {'Corral':>8}  {'direct':>8}  ratio (target: at least {TARGET})")
    for streams in TOKENS:
        through, direct = rates["through", streams], rates["direct", streams]
        ratios[streams] = statistics.median(ours / theirs for ours, theirs in zip(through, direct, strict=True))
        medians = f"{statistics.median(through):8.1f}  {statistics.median(direct):8.1f}"
        print(f"{streams:7}  {medians}  {ratios[streams]:.3f}")
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60, help="begin no further round after these")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the target is missed")
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import uvloop

    if given.client:
        uvloop.run(client())
        return 0
    ratios = uvloop.run(compare(given.rounds, given.seconds))
    return 1 if given.check and min(ratios.values()) < TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
