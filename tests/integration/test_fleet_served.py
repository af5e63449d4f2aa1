"""Three containers with purposes behind a server: asked through it and directly, and what outlives what."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from tests.support.docker import CORRAL, PLAYER, Engine, until
from tests.support.ports import free_port
from tests.support.servers import Server, corral_server

pytestmark = pytest.mark.timeout(500)

PURPOSES = {"code": "code completion", "reasoning": "reasoning", "writing": "writing"}
SLOW = 100.0
"""Seconds that a model server may take to come up on a busy machine."""
QUESTION = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


def configuration(docker: Engine, store: Path) -> str:
    """One server for each purpose: a real model for code, players for the others, so that a small machine has room."""
    ports = {name: free_port() for name in PURPOSES}
    entries = {
        name: {
            "image": docker.image(CORRAL if name == "code" else PLAYER),
            "kind": "ollama",
            "purpose": purpose,
            "network": "host",
            "port": ports[name],
            "volumes": {str(store): "/seed:ro"},
            "models": ["smollm2"] if name == "code" else [],
            "start_timeout": 120,
            "stop_grace": 5,
        }
        for name, purpose in PURPOSES.items()
    }
    return yaml.safe_dump({"docker": {"host": docker.address}, "containers": entries})


def rows(server: Server) -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{server.url}/api/v1/containers", timeout=30).json()
    return {row["name"]: row for row in found["containers"]}


def all_healthy(server: Server, when: Callable[[dict[str, Any]], Any] = lambda _: True) -> dict[str, dict[str, Any]]:
    """How they stand, as soon as all of them are healthy."""
    last: dict[str, dict[str, Any]] = {}

    def there() -> bool:
        nonlocal last
        last = rows(server)
        return {row["state"] for row in last.values()} == {"healthy"} and bool(when(last))

    try:
        until(there, SLOW)
    except AssertionError:
        told = {name: (row["state"], row["reason"], row["wanted"]) for name, row in last.items()}
        raise AssertionError(f"{told}\n{(server.home.parent / 'server.log').read_text()[-3000:]}") from None
    return last


def ask(server: Server, model: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json={"model": model, **QUESTION}, timeout=120)


def test_three_containers_answer_and_outlive_what_may_end(docker: Engine, tmp_path: Path, model_store: Path) -> None:
    config = configuration(docker, model_store)
    with corral_server(tmp_path, config) as server:
        up = all_healthy(server)
        assert {name: row["purpose"] for name, row in up.items()} == PURPOSES
        answer = ask(server, "smollm2")
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] > 0
        for row in up.values():
            assert httpx.get(f"{row['url']}/api/version", timeout=60).json()["version"]
        assert "smollm2" in {model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]}

        docker.cli("kill", "corral-code")
        again = all_healthy(server, lambda found: found["code"]["restarts"])
        assert again["code"]["id"] == up["code"]["id"]
        assert ask(server, "smollm2").status_code == 200

        docker.cli("stop", "--time", "2", "corral-code")
        until(lambda: rows(server)["code"]["state"] == "stopped")
        refused = ask(server, "smollm2")
        assert refused.status_code == 503, refused.text
        assert "stopped by hand" in refused.text
        assert "corral containers start code" in refused.text
        assert httpx.post(f"{server.url}/api/v1/containers/code/start", json={}, timeout=120).status_code == 200
        assert ask(server, "smollm2").status_code == 200

        docker.stop()
        until(lambda: rows(server)["code"]["state"] == "unknown")
        docker.start()
        back = all_healthy(server)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    docker.cli("kill", "corral-writing")
    with corral_server(tmp_path, config) as server:  # the others went on, and the one that was killed comes back
        now = all_healthy(server)
        assert {name: row["id"] for name, row in now.items()} == {name: row["id"] for name, row in back.items()}
        assert now["code"]["started_at"] == pytest.approx(back["code"]["started_at"], abs=0.01)
        assert ask(server, "smollm2").status_code == 200
    assert all(each["State"]["Running"] for each in docker.seen().values())  # a server that ends leaves them up
