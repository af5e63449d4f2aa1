"""Keys against a server of its own process: made, used, refused, rotated; by HTTP and by the terminal beside it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Client, Reply
from tests.support.servers import CORRAL, Server, corral_server

CONFIG = "models:\n  robot: {runtime: fake}\n  other: {runtime: fake}\nlog: {requests: true}\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with corral_server(tmp_path, CONFIG) as running:
        yield running


def ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Client(server).ask(method, path, body, given, base="")


def token(server: Server) -> str:
    return str(json.loads((server.home / "server.json").read_text())["token"])


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def corral(server: Server, *arguments: str, **env: str) -> tuple[int, Any]:
    """The exit code of a command in the server's home, and what it wrote as JSON."""
    done = subprocess.run(
        [CORRAL, *arguments, "--json"],
        env={**server.env, **env},
        cwd=server.home.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads((done.stdout or done.stderr).splitlines()[0])


def test_a_key_closes_the_server_and_opens_it_for_its_owner(server: Server) -> None:
    assert ask(server, "GET", "/v1/models").status == 200
    code, made = corral(server, "keys", "create", "ci", "--model", "rob*")
    assert code == 0
    key = made["secret"]

    # Known at once, though another process made it; and from then on nobody comes in without.
    assert ask(server, "GET", "/v1/models", **bearer(key)).status == 200
    for wrong in (
        {},
        bearer("sk-else"),
        bearer(key[:-1]),
        {
            "x_api_key": "no",
        },
    ):
        refused = ask(server, "GET", "/v1/models", **wrong)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert ask(server, "GET", "/health").status == 200
    # The terminal of this home is not locked out.
    assert corral(server, "ps")[0] == 0
    assert corral(server, "ps", CORRAL_API_KEY=key)[0] != 0  # that key is for inference only
    code, listed = corral(server, "keys", "list")
    assert [entry["name"] for entry in listed["keys"]] == ["ci"]


def test_what_lets_the_terminal_in_is_the_owners_alone(server: Server) -> None:
    mode = (server.home / "server.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert len(token(server)) >= 40
    assert token(server) not in (server.home.parent / "server.log").read_text()
    assert ask(server, "GET", "/api/v1/keys", **bearer(token(server))).status == 200


def test_scopes_are_held(server: Server) -> None:
    secrets = {}
    for scope in ("infer", "manage", "admin"):
        made = ask(server, "POST", "/api/v1/keys", {"name": scope, "scope": scope}, **bearer(token(server)))
        assert made.status == 201, made.body
        assert made.headers["cache-control"] == "no-store"
        secrets[scope] = made.json["secret"]
    expected = {
        ("GET", "/v1/models"): "infer",
        ("GET", "/api/v1/keys/self"): "infer",
        ("GET", "/api/v1/runtime/models"): "manage",
        ("GET", "/docs"): "manage",
        ("POST", "/api/v1/models/gc"): "manage",
        ("GET", "/api/v1/keys"): "admin",
        ("GET", "/api/v1/audit"): "admin",
        ("POST", "/api/v1/runtime/reload"): "admin",
    }
    order = list(secrets)
    for (method, path), least in expected.items():
        for scope, secret in secrets.items():
            reply = ask(server, method, path, {} if method == "POST" else None, **bearer(secret))
            if order.index(scope) < order.index(least):
                assert (reply.status, reply.code) == (403, "forbidden"), (scope, method, path)
            else:
                assert reply.status in (200, 202), (scope, method, path, reply.body)


def test_a_key_lives_over_http(server: Server) -> None:
    mine = bearer(token(server))
    wish = {"name": "web", "models": ["rob*"], "projects": ["shop"], "requests": 60, "strict": True}
    made = ask(server, "POST", "/api/v1/keys", wish, **mine).json
    identifier, secret = made["key"]["id"], made["secret"]
    assert {name: made["key"][name] for name in wish} == wish
    assert ask(server, "GET", "/api/v1/keys/self", **bearer(secret)).json["key"]["id"] == identifier

    changed = ask(server, "PATCH", f"/api/v1/keys/{identifier}", {"requests": None, "models": []}, **mine)
    assert (changed.json["key"]["requests"], changed.json["key"]["models"]) == (None, [])
    assert changed.json["key"]["projects"] == ["shop"]

    rotated = ask(server, "POST", f"/api/v1/keys/{identifier}/rotate", {"grace": 3600}, **mine).json
    for key in (secret, rotated["secret"]):
        assert ask(server, "GET", "/v1/models", **bearer(key)).status == 200
    again = ask(server, "POST", f"/api/v1/keys/{identifier}/rotate", {"grace": 0}, **mine).json
    for key in (secret, rotated["secret"]):
        assert ask(server, "GET", "/v1/models", **bearer(key)).status == 401
    assert ask(server, "GET", "/v1/models", **bearer(again["secret"])).status == 200

    assert ask(server, "POST", f"/api/v1/keys/{identifier}/revoke", **mine).json["key"]["state"] == "revoked"
    assert ask(server, "GET", "/v1/models", **bearer(again["secret"])).status == 401
    assert ask(server, "GET", "/v1/models").status == 401
    assert ask(server, "DELETE", f"/api/v1/keys/{identifier}", **mine).status == 200
    assert ask(server, "GET", f"/api/v1/keys/{identifier}", **mine).code == "key_missing"
    assert ask(server, "GET", "/v1/models").status == 200


IMPOSSIBLE: list[Any] = [
    None,
    {},
    {"name": ""},
    {"name": "x", "scope": "root"},
    {"name": "x", "requests": 0},
    {"name": "x", "requests": "many"},
    {"name": "x", "models": "robot"},
    {"name": "x", "models": [""]},
    {"name": "x", "projects": ["a b"]},
    {"name": "x", "expires_at": 1},
    {"name": "x", "tokens": 10**30},
    {"name": "x", "hash": "00"},
    {"name": None},
    [],
]


def test_a_key_that_cannot_be_is_refused(server: Server) -> None:
    for body in IMPOSSIBLE:
        reply = ask(server, "POST", "/api/v1/keys", body)
        assert (reply.status, reply.code) == (400, "invalid_request"), (body, reply.body)
    assert ask(server, "GET", "/api/v1/keys").json["count"] == 0


@pytest.mark.parametrize("time", ["-5m", "-1", "soon"])
def test_the_terminal_makes_no_key_for_a_time_that_is_over(server: Server, time: str) -> None:
    assert corral(server, "keys", "create", "late", "--expires", time)[0] == 2
    assert corral(server, "keys", "create", "ci")[0] == 0
    assert corral(server, "keys", "rotate", "ci", "--grace", time)[0] == 2
    assert corral(server, "keys", "list")[1]["count"] == 1


def test_a_key_sees_and_uses_the_models_it_may(server: Server) -> None:
    secret = ask(server, "POST", "/api/v1/keys", {"name": "ci", "models": ["rob*"]}).json["secret"]
    assert [model["id"] for model in ask(server, "GET", "/v1/models", **bearer(secret)).json["data"]] == ["robot"]
    assert ask(server, "GET", "/v1/models/robot", **bearer(secret)).status == 200
    assert ask(server, "GET", "/v1/models/other", **bearer(secret)).status == 404
    everything = ask(server, "GET", "/v1/models", **bearer(token(server))).json["data"]
    assert [model["id"] for model in everything] == ["other", "robot"]
    assert ask(server, "POST", "/v1/chat/completions", chat("robot"), **bearer(secret)).status == 200
    refused = ask(server, "POST", "/v1/chat/completions", chat("other"), **bearer(secret))
    assert refused.status in (403, 404), refused.body


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}]}


DIALECTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", chat("robot")),
    ("/v1/messages", {**chat("robot"), "max_tokens": 5}),
    ("/v1beta/models/robot:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
]


def test_a_limit_is_held_and_told_in_every_dialect(server: Server) -> None:
    wish = {"name": "slow", "requests": len(DIALECTS)}
    key = bearer(ask(server, "POST", "/api/v1/keys", wish).json["secret"])
    left = []
    for path, body in DIALECTS:
        reply = ask(server, "POST", path, body, **key)
        assert reply.status == 200, (path, reply.body)
        left.append(int(reply.headers["x-ratelimit-remaining-requests"]))
    assert left == [2, 1, 0]
    for path, body in DIALECTS:
        reply = ask(server, "POST", path, body, **key)
        assert reply.status == 429, (path, reply.body)
        assert 0 < int(reply.headers["retry-after"]) <= 60
        assert b"requests a minute" in reply.body
        assert ask(server, "POST", path, body).status == 401
    assert ask(server, "POST", DIALECTS[0][0], chat("robot"), **bearer(token(server))).status == 200


def test_geminis_clients_may_put_the_key_into_the_address(server: Server) -> None:
    secret = ask(server, "POST", "/api/v1/keys", {"name": "ci"}).json["secret"]
    path, body = DIALECTS[-1]
    assert ask(server, "POST", f"{path}?key={secret}", body).status == 200
    assert ask(server, "POST", f"{path}?key=wrong", body).status == 401
    assert ask(server, "GET", f"/v1beta/models?key={secret}").status == 200
    log = (server.home.parent / "server.log").read_text()
    assert f"{path}?key=*** 200" in log
    assert secret[9:] not in log


def test_what_is_managed_stands_in_the_audit_log(server: Server) -> None:
    mine = bearer(token(server))
    made = ask(server, "POST", "/api/v1/keys", {"name": "boss", "scope": "admin"}, **mine).json
    boss = bearer(made["secret"])
    gone = ask(server, "POST", "/api/v1/runtime/models/unload?model_name=robot&key=QQQ", **boss)
    assert gone.status == 200, gone.body
    ask(server, "GET", "/api/v1/runtime/models", **boss)
    plan = {"model": "robot", "messages": [{"role": "user", "content": "Hello"}]}
    assert ask(server, "POST", "/api/v1/runtime/route", plan, **boss).status == 200
    ask(server, "POST", "/api/v1/runtime/models/load?model_name=nobody", **boss)
    assert corral(server, "keys", "rotate", "boss")[0] == 0

    found = ask(server, "GET", "/api/v1/audit?limit=2", **mine).json

    assert [entry["action"] for entry in found["entries"]] == ["keys.rotate", "POST /api/v1/runtime/models/unload"]
    assert found["entries"][0]["actor"] == "terminal"
    unloaded = found["entries"][1]
    assert (unloaded["actor"], unloaded["target"]) == (
        made["key"]["id"],
        "/api/v1/runtime/models/unload?model_name=robot&key=***",
    )
    assert unloaded["request_id"] == gone.headers["x-request-id"]
    rest = ask(server, "GET", f"/api/v1/audit?before={found['next']}", **mine).json
    assert [(entry["action"], entry["actor"]) for entry in rest["entries"]] == [("keys.create", "local")]
    assert rest["next"] is None
    assert made["secret"][9:] not in json.dumps([found, rest])
    assert ask(server, "GET", "/api/v1/audit?before=0", **mine).status == 400
    assert corral(server, "keys", "audit", "-n", "1")[1]["count"] == 1


def test_a_key_in_an_address_is_never_logged(server: Server) -> None:
    secret = ask(server, "POST", "/api/v1/keys", {"name": "ci"}).json["secret"]
    # Only Gemini's clients and WebSockets may put it there.
    assert ask(server, "GET", f"/v1/models?key={secret}").status == 401
    assert secret[9:] not in (server.home.parent / "server.log").read_text()


def test_a_server_on_every_address_needs_a_key_and_one_in_the_database_will_do(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as first:
        secret = ask(first, "POST", "/api/v1/keys", {"name": "ci", "scope": "manage"}).json["secret"]
    with corral_server(tmp_path, CONFIG + "server: {host: 0.0.0.0}\n") as second:
        assert ask(second, "GET", "/api/v1/runtime/models", **bearer(secret)).status == 200
        # Whoever forgets the last key opens nothing there.
        assert corral(second, "keys", "rm", "ci", "--yes")[0] == 0
        assert ask(second, "GET", "/v1/models").status == 401
        assert corral(second, "ps")[0] == 0


def test_keys_that_cannot_be_read_let_nobody_in_but_the_owner(tmp_path: Path) -> None:
    (tmp_path / ".corral").mkdir()
    (tmp_path / ".corral" / "corral.db").write_bytes(os.urandom(4096))
    with corral_server(tmp_path, CONFIG) as server:
        assert ask(server, "GET", "/v1/models").status == 503
        assert ask(server, "GET", "/v1/models", **bearer(token(server))).status == 200
        assert ask(server, "GET", "/health").status == 200
