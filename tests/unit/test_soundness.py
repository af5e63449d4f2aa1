"""What is relayed untouched and what is no answer of its form."""

from __future__ import annotations

import json

import pytest

from corral.dialects.form import form
from corral.errors import UpstreamProtocol
from corral.routing.soundness import check_whole, parsed_whole, sound_events, sound_lines

GOOD = b'data: {"a": 1}\n\n'


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        GOOD + b"data: [DONE]\n\n",
        b": a comment\n\n" + GOOD,
        b"event: ping\nid: 7\nretry: 9\ndata: {}\n\n",
        b'data: {"a":\ndata: 1}\n\n',
        b"data: \n\n" + GOOD,
    ],
)
def test_events_pass_as_they_are(data):
    assert sound_events(data) == (data, None)


def test_line_ends_of_windows_are_line_ends():
    assert sound_events(b'data: {"a": 1}\r\n\r\n') == (GOOD, None)


@pytest.mark.parametrize(
    "bad",
    [b'data: {"a": \n\n', b"data: [1]\n\n", b"data: hello\n\n", b"<html></html>\n", b'{"error": "no"}', b"data: 7\n\n"],
)
def test_what_is_no_event_ends_the_stream_there(bad):
    good, error = sound_events(GOOD + bad + GOOD)
    assert good == GOOD
    assert isinstance(error, UpstreamProtocol)
    assert sound_events(bad)[0] == b""


def test_lines_are_told_from_what_is_none():
    assert sound_lines(b'{"a": 1}\n\n{"b": 2}') == (b'{"a": 1}\n\n{"b": 2}', None)
    good, error = sound_lines(b'{"a": 1}\n{"b":\n{"c": 3}\n')
    assert good == b'{"a": 1}\n'
    assert isinstance(error, UpstreamProtocol)


@pytest.mark.parametrize("body", [b"", b"  ", b"<html>", b'{"choices": [', b"[]", b"null", b'"yes"', b"\xff\xfe"])
def test_what_is_no_object_is_no_answer(body):
    with pytest.raises(UpstreamProtocol):
        parsed_whole(body)


def test_of_a_long_answer_the_ends_are_looked_at():
    long = json.dumps({"data": "x" * 20_000}).encode()
    assert parsed_whole(long) is None
    for broken in (long[:-1], long[1:], b"<html>" + long):
        with pytest.raises(UpstreamProtocol):
            parsed_whole(broken)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("openai.chat", {"id": "a", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]}),
        ("openai.embeddings", {"data": [{"embedding": [1.0], "index": 0}]}),
        ("openai.rerank", {"results": []}),
        ("gemini.embed", {"embedding": {"values": [1.0]}}),
        ("ollama.embed", {"embeddings": [[1.0]]}),
    ],
)
def test_an_answer_need_not_say_why_it_ended_but_must_be_one(name, document):
    body = json.dumps(document).encode()
    check_whole(body, document, form(name))
    with pytest.raises(UpstreamProtocol):
        check_whole(b'{"object": "list"}', {"object": "list"}, form(name))
