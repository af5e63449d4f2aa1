"""A thousand callers on a budget for a hundred answers, over HTTP, with servers killed in between: never one over."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support import database as databases
from tests.support.servers import CORRAL, Server, corral_server

CALLERS = 1000
ANSWERS = 100
TOKENS = 10
CENT = 10_000_000
"""Nanodollars of an answer: ten tokens at a thousand dollars the million."""
KILLED_AFTER = 30


@dataclass
class Vendor:
    """Answers, slowly enough that many calls are open at once, and counts what it would bill."""

    billed: int = 0
    url: str = ""
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        assert asked["max_tokens"] == TOKENS
        self.billed += 1
        if self.billed >= KILLED_AFTER:
            self.enough.set()
        message = {"role": "assistant", "content": "yes"}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        usage = {"prompt_tokens": 3, "completion_tokens": TOKENS, "total_tokens": 3 + TOKENS}
        return web.json_response({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})


@pytest.fixture
async def vendor():
    found = Vendor()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", found.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield found
    await runner.cleanup()


@pytest.fixture(scope="module")
def cluster() -> Iterator[databases.Cluster]:
    with databases.cluster() as running:
        yield running


def config(vendor: Vendor, url: str | None) -> str:
    content: dict[str, Any] = {
        "models": {"paid": {"runtime": "openai", "options": {"base_url": vendor.url}, "concurrency": 2000}},
        "prices": {"paid": {"input": 0, "output": 1000}},
        "routing": {"retries": 0},
    }
    if url is not None:
        content["database"] = {"url": url}
    return json.dumps(content)


def corral(server: Server, *arguments: str) -> Any:
    done = subprocess.run(
        [CORRAL, *arguments, "--json"], env=server.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Callers:
    """Everybody who asks: each until a server has answered, with whatever. `said` counts the statuses."""

    def __init__(self, urls: list[str], key: str) -> None:
        self.urls = urls
        self.said: Counter[int] = Counter()
        self.lost = 0
        self.first = asyncio.Event()
        """Set once somebody has been given an answer."""
        self._headers = {"authorization": f"Bearer {key}"}
        self._there = asyncio.Event()
        self._there.set()

    def away(self) -> None:
        """A server is gone; whoever meets nobody waits until `back`."""
        self._there.clear()

    def back(self) -> None:
        self._there.set()

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=CALLERS)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as client:
            await asyncio.gather(*(self._call(client, number) for number in range(CALLERS)))

    async def _call(self, client: aiohttp.ClientSession, number: int) -> None:
        body = {"model": "paid", "max_tokens": TOKENS, "messages": [{"role": "user", "content": f"{number}?"}]}
        while True:
            url = self.urls[number % len(self.urls)]
            try:
                async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
                    await answer.read()
                    self.said[answer.status] += 1
                    if answer.status == 200:
                        self.first.set()
                    return
            except aiohttp.ClientError:
                self.lost += 1
                await self._there.wait()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_thousand_callers_over_http_get_a_hundred_answers(
    kind: str, tmp_path: Path, vendor: Vendor, request: pytest.FixtureRequest
) -> None:
    url = None if kind == "sqlite" else request.getfixturevalue("cluster").new()
    homes = [tmp_path / name for name in (["one"] if url is None else ["one", "two"])]
    for home in homes:
        home.mkdir()
    with ExitStack() as stack:

        def start(home: Path) -> Server:
            return stack.enter_context(corral_server(home, config(vendor, url)))

        servers = [await asyncio.to_thread(start, home) for home in homes]
        key = (await asyncio.to_thread(corral, servers[0], "keys", "create", "crowd"))["secret"]
        cents = f"{ANSWERS * CENT / 1e9:g}"
        words = ("budgets", "create", "crowd", cents, "--key", "crowd", "--per", "total")
        await asyncio.to_thread(corral, servers[0], *words)
        for server in servers[1:]:  # it would notice within a second
            await asyncio.to_thread(corral, server, "budgets", "change", "crowd", "--amount", cents)
        callers = Callers([server.url for server in servers], key)
        crowd = asyncio.create_task(callers.run())

        await vendor.enough.wait()
        await callers.first.wait()  # a slow server may have had all of them billed and none of them sent on
        callers.away()
        servers[0].process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(servers[0].process.wait)
        servers[0] = await asyncio.to_thread(start, homes[0])
        callers.urls[0] = servers[0].url
        callers.back()
        await crowd

        # What was open when a server was killed counts as spent; what it had only leased is there again.
        (budget,) = (await asyncio.to_thread(corral, servers[0], "budgets"))["budgets"]
        assert sum(callers.said.values()) == CALLERS
        assert set(callers.said) == {200, 402}
        assert vendor.billed <= ANSWERS
        assert callers.said[200] <= vendor.billed
        assert round(budget["spent"] * 1e9) + 0 <= ANSWERS * CENT
        assert callers.said[200] >= ANSWERS - callers.lost

        # Once all is settled the books have what the vendor would bill, and at most what was open in the kill.
        for server in servers:
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.process.wait, 30)
        (settled,) = (await asyncio.to_thread(corral, servers[0], "budgets"))["budgets"]
        spent = round(settled["spent"] * 1e9)
        assert vendor.billed * CENT <= spent <= ANSWERS * CENT
