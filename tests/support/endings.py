"""How an answer ended, in each dialect: well, with an error, or in a way that no client of it would understand.

Nothing is taken on trust: objects are validated by the types of the dialect's own client library, a stream must come to
its own end or to its own error, and what follows either is a fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic.types as claude
import ollama
from google.genai import types as google
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import TypeAdapter, ValidationError

ANSWER, REFUSED, BROKEN = "answer", "refused", "broken"
"""Ends of an answer: well, with an error instead of it, with an error in its middle."""


class Unreadable(Exception):
    """A client of the dialect would make nothing of it."""


@dataclass(frozen=True)
class Tongue:
    """One way a client asks. `body` makes a request of model, words and whether a stream is wanted."""

    name: str
    path: Callable[[str, bool], str]
    body: Callable[[str, str, bool], dict[str, Any]]
    whole: Callable[[dict[str, Any]], None]
    error: Callable[[dict[str, Any]], None]
    stream: Callable[[bytes], tuple[str, int]]
    """The stream's end and how many pieces of text came before it."""

    def read(self, status: int, kind: str, body: bytes, *, stream: bool) -> tuple[str, int]:
        """The end of an answer, and how many pieces of it came.

        Raises:
            Unreadable: it is neither an answer of the dialect nor an error of it.
        """
        try:
            if status != 200:
                self.error(_object(body))
                return REFUSED, 0
            if stream:
                return self.stream(body)
            if not kind.startswith("application/json"):
                raise Unreadable(f"a whole answer called {kind}")
            self.whole(_object(body))
        except (ValidationError, ValueError, KeyError, TypeError, IndexError) as error:
            raise Unreadable(
                " ".join(f"{type(error).__name__}: {error}".split())[:300] + f": {body[-300:]!r}"
            ) from error
        return ANSWER, 1


def _object(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    if not isinstance(found, dict):
        raise Unreadable(f"no object: {body[:100]!r}")
    return found


def _events(body: bytes) -> list[tuple[str | None, str]]:
    """Every event's name and data; comments are passed over."""
    body = body.replace(b"\r\n", b"\n")
    if body and not body.endswith(b"\n\n"):
        raise Unreadable(f"half an event: {body[-100:]!r}")
    found: list[tuple[str | None, str]] = []
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
        name = next((line.removeprefix("event:").strip() for line in lines if line.startswith("event:")), None)
        if len(data) + (name is not None) != len(lines):
            raise Unreadable(f"no event: {block!r}")
        if data:
            found.append((name, "\n".join(data)))
    return found


def _ends(ends: list[str]) -> str:
    if len(ends) != 1:
        raise Unreadable(f"a stream with {len(ends)} ends: {ends}")
    return ends[0]


# -- OpenAI ----------------------------------------------------------------------------------------------------------


def _openai_error(document: dict[str, Any]) -> None:
    # An engine's own words are handed on; many have the status for a code.
    error = ErrorObject.model_validate({"param": None, **document["error"], "code": str(document["error"]["code"])})
    if not error.message or set(document) != {"error"}:
        raise Unreadable(f"an error that says nothing: {document}")


def _chunks(model: Any, text: Callable[[Any], str | None]) -> Callable[[bytes], tuple[str, int]]:
    def read(body: bytes) -> tuple[str, int]:
        ends: list[str] = []
        pieces, stopped = 0, False
        for _, data in _events(body):
            if ends:
                raise Unreadable(f"something after the end: {data}")
            if data == "[DONE]":
                if not stopped:
                    raise Unreadable("done without a reason")
                ends.append(ANSWER)
                continue
            document = json.loads(data)
            if "error" in document:
                _openai_error(document)
                ends.append(BROKEN)
                continue
            for choice in document["choices"] if model is Completion else ():
                stopped = stopped or choice["finish_reason"] is not None
                choice["finish_reason"] = (
                    choice["finish_reason"] or "stop"
                )  # the library's type knows whole answers only
            chunk = model.model_validate(document)
            for choice in chunk.choices:
                pieces += bool(text(choice))
                stopped = stopped or (model is not Completion and choice.finish_reason is not None)
        return _ends(ends), pieces

    return read


def _responses(body: bytes) -> tuple[str, int]:
    ends: list[str] = []
    pieces = 0
    reader: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for name, data in _events(body):
        if ends and not (ends == [BROKEN] and name == "response.failed"):
            raise Unreadable(f"something after the end: {data}")
        event = reader.validate_python(json.loads(data))
        if name != event.type:
            raise Unreadable(f"{name} is called {event.type}")
        pieces += event.type == "response.output_text.delta"
        if event.type in ("response.completed", "response.incomplete"):
            ends.append(ANSWER)
        elif event.type in ("error", "response.failed"):  # OpenAI sends the one, and then the other
            ends[:] = [BROKEN]
    return _ends(ends), pieces


# -- Anthropic -------------------------------------------------------------------------------------------------------


def _anthropic_error(document: dict[str, Any]) -> None:
    if document["error"]["type"] in ("request_too_large", "conflict_error"):  # its library has no types of these
        document = {**document, "error": {**document["error"], "type": "invalid_request_error"}}
    found = claude.ErrorResponse.model_validate(document)
    if found.type != "error" or not found.error.message:
        raise Unreadable(f"no error: {document}")


def _messages(body: bytes) -> tuple[str, int]:
    ends: list[str] = []
    pieces, stopped = 0, False
    reader: TypeAdapter[Any] = TypeAdapter(claude.RawMessageStreamEvent)
    for name, data in _events(body):
        if ends:
            raise Unreadable(f"something after the end: {data}")
        document = json.loads(data)
        if name != document["type"]:
            raise Unreadable(f"{name} is called {document['type']}")
        if name == "ping":
            continue
        if name == "error":
            _anthropic_error(document)
            ends.append(BROKEN)
            continue
        event = reader.validate_python(document)
        pieces += event.type == "content_block_delta"
        stopped = stopped or (event.type == "message_delta" and event.delta.stop_reason is not None)
        if event.type == "message_stop":
            if not stopped:
                raise Unreadable("stopped without a reason")
            ends.append(ANSWER)
    return _ends(ends), pieces


# -- Gemini ----------------------------------------------------------------------------------------------------------


def _gemini_error(document: dict[str, Any]) -> None:
    error = document["error"]
    if not (type(error["code"]) is int and error["message"] and error["status"].isupper()):
        raise Unreadable(f"no error: {document}")


def _contents(chunks: list[dict[str, Any]]) -> tuple[str, int]:
    ends: list[str] = []
    pieces = 0
    for chunk in chunks:
        if BROKEN in ends:
            raise Unreadable(f"something after the error: {chunk}")
        if "error" in chunk:
            _gemini_error(chunk)
            ends.append(BROKEN)
            continue
        found = google.GenerateContentResponse.model_validate(chunk)
        for candidate in found.candidates or ():
            pieces += bool(candidate.content and candidate.content.parts and candidate.content.parts[0].text)
            if candidate.finish_reason is not None:
                ends.append(ANSWER)
    return _ends(ends), pieces


def _gemini_events(body: bytes) -> tuple[str, int]:
    if b"corral-receipt" in body:
        raise Unreadable("Google's client takes no comments")
    return _contents([json.loads(data) for _, data in _events(body)])


def _gemini_array(body: bytes) -> tuple[str, int]:
    found = json.loads(body)
    if not isinstance(found, list):
        raise Unreadable(f"no array: {body[:100]!r}")
    return _contents(found)


# -- Ollama ----------------------------------------------------------------------------------------------------------


def _ollama_error(document: dict[str, Any]) -> None:
    if not (isinstance(document["error"], str) and document["error"]):
        raise Unreadable(f"no error: {document}")


def _lines(model: Any, text: Callable[[Any], str | None]) -> Callable[[bytes], tuple[str, int]]:
    def read(body: bytes) -> tuple[str, int]:
        if body and not body.endswith(b"\n"):
            raise Unreadable(f"half a line: {body[-100:]!r}")
        ends: list[str] = []
        pieces = 0
        for line in body.splitlines():
            if ends:
                raise Unreadable(f"something after the end: {line!r}")
            document = json.loads(line)
            if "error" in document:
                _ollama_error(document)
                ends.append(BROKEN)
                continue
            found = model.model_validate(document)
            pieces += bool(text(found))
            if found.done:
                ends.append(ANSWER)
        return _ends(ends), pieces

    return read


def _whole(model: Any, shown: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """Demands that a whole answer is a `model` in which there is what `shown` looks for."""

    def check(document: dict[str, Any]) -> None:
        if not shown(model.model_validate(document)):
            raise Unreadable(f"an empty answer: {document}")

    return check


# -- All of them -----------------------------------------------------------------------------------------------------


def _said(words: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": words}]


def _google(_: str, words: str, __: bool) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": words}]}]}


def _generate(model: str, stream: bool) -> str:
    return f"/v1beta/models/{model}:{'streamGenerateContent' if stream else 'generateContent'}"


TONGUES = (
    Tongue(
        "chat",
        lambda _, __: "/v1/chat/completions",
        lambda model, words, stream: {"model": model, "messages": _said(words), "stream": stream},
        _whole(ChatCompletion, lambda found: found.choices[0].message.role),
        _openai_error,
        _chunks(ChatCompletionChunk, lambda choice: choice.delta.content),
    ),
    Tongue(
        "completions",
        lambda _, __: "/v1/completions",
        lambda model, words, stream: {"model": model, "prompt": words, "stream": stream},
        _whole(Completion, lambda found: found.choices[0].text),
        _openai_error,
        _chunks(Completion, lambda choice: choice.text),
    ),
    Tongue(
        "responses",
        lambda _, __: "/v1/responses",
        lambda model, words, stream: {"model": model, "input": words, "stream": stream},
        _whole(Response, lambda found: found.output[0].type),
        _openai_error,
        _responses,
    ),
    Tongue(
        "messages",
        lambda _, __: "/v1/messages",
        lambda model, words, stream: {"model": model, "messages": _said(words), "stream": stream, "max_tokens": 100},
        _whole(claude.Message, lambda found: found.content[0].type),
        _anthropic_error,
        _messages,
    ),
    Tongue(
        "gemini",
        lambda model, stream: _generate(model, stream) + ("?alt=sse" if stream else ""),
        _google,
        _whole(google.GenerateContentResponse, lambda found: found.candidates),
        _gemini_error,
        _gemini_events,
    ),
    Tongue(
        "gemini array",
        _generate,
        _google,
        _whole(google.GenerateContentResponse, lambda found: found.candidates),
        _gemini_error,
        _gemini_array,
    ),
    Tongue(
        "ollama chat",
        lambda _, __: "/api/chat",
        lambda model, words, stream: {"model": model, "messages": _said(words), "stream": stream},
        _whole(ollama.ChatResponse, lambda found: found.message.role),
        _ollama_error,
        _lines(ollama.ChatResponse, lambda found: found.message.content),
    ),
    Tongue(
        "ollama generate",
        lambda _, __: "/api/generate",
        lambda model, words, stream: {"model": model, "prompt": words, "stream": stream},
        _whole(ollama.GenerateResponse, lambda found: found.response),
        _ollama_error,
        _lines(ollama.GenerateResponse, lambda found: found.response),
    ),
)
