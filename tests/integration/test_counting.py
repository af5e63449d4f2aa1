"""Prompts are counted by the engine that is to answer them, and what is too long never reaches it."""

from __future__ import annotations

import anthropic
import httpx
import pytest

from tests.support.servers import corral_server
from tests.support.vendors.anthropic import Anthropic
from tests.support.vendors.gemini import Gemini

CONFIG = """
models:
  smollm2:
    runtime: llamacpp
    options: {context: 512, slots: 1, gpu_layers: 0}
  played:
    runtime: fake
    options: {context: 20, reply: well}
"""
TALK = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "Which is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Peru? " * 20},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_store):
    with corral_server(tmp_path_factory.mktemp("counting"), CONFIG, models_dir=model_store) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def chat(http, model="smollm2", headers=None, **more):
    return http.post("/v1/chat/completions", json={"model": model, "messages": TALK, **more}, headers=headers)


def receipt(http, answer):
    return http.get(f"/api/v1/receipts/{answer.headers['x-request-id']}").json()["receipt"]


def test_a_count_is_what_the_answer_says_it_read(http, server):
    system, *turns = TALK
    with anthropic.Anthropic(base_url=server.url, api_key="k") as client:
        asked = {"model": "smollm2", "system": system["content"], "messages": turns}
        counted = client.messages.count_tokens(**asked).input_tokens
        used = client.messages.create(**asked, max_tokens=1).usage
    whole = used.input_tokens + (used.cache_read_input_tokens or 0)

    assert counted == whole == chat(http, max_tokens=1).json()["usage"]["prompt_tokens"]
    assert counted > 100


def test_gemini_is_told_the_same(http):
    body = {"contents": [{"role": "user", "parts": [{"text": TALK[-1]["content"]}]}]}
    counted = http.post("/v1beta/models/smollm2:countTokens", json=body)
    answer = http.post(
        "/v1beta/models/smollm2:generateContent", json=body | {"generationConfig": {"maxOutputTokens": 1}}
    )

    assert counted.json()["totalTokens"] == answer.json()["usageMetadata"]["promptTokenCount"]
    assert "x-corral-estimated" not in counted.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_is_too_long_is_refused_with_both_numbers(http, path):
    words = "word " * 600
    said = {"messages": [{"role": "user", "content": words}]} if "chat" in path else {"prompt": words}
    answer = http.post(path, json={"model": "smollm2", "max_tokens": 4, **said})
    error = answer.json()["error"]

    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "512" in error["message"]
    count = int(error["message"].split(" tokens")[0].rpartition(" ")[2])
    assert 600 <= count <= 700


def test_the_engine_does_not_see_what_is_too_long(http):
    answer = http.post("/v1/chat/completions", json={"model": "played", "messages": TALK})

    assert answer.status_code == 400
    said = "The prompt has 60 tokens, and the context of 'played' holds 20."
    assert answer.json()["error"]["message"].startswith(said)


def test_an_answer_that_will_not_fit_says_so(http):
    answer = chat(http, max_tokens=480)

    assert answer.status_code == 200
    assert any("480 were asked for" in each for each in receipt(http, answer)["degraded"])


def test_strictly_it_is_refused(http):
    answer = chat(http, max_tokens=480, headers={"x-corral-strict": "true"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "degraded")
    assert "480" in answer.json()["error"]["message"]
    assert chat(http, max_tokens=8, headers={"x-corral-strict": "true"}).status_code == 200


async def test_vendors_count_when_they_are_asked_to_and_not_before_every_request(tmp_path):
    body = {"messages": [{"role": "user", "content": "well " * 400}]}
    async with Anthropic() as claude, Gemini() as gemini:
        config = f"""
models:
  claude: {{runtime: anthropic, options: {{base_url: "{claude.url}", api_key_env: CLAUDE_KEY, context: 600}}}}
  gemini: {{runtime: gemini, options: {{base_url: "{gemini.url}", api_key_env: GOOGLE_KEY, context: 600}}}}
"""
        env = {"CLAUDE_KEY": claude.key, "GOOGLE_KEY": gemini.key}
        with corral_server(tmp_path, config, env=env) as server:
            async with httpx.AsyncClient(base_url=server.url) as http:
                for model in ("claude", "gemini"):
                    counted = await http.post("/v1/messages/count_tokens", json={"model": model, **body})
                    assert counted.status_code == 200, counted.text
                    assert counted.json()["input_tokens"] > 400
                    assert "x-corral-estimated" not in counted.headers
                    said = await http.post("/v1/messages", json={"model": model, "max_tokens": 9, **body})
                    assert said.status_code == 200, said.text
        asked = [each.path for each in (*claude.asked, *gemini.asked)]
    assert sum("count" in path for path in asked) == 2
