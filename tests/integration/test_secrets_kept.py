"""Keys of clients and vendors, whatever a vendor answers: not in answers, receipts, logs, metrics, the audit log."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from tests.support.servers import Server, corral_server

OURS = "corral-own-key-5d41402abc4b2a76"
THEIRS = "vendor-key-b9719d911017c592"
CONFIG = """
log: {{requests: true, level: debug}}
models:
  robot: {{runtime: fake, options: {{reply: hi}}}}
  echo: {{runtime: openai, options: {{base_url: "{url}", api_key_env: THEIR_KEY}}}}
  claude: {{runtime: anthropic, options: {{base_url: "{url}", api_key_env: THEIR_KEY}}}}
  gemini-x: {{runtime: gemini, options: {{base_url: "{url}", api_key_env: THEIR_KEY}}}}
routing: {{retries: 0, breaker_failures: 1000}}
"""
TURN = [{"role": "user", "content": "hi"}]
TOLD = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


class Parrot(http.server.BaseHTTPRequestHandler):
    """A vendor that repeats the key it was sent, in whatever it answers."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int] = 401

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        said = f"Wrong key: {self.headers.get('authorization')} {self.headers.get('x-api-key')}"
        said += f" {self.headers.get('x-goog-api-key')} at {self.path}"
        error = {"message": said, "type": "invalid_request_error", "code": said, "param": said, "status": said}
        body = json.dumps({"type": "error", "error": error}).encode()
        self.send_response(self.status)
        for name, value in (("content-type", "application/json"), ("content-length", str(len(body))), ("x-told", said)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def parrot() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as vendor:
        thread = threading.Thread(target=vendor.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{vendor.server_port}"
        finally:
            vendor.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"CORRAL_API_KEY": OURS, "THEIR_KEY": THEIRS}
    with parrot() as url, corral_server(tmp_path_factory.mktemp("home"), CONFIG.format(url=url), env=env) as running:
        yield running


def ask(
    server: Server, path: str, body: Any = None, key: str | None = OURS, method: str = ""
) -> tuple[int, dict[str, str], str]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def kept(server: Server) -> str:
    """Everything that can be read afterwards."""
    paths = (
        "/metrics",
        "/api/v1/usage",
        "/api/v1/usage/requests?limit=1000",
        "/api/v1/audit",
        "/api/v1/runtime/models",
    )
    shown = [ask(server, path)[2] for path in (*paths, "/api/v1/runtime/decisions", "/api/v1/runtime/stats")]
    return "\n".join([*shown, (server.home.parent / "server.log").read_text()])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 529])
@pytest.mark.parametrize("model", ["echo", "claude", "gemini-x"])
def test_a_vendor_that_repeats_its_key_tells_nobody(server: Server, model: str, status: int) -> None:
    Parrot.status = status
    doors = {
        "/v1/chat/completions": {"model": model, "messages": TURN},
        "/v1/messages": {"model": model, "messages": TURN, "max_tokens": 5},
        "/api/chat": {"model": model, "messages": TURN},
        f"/v1beta/models/{model}:streamGenerateContent?alt=sse": TOLD,
    }
    for path, body in doors.items():
        for stream in (False, True):
            _, headers, answer = ask(server, path, {**body, "stream": stream} if "v1beta" not in path else body)
            assert THEIRS not in answer, path
            assert THEIRS not in str(headers)
            _, _, receipt = ask(server, f"/api/v1/receipts/{headers['x-request-id']}")
            assert THEIRS not in receipt
            assert OURS not in answer + receipt
    assert THEIRS not in kept(server)


def test_a_key_in_an_address_is_written_nowhere(server: Server) -> None:
    for name in ("key", "k%65y", "KEY", "api_key"):
        path = f"/v1beta/models/robot:generateContent?{name}={OURS}"
        assert ask(server, path, TOLD, key=None)[0] == 200
        assert ask(server, f"/v1beta/models?{name}={OURS}", key=None)[0] == 200
    for path in (f"/v1beta/models/nobody:generateContent?key={OURS}", f"/v1beta/nowhere?key={OURS}"):
        assert OURS not in ask(server, path, TOLD, key=None)[2]
    wrong = "wrong-key-7c6a180b36896a0a"
    for path in (f"/v1beta/models/robot:generateContent?key={wrong}", f"/api/v1/runtime/models?key={wrong}"):
        status, _, answer = ask(server, path, TOLD, key=None)
        assert status == 401
        assert wrong not in answer
    assert ask(server, "/v1/chat/completions", {"model": "robot", "messages": TURN}, key=wrong)[0] == 401
    log = kept(server)
    assert OURS not in log
    assert wrong not in log
    assert "key=***" in log


def test_a_clients_key_is_shown_once(server: Server) -> None:
    status, _, made = ask(server, "/api/v1/keys", {"name": "ada"})
    assert status == 201
    secret = json.loads(made)["secret"]
    assert ask(server, "/v1/chat/completions", {"model": "robot", "messages": TURN}, key=secret)[0] == 200
    status, headers, _ = ask(server, "/v1/chat/completions", {"model": "robot", "messages": TURN}, key=secret)
    assert secret not in kept(server) + ask(server, "/api/v1/keys")[2] + str(headers)
    other = json.loads(ask(server, "/api/v1/keys", {"name": "bob"})[2])["secret"]
    path = f"/api/v1/receipts/{headers['x-request-id']}"
    assert ask(server, path, key=secret)[0] == 200
    assert ask(server, path, key=other)[0] == 404
    assert ask(server, "/api/v1/usage?key=key-x", key=other)[0] == 403
    mine = json.loads(ask(server, "/api/v1/usage?by=key", key=other)[2])
    assert [row["key_name"] for row in mine["usage"]] in ([], ["bob"])


def test_whatever_door_it_comes_through_a_key_is_for_its_models_and_within_its_limits(server: Server) -> None:
    wish = {"name": "cy", "models": ["robot"], "requests": 4}
    key = json.loads(ask(server, "/api/v1/keys", wish)[2])["secret"]
    for stream in (False, True):
        for model, status in (("robot", 200), ("echo", 403)):
            body = {"model_name": model, "prompt": "hi", "stream": stream}
            found, headers, _ = ask(server, "/api/v1/runtime/generate", body, key=key)
            assert found == status
            assert ask(server, f"/api/v1/receipts/{headers['x-request-id']}", key=key)[0] == 200, "it is its own"
    for stream in (False, True):
        body = {"model_name": "robot", "prompt": "hi", "stream": stream}
        assert ask(server, "/api/v1/runtime/generate", body, key=key)[0] == 429


def test_what_a_client_makes_up_is_written_down_in_few_words(server: Server) -> None:
    turn = {"messages": TURN, "max_tokens": 5}
    status, _, answer = ask(server, "/v1/chat/completions", {"model": "x" * 1_000_000, **turn})
    assert (status, len(answer) < 1000) == (400, True)
    fields = {f"field{number}" + "y" * 1000: 1 for number in range(1000)}
    for stream in (False, True):
        status, headers, answer = ask(server, "/v1/messages", {"model": "robot", "stream": stream, **turn, **fields})
        assert status == 200
        assert len(answer) < 20_000
        receipt = ask(server, f"/api/v1/receipts/{headers['x-request-id']}")[2]
        assert len(receipt) < 20_000
        assert json.loads(receipt)["receipt"]["ignored"][-1].endswith(" more")


def test_nothing_here_fetches_what_a_request_names(server: Server) -> None:
    part = {"type": "video_url", "video_url": {"url": "http://127.0.0.1:9/inside"}}
    asked = {"model": "robot", "messages": [{"role": "user", "content": [part]}]}
    status, _, answer = ask(server, "/v1/chat/completions", asked)
    assert (status, json.loads(answer)["error"]["code"]) == (400, "not_supported")
    assert "address" in answer
