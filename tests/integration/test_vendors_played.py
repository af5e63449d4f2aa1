"""The played vendors are what the vendors' own clients expect: each is asked with its official library."""

from __future__ import annotations

import anthropic
import openai
import pytest

from tests.support.vendors.anthropic import Anthropic
from tests.support.vendors.openai import OpenAI
from tests.support.vendors.vendor import played

TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
async def vendor():
    async with Anthropic() as vendor:
        yield vendor


@pytest.fixture
async def claude(vendor):
    async with anthropic.AsyncAnthropic(
        api_key=vendor.key, base_url=vendor.url.removesuffix("/v1"), max_retries=0, timeout=60
    ) as client:
        yield client


def said(text: str, **more):
    return {"model": "claude", "max_tokens": 4096, "messages": [{"role": "user", "content": text}], **more}


async def test_claude_answers(claude, vendor):
    message = await claude.messages.create(**said("hi"))
    assert message.content[0].text == "Hello from claude."
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 12)
    assert [(asked.path, asked.body["model"]) for asked in vendor.asked] == [("/messages", "claude")]


async def test_claude_streams_what_it_answers(claude):
    more = {"tools": [TOOL], "thinking": {"type": "enabled", "budget_tokens": 2000}}
    async with claude.messages.stream(**said("#tools=2 #say=Now_then #cached", **more)) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.content[0].signature
    assert message.content[1].text == "Now then"
    assert message.content[3].input == {"city": "Paris", "number": 1}
    assert (message.stop_reason, message.usage.cache_read_input_tokens) == ("tool_use", 2000)


async def test_claude_refuses_as_scripted(claude):
    with pytest.raises(anthropic.RateLimitError) as caught:
        await claude.messages.create(**said("#status=429 #retry_after=7"))
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.APIStatusError) as caught:
        await claude.messages.create(**said("#status=529"))
    assert caught.value.body["error"]["type"] == "overloaded_error"
    with pytest.raises(anthropic.AuthenticationError):
        await claude.with_options(api_key="other").messages.create(**said("hi"))


async def test_claude_breaks_as_scripted(claude):
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        async with claude.messages.stream(**said("#error=3")) as stream:
            await stream.get_final_message()
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|connection"):
        async with claude.messages.stream(**said("#cut=3")) as stream:
            await stream.get_final_message()
    with pytest.raises(anthropic.APIConnectionError):
        await claude.messages.create(**said("#cut"))
    with pytest.raises(anthropic.APITimeoutError):
        await claude.with_options(timeout=0.2).messages.create(**said("#hang"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": "9"},
        {"frequency_penalty": 1},
        {"tool_choice": {"type": "any"}},
        {"messages": [{"role": "user", "content": ""}]},
        {"thinking": {"type": "enabled", "budget_tokens": 9000}},
        {"temperature": 1.5},
        {
            "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}]
            * 2
        },
        {"tools": [{**TOOL, "parameters": {}}]},
    ],
)
async def test_claude_refuses_what_is_wrong(claude, wrong):
    body = said("hi") | wrong
    with pytest.raises(anthropic.BadRequestError):
        await claude.post("/v1/messages", body=body, cast_to=object)


async def test_claude_counts_tokens(claude):
    body = said("hi")
    del body["max_tokens"]
    assert (await claude.messages.count_tokens(**body)).input_tokens > 5


def test_a_vendor_is_a_process_too():
    with (
        played(Anthropic) as url,
        anthropic.Anthropic(api_key="vendor-key", base_url=url.removesuffix("/v1")) as client,
    ):
        assert client.messages.create(**said("#say=ok")).content[0].text == "ok"


# -- OpenAI ----------------------------------------------------------------------------------------------------------

FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
async def service():
    async with OpenAI() as vendor:
        yield vendor


@pytest.fixture
async def gpt(service):
    async with openai.AsyncOpenAI(api_key=service.key, base_url=service.url, max_retries=0, timeout=60) as client:
        yield client


def chat(text: str, **more):
    return {"model": "gpt", "messages": [{"role": "user", "content": text}], **more}


async def test_gpt_answers(gpt, service):
    whole = await gpt.chat.completions.create(**chat("hi #cached"))
    assert whole.choices[0].message.content == "Hello from gpt."
    assert whole.usage.prompt_tokens_details.cached_tokens == 2000
    assert service.asked[0].path == "/chat/completions"


async def test_gpt_streams_what_it_answers(gpt):
    more = {"tools": [FUNCTION], "stream_options": {"include_usage": True}}
    async with gpt.chat.completions.stream(**chat("#tools=2 #say=Now_then", **more)) as stream:
        whole = await stream.get_final_completion()
    message = whole.choices[0].message
    assert (message.content, whole.choices[0].finish_reason) == ("Now then", "tool_calls")
    assert [call.function.arguments for call in message.tool_calls][1] == '{"city": "Paris", "number": 1}'
    assert whole.usage.completion_tokens == 12


async def test_gpt_responds(gpt):
    tool = {"type": "function", "name": "weather", "parameters": {}, "strict": False}
    more = {"model": "gpt", "input": "#tool #think #say=Now_then", "tools": [tool]}
    whole = await gpt.responses.create(**more)
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call"]
    assert whole.output_text == "Now then"
    async with gpt.responses.stream(**more) as stream:
        streamed = await stream.get_final_response()
    assert [item.type for item in streamed.output] == ["reasoning", "message", "function_call"]
    assert streamed.output_text == "Now then"
    assert streamed.usage.output_tokens_details.reasoning_tokens == 5


async def test_gpt_completes_and_embeds(gpt):
    whole = await gpt.completions.create(model="gpt", prompt="#say=ok")
    assert whole.choices[0].text == "ok"
    streamed = [chunk async for chunk in await gpt.completions.create(model="gpt", prompt="hi", stream=True)]
    assert "".join(chunk.choices[0].text for chunk in streamed) == "Hello from gpt."
    vectors = await gpt.embeddings.create(model="gpt", input=["a", "bb"], dimensions=2)
    assert [len(each.embedding) for each in vectors.data] == [2, 2]
    plain = await gpt.embeddings.create(model="gpt", input="a", encoding_format="float")
    assert plain.data[0].embedding == [0.01, 0.02, 0.03]


async def test_gpt_refuses_and_breaks_as_scripted(gpt):
    with pytest.raises(openai.RateLimitError) as caught:
        await gpt.chat.completions.create(**chat("#status=429 #retry_after=7"))
    assert (caught.value.response.headers["retry-after"], caught.value.code) == ("7", "rate_limit_exceeded")
    with pytest.raises(openai.AuthenticationError):
        await gpt.with_options(api_key="other").models.list()
    with pytest.raises(openai.BadRequestError) as caught:
        await gpt.chat.completions.create(**chat("x" * 100_001))
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIError, match="The server had an error"):
        async for _ in await gpt.chat.completions.create(**chat("#error=2", stream=True)):
            pass
    with pytest.raises(openai.APIConnectionError):
        await gpt.chat.completions.create(**chat("#cut"))
    with pytest.raises(openai.APITimeoutError):
        await gpt.with_options(timeout=0.2).chat.completions.create(**chat("#hang"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": "9"},
        {"top_k": 1},
        {"tool_choice": "required"},
        {"temperature": 3},
        {"stream_options": {"include_usage": True}},
        {"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
    ],
)
async def test_gpt_refuses_what_is_wrong(gpt, wrong):
    with pytest.raises(openai.BadRequestError):
        await gpt.post("/chat/completions", body=chat("hi") | wrong, cast_to=object)
