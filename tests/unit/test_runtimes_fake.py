"""What a fake engine says, composed without a socket."""

import base64
import struct
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from corral.domain.options import parse_options
from corral.errors import InvalidRequest
from corral.runtimes._fake.answers import Answer, RefusedError, embeddings, split
from corral.runtimes.fake import FAULTS, FakeOptions

ASK = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi there, you"}]}
CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}


def answer(body, *, chat=True, **script):
    return Answer.to(body, SimpleNamespace(**asdict(FakeOptions(**script))), "m", 1, chat=chat)


def said(events):
    return "".join(e["choices"][0]["delta"].get("content") or "" for _, e in events if e["choices"])


@pytest.mark.parametrize("text", ["", " ", "one", " one  two\nthree ", "é ü"])
def test_tokens_join_to_the_text(text):
    assert "".join(split(text)) == text


def test_it_echoes_by_default():
    whole = answer(ASK).whole()
    assert whole["choices"][0]["message"]["content"] == "hi there, you"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


@pytest.mark.parametrize(
    ("script", "text"),
    [({"reply": "no"}, "no"), ({"tokens": ("a", "b")}, "ab"), ({"tokens": 2}, "t0 t1 "), ({"tokens": 0}, "")],
)
def test_the_script_decides_what_is_said(script, text):
    made = answer(ASK, **script)
    assert made.whole()["choices"][0]["message"]["content"] == text
    assert said(made.events()) == text


def test_a_limit_cuts_and_says_so():
    for name in ("max_tokens", "max_completion_tokens"):
        whole = answer(ASK | {name: 2}).whole()
        assert whole["choices"][0]["message"]["content"] == "hi there, "
        assert whole["choices"][0]["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] == 2


def test_usage_ends_a_stream_only_when_asked_for():
    plain = [event for _, event in answer(ASK).events()]
    assert all("usage" not in event for event in plain)
    asked = [event for _, event in answer(ASK | {"stream_options": {"include_usage": True}}).events()]
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["total_tokens"] == 6
    assert len(asked) == len(plain) + 1


def test_calls_come_when_tools_are_offered():
    offered = ASK | {"tools": [{}]}
    choice = answer(offered, tool_calls=(CALL,)).whole()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert answer(ASK, tool_calls=(CALL,)).calls == ()
    assert answer(offered | {"tool_choice": "none"}, tool_calls=(CALL,)).calls == ()


def test_a_streamed_call_joins_to_the_whole():
    deltas = [e["choices"][0]["delta"] for _, e in answer(ASK | {"tools": [{}]}, tool_calls=(CALL,)).events()]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["id"] == "call_0"
    assert calls[0]["function"]["name"] == "get_weather"
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Paris"}'


def test_completions_have_their_own_form():
    made = answer({"prompt": ["a", "b"]}, chat=False)
    assert made.whole()["object"] == "text_completion"
    assert made.whole()["choices"][0]["text"] == "a b"
    assert [e["choices"][0]["text"] for _, e in made.events()] == ["a ", "b", ""]


def test_parts_of_a_message_are_joined():
    parts = [{"type": "text", "text": "one "}, {"type": "image_url"}, {"type": "text", "text": "two"}]
    assert answer({"messages": [{"role": "user", "content": parts}]}).tokens == ("one ", "two")
    assert answer({"messages": []}).tokens == ()


@pytest.mark.parametrize("body", [{"messages": "hi"}, {"messages": ["hi"]}])
def test_messages_that_are_none_are_refused(body):
    with pytest.raises(RefusedError) as caught:
        answer(body)
    assert caught.value.status == 400


def test_a_prompt_over_the_context_is_refused():
    with pytest.raises(RefusedError) as caught:
        answer(ASK, context=2)
    assert caught.value.body["error"]["type"] == "exceed_context_size_error"


def test_vectors_are_unit_and_the_same_for_the_same_text():
    made = embeddings({"input": ["a", "b", "a"]}, "m", 5)
    first, second, third = (item["embedding"] for item in made["data"])
    assert first == third != second
    assert sum(value * value for value in first) == pytest.approx(1)
    packed = embeddings({"input": "a", "encoding_format": "base64"}, "m", 5)["data"][0]["embedding"]
    assert struct.unpack("<5f", base64.b64decode(packed)) == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("given", [None, [], [1], ["a", 1], 3])
def test_what_cannot_be_embedded_is_refused(given):
    with pytest.raises(RefusedError):
        embeddings({"input": given}, "m", 5)


@pytest.mark.parametrize("fault", [*FAULTS, "status:429", "status:500"])
def test_every_fault_can_be_asked_for(fault):
    assert parse_options(FakeOptions, {"fault": fault}, "fake").fault == fault


@pytest.mark.parametrize(
    "values",
    [
        {"fault": "status:200"},
        {"fault": "explode"},
        {"delay_ms": -1},
        {"slots": 0},
        {"hold_after": -1},
        {"embed_dimensions": 0},
        {"context": 0},
    ],
)
def test_a_bad_script_is_refused_by_name(values):
    with pytest.raises(InvalidRequest) as caught:
        parse_options(FakeOptions, values, "fake")
    assert caught.value.param == next(iter(values))
