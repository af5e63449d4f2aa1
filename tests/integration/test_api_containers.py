"""`/api/v1/containers` of a server of its own process, over a Docker engine of the tests' own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.api import Client, Reply
from tests.support.docker import PLAYER, TINY, Engine, until
from tests.support.ports import free_port
from tests.support.servers import Server, corral_server

pytestmark = pytest.mark.timeout(300)

BASE = "/api/v1/containers"


def tiny(port: int, *more: str, **settings: Any) -> dict[str, Any]:
    """A container that answers like a server of models without any."""
    command = [*more, "serve", str(port), "127.0.0.1"]
    fixed = {"kind": "openai", "image": TINY, "network": "host", "port": port, "inside": port, "command": command}
    return {**fixed, "stop_grace": "1s", **settings}


def configuration(docker: Engine, **containers: dict[str, Any]) -> str:
    return yaml.safe_dump({"docker": {"host": docker.address}, "containers": containers})


class Asking:
    """Asks one server about containers."""

    def __init__(self, server: Server, headers: dict[str, str] | None = None) -> None:
        self.server = server
        self._client = Client(server, headers)

    def ask(self, method: str, path: str = "", body: Any = None, status: int = 200, **headers: str) -> Any:
        """The answer, which has that status."""
        answer = self.raw(method, path, body, **headers)
        assert answer.status == status, answer.body
        return answer.json

    def raw(self, method: str, path: str = "", body: Any = None, **headers: str) -> Reply:
        return self._client.ask(method, path, body, headers, base=BASE)

    def code(self, method: str, path: str = "", body: Any = None) -> tuple[int, str]:
        """Status and code of a refusal, which says what to do."""
        answer = self.raw(method, path, body)
        assert answer.json["success"] is False
        return answer.status, answer.code

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """What a stream tells, until it ends."""
        with self._client.open("GET", path, base=BASE) as response:
            assert response.status == 200, response.read()
            assert response.getheader("content-type", "").startswith("text/event-stream")
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])


def test_from_a_plan_to_the_end(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    port = free_port()
    with corral_server(
        tmp_path, configuration(docker, coder=tiny(port, "say", "hello", purpose="code", enabled=False))
    ) as server:
        asking = Asking(server)
        (absent,) = asking.ask("GET")["containers"]
        assert (absent["state"], absent["status"], absent["purpose"]) == ("absent", "inactive", "code")
        plan = asking.ask("GET", "/plan?name=coder")
        assert [(step["step"], step["name"]) for step in plan["plan"]] == [("create", "coder")]
        assert plan["changes"] is True
        assert docker.seen() == {}

        up = asking.ask("POST", "/up", {"names": ["coder"]})
        assert up["count"] == 1
        (coder,) = up["containers"]
        assert (coder["state"], coder["status"], coder["port"]) == ("healthy", "active", port)
        assert docker.seen()[coder["container"]]["Id"] == coder["id"]
        assert asking.ask("GET", "/coder")["container"]["id"] == coder["id"]
        assert asking.ask("GET", "/plan")["changes"] is False

        assert [line["text"] for line in asking.ask("GET", "/coder/logs?lines=1")["lines"]] == ["hello"]
        usage = asking.ask("GET", "/coder/stats")["usage"]
        assert usage["memory"] > 0
        assert usage["pids"] >= 1
        health = asking.ask("GET", "/coder/health")["health"]
        assert health["healthy"] is True

        stopped = asking.ask("POST", "/coder/stop")["container"]
        assert (stopped["state"], stopped["wanted"]) == ("stopped", False)
        assert docker.seen()[coder["container"]]["State"]["Running"] is False
        assert asking.ask("GET", "/coder/stats")["usage"] is None
        assert asking.ask("POST", "/coder/start")["container"]["state"] == "healthy"
        assert asking.ask("POST", "/coder/restart", {"wait": True})["container"]["id"] == coder["id"]
        again = asking.ask("POST", "/coder/recreate")["container"]
        assert again["id"] != coder["id"]
        assert again["state"] == "healthy"

        happened = asking.ask("GET", "/coder/history?limit=50")
        assert happened["count"] == len(happened["history"]) > 3
        assert happened["history"][0]["at"] > happened["history"][-1]["at"]
        assert asking.ask("GET", "/coder/versions")["versions"]

        assert asking.code("DELETE", "/coder") == (409, "conflict")
        assert asking.ask("DELETE", "/coder?force=true")["success"] is True
        assert docker.seen() == {}
        asking.ask("POST", "/up", {"wait": False, "names": ["coder"]})
        down = asking.ask("POST", "/down")["containers"]
        assert [one["state"] for one in down] == ["stopped"] or [one["state"] for one in down] == ["absent"]
        assert docker.seen() == {}


def test_changes_logs_and_figures_as_they_come(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    port = free_port()
    with corral_server(
        tmp_path, configuration(docker, coder=tiny(port, "say", "one", "say", "two"), spare=tiny(free_port()))
    ) as server:
        asking = Asking(server)
        asking.ask("POST", "/up", {})
        told: list[dict[str, Any]] = []
        begun = threading.Event()

        def listen() -> None:
            for event in asking.events("/events"):
                told.append(event)
                begun.set()
                if event["type"] == "container" and event["container"]["state"] == "stopped":
                    return

        listener = threading.Thread(target=listen)
        listener.start()
        assert begun.wait(90)
        assert {one["name"] for one in told[0]["containers"]} == {"coder", "spare"}
        docker.cli("stop", "--time", "1", told[0]["containers"][1]["container"])
        listener.join(90)
        assert not listener.is_alive()
        assert told[-1]["container"]["name"] == "spare"
        assert {event["type"] for event in told} == {"snapshot", "container", "container_event"}

        lines = asking.events("/coder/logs?lines=2&follow=true")
        assert [next(lines)["text"], next(lines)["text"]] == ["one", "two"]
        figures = asking.events("/coder/stats?stream=true")
        first, second = next(figures), next(figures)
        assert second["at"] > first["at"]

        # What follows a container ends with it, and what is streamed ends with the server.
        asking.ask("POST", "/coder/stop")
        assert list(lines) == []
        stack = asking.ask("GET", "/stack")["stack"]
        assert stack["containers"]["stopped"] == 2
        engine = asking.ask("GET", "/engine")["engine"]
        assert engine["address"] == docker.address
        assert engine["version"]
        endless = asking.events("/events")
        assert next(endless)["type"] == "snapshot"
        server.process.terminate()
        assert [event for event in endless if event["type"] == "snapshot"] == []
        server.process.wait(90)


def test_what_cannot_be_is_said_by_its_code(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    port = free_port()
    containers = {
        "coder": tiny(port),
        "gone": tiny(free_port(), image="corral-test/nowhere:1"),
        "sick": {**tiny(free_port()), "health": "/no-such-path", "start_timeout": "2s"},
    }
    for entry in containers.values():
        entry["enabled"] = False
    with corral_server(tmp_path, configuration(docker, **containers)) as server:
        asking = Asking(server)
        for verb in ("start", "stop", "restart", "recreate", "rollback", "update", "adopt"):
            assert asking.code("POST", f"/codre/{verb}") == (404, "container_missing"), verb
        for page in ("", "/logs", "/logs?follow=true", "/stats", "/stats?stream=true", "/health", "/models"):
            assert asking.code("GET", f"/codre{page}") == (404, "container_missing"), page
        assert asking.code("DELETE", "/codre") == (404, "container_missing")
        assert "coder" in asking.raw("POST", "/codre/start").json["error"]["hint"]
        for path, body in (("/up", {"nmes": []}), ("/up", {"orphans": "forget"}), ("/coder/start", {"wait": "so"})):
            assert asking.code("POST", path, body) == (400, "invalid_request")
        assert asking.code("GET", "/coder/logs?lines=0") == (400, "invalid_request")
        assert asking.code("GET", "/plan?name=codre") == (404, "container_missing")

        status, code = asking.code("POST", "/gone/start")
        assert (status, code) in {(404, "image_missing"), (502, "container_error")}  # as far as the registry is reached
        sick = asking.raw("POST", "/sick/start")
        assert (sick.status, sick.code) == (503, "container_sick")
        assert asking.ask("GET", "/sick/health")["health"]["healthy"] is False
        asking.ask("POST", "/sick/stop")
        assert asking.code("POST", "/coder/rollback") == (409, "conflict")

        # Of several, one that cannot be brought up does not keep the others down.
        found = {one["name"]: one for one in asking.ask("POST", "/up", {"names": ["coder", "gone"]})["containers"]}
        assert found["coder"]["state"] == "healthy"
        assert found["gone"]["state"] != "healthy"
        assert "corral-test/nowhere:1" in found["gone"]["reason"]


def test_docker_goes_and_comes_back(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    with corral_server(tmp_path, configuration(docker, coder=tiny(free_port()))) as server:
        asking = Asking(server)
        asking.ask("POST", "/up")
        docker.stop()
        (coder,) = until(lambda: [one for one in asking.ask("GET")["containers"] if one["state"] == "unknown"])
        assert coder["reason"]
        assert asking.code("GET", "/engine") == (503, "docker_missing")
        assert asking.code("POST", "/coder/start") == (503, "docker_missing")
        stack = asking.ask("GET", "/stack")["stack"]
        assert stack["engine"] is None
        assert stack["reason"]
        docker.start()
        until(lambda: asking.ask("GET", "/coder")["container"]["state"] == "healthy", within=60)


def test_models_in_a_container(docker: Engine, player_image: str, tmp_path: Path) -> None:
    port = free_port()
    entry = {"kind": "ollama", "image": PLAYER, "network": "host", "port": port, "stop_grace": "1s"}
    with corral_server(tmp_path, configuration(docker, coder=entry)) as server:
        asking = Asking(server)
        asking.ask("POST", "/up")
        assert asking.ask("GET", "/coder/models")["models"] == []
        begun = asking.ask("POST", "/coder/models", {"model": "tiny:1b"})
        ended = Client(server).ended(begun["operation_id"])
        assert ended["status"] == "completed", ended
        assert ended["operation_type"] == "container-pull"
        (model,) = asking.ask("GET", "/coder/models")["models"]
        assert model["name"] == "tiny:1b"
        assert model["digest"]
        trial = asking.ask("POST", "/coder/models/tiny:1b/test")["trial"]
        assert trial["ok"] is True
        unknown = asking.raw("POST", "/coder/models/org%2Fother:1b/test")
        assert unknown.status == 404 or unknown.json["trial"]["ok"] is False

        failed = Client(server).ended(asking.ask("POST", "/coder/models", {"model": "nobody:has"})["operation_id"])
        assert failed["status"] == "failed"
        assert asking.code("POST", "/coder/models", {"model": ""}) == (400, "invalid_request")
        assert asking.ask("DELETE", "/coder/models/tiny:1b")["success"] is True
        assert asking.ask("GET", "/coder/models")["models"] == []
        assert asking.raw("DELETE", "/coder/models/tiny:1b").status == 404


def test_who_may_do_what_and_what_is_written_down(docker: Engine, tmp_path: Path) -> None:
    with corral_server(tmp_path, configuration(docker, coder=tiny(free_port(), enabled=False))) as server:
        token = json.loads((server.home / "server.json").read_text())["token"]
        owner = {"authorization": f"Bearer {token}"}
        keys = {}
        for scope in ("infer", "manage"):
            made = Client(server, owner).ask("POST", "", {"name": scope, "scope": scope}, base="/api/v1/keys")
            keys[scope] = Asking(server, {"authorization": f"Bearer {made.json['secret']}"})
        assert keys["infer"].code("GET") == (403, "forbidden")
        assert keys["infer"].code("POST", "/up") == (403, "forbidden")
        assert keys["manage"].ask("GET")["count"] == 1
        assert keys["manage"].code("GET", "/export") == (403, "forbidden")
        assert keys["manage"].code("POST", "/coder/adopt") == (403, "forbidden")
        assert keys["manage"].ask("POST", "/sync")["count"] == 1

        def managed() -> list[str]:
            found = Client(server, owner).ask("GET", "?limit=20", base="/api/v1/audit").json["entries"]
            return [entry["action"] for entry in found if BASE in entry["target"]]

        until(managed)  # it is written down once it has been answered
        assert managed() == [f"POST {BASE}/sync"]


COMPOSE = """
name: stack
services:
  code:
    image: ollama/ollama:0.12.3
    ports: ["127.0.0.1:21434:11434"]
    volumes: ["models:/root/.ollama", "./prompts:/prompts:ro"]
    environment: {HF_TOKEN: "${HF_TOKEN}", HOME_OF: "${HOME}"}
    privileged: true
volumes: {models: {}}
"""


def test_compose_files_are_read_and_written(tmp_path: Path) -> None:
    config = yaml.safe_dump({"docker": {"host": f"unix://{tmp_path}/no.sock"}})
    with corral_server(tmp_path, config, env={"HF_TOKEN": "s3cret"}) as server:
        asking = Asking(server)
        read = asking.ask("POST", "/import", {"compose": COMPOSE, "folder": "/srv/stack"})
        assert read["project"] == "stack"
        entry = read["containers"]["code"]
        assert entry["volumes"] == {"stack_models": "/root/.ollama", "/srv/stack/prompts": "/prompts:ro"}
        assert "privileged" in [left["key"] for left in read["unsupported"] if left["service"] == "code"]
        assert "s3cret" not in json.dumps(read)  # nothing of the server's own environment is told
        assert str(tmp_path) not in json.dumps(read)
        for text in ("a: [", "just words", "services: 7", "services: {a: {image: '${X:?must be set}'}}"):
            assert asking.code("POST", "/import", {"compose": text}) == (400, "invalid_request"), text
        assert asking.code("POST", "/import", {"compose": COMPOSE, "folder": "srv"}) == (400, "invalid_request")
        assert asking.ask("GET")["count"] == 0
        assert "services: {}" in asking.ask("GET", "/export")["compose"]

    with corral_server(tmp_path, yaml.safe_dump({"containers": {"code": entry}}), env={"HF_TOKEN": "s3cret"}) as server:
        asking = Asking(server)
        written = asking.ask("GET", "/export")["compose"]
        assert "s3cret" not in written
        again = asking.ask("POST", "/import", {"compose": written, "folder": "/srv/stack"})["containers"]["code"]
        assert again["volumes"] == entry["volumes"]
        assert again["environment"]["HF_TOKEN"] == "${HF_TOKEN}"
