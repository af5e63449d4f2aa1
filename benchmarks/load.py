"""Load to first token: through Corral's `llamacpp` runtime, over xllamacpp loaded directly in a script.

    python benchmarks/load.py [MODEL.gguf] [--rounds N]      without a file: the installed smollm2

Each measurement is a fresh process, the two kinds in turn after one round that is not counted. Both load the same file
with the same context and slots, for the rest as each does by itself, and send the same streaming request. The clock
starts when a process decides to load (its own imports are behind it; xllamacpp's are not) and stops at the first token.
Target: a ratio of medians of at most 1.25.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from corral.domain.ports import LaunchSpec, silent
from corral.errors import CorralError
from corral.runtimes.llamacpp import DEFAULT_CONTEXT, DEFAULT_SLOTS, LlamaCpp, LlamaCppOptions

TARGET = 1.25
KEY = "benchmark"


def first_token(address: str, authorization: str, model: str | None = None) -> None:
    """Ask `model` for a stream and return when its first token is here."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
    body: dict[str, object] = {"messages": [{"role": "user", "content": "Hello"}]}
    body |= {"max_tokens": 4, "temperature": 0, "stream": True, **({"model": model} if model else {})}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": authorization})
    answer = connection.getresponse()
    while line := answer.readline():
        if line.startswith(b"data: {") and _content(json.loads(line[6:])):
            connection.close()
            return
    raise SystemExit(f"no token came: status {answer.status}")


def _content(event: dict[str, list[dict[str, dict[str, str]]]]) -> bool:
    choices = event.get("choices")
    return bool(choices and choices[0]["delta"].get("content"))


def bare(model: Path, context: int = DEFAULT_CONTEXT, slots: int = DEFAULT_SLOTS) -> float:
    """Seconds with xllamacpp alone; `context` in tokens of each slot."""
    start = time.perf_counter()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = context * slots
    params.n_parallel = slots
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [KEY]
    server = xllamacpp.Server(params)
    first_token(server.listening_address, f"Bearer {KEY}")
    return time.perf_counter() - start


async def through_corral(model: Path) -> float:
    """Seconds with Corral's runtime."""
    runtime = LlamaCpp(os.environ)
    start = time.perf_counter()
    session = await runtime.start(LaunchSpec("model", LlamaCppOptions(), {"model": model}), silent)
    try:
        await asyncio.to_thread(first_token, session.endpoint.url, session.endpoint.headers["Authorization"])
        return time.perf_counter() - start
    finally:
        await session.stop(5)


def measure(kind: str, model: Path) -> float:
    """Seconds of one kind in a fresh process."""
    command = [sys.executable, __file__, "--once", kind, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def installed() -> Path:
    """The file of the installed smollm2."""
    from corral.app import Corral

    registry = Corral().registry
    try:
        return registry.path(registry.get("smollm2").revision.files[0])
    except CorralError as error:
        raise SystemExit(str(error)) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--once", choices=["bare", "corral"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = given.model or installed()
    if given.once:
        seconds = bare(model) if given.once == "bare" else asyncio.run(through_corral(model))
        print(seconds, flush=True)
        os._exit(0)  # closing the C++ server is not what is measured
    taken: dict[str, list[float]] = {"bare": [], "corral": []}
    for number in range(given.rounds + 1):
        for kind in sorted(taken, reverse=bool(number % 2)):
            seconds = measure(kind, model)
            if number:
                taken[kind].append(seconds)
    for kind, times in taken.items():
        print(f"{kind:7} median {statistics.median(times):.3f} s  from {min(times):.3f} to {max(times):.3f}")
    ratio = statistics.median(taken["corral"]) / statistics.median(taken["bare"])
    best = min(taken["corral"]) / min(taken["bare"])
    print(f"ratio   {ratio:.2f}  (target: at most {TARGET}; of the fastest: {best:.2f})")
    raise SystemExit(ratio > TARGET)


if __name__ == "__main__":
    main()
