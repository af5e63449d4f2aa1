"""Gemini, played, behind Corral: asked by Google's own client and by OpenAI's, streaming and not."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from google.genai import errors, types

from support.servers import Server, corral_server
from tests.support.vendors.gemini import Gemini
from tests.support.vendors.vendor import played

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # Google's own way
CONFIG = """
models:
  gemini-2.5-pro: {{runtime: gemini, options: {{base_url: "{url}", safety: permissive}}}}
  gemini-2.0-flash: {{runtime: gemini, options: {{base_url: "{url}"}}}}
  vectors: {{runtime: gemini, options: {{base_url: "{url}", upstream_model: gemini-embedding-001}}}}
"""
TOOL = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def vendor() -> Iterator[str]:
    with played(Gemini) as url:
        yield url


@pytest.fixture(scope="module")
def server(vendor: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    with corral_server(home, CONFIG.format(url=vendor), env={"GEMINI_API_KEY": Gemini.key}) as running:
        yield running


@pytest.fixture
def google(server: Server) -> Iterator[genai.Client]:
    options = types.HttpOptions(base_url=server.url, timeout=60_000)
    with genai.Client(api_key="any", http_options=options) as client:
        yield client


@pytest.fixture
def chat(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client.chat.completions


def asked(vendor: str) -> dict[str, Any]:
    """What the vendor was asked last."""
    with urllib.request.urlopen(vendor.replace("/v1beta", "/asked"), timeout=60) as answer:
        return json.load(answer)[-1]


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_its_own_client_is_relayed_and_gets_the_settings(google, vendor):
    reply = google.models.generate_content(model="gemini-2.5-pro", contents="Hi #think")

    assert reply.text == "Hello from gemini-2.5-pro."
    assert reply.usage_metadata.thoughts_token_count == 7
    sent = asked(vendor)
    assert sent["path"] == "/models/gemini-2.5-pro:generateContent"
    assert {each["threshold"] for each in sent["body"]["safetySettings"]} == {"BLOCK_NONE"}
    assert sent["body"].keys() == {"contents", "safetySettings"}


def test_its_own_client_streams(google, vendor):
    chunks = list(google.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"))

    assert "".join(chunk.text or "" for chunk in chunks) == "Hello from gemini-2.5-pro."
    assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP
    assert asked(vendor)["body"].keys() == {"contents", "safetySettings"}


def test_a_stream_without_events_is_an_array(server):
    request = urllib.request.Request(
        f"{server.url}/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        json.dumps({"contents": [{"parts": [{"text": "Hi"}]}]}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        chunks = [types.GenerateContentResponse.model_validate(each) for each in json.load(answer)]

    assert "".join(chunk.text or "" for chunk in chunks) == "Hello from gemini-2.5-pro."


def test_openais_client_is_understood(chat, vendor):
    reply = chat.create(
        model="gemini-2.5-pro",
        messages=[{"role": "system", "content": "Be brief."}, *say("Hi #think #cached")],
        max_completion_tokens=50,
        reasoning_effort="low",
    )

    assert reply.choices[0].message.content == "Hello from gemini-2.5-pro."
    assert reply.usage.prompt_tokens_details.cached_tokens == 2000
    assert reply.usage.completion_tokens == 19
    body = asked(vendor)["body"]
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    thoughts = {"thinkingBudget": 1024, "includeThoughts": True}
    assert body["generationConfig"] == {"maxOutputTokens": 50, "thinkingConfig": thoughts}
    assert len(body["safetySettings"]) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_tools_there_and_back(chat, stream):
    messages: list[Any] = say("Look #tools=2 #noids")
    tools = [{"type": "function", "function": TOOL}]
    if stream:
        calls: dict[int, dict[str, str]] = {}
        for chunk in chat.create(model="gemini-2.5-pro", messages=messages, tools=tools, stream=True):
            for delta in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
                call = calls.setdefault(delta.index, {"id": delta.id, "name": "", "arguments": ""})
                call["name"] += delta.function.name or ""
                call["arguments"] += delta.function.arguments or ""
        found = list(calls.values())
    else:
        made = chat.create(model="gemini-2.5-pro", messages=messages, tools=tools).choices[0]
        assert made.finish_reason == "tool_calls"
        found = [
            {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
            for call in made.message.tool_calls
        ]
    assert [json.loads(call["arguments"])["number"] for call in found] == [0, 1]
    assert len({call["id"] for call in found}) == 2

    said = [
        {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in found
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "sun"} for call in found]
    after = chat.create(
        model="gemini-2.5-pro",
        messages=[*say("Look"), {"role": "assistant", "content": None, "tool_calls": said}, *results],
        tools=tools,
    )
    assert after.choices[0].message.content == "Hello from gemini-2.5-pro."


def test_vectors(google, server):
    found = google.models.embed_content(model="vectors", contents=["one", "three"])
    alone = google.models.embed_content(model="vectors", contents="four")
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        other = client.embeddings.create(model="vectors", input=["one", "three"])

    assert [each.values[0] for each in found.embeddings] == [3.0, 5.0]
    assert [each.values[0] for each in alone.embeddings] == [4.0]
    assert [each.embedding[0] for each in other.data] == [3.0, 5.0]


def test_a_model_that_does_not_think_is_not_asked_to(chat, vendor):
    chat.create(model="gemini-2.0-flash", messages=say("Hi"), reasoning_effort="high")

    assert "generationConfig" not in asked(vendor)["body"]


def test_refusals_in_the_clients_own_words(chat, google):
    with pytest.raises(openai.BadRequestError) as caught:
        chat.create(model="gemini-2.5-pro", messages=say("long " * 50_000))
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(errors.ClientError, match="exceeds the maximum number of tokens"):
        google.models.generate_content(model="gemini-2.5-pro", contents="long " * 50_000)


def test_a_blocked_prompt_is_an_answer(chat, google):
    assert chat.create(model="gemini-2.5-pro", messages=say("#blocked")).choices[0].finish_reason == "content_filter"
    blocked = google.models.generate_content(model="gemini-2.5-pro", contents="#blocked")
    assert blocked.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT
