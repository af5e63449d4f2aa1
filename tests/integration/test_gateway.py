"""The gateway over real sockets and the `fake` engine: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from corral.app import Corral
from corral.config import load
from corral.errors import BodyTooLarge, InvalidRequest
from corral.gateway.application import Gateway
from corral.gateway.body import ClientLeft, read_body
from support.servers import CORRAL, Server, corral_server, ended

CONFIG = """
models:
  robot: {runtime: fake, options: {reply: "one two three four"}}
  cold: {runtime: fake, options: {load_ms: 300, reply: "warm now"}}
  no-tools: {runtime: fake}
  broken: {runtime: fake, options: {fault: crash_on_start}}
  absent: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1", upstream_model: nobody}}
  keyless: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1", api_key_env: NO_SUCH_KEY_HERE}}
  typo: {runtime: fake, options: {replyy: hi}}
  team/model: {runtime: fake, options: {reply: slash}}
  events: {runtime: fake}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG) as running:
        yield running


class Reply:
    """An answer of the server, whole."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def chat(model: str = "robot", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def test_an_answer_carries_the_engines_bytes_and_the_facts(server: Server) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", chat())
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"] == "one two three four"
    assert reply.headers["x-corral-model"] == "robot"
    assert reply.headers["x-corral-engine"].startswith("fake-")
    assert reply.headers["x-corral-attempts"] == "1"
    assert "server" not in reply.headers


def test_every_answer_has_its_own_request_id(server: Server) -> None:
    calls = [
        ("GET", "/health", None),
        ("GET", "/nowhere", None),
        ("GET", "/api/v1/runtime/models", None),
        ("GET", "/api/v1/nowhere", None),
        ("POST", "/v1/chat/completions", b"{"),
        ("POST", "/v1/chat/completions", chat()),
        ("DELETE", "/v1/models", None),
    ]
    ids = [ask(server, *call).headers["x-request-id"] for call in calls]
    assert len(set(ids)) == len(calls)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", chat(), "choices"),
        ("/v1/completions", {"model": "robot", "prompt": "hi"}, "choices"),
        ("/v1/embeddings", {"model": "robot", "input": ["a", "b"]}, "data"),
    ],
)
def test_each_call_reaches_the_engine(server: Server, path: str, body: Any, field: str) -> None:
    reply = ask(server, "POST", path, body)
    assert reply.status == 200
    assert reply.json[field]


def test_a_stream_ends_in_done_and_is_not_buffered(server: Server) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [line for line in reply.body.split(b"\n\n") if line]
    assert events[-1] == b"data: [DONE]"
    receipt = json.loads(events[-2].removeprefix(b": corral-receipt "))
    assert (receipt["request_id"], receipt["model"]) == (reply.headers["x-request-id"], "robot")
    assert json.loads(events[-3].removeprefix(b"data: "))["usage"]["completion_tokens"] == 4


def test_a_stream_whose_client_does_not_want_its_usage_is_metered_all_the_same(server: Server) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", chat(stream=True))
    told = [line for line in reply.body.split(b"\n\n") if line.startswith(b"data: {")]
    assert not any(b'"usage"' in line for line in told)
    receipt = ask(server, "GET", f"/api/v1/receipts/{reply.headers['x-request-id']}").json["receipt"]
    assert receipt["usage"]["output"] == 4


def test_models_are_listed_and_looked_up(server: Server) -> None:
    names = [model["id"] for model in ask(server, "GET", "/v1/models").json["data"]]
    assert {"robot", "team/model"} <= set(names)
    for path in ("/v1/models/team/model", "/v1/models/team%2Fmodel"):
        assert ask(server, "GET", path).json["id"] == "team/model"
    missing = ask(server, "GET", "/v1/models/robt")
    assert missing.status == 404
    assert "robot" in missing.json["error"]["message"]


def test_an_unknown_model_names_the_nearest_or_the_pull_line(server: Server) -> None:
    near = ask(server, "POST", "/v1/chat/completions", chat("robbot"))
    assert near.status == 404
    assert near.json["error"]["code"] == "model_not_found"
    assert "robot" in near.json["error"]["message"]
    known = ask(server, "POST", "/v1/chat/completions", chat("smollm2"))
    assert known.status == 404
    assert "corral pull smollm2" in known.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "JSON"),
        (b"{not json", 400, "JSON"),
        (b"\xff\xfe\x00", 400, "JSON"),
        (b"[1]", 400, "object"),
        (b"{}", 400, "model"),
        (b'{"model": 3}', 400, "model"),
        (b'{"model": "robot"}', 400, "messages"),
        (b'{"model": "robot", "messages": []}', 400, "messages"),
        (b'{"model": "robot", "messages": "hi"}', 400, "messages"),
        (b'{"model": "robot", "messages": ["hi"]}', 400, "messages[0]"),
        (b'{"model": "robot", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}', 400, "stream"),
        (b'{"model": "robot", "messages": [{"role": "user", "content": "x"}], "max_tokens": true}', 400, "max_"),
        (
            b'{"model": "robot", "messages": [{"role": "user", "content": "x"}], "temperature": "hot"}',
            400,
            "temperature",
        ),
        (b'{"model": "../../etc/passwd", "messages": [{"role": "user", "content": "x"}]}', 400, "name"),
        (b'{"model": "a b", "messages": [{"role": "user", "content": "x"}]}', 400, "name"),
        (b'{"model": "' + b"a" * 300 + b'", "messages": [{"role": "user", "content": "x"}]}', 400, "name"),
    ],
)
def test_bad_input_gets_a_clear_refusal_in_openais_envelope(
    server: Server, body: bytes, status: int, word: str
) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", body)
    assert reply.status == status
    error = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert word in error["message"]


def test_deeply_nested_json_is_refused_and_harms_nobody(server: Server) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", b'{"model":' + b"[" * 100_000)
    assert reply.status == 400
    assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200


def test_an_oversized_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with corral_server(tmp_path, "server: {max_body: 1000}\n" + CONFIG) as server:
        said = ask(server, "POST", "/v1/chat/completions", chat(pad="x" * 2000))
        assert said.status == 413
        assert said.json["error"]["code"] == "body_too_large"
        assert "1000" in said.json["error"]["message"]

        def pieces() -> Iterator[bytes]:
            yield from (b"x" * 400 for _ in range(5))

        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        connection.request(
            "POST", "/v1/chat/completions", pieces(), {"transfer-encoding": "chunked"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413
        connection.close()
        assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("POST", "/health", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("HEAD", "/health", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/version", 200),
        ("GET", "/", 200),
        ("GET", "/docs", 200),
        ("GET", "/api/v1/openapi.json", 200),
    ],
)
def test_routes_answer_what_they_promise(server: Server, method: str, path: str, status: int) -> None:
    reply = ask(server, method, path)
    assert reply.status == status
    assert "access-control-allow-origin" not in reply.headers
    assert ("allow" in reply.headers) == (status == 405)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:7860"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:1234"}, 200),
        ({"Host": "app.localhost:1234"}, 200),
        ({"Host": "[::1]:7860"}, 200),
        ({"Host": "192.168.1.5:7860"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "vscode-webview://abc"}, 200),
    ],
)
def test_only_our_own_names_and_pages_may_ask(server: Server, headers: dict[str, str], status: int) -> None:
    assert ask(server, "GET", "/v1/models", headers=headers).status == status
    assert ask(server, "POST", "/v1/chat/completions", chat(), headers=headers).status == status


def test_a_key_is_asked_for_in_every_style(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG, env={"CORRAL_API_KEY": "sesame-1234"}) as server:
        refused = ask(server, "POST", "/v1/chat/completions", chat())
        assert refused.status == 401
        assert refused.json["error"]["type"] == "authentication_error"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert ask(server, "GET", "/api/v1/runtime/models").status == 401
        assert ask(server, "GET", "/docs").status == 401
        assert ask(server, "GET", "/health").status == 200
        styles = [
            {"Authorization": "Bearer sesame-1234"},
            {"authorization": "bearer sesame-1234"},
            {"x-api-key": "sesame-1234"},
            {"api-key": "sesame-1234"},
            {"x-goog-api-key": "sesame-1234"},
        ]
        for headers in styles:
            assert ask(server, "POST", "/v1/chat/completions", chat(), headers=headers).status == 200, headers
        for wrong in ({"x-api-key": "sesame-12345"}, {"Authorization": "Basic sesame-1234"}, {"x-api-key": "é"}):
            assert ask(server, "GET", "/v1/models", headers=wrong).status == 401, wrong
        engine = server.engines()[0]
        assert "sesame-1234" not in " ".join(engine.cmdline())
        assert "sesame-1234" not in str(engine.environ())
    assert "sesame-1234" not in (tmp_path / "server.log").read_text()


def test_a_bind_beyond_loopback_without_a_key_is_refused(tmp_path: Path) -> None:
    from support.servers import environment

    done = subprocess.run(
        [CORRAL, "serve", "--host", "0.0.0.0", "--port", "0"],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "CORRAL_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    from support.servers import environment

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [CORRAL, "serve", "--port", str(port)],
            env=environment(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert str(port) in done.stderr
    assert "in use" in done.stderr


def test_a_second_server_of_the_same_home_is_refused(server: Server) -> None:
    done = subprocess.run(
        [CORRAL, "serve", "--port", "0"], env=server.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5
    assert server.url in done.stderr


def test_a_model_that_cannot_start_says_why_and_the_server_lives_on(server: Server) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", chat("broken"))
    assert reply.status == 503
    assert reply.json["error"]["code"] == "engine_start"
    health = ask(server, "GET", "/api/v1/runtime/health").json
    assert health["status"] == "degraded"
    assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200


def test_a_wrong_option_names_the_right_one(server: Server) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", chat("typo"))
    assert reply.status == 400
    assert "'reply'" in reply.json["error"]["message"]


def test_an_upstream_that_is_not_there_is_502_and_a_missing_key_names_its_variable(server: Server) -> None:
    refused = ask(server, "POST", "/v1/chat/completions", chat("absent"))
    assert refused.status == 502
    assert refused.json["error"]["code"] == "upstream_refused"
    keyless = ask(server, "POST", "/v1/chat/completions", chat("keyless"))
    assert keyless.status == 501
    assert "NO_SUCH_KEY_HERE" in keyless.json["error"]["message"]


def test_ten_clients_of_a_cold_model_cause_one_load(server: Server) -> None:
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda _: ask(server, "POST", "/v1/chat/completions", chat("cold")), range(10)))
    assert [reply.status for reply in replies] == [200] * 10
    assert len({reply.headers["x-corral-engine"] for reply in replies}) == 1
    waits = [int(reply.headers.get("x-corral-wait-ms", 0)) for reply in replies]
    assert max(waits) > 0


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"fault": "status:500"}, 500, None),
        ({"fault": "status:429", "retry_after": 7}, 429, None),
        ({"fault": "garbage"}, 502, "upstream_garbage"),
        ({"fault": "truncate"}, 502, "upstream_refused"),
        ({"fault": "cut"}, 502, "upstream_refused"),
    ],
)
def test_an_engine_that_misbehaves_is_told_apart(server: Server, fault: dict[str, Any], status: int, code: str) -> None:
    reply = ask(server, "POST", "/v1/chat/completions", chat(fake=fault))
    assert reply.status == status
    if code is not None:
        assert reply.json["error"]["code"] == code
    if "retry_after" in fault:
        assert reply.headers["retry-after"] == "7"
    assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200


@pytest.mark.parametrize("fault", ["cut", "crash"])
def test_a_stream_that_breaks_ends_in_an_error_event(server: Server, fault: str) -> None:
    body = chat(stream=True, fake={"fault": fault, "fault_after": 2})
    reply = ask(server, "POST", "/v1/chat/completions", body)
    assert reply.status == 200
    events = [event for event in reply.body.split(b"\n\n") if event]
    assert b"[DONE]" not in reply.body
    last = json.loads(events[-1].removeprefix(b"data: "))
    assert set(last["error"]) == {"message", "type", "param", "code"}
    for event in events:
        json.loads(event.removeprefix(b"data: "))
    assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200


def test_an_engine_that_died_unseen_is_loaded_again_within_the_request(server: Server) -> None:
    before = ask(server, "POST", "/v1/chat/completions", chat("team/model"))
    engine = before.headers["x-corral-engine"]
    reply = ask(server, "POST", "/v1/chat/completions", chat("team/model", fake={"fault": "crash", "fault_times": 1}))
    # The crash ends the process before a byte is out: the answer comes from a new engine, which knows nothing of it
    # and crashes too, as told by the same body; so what the client sees is the truth after two attempts.
    assert reply.status == 502
    assert reply.json["error"]["code"] == "engine_died"
    after = ask(server, "POST", "/v1/chat/completions", chat("team/model"))
    assert after.status == 200
    assert after.headers["x-corral-engine"] != engine


def test_a_client_that_leaves_stops_the_engine(server: Server) -> None:
    async def leave() -> None:
        parts = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        body = json.dumps(chat("no-tools", stream=True, fake={"tokens": 100, "hold_after": 3})).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await reader.readuntil(b"data: ")
        assert busy() == 1
        writer.close()
        await writer.wait_closed()

    def busy() -> int:
        model = ask(server, "GET", "/api/v1/runtime/models/no-tools").json["model"]
        return int(model["in_flight"])

    asyncio.run(leave())
    # `unload` answers only once nothing is in flight, so it waits for exactly what is claimed.
    assert ask(server, "POST", "/api/v1/runtime/models/unload?model_name=no-tools&drain=30").status == 200


def test_load_unload_and_log_over_the_management_api(server: Server) -> None:
    loaded = ask(server, "POST", "/api/v1/runtime/models/load?model_name=team/model")
    assert loaded.status == 200
    model = loaded.json["model"]
    assert (model["state"], model["runtime"]) == ("ready", "fake")
    assert model["footprint"]["cpu"] > 0
    assert ask(server, "GET", "/api/v1/runtime/models/team/model/log").json["success"] is True
    assert ask(server, "POST", "/api/v1/runtime/models/unload?model_name=team/model").json["model"]["state"] == "cold"
    gone = ask(server, "GET", "/api/v1/runtime/models/team/model/log")
    assert any("listening" in line for line in gone.json["lines"]), "what it said is kept"
    unknown = ask(server, "POST", "/api/v1/runtime/models/load?model_name=nobody")
    assert unknown.status == 404
    assert set(unknown.json["error"]) == {"code", "message", "hint"}
    missing = ask(server, "POST", "/api/v1/runtime/models/load")
    assert (missing.status, missing.json["error"]["code"]) == (400, "invalid_request")
    assert ask(server, "POST", "/api/v1/runtime/models/unload?model_name=robot&drain=nan").status == 400


def test_a_busy_model_is_not_pulled_away_unless_forced(server: Server) -> None:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    body = json.dumps(chat("no-tools", stream=True, fake={"tokens": 50, "hold_after": 2}))
    connection.request("POST", "/v1/chat/completions", body)
    response = connection.getresponse()
    assert response.readline().startswith(b"data: ")
    busy = ask(server, "POST", "/api/v1/runtime/models/unload?model_name=no-tools&drain=0")
    assert (busy.status, busy.json["error"]["code"]) == (409, "model_busy")
    forced = ask(server, "POST", "/api/v1/runtime/models/unload?model_name=no-tools&drain=0&force=true")
    assert forced.status == 200
    assert b'"error"' in response.read()
    connection.close()


def test_sigterm_stops_the_server_and_its_engines(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200
        engines = server.engines()
        assert engines
        server.process.terminate()
        assert server.process.wait(90) == 0
        assert ended(engines)


def test_sigkill_of_the_server_leaves_no_process_and_the_home_is_free(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200
        engines = server.engines()
        assert engines
        server.process.kill()
        server.process.wait(90)
        assert ended(engines)
    with corral_server(tmp_path, CONFIG) as again:
        assert ask(again, "GET", "/health").status == 200


def test_preloaded_models_are_ready_when_the_server_says_so(tmp_path: Path) -> None:
    config = "models:\n  early: {runtime: fake, preload: true, options: {load_ms: 200}}\n"
    with corral_server(tmp_path, config) as server:
        reply = ask(server, "GET", "/readyz")
        while reply.status == 503:
            assert reply.json["waiting_for"] == 1
            reply = ask(server, "GET", "/readyz")
        assert reply.json == {"status": "ready"}
        assert ask(server, "GET", "/api/v1/runtime/models/early").json["model"]["state"] == "ready"


def test_a_name_that_cannot_be_or_a_broken_entry_harms_no_list(tmp_path: Path) -> None:
    config = CONFIG + "  lost: {runtime: nosuchruntime}\n"
    with corral_server(tmp_path, config) as server:
        for name in ("a b", "x\n", "../up", "n" * 300):
            assert ask(server, "POST", "/v1/chat/completions", chat(name)).status in (400, 404)
        assert ask(server, "POST", "/v1/chat/completions", chat("lost")).json["error"]["code"] == "unknown_plugin"
        listed = ask(server, "GET", "/api/v1/runtime/models")
        assert listed.status == 200
        assert "robot" in [model["name"] for model in listed.json["models"]]
        assert ask(server, "GET", "/v1/models").status == 200


def test_a_broken_origin_is_refused_and_is_no_failure_of_ours(server: Server) -> None:
    for origin in ("http://[", "http://[::1", "http://", ""):
        assert ask(server, "GET", "/v1/models", headers={"Origin": origin}).status == 403, origin


def test_the_log_of_requests_has_a_line_each_that_no_path_can_break(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG, env={"CORRAL_LOG_REQUESTS": "on"}) as server:
        answered = ask(server, "POST", "/v1/chat/completions", chat())
        ask(server, "GET", "/nothing%0aforged%1b[31m")
        managed = ask(server, "GET", "/api/v1/runtime/health")
    lines = (tmp_path / "server.log").read_text().splitlines()
    assert any(answered.headers["x-request-id"] in x and x.endswith("POST /v1/chat/completions 200") for x in lines)
    assert any(managed.headers["x-request-id"] in x and x.endswith("GET /api/v1/runtime/health 200") for x in lines)
    assert any(x.endswith("GET /nothing%0aforged%1b[31m 404") for x in lines)
    assert not any("uvicorn" in x for x in lines)


def test_without_log_requests_nothing_is_written(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200
    assert (tmp_path / "server.log").read_text() == ""


def test_events_tell_of_a_load_end_to_end_and_a_reader_that_left_is_forgotten(server: Server) -> None:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", "/api/v1/runtime/events")
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.readline() == b": corral\n"
    assert ask(server, "POST", "/api/v1/runtime/models/load?model_name=events").status == 200
    states = []
    while "ready" not in states:
        line = response.readline()
        if line.startswith(b"data: "):
            event = json.loads(line.removeprefix(b"data: "))
            if event["type"] == "transition" and event["model"] == "events":
                states.append(event["state"])
    assert states[-2:] == ["loading", "ready"]
    connection.close()


def test_a_stop_lets_an_answer_end_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG, env={"CORRAL_SERVER_SHUTDOWN_GRACE": "4s"}) as server:
        parts = urlsplit(server.url)
        streams = []
        for script in ({"tokens": 5, "delay_ms": 50}, {"tokens": 50, "hold_after": 2}):
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            connection.request("POST", "/v1/chat/completions", json.dumps(chat(stream=True, fake=script)))
            response = connection.getresponse()
            assert response.readline().startswith(b"data: ")
            streams.append((connection, response))
        engines = server.engines()
        # An unload that waits for the held answer must not keep the server either.
        waiting = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        waiting.request("POST", "/api/v1/runtime/models/unload?model_name=robot&drain=3600")
        while ask(server, "GET", "/api/v1/runtime/models/robot").json["model"]["state"] != "stopping":
            pass
        server.process.terminate()
        assert streams[0][1].read().endswith(b"data: [DONE]\n\n")
        assert server.process.wait(60) == 0
        assert ended(engines)
        for connection, _ in streams:
            connection.close()
        waiting.close()


@pytest.mark.parametrize("path", ["/api/v1/runtime/models", "/v1/models"])
async def test_a_bug_is_answered_once_in_the_envelope_and_raised_as_it_is(tmp_path: Path, path: str) -> None:
    class Broken(Corral):
        def names(self) -> list[str]:
            raise ZeroDivisionError("a bug")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    gateway = Gateway(Broken(load({"HOME": str(tmp_path)}, cwd=tmp_path)))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    with pytest.raises(ZeroDivisionError):
        await gateway(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 500
    assert b"x-request-id" in dict(sent[0]["headers"])
    error = json.loads(sent[1]["body"])["error"]
    assert "log says more" in json.dumps(error)
    assert "a bug" not in json.dumps(error)


def test_a_preload_that_fails_is_logged_and_the_server_is_ready(tmp_path: Path) -> None:
    config = "models:\n  early: {runtime: fake, preload: true, options: {fault: crash_on_start}}\n"
    with corral_server(tmp_path, config) as server:
        while ask(server, "GET", "/readyz").status == 503:
            pass
        assert ask(server, "GET", "/api/v1/runtime/health").json["status"] == "degraded"
    assert "cannot load early at start" in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize(
    ("messages", "declared", "outcome"),
    [
        ([{"type": "http.request", "body": b"abc"}], None, b"abc"),
        (
            [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}],
            None,
            b"abc",
        ),
        ([{"type": "http.request", "body": b"abcdef"}], None, BodyTooLarge),
        ([{"type": "http.request", "body": b"abc", "more_body": True}] * 2, None, BodyTooLarge),
        ([], b"6", BodyTooLarge),
        ([], b"six", InvalidRequest),
        ([{"type": "http.disconnect"}], None, ClientLeft),
        ([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}], None, ClientLeft),
    ],
)
async def test_a_body_is_read_whole_and_never_beyond_the_limit(
    messages: list[Any], declared: bytes | None, outcome: bytes | type[Exception]
) -> None:
    coming = iter(messages)

    async def receive() -> Any:
        return next(coming)

    if isinstance(outcome, bytes):
        assert await read_body(receive, declared, 5) == outcome
    else:
        with pytest.raises(outcome):
            await read_body(receive, declared, 5)


def test_who_listens_to_events_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    # The grace is longer than the test may take, so only a listener that is sent home lets the server end.
    with corral_server(tmp_path, "server: {shutdown_grace: 1h}\n" + CONFIG) as server:
        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection.request("GET", "/api/v1/runtime/events")
        response = connection.getresponse()
        assert response.readline() == b": corral\n"
        assert ask(server, "POST", "/v1/chat/completions", chat()).status == 200
        server.process.terminate()
        assert server.process.wait(90) == 0
        told = [json.loads(line[6:]) for line in response.read().splitlines() if line.startswith(b"data: ")]
        states = [event["state"] for event in told if event["type"] == "transition"]
        assert states[: states.index("ready") + 1][-2:] == ["loading", "ready"]
        connection.close()
