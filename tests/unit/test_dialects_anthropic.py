"""Anthropic's messages: what the official library sends is read, and what is written it understands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message as SdkMessage
from anthropic.types import MessageCreateParams, MessageTokensCount, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse

from corral.dialects.anthropic import read_count
from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Choice,
    Ended,
    Failed,
    File,
    Format,
    Image,
    Message,
    Reply,
    Request,
    Result,
    Role,
    Spent,
    Stop,
    Text,
    TextDelta,
    Thinking,
    Thought,
    ThoughtDelta,
    Tool,
)
from corral.dialects.form import PLAIN, Fault, Profile, form
from corral.domain.money import Usage
from corral.errors import BudgetExceeded, ContextOverflow, InvalidRequest, NotSupported, RateLimited
from tests.support.sdk import answer, parameters

MESSAGES = form("anthropic.messages")
HELLO = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
BUDGETS = Profile(thinking="budget")


def asked(**fields: Any) -> Request:
    return Request("m", (Message(Role.USER, (Text("hi"),)),), **fields)


def written(request: Request, profile: Profile = PLAIN) -> dict[str, Any]:
    document = MESSAGES.write_request(request, profile).document
    sampling = {"temperature", "top_p", "top_k"}  # the library has dropped them, the service has not
    parameters(MessageCreateParams, {key: value for key, value in document.items() if key not in sampling})
    return document


def ignored(request: Request, profile: Profile = PLAIN) -> tuple[str, ...]:
    return MESSAGES.write_request(request, profile).ignored


def test_a_request_comes_back_as_it_was() -> None:
    document = {
        "model": "claude",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                    {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}},
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
                        "title": "t",
                    },
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "proof"},
                    {"type": "redacted_thinking", "data": "sealed"},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1, 2.5, None]}},
                    {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "content": [
                            {"type": "text", "text": "no"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                        ],
                        "is_error": True,
                        "cache_control": {"type": "ephemeral"},
                    },
                    {"type": "text", "text": "and now?"},
                ],
            },
        ],
        "tools": [
            {
                "name": "f",
                "description": "does f",
                "input_schema": {"type": "object", "properties": {"a": {"type": "array"}}},
                "strict": True,
                "cache_control": {"type": "ephemeral"},
                "input_examples": [{"a": []}],
            },
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "omitted"},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "stream": True,
        "service_tier": "auto",
        "container": "c1",
    }
    document["max_tokens"] = 4096
    parameters(MessageCreateParams, document)
    read = MESSAGES.read_request(document)
    assert MESSAGES.write_request(read, PLAIN).document == document
    assert MESSAGES.write_request(read, PLAIN).ignored == ()
    assert [message.role for message in read.messages] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert read.messages[3].parts == (Result("toolu_1", (Text("ok"),), "f"),)
    assert read.messages[1].parts[0] == Text("look", "5m")
    assert (read.user, read.parallel, read.choice) == ("u", False, Choice("auto"))


@pytest.mark.parametrize(
    ("given", "thinking"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, Thinking(budget=2000)),
        ({"thinking": {"type": "disabled"}}, Thinking("none")),
        ({"thinking": {"type": "adaptive"}}, Thinking(budget=-1)),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, Thinking(budget=-1, shown=True)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, Thinking("max")),
        ({"output_config": {"effort": "low"}}, Thinking("low")),
    ],
)
def test_how_much_is_to_be_thought(given: dict[str, Any], thinking: Thinking) -> None:
    assert MESSAGES.read_request({**HELLO, **given}).thinking == thinking


@pytest.mark.parametrize(
    ("thinking", "document", "effort"),
    [
        (Thinking("high"), {"type": "enabled", "budget_tokens": 24576}, None),
        (Thinking(budget=-1), {"type": "enabled", "budget_tokens": 8192}, None),
        (Thinking(budget=3000), {"type": "enabled", "budget_tokens": 3000}, None),
        (Thinking("none"), {"type": "disabled"}, None),
    ],
)
def test_a_model_that_thinks_by_budget(thinking: Thinking, document: dict[str, Any], effort: str | None) -> None:
    found = written(asked(thinking=thinking, max_tokens=50000), BUDGETS)
    assert found["thinking"] == document
    assert found.get("output_config") == effort


def test_a_budget_stays_below_the_bound_of_the_answer() -> None:
    assert written(asked(thinking=Thinking("high"), max_tokens=4000), BUDGETS)["thinking"]["budget_tokens"] == 3999
    assert written(asked(thinking=Thinking(budget=9000)))["max_tokens"] == 9000 + PLAIN.max_output
    short = asked(thinking=Thinking("low"), max_tokens=500)
    assert "thinking" not in written(short, BUDGETS)
    assert ignored(short, BUDGETS) == ("thinking",)


def test_what_cannot_be_said_is_reported() -> None:
    request = asked(
        seed=1,
        min_p=0.1,
        presence_penalty=1.0,
        logprobs=True,
        temperature=1.5,
        format=Format("json"),
        choice=Choice("required"),
        stop=("\n", "END"),
    )
    assert set(ignored(request)) == {
        "seed",
        "min_p",
        "presence_penalty",
        "logprobs",
        "temperature",
        "format",
        "choice",
        "stop",
    }
    document = written(request)
    assert document["temperature"] == 1.0
    assert document["stop_sequences"] == ["END"]


def test_while_it_thinks_nothing_is_forced_and_nothing_tuned() -> None:
    request = asked(thinking=Thinking("high"), temperature=0.2, top_k=5)
    assert ignored(request) == ("temperature", "top_k")
    forced = asked(thinking=Thinking("high"), tools=(Tool("f"),), choice=Choice("named", "f"))
    assert ignored(forced) == ("thinking",)
    assert written(forced)["tool_choice"] == {"type": "tool", "name": "f"}


def test_parts_that_only_others_understand_are_left_out_and_reported() -> None:
    parts = (Text("hi"), File("audio/wav", "aGk="), Image(data="aGk=", media_type="image/tiff"), Text(""))
    said = Message(Role.ASSISTANT, (Thought("unsigned"), Call("a:1", "f", "nonsense")), name="bob")
    request = Request("m", (Message(Role.USER, parts), said, Message(Role.TOOL, (Result("a:1", name="another"),))))
    assert set(ignored(request)) == {"file", "image", "thought", "call.id", "message.name", "result.name"}
    assert written(request)["messages"] == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "a_1", "name": "f", "input": {"arguments": "nonsense"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a_1"}]},
    ]


def test_results_of_calls_made_together_stand_in_one_turn() -> None:
    turns = (
        Message(Role.USER, (Text("go"),)),
        Message(Role.ASSISTANT, (Call("a", "f"), Call("b", "f"))),
        Message(Role.TOOL, (Result("a", (Text("1"),)),)),
        Message(Role.TOOL, (Result("b", (Text("2"),)),)),
        Message(Role.USER, (Text("so?"),)),
    )
    assert [turn["role"] for turn in written(Request("m", turns))["messages"]] == ["user", "assistant", "user"]


def test_what_a_profile_says() -> None:
    profile = Profile(drop=frozenset({"temperature"}), extra={"service_tier": "auto"}, max_output=77, thinking="none")
    request = asked(temperature=0.5, thinking=Thinking("low"))
    assert written(request, profile) == {**HELLO, "max_tokens": 77, "service_tier": "auto"}
    assert ignored(request, profile) == ("thinking", "temperature")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": "0"}, "temperature"),
        ({"model": 1}, "model"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hi"]}, "messages.0.role"),
        ({"messages": [{"role": [], "content": ""}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text"),
        ({"system": 1}, "system"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "f"}]}, "tools.input_schema"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": ["auto"]}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": "u"}, "metadata"),
        ({"output_format": {"type": "text"}}, "output_config.format.type"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MESSAGES.read_request({**HELLO, **fields})
    assert caught.value.param == param


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "search_result"},
    ],
)
def test_what_lies_with_the_vendor_is_refused_by_name(block: dict[str, Any]) -> None:
    with pytest.raises(NotSupported):
        MESSAGES.read_request({**HELLO, "messages": [{"role": "user", "content": [block]}]})


def test_what_only_this_dialect_knows_is_reported_elsewhere() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    request = MESSAGES.read_request({**HELLO, "tools": tools, "container": "c", "mcp_servers": []})
    assert set(request.extra) == {"server_tools", "container", "mcp_servers"}
    assert request.origin == "anthropic.messages"


def test_tokens_are_counted_of_a_request_without_a_bound() -> None:
    body = {key: value for key, value in HELLO.items() if key != "max_tokens"}
    assert read_count(body).messages == (Message(Role.USER, (Text("hi"),)),)
    answer(MessageTokensCount, {"input_tokens": 3})


def test_usage_counts_what_the_cache_held_and_got() -> None:
    told = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
    }
    reply = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": told}
    usage = MESSAGES.read_reply({**reply, "stop_reason": "end_turn"}).usage
    assert usage == Usage(input=3210, output=50, cached=3000, cache_write=200, reasoning=20)
    back = MESSAGES.write_reply(Reply("msg_1", "c", usage=usage), asked())["usage"]
    assert back == {key: value for key, value in told.items() if key != "cache_creation"}


@pytest.mark.parametrize(
    ("word", "stop"),
    [
        ("end_turn", Stop.END),
        ("max_tokens", Stop.LENGTH),
        ("stop_sequence", Stop.SEQUENCE),
        ("tool_use", Stop.TOOLS),
        ("pause_turn", Stop.LENGTH),
        ("refusal", Stop.FILTER),
        ("model_context_window_exceeded", Stop.LENGTH),
    ],
)
def test_why_it_stopped(word: str, stop: Stop) -> None:
    assert MESSAGES.read_reply({"content": [], "stop_reason": word}).stop is stop


@pytest.mark.parametrize("stop", Stop)
def test_a_reply_is_what_the_library_expects(stop: Stop) -> None:
    parts = (Thought("hm", "s"), Thought(hidden="x"), Text("hi"), Call("c", "f", '{"a":1}'))
    reply = Reply("msg_1", "c", parts, stop, "END" if stop is Stop.SEQUENCE else None, Usage(5, 2, cached=1))
    document = MESSAGES.write_reply(reply, asked())
    answer(SdkMessage, document)
    again = MESSAGES.read_reply(document)
    assert again.parts == parts
    assert again.usage == reply.usage
    assert again.stop is (Stop.FILTER if stop is Stop.ERROR else stop)


@pytest.mark.parametrize("document", [{}, {"content": None}, {"content": ["x"]}, {"content": [{"type": "text"}]}])
def test_what_is_no_answer_is_an_error(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lacks"):
        MESSAGES.read_reply(document)


EVENTS = [
    Begun("msg_1", "c", Usage(input=7, cached=2)),
    ThoughtDelta("let "),
    ThoughtDelta("me"),
    ThoughtDelta(signature="s1"),
    ThoughtDelta("again"),
    ThoughtDelta(signature="s2"),
    ThoughtDelta(hidden="sealed"),
    TextDelta("Hel"),
    TextDelta('lo "\n\u2028'),
    CallBegun(0, "a", "f"),
    CallDelta(0, '{"x":'),
    CallDelta(0, "1}"),
    CallBegun(1, "b", "g"),
    CallDelta(1, "{}"),
    Spent(Usage(input=7, cached=2, output=9, reasoning=3)),
    Ended(Stop.TOOLS),
]


def data(stream: bytes) -> list[bytes]:
    """The data of each event, whose name is the type within."""
    found = []
    for event in stream.decode().split("\n\n"):
        if event and not event.startswith(":"):
            name, line = event.split("\n")
            assert name == f"event: {json.loads(line[6:])['type']}"
            found.append(line[6:].encode())
    return found


def streamed(events: list[Any], comment: bytes = b"") -> bytes:
    writer = MESSAGES.stream_writer(asked())
    return b"".join(writer.feed(event) for event in events) + writer.close(comment)


def test_a_stream_is_what_the_library_expects_and_comes_back() -> None:
    told = data(streamed(EVENTS, b": corral-receipt {}\n\n"))
    for each in told:
        answer(RawMessageStreamEvent, json.loads(each))
    reader = MESSAGES.stream_reader()
    assert [event for each in told for event in reader.feed(each)] == EVENTS


def test_blocks_follow_one_another() -> None:
    told = [json.loads(each) for each in data(streamed(EVENTS))]
    kinds = [each["type"] for each in told]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    bounds = [
        (each["type"][14:], each["index"])
        for each in told
        if each["type"][-5:] in ("start", "_stop")
        if "index" in each
    ]
    assert bounds == [(what, index) for index in range(6) for what in ("start", "stop")]


def test_a_stream_without_a_word_is_whole() -> None:
    kinds = [json.loads(each)["type"] for each in data(streamed([]))]
    assert kinds == ["message_start", "message_delta", "message_stop"]


def test_the_comment_stands_before_the_last_event() -> None:
    assert b'\n\n: c\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n' in streamed(EVENTS, b": c\n\n")


def test_a_call_without_arguments_has_whole_ones() -> None:
    reader = MESSAGES.stream_reader()
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    reader.feed(json.dumps({"type": "content_block_start", "index": 0, "content_block": block}).encode())
    assert reader.feed(b'{"type":"content_block_stop","index":0}') == (CallDelta(0, "{}"),)


def test_what_a_stream_may_say_beside() -> None:
    reader = MESSAGES.stream_reader()
    assert reader.feed(b'{"type": "ping"}') == ()
    assert reader.feed(b'{"type": "something_new"}') == ()
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    assert reader.feed(error) == (Failed("Overloaded", 529, "overloaded_error"),)
    for bad in (
        b"[]",
        b"{",
        b'{"type":"content_block_delta"}',
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":1}}',
    ):
        with pytest.raises(ValueError, match=r"lacks|object|unexpected|EOF|expected"):
            reader.feed(bad)


def test_a_stream_that_breaks_says_so() -> None:
    writer = MESSAGES.stream_writer(asked())
    (told,) = data(writer.fail(RateLimited("Slow down.")))
    assert answer(ErrorResponse, json.loads(told)).error.type == "rate_limit_error"
    (told,) = data(writer.feed(Failed("Overloaded", 529)))
    assert json.loads(told)["error"] == {"type": "overloaded_error", "message": "Overloaded"}


def test_errors_are_those_the_library_knows() -> None:
    for error, kind in ((InvalidRequest("x"), "invalid_request_error"), (BudgetExceeded("x"), "billing_error")):
        assert answer(ErrorResponse, MESSAGES.write_error(error)).error.type == kind
    overflow = MESSAGES.write_error(ContextOverflow("9000 tokens > 4096 maximum"))
    assert overflow["error"]["message"].startswith("prompt is too long: 9000 tokens > 4096")


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (
            {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}},
            Fault("slow", "rate_limit_error", "rate_limit_error"),
        ),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 2 > 1"}},
            Fault("prompt is too long: 2 > 1", "context_length_exceeded", "invalid_request_error"),
        ),
        (
            {
                "error": {
                    "type": "invalid_request_error",
                    "message": "input length and `max_tokens` exceed context limit",
                }
            },
            Fault(
                "input length and `max_tokens` exceed context limit", "context_length_exceeded", "invalid_request_error"
            ),
        ),
        (None, Fault("an error with the status 502")),
        ([], Fault("an error with the status 502")),
        ({"error": "no"}, Fault("no")),
        ({"error": {"type": 1}}, Fault("1")),
    ],
)
def test_a_vendors_error_is_read_whatever_it_is(document: Any, fault: Fault) -> None:
    assert MESSAGES.read_error(502, document) == fault


def test_a_fault_keeps_its_kind_or_gets_that_of_its_status() -> None:
    assert MESSAGES.write_fault(Fault("m", kind="overloaded_error"), 529)["error"]["type"] == "overloaded_error"
    assert MESSAGES.write_fault(Fault("m", kind="server_error"), 429)["error"]["type"] == "rate_limit_error"
    assert MESSAGES.write_fault(Fault("m"), 418)["error"]["type"] == "invalid_request_error"


def test_the_meter_finds_what_passes() -> None:
    meter = MESSAGES.meter()
    for event in streamed(EVENTS).split(b"\n\n"):
        meter.feed(event + b"\n\n")
    assert meter.usage == Usage(input=7, cached=2, output=9, reasoning=3)
    assert (meter.stop, meter.failed) == ("tools", None)
    whole = MESSAGES.meter()
    call = Call("a", "f", '{"error":{"message":"mine"},"usage":{"x":1}}')
    reply = Reply("i", "c", (call,), Stop.TOOLS, usage=Usage(3, 4))
    whole.feed(json.dumps(MESSAGES.write_reply(reply, asked())).encode())
    assert (whole.usage, whole.stop, whole.failed) == (Usage(3, 4), "tools", None)
    broken = MESSAGES.meter()
    broken.feed(b'event: error\ndata: {"type": "error", "error": {"type": "api_error", "message": "x"}}\n\n')
    assert broken.failed == Fault("x", "api_error", "api_error")
