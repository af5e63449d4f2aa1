"""A configuration that changes while the server runs: taken over, no answer lost; a bad one changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from support.servers import CORRAL, Server, corral_server

CONFIG = """
models:
  a: {runtime: fake, options: {reply: "old"}}
  b: {runtime: fake, options: {reply: "same"}}
"""
CHANGED = """
log: {level: debug}
engines: {patience: 5s}
models:
  a: {runtime: fake, options: {reply: "new"}}
  b: {runtime: fake, options: {reply: "same"}}
  c: {runtime: fake, options: {reply: "more"}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with corral_server(tmp_path, CONFIG) as running:
        yield running


def say(server: Server, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
    reply = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def write(server: Server, text: str) -> None:
    """As an editor does: beside, then moved."""
    file = server.home / "corral.yaml"
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


def reload(server: Server) -> httpx.Response:
    return httpx.post(f"{server.url}/api/v1/runtime/reload", timeout=60)


def engine(server: Server, model: str) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/api/v1/runtime/models/{model}", timeout=30).json()["model"])


def test_an_answer_under_way_ends_as_it_began_and_the_next_is_by_the_new_configuration(server: Server) -> None:
    kept = say(server, "b"), engine(server, "b")["engine"]
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "?"}]}
    body |= {"fake": {"tokens": 60, "delay_ms": 50}}
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=60) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data:"))
        got = [next(lines)]
        write(server, CHANGED)
        assert reload(server).json()["later"] == ["log"]
        got += lines
    assert len(got) > 60
    assert got[-1] == "data: [DONE]"
    assert say(server, "a") == "new"
    assert say(server, "c") == "more"
    assert (say(server, "b"), engine(server, "b")["engine"]) == kept


def cost(server: Server, model: str) -> tuple[int, int]:
    """What an answer cost, in nanodollars, and how many tokens it had."""
    body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
    reply = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60)
    receipt = httpx.get(f"{server.url}/api/v1/receipts/{reply.headers['x-request-id']}", timeout=30).json()["receipt"]
    return receipt["cost_nano"], receipt["usage"]["output"]


def test_another_price_holds_for_the_next_call(server: Server) -> None:
    assert cost(server, "a")[0] == 0
    for dollars in (2, 5):
        write(server, f"{CONFIG}prices:\n  a: {{input: 0, output: {dollars}}}\n")
        assert reload(server).json()["later"] == []

        paid, tokens = cost(server, "a")
        assert paid == tokens * dollars * 1000 > 0


def test_who_is_resident_holds_as_soon_as_the_reload_is_answered(server: Server) -> None:
    room = "engines: {memory: {cpu: 180MiB}}\n"
    big = "{runtime: fake, options: {memory_mib: 60}"
    write(server, f"{room}models:\n  x: {big}, resident: true}}\n  y: {big}, resident: true}}\n  z: {big}}}\n")
    assert reload(server).status_code == 200
    assert (say(server, "x"), say(server, "y")) == ("?", "?")
    body = {"model": "z", "messages": [{"role": "user", "content": "?"}]}
    refused = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60)
    assert refused.json()["error"]["code"] == "does_not_fit"
    write(server, f"{room}models:\n  x: {big}}}\n  y: {big}, resident: true}}\n  z: {big}}}\n")
    assert reload(server).status_code == 200
    assert say(server, "z") == "?"
    assert (engine(server, "x")["state"], engine(server, "y")["state"]) == ("cold", "ready")


def test_a_file_that_cannot_be_used_is_refused_and_all_goes_on(server: Server) -> None:
    assert say(server, "b") == "same"
    before = engine(server, "b")["engine"]
    wrong = {"models: [": "YAML", "models: {b: {runtime: nonesuch}}": "nonesuch", "nonsense: 1": "nonsense"}
    for text, word in wrong.items():
        write(server, text)
        told = reload(server)
        assert told.status_code >= 400
        assert word in json.dumps(told.json())
    asked = subprocess.run([CORRAL, "ps"], env=server.env, capture_output=True, text=True, check=True, timeout=60)
    assert "b     ready" in asked.stdout
    assert "nonsense" in asked.stderr, "it is said, and the server that runs well is asked all the same"
    assert say(server, "b") == "same"
    assert engine(server, "b")["engine"] == before


@pytest.mark.parametrize("how", ["signal", "file"])
def test_a_signal_and_a_change_of_the_file_are_enough(server: Server, how: str) -> None:
    write(server, CHANGED)
    if how == "signal":
        server.process.send_signal(signal.SIGHUP)
    log = server.home.parent / "server.log"
    with httpx.stream("GET", f"{server.url}/api/v1/runtime/events", timeout=60):
        while "the changed configuration is in use" not in log.read_text():
            assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
    assert say(server, "c") == "more"
