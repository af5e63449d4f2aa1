"""Where a request would go and where it then goes: the forecast over HTTP and in the terminal, beside real requests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.api import Client
from support.servers import CORRAL, Server, corral_server, environment

CONFIG = """
models:
  one: {runtime: fake, options: {reply: "from one"}}
  two: {runtime: fake, options: {reply: "from two"}}
  lost: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1"}, fallback: [two]}
  near: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1"}}
  alone: {runtime: openai, options: {base_url: "http://127.0.0.1:1/v1"}}
routes:
  spread: {models: [one, two], policy: weighted, weights: {one: 3}}
  hopeless: {models: [lost, nobody]}
routing: {retries: 0, breaker_failures: 2, breaker_pause: 10m}
"""
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


def told(client: Client, model: str, query: str = "") -> dict[str, Any]:
    reply = client.ask("POST", f"/route{query}", {"model": model, **CHAT}, base="/api/v1/runtime")
    assert reply.status == 200, reply.body
    plan: dict[str, Any] = reply.json["plan"]
    return plan


def names(plan: dict[str, Any]) -> list[str]:
    return [each["model"] for each in plan["candidates"]]


def answered(client: Client, model: str) -> str:
    reply = client.ask("POST", "/chat/completions", {"model": model, **CHAT}, base="/v1")
    assert reply.status == 200, reply.body
    return str(reply.json["choices"][0]["message"]["content"])


def test_what_is_told_is_what_is_done(client: Client) -> None:
    """The forecast draws nothing, so that the next request goes where it says. Each asks something else: none stays."""
    went: list[tuple[str, str]] = []
    for number in range(8):
        body = {"model": "spread", "messages": [{"role": "user", "content": f"Hello {number}"}]}
        plan = client.ask("POST", "/route", body, base="/api/v1/runtime").json["plan"]
        reply = client.ask("POST", "/chat/completions", body, base="/v1")
        went.append((f"from {names(plan)[0]}", reply.json["choices"][0]["message"]["content"]))
    assert [said for said, _ in went] == [done for _, done in went]
    assert {done for _, done in went} == {"from one", "from two"}


def test_a_conversation_stays(client: Client) -> None:
    said = {answered(client, "spread") for _ in range(6)}
    assert len(said) == 1
    first = told(client, "spread")["candidates"][0]
    assert f"from {first['model']}" in said
    assert "had this conversation before" in first["reason"]


def test_who_fails_is_left_alone_and_the_fallback_asked(client: Client) -> None:
    before = told(client, "lost")
    assert names(before) == ["lost", "two"]
    assert [answered(client, "lost") for _ in range(2)] == ["from two"] * 2
    after = told(client, "lost")
    assert names(after) == ["two"]
    (dropped,) = after["dropped"]
    assert (dropped["model"], dropped["code"]) == ("lost", "circuit_open")
    assert 0 < dropped["retry_after"] <= 600
    assert answered(client, "lost") == "from two"
    strict = told(client, "lost", "?strict=true")
    assert strict["candidates"] == []
    assert strict["error"]["code"] == "circuit_open"
    assert {each["code"] for each in strict["dropped"]} == {"circuit_open", "degraded"}


def test_who_is_at_an_address_that_is_away_is_left_alone_too(client: Client) -> None:
    """After its first request, from which its address is known."""
    client.ask("POST", "/chat/completions", {"model": "near", **CHAT}, base="/v1")
    assert told(client, "near")["error"]["code"] == "circuit_open"


def test_nobody_left_is_an_error_that_says_when(client: Client) -> None:
    refused = [client.ask("POST", "/chat/completions", {"model": "alone", **CHAT}, base="/v1") for _ in range(3)]
    assert [reply.json["error"]["code"] for reply in refused] == ["upstream_refused"] * 2 + ["circuit_open"]
    assert 0 < int(refused[2].headers["retry-after"]) <= 600
    assert told(client, "alone")["error"]["code"] == "circuit_open"


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("", {"model": "nobody", **CHAT}, 404, "model_not_found"),
        ("", {"model": "one"}, 400, "invalid_request"),
        ("?dialect=klingon", {"model": "one", **CHAT}, 400, "unknown_option"),
        ("?dialect=openai.nothing", {"model": "one", **CHAT}, 400, "unknown_option"),
        ("", [1], 400, "invalid_request"),
        ("", {**CHAT}, 400, "invalid_request"),
    ],
)
def test_what_cannot_be_told(client: Client, query: str, body: object, status: int, code: str) -> None:
    reply = client.ask("POST", f"/route{query}", body, base="/api/v1/runtime")
    assert (reply.status, reply.code) == (status, code)


def test_a_body_without_a_name_gets_one(client: Client) -> None:
    reply = client.ask("POST", "/route?model=one", CHAT, base="/api/v1/runtime")
    assert names(reply.json["plan"]) == ["one"]


def run(home: Path, *words: str, request: object = None, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [CORRAL, *words],
        input=json.dumps(request),
        env=env or environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_terminal_asks_the_server(server: Server) -> None:
    asked = {"model": "spread", **CHAT}
    code, out, _ = run(server.home.parent, "explain", "--request", "-", "--json", request=asked)
    assert code == 0
    assert sorted(names(json.loads(out))) == ["one", "two"]
    assert run(server.home.parent, "explain", "--request", "-", "--quiet", request=asked)[1].split()[0] in {
        "one",
        "two",
    }


def test_the_terminal_tells_it_without_a_server(tmp_path: Path) -> None:
    (tmp_path / ".corral").mkdir()
    (tmp_path / ".corral" / "corral.yaml").write_text(CONFIG)
    code, out, err = run(tmp_path, "explain", "--request", "-", request={"model": "hopeless", **CHAT})
    assert code == 0, err
    assert "hopeless: goes to lost" in out
    assert "model_not_found: Model 'nobody' does not exist." in out
    assert "no server runs" in out
    (tmp_path / "request.json").write_text("{")
    code, _, err = run(tmp_path, "explain", "--request", "request.json")
    assert code != 0
    assert "is not JSON" in err
    code, _, err = run(tmp_path, "explain")
    assert code != 0
    assert "corral explain MODEL" in err


def test_what_takes_a_model_says_that_a_route_is_none(client: Client) -> None:
    reply = client.ask("GET", "/explain?model=spread", base="/api/v1/runtime")

    assert reply.status == 404
    assert reply.json["error"]["message"] == "'spread' is no model but a route to one, two."
    assert "corral explain --request" in reply.json["error"]["hint"]


def test_prices_far_below_a_cent_are_told_in_digits(tmp_path: Path) -> None:
    (tmp_path / "corral.yaml").write_text("models: {one: {runtime: fake}}\nprices: {one: {input: 0.1, output: 0.4}}\n")
    (tmp_path / "request.json").write_text(json.dumps({"model": "one", **CHAT, "max_tokens": 100}))
    told = subprocess.run(
        [CORRAL, "explain", "--request", "request.json"],
        env=environment(tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "$0.00004" in told.stdout
    assert "e-" not in told.stdout.split("WHY")[1]
