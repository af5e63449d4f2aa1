"""Two hundred things done to containers, by hand and by Corral, in any order: the database says what Docker says."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.support.docker import TINY, Engine, until
from tests.support.ports import free_port
from tests.support.servers import Server, corral_server

pytestmark = pytest.mark.timeout(600)

ACTIONS = 200
LOOKS = 10
"""Actions between two comparisons."""
NAMES = ("code", "reasoning", "writing", "spare")
UP = {"starting", "healthy", "unhealthy", "fallen_back", "paused"}


@dataclass
class Yard:
    """A Corral that keeps four containers on an engine, and what happens to them."""

    docker: Engine
    server: Server
    choose: random.Random
    ports: dict[str, int] = field(default_factory=dict)
    configured: set[str] = field(default_factory=lambda: set(NAMES))
    memory: int = 64
    done: list[str] = field(default_factory=list)

    def configuration(self) -> str:
        entries = {
            name: {
                "kind": "openai",
                "image": TINY,
                "network": "host",
                "port": self.ports[name],
                "inside": self.ports[name],
                "command": ["serve", str(self.ports[name]), "127.0.0.1"],
                "health": "/health",
                "memory": f"{self.memory}MiB",
                "stop_grace": "1s",
            }
            for name in sorted(self.configured)
        }
        return json.dumps({"docker": {"host": self.docker.address}, "containers": entries})

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """A request to Corral; whatever it answers is an answer, but for a fault of its own."""
        answer = httpx.request(method, f"{self.server.url}/api/v1/containers{path}", timeout=60, **given)
        assert answer.status_code != 500, answer.text
        return answer

    def theirs(self) -> dict[str, dict[str, Any]]:
        """What Docker says of Corral's containers, by the name they have in the configuration."""
        found = {}
        for seen in self.docker.seen().values():
            labels = seen["Config"]["Labels"] or {}
            if "corral.yard" in labels:
                found[labels["corral.name"]] = seen
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """What the database says."""
        with closing(sqlite3.connect(f"file:{self.server.home}/corral.db?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return {row["name"]: dict(row) for row in database.execute("SELECT * FROM containers")}

    def differences(self) -> list[str]:
        """Where the two do not say the same."""
        theirs, rows = self.theirs(), self.rows()
        found = []
        for name in {*theirs, *rows}:
            seen, row = theirs.get(name), rows.get(name)
            state = None if row is None else row["state"]
            if seen is None:
                if state not in (None, "absent", "stopped", "waiting", "crash_loop"):
                    found.append(f"{name}: gone from Docker, and {state} in the database")
                if row is not None and row["container_id"] is not None:
                    found.append(f"{name}: gone from Docker, and the database knows an id")
            elif row is None:
                found.append(f"{name}: in Docker, and not in the database")
            else:
                found += self._differences(name, seen, row)
        return found

    def _differences(self, name: str, seen: dict[str, Any], row: dict[str, Any]) -> Iterator[str]:
        running, paused = seen["State"]["Running"], seen["State"]["Paused"]
        facts = {
            "container_id": seen["Id"],
            "container_name": seen["Name"].removeprefix("/"),
            "image_id": seen["Image"],
        }
        for key, value in facts.items():
            if row[key] != value:
                yield f"{name}: {key} is {value}, and {row[key]} in the database"
        state = row["state"]
        if row["state"] != "orphan" and (state in UP) != running:
            yield f"{name}: Docker has it {seen['State']['Status']}, and the database {state}"
        if (state == "paused") != paused and state != "orphan":
            yield f"{name}: Docker has it {seen['State']['Status']}, and the database {state}"
        if (row["status"] == "active") != (state in {"healthy", "fallen_back"}):
            yield f"{name}: {state} and {row['status']}"

    # What is done

    def by_hand(self, *words: str) -> Callable[[str], None]:
        def act(name: str) -> None:
            seen = self.theirs().get(name)
            if seen is not None:
                self.docker.run(*words, seen["Id"])  # Docker may refuse, such as to start what is paused

        return act

    def by_corral(self, method: str, path: str, **given: Any) -> Callable[[str], None]:
        return lambda name: void(self.ask(method, path.format(name=name), **given))

    def rename(self, name: str) -> None:
        seen = self.theirs().get(name)
        if seen is not None:
            self.docker.run("rename", seen["Id"], f"moved-{len(self.done)}")

    def reconfigure(self, name: str) -> None:
        if self.choose.random() < 0.5:
            self.configured ^= {name}
        else:
            self.memory = self.choose.choice([48, 64, 96])
        (self.server.home / "corral.yaml").write_text(self.configuration())
        httpx.post(f"{self.server.url}/api/v1/runtime/reload", timeout=60).raise_for_status()

    def actions(self) -> list[tuple[str, Callable[[str], None]]]:
        hand = ("stop --time 1", "kill", "start", "restart --time 1", "rm --force", "pause", "unpause")
        return [
            *((f"docker {words}", self.by_hand(*words.split())) for words in hand),
            ("docker rename", self.rename),
            ("docker update", self.by_hand("update", "--memory", "80m", "--memory-swap", "80m")),
            ("start", self.by_corral("POST", "/{name}/start", json={"wait": False})),
            ("stop", self.by_corral("POST", "/{name}/stop")),
            ("restart", self.by_corral("POST", "/{name}/restart", json={"wait": False})),
            ("remove", self.by_corral("DELETE", "/{name}?force=true")),
            ("up", self.by_corral("POST", "/up", json={"wait": False})),
            ("up one", lambda name: void(self.ask("POST", "/up", json={"names": [name], "wait": False}))),
            ("down one", lambda name: void(self.ask("POST", "/down", json={"names": [name]}))),
            ("sync", self.by_corral("POST", "/sync")),
            ("reconfigure", self.reconfigure),
        ]


def void(_: Any) -> None:
    """What an action answers is not its proof."""


@pytest.mark.parametrize("seed", [20261121])
def test_the_database_says_what_docker_says(docker: Engine, tmp_path: Path, seed: int) -> None:
    docker.image(TINY)
    yard = Yard(docker, None, random.Random(seed), {name: free_port() for name in NAMES})  # type: ignore[arg-type]  # it comes
    with corral_server(tmp_path, yard.configuration()) as yard.server:
        until(lambda: yard.theirs().keys() == set(NAMES), 60)
        actions = yard.actions()
        for number in range(1, ACTIONS + 1):
            (what, act), name = yard.choose.choice(actions), yard.choose.choice(NAMES)
            yard.done.append(f"{what} {name}")
            act(name)
            if number % LOOKS == 0 or number == ACTIONS:
                try:
                    until(lambda: not yard.differences(), 30)
                except AssertionError:
                    said = (tmp_path / "server.log").read_text()[-3000:]
                    pytest.fail(f"after {yard.done[-LOOKS:]}: {yard.differences()}\n{said}")
        print(json.dumps({name: row["state"] for name, row in yard.rows().items()}))
        # Whatever was done to them, they come up when they are told to.
        yard.configured = set(NAMES)
        (yard.server.home / "corral.yaml").write_text(yard.configuration())
        httpx.post(f"{yard.server.url}/api/v1/runtime/reload", timeout=60).raise_for_status()
        answer = yard.ask("POST", "/up", json={})
        assert {one["name"]: one["state"] for one in answer.json()["containers"]} == dict.fromkeys(NAMES, "healthy")
        assert yard.differences() == []
    assert yard.theirs()  # containers outlive their Corral
