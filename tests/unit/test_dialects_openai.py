"""OpenAI's chat: what engines really send, what an engine is not sent, and what is said of all that is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Choice,
    Ended,
    Failed,
    Image,
    Message,
    Request,
    Result,
    Role,
    Spent,
    Stop,
    Text,
    TextDelta,
    Thinking,
    Thought,
    Tool,
    unsaid,
)
from corral.dialects.form import PLAIN, Profile, form
from corral.domain.money import Usage
from corral.errors import InvalidRequest, NotSupported
from tests.support.dialects import gathered, read

CHAT = form("openai.chat")
HI: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}


def asked(**fields: Any) -> Request:
    return CHAT.read_request({**HI, **fields})


def sent(profile: Profile = PLAIN, **fields: Any) -> dict[str, Any]:
    return CHAT.write_request(asked(**fields), profile).document


def chunk(delta: Any = None, reason: Any = None, **more: Any) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason}], **more})


def events(*chunks: bytes) -> list[Any]:
    reader = CHAT.stream_reader()
    return [event for each in chunks for event in reader.feed(each)]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi."}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        ({"temperature": "0.5"}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": "2"}, "n"),
        ({"n": 0}, "n"),
        ({"stop": [1]}, "stop"),
        ({"stream": 1}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "lots"}, "reasoning_effort"),
        ({"reasoning": {"max_tokens": "5"}}, "reasoning.max_tokens"),
        ({"logprobs": 2}, "logprobs"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        CHAT.read_request({**HI, **fields})

    assert refused.value.param == param
    assert f"`{param}`" in str(refused.value)


def test_a_file_by_its_id_is_refused() -> None:
    with pytest.raises(NotSupported, match="stored elsewhere"):
        asked(messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}])


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("auto", Choice("auto")),
        ("none", Choice("none")),
        ("required", Choice("required")),
        ("any", Choice("required")),
        ({"type": "function", "function": {"name": "f"}}, Choice("named", "f")),
        ({"type": "function", "name": "f"}, Choice("named", "f")),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, Choice("required")),
        ({"type": "custom", "custom": {"name": "f"}}, None),
    ],
)
def test_choices_of_tools(said: Any, choice: Choice | None) -> None:
    assert asked(tool_choice=said).choice == choice


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"reasoning_effort": "high"}, Thinking("high")),
        ({"reasoning": {"effort": "low", "exclude": True}}, Thinking("low", None, False)),
        ({"reasoning": {"max_tokens": 2000}}, Thinking(None, 2000)),
        ({"reasoning": {"enabled": False}}, Thinking("none")),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Thinking(None, 2048)),
        ({"thinking": {"type": "enabled"}}, Thinking(None, -1)),
        ({"thinking": {"type": "disabled"}}, Thinking("none")),
        ({}, None),
    ],
)
def test_wishes_for_thoughts(fields: dict[str, Any], thinking: Thinking | None) -> None:
    assert asked(**fields).thinking == thinking


@pytest.mark.parametrize(
    ("style", "thinking", "written", "ignored"),
    [
        ("effort", Thinking("low"), {"reasoning_effort": "low"}, ()),
        ("effort", Thinking(None, 0), {"reasoning_effort": "none"}, ("thinking.budget",)),
        ("effort", Thinking(None, 30000), {"reasoning_effort": "high"}, ("thinking.budget",)),
        ("effort", Thinking(None, -1), {}, ("thinking.budget",)),
        ("object", Thinking("low", None, False), {"reasoning": {"effort": "low", "exclude": True}}, ()),
        ("object", Thinking(None, 500), {"reasoning": {"max_tokens": 500}}, ()),
        ("none", Thinking("low"), {}, ("thinking",)),
    ],
)
def test_styles_of_thoughts(style: str, thinking: Thinking, written: Any, ignored: Any) -> None:
    out = CHAT.write_request(replace(asked(), thinking=thinking), Profile(thinking=style))

    assert {key: value for key, value in out.document.items() if "reasoning" in key} == written
    assert out.ignored == ignored


def test_a_profile_is_kept_to() -> None:
    profile = Profile(
        max_tokens="max_completion_tokens",
        developer=True,
        usage=False,
        drop=frozenset(("top_k", "seed", "tool_choice")),
        extra={"safe_prompt": True, "temperature": 0.5},
    )
    request = asked(
        messages=[{"role": "system", "content": "s"}], max_tokens=5, top_k=4, seed=1, temperature=1, stream=True
    )
    written = CHAT.write_request(replace(request, choice=Choice("required")), profile)

    assert written.document == {
        "model": "m",
        "messages": [{"role": "developer", "content": "s"}],
        "stream": True,
        "max_completion_tokens": 5,
        "temperature": 1,
        "safe_prompt": True,
    }
    assert set(written.ignored) == {"top_k", "seed", "choice"}


def test_thoughts_of_earlier_turns_are_kept_from_engines_that_refuse_them() -> None:
    request = replace(asked(), messages=(Message(Role.ASSISTANT, (Thought("Hm."), Text("Yes."))),))
    written = CHAT.write_request(request, Profile(drop=frozenset(("reasoning_content",))))

    assert written.document["messages"] == [{"role": "assistant", "content": "Yes."}]
    assert written.ignored == ("thought",)


def test_pictures_of_tools_follow_in_a_turn_of_the_user() -> None:
    picture = Image("image/png", "AAAA")
    results = tuple(Result(given, (Text("ok"), picture)) for given in ("a", "b"))
    calls = (Call("a", "f"), Call("b", "f"))
    request = replace(asked(), messages=(Message(Role.ASSISTANT, calls), Message(Role.TOOL, results)))
    written = CHAT.write_request(request, PLAIN)

    assert [message["role"] for message in written.document["messages"]] == ["assistant", "tool", "tool", "user"]
    assert [part["type"] for part in written.document["messages"][3]["content"]] == ["image_url", "image_url"]
    assert written.ignored == ()


def test_who_asks_for_usage_gets_it_and_nobody_else() -> None:
    for wanted in (True, False):
        request = asked(stream=True, stream_options={"include_usage": wanted})
        writer = CHAT.stream_writer(request)
        stream = [
            writer.feed(event) for event in (Begun("i", "m"), TextDelta("a"), Ended(Stop.END), Spent(Usage(1, 2)))
        ]
        assert (b'"usage":{' in b"".join(stream) + writer.close()) is wanted
        assert CHAT.write_request(request, PLAIN).document["stream_options"] == {"include_usage": True}
    assert asked(stream=True).usage_wanted is False
    assert asked().usage_wanted is True


def test_the_comment_stands_before_the_end() -> None:
    writer = CHAT.stream_writer(asked())
    writer.feed(Begun("i", "m"))

    assert writer.close(b": corral-receipt {}\n\n").endswith(b"\n\n: corral-receipt {}\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, 5, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 4}, Usage(9, 5, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 4}, Usage(9, 5, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cache_creation_input_tokens": 4}, Usage(9, 5, 0, 4)),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cache_write_tokens": 4}},
            Usage(9, 5, 0, 4),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(9, 5, 0, 0, 3),
        ),
        (  # thoughts counted beside what was written: the total says so
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 17,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(9, 8, 0, 0, 3),
        ),
        ({"prompt_tokens": "9", "completion_tokens": 5.0}, Usage(9, 5)),
        ({"prompt_tokens": -1, "completion_tokens": None}, Usage()),
    ],
)
def test_usage_by_any_name(usage: dict[str, Any], expected: Usage) -> None:
    message = {"role": "assistant", "content": "a"}
    answer = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    meter = CHAT.meter()
    meter.feed(orjson.dumps(answer))

    assert CHAT.read_reply(answer).usage == expected
    assert meter.usage == expected


def test_what_a_local_engine_says_of_its_time() -> None:
    timings = {"cache_n": 2, "prompt_n": 7, "prompt_ms": 250.0, "predicted_n": 3, "predicted_ms": 750.0}
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    expected = Usage(9, 3, 2, seconds=1.0)
    last = chunk({}, "stop", usage=usage, timings=timings)
    meter = CHAT.meter()
    meter.feed(b"data: " + chunk({"content": "a"}) + b"\n\ndata: " + last + b"\n\n")

    assert events(chunk({"content": "a"}), last)[-1] == Spent(expected)
    assert meter.usage == expected
    assert meter.stop == Stop.END


def test_what_a_model_writes_is_not_taken_for_the_engines_words() -> None:
    trap = chunk({"content": '"usage":{"prompt_tokens":7},"finish_reason":"length","error":{"message":"x"}'})
    meter = CHAT.meter()
    meter.feed(b"data: " + trap + b"\n\n")

    assert (meter.usage, meter.stop, meter.failed) == (None, None, None)


def test_calls_in_pieces_of_every_kind() -> None:
    def piece(**call: Any) -> bytes:
        return chunk({"tool_calls": [call]})

    assert events(
        piece(index=0, id="a", function={"name": "f", "arguments": ""}),
        piece(index=1, id="b", function={"name": "g", "arguments": None}),
        piece(index=0, id=None, function={"name": None, "arguments": "{}"}),
        piece(index=1, function={"arguments": '{"x":1}'}),
        chunk({}, "stop"),
    )[1:] == [
        CallBegun(0, "a", "f"),
        CallBegun(1, "b", "g"),
        CallDelta(0, "{}"),
        CallDelta(1, '{"x":1}'),
        Ended(Stop.TOOLS),
    ]


def test_ids_that_an_engine_leaves_out_are_made_and_differ() -> None:
    calls = [{"function": {"name": "f", "arguments": {}}}, {"function": {"name": "f"}, "id": ""}]
    answer = {"id": "x1", "choices": [{"message": {"tool_calls": calls}, "finish_reason": "stop"}]}

    reply = CHAT.read_reply(answer)

    assert reply.parts == (Call("call_x1_0", "f", "{}"), Call("call_x1_1", "f", "{}"))
    assert reply.stop is Stop.TOOLS


@pytest.mark.parametrize(
    ("status", "document", "message", "code"),
    [
        (429, {"error": {"message": "Slow.", "type": "x", "code": "too_fast"}}, "Slow.", "too_fast"),
        (500, {"error": "out of memory"}, "out of memory", None),
        (500, "broken", "broken", None),
        (500, {"message": "broken"}, "broken", None),
        (404, {"detail": "Not Found"}, "Not Found", None),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}, "model: Field required", None),
        (400, [{"error": {"code": 400, "message": "Bad.", "status": "INVALID_ARGUMENT"}}], "Bad.", None),
        (503, None, "The engine answered with HTTP status 503.", None),
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size, try increasing it",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 5000,
                    "n_ctx": 4096,
                }
            },
            "the request exceeds the available context size, try increasing it",
            "context_length_exceeded",
        ),
        (
            400,
            {
                "object": "error",
                "message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
            "context_length_exceeded",
        ),
        (
            400,
            {"error": {"message": "Too long.", "type": "invalid_request_error", "code": "context_length_exceeded"}},
            "Too long.",
            "context_length_exceeded",
        ),
    ],
)
def test_errors_of_every_kind(status: int, document: Any, message: str, code: str | None) -> None:
    fault = CHAT.read_error(status, document)

    assert (fault.message, fault.code) == (message, code)


def test_an_error_within_a_stream() -> None:
    failed = events(chunk({"content": "a"}), b'{"error":{"message":"gone","code":503}}')[-1]

    assert failed == Failed("gone", 503, None)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b"5", b"{}", b'{"choices":5}', b'{"choices":[5]}'])
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        CHAT.stream_reader().feed(data)


def test_only_the_first_choice_is_read() -> None:
    second = orjson.dumps({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]})

    assert gathered(events(chunk({"content": "a"}), second, chunk({}, "stop"))).parts == (Text("a"),)


def test_a_proof_of_thoughts_comes_back_from_the_client() -> None:
    thought = Thought("Hm.", "proof", None)
    call = Call("a", "f", "{}", "seal")
    writer = CHAT.write_reply(gathered_reply(thought, call), asked())
    message = writer["choices"][0]["message"]

    assert asked(messages=[message]).messages[0].parts == (thought, call)


def gathered_reply(*parts: Any) -> Any:
    from corral.dialects.canonical import Reply

    return Reply("i", "m", parts, Stop.TOOLS)


def test_what_is_left_out_is_named_once_and_only_if_asked_for() -> None:
    tool = Tool("f", cache="5m")
    request = Request("m", (), tools=(tool, tool), seed=0, extra={"x": 1}, origin="other", lost=("n",))

    assert unsaid(request, "here", frozenset(("tools",)), ["tool.cache"]) == ("seed", "tool.cache", "x", "n")
    assert unsaid(replace(request, seed=None, lost=()), "other", frozenset(("tools",))) == ()


def test_ten_thousand_tools_cost_ten_times_a_thousand() -> None:
    """Counted in what is written, not timed: one entry each, and nothing said twice."""
    tools = [{"type": "function", "function": {"name": f"f{at}", "odd": 1, "a": 1, "b": 1}} for at in range(10_000)]
    written = CHAT.write_request(asked(tools=tools), PLAIN)

    assert len(written.document["tools"]) == 10_000
    assert written.ignored == ("tools.odd", "tools.a", "tools.b")


def test_a_stream_with_other_line_ends() -> None:
    stream = (
        b"data: " + chunk({"content": "a"}) + b"\r\n\r\ndata: " + chunk({}, "length") + b"\r\n\r\ndata: [DONE]\r\n\r\n"
    )

    assert gathered(read(CHAT, stream)).stop is Stop.LENGTH


def test_a_result_has_the_name_of_its_tool_which_is_said_again_only_where_it_differs() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "a", "content": "1"}
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    request = form("openai.chat").read_request({"model": "m", "messages": said})
    (found,) = request.messages[2].parts
    assert isinstance(found, Result)
    assert found.name == "f"
    for name in ("openai.chat", "openai.responses", "anthropic.messages"):
        assert form(name).write_request(request, PLAIN).ignored == ()
    assert form("openai.chat").write_request(request, PLAIN).document["messages"][2] == result
    assert form("ollama.chat").write_request(request, PLAIN).document["messages"][2]["tool_name"] == "f"

    other = replace(request, messages=(*request.messages[:2], Message(Role.TOOL, (replace(found, name="g"),))))
    assert form("openai.chat").write_request(other, PLAIN).document["messages"][2]["name"] == "g"
    assert form("anthropic.messages").write_request(other, PLAIN).ignored == ("result.name",)
