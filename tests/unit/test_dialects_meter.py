"""What passes untouched reports an error only where the error is the document's own."""

from __future__ import annotations

import pytest

from corral.dialects.form import form

CALL = (
    b'data: {"candidates": [{"content": {"role": "model", "parts": [{"functionCall": {"name": "log", "args": '
    b'{"error": "boom"}}}]}, "finishReason": "STOP"}]}\n\n'
)
FAILED = (
    b'event: response.failed\ndata: {"type": "response.failed", "response": '
    b'{"metadata": {"error": "mine"}, "error": {"code": "server_error", "message": "bad"}}}\n\n'
)
OVERLOADED = b'data: {"error": {"code": 503, "message": "over", "status": "UNAVAILABLE"}}\r\n\r\n'


def failed(name, *chunks):
    meter = form(name).meter()
    for chunk in chunks:
        meter.feed(chunk)
    return meter.failed


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("gemini.generate", CALL),
        ("gemini.generate", CALL.removeprefix(b"data: ")),
        ("openai.responses", b'{"object": "response", "error": null, "metadata": {"error": "mine"}, "output": []}'),
        ("openai.chat", b'{"choices": [{"message": {"tool_calls": [{"function": {"arguments": {"error": "x"}}}]}}]}'),
        ("openai.chat", b'data: {"choices": [{"delta": {"content": "{\\"error\\": \\"x\\"}"}}]}\n\n'),
        ("anthropic.messages", b'{"type": "message", "content": [{"type": "tool_use", "input": {"error": "x"}}]}'),
    ],
)
def test_what_a_call_or_a_client_calls_an_error_is_none(name, chunk):
    assert failed(name, chunk) is None


@pytest.mark.parametrize(
    ("name", "chunks", "message"),
    [
        ("gemini.generate", [CALL, OVERLOADED], "over"),
        ("openai.chat", [b'{"error": "plain"}'], "plain"),
        ("openai.chat", [b'data: {"choices": []}\n\ndata: {"error": {"message": "no"}}\n\n'], "no"),
        (
            "openai.responses",
            [FAILED],
            "bad",
        ),
    ],
)
def test_an_error_of_the_document_itself_is_one(name, chunks, message):
    assert failed(name, *chunks).message == message


def test_an_error_that_is_cut_off_is_one():
    assert failed("openai.chat", b'data: {"error": {"message": \n\n') is not None
