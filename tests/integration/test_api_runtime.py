"""`/api/v1/runtime` over real sockets and `fake` engines: the documents' eight routes, explanations and events."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from corral.app import Corral
from corral.app.registration import Registrations
from corral.config import load
from corral.domain.generation import ModelConfig
from corral.errors import Conflict, ModelBusy, NotFound
from corral.gateway.feed import Backlog, Feed
from support.api import Client, Reply
from support.servers import Server, corral_server

BASE = "/api/v1/runtime"
CONFIG = """
models:
  robot: {runtime: fake, options: {reply: "one two three four"}}
  slow: {runtime: fake, idle_timeout: never}
  sick: {runtime: fake, options: {fault: crash_on_start}, fallback: [robot]}
  never: {runtime: fake, options: {fault: never_ready}}
  lost: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1"}, fallback: [nobody, sick]}
  dies: {runtime: fake, options: {fault: crash, fault_after: 2}}
  cloud: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1"}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


def ask(client: Client, method: str, path: str, body: Any = None) -> Reply:
    return client.ask(method, path, body, base=BASE)


def registration(name: str, **more: Any) -> dict[str, Any]:
    return {"model_id": "google/gemma-2b", "model_name": name, "runtime_type": "fake", **more}


def test_a_registered_model_is_listed_loaded_asked_and_taken_back(client: Client) -> None:
    done = ask(client, "POST", "/models/register", registration("Gemma-2B", model_type="llm"))
    assert (done.status, done.json["success"]) == (200, True)
    assert (done.json["model"]["state"], done.json["model"]["registered"]) == ("cold", True)
    listed = {model["name"]: model for model in ask(client, "GET", "/models").json["models"]}
    assert listed["Gemma-2B"]["registered"]
    assert not listed["robot"]["registered"]
    loaded = ask(client, "POST", "/models/load?model_name=Gemma-2B").json["model"]
    assert (loaded["state"], loaded["loaded"]) == ("ready", True)

    answer = ask(client, "POST", "/generate", {"model_name": "Gemma-2B", "prompt": "hello you", "max_tokens": 9})

    assert answer.status == 200
    assert (answer.json["success"], answer.json["text"], answer.json["model"]) == (True, "hello you", "Gemma-2B")
    assert answer.json["tokens"] == 2
    assert answer.json["receipt"]["engine"] == loaded["engine"]
    assert answer.json["receipt"]["request_id"] == answer.headers["x-request-id"]
    again = ask(client, "POST", "/models/register", registration("Gemma-2B", model_type="llm"))
    assert again.status == 200
    busy = ask(client, "POST", "/models/register", registration("Gemma-2B", options={"context": 7}))
    assert (busy.status, busy.json["error"]["code"]) == (409, "model_busy")
    assert ask(client, "DELETE", "/models/Gemma-2B").json["error"]["code"] == "model_busy"
    ask(client, "POST", "/models/unload?model_name=Gemma-2B")
    assert ask(client, "DELETE", "/models/Gemma-2B").json["success"] is True
    assert ask(client, "GET", "/models/Gemma-2B").status == 404
    assert ask(client, "DELETE", "/models/Gemma-2B").status == 404


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (registration("robot"), 409, "configuration"),
        (registration("../x"), 400, "name"),
        (registration("a", runtime_type="fakee"), 404, "fake"),
        (registration("a", runtime_type="/bin/sh"), 400, "runtime_type"),
        (registration("a", runtime_type="openai"), 400, "base_url"),
        (registration("a", quantization="int8"), 400, "quantization"),
        (registration("a", quantization="int8", runtime_type=None), 400, "runtime_type"),
        (registration("a", quantization="../../x"), 400, "quantization"),
        (registration("a", device_type="cuda:0; rm"), 400, "device_type"),
        (registration("a", options={"reply": "text"}), 400, "over HTTP"),
        (registration("a", runtime_type="llamacpp", options={"mmproj": "/etc/passwd"}), 400, "over HTTP"),
        (registration("a", runtime_type="llamacpp", options={"chat_template": "/etc/passwd"}), 400, "over HTTP"),
        (registration("a", options={"context": "a b"}), 400, "word"),
        (registration("a", options={"context": 0}), 400, "context"),
        (registration("a", command="rm"), 400, "command"),
        ({"model_name": "a"}, 400, "model_id"),
        ([], 400, "body"),
    ],
)
def test_what_may_not_be_registered_over_http(client: Client, body: Any, status: int, word: str) -> None:
    reply = ask(client, "POST", "/models/register", body)

    assert (reply.status, reply.json["success"]) == (status, False), reply.json
    assert word in json.dumps(reply.json["error"])
    assert "a" not in [model["name"] for model in ask(client, "GET", "/models").json["models"]]


def test_one_that_is_not_installed_says_so_and_is_not_lost(client: Client) -> None:
    done = ask(client, "POST", "/models/register", registration("later", runtime_type="llamacpp"))
    assert done.status == 200
    assert "corral pull" in done.json["message"]
    assert ask(client, "POST", "/models/load?model_name=later").status == 404
    assert ask(client, "GET", "/models/later").json["model"]["registered"]
    assert ask(client, "DELETE", "/models/later").status == 200


def test_a_registration_outlives_the_server(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as first:
        said = registration("kept", fallback=["robot"], options={"context": 512})
        assert ask(Client(first), "POST", "/models/register", said).status == 200
    with corral_server(tmp_path, CONFIG) as second:
        client = Client(second)
        model = ask(client, "GET", "/models/kept").json["model"]
        assert (model["registered"], model["fallback"]) == (True, ["robot"])
        assert ask(client, "POST", "/models/load?model_name=kept").json["model"]["context"] == 512


def test_load_may_say_for_how_long_and_may_be_a_hint(client: Client) -> None:
    kept = ask(client, "POST", "/models/load?model_name=robot&keep_alive=10m").json["model"]
    assert 590 < kept["idle_left"] <= 600
    assert kept["until"] > kept["loaded_at"] + 500
    for endless in ("never", "-1"):
        kept = ask(client, "POST", f"/models/load?model_name=robot&keep_alive={endless}").json["model"]
        assert (kept["idle_left"], kept["until"]) == (None, None)
    refused = ask(client, "POST", "/models/load?model_name=robot&keep_alive=soon")
    assert (refused.status, "keep_alive" in refused.json["error"]["message"]) == (400, True)

    ask(client, "POST", "/models/unload?model_name=slow")
    with watch(client.server) as events:
        hinted = ask(client, "POST", "/models/load?model_name=slow&wait=false")
        assert (hinted.status, hinted.json["success"]) == (202, True)
        until(events, lambda e: e["type"] == "transition" and (e["model"], e["state"]) == ("slow", "ready"))
    assert ask(client, "POST", "/models/load?model_name=nobody&wait=false").status == 404


def test_a_model_tells_what_it_takes_and_would_take(client: Client) -> None:
    ask(client, "POST", "/models/unload?model_name=robot")
    cold = ask(client, "GET", "/models/robot").json["model"]
    assert cold["estimated"]["cpu"] > 0
    assert cold["placement"]["device"] == "cpu"
    assert cold["footprint"] is None
    warm = ask(client, "POST", "/models/load?model_name=robot").json["model"]
    assert warm["footprint"]["cpu"] > 0
    assert warm["held"]["cpu"] > 0
    assert warm["idle_seconds"] is not None
    assert ask(client, "GET", "/models/cloud").json["model"]["estimated"] is None


def sse(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def test_a_generation_is_streamed_with_its_facts_at_the_end(client: Client) -> None:
    body = {"model_name": "robot", "prompt": "hi", "stream": True}
    with client.open("POST", "/generate", body, base=BASE) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *pieces, last = sse(response)
    assert "".join(piece["text"] for piece in pieces) == "one two three four"
    assert len(pieces) == 4
    assert (last["done"], last["success"], last["tokens"], last["model"]) == (True, True, 4, "robot")
    assert last["receipt"]["request_id"] == response.headers["x-request-id"]


def test_a_stream_that_breaks_says_why_and_one_that_cannot_begin_has_a_status(client: Client) -> None:
    body = {"model_name": "dies", "prompt": "a b c d", "stream": True}
    with client.open("POST", "/generate", body, base=BASE) as response:
        *_, last = sse(response)
    assert (last["done"], last["success"], last["error"]["code"]) == (True, False, "engine_died")
    nobody = ask(client, "POST", "/generate", {**body, "model_name": "nobody"})
    assert (nobody.status, nobody.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_another_model_answers_where_the_first_cannot_be_had(client: Client, stream: bool) -> None:
    reply = ask(client, "POST", "/generate", {"model_name": "sick", "prompt": "hi", "stream": stream})
    assert reply.status == 200
    told = json.loads(reply.body.splitlines()[-2][6:]) if stream else reply.json
    assert told["model"] == "robot"
    (missed,) = told["receipt"]["fallbacks"]
    assert missed["model"] == "sick"
    assert missed["message"]


def test_when_none_can_be_had_every_reason_is_told(client: Client) -> None:
    reply = ask(client, "POST", "/generate", {"model_name": "lost", "prompt": "hi"})
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_refused")
    assert "nobody" in reply.json["error"]["message"]
    assert "sick" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "hi"},
        {"model_name": "robot"},
        {"model_name": "robot", "prompt": "hi", "max_tokens": 0},
        {"model_name": "robot", "prompt": "hi", "temperature": -1},
        {"model_name": "robot", "prompt": "hi", "keep_alive": "later"},
        {"model_name": "robot", "prompt": "hi", "bananas": 3},
    ],
)
def test_a_generation_that_cannot_be_meant_is_refused(client: Client, body: Any) -> None:
    reply = ask(client, "POST", "/generate", body)
    assert (reply.status, reply.json["success"]) == (400, False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_engine(server: Server, client: Client, stream: bool) -> None:
    held = {"model_name": "slow", "prompt": "hi", "messages": [], "stream": stream}
    ask(client, "POST", "/models/load?model_name=slow")
    parts = urlsplit(server.url)
    body = json.dumps({**held, "prompt": "word " * 20000, "max_tokens": 20000}).encode()
    with socket.create_connection((parts.hostname, parts.port), 30) as raw:
        head = f"POST {BASE}/generate HTTP/1.1\r\nHost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        while not ask(client, "GET", "/models/slow").json["model"]["in_flight"]:
            pass
    # It answers only once nothing is in flight, within a time that the whole answer would not have met unread.
    assert ask(client, "POST", "/models/unload?model_name=slow&drain=30").status == 200


def test_whoever_leaves_a_load_is_not_waited_for(server: Server, client: Client) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 30) as raw:
        raw.sendall(f"POST {BASE}/models/load?model_name=never HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        while ask(client, "GET", "/models/never").json["model"]["waiting"] != 1:
            pass
    while (model := ask(client, "GET", "/models/never").json["model"])["waiting"]:
        pass
    assert model["state"] == "loading"
    assert ask(client, "POST", "/models/unload?model_name=never&force=true").status == 200


def test_health_names_what_is_wrong(client: Client) -> None:
    ask(client, "POST", "/models/load?model_name=sick")
    health = ask(client, "GET", "/health").json
    assert health["status"] == "degraded"
    assert "sick" in [problem["name"] for problem in health["problems"] if problem["kind"] == "model"]
    ask(client, "POST", "/models/unload?model_name=sick")
    assert "sick" not in [problem["name"] for problem in ask(client, "GET", "/health").json["problems"]]


def test_stats_tell_of_machine_memory_engines_and_what_happened(client: Client) -> None:
    before = ask(client, "GET", "/stats").json["counters"]
    ask(client, "POST", "/models/unload?model_name=robot")
    ask(client, "POST", "/models/load?model_name=robot")
    stats = ask(client, "GET", "/stats").json
    assert stats["machine"]["memory"]["total"] > 0
    cpu = stats["memory"]["cpu"]
    assert cpu["held"] > 0
    assert cpu["free"] == max(0, cpu["capacity"] - cpu["held"])
    assert "robot" in [engine["model"] for engine in stats["engines"]]
    assert stats["counters"]["loads"] > before["loads"]
    assert stats["uptime_seconds"] > 0


def test_decisions_are_remembered_newest_first(client: Client) -> None:
    ask(client, "POST", "/models/unload?model_name=robot")
    ask(client, "POST", "/models/load?model_name=robot")
    found = ask(client, "GET", "/decisions?limit=1").json["decisions"]
    assert [(entry["model"], entry["effect"]) for entry in found] == [("robot", "load")]
    assert found[0]["reason"]


def test_a_model_is_explained(client: Client) -> None:
    told = ask(client, "GET", "/explain?model=robot").json
    assert (told["success"], told["model"]) == (True, "robot")
    assert told["explanation"]
    assert ask(client, "GET", "/explain?model=nobody").status == 404
    assert ask(client, "GET", "/explain").status == 400


@contextmanager
def watch(server: Server, **more: Any) -> Iterator[ClientConnection]:
    """The server's events, those before this moment told already."""
    url = server.url.replace("http", "ws") + f"{BASE}/events/ws"
    with connect(url, proxy=None, open_timeout=30, **more) as opened:
        first = json.loads(opened.recv(30))
        assert first["type"] == "snapshot"
        assert {model["name"] for model in first["models"]} >= {"robot", "slow"}
        assert set(first) == {"type", "at", "models", "memory", "queues"}
        yield opened


def until(events: ClientConnection, wanted: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or not wanted(told[-1]):
        told.append(json.loads(events.recv(30)))
    return told


def test_a_socket_tells_how_it_stands_and_then_each_change_with_its_reason(client: Client) -> None:
    ask(client, "POST", "/models/unload?model_name=robot")
    with watch(client.server) as events:
        ask(client, "POST", "/models/load?model_name=robot")
        told = until(events, lambda e: e["type"] == "transition" and e["state"] == "ready")
    states = [event["state"] for event in told if event["type"] == "transition"]
    assert states[-2:] == ["loading", "ready"]
    (decision,) = [event for event in told if event["type"] == "decision"]
    assert (decision["model"], decision["effect"]) == ("robot", "load")
    assert all(event["reason"] for event in told if event["type"] in ("transition", "decision"))


def test_a_socket_is_for_those_who_may_ask(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG, env={"CORRAL_API_KEY": "k-1"}) as server:
        url = server.url.replace("http", "ws") + f"{BASE}/events/ws"
        with pytest.raises(InvalidStatus) as refused, connect(url, proxy=None):
            pass
        assert refused.value.response.status_code == 401
        with watch(server, additional_headers={"x-api-key": "k-1"}) as events:
            server.process.terminate()
            for _ in events:
                pass  # until it is closed
            assert events.protocol.close_code in (1001, 1012)
        assert server.process.wait(90) == 0


async def test_a_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    backlog = Backlog(most=2)
    for number in range(5):
        backlog.put({"number": number})
    assert await backlog.take(1) == {"type": "lost", "count": 3}
    assert await backlog.take(1) == {"number": 3}
    assert await backlog.take(1) == {"number": 4}
    assert await backlog.take(0) is None
    backlog.end()
    assert await backlog.take(60) is None


async def test_samples_are_told_beside_the_changes_and_silence_is_a_sign_of_life(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def samples() -> Any:
        yield {"cpu": 1}
        await go.wait()

    corral = Corral(load({"HOME": str(tmp_path)}, cwd=tmp_path), env={})
    leaving = asyncio.Event()
    listening = Feed(corral, Registrations(corral), leaving, samples).listen(heartbeat=0)
    assert (await anext(listening) or {})["type"] == "snapshot"
    told = [await anext(listening), await anext(listening)]
    assert {"type": "sample", "cpu": 1} in told
    assert None in told
    leaving.set()
    assert [message async for message in listening if message is not None] == []
    await corral.close()


async def test_registrations_are_read_again_as_far_as_they_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "corral.yaml"
    file.write_text(CONFIG)
    settings = load({"HOME": str(tmp_path)}, file=file)
    corral = Corral(settings, env={})
    first = Registrations(corral)
    first.restore()
    config = ModelConfig("m", "mine", runtime_type="fake")
    first.keep(config)
    with pytest.raises(Conflict):
        first.keep(ModelConfig("m", "robot", runtime_type="fake"))
    found = json.loads((settings.home / "registered.json").read_text())
    found["models"].append({**found["models"][0], "model_name": "odd", "runtime_type": "gone"})
    (settings.home / "registered.json").write_text(json.dumps(found))
    second = Registrations(Corral(settings, env={}))
    second.restore()
    assert second.names() == ["mine"]
    assert "odd" in caplog.text
    with pytest.raises(NotFound):
        second.remove("odd")
    (settings.home / "registered.json").write_text("{")
    third = Registrations(Corral(settings, env={}))
    third.restore()
    assert third.names() == []
    assert "not read" in caplog.text
    await corral.load("mine")
    with pytest.raises(ModelBusy):
        first.remove("mine")
    await corral.close()
