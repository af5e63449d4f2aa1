"""Budgets over HTTP and on the command line, against a server of its own process: what one changes the other sees."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Client, Reply
from tests.support.servers import CORRAL, Server, corral_server

BASE = "/api/v1/budgets"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("budgets"), "models:\n  robot: {runtime: fake}\n") as running:
        yield running


def ask(server: Server, method: str, path: str, body: Any = None) -> Reply:
    return Client(server).ask(method, path, body, base="")


def corral(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CORRAL, "budgets", *arguments],
        env=server.env,
        cwd=server.home.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(server: Server, *arguments: str) -> Any:
    done = corral(server, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def chat(server: Server, text: str = "Hello") -> Reply:
    body = {"model": "robot", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
    return ask(server, "POST", "/v1/chat/completions", body)


def test_a_budget_is_made_shown_changed_and_removed(server: Server, tmp_path: Path) -> None:
    made = ask(server, "POST", BASE, {"name": "http", "amount": 2.5, "subject": "project", "who": "game"})

    assert made.status == 201
    assert made.json["budget"]["amount"] == 2.5
    assert made.json["budget"]["left"] == 2.5
    assert ask(server, "POST", BASE, {"name": "http", "amount": 1}).code == "conflict"
    assert ask(server, "PATCH", f"{BASE}/http", {"amount": 3}).json["budget"]["amount"] == 3
    assert said(server)["budgets"][0]["amount"] == 3.0
    assert ask(server, "GET", f"{BASE}/http").json["budget"]["who"] == "game"
    assert ask(server, "DELETE", f"{BASE}/http").status == 200
    assert ask(server, "GET", f"{BASE}/http").code == "budget_missing"
    assert ask(server, "GET", BASE).json == {"success": True, "budgets": [], "count": 0}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "x", "amount": -1},
        {"name": "x", "amount": "many"},
        {"name": "x", "amount": 1.5, "unit": "tokens"},
        {"name": "x", "amount": 1e300},
        {"name": "x y", "amount": 1},
        {"name": "x", "amount": 1, "subject": "key"},
        {"name": "x", "amount": 1, "colour": "red"},
    ],
)
def test_nonsense_is_refused_with_a_reason(server: Server, body: dict[str, Any]) -> None:
    reply = ask(server, "POST", BASE, body)

    assert (reply.status, reply.code) == (400, "invalid_request")


def test_the_terminal_gives_a_running_server_a_budget_and_it_holds(server: Server) -> None:
    said(server, "create", "three", "3", "--unit", "requests", "--per", "total")
    answers = []
    while not answers or answers[-1].status == 200:
        answers.append(chat(server))
        assert len(answers) < 1000

    refused = answers[-1]
    assert (refused.status, refused.code) == (402, "budget_exceeded")
    assert "'three'" in refused.json["error"]["message"]
    shown = said(server)["budgets"][0]
    assert shown["spent"] + shown["leased"] == 3
    table = corral(server).stdout
    assert "three" in table
    assert "100%" in table
    assert "RENEWED IN" in table

    ask(server, "PATCH", f"{BASE}/three", {"amount": 4})
    assert [chat(server).status for _ in range(2)] == [200, 402]
    said(server, "rm", "three", "--yes")
    assert corral(server, "rm", "three", "--yes").returncode == 3


def keys(server: Server, *arguments: str) -> None:
    done = subprocess.run(
        [CORRAL, "keys", *arguments], env=server.env, cwd=server.home.parent, capture_output=True, check=True
    )
    assert done.stdout


def test_the_table_says_whose_a_budget_is_and_counts_in_cents(server: Server) -> None:
    keys(server, "create", "editor")
    said(server, "create", "mine", "1234.56789", "--key", "editor")

    line = next(line for line in corral(server).stdout.splitlines() if line.startswith("mine"))

    assert line.split()[1:8] == ["key", "editor", "month", "$1,234.57", "$0.00", "$0.00", "$1,234.56"]
    said(server, "rm", "mine", "--yes")
    keys(server, "rm", "editor", "--yes")  # once there is one, whoever asks needs one


@pytest.mark.parametrize("wish", [{"max_tokens": -1}, {"max_tokens": -(10**6)}, {"max_completion_tokens": -9}])
def test_less_than_no_tokens_are_no_way_past_a_budget(server: Server, wish: dict[str, int]) -> None:
    said(server, "create", "few", "300", "--unit", "tokens", "--per", "total")
    try:
        for _ in range(2):
            body = {"model": "robot", "messages": [{"role": "user", "content": "Hello"}], **wish}
            refused = ask(server, "POST", "/v1/chat/completions", body)
            assert (refused.status, refused.code) == (402, "budget_exceeded")
        body["max_tokens"] = body["max_completion_tokens"] = 20
        assert ask(server, "POST", "/v1/chat/completions", body).status == 200
        assert said(server)["budgets"][0]["spent"] >= 0
    finally:
        said(server, "rm", "few", "--yes")


def test_mistakes_on_the_command_line_are_said_with_what_to_type(server: Server) -> None:
    for arguments, text in (
        (("create", "x", "1", "--key", "a", "--project", "b"), "key or of a project"),
        (("create", "x", "1", "--unit", "euro"), "Known: usd, tokens, requests"),
        (("create", "x", "1", "--key", "nobody"), "There is no key"),
        (("change", "x"), "--amount or --name"),
        (("release", "h-1"), "No process 'h-1' has a lease"),
        (("--url", "http://127.0.0.1:9"), "--url"),
    ):
        done = corral(server, *arguments)
        assert done.returncode != 0
        assert text in done.stderr, done.stderr
