"""What goes wrong with containers, by its name on every surface: out of memory, a crash loop, an update undone.

One Corral, as people start it, over a Docker engine of the tests' own; asked by the command line, by HTTP and in the
menu. And how soon each of them shows what was done to a container by hand.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from corral.cli.tui.dialogs import Page
from corral.cli.tui.tape import Sheet
from tests.support.docker import TINY, Engine, docker_of_module, until
from tests.support.fleets import player, publish, registry_in
from tests.support.menu import Seat, seated
from tests.support.ports import free_port
from tests.support.servers import CORRAL, Server, corral_server

__all__ = ["docker_of_module"]

pytestmark = pytest.mark.timeout(300)

PATIENCE = 90.0
LATENESS = 5.0
"""Seconds within which every surface shows what was done by hand."""
NAMES = {"hungry": "oom_killed", "mad": "crash_loop"}


@dataclass(frozen=True)
class Stage:
    """A server, the engine that it keeps containers on, and the images of `updated`: the good one, the one undone."""

    server: Server
    docker: Engine
    good: str
    bad: str
    said: subprocess.CompletedProcess[str]
    """The update that was undone, as the command line told it."""


def tiny(*before: str, **more: Any) -> dict[str, Any]:
    """A container that answers like a server of models without any."""
    port = free_port()
    command = [*before, "serve", str(port), "127.0.0.1"]
    fixed = {"kind": "openai", "image": TINY, "network": "host", "port": port, "inside": port, "command": command}
    return {**fixed, "stop_grace": "1s", **more}


def typed(server: Server, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`corral` with these words, in a terminal that is wide enough for its tables."""
    done = subprocess.run(
        [CORRAL, *words],
        env={**server.env, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done


def told(server: Server, *words: str, code: int = 0) -> Any:
    return json.loads(typed(server, *words, "--json", code=code).stdout)


def asked(server: Server, path: str = "") -> Any:
    answer = httpx.get(f"{server.url}/api/v1/containers{path}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def states(server: Server) -> dict[str, str]:
    return {one["name"]: one["state"] for one in asked(server)["containers"]}


@pytest.fixture(scope="module")
def stage(docker_of_module: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """All three troubles have happened, on one server; `calm` is well."""
    docker = docker_of_module
    docker.image(TINY)
    with ExitStack() as stack:
        registry = stack.enter_context(registry_in(tmp_path_factory.mktemp("registry")))
        good = publish(docker, registry)
        containers = {
            "calm": tiny(restart=False, purpose="stays well"),
            # the engine begins to listen for what the kernel ends a moment after the start
            "hungry": tiny("after", "2", "eat", "200", memory="24MB", restart=False, purpose="takes too much"),
            "mad": tiny("exit", "3", purpose="ends at once"),
            "updated": {**player(f"{registry}/player:1"), "models": ["tiny:1b"], "purpose": "completes code"},
        }
        config = yaml.safe_dump({"docker": {"host": docker.address}, "containers": containers})
        server = stack.enter_context(corral_server(tmp_path_factory.mktemp("home"), config))
        until(lambda: states(server)["updated"] == "healthy", PATIENCE)
        bad = publish(docker, registry, "ENV PLAYED_MUTE=1")
        said = typed(server, "containers", "update", "updated", "--image-only", code=1)
        wanted = {**NAMES, "updated": "healthy", "calm": "healthy"}
        try:
            until(lambda: states(server) == wanted, PATIENCE)
        except AssertionError:
            pytest.fail(f"{asked(server)}\n{(server.home.parent / 'server.log').read_text()[-3000:]}")
        yield Stage(server, docker, good, bad, said)


@pytest.mark.parametrize(("name", "words"), [("hungry", ("OOM killed", "memory")), ("mad", ("crash loop", "code 3"))])
def test_the_command_line_names_what_went_wrong(stage: Stage, name: str, words: tuple[str, ...]) -> None:
    server = stage.server
    listed = typed(server, "containers", "ps").stdout
    (row,) = [line for line in listed.splitlines() if line.startswith(f"{name} ")]
    assert words[0] in row
    shown = typed(server, "containers", "show", name, code=1).stdout
    assert all(word in shown for word in words), shown
    history = typed(server, "containers", "history", name).stdout
    assert words[0] in history

    (one,) = [one for one in told(server, "containers", "ps")["containers"] if one["name"] == name]
    known = told(server, "containers", "show", name, code=1)
    assert (one["state"], known["state"], known["status"]) == (NAMES[name], NAMES[name], "inactive")
    assert words[1] in known["reason"]
    assert NAMES[name] in {line["after"] for line in told(server, "containers", "history", name)["history"]}


@pytest.mark.parametrize(("name", "code", "word"), [("hungry", 137, "memory"), ("mad", 3, "code 3")])
def test_the_interface_names_what_went_wrong(stage: Stage, name: str, code: int, word: str) -> None:
    one = asked(stage.server, f"/{name}")["container"]
    assert (one["state"], one["status"], one["exit_code"]) == (NAMES[name], "inactive", code)
    assert word in one["reason"]
    assert not one["uptime"]
    assert NAMES[name] in {line["after"] for line in asked(stage.server, f"/{name}/history")["history"]}


def test_the_command_line_tells_of_an_update_that_was_undone(stage: Stage) -> None:
    server = stage.server
    assert "The update of 'updated' was undone: " in stage.said.stderr
    assert "terminated" in stage.said.stderr, "what the new one said is told"
    assert "healthy" in typed(server, "containers", "show", "updated").stdout
    assert "undone" in typed(server, "containers", "history", "updated").stdout
    versions = typed(server, "containers", "history", "updated", "--versions").stdout
    (failed,) = [line for line in versions.splitlines() if "failed" in line]
    assert stage.bad.removeprefix("sha256:")[:12] in failed

    assert told(server, "containers", "show", "updated")["state"] == "healthy"
    assert "undone" in {line["what"] for line in told(server, "containers", "history", "updated")["history"]}
    rows = told(server, "containers", "history", "updated", "--versions")["versions"]
    assert {(row["version"], row["status"]) for row in rows if row["model"] is None} >= {
        (stage.bad, "failed"),
        (stage.good, "current"),
    }


def test_the_interface_tells_of_an_update_that_was_undone(stage: Stage) -> None:
    one = asked(stage.server, "/updated")["container"]
    assert (one["state"], one["image_id"], stage.docker.seen()["corral-updated"]["Image"]) == (
        "healthy",
        stage.good,
        stage.good,
    )
    (undone,) = [line for line in asked(stage.server, "/updated/history")["history"] if line["what"] == "undone"]
    assert "terminated" in undone["reason"]
    (failed,) = [row for row in asked(stage.server, "/updated/versions")["versions"] if row["status"] == "failed"]
    assert (failed["version"], bool(failed["reason"])) == (stage.bad, True)
    assert set(stage.docker.seen()) == {"corral-calm", "corral-hungry", "corral-mad", "corral-updated"}


async def opened(seat: Seat, name: str) -> None:
    await seat.until(lambda: name in seat.listing().table.keys)
    seat.listing().choose(name)


async def history_of(seat: Seat, name: str) -> str:
    """What the menu tells of a container's past."""
    await opened(seat, name)
    await seat.press("h")
    await seat.until(lambda: isinstance(seat.menu.screen, Page))
    text = seat.menu.screen.query_one(Sheet).text
    await seat.press("escape")
    return text


@pytest.mark.parametrize("size", [(80, 24), (200, 60)], ids=["small", "large"])
async def test_the_menu_names_what_went_wrong(stage: Stage, size: tuple[int, int]) -> None:
    async with seated(stage.server, size) as seat:
        await seat.press("3")
        await seat.sees("oom killed", "crash loop", "healthy")
        await opened(seat, "hungry")
        await seat.press("enter")
        await seat.sees("memory")
        await seat.press("escape")
        await opened(seat, "mad")
        await seat.press("enter")
        await seat.sees("code 3")
        await seat.press("escape")
        assert "oom killed" in await history_of(seat, "hungry")
        assert "crash loop" in await history_of(seat, "mad")
        assert "undone" in await history_of(seat, "updated")
        await seat.press("5")
        await seat.sees("container-update", "failed")


def moment(text: str) -> float:
    """A time of Docker's, to the microsecond, in Unix seconds."""
    return datetime.fromisoformat(text[:26] + "+00:00").timestamp()


def first_of(server: Server, name: str, listening: threading.Event) -> float:
    """When the events first tell that `name` is not well, in Unix seconds."""
    with httpx.stream("GET", f"{server.url}/api/v1/containers/events", timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("type") == "snapshot":
                listening.set()
            one = message.get("container") or {}
            if message.get("type") == "container" and one["name"] == name and one["state"] != "healthy":
                return time.time()
    raise AssertionError("the events ended")


def seen_at(look: Callable[[], bool]) -> float:
    until(look)
    return time.time()


async def seen_after_a_kill(stage: Stage) -> dict[str, float]:
    """Seconds from a container's end until each surface shows it."""
    server = stage.server
    typed(server, "containers", "start", "calm")
    async with seated(server, (200, 60)) as seat, asyncio.TaskGroup() as looking:
        await seat.press("3")
        await seat.until(lambda: (seat.menu.yard.containers.get("calm") or {}).get("state") == "healthy")
        listening = threading.Event()
        events = looking.create_task(asyncio.to_thread(first_of, server, "calm", listening))
        listed = looking.create_task(asyncio.to_thread(seen_at, lambda: states(server)["calm"] == "killed"))
        assert await asyncio.to_thread(listening.wait, PATIENCE)
        await asyncio.to_thread(stage.docker.cli, "kill", "corral-calm")
        await seat.until(lambda: any("calm" in line and "killed" in line for line in seat.text.splitlines()))
        drawn = time.time()
        took = {"the events": await events, "the list": await listed, "the menu": drawn}
    ended = moment(stage.docker.seen()["corral-calm"]["State"]["FinishedAt"])
    return {who: at - ended for who, at in took.items()}


async def test_what_is_done_by_hand_is_seen_soon(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(4):  # the machine may stand still in some of them
        took = await seen_after_a_kill(stage)
        with capsys.disabled():
            print("\nfrom a container's end: " + ", ".join(f"{who} {1000 * late:.0f} ms" for who, late in took.items()))
        if max(took.values()) < LATENESS:
            return
    pytest.fail(f"{took}")
