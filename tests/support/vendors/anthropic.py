"""Anthropic, played: what it is sent and what it says are checked with the types of its own library."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from anthropic.types import Message, MessageCountTokensParams, MessageCreateParams, RawMessageStreamEvent
from anthropic.types.beta.message_create_params import MessageCreateParams as BetaCreateParams
from anthropic.types.shared import ErrorResponse

from tests.support.sdk import answer, parameters
from tests.support.vendors.vendor import Asked, Refusal, Script, Vendor, pieces, play

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
OF_OLD = frozenset({"temperature", "top_p", "top_k"})
"""Fields that the service takes in its version of 2023 and refuses in that of 2026."""
LIMIT = 100_000
"""Characters of a prompt that a model holds."""


class Anthropic(Vendor):
    """The service."""

    name = "anthropic"

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    def question(self, body: Any) -> str:
        """The last thing the user said."""
        for message in reversed(body.get("messages") or []):
            if isinstance(message, dict) and message.get("role") == "user":
                content = message.get("content")
                if isinstance(content, str):
                    return content
                said = [block.get("text", "") for block in content or [] if isinstance(block, dict)]
                if any(said):
                    return " ".join(said)
        return ""

    def refusal(self, refusal: Refusal) -> Any:
        """As the service refuses."""
        kind = refusal.kind or KINDS.get(refusal.status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": "req_1"}
        if kind != "request_too_large":
            answer(ErrorResponse, body)
        return body

    def broken(self) -> bytes:
        """An error in a stream."""
        error = {"type": "overloaded_error", "message": "Overloaded"}
        return b"event: error\ndata: " + json.dumps({"type": "error", "error": error}).encode() + b"\n\n"

    def answer(self, asked: Asked, request: web.Request) -> Any:
        """What the service would say."""
        shown = asked.headers.get("x-api-key") or asked.headers.get("authorization", "").removeprefix("Bearer ")
        if shown != self.key:
            raise Refusal(401, "authentication_error", "invalid x-api-key")
        if "anthropic-version" not in asked.headers:
            raise Refusal(400, "invalid_request_error", "anthropic-version: header is required")
        if asked.path == "/models":
            info = {"id": "claude", "type": "model", "display_name": "Claude", "created_at": "2026-01-01T00:00:00Z"}
            return {"data": [info], "has_more": False, "first_id": "claude", "last_id": "claude"}
        if asked.path == "/messages/count_tokens":
            self._check(asked, MessageCountTokensParams)
            return {"input_tokens": len(json.dumps(asked.body)) // 4}
        if asked.path != "/messages":
            raise Refusal(404, "not_found_error", f"Not found: {asked.path}")
        beta = "beta=true" in asked.query or "anthropic-beta" in asked.headers
        self._check(asked, BetaCreateParams if beta else MessageCreateParams)
        self._rules(asked.body)
        script = Script.of(self.question(asked.body))
        message = self._message(asked.body, script)
        answer(Message, message)
        return self._events(message) if asked.body.get("stream") else message

    def _check(self, asked: Asked, hint: Any) -> None:
        try:
            old = asked.headers["anthropic-version"] < "2026"
            parameters(hint, {key: value for key, value in asked.body.items() if not (old and key in OF_OLD)})
        except AssertionError as error:
            raise Refusal(400, "invalid_request_error", str(error)) from error

    def _rules(self, body: dict[str, Any]) -> None:
        """What the service demands, and its types do not say."""
        if len(json.dumps(body)) > LIMIT:
            raise Refusal(400, "invalid_request_error", f"prompt is too long: 250000 tokens > {LIMIT // 4} maximum")
        thinking = body.get("thinking", {})
        if thinking.get("type") == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
            raise Refusal(400, "", "thinking.budget_tokens: at least 1024, and less than max_tokens")
        thinks = thinking.get("type") in ("enabled", "adaptive")
        if thinks and (body.get("temperature", 1) != 1 or "top_k" in body):
            raise Refusal(400, "", "temperature may only be set to 1 when thinking is enabled")
        if thinks and body.get("tool_choice", {}).get("type") in ("any", "tool"):
            raise Refusal(400, "", "Thinking may not be enabled when tool_choice forces tool use.")
        if not 0 <= body.get("temperature", 1) <= 1:
            raise Refusal(400, "", "temperature: range: 0..1")
        if "tool_choice" in body and not body.get("tools"):
            raise Refusal(400, "", "tool_choice may only be specified while providing tools")
        _check_turns(body["messages"])

    def _message(self, body: dict[str, Any], script: Script) -> dict[str, Any]:
        number = next(self._numbers)
        content: list[dict[str, Any]] = []
        if "think" in script or body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
            content.append({"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCkYIBxgC"})
        calls = script.number("tools", 1 if "tool" in script else 0) if body.get("tools") else 0
        if not calls or "say" in script:
            said = script.said(f"Hello from {body['model']}.")
            shape = (body.get("output_config") or {}).get("format")
            content.append({"type": "text", "text": json.dumps({"said": said}) if shape else said})
        for call in range(calls):
            tool = body["tools"][call % len(body["tools"])]
            given = {"city": "Paris", "number": call}
            content.append({"type": "tool_use", "id": f"toolu_{number}_{call}", "name": tool["name"], "input": given})
        stop = script.words.get("stop") or ("tool_use" if calls else "end_turn")
        prompt = len(json.dumps(body["messages"])) // 4
        usage: dict[str, Any] = {"input_tokens": prompt, "output_tokens": 12, "service_tier": "standard"}
        usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        if "cached" in script:
            usage |= {"cache_creation_input_tokens": 100, "cache_read_input_tokens": 2000}
            usage["cache_creation"] = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0}
        return {
            "id": f"msg_{number:04}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": stop,
            "stop_sequence": "END" if stop == "stop_sequence" else None,
            "usage": usage,
        }

    def _events(self, message: dict[str, Any]) -> Iterator[bytes]:
        start = message["usage"] | {"output_tokens": 1}
        empty = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": start}
        yield _sse({"type": "message_start", "message": message | empty})
        for index, block in enumerate(message["content"]):
            begun, deltas = _opened(block)
            yield _sse({"type": "content_block_start", "index": index, "content_block": begun})
            if index == 0:
                yield b'event: ping\ndata: {"type": "ping"}\n\n'
            for delta in deltas:
                yield _sse({"type": "content_block_delta", "index": index, "delta": delta})
            yield _sse({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
        usage = {"output_tokens": message["usage"]["output_tokens"]}
        yield _sse({"type": "message_delta", "delta": delta, "usage": usage})
        yield _sse({"type": "message_stop"})


def _check_turns(messages: list[dict[str, Any]]) -> None:
    open_calls: set[str] = set()
    for message in messages:
        content = message["content"]
        blocks = content if isinstance(content, list) else []
        if not content or any(block["type"] == "text" and not block["text"] for block in blocks):
            raise Refusal(400, "", "messages: text content blocks must be non-empty")
        if any(block["type"] == "thinking" and not block["signature"] for block in blocks):
            raise Refusal(400, "", "messages: Invalid `signature` in `thinking` block")
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if results != open_calls:
            raise Refusal(400, "", "`tool_use` ids were found without `tool_result` blocks immediately after")
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}


def _sse(event: dict[str, Any]) -> bytes:
    answer(RawMessageStreamEvent, event)
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _opened(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        return block | {"text": ""}, deltas
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
        proof = {"type": "signature_delta", "signature": block["signature"]}
        return block | {"thinking": "", "signature": ""}, [*deltas, proof]
    given = ["", *pieces(json.dumps(block["input"]))]
    return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in given]


if __name__ == "__main__":
    play(Anthropic)
