"""Ollama's forms: what the official library sends is read, and what is written it understands."""

from __future__ import annotations

import json
from base64 import b64encode
from struct import pack
from typing import Any

import ollama
import pytest

from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Choice,
    Embed,
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
    Texts,
    Thinking,
    Thought,
    ThoughtDelta,
    Tool,
    Vectors,
)
from corral.dialects.form import PLAIN, Fault, Kind, Profile, form, native
from corral.dialects.ollama import generates
from corral.domain.money import Usage
from corral.errors import InvalidRequest, ModelNotFound
from tests.support.sdk import answer

CHAT, GENERATE, RAW, EMBED = (form(f"ollama.{name}") for name in ("chat", "generate", "raw", "embed"))
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PNG = "iVBORw0KGgoAAAANSUhEUg=="


def asked(*turns: Message, **fields: Any) -> Request:
    return Request("m", turns or (Message(Role.USER, (Text("hi"),)),), **fields)


def said(request: Request, profile: Profile = PLAIN) -> dict[str, Any]:
    return CHAT.write_request(request, profile).document


def ignored(request: Request, profile: Profile = PLAIN) -> set[str]:
    return set(CHAT.write_request(request, profile).ignored)


def test_what_the_library_sends_is_read() -> None:
    sent = ollama._types.ChatRequest(
        model="m",
        messages=[
            ollama.Message(role="system", content="Be brief."),
            ollama.Message(role="user", content="look", images=[ollama.Image(value=PNG)]),
            ollama.Message(
                role="assistant",
                thinking="hm",
                tool_calls=[
                    ollama.Message.ToolCall(function=ollama.Message.ToolCall.Function(name=name, arguments={"a": 1}))
                    for name in ("f", "g", "f")
                ],
            ),
            ollama.Message(role="tool", tool_name="g", content="of g"),
            ollama.Message(role="tool", tool_name="f", content="of f"),
            ollama.Message(role="tool", tool_name="f", content="of f too"),
        ],
        tools=[ollama.Tool(function=ollama.Tool.Function(name="f", description="d"))],
        stream=True,
        think="high",
        keep_alive="10m",
        format={"type": "object"},
        options=ollama.Options(num_ctx=8192, num_predict=5, temperature=0.5, stop=["x"], mirostat=1),
        logprobs=True,
        top_logprobs=2,
    ).model_dump(exclude_none=True)
    request = CHAT.read_request(sent)
    assert request.messages[1].parts == (Text("look"), Image("image/png", PNG))
    assert request.messages[2].parts == (
        Thought("hm"),
        Call("call_0", "f", '{"a":1}'),
        Call("call_1", "g", '{"a":1}'),
        Call("call_2", "f", '{"a":1}'),
    )
    results = [message.parts[0] for message in request.messages[3:]]
    assert [(result.id, result.name) for result in results] == [("call_1", "g"), ("call_0", "f"), ("call_2", "f")]
    assert request.extra == {"keep_alive": "10m", "num_ctx": 8192, "options.mirostat": 1}
    assert (request.max_tokens, request.temperature, request.stop) == (5, 0.5, ("x",))
    assert (request.thinking, request.format) == (Thinking("high"), Format("schema", {"type": "object"}))
    assert (request.stream, request.logprobs, request.top_logprobs) == (True, True, 2)
    assert CHAT.write_request(request, PLAIN).ignored == ()
    again = CHAT.write_request(request, PLAIN).document
    assert (again["options"], again["keep_alive"]) == (sent["options"], "10m")


def test_a_stream_is_meant_unless_it_is_declined() -> None:
    assert CHAT.read_request(HELLO).stream
    assert not CHAT.read_request({**HELLO, "stream": False}).stream
    assert said(asked())["stream"] is False


@pytest.mark.parametrize(
    ("think", "thinking"),
    [(True, Thinking(budget=-1)), (False, Thinking("none")), ("low", Thinking("low")), (None, None)],
)
def test_whether_it_thinks(think: Any, thinking: Thinking | None) -> None:
    request = CHAT.read_request({**HELLO, "think": think})
    assert request.thinking == thinking
    assert said(request).get("think") == think


def test_a_bound_below_zero_is_none_and_not_lost() -> None:
    request = CHAT.read_request({**HELLO, "options": {"num_predict": -1, "top_k": 4.0}})
    assert (request.max_tokens, request.top_k) == (None, 4)
    assert said(request)["options"] == {"num_predict": -1, "top_k": 4}


def test_what_cannot_be_said_is_reported() -> None:
    parts = (Text("a", "5m"), Image(url="https://a/b.png"), File("application/pdf", "aGk="))
    call = Message(Role.ASSISTANT, (Thought("t", "signed"), Call("a", "f", "nonsense", "s")), name="bob")
    result = Message(Role.TOOL, (Result("a", error=True),))
    request = asked(
        Message(Role.USER, parts),
        call,
        result,
        tools=(Tool("f", strict=True, cache="5m"),),
        choice=Choice("required"),
        parallel=False,
        user="u",
        thinking=Thinking(budget=2000, shown=False),
        format=Format("schema", {}, "n", True, "d"),
    )
    expected = "text.cache image file message.name thought.signature call.signature result.error tool.strict tool.cache"
    wishes = "choice parallel user thinking.budget thinking.shown format.name format.strict format.description"
    assert ignored(request) == {*expected.split(), *wishes.split()}
    assert said(request)["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"arguments": "nonsense"}


def test_no_tool_is_called_when_none_may_be() -> None:
    request = asked(tools=(Tool("f"),), choice=Choice("none"))
    assert "tools" not in said(request)
    assert ignored(request) == {"choice", "tools"}


def test_what_a_profile_says() -> None:
    request = asked(thinking=Thinking("low"), seed=1)
    assert "think" not in said(request, Profile(thinking="none"))
    assert ignored(request, Profile(thinking="none")) == {"thinking"}
    assert said(request, Profile(extra={"keep_alive": -1}))["keep_alive"] == -1


def test_which_form_a_body_for_generate_is() -> None:
    assert generates({"prompt": "a"}) == "ollama.generate"
    assert generates({"prompt": "a", "raw": False, "suffix": ""}) == "ollama.generate"
    assert generates({"prompt": "a", "raw": True}) == generates({"prompt": "a", "suffix": "b"}) == "ollama.raw"
    assert native("ollama", Kind.TEXT) == "ollama.raw"


def test_a_prompt_is_a_conversation_of_one_turn() -> None:
    body = {"model": "m", "prompt": "look", "system": "Be brief.", "images": [PNG], "template": "t", "context": [1]}
    request = GENERATE.read_request(body)
    assert request.messages == (
        Message(Role.SYSTEM, (Text("Be brief."),)),
        Message(Role.USER, (Text("look"), Image("image/png", PNG))),
    )
    assert request.extra == {"template": "t", "context": [1]}
    written = GENERATE.write_request(request, PLAIN)
    assert (written.path, written.document, written.ignored) == ("/api/generate", body | {"stream": True}, ())


def test_a_raw_prompt_is_a_text() -> None:
    request = RAW.read_request({"model": "m", "prompt": "a", "suffix": "b", "system": "s", "options": {"seed": 1}})
    assert request == Texts("a", request.like, "b")
    assert (request.like.seed, request.like.extra) == (1, {"system": "s"})


def test_vectors_are_asked_for_in_two_shapes() -> None:
    newer = EMBED.read_request({"model": "m", "input": "a", "options": {"num_ctx": 5}, "keep_alive": 0})
    assert (newer.inputs, newer.extra) == (("a",), {"num_ctx": 5, "keep_alive": 0})
    older = EMBED.read_request({"model": "m", "prompt": "a"})
    vectors = Vectors("m", (b64encode(pack("<2f", 0.5, -1.0)).decode(),), Usage(3))
    found = answer(ollama.EmbedResponse, EMBED.write_reply(vectors, newer))
    assert (found.embeddings, found.prompt_eval_count) == ([[0.5, -1.0]], 3)
    assert EMBED.write_reply(vectors, older) == {"embedding": [0.5, -1.0]}
    assert EMBED.write_request(older, PLAIN).document == {"model": "m", "input": ["a"]}
    with pytest.raises(InvalidRequest):
        EMBED.write_request(Embed("m", ((1, 2),)), PLAIN)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 1}]}, "content"),
        ({"messages": [{"role": "user", "images": [1]}]}, "images"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
        ({"tools": [{"function": {}}]}, "tools"),
        ({"options": []}, "options"),
        ({"options": {"temperature": "1"}}, "options.temperature"),
        ({"options": {"num_ctx": "1"}}, "options.num_ctx"),
        ({"options": {"top_k": 1.5}}, "options.top_k"),
        ({"options": {"stop": 1}}, "options.stop"),
        ({"format": 1}, "format"),
        ({"think": 1}, "think"),
        ({"stream": "no"}, "stream"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        CHAT.read_request({**HELLO, **fields})
    assert caught.value.param == param


def test_an_answer_is_what_the_library_expects() -> None:
    parts = (Thought("hm"), Text("hi"), Call("c", "f", '{"a":1}'))
    reply = Reply("", "m", parts, Stop.TOOLS, usage=Usage(5, 2, seconds=0.5), created=1_760_000_000)
    found = ollama.ChatResponse.model_validate(CHAT.write_reply(reply, asked()))
    assert (found.message.content, found.message.thinking) == ("hi", "hm")
    assert found.message.tool_calls is not None
    assert found.message.tool_calls[0].function.arguments == {"a": 1}
    assert (found.done, found.done_reason, found.prompt_eval_count, found.eval_count) == (True, "stop", 5, 2)
    assert (found.created_at, found.eval_duration) == ("2025-10-09T08:53:20Z", 500_000_000)
    assert CHAT.read_reply(CHAT.write_reply(reply, asked())) == reply


EVENTS = [
    Begun("", "m", None, 1_760_000_000),
    ThoughtDelta("let "),
    ThoughtDelta("me"),
    TextDelta("Hel"),
    TextDelta('lo "\n\u2028', [{"token": "lo", "logprob": -0.5}]),
    CallBegun(0, "a", "f"),
    CallDelta(0, '{"x":1}'),
    CallBegun(1, "b", "g"),
    CallDelta(1, "{}"),
    TextDelta("!"),
    Spent(Usage(7, 9)),
    Ended(Stop.TOOLS),
]


def test_a_stream_is_what_the_library_expects_and_comes_back() -> None:
    writer = CHAT.stream_writer(asked())
    stream = b"".join(writer.feed(event) for event in EVENTS) + writer.close(b": never seen\n\n")
    lines = stream.splitlines()
    for line in lines:
        ollama.ChatResponse.model_validate(json.loads(line))
    assert [json.loads(line)["done"] for line in lines] == [False] * 7 + [True]
    reader = CHAT.stream_reader()
    assert [event for line in lines for event in reader.feed(line)] == EVENTS


def test_a_call_is_told_when_it_is_whole() -> None:
    writer = CHAT.stream_writer(asked())
    assert writer.feed(CallBegun(0, "a", "f")) == writer.feed(CallDelta(0, '{"x":')) == b""
    writer.feed(CallDelta(0, "1}"))
    (call,) = json.loads(writer.feed(Ended(Stop.TOOLS)))["message"]["tool_calls"]
    assert call == {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}


def test_a_stream_that_breaks_says_so() -> None:
    writer = CHAT.stream_writer(asked())
    assert writer.fail(ModelNotFound("No such model.", "Pull it.")) == b'{"error":"No such model. Pull it."}\n'
    assert writer.feed(Failed("x")) == b'{"error":"x"}\n'
    assert CHAT.stream_reader().feed(b'{"error":"out"}') == (Failed("out"),)
    for bad in (b"[]", b"{", b'{"done":true}', b'{"message":{"content":1}}'):
        with pytest.raises(ValueError, match=r"lacks|object|EOF|unexpected"):
            CHAT.stream_reader().feed(bad)


def test_errors_are_one_text() -> None:
    assert CHAT.write_error(ModelNotFound("No.", "Pull it.")) == {"error": "No. Pull it."}
    assert CHAT.write_fault(Fault("no"), 400) == {"error": "no"}
    assert (
        CHAT.read_error(400, {"error": "the input length exceeds the context length"}).code == "context_length_exceeded"
    )
    assert CHAT.read_error(500, {"error": {"message": "m"}}) == Fault("m")
    assert CHAT.read_error(500, None) == Fault("an error with the status 500")


def test_the_meter_finds_what_passes() -> None:
    writer, meter = CHAT.stream_writer(asked()), CHAT.meter()
    for event in EVENTS:
        meter.feed(writer.feed(event))
    meter.feed(writer.close())
    assert (meter.usage, meter.stop, meter.failed) == (Usage(7, 9), "tools", None)
    whole = CHAT.meter()
    call = Call("a", "f", '{"error":"mine","done_reason":"x"}')
    whole.feed(json.dumps(CHAT.write_reply(Reply(parts=(call,), usage=Usage(1, 2)), asked())).encode())
    assert (whole.usage, whole.stop, whole.failed) == (Usage(1, 2), "tools", None)
    broken = CHAT.meter()
    broken.feed(b'{"message":{}}\n{"error":"out of memory"}\n')
    assert (broken.usage, broken.stop, broken.failed) == (None, None, Fault("out of memory"))
