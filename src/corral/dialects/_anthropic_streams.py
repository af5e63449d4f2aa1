"""Streams of Anthropic's messages, read and written, and the words both share with whole replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects.canonical import (
    Begun,
    CallBegun,
    CallDelta,
    Ended,
    Failed,
    Request,
    Spent,
    Stop,
    TextDelta,
    ThoughtDelta,
)
from corral.domain.money import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.dialects.canonical import Event
    from corral.errors import CorralError

STOPS = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.SEQUENCE,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "pause_turn": Stop.LENGTH,  # there is more to come, when it is asked for
    "tool_use": Stop.TOOLS,
    "refusal": Stop.FILTER,
}
REASONS = {
    Stop.END: "end_turn",
    Stop.SEQUENCE: "stop_sequence",
    Stop.LENGTH: "max_tokens",
    Stop.TOOLS: "tool_use",
    Stop.FILTER: "refusal",
    Stop.ERROR: "refusal",
}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
STATUSES = {kind: status for status, kind in KINDS.items() if status not in (408, 503)}
"""What the kind of an error in a stream would have been as a status."""


def read_usage(*given: Mapping[str, Any] | None) -> Usage | None:
    """What was used, of reports that each continue the one before; None when none says anything.

    The vendor's `input_tokens` leave out what its cache held and what was put into it; ours count them.
    """
    told: dict[str, Any] = {}
    for each in given:
        if each:
            told.update((key, value) for key, value in each.items() if value is not None)
    if "output_tokens" not in told and "input_tokens" not in told:
        return None
    cached, written = _count(told, "cache_read_input_tokens"), _count(told, "cache_creation_input_tokens")
    if not written and isinstance(kinds := told.get("cache_creation"), dict):
        written = sum(value for value in kinds.values() if type(value) is int)
    details = told.get("output_tokens_details")
    return Usage(
        input=_count(told, "input_tokens") + cached + written,
        output=_count(told, "output_tokens"),
        cached=cached,
        cache_write=written,
        reasoning=_count(details, "thinking_tokens") if isinstance(details, dict) else 0,
    )


def _count(told: Mapping[str, Any], key: str) -> int:
    value = told.get(key)
    return value if type(value) is int else 0


def write_usage(usage: Usage | None) -> dict[str, Any]:
    """What was used, in the vendor's words; all zero where it is unknown, for its clients demand numbers."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    fresh = max(usage.input - usage.cached - usage.cache_write, 0)
    told: dict[str, Any] = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return told


def describe(error: CorralError) -> dict[str, Any]:
    """An error as this dialect's clients expect it."""
    return envelope(KINDS.get(error.http_status), error.http_status, str(error), error.code)


def envelope(kind: str | None, status: int, message: str, code: str | None) -> dict[str, Any]:
    """An error of `kind`; of the one that belongs to `status` when that is None."""
    kind = kind or ("invalid_request_error" if status < 500 else "api_error")
    if code == OVERFLOW and not message.startswith(_TOO_LONG):
        message = f"{_TOO_LONG}: {message}"  # clients that shorten what they send look for these words
    return {"type": "error", "error": {"type": kind, "message": message}}


OVERFLOW = "context_length_exceeded"
_TOO_LONG = "prompt is too long"


class Reader:
    """Reads one stream of an engine. See the protocol in `form.py`."""

    __slots__ = ("_calls", "_empty", "_open", "_usage")

    def __init__(self) -> None:
        self._calls = 0
        self._empty = False
        self._open = ""
        self._usage: dict[str, Any] | None = None

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events in the data of one server-sent event.

        Raises:
            ValueError: it is not what this form may say.
        """
        event = orjson.loads(data)
        if not isinstance(event, dict):
            raise ValueError("an event that is no object")  # noqa: TRY004 - what the protocol promises
        kind = event.get("type")
        try:
            if kind == "content_block_delta":
                return self._delta(event["delta"])
            if kind == "content_block_start":
                return self._start(event["content_block"])
            if kind == "content_block_stop":
                return self._stop()
            if kind == "message_start":
                message = event["message"]
                self._usage = message.get("usage")
                return (Begun(message.get("id") or "", message.get("model") or "", read_usage(self._usage)),)
            if kind == "message_delta":
                return self._end(event)
            if kind == "error":
                error = event["error"]
                name = error.get("type")
                return (Failed(str(error.get("message") or name), STATUSES.get(name), name),)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an event {kind!r} that lacks something: {error}") from error
        return ()

    def _start(self, block: Mapping[str, Any]) -> Sequence[Event]:
        self._open = kind = block["type"]
        if kind == "text":
            return (TextDelta(block["text"]),) if block.get("text") else ()
        if kind == "tool_use":
            begun = CallBegun(self._calls, block["id"], block["name"])
            self._calls += 1
            given = block.get("input")
            self._empty = not given
            return (begun, CallDelta(begun.index, orjson.dumps(given).decode())) if given else (begun,)
        if kind == "thinking":
            said, proof = block.get("thinking") or "", block.get("signature") or None
            return (ThoughtDelta(said, proof),) if said or proof else ()
        if kind == "redacted_thinking":
            return (ThoughtDelta(hidden=block["data"]),)
        return ()

    def _delta(self, delta: Mapping[str, Any]) -> Sequence[Event]:
        kind = delta["type"]
        if kind == "text_delta":
            return (TextDelta(_string(delta["text"])),)
        if kind == "input_json_delta":
            part = _string(delta["partial_json"])
            if not part or self._open != "tool_use":
                return ()  # what a tool of the vendor's own is called with concerns nobody here
            self._empty = False
            return (CallDelta(self._calls - 1, part),)
        if kind == "thinking_delta":
            return (ThoughtDelta(_string(delta["thinking"])),)
        if kind == "signature_delta":
            return (ThoughtDelta(signature=_string(delta["signature"])),)
        return ()

    def _stop(self) -> Sequence[Event]:
        """A call without arguments has none in the stream; its JSON is to be whole all the same."""
        if self._open == "tool_use" and self._empty:
            self._empty = False
            return (CallDelta(self._calls - 1, "{}"),)
        return ()

    def _end(self, event: Mapping[str, Any]) -> Sequence[Event]:
        events: list[Event] = []
        usage = read_usage(self._usage, event.get("usage"))
        if usage is not None:
            events.append(Spent(usage))
        delta = event["delta"]
        if delta.get("stop_reason") is not None:
            events.append(Ended(STOPS.get(delta["stop_reason"], Stop.END), delta.get("stop_sequence")))
        return events


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _sse(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


_TEXT = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"text_delta","text":%b}}\n\n'
)


class Writer:
    """Writes one stream for a client. See the protocol in `form.py`.

    Blocks follow one another: one that begins ends the one before.
    """

    __slots__ = ("_begun", "_blocks", "_calls", "_ended", "_model", "_open", "_usage")

    def __init__(self, request: Request) -> None:
        self._model = request.model
        self._begun = False
        self._blocks = -1
        self._open = ""
        self._calls: dict[int, int] = {}
        self._ended: Ended | None = None
        self._usage: Usage | None = None

    def feed(self, event: Event) -> bytes:
        """What the client is told of `event`. Why it stopped and what it used are told at the end, together."""
        if type(event) is TextDelta:
            if not event.text:
                return b""
            lead = b"" if self._open == "text" else self._start("text", {"type": "text", "text": ""})
            return lead + _TEXT % (self._blocks, orjson.dumps(event.text))
        if isinstance(event, CallDelta):
            if not event.arguments:
                return b""
            at = self._calls.get(event.index, self._blocks)
            return self._tell(at, {"type": "input_json_delta", "partial_json": event.arguments})
        if isinstance(event, ThoughtDelta):
            return self._think(event)
        return self._mark(event)

    def _mark(self, event: Event) -> bytes:
        if isinstance(event, CallBegun):
            call = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
            lead = self._start("call", call)
            self._calls[event.index] = self._blocks
            return lead
        if isinstance(event, Begun):
            return self._begin(event)
        if isinstance(event, Spent):
            self._usage = event.usage
        elif isinstance(event, Ended):
            self._ended = event
        elif isinstance(event, Failed):
            known = event.code if event.code in STATUSES else KINDS.get(event.status or 500)
            return _sse("error", error=envelope(known, event.status or 500, event.message, event.code)["error"])
        return b""

    def fail(self, error: CorralError) -> bytes:
        """The last bytes of a stream that breaks: an event that holds the error."""
        return _sse("error", error=describe(error)["error"])

    def close(self, comment: bytes = b"") -> bytes:
        """The last bytes of a stream that ended well; with `comment` before its last event."""
        lead = self._begin(Begun()) if not self._begun else b""
        ended = self._ended or Ended(Stop.TOOLS if self._calls else Stop.END)
        delta = {"stop_reason": REASONS[ended.stop], "stop_sequence": ended.sequence}
        last = _sse("message_delta", delta=delta, usage=write_usage(self._usage))
        return lead + self._finish() + last + comment + _sse("message_stop")

    def _begin(self, event: Begun) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        message: dict[str, Any] = {
            "id": event.id,
            "type": "message",
            "role": "assistant",
            "model": event.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": write_usage(event.usage),
        }
        return _sse("message_start", message=message)

    def _start(self, kind: str, block: dict[str, Any]) -> bytes:
        lead = (b"" if self._begun else self._begin(Begun())) + self._finish()
        self._blocks += 1
        self._open = kind
        return lead + _sse("content_block_start", index=self._blocks, content_block=block)

    def _finish(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _sse("content_block_stop", index=self._blocks)

    def _tell(self, at: int, delta: dict[str, Any]) -> bytes:
        return _sse("content_block_delta", index=at, delta=delta)

    def _think(self, event: ThoughtDelta) -> bytes:
        told = b""
        if event.hidden is not None:
            told = self._start("hidden", {"type": "redacted_thinking", "data": event.hidden}) + self._finish()
        if not event.text and event.signature is None:
            return told
        # A signature ends the thought it proves: what comes after is another.
        if self._open != "thought":
            told += self._start("thought", {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            told += self._tell(self._blocks, {"type": "thinking_delta", "thinking": event.text})
        if event.signature is not None:
            told += self._tell(self._blocks, {"type": "signature_delta", "signature": event.signature})
            told += self._finish()
        return told
