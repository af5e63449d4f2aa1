"""Tokens a second of one engine alone and of two at once, by their threads and how these wait for each other.

    python -m benchmarks.threads [MODEL.gguf] [--tokens N]      without a file: the installed smollm2

Each line is one way to set `threads`, `threads_batch` and `poll` of the runtime `llamacpp`: two engines are started
with it; the first writes alone, then both write at the same time, then both read a long prompt. The figures choose the
defaults in `runtimes/_llamacpp/threads.py`, and mean nothing on a machine that does other work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.load import installed
from corral.domain.ports import LaunchSpec, Session, silent
from corral.runtimes._llamacpp.threads import cores
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions

PROMPT = "Count to a hundred."
LONG = "word " * 600


def ways(count: int) -> dict[str, dict[str, Any]]:
    """The settings compared, by what they are called."""
    return {
        "as Corral does by itself": {},
        "every core, spinning (llama.cpp)": {"threads": count, "poll": 50},
        "every core, sleeping": {"threads": count},
        "one thread": {"threads": 1},
        "one thread, spinning for prompts": {"threads": 1, "threads_batch": count, "poll": 50},
        "one thread, sleeping for prompts": {"threads": 1, "threads_batch": count},
    }


async def write(session: Session, prompt: str, tokens: int) -> tuple[float, float]:
    """Tokens a second read and written, by llama.cpp's own clock."""
    import aiohttp

    body = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, "temperature": 0, "cache_prompt": False}
    url = session.endpoint.url.removesuffix("/v1") + "/completion"
    async with aiohttp.ClientSession(headers=session.endpoint.headers) as http, http.post(url, json=body) as answer:
        timings = json.loads(await answer.text())["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]


async def together(sessions: list[Session], prompt: str, tokens: int) -> float:
    """Seconds until all have answered."""
    begun = time.perf_counter()
    await asyncio.gather(*(write(session, prompt, tokens) for session in sessions))
    return time.perf_counter() - begun


async def measure(model: Path, options: dict[str, Any], tokens: int) -> tuple[float, float, float, float]:
    """Tokens a second: written alone, written by two, read alone, read by two."""
    runtime = LlamaCpp(os.environ)
    spec = LaunchSpec("model", LlamaCppOptions(context=1024, slots=1, device="cpu", **options), {"model": model})
    sessions: list[Session] = [await runtime.start(spec, silent) for _ in range(2)]
    try:
        for session in sessions:
            await write(session, PROMPT, 8)
        alone = max([(await write(sessions[0], PROMPT, tokens))[1] for _ in range(2)])
        read, _ = await write(sessions[0], LONG, 1)
        both = len(sessions) * tokens / await together(sessions, PROMPT, tokens)
        reading = len(sessions) * len(LONG.split()) / await together(sessions, LONG, 1)
        return alone, both, read, reading
    finally:
        for session in sessions:
            await session.stop(5)


async def compare(model: Path, tokens: int) -> None:
    print(f"{cores()} cores; tokens a second, of two engines the sum")
    print(f"{'':34}{'writes':>8}{'two':>8}{'reads':>8}{'two':>8}")
    for name, options in ways(cores()).items():
        found = await measure(model, options, tokens)
        print(f"{name:34}" + "".join(f"{rate:8.0f}" for rate in found), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    asyncio.run(compare(given.model or installed(), given.tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main())
