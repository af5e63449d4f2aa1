"""Five hundred clients for ten models at once, over HTTP, with memory for three: each is answered, by its own model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from support.servers import corral_server, ended

CLIENTS = 500
MODELS = 10
MIB = 1024**2

ENTRIES = "\n".join(
    f"  m{n}: {{runtime: fake, options: {{memory_mib: 100, reply: 'I am m{n}'}}}}" for n in range(MODELS)
)
CONFIG = f"""
engines: {{memory: {{cpu: 400MiB}}, patience: 5s}}
models:
{ENTRIES}
"""


async def ask(client: aiohttp.ClientSession, url: str, number: int) -> str:
    body = {"model": f"m{number % MODELS}", "messages": [{"role": "user", "content": "Who are you?"}]}
    async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["x-corral-model"] == body["model"]
        return str((await answer.json())["choices"][0]["message"]["content"])


@pytest.mark.timeout(300)
async def test_all_of_them_are_answered_by_whom_they_asked(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=280)) as client:
            said = await asyncio.gather(*(ask(client, server.url, number) for number in range(CLIENTS)))
            async with client.get(f"{server.url}/api/v1/runtime/stats") as told:
                stats = await told.json()
        engines = server.engines()
    assert said == [f"I am m{number % MODELS}" for number in range(CLIENTS)]
    assert stats["memory"]["cpu"]["held"] <= 400 * MIB
    assert stats["queues"] == {}
    assert stats["counters"]["requests"] == CLIENTS
    # Each model was brought in once for all who asked for it, or not many times more.
    assert MODELS <= stats["counters"]["loads"] <= 2 * MODELS
    assert len(engines) == 3
    assert ended(engines)
