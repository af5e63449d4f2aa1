"""OpenAI's responses: the order of the events, what only OpenAI can do, and the meter of relayed bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Ended,
    Failed,
    Image,
    Message,
    Reply,
    Result,
    Role,
    Spent,
    Stop,
    Text,
    TextDelta,
    Thinking,
    Thought,
    ThoughtDelta,
)
from corral.dialects.form import PLAIN, Profile, form
from corral.domain.money import Usage
from corral.errors import InvalidRequest, NotSupported, RateLimited
from tests.support.dialects import gathered, read

RESPONSES = form("openai.responses")
HI: dict[str, Any] = {"model": "m", "input": "Hi.", "stream": True}
EVENT: Any = TypeAdapter(ResponseStreamEvent)


def told(*events: Any, **fields: Any) -> list[Any]:
    """The events that a client is sent, each checked, with its name in the line before."""
    writer = RESPONSES.stream_writer(RESPONSES.read_request({**HI, **fields}))
    stream = b"".join([*(writer.feed(event) for event in events), writer.close()])
    found = []
    for event in stream.split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        document = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + document["type"].encode()
        found.append(EVENT.validate_python(document))
    assert [event.sequence_number for event in found] == list(range(len(found)))
    return found


def test_the_order_of_the_events() -> None:
    found = told(
        Begun("resp_1", "m"),
        ThoughtDelta("Hm."),
        ThoughtDelta(hidden="gAAA"),
        TextDelta("A"),
        TextDelta("h."),
        CallBegun(0, "call_1", "f"),
        CallDelta(0, '{"x":'),
        CallBegun(1, "call_2", "g"),
        CallDelta(0, "1}"),
        CallDelta(1, "{}"),
        Ended(Stop.TOOLS),
        Spent(Usage(5, 7, 2, 0, 3)),
    )

    assert [event.type.removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    last = found[-1].response
    assert [(item.type, item.id) for item in last.output] == [
        ("reasoning", "rs_1_0"),
        ("message", "msg_1_1"),
        ("function_call", "fc_1_2"),
        ("function_call", "fc_1_3"),
    ]
    assert last.output[0].encrypted_content == "gAAA"
    assert last.output_text == "Ah."
    assert [item.arguments for item in last.output[2:]] == ['{"x":1}', "{}"]
    assert (last.usage.total_tokens, last.usage.output_tokens_details.reasoning_tokens) == (12, 3)


@pytest.mark.parametrize(
    ("stop", "kind", "reason"),
    [
        (Stop.END, "response.completed", None),
        (Stop.SEQUENCE, "response.completed", None),
        (Stop.LENGTH, "response.incomplete", "max_output_tokens"),
        (Stop.FILTER, "response.incomplete", "content_filter"),
    ],
)
def test_how_a_response_ends(stop: Stop, kind: str, reason: str | None) -> None:
    last = told(Begun("resp_1", "m"), TextDelta("a"), Ended(stop))[-1]

    assert last.type == kind
    assert (last.response.incomplete_details and last.response.incomplete_details.reason) == reason


def test_a_stream_that_fails_says_so_as_an_event_and_as_the_state_of_the_response() -> None:
    found = told(Begun("resp_1", "m"), TextDelta("a"), Failed("gone", 500, "server_error"))

    assert [event.type for event in found[-2:]] == ["error", "response.failed"]
    assert found[-1].response.error.message == "gone"
    writer = RESPONSES.stream_writer(RESPONSES.read_request(HI))
    assert b'"code":"rate_limit_exceeded"' in writer.fail(RateLimited("Too many.", retry_after=1))


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt", "background"])
def test_what_only_openai_keeps_is_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(NotSupported) as refused:
        RESPONSES.read_request({**HI, name: "x"})

    assert refused.value.param == name
    assert refused.value.hint


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "web_search_call"}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
        ({"instructions": 5}, "instructions"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "lots"}}, "reasoning.effort"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"include": "x"}, "include"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        RESPONSES.read_request({**HI, **fields})

    assert refused.value.param == param


def test_what_the_model_did_in_one_turn_is_one_message() -> None:
    items = [
        {"role": "user", "content": "Hi."},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "b", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {
            "type": "custom_tool_call_output",
            "call_id": "b",
            "output": [{"type": "input_image", "image_url": "https://pictures.test/a.png"}],
        },
    ]
    messages = RESPONSES.read_request({**HI, "input": items}).messages

    assert [message.role for message in messages] == [Role.USER, Role.ASSISTANT, Role.TOOL]
    assert [type(part).__name__ for part in messages[1].parts] == ["Thought", "Text", "Call", "Call"]
    assert messages[1].parts[3].arguments == '{"input":"x"}'
    assert messages[2].parts[1] == Result("b", (Image(url="https://pictures.test/a.png"),), "g")


def test_thoughts_that_a_vendor_could_not_look_up_are_not_sent_to_it() -> None:
    turn = Message(Role.ASSISTANT, (Thought("Hm."), Thought("Oh.", None, "gAAA"), Text("Yes.")))
    request = replace(RESPONSES.read_request(HI), messages=(turn,), thinking=Thinking(None, 9000, False))
    written = RESPONSES.write_request(request, Profile(drop=frozenset(("reasoning_content",))))

    assert [item["type"] for item in written.document["input"]] == ["reasoning", "message"]
    assert written.document["reasoning"] == {"effort": "medium"}
    assert written.ignored == ("thought", "thinking.budget", "thinking.shown")
    assert RESPONSES.write_request(request, PLAIN).document["store"] is False


@pytest.mark.parametrize(
    ("events", "stop"),
    [
        ([TextDelta("a"), Ended(Stop.END)], Stop.END),
        ([TextDelta("a"), Ended(Stop.LENGTH)], Stop.LENGTH),
        ([TextDelta("a"), Ended(Stop.FILTER)], Stop.FILTER),
        ([CallBegun(0, "a", "f"), CallDelta(0, "{}"), Ended(Stop.TOOLS)], Stop.TOOLS),
    ],
)
def test_the_meter_of_a_relayed_stream(events: list[Any], stop: Stop) -> None:
    writer, meter = RESPONSES.stream_writer(RESPONSES.read_request(HI)), RESPONSES.meter()
    pieces = [writer.feed(event) for event in (Begun("r", "m"), *events, Spent(Usage(5, 7, 2, 0, 3)))]
    for piece in (*pieces, writer.close()):
        meter.feed(piece)

    assert meter.usage == Usage(5, 7, 2, 0, 3)
    assert meter.stop == stop
    assert meter.failed is None


def test_an_engine_that_sends_items_only_when_they_are_whole() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "f", "arguments": '{"x":1}'}
    stream = b"".join(
        b"data: " + orjson.dumps(event) + b"\n\n"
        for event in (
            {"type": "response.created", "response": {"id": "r", "model": "m"}},
            {"type": "response.output_text.done", "output_index": 0, "text": "Hm."},
            {"type": "response.output_item.done", "item": item},
            {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}},
        )
    )
    reply = gathered(read(RESPONSES, stream))

    assert [type(part).__name__ for part in reply.parts] == ["Text", "Call"]
    assert reply.stop is Stop.TOOLS


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"type":"response.completed"}', b'{"type":5}'])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        RESPONSES.stream_reader().feed(data)


PATCH = "*** Begin Patch\n*** End Patch"
EDITS: dict[str, Any] = {
    **HI,
    "tools": [
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/s"},
        },
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}},
    ],
    "tool_choice": {"type": "custom", "name": "apply_patch"},
}


def test_a_tool_that_takes_text_is_a_function_to_others_and_gets_its_text() -> None:
    request = RESPONSES.read_request(EDITS)
    written = form("openai.chat").write_request(request, PLAIN)
    function = written.document["tools"][0]["function"]

    assert written.ignored == ("tools.format",)
    assert written.document["tool_choice"]["function"]["name"] == "apply_patch"
    assert (function["name"], list(function["parameters"]["properties"])) == ("apply_patch", ["input"])
    assert function["description"].startswith("Edits files.")
    assert "start: /.+/s" in function["description"]

    calls = (Call("a", "apply_patch", orjson.dumps({"input": PATCH}).decode()), Call("b", "f", "{}"))
    said = RESPONSES.write_reply(Reply("r", "m", calls, Stop.TOOLS), request)
    Response.model_validate(said)
    assert [(item["type"], item.get("input")) for item in said["output"]] == [
        ("custom_tool_call", PATCH),
        ("function_call", None),
    ]
    back = RESPONSES.read_request({**EDITS, "input": said["output"]})
    assert back.messages[0].parts[0] == replace(calls[0], arguments=orjson.dumps({"input": PATCH}).decode())


@pytest.mark.parametrize(
    ("arguments", "text"), [('{"input":"x"}', "x"), ("{}", ""), ("x", "x"), ('{"patch":"x"}', '{"patch":"x"}')]
)
def test_the_text_for_a_tool_is_streamed_when_it_is_whole(arguments: str, text: str) -> None:
    writer = RESPONSES.stream_writer(RESPONSES.read_request(EDITS))
    events = (Begun("r"), CallBegun(0, "a", "apply_patch"), *(CallDelta(0, piece) for piece in arguments))
    data = b"".join(writer.feed(event) for event in events) + writer.feed(Ended(Stop.TOOLS)) + writer.close()
    sent = [orjson.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: ")]
    for event in sent:
        EVENT.validate_python(event)
    kinds = [event["type"] for event in sent]

    assert "response.function_call_arguments.delta" not in kinds
    assert [event["input"] for event in sent if event["type"] == "response.custom_tool_call_input.done"] == [text]
    assert sent[-1]["response"]["output"] == [
        {"id": "ctc_r_0", "type": "custom_tool_call", "call_id": "a", "name": "apply_patch", "input": text}
    ]
