"""One install, seen by a browser's tab over its WebSocket and by the command line: the same, to whatever end."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from support import models
from support.origin import Asked, Reply, ThreadedOrigin
from support.servers import CORRAL, Server, corral_server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
MODEL = models.gguf(1_000_000, seed=5)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium: apt-get install chromium")

LISTEN = """
    id => {
        window.seen = []; window.ended = undefined;
        const socket = new WebSocket(`ws://${location.host}/api/v1/models/operations/${id}/ws`);
        socket.onmessage = event => window.seen.push(JSON.parse(event.data));
        socket.onclose = event => window.ended = event.code;
    }
"""


class HalfWay:
    """An origin that stops in the middle of each model until it is told to `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.server = ThreadedOrigin({f"/{name}.gguf": MODEL for name in ("shown", "cancelled")})
        self.server.origin.tamper = self.answer

    def answer(self, asked: Asked) -> Reply:
        reply = self.server.origin.serve(asked)
        assert isinstance(reply.body, bytes)
        reply.body = self.pieces(reply.body)
        return reply

    async def pieces(self, body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 18):
            if start >= len(body) // 2:
                await self.go.wait()
            yield body[start : start + (1 << 18)]


@pytest.fixture(scope="module")
def origin() -> Iterator[HalfWay]:
    half = HalfWay()
    yield half
    half.server.close()


@pytest.fixture(scope="module")
def server(origin: HalfWay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = f"sources: {{allow_private: ['{origin.server.origin.host}'], stall_timeout: 1h}}"
    with corral_server(tmp_path_factory.mktemp("browser"), config) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Any]:
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        tab = browser.new_page()
        tab.goto(server.url)
        yield tab
        browser.close()


def corral(server: Server, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([CORRAL, "--json", *arguments], env=server.env, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=60)
    return [json.loads(line) for line in output.splitlines()]


def begun(server: Server, ref: str, page: Any) -> tuple[str, subprocess.Popen[str], list[dict[str, Any]]]:
    """The install, watched by the page and by the command line, half of it done; and what was said of that half."""
    operation = said(corral(server, "pull", "--detach", ref))[-1]["operation"]
    page.evaluate(LISTEN, operation)
    terminal = corral(server, "pull", ref)
    page.wait_for_function("window.seen.some(now => now.done_bytes > 1e6)")
    assert terminal.stdout is not None
    lines = [json.loads(terminal.stdout.readline())]
    while lines[-1].get("done", 0) < 1_000_000:
        lines.append(json.loads(terminal.stdout.readline()))
    return operation, terminal, lines


def test_both_see_the_same(server: Server, origin: HalfWay, page: Any) -> None:
    ref = f"{origin.server.origin.url}/shown.gguf"
    operation, terminal, lines = begun(server, ref, page)
    origin.server.loop.call_soon_threadsafe(origin.go.set)
    lines += said(terminal)
    page.wait_for_function("window.ended !== undefined")
    seen = page.evaluate("window.seen")

    assert terminal.returncode == 0
    assert page.evaluate("window.ended") == 1000
    assert {now["operation_id"] for now in seen} == {operation}
    assert [now["progress"] for now in seen] == sorted(now["progress"] for now in seen)
    last = seen[-1]
    assert (last["status"], last["progress"], last["model_name"]) == ("completed", 100.0, "shown")
    steps = [step for step in lines if step.get("event") == "progress" and step["phase"] == "download"]
    assert [step["done"] for step in steps] == sorted(step["done"] for step in steps)
    assert {step["total"] for step in steps} == {now["total_bytes"] for now in seen if now["phase"] == "download"}
    assert lines[-1]["revision"] == last["result"]["revision"]


def test_a_cancelled_one_leaves_nothing(server: Server, origin: HalfWay, page: Any) -> None:
    origin.server.loop.call_soon_threadsafe(origin.go.clear)
    operation, terminal, _ = begun(server, f"{origin.server.origin.url}/cancelled.gguf", page)
    partial = server.home / "models" / "partial"
    assert list(partial.glob("*.part"))

    answer = httpx.post(f"{server.url}/api/v1/models/operations/{operation}/cancel").json()
    page.wait_for_function("window.ended !== undefined")

    assert answer["operation"]["status"] == "cancelled"
    assert page.evaluate("window.seen.at(-1).status") == "cancelled"
    said(terminal)
    assert terminal.returncode != 0
    assert not list(partial.iterdir())
    assert said(corral(server, "list"))[-1]["count"] == 1
