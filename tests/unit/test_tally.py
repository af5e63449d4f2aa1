"""Which prompts an engine is asked to count."""

from __future__ import annotations

from typing import Any

import pytest

from corral.kit.tally import prompt_of, written
from corral.runtimes.anthropic import _question as to_anthropic
from corral.runtimes.gemini import _question as to_google

IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("content", "text"),
    [("hi", True), (None, True), ([{"type": "text", "text": "hi"}], True), ([IMAGE], False), ([7], False)],
)
def test_only_text_is_counted(content: Any, text: bool) -> None:
    assert written({"messages": [{"role": "user", "content": content}]}) is text


@pytest.mark.parametrize(
    ("prompt", "found"),
    [("hi", "hi"), (["hi"], "hi"), ([1, 2, 3], 3), (["a", "b"], None), ([], None), (None, None), ([[1, 2]], None)],
)
def test_one_prompt_is_counted(prompt: Any, found: Any) -> None:
    assert prompt_of({"prompt": prompt}) == found


def test_what_vendors_are_asked() -> None:
    body = {"model": "c", "max_tokens": 5, "stream": True, "messages": [], "system": "s", "temperature": 1}
    asked = to_anthropic("/messages", body)
    assert asked is not None
    assert (asked.path, asked.body) == ("/messages/count_tokens", {"model": "c", "messages": [], "system": "s"})
    assert to_anthropic("/complete", body) is None

    for path in ("/models/g:generateContent", "/models/g:streamGenerateContent?alt=sse"):
        counted = to_google(path, {"contents": []})
        assert counted is not None
        assert counted.path == "/models/g:countTokens"
        assert counted.body == {"generateContentRequest": {"contents": [], "model": "models/g"}}
    assert to_google("/models/g:embedContent", {}) is None
