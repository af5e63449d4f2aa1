"""Gemini's dialect beyond what every form promises: schemas, counts, ids, errors, and what only it knows."""

from __future__ import annotations

import orjson
import pytest
from google.genai import types

from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Ended,
    Message,
    Reply,
    Request,
    Role,
    Spent,
    Stop,
    Text,
    TextDelta,
    Thinking,
    Tool,
)
from corral.dialects.form import PLAIN, Fault, Profile, form
from corral.dialects.gemini import read_count, read_count_reply, write_count_reply, write_count_request
from corral.domain.money import Usage
from corral.errors import ContextOverflow, InvalidRequest, NotSupported, RateLimited

GENERATE = form("gemini.generate")
ASKED = Request("gemini-2.5-pro", (Message(Role.USER, (Text("Hi"),)),))
OPENAPI = Profile(drop=frozenset({"parametersJsonSchema", "responseJsonSchema"}))


def declared(schema, profile=OPENAPI):
    request = Request("m", ASKED.messages, tools=(Tool("look", parameters=schema),))
    written = GENERATE.write_request(request, profile)
    return written.document["tools"][0]["functionDeclarations"][0], written.ignored


def test_a_json_schema_becomes_one_of_geminis():
    found, ignored = declared(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
            "properties": {
                "where": {"$ref": "#/$defs/place", "description": "whereabouts"},
                "unit": {"enum": ["C", "F", None]},
                "kind": {"const": "now"},
                "days": {"type": ["integer", "null"], "minimum": 1},
                "all": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            },
            "required": ["where"],
            "additionalProperties": False,
        }
    )
    assert ignored == ()
    types.Schema.model_validate_json(orjson.dumps(found["parameters"]))
    assert found["parameters"] == {
        "type": "OBJECT",
        "properties": {
            "where": {
                "type": "OBJECT",
                "properties": {"city": {"type": "STRING"}},
                "required": ["city"],
                "description": "whereabouts",
            },
            "unit": {"nullable": True, "enum": ["C", "F"], "type": "STRING"},
            "kind": {"enum": ["now"], "type": "STRING"},
            "days": {"nullable": True, "type": "INTEGER", "minimum": 1},
            "all": {"type": "ARRAY", "items": {"nullable": True, "type": "STRING"}},
        },
        "propertyOrdering": ["where", "unit", "kind", "days", "all"],
        "required": ["where"],
    }


@pytest.mark.parametrize(
    "part", [{"enum": [1, 2]}, {"not": {}}, {"format": "email"}, {"additionalProperties": {"type": "string"}}, False]
)
def test_a_schema_that_gemini_cannot_say_is_named(part):
    _, ignored = declared({"type": "object", "properties": {"a": part}})
    assert ignored == ("tool.parameters",)


def test_a_schema_that_refers_to_itself_comes_to_an_end():
    found, ignored = declared(
        {
            "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}},
            "properties": {"tree": {"$ref": "#/$defs/tree"}},
        }
    )
    assert found["parameters"]["properties"]["tree"]["properties"]["left"] == {"type": "OBJECT"}
    assert ignored == ("tool.parameters",)


def test_calls_without_ids_get_other_ones_in_each_answer():
    def ids(response):
        called = [{"functionCall": {"name": "look", "args": {}}}, {"functionCall": {"name": "look"}}]
        document = {"candidates": [{"content": {"parts": called}, "finishReason": "STOP"}], "responseId": response}
        reply = GENERATE.read_reply(document)
        events = GENERATE.stream_reader().feed(orjson.dumps(document))
        found = [part.id for part in reply.parts]
        assert reply.stop is Stop.TOOLS
        assert [event.id for event in events if isinstance(event, CallBegun)] == found
        return found

    assert ids("a") == ["call_a_0", "call_a_1"]
    assert ids("b") == ["call_b_0", "call_b_1"]


def test_results_find_their_calls_by_name_in_the_order_of_the_calls():
    def call(name, **more):
        return {"functionCall": {"name": name, "args": {}, **more}}

    def result(name, **more):
        return {"functionResponse": {"name": name, "response": {"output": name}, **more}}

    request = GENERATE.read_request(
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Go"}]},
                {"role": "model", "parts": [call("a"), call("b", id="given"), call("a")]},
                {"role": "user", "parts": [result("a"), result("b", id="given"), result("a")]},
            ]
        }
    )
    assert [part.id for part in request.messages[1].parts] == ["call_0", "given", "call_2"]
    assert [part.id for part in request.messages[2].parts] == ["call_0", "given", "call_2"]


def test_usage_counts_thoughts_and_the_prompts_of_tools():
    usage = GENERATE.read_reply(
        {
            "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
            "usageMetadata": {
                "promptTokenCount": 100,
                "toolUsePromptTokenCount": 10,
                "cachedContentTokenCount": 60,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "promptTokensDetails": [
                    {"modality": "AUDIO", "tokenCount": 50},
                    {"modality": "TEXT", "tokenCount": 50},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}],
            },
        }
    ).usage
    assert usage == Usage(110, 12, cached=60, reasoning=7, audio_input=30)


def test_a_call_that_is_none_is_said_to_be_malformed_and_never_passed_on():
    reply = Reply("r", "m", (Text("Hm."), Call("c", "look", '{"a": ')), Stop.TOOLS)
    candidate = GENERATE.write_reply(reply, ASKED)["candidates"][0]
    assert candidate["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert '{"a": ' in candidate["finishMessage"]
    assert candidate["content"]["parts"] == [{"text": "Hm."}]
    assert GENERATE.read_reply({"candidates": [candidate]}).stop is Stop.ERROR


def test_a_stream_says_its_reason_and_its_usage_last_and_has_no_comments():
    writer = GENERATE.stream_writer(ASKED)
    events = (
        Begun("r", "m"),
        TextDelta("Hi"),
        CallBegun(0, "c0", "a"),
        CallBegun(1, "c1", "b"),
        CallDelta(0, '{"x":'),
        CallDelta(1, "{}"),
        CallDelta(0, "1}"),
        Ended(Stop.TOOLS),
        Spent(Usage(3, 4)),
    )
    said = [piece for event in events if (piece := writer.feed(event))]
    last = writer.close(b": corral-receipt {}\n\n")

    assert len(said) == 1
    chunk = types.GenerateContentResponse.model_validate_json(said[0].removeprefix(b"data: "))
    assert chunk.candidates[0].finish_reason is None
    assert last.startswith(b"data: ")
    assert b"corral-receipt" not in last
    end = types.GenerateContentResponse.model_validate_json(last.removeprefix(b"data: "))
    assert [(call.name, call.args) for call in end.function_calls] == [("a", {"x": 1}), ("b", {})]
    assert end.usage_metadata.total_token_count == 7
    assert writer.close() == b""


SHOWN = {"includeThoughts": True}
"""Other dialects tell thoughts without being asked to."""


@pytest.mark.parametrize(
    ("thinking", "profile", "expected", "ignored"),
    [
        (Thinking("high"), Profile(thinking="budget"), {"thinkingBudget": 24576, **SHOWN}, ()),
        (Thinking("none"), Profile(thinking="budget", thinking_range=(128, 9)), {"thinkingBudget": 9}, ("thinking",)),
        (
            Thinking(budget=64),
            Profile(thinking="budget", thinking_range=(128, 999)),
            {"thinkingBudget": 128, **SHOWN},
            0,
        ),
        (
            Thinking(budget=-1),
            Profile(thinking="budget", thinking_range=(128, 999)),
            {"thinkingBudget": -1, **SHOWN},
            (),
        ),
        (Thinking(budget=9000), Profile(thinking="level"), {"thinkingLevel": "HIGH", **SHOWN}, ("thinking.budget",)),
        (Thinking("none"), Profile(thinking="level"), {"thinkingLevel": "MINIMAL"}, ("thinking",)),
        (Thinking("low"), Profile(thinking="none"), None, ("thinking",)),
        (Thinking("none"), Profile(thinking="none"), None, ()),
        (Thinking("low", shown=False), PLAIN, {"includeThoughts": False, "thinkingLevel": "LOW"}, ()),
        (Thinking("low", shown=True), PLAIN, {"includeThoughts": True, "thinkingLevel": "LOW"}, ()),
    ],
)
def test_wishes_for_thoughts_are_said_as_the_model_takes_them(thinking, profile, expected, ignored):
    written = GENERATE.write_request(Request("m", ASKED.messages, thinking=thinking), profile)
    assert written.document.get("generationConfig", {}).get("thinkingConfig") == expected
    assert written.ignored == (ignored or (("thinking",) if ignored == 0 else ()))


def test_a_request_of_its_own_that_does_not_ask_to_see_thoughts_does_not_get_them():
    own = GENERATE.read_request(
        {
            "model": "m",
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "generationConfig": {"thinkingConfig": {"thinkingBudget": 500}},
        }
    )
    config = GENERATE.write_request(own, Profile(thinking="budget")).document["generationConfig"]
    assert config == {"thinkingConfig": {"thinkingBudget": 500}}


def test_pictures_in_the_alphabet_of_addresses_are_written_in_that_of_other_vendors():
    part = {"inlineData": {"mimeType": "image/png", "data": "-_-_"}}
    own = GENERATE.read_request({"model": "m", "contents": [{"role": "user", "parts": [part]}]})
    assert own.messages[0].parts[0].data == "+/+/"


def test_what_the_profile_adds_gives_way_to_the_request():
    extra = {"safetySettings": [{"category": "c", "threshold": "t"}], "maxOutputTokens": 5, "googleSearch": {}}
    written = GENERATE.write_request(ASKED, Profile(extra=extra)).document
    assert written["safetySettings"] == extra["safetySettings"]
    assert written["generationConfig"] == {"maxOutputTokens": 5}
    assert written["tools"] == [{"googleSearch": {}}]
    said = Request("m", ASKED.messages, max_tokens=9)
    assert GENERATE.write_request(said, Profile(extra=extra)).document["generationConfig"] == {"maxOutputTokens": 9}


def test_errors_carry_when_to_come_back_and_what_was_wrong():
    limited = GENERATE.write_error(RateLimited("Slow down.", param="model", retry_after=2.5))
    assert limited["error"]["code"] == 429
    assert limited["error"]["status"] == "RESOURCE_EXHAUSTED"
    fault = GENERATE.read_error(429, limited)
    assert fault == Fault("Slow down.", "RESOURCE_EXHAUSTED", "RATE_LIMITED", "model", 2.5)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_prompt_that_is_too_long_is_recognised(wrapped):
    message = "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."
    document = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    fault = GENERATE.read_error(400, [document] if wrapped else document)
    assert (fault.code, fault.kind, fault.message) == (ContextOverflow.code, "INVALID_ARGUMENT", message)


def test_a_count_is_of_contents_or_of_a_whole_request():
    alone = read_count({"contents": [{"parts": [{"text": "Hi"}]}], "model": "m"})
    whole = read_count({"model": "m", "generateContentRequest": {"contents": [{"parts": [{"text": "Hi"}]}]}})
    assert alone == whole
    asked = write_count_request(alone, PLAIN)
    assert asked.path == "/models/m:countTokens"
    assert asked.document["generateContentRequest"]["model"] == "models/m"
    assert read_count_reply(write_count_reply(7)) == 7
    with pytest.raises(InvalidRequest, match="contents"):
        read_count({"generateContentRequest": {}})


def test_only_the_system_speaks_and_is_heard():
    alone = GENERATE.write_request(Request("m", (Message(Role.SYSTEM, (Text("Say hi."),)),)), PLAIN)
    assert alone.document == {"contents": [{"role": "user", "parts": [{"text": "Say hi."}]}]}


def test_what_only_gemini_has_parts_for_becomes_words():
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"inlineData": {"mimeType": "image/png", "data": "aWNvbg=="}},
    ]
    reply = GENERATE.read_reply({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    said = "".join(part.text for part in reply.parts)
    assert "print(1)" in said
    assert "data:image/png;base64,aWNvbg==" in said
    request = GENERATE.read_request({"contents": [{"role": "model", "parts": parts[:1]}]})
    assert GENERATE.write_request(request, PLAIN).ignored == ("part.executableCode",)


def test_texts_of_one_call_are_embedded_alike_and_tokens_not_at_all():
    batch = form("gemini.batch")
    with pytest.raises(NotSupported, match="different ways"):
        batch.read_request(
            {
                "requests": [
                    {"content": {"parts": [{"text": "a"}]}, "taskType": "CLUSTERING"},
                    {"content": {"parts": [{"text": "b"}]}},
                ]
            }
        )
    asked = batch.read_request({"requests": [{"content": {"parts": [{"text": "a"}]}, "model": "models/e"}]})
    assert asked.model == "e"
    with pytest.raises(NotSupported, match="tokens"):
        batch.write_request(type(asked)("e", ((1, 2),)), PLAIN)


def test_a_blocked_prompt_is_seen_as_the_bytes_pass():
    meter = GENERATE.meter()
    meter.feed(b'data: {"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":3}}\r\n\r\n')
    assert (meter.stop, meter.usage) == (Stop.FILTER, Usage(3))
