"""Whatever dialect it comes in: what an engine would have to fetch is seen, and bytes are not taken for addresses."""

from __future__ import annotations

from typing import Any

import pytest

from corral.dialects.form import form
from corral.routing.composing import addressed
from corral.routing.order import Order

INSIDE = "http://169.254.169.254/latest/meta-data"
BYTES = "data:image/png;base64,AA=="


def openai(url: Any, kind: str = "image_url") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: url}]}]}


def anthropic(source: dict[str, Any]) -> dict[str, Any]:
    image = {"type": "image", "source": source}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [image]}
    return {"max_tokens": 1, "messages": [{"role": "user", "content": [result]}]}


def responses(url: str) -> dict[str, Any]:
    part = {"type": "input_image", "image_url": url}
    return {"input": [{"type": "message", "role": "user", "content": [part]}]}


def gemini(part: dict[str, Any]) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [part]}]}


def order(name: str, document: dict[str, Any], *, read: bool) -> Order:
    whole = {"model": "robot", **document}
    found = Order("r", form(name), "robot", whole)
    if read:
        found.asked = form(name).read_request(whole)
    return found


@pytest.mark.parametrize(
    ("name", "document", "read"),
    [
        ("openai.chat", openai({"url": INSIDE}), False),
        ("openai.chat", openai({"url": INSIDE}), True),
        ("openai.chat", openai({"url": "FILE:///etc/passwd"}), False),
        ("openai.chat", openai(INSIDE), False),
        ("openai.chat", openai({"url": INSIDE}, "video_url"), False),
        ("openai.chat", openai({"url": INSIDE}, "audio_url"), False),
        ("openai.chat", openai({"url": ["http://x"]}), False),
        ("openai.responses", responses(INSIDE), True),
        ("anthropic.messages", anthropic({"type": "url", "url": INSIDE}), True),
        ("gemini.generate", gemini({"fileData": {"mimeType": "image/png", "fileUri": INSIDE}}), True),
    ],
)
def test_addresses_are_seen(name: str, document: dict[str, Any], read: bool) -> None:
    assert addressed(order(name, document, read=read))


@pytest.mark.parametrize(
    ("name", "document", "read"),
    [
        ("openai.chat", openai({"url": BYTES}), False),
        ("openai.chat", openai({"url": BYTES}), True),
        ("openai.chat", openai({"url": BYTES.replace("data", "DATA")}), False),
        ("openai.chat", {"messages": [{"role": "user", "content": f"see {INSIDE}"}]}, False),
        ("openai.chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": INSIDE}]}]}, False),
        ("openai.completions", {"prompt": INSIDE, "messages": [5, {"content": [5]}]}, False),
        ("openai.embeddings", {"input": [INSIDE]}, False),
        ("openai.responses", responses(BYTES), True),
        ("anthropic.messages", anthropic({"type": "base64", "media_type": "image/png", "data": "AA=="}), True),
        ("gemini.generate", gemini({"inlineData": {"mimeType": "image/png", "data": "AA=="}}), True),
    ],
)
def test_bytes_and_words_are_none(name: str, document: dict[str, Any], read: bool) -> None:
    assert not addressed(order(name, document, read=read))
