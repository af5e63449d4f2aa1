"""OpenAI, played: what it is sent and what it says are checked with the types of its own library."""

from __future__ import annotations

import itertools
import json
from base64 import b64encode
from collections.abc import Iterator
from struct import pack
from typing import Any

from aiohttp import web
from openai.types import Completion, CompletionCreateParams, CreateEmbeddingResponse, EmbeddingCreateParams
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat import CompletionCreateParams as ChatCreateParams
from openai.types.responses import Response, ResponseCreateParams, ResponseStreamEvent

from tests.support.sdk import answer, parameters
from tests.support.vendors.vendor import Asked, Refusal, Script, Vendor, pieces, play

KINDS = {401: "invalid_request_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 404: "model_not_found"}
LIMIT = 100_000
"""Characters of a prompt that a model holds."""
_FUNCTION = {"strict": None, "parameters": None}
_DONE = b"data: [DONE]\n\n"


class OpenAI(Vendor):
    """The service: chat, responses, completions, embeddings. It takes keys also as Azure does, in `api-key`."""

    name = "openai"

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    def question(self, body: Any) -> str:
        """The last thing the user said."""
        given = body.get("messages") or body.get("input") or body.get("prompt") or ""
        if isinstance(given, str):
            return given
        for turn in reversed(given):
            if isinstance(turn, str):
                return turn
            if isinstance(turn, dict) and turn.get("role") == "user":
                content = turn.get("content")
                if isinstance(content, str):
                    return content
                return " ".join(str(part.get("text", "")) for part in content or [])
        return ""

    def refusal(self, refusal: Refusal) -> Any:
        """As the service refuses."""
        status = refusal.status
        kind = refusal.kind if refusal.kind not in CODES.values() else ""
        code = "context_length_exceeded" if refusal.kind == "overflow" else CODES.get(status)
        kind = "invalid_request_error" if refusal.kind == "overflow" or not kind else kind
        error = {"message": refusal.message, "type": KINDS.get(status, kind), "param": refusal.param, "code": code}
        return {"error": error}

    def broken(self) -> bytes:
        """An error in a stream."""
        error = {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}
        return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"

    def answer(self, asked: Asked, request: web.Request) -> Any:
        """What the service would say."""
        shown = asked.headers.get("api-key") or asked.headers.get("authorization", "").removeprefix("Bearer ")
        if shown != self.key:
            raise Refusal(401, "invalid_api_key", "Incorrect API key provided.")
        if asked.path == "/models":
            return {"object": "list", "data": [{"id": "gpt", "object": "model", "created": 1, "owned_by": "openai"}]}
        calls = {
            "/chat/completions": (ChatCreateParams, self._chat),
            "/responses": (ResponseCreateParams, self._respond),
            "/completions": (CompletionCreateParams, self._complete),
            "/embeddings": (EmbeddingCreateParams, self._embed),
        }
        if asked.path not in calls:
            raise Refusal(404, "", f"Unknown request URL: {asked.path}.")
        hint, call = calls[asked.path]
        try:
            parameters(hint, asked.body)
        except AssertionError as error:
            raise Refusal(400, "", str(error)) from error
        if len(json.dumps(asked.body)) > LIMIT:
            raise Refusal(400, "overflow", "This model's maximum context length is 25000 tokens.", "messages")
        _check(asked.body)
        return call(asked.body, Script.of(self.question(asked.body)))

    # -- chat --------------------------------------------------------------------------------------------------------

    def _chat(self, body: dict[str, Any], script: Script) -> Any:
        said, calls = self._said(body, script)
        stop = script.words.get("stop") or ("tool_calls" if calls else "stop")
        message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
        if calls:
            message["tool_calls"] = [
                {"id": name, "type": "function", "function": {"name": function, "arguments": json.dumps(given)}}
                for name, function, given in calls
            ]
        whole = {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": stop, "logprobs": None}],
            "usage": _usage(body, script),
        }
        answer(ChatCompletion, whole)
        return self._chunks(body, whole) if body.get("stream") else whole

    def _chunks(self, body: dict[str, Any], whole: dict[str, Any]) -> Iterator[bytes]:
        (choice,) = whole["choices"]
        message = choice["message"]
        lead = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
        counted = bool((body.get("stream_options") or {}).get("include_usage"))

        def chunk(delta: dict[str, Any], stop: str | None = None) -> bytes:
            told = {**lead, "choices": [{"index": 0, "delta": delta, "finish_reason": stop, "logprobs": None}]}
            return _data(ChatCompletionChunk, told | ({"usage": None} if counted else {}))

        yield chunk({"role": "assistant", "content": "" if message["content"] else None})
        for piece in pieces(message["content"] or ""):
            yield chunk({"content": piece})
        for index, call in enumerate(message.get("tool_calls", [])):
            function = call["function"] | {"arguments": ""}
            yield chunk({"tool_calls": [{**call, "index": index, "function": function}]})
            for piece in pieces(call["function"]["arguments"]):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield chunk({}, choice["finish_reason"])
        if counted:
            yield _data(ChatCompletionChunk, {**lead, "choices": [], "usage": whole["usage"]})
        yield _DONE

    def _said(self, body: dict[str, Any], script: Script) -> tuple[str | None, list[tuple[str, str, Any]]]:
        """The answer, and its calls: their ids, functions and arguments."""
        functions = [tool.get("function", tool) for tool in body.get("tools") or []]
        tools = [function["name"] for function in functions if "name" in function]  # its own tools have none
        count = script.number("tools", 1 if "tool" in script else 0) if tools else 0
        if count and "say" not in script:
            said = None
        else:
            said = script.said(f"Hello from {body['model']}.")
            shape = body.get("response_format") or (body.get("text") or {}).get("format") or {}
            said = json.dumps({"said": said}) if shape.get("type", "text") != "text" else said
        given = [{"city": "Paris", "number": call} for call in range(count)]
        number = next(self._numbers)
        return said, [(f"call_{number}_{at}", tools[at % len(tools)], each) for at, each in enumerate(given)]

    # -- responses ---------------------------------------------------------------------------------------------------

    def _respond(self, body: dict[str, Any], script: Script) -> Any:
        said, calls = self._said(body, script)
        number = next(self._numbers)
        output: list[dict[str, Any]] = []
        if "think" in script:
            summary = [{"type": "summary_text", "text": "Let me see."}]
            output.append({"id": f"rs_{number}", "type": "reasoning", "summary": summary})
        if said is not None:
            part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
            message = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
            output.append(message | {"id": f"msg_{number}"})
        for name, function, given in calls:
            call = {"type": "function_call", "call_id": name, "name": function, "arguments": json.dumps(given)}
            output.append(call | {"id": f"fc_{name}", "status": "completed"})
        short = script.words.get("stop") in ("length", "max_output_tokens")
        whole = {
            "id": f"resp_{number}",
            "object": "response",
            "created_at": 1_790_000_000,
            "status": "incomplete" if short else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if short else None,
            "instructions": body.get("instructions"),
            "metadata": {},
            "model": body["model"],
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [_FUNCTION | tool if tool["type"] == "function" else tool for tool in body.get("tools") or []],
            "top_p": 1.0,
            "usage": _response_usage(body, script),
        }
        answer(Response, whole)
        return self._response_events(whole) if body.get("stream") else whole

    def _response_events(self, whole: dict[str, Any]) -> Iterator[bytes]:
        numbers = itertools.count()

        def told(kind: str, **fields: Any) -> bytes:
            event = {"type": f"response.{kind}", "sequence_number": next(numbers), **fields}
            return b"event: " + event["type"].encode() + b"\n" + _data(ResponseStreamEvent, event)

        begun = whole | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        yield told("created", response=begun)
        yield told("in_progress", response=begun)
        for index, item in enumerate(whole["output"]):
            at = {"output_index": index, "item_id": item["id"]}
            if item["type"] == "message":
                (part,) = item["content"]
                yield told(
                    "output_item.added", output_index=index, item=item | {"content": [], "status": "in_progress"}
                )
                at |= {"content_index": 0}
                yield told("content_part.added", **at, part=part | {"text": ""})
                for piece in pieces(part["text"]):
                    yield told("output_text.delta", **at, delta=piece, logprobs=[])
                yield told("output_text.done", **at, text=part["text"], logprobs=[])
                yield told("content_part.done", **at, part=part)
            elif item["type"] == "function_call":
                empty = item | {"arguments": "", "status": "in_progress"}
                yield told("output_item.added", output_index=index, item=empty)
                for piece in pieces(item["arguments"]):
                    yield told("function_call_arguments.delta", **at, delta=piece)
                yield told("function_call_arguments.done", **at, arguments=item["arguments"])
            else:
                yield told("output_item.added", output_index=index, item=item | {"summary": []})
                at |= {"summary_index": 0}
                (part,) = item["summary"]
                yield told("reasoning_summary_part.added", **at, part=part | {"text": ""})
                for piece in pieces(part["text"]):
                    yield told("reasoning_summary_text.delta", **at, delta=piece)
                yield told("reasoning_summary_text.done", **at, text=part["text"])
                yield told("reasoning_summary_part.done", **at, part=part)
            yield told("output_item.done", output_index=index, item=item)
        yield told(whole["status"], response=whole)

    # -- completions and embeddings ----------------------------------------------------------------------------------

    def _complete(self, body: dict[str, Any], script: Script) -> Any:
        said, stop = script.said(f"Hello from {body['model']}."), script.words.get("stop", "stop")
        whole = {
            "id": f"cmpl-{next(self._numbers)}",
            "object": "text_completion",
            "created": 1_790_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "text": said, "finish_reason": stop, "logprobs": None}],
            "usage": _usage(body, script),
        }
        answer(Completion, whole)
        return self._completed(body, whole) if body.get("stream") else whole

    def _completed(self, body: dict[str, Any], whole: dict[str, Any]) -> Iterator[bytes]:
        (choice,) = whole["choices"]
        usage = whole.pop("usage")
        parts = pieces(choice["text"])
        for number, piece in enumerate(parts):
            stop = choice["finish_reason"] if number == len(parts) - 1 else ""
            # The service says null where its library demands a word.
            told = whole | {"choices": [choice | {"text": piece, "finish_reason": stop or None}]}
            yield b"data: " + json.dumps(told).encode() + b"\n\n"
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _data(Completion, whole | {"choices": [], "usage": usage})
        yield _DONE

    def _embed(self, body: dict[str, Any], script: Script) -> Any:
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        size = body.get("dimensions", 3)
        vectors = [[(len(str(each)) + place) / 100 for place in range(size)] for each in inputs]
        tokens = sum(len(str(each)) for each in inputs)
        whole: dict[str, Any] = {
            "object": "list",
            "model": body["model"],
            "data": [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(vectors)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        answer(CreateEmbeddingResponse, whole)
        if body.get("encoding_format") == "base64":
            for each in whole["data"]:
                each["embedding"] = b64encode(pack(f"<{size}f", *each["embedding"])).decode()
        return whole


def _check(body: dict[str, Any]) -> None:
    """What the service demands, and its types do not say."""
    if "tool_choice" in body and not body.get("tools") and body["tool_choice"] != "none":
        raise Refusal(400, "", "'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if body.get("stream_options") and not body.get("stream"):
        raise Refusal(400, "", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    if not 0 <= (body.get("temperature") or 0) <= 2:
        raise Refusal(400, "", "Invalid 'temperature': decimal above maximum value.", "temperature")
    open_calls: set[str] = set()
    for message in body.get("messages", []):
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Refusal(400, "", "messages with role 'tool' must be a response to a preceding 'tool_calls'.")
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            raise Refusal(400, "", "'tool_calls' must be followed by tool messages responding to each 'tool_call_id'.")
        open_calls = {call["id"] for call in message.get("tool_calls") or []}


def _usage(body: dict[str, Any], script: Script) -> dict[str, Any]:
    read = len(json.dumps(body.get("messages") or body.get("prompt"))) // 4 + (2000 if "cached" in script else 0)
    thought = 5 if "think" in script else 0
    return {
        "prompt_tokens": read,
        "completion_tokens": 12,
        "total_tokens": read + 12,
        "prompt_tokens_details": {"cached_tokens": 2000 if "cached" in script else 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0},
    }


def _response_usage(body: dict[str, Any], script: Script) -> dict[str, Any]:
    cached = 2000 if "cached" in script else 0
    read = len(json.dumps(body["input"])) // 4 + cached
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 5 if "think" in script else 0},
        "total_tokens": read + 12,
    }


def _data(model: Any, document: dict[str, Any]) -> bytes:
    answer(model, document)
    return b"data: " + json.dumps(document).encode() + b"\n\n"


if __name__ == "__main__":
    play(OpenAI)
