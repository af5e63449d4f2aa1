"""The played vendors are what the vendors' own clients expect: each is asked with its official library."""

from __future__ import annotations

import anthropic
import pytest

from tests.support.vendors.anthropic import Anthropic
from tests.support.vendors.vendor import played

TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
async def vendor():
    async with Anthropic() as vendor:
        yield vendor


@pytest.fixture
async def claude(vendor):
    async with anthropic.AsyncAnthropic(
        api_key=vendor.key, base_url=vendor.url.removesuffix("/v1"), max_retries=0, timeout=5
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
