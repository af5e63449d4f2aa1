"""The menu's containers, over a Docker engine of the tests' own: what is done there, and what is done by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.cli.tui.dialogs import Page
from corral.cli.tui.panes.logs import Logs
from corral.cli.tui.tape import Sheet
from tests.support.docker import TINY, Engine
from tests.support.menu import Lateness, Seat, seated
from tests.support.ports import free_port
from tests.support.servers import Server, corral_server

pytestmark = pytest.mark.timeout(300)


def tiny(*before: str, **more: Any) -> dict[str, Any]:
    """A container that answers like a server of models without any."""
    port = free_port()
    command = [*before, "serve", str(port), "127.0.0.1"]
    fixed = {"kind": "openai", "image": TINY, "network": "host", "port": port, "inside": port, "command": command}
    return {**fixed, "stop_grace": "1s", **more}


@pytest.fixture
def server(docker: Engine, tiny_image: str, tmp_path: Path) -> Iterator[Server]:
    containers = {
        "coder": tiny("say", "hello", purpose="completes code"),
        "talker": tiny("print", "5000", "and", purpose="talks"),
    }
    config = yaml.safe_dump({"docker": {"host": docker.address}, "containers": containers})
    with corral_server(tmp_path, config) as running:
        yield running


def state(seat: Seat, name: str) -> str:
    return str((seat.menu.yard.containers.get(name) or {}).get("state"))


async def healthy(seat: Seat, name: str) -> None:
    await seat.until(lambda: state(seat, name) == "healthy", f"{name} is {state(seat, name)}")
    await seat.until(lambda: name in seat.listing().table.keys)
    seat.listing().choose(name)


async def test_containers_are_seen_stopped_started_and_killed(server: Server, docker: Engine) -> None:
    async with seated(server) as seat:
        await seat.press("3")
        await healthy(seat, "coder")
        await seat.sees("coder", "healthy", "completes code", str(seat.menu.yard.containers["coder"]["port"]))
        await seat.until(lambda: seat.menu.yard.trail("coder/memory").last is not None, "no figures")

        await seat.press("x", "enter")  # which is no
        assert state(seat, "coder") == "healthy"
        await seat.press("x", "y")
        await seat.told("coder is stopped")
        await seat.until(lambda: state(seat, "coder") == "stopped")
        assert seat.menu.yard.trail("coder/memory").last is None

        await seat.press("s")
        await seat.told("coder is started: healthy")

        before = dict(seat.menu.yard.containers["coder"])
        docker.cli("kill", before["container"])
        await seat.until(lambda: seat.menu.yard.containers["coder"]["finished_at"] != before["finished_at"])
        await healthy(seat, "coder")

        await seat.press("h")
        await seat.until(lambda: isinstance(seat.menu.screen, Page))
        assert "healthy" in seat.menu.screen.query_one(Sheet).text
        await seat.press("escape", "t")
        await seat.told("coder ")
        await seat.press("o")
        await seat.sees("container coder", "hello")


async def test_an_engine_that_goes_is_told(server: Server, docker: Engine) -> None:
    async with seated(server) as seat:
        await seat.press("3")
        await healthy(seat, "coder")
        docker.kill()
        await seat.until(lambda: state(seat, "coder") == "unknown")
        await seat.sees("unknown")
        docker.start()
        await healthy(seat, "coder")


async def test_a_container_that_prints_five_thousand_lines_a_second(server: Server) -> None:
    async with seated(server) as seat:
        await seat.press("3")
        await healthy(seat, "talker")
        logs = seat.menu.query_one(Logs)
        await seat.press("o")
        lateness, spent = Lateness(), time.process_time()
        await seat.until(lambda: logs.ring.gone + len(logs.ring) > 20_000, "no flood")
        spent = time.process_time() - spent
        lateness.end()
        await seat.sees("container talker", "following", "line ")
    # In shares of the work, which a slow machine makes longer alike.
    assert lateness.worst < spent / 2, f"a key would have waited {lateness.worst:.2f} s of {spent:.2f} s of work"
