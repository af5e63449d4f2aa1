"""Requests as editors send them, answered by each kind of engine; what has no effect there is said, and nothing else.

`editor_requests/` has them, written from what the editors document of themselves. `ignored` names, by the engine, what
`x-corral-ignored` must say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.received import last
from tests.support.servers import corral_server
from tests.support.vendors.anthropic import Anthropic
from tests.support.vendors.gemini import Gemini
from tests.support.vendors.openai import OpenAI
from tests.support.vendors.vendor import Vendor, played

CONFIG = """
models:
  fake: {{runtime: fake, options: {{reply: Now then, context: 65536}}}}
  gpt: {{runtime: openai, options: {{vendor: openai, base_url: "{openai}", upstream_model: gpt-5}}}}
  compatible:
    runtime: openai
    options:
      base_url: "{openai}"
      api_key_env: OPENAI_API_KEY
      drop: [reasoning_content, repeat_penalty, repetition_penalty, top_k]
  claude: {{runtime: anthropic, options: {{base_url: "{anthropic}", upstream_model: claude-haiku-4-5}}}}
  gemini-2.5-pro: {{runtime: gemini, options: {{base_url: "{gemini}"}}}}
"""
MODELS = {"fake": None, "gpt": "openai", "compatible": "openai", "claude": "anthropic", "gemini-2.5-pro": "gemini"}
"""Each with who is asked in the end."""
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
SHAPES = sorted(Path(__file__).with_name("editor_requests").glob("*.json"))


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        players: tuple[type[Vendor], ...] = (OpenAI, Anthropic, Gemini)
        yield {player.name: stack.enter_context(played(player)) for player in players}


@pytest.fixture(scope="module")
def http(addresses: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    env = dict.fromkeys(KEYS, Vendor.key)
    with (
        corral_server(home, CONFIG.format(**addresses), env=env) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


def said(path: str, answer: httpx.Response) -> str:
    """The text of an answer, which came to its end."""
    kind = answer.headers["content-type"]
    if kind.startswith("application/json"):
        return str(answer.json()["choices"][0]["message"]["content"])
    if kind.startswith("application/x-ndjson"):
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines[-1]["done"]
        return "".join(line["message"]["content"] for line in lines)
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    if data[-1] == "[DONE]":
        choices = [choice for each in data[:-1] for choice in json.loads(each)["choices"]]
        assert any(choice["finish_reason"] for choice in choices)
        return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    events = [json.loads(each) for each in data]
    if path.startswith("/v1/responses"):
        assert events[-1]["type"] == "response.completed"
        return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert events[-1]["type"] == "message_stop"
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("file", SHAPES, ids=lambda file: file.stem)
def test_an_editor_is_answered(http: httpx.Client, addresses: dict[str, str], file: Path, model: str) -> None:
    shape: dict[str, Any] = json.loads(file.read_text())
    answer = http.post(shape["path"], headers=shape["headers"], json={"model": model, **shape["body"]})

    assert answer.status_code == 200, answer.text
    if shape.get("counts"):
        assert answer.json()["input_tokens"] > 5
        return
    assert said(shape["path"], answer) == "Now then"
    ignored = [name for name in answer.headers.get("x-corral-ignored", "").split(", ") if name]
    assert ignored == shape.get("ignored", {}).get(model, [])

    vendor = MODELS[model]
    if vendor is not None:
        got = last(addresses[vendor])
        assert "#say=Now_then" in got.user
        assert [name for name, _ in got.tools if name] == shape["tools"]
        assert (got.system != "") == ("system" in json.dumps(shape["body"]) or "instructions" in shape["body"])


def test_what_anthropics_clients_mean_to_use_reaches_anthropic(http: httpx.Client, addresses: dict[str, str]) -> None:
    shape = json.loads(Path(__file__).with_name("editor_requests").joinpath("claude_code_first.json").read_text())
    http.post(shape["path"], headers=shape["headers"], json={"model": "claude", **shape["body"]})
    host = addresses["anthropic"].removesuffix("/v1")
    asked = httpx.get(f"{host}/asked").json()[-1]

    assert asked["headers"]["anthropic-beta"] == shape["headers"]["anthropic-beta"]
    assert {**asked["body"], "model": ""} == {**shape["body"], "model": ""}


def test_open_webui_finds_the_models_in_both_dialects(http: httpx.Client) -> None:
    assert set(MODELS) <= {model["id"] for model in http.get("/v1/models").json()["data"]}
    names = {model["name"].removesuffix(":latest") for model in http.get("/api/tags").json()["models"]}
    assert set(MODELS) <= names
    assert http.get("/api/version").json()["version"]
    assert "models" in http.get("/api/ps").json()
