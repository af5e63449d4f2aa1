"""OpenAI's own Python client against a real model: chat, streams, tools, JSON by schema, and a killed engine."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest
from openai.types.chat import ChatCompletion

from support.servers import Server, corral_server, ended

CONFIG = """
models:
  smollm2: {options: {context: 2048, slots: 4}}
  embedder: {source: smollm2, options: {embeddings: true, context: 512, slots: 1}}
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a zone",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_store: Path) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG, models_dir=model_store) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=90) as made:
        yield made


def test_chat(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="smollm2",
        messages=[{"role": "user", "content": "What is the capital of France? Answer in one word."}],
        max_tokens=16,
        temperature=0,
    )
    reply = raw.parse()
    assert isinstance(reply, ChatCompletion)
    assert "Paris" in (reply.choices[0].message.content or "")
    assert reply.usage is not None
    assert 0 < reply.usage.completion_tokens <= 16
    assert raw.headers["x-corral-context"] == "2048"
    assert len(raw.headers["x-corral-revision"]) == 64


def test_a_stream_arrives_in_pieces_with_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "system", "content": "You count."}, {"role": "user", "content": "Count to five."}],
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces, usage = [], None
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        usage = chunk.usage or usage
    assert len(pieces) > 5
    assert usage is not None
    assert usage.completion_tokens >= len(pieces)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_is_called(client: openai.OpenAI, choice: object) -> None:
    reply = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[CLOCK, WEATHER],
        tool_choice=choice,
        max_tokens=96,
        temperature=0,
    )
    assert reply.choices[0].finish_reason == "tool_calls"
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert len(calls) == 1
    assert calls[0].function.name == "get_weather"
    assert json.loads(calls[0].function.arguments) == {"city": "Paris"}


def test_a_tools_answer_goes_back_into_the_talk(client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    reply = client.chat.completions.create(
        model="smollm2",
        messages=[
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "It is 17 degrees and raining in Paris."},
        ],
        tools=[WEATHER],
        max_tokens=48,
        temperature=0,
    )
    assert reply.choices[0].message.content


def test_a_streamed_tool_call_is_put_together_by_the_client(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="smollm2",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=96,
        temperature=0,
    ) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert json.loads(calls[0].function.arguments)["city"]


def test_json_keeps_to_the_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    reply = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Invent a person."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
        max_tokens=128,
        temperature=0,
    )
    person = json.loads(reply.choices[0].message.content or "")
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


def test_completions_and_embeddings(client: openai.OpenAI) -> None:
    text = client.completions.create(model="smollm2", prompt="The capital of France is", max_tokens=4, temperature=0)
    assert "Paris" in text.choices[0].text
    vectors = client.embeddings.create(model="embedder", input=["a horse", "a mare"])
    assert [len(item.embedding) for item in vectors.data] == [576, 576]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert {"smollm2", "embedder"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("smollm2").id == "smollm2"


def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "word " * 4000}]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="no-such-model", messages=messages)
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="smollm2", messages=messages)
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="smollm2", messages=[])


def test_a_killed_engine_ends_the_stream_with_an_error_and_the_next_request_works(
    server: Server, client: openai.OpenAI
) -> None:
    client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "hi"}], max_tokens=1)
    before = set(server.engines())
    stream = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Write a very long story about a river."}],
        max_tokens=1500,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    victim = _engine_of(server, "smollm2")
    for _ in range(5):
        next(stream)
    victim.send_signal(signal.SIGKILL)
    with pytest.raises(openai.APIError):
        list(stream)
    assert ended([victim])
    reply = client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    assert reply.choices[0].message.content
    assert set(server.engines()) != before


def test_four_talks_at_once_share_one_engine(server: Server) -> None:
    async def talk() -> list[ChatCompletion]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as many:
            asks = (
                many.chat.completions.create(
                    model="smollm2", messages=[{"role": "user", "content": f"Say {n}."}], max_tokens=8
                )
                for n in range(4)
            )
            return await asyncio.gather(*asks)

    assert all(reply.choices[0].message.content for reply in asyncio.run(talk()))


def _engine_of(server: Server, model: str) -> psutil.Process:
    """The process that has the model's options on board: the one with the larger context of the two."""
    import urllib.request

    with urllib.request.urlopen(f"{server.url}/api/v1/runtime/models/{model}") as answer:
        footprint = json.load(answer)["model"]["footprint"]["cpu"]
    return min(server.engines(), key=lambda p: abs(p.memory_info().rss - footprint))
