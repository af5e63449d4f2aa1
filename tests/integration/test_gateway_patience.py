"""What the server does with requests that are too much, too slow, or not HTTP, and with engines that hang."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from support.servers import CORRAL, Server, corral_server, environment

CONFIG = """
server: {request_timeout: 1s}
upstream: {first_byte_timeout: 5s}
models:
  robot: {runtime: fake, options: {reply: "one two three"}}
  hangs: {runtime: fake}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG) as running:
        yield running


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return found
        if not piece:
            return found
        found += piece


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: req-" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def ask(server: Server, body: Any, path: str = "/v1/chat/completions") -> tuple[int, Any]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def chat(model: str = "robot", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def test_an_endless_head_is_cut_off(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ")
        sent = 0
        try:
            while sent < 64 * 1024 * 1024:
                sent += connection.send(b"a" * 65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 16 * 1024 * 1024
    assert ask(server, chat())[0] == 200


def test_a_head_over_the_limit_is_told_so(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000)
        assert refusal(rest(connection)) == (431, "head_too_large")


def test_a_large_body_in_the_same_piece_as_its_head_is_no_large_head(server: Server) -> None:
    assert ask(server, chat(pad="x" * 200_000))[0] == 200


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"POST /v1/chat/comple",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{",
    ],
)
def test_half_a_request_is_not_waited_for_without_end(server: Server, half: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(half)
        assert refusal(rest(connection)) == (408, "request_timeout")


def test_a_connection_that_rests_between_requests_is_not_hurried(server: Server) -> None:
    with connect(server) as resting:
        resting.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200 OK" in resting.recv(65536)
        with connect(server) as owing:
            owing.sendall(b"GET ")
            assert rest(owing)  # by now patience has run out
        resting.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200 OK" in resting.recv(65536)


def test_what_is_not_http_is_refused_in_the_envelope(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert refusal(rest(connection)) == (400, "invalid_request")


def test_two_hosts_are_none(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(
            b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        assert b" 400 " in rest(connection).partition(b"\r\n")[0]


def test_what_else_is_asked_for_is_answered_as_any_request_and_nothing_is_advised(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
    assert "pip install" not in (server.home.parent / "server.log").read_text()


def test_a_hanging_engine_is_found_out_stopped_and_loaded_anew(server: Server) -> None:
    before = set(server.engines())
    assert ask(server, chat("hangs"))[0] == 200
    (engine,) = set(server.engines()) - before
    os.kill(engine.pid, signal.SIGSTOP)
    status, answer = ask(server, chat("hangs"))
    assert (status, answer["error"]["code"]) == (504, "upstream_timeout")
    psutil.wait_procs([engine], timeout=30)
    assert not engine.is_running()
    status, answer = ask(server, chat("hangs"))
    assert status == 200


def test_what_a_model_cannot_do_is_a_clients_mistake(server: Server) -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]
    status, answer = ask(server, {"model": "robot", "messages": image})
    assert (status, answer["error"]["code"]) == (400, "not_supported")
    assert "images" in answer["error"]["message"]


def test_a_second_ctrl_c_ends_the_answers_and_stops_in_order(tmp_path: Path) -> None:
    (tmp_path / ".corral").mkdir()
    (tmp_path / ".corral" / "corral.yaml").write_text("models: {slow: {runtime: fake, options: {hold_after: 1}}}\n")
    with subprocess.Popen(
        [CORRAL, "--json", "serve", "--port", "0"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = urlsplit(json.loads(process.stdout.readline())["url"])
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps(chat("slow", stream=True)))
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        process.send_signal(signal.SIGINT)
        # New connections are refused once it stops: only then is the second signal a second one.
        refused = False
        while not refused:
            try:
                socket.create_connection((url.hostname or "", url.port or 0), timeout=5).close()
            except OSError:
                refused = True
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 0
    assert "Traceback" not in errors
