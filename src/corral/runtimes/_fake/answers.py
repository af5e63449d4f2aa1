"""Requests and scripts made into OpenAI's objects. No I/O but for the time of day."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace


class RefusedError(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body = {"error": {"message": message, "type": code, "code": status}}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to one request, whole or as events. `calls` are tool calls, which take the place of `tokens`."""

    id: str
    model: str
    chat: bool
    tokens: tuple[str, ...]
    calls: tuple[dict[str, Any], ...]
    finish: str
    usage: dict[str, int]
    with_usage: bool

    @classmethod
    def to(cls, body: dict[str, Any], script: SimpleNamespace, model: str, number: int, *, chat: bool) -> Answer:
        """The answer to `body`, by the script."""
        prompt = prompt_of(body)
        asked = len(split(prompt))
        if asked > script.context:
            raise RefusedError(
                400,
                "exceed_context_size_error",
                f"the request exceeds the available context size ({asked} > {script.context} tokens)",
            )
        offered = chat and body.get("tools") and body.get("tool_choice") != "none"
        calls = tuple(_call(call, index) for index, call in enumerate(script.tool_calls)) if offered else ()
        tokens = () if calls else _tokens(script, prompt)
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        finish = "tool_calls" if calls else "stop"
        if isinstance(limit, int) and len(tokens) > limit:
            tokens, finish = tokens[:limit], "length"
        written = len(tokens) or len(calls)
        usage = {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        name = str(body.get("model") or model)
        return cls(f"fake-{number}", name, chat, tokens, calls, finish, usage, with_usage)

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        text = "".join(self.tokens)
        if not self.chat:
            choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": self.finish}
            return self._object("text_completion", [choice]) | {"usage": self.usage}
        message: dict[str, Any] = {"role": "assistant", "content": None if self.calls else text}
        if self.calls:
            message["tool_calls"] = list(self.calls)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return self._object("chat.completion", [choice]) | {"usage": self.usage}

    def events(self) -> Iterator[tuple[bool, dict[str, Any]]]:
        """The answer as a stream's events, each with whether it carries a token."""
        if self.chat:
            yield False, self._delta({"role": "assistant", "content": None if self.calls else ""})
        for token in self.tokens:
            yield True, self._delta({"content": token}) if self.chat else self._text(token)
        for index, call in enumerate(self.calls):
            function = call["function"]
            opening = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
            yield True, self._delta({"tool_calls": [opening]})
            for piece in split(function["arguments"]):
                yield True, self._delta({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield False, self._delta({}, self.finish) if self.chat else self._text("", self.finish)
        if self.with_usage:
            yield False, self._object(self._chunk, []) | {"usage": self.usage}

    @property
    def _chunk(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return self._object(self._chunk, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _text(self, text: str, finish: str | None = None) -> dict[str, Any]:
        return self._object(self._chunk, [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": int(time.time()), "model": self.model, "choices": choices}


def split(text: str) -> tuple[str, ...]:
    """The tokens of a text: words, each with the space after it."""
    return tuple(re.findall(r"\S+\s*|\s+", text))


def length(body: Any) -> int | None:
    """Tokens of the prompt of a request; None where it has none."""
    if not isinstance(body, dict) or not body.keys() & {"messages", "prompt"}:
        return None
    return len(split(prompt_of(body)))


def embeddings(body: dict[str, Any], model: str, dimensions: int) -> dict[str, Any]:
    """A unit vector for each input, the same for the same text."""
    given = body.get("input")
    texts = [text for text in (given if isinstance(given, list) else [given]) if isinstance(text, str)]
    if not texts or (isinstance(given, list) and len(texts) < len(given)):
        raise RefusedError(400, "invalid_request_error", "'input' must be a text or a list of texts.")
    encode = _base64 if body.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(_vector(text, dimensions))}
        for index, text in enumerate(texts)
    ]
    count = sum(len(split(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "model": str(body.get("model") or model), "data": data, "usage": usage}


def _vector(text: str, dimensions: int) -> list[float]:
    digest = hashlib.shake_128(text.encode()).digest(dimensions * 2)
    values = [number / 32768 - 1 + 1 / 65536 for (number,) in struct.iter_unpack(">H", digest)]
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _tokens(script: SimpleNamespace, prompt: str) -> tuple[str, ...]:
    if isinstance(script.tokens, int):
        return tuple(f"t{index} " for index in range(script.tokens))
    if script.tokens is not None:
        return tuple(script.tokens)
    return split(prompt if script.reply is None else script.reply)


def prompt_of(body: dict[str, Any]) -> str:
    """What the client said last."""
    if "messages" not in body:
        prompt = body.get("prompt")
        return prompt if isinstance(prompt, str) else " ".join(str(part) for part in prompt or ())
    messages = body["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RefusedError(400, "invalid_request_error", "'messages' must be a list of messages.")
    users = [message.get("content") for message in messages if message.get("role") == "user"]
    last = users[-1] if users else ""
    if isinstance(last, list):
        texts = [part.get("text", "") for part in last if isinstance(part, dict)]
        if not all(isinstance(text, str) for text in texts):
            raise RefusedError(400, "invalid_request_error", "'text' must be a text.")
        return "".join(texts)
    return str(last or "")


def _call(call: dict[str, Any], index: int) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": json.dumps(call.get("arguments", {}))}
    return {"id": f"call_{index}", "type": "function", "function": function}
