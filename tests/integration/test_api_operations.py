"""Long work over HTTP: stopped, gone on with, watched by events and WebSockets, over restarts; and who may watch."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from support.api import Client
from support.models import gguf
from support.origin import Asked, Reply, ThreadedOrigin
from support.servers import Server, corral_server

CONFIG = "sources: {allow_private: [127.0.0.1], stall_timeout: 1h}\n"
KEY = "s3cret/key+="


class Slow:
    """A web server that sends half of a model, and the rest when it is let go."""

    def __init__(self) -> None:
        self.data = gguf(50_000)
        self.web = ThreadedOrigin({"/m.gguf": self.data})
        self.go = asyncio.Event()
        self.web.origin.tamper = self._tamper

    @property
    def url(self) -> str:
        return f"{self.web.origin.url}/m.gguf"

    def release(self) -> None:
        self.web.loop.call_soon_threadsafe(self.go.set)

    def _tamper(self, asked: Asked) -> Reply | None:
        honest = self.web.origin.serve(asked)
        if self.go.is_set() or not isinstance(honest.body, bytes) or len(honest.body) < 1000:
            return None
        return Reply(honest.status, honest.headers, self._halting(honest.body))

    async def _halting(self, body: bytes) -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        await self.go.wait()
        yield body[len(body) // 2 :]


@pytest.fixture
def slow() -> Iterator[Slow]:
    server = Slow()
    yield server
    server.web.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with corral_server(tmp_path, CONFIG) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


def begin(client: Client, slow: Slow, name: str = "slow") -> str:
    """Begin an install that halts halfway, and wait until it does."""
    begun = client.ask("POST", "/registry/install", {"name": name, "source": slow.url})
    assert begun.status == 200, begun.body
    for _, event in client.events(begun.json["operation_id"]):
        assert event["status"] in ("pending", "in_progress"), event
        if event["done_bytes"]:
            break
    return str(begun.json["operation_id"])


def watch(server: Server, operation_id: str, **more: Any) -> Any:
    url = server.url.replace("http:", "ws:")
    return connect(f"{url}/api/v1/models/operations/{operation_id}/ws", proxy=None, compression=None, **more)


def closing(socket: Any) -> int | None:
    """The code with which the server ends the socket, after whatever it still tells."""
    try:
        while True:
            socket.recv(30)
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else closed.rcvd.code


def test_an_install_is_paused_resumed_and_done(client: Client, slow: Slow) -> None:
    name = begin(client, slow)
    assert client.ask("POST", "/registry/install", {"name": "slow", "source": slow.url}).json["operation_id"] == name

    client.ask("POST", f"/operations/{name}/pause")
    paused = next(event for _, event in client.events(name) if event["status"] == "paused")
    assert client.ask("POST", f"/operations/{name}/pause").status == 409
    slow.release()
    assert client.ask("POST", f"/operations/{name}/resume").status == 200
    progress = [event["progress"] for _, event in client.events(name)]
    ended = client.ask("GET", f"/operations/{name}").json["operation"]

    assert progress == sorted(progress)
    assert progress[0] >= paused["progress"] > 0
    assert (ended["status"], ended["total_bytes"]) == ("completed", len(slow.data))
    assert client.ask("POST", f"/operations/{name}/cancel").status == 409


def test_a_cancelled_install_leaves_nothing(client: Client, slow: Slow) -> None:
    name = begin(client, slow)

    client.ask("POST", f"/operations/{name}/cancel")

    assert client.ended(name)["status"] == "cancelled"
    assert client.ask("GET", "/df").json["partial"] == 0
    assert client.ask("GET", "").json["models"] == []


def test_operations_are_listed_in_pages_newest_first(client: Client) -> None:
    file = client.folder / "a.gguf"
    file.write_bytes(gguf(1000))
    names = []
    for number in range(3):
        body = {"name": f"listed-{number}", "source": f"file:{file}"}
        names.append(client.ask("POST", "/registry/install", body).json["operation_id"])
        client.ended(names[-1])

    first = client.ask("GET", "/operations?limit=2").json
    rest = client.ask("GET", f"/operations?limit=2&before={first['next']}").json

    assert [item["operation_id"] for item in first["operations"] + rest["operations"]] == names[::-1]
    assert rest["next"] is None
    assert client.ask("GET", "/operations?status=failed").json["operations"] == []
    assert [item["model_name"] for item in client.ask("GET", "/operations?model=listed-1").json["operations"]] == [
        "listed-1"
    ]
    assert client.ask("GET", "/operations?status=nonsense").status == 400
    assert client.ask("GET", "/operations?model=%00").status == 400
    assert client.ask("GET", "/operations?before=op-none").status == 404


@pytest.mark.parametrize("name", ["op-0123456789abcdef", "x" * 200, "a%00b", "%2e%2e", "é"])
def test_what_is_no_operation_is_not_found(client: Client, name: str) -> None:
    name = client.quoted(name) if name == "é" else name
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/pause"), ("POST", "/resume")):
        reply = client.ask(method, f"/operations/{name}{path}")
        assert (reply.status, reply.json["success"]) == (404, False)


def test_who_comes_back_is_not_told_again(client: Client, slow: Slow) -> None:
    slow.release()
    begun = client.ask("POST", "/registry/install", {"name": "again", "source": slow.url}).json["operation_id"]

    seen = list(client.events(begun))

    assert len({name for name, _ in seen}) == len(seen)
    last = seen[-1][0]
    assert client.ask("GET", f"/operations/{begun}/events", headers={"last-event-id": last}).status == 204
    assert [name for name, _ in client.events(begun, {"last-event-id": "unknown"})] == [last]


def test_a_socket_tells_what_the_events_tell(server: Server, client: Client, slow: Slow) -> None:
    name = begin(client, slow)

    with watch(server, name) as socket:
        first = json.loads(socket.recv())
        slow.release()
        told = [first, *(json.loads(message) for message in socket)]
        assert socket.close_code == 1000

    assert told[-1] == client.ended(name)
    assert told[-1] == client.ask("GET", f"/operations/{name}").json["operation"]
    assert [item["progress"] for item in told] == sorted(item["progress"] for item in told)


def test_a_server_that_stops_sends_watchers_home_and_the_next_goes_on(tmp_path: Path, slow: Slow) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        client = Client(server)
        name = begin(client, slow)
        events = client.events(name)
        next(events)
        with watch(server, name) as socket:
            before = json.loads(socket.recv())
            server.process.terminate()
            assert closing(socket) in (1001, 1012)
        assert all(event["status"] in ("in_progress", "pending") for _, event in events)
        assert server.process.wait(90) == 0
    slow.release()
    with corral_server(tmp_path, CONFIG) as server:
        told = [event for _, event in Client(server).events(name)]
    assert told[-1]["status"] == "completed"
    assert min(event["progress"] for event in told) >= before["progress"] > 0
    assert any(asked.range for asked in slow.web.origin.asked_for("/m.gguf"))


def test_a_killed_server_is_followed_by_one_that_goes_on(tmp_path: Path, slow: Slow) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        name = begin(Client(server), slow)
        server.process.kill()
        server.process.wait()
    slow.release()
    with corral_server(tmp_path, CONFIG) as server:
        ended = Client(server).ended(name)
    assert (ended["status"], ended["attempts"]) == ("completed", 2)


def refused(server: Server, path: str, **more: Any) -> tuple[int, Any]:
    """How a WebSocket is refused: status and error."""
    with (
        pytest.raises(InvalidStatus) as refusal,
        connect(server.url.replace("http:", "ws:") + path, proxy=None, **more),
    ):
        pass
    response = refusal.value.response
    assert response.headers["x-request-id"]
    return response.status_code, json.loads(response.body or b"{}")["error"]["code"]


def test_no_socket_where_there_is_none(server: Server) -> None:
    assert refused(server, "/api/v1/models/operations/op-none/ws") == (404, "operation_missing")
    assert refused(server, "/health") == (404, "not_found")
    assert refused(server, "/api/v1/models/operations/a/b/ws") == (404, "not_found")


def test_a_page_of_another_site_is_refused(server: Server) -> None:
    path = "/api/v1/models/operations/op-none/ws"
    assert refused(server, path, origin="https://evil.example") == (403, "host_refused")
    assert refused(server, path, origin="null") == (403, "host_refused")
    assert refused(server, path, origin="http://localhost:3000") == (404, "operation_missing")


def test_a_strange_host_is_refused(server: Server) -> None:
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), 30) as raw:
        raw.sendall(upgrade("evil.example", "/api/v1/models/operations/op-x/ws"))
        assert b" 403 " in raw.recv(65536).partition(b"\r\n")[0]


def upgrade(host: str, path: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    with corral_server(tmp_path, CONFIG, env={"CORRAL_API_KEY": KEY}) as running:
        yield running


def test_a_socket_needs_the_key_in_a_header_or_among_its_protocols(guarded: Server, slow: Slow) -> None:
    client = Client(guarded, {"authorization": f"Bearer {KEY}"})
    slow.release()
    name = client.ask("POST", "/registry/install", {"name": "kept", "source": slow.url}).json["operation_id"]
    path = f"/api/v1/models/operations/{name}/ws"
    coded = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")

    assert refused(guarded, path) == (401, "unauthorized")
    assert refused(guarded, path, subprotocols=["corral"]) == (401, "unauthorized")
    assert refused(guarded, path, subprotocols=["corral", "key.wrong"]) == (401, "unauthorized")
    assert refused(guarded, path, subprotocols=["corral", "key64.!"]) == (401, "unauthorized")
    for more in ({"additional_headers": {"x-api-key": KEY}}, {"subprotocols": ["corral", f"key64.{coded}"]}):
        with watch(guarded, name, **more) as opened:
            assert opened.subprotocol in (None, "corral")
            assert [json.loads(message) for message in opened][-1]["status"] == "completed"
    assert KEY not in (guarded.home.parent / "server.log").read_text()


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff", b"\x81\x85abcd\xff\xff\xff\xff\xff", b"\x00" * 64, os.urandom(4096)]
)
def test_garbage_ends_a_socket_and_nothing_else(server: Server, client: Client, slow: Slow, said: bytes) -> None:
    name = begin(client, slow)
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 30) as raw:
        raw.sendall(upgrade(parts.netloc, f"/api/v1/models/operations/{name}/ws"))
        assert b" 101 " in raw.recv(65536).partition(b"\r\n")[0]
        raw.sendall(said)
        while raw.recv(65536):
            pass
    slow.release()
    assert client.ended(name)["status"] == "completed"
    assert "Traceback" not in (server.home.parent / "server.log").read_text()


def test_what_a_client_says_is_dropped_and_too_much_of_it_ends_the_socket(
    server: Server, client: Client, slow: Slow
) -> None:
    name = begin(client, slow)
    with watch(server, name) as talking:
        for _ in range(200):
            talking.send("x" * 1000)
        assert json.loads(talking.recv())["operation_id"] == name
        talking.send("x" * 100_000)
        assert closing(talking) == 1009


def test_a_socket_after_an_unanswered_request_is_refused(server: Server) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 30) as raw:
        first = f"GET /api/v1/runtime/events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        raw.sendall(first + upgrade(parts.netloc, "/api/v1/models/operations/op-x/ws"))
        while data := raw.recv(65536):
            assert b" 101 " not in data
