"""Event boundaries, the reader and the meter: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.kit.sse import Meter, Reader, Splitter, events

STREAM = b'data: {"a":1}\n\n: note\n\ndata: x\r\ndata: y\r\n\r\nid: 7\rdata: z\r\rdata: [DONE]\n\n'
DATA = ['{"a":1}', "x\ny", "z", "[DONE]"]


def test_events_are_their_data_lines():
    assert list(events(STREAM)) == DATA
    assert list(events(b"data\ndata:\n\nevent: ping\n\ndata: half")) == ["\n"]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_wherever_a_stream_is_cut_whole_events_come_out(cut):
    splitter = Splitter()
    first, second = splitter.feed(STREAM[:cut]), splitter.feed(STREAM[cut:])
    assert first + second + splitter.flush() == STREAM
    assert list(events(first)) + list(events(second)) == DATA
    assert not splitter.torn


@given(st.lists(st.integers(1, 9)))
def test_any_pieces_give_the_same_events(sizes):
    reader, at, got = Reader(), 0, []
    for size in sizes:
        got += reader.feed(STREAM[at : at + size])
        at += size
    got += reader.feed(STREAM[at:])
    assert got == DATA


def test_a_chunk_that_ends_at_a_boundary_is_not_copied():
    chunk = b"data: 1\n\ndata: 2\n\n"
    assert Splitter().feed(chunk) is chunk


def test_what_follows_the_last_boundary_is_held_back_and_can_be_flushed():
    splitter = Splitter()
    assert splitter.feed(b"data: 1\n\ndata: ha") == b"data: 1\n\n"
    assert splitter.feed(b"lf\n") == b""
    assert splitter.flush() == b"data: half\n"
    assert splitter.flush() == b""


def test_an_event_over_the_limit_is_passed_on_torn_until_it_ends():
    splitter = Splitter(limit=10)
    assert splitter.feed(b"data: 0123456789") == b"data: 0123456789"
    assert splitter.torn
    assert splitter.feed(b"\n\n") == b"\n\n"
    assert not splitter.torn
    assert splitter.feed(b"data: 01") == b""
    assert splitter.feed(b"23456") == b"data: 0123456"
    assert splitter.torn
    assert splitter.feed(b"7\n\ndata:") == b"7\n\n"
    assert not splitter.torn
    assert splitter.flush() == b"data:"


def test_the_meter_finds_the_last_usage_and_reason_of_a_stream():
    meter = Meter()
    assert (meter.usage, meter.finish_reason) == (None, None)
    for chunk in (
        b'data: {"choices":[{"delta":{"content":"\\"usage\\":{"},"finish_reason":null}],"usage":null}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason": "length"}],"usage":null}\n\n',
        b'data: {"choices":[],"usage": {"prompt_tokens":3,"details":{"a":1}}}\n\ndata: [DONE]\n\n',
    ):
        meter.feed(chunk)
    assert meter.usage == {"prompt_tokens": 3, "details": {"a": 1}}
    assert meter.finish_reason == "length"


def test_the_meter_reads_a_whole_answer_of_any_size():
    meter = Meter()
    meter.feed(b'{"data":"' + b"x" * 100_000 + b'","finish_reason":"stop","usage":{"total_tokens":5}, "z":1}')
    assert (meter.usage, meter.finish_reason) == ({"total_tokens": 5}, "stop")


def test_the_meter_says_none_where_the_usage_is_broken():
    meter = Meter()
    meter.feed(b'{"usage":{"total_tokens":')
    assert meter.usage is None
