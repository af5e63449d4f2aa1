"""The played Gemini answers Google's own client as the service does, and refuses what the service refuses."""

from __future__ import annotations

import asyncio

import pytest
from google import genai
from google.genai import errors, types

from tests.support.vendors.gemini import Gemini

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # Google's own way
MODEL = "gemini-2.5-pro"
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="weather", parameters_json_schema={"type": "object", "properties": {}})
    ]
)
NO_CALLING = types.AutomaticFunctionCallingConfig(disable=True)


@pytest.fixture
async def vendor():
    async with Gemini() as stage:
        yield stage


def client(vendor: Gemini, key: str = "") -> genai.Client:
    address, version = vendor.url.rsplit("/", 1)
    return genai.Client(
        api_key=key or vendor.key, http_options=types.HttpOptions(base_url=address, api_version=version, timeout=60_000)
    )


async def ask(vendor: Gemini, text: str, model: str = MODEL, **config):
    asked = types.GenerateContentConfig(automatic_function_calling=NO_CALLING, **config)
    return await client(vendor).aio.models.generate_content(model=model, contents=text, config=asked)


async def stream(vendor: Gemini, text: str, **config):
    asked = types.GenerateContentConfig(automatic_function_calling=NO_CALLING, **config)
    parts = await client(vendor).aio.models.generate_content_stream(model=MODEL, contents=text, config=asked)
    return [chunk async for chunk in parts]


async def test_an_answer_and_its_usage(vendor):
    reply = await ask(vendor, "Hi #think #cached")

    assert reply.text == f"Hello from {MODEL}."
    assert reply.candidates[0].finish_reason is types.FinishReason.STOP
    usage = reply.usage_metadata
    assert (usage.cached_content_token_count, usage.thoughts_token_count) == (2000, 7)
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count + 7
    assert len(vendor.asked) == 1


async def test_a_stream(vendor):
    chunks = await stream(vendor, "Hi #think", thinking_config=types.ThinkingConfig(include_thoughts=True))

    assert "".join(chunk.text or "" for chunk in chunks) == f"Hello from {MODEL}."
    assert any(part.thought for chunk in chunks for part in chunk.candidates[0].content.parts)
    assert [chunk.candidates[0].finish_reason for chunk in chunks[-2:]] == [None, types.FinishReason.STOP]


async def test_calls_of_tools_and_their_results(vendor):
    reply = await ask(vendor, "Look #tools=2", tools=[WEATHER])
    called = reply.candidates[0].content
    results = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": "sun"}))
        for call in reply.function_calls
    ]
    turns = [types.Content(role="user", parts=[types.Part(text="Look")]), called]
    after = await ask(vendor, [*turns, types.Content(role="user", parts=results)])

    assert [call.name for call in reply.function_calls] == ["weather", "weather"]
    assert called.parts[0].thought_signature == b"signed"
    assert after.text == f"Hello from {MODEL}."
    with pytest.raises(errors.ClientError, match="number of function response parts"):
        await ask(vendor, [*turns, types.Content(role="user", parts=results[:1])])


async def test_vectors_and_counts(vendor):
    vectors = await client(vendor).aio.models.embed_content(model="gemini-embedding-001", contents=["one", "three"])
    count = await client(vendor).aio.models.count_tokens(model=MODEL, contents="How much?")

    assert [each.values[0] for each in vectors.embeddings] == [3.0, 5.0]
    assert count.total_tokens > 0


async def test_what_is_blocked(vendor):
    blocked = await ask(vendor, "Hi #blocked")
    stopped = await ask(vendor, "Hi #stop=SAFETY")

    assert blocked.candidates is None
    assert blocked.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT
    assert stopped.candidates[0].finish_reason is types.FinishReason.SAFETY


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_refusals(vendor, status):
    with pytest.raises(errors.APIError) as caught:
        await ask(vendor, f"Hi #status={status} #retry_after=7")

    assert caught.value.code == status
    assert caught.value.details["error"]["details"][-1]["retryDelay"] == "7s"


async def test_what_the_service_does_not_take(vendor):
    with pytest.raises(errors.ClientError, match="between 128 and 32768"):
        await ask(vendor, "Hi", thinking_config=types.ThinkingConfig(thinking_budget=0))
    with pytest.raises(errors.ClientError, match="exceeds the maximum number of tokens"):
        await ask(vendor, "long " * 50_000)
    with pytest.raises(errors.ClientError, match="API key not valid"):
        await client(vendor, "another").aio.models.generate_content(model=MODEL, contents="Hi")


async def test_streams_that_break(vendor):
    with pytest.raises(errors.ServerError, match="overloaded"):
        await stream(vendor, "Hi #error=2")
    with pytest.raises(Exception, match=r"(?i)payload|connection|closed|peer"):
        await stream(vendor, "Hi #cut=2")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await stream(vendor, "Hi #hang=2")
