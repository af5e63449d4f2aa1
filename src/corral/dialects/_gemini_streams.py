"""Gemini's streams: an engine's chunks read, a client's written, as server-sent events or as one JSON array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._gemini_errors import read_error, write_error, write_fault
from corral.dialects._gemini_replies import (
    call_id,
    read_logprobs,
    read_part,
    read_usage,
    stop_of,
    wants_thoughts,
    write_call,
    write_end,
    write_logprobs,
    write_usage,
)
from corral.dialects._gemini_writing import thought
from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Ended,
    Failed,
    Spent,
    Stop,
    Text,
    TextDelta,
    Thought,
    ThoughtDelta,
)
from corral.dialects.form import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.dialects.canonical import Event, Part, Request
    from corral.domain.money import Usage
    from corral.errors import CorralError

_NOTHING = b""


class Reader:
    """Reads one stream of an engine: the chunks of a stream of events, or the lines of an array, one chunk a line."""

    __slots__ = ("_begun", "_calls", "_ended", "_response")

    def __init__(self) -> None:
        self._begun = False
        self._ended = False
        self._calls = 0
        self._response: Any = None

    def feed(self, data: bytes) -> list[Event]:
        """The events in one chunk.

        Raises:
            ValueError: it is none.
        """
        # In an array each line begins with the bracket or the comma before the chunk.
        if data[:1] in b"[,]":
            data = data[1:].strip()
            if not data:
                return []
        chunk = orjson.loads(data)
        if type(chunk) is not dict:
            raise ValueError("a chunk is not an object")
        try:
            return self._read(chunk)
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(f"a part of a chunk is none: {error}") from error

    def _read(self, chunk: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        if "error" in chunk:
            fault = read_error(0, chunk)
            status = chunk["error"].get("code") if type(chunk["error"]) is dict else None
            return [Failed(fault.message, status if type(status) is int else None, fault.code)]
        said = chunk.get("usageMetadata")
        usage = read_usage(said) if said else None
        if not self._begun:
            self._begun = True
            self._response = chunk.get("responseId")
            events.append(Begun(str(self._response or ""), str(chunk.get("modelVersion") or ""), usage))
        candidates = chunk.get("candidates")
        if candidates:
            self._candidate(candidates[0], events)
        elif chunk.get("promptFeedback") and not self._ended:
            self._ended = True
            events.append(Ended(Stop.FILTER))
        if usage is not None:
            events.append(Spent(usage))
        return events

    def _candidate(self, candidate: Mapping[str, Any], events: list[Event]) -> None:
        if candidate.get("index"):
            return  # of several candidates the first
        logprobs = read_logprobs(candidate.get("logprobsResult"))
        content = candidate.get("content")
        for part in (content.get("parts") if content else None) or ():
            if len(part) == 1 and type(text := part.get("text")) is str:
                if text:
                    events.append(TextDelta(text, logprobs))
                    logprobs = None
            else:
                self._part(part, events)
        reason = candidate.get("finishReason")
        if reason is not None and not self._ended:
            self._ended = True
            events.append(Ended(stop_of(reason, self._calls > 0)))

    def _part(self, part: Mapping[str, Any], events: list[Event]) -> None:
        found: list[Part] = []
        read_part(found, part, self._response, self._calls)
        for each in found:
            if isinstance(each, Call):
                index = self._calls
                self._calls += 1
                events.append(CallBegun(index, each.id, each.name, each.signature))
                events.append(CallDelta(index, each.arguments))
            elif isinstance(each, Text):
                events.append(TextDelta(each.text))
            elif isinstance(each, Thought):
                events.append(ThoughtDelta(each.text, each.signature))


class Writer:
    """Writes one stream for a client, as server-sent events.

    Gemini gives a call whole, and says the reason to stop and the usage in its last chunk: calls are held back until
    the model stops, and the last chunk until the end. There is no other mark of the end. Its clients take a comment for
    a chunk that is broken, so none is written.
    """

    __slots__ = ("_calls", "_closed", "_head", "_rest", "_shown", "_stop", "_tail", "_usage")

    def __init__(self, request: Request | None) -> None:
        self._shown = wants_thoughts(request)
        self._calls: dict[int, tuple[CallBegun, list[str]]] = {}
        self._stop: Stop | None = None
        self._usage: Usage | None = None
        self._closed = False
        self._rest: dict[str, Any] = {}
        self._frame()

    def _frame(self) -> None:
        self._head = b'{"candidates":[{"content":{"parts":['
        self._tail = b'],"role":"model"},"index":0}]'
        rest = orjson.dumps(self._rest)
        self._tail += b"," + rest[1:] if len(rest) > 2 else b"}"

    def feed(self, event: Event) -> bytes:
        """What the client is told of `event`: a chunk, or nothing yet."""
        if type(event) is TextDelta:
            if event.logprobs:
                return self._whole([{"text": event.text}], {"logprobsResult": write_logprobs(event.logprobs)})
            return self._framed(self._head + b'{"text":' + orjson.dumps(event.text) + b"}" + self._tail)
        if isinstance(event, ThoughtDelta):
            return self._thought(event)
        if isinstance(event, CallBegun):
            self._calls[event.index] = (event, [])
        elif isinstance(event, CallDelta):
            self._calls[event.index][1].append(event.arguments)
        elif isinstance(event, Ended):
            self._stop = event.stop
        elif isinstance(event, Spent):
            self._usage = event.usage
        elif isinstance(event, Begun):
            self._rest = {"modelVersion": event.model, "responseId": event.id}
            self._usage = event.usage
            self._frame()
        elif isinstance(event, Failed):
            return self._last(write_fault(Fault(event.message, event.code), event.status or 500))
        return _NOTHING

    def fail(self, error: CorralError) -> bytes:
        """The last bytes of a stream that breaks: a chunk that is an error, which Gemini's clients raise."""
        return self._last(write_error(error))

    def close(self, comment: bytes = b"") -> bytes:
        """The last chunk, with the calls, the reason to stop and the usage. The comment is left out: see above."""
        if self._closed:
            return _NOTHING
        parts: list[dict[str, Any]] = []
        broken: Call | None = None
        for _, (begun, pieces) in sorted(self._calls.items()):
            arguments = "".join(pieces)
            part = write_call(begun.id or call_id(None, begun.index), begun.name, arguments, begun.signature)
            if part is None:
                broken = Call(begun.id, begun.name, arguments)
            else:
                parts.append(part)
        last: dict[str, Any] = {} if self._stop is None else write_end(self._stop, broken)
        usage = {} if self._usage is None else {"usageMetadata": write_usage(self._usage)}
        self._closed = True
        return self._whole(parts or [{"text": ""}], last, usage)

    def _thought(self, event: ThoughtDelta) -> bytes:
        part = thought(Thought(event.text if self._shown else "", event.signature))
        return _NOTHING if part is None else self._whole([part])

    def _whole(
        self, parts: list[dict[str, Any]], more: Mapping[str, Any] | None = None, usage: Mapping[str, Any] | None = None
    ) -> bytes:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, **(more or {}), "index": 0}
        return self._framed(orjson.dumps({"candidates": [candidate], **(usage or {}), **self._rest}))

    def _last(self, document: Mapping[str, Any]) -> bytes:
        if self._closed:
            return _NOTHING
        self._closed = True
        return self._framed(orjson.dumps(document))

    def _framed(self, chunk: bytes) -> bytes:
        return b"data: " + chunk + b"\r\n\r\n"


class ArrayWriter(Writer):
    """Writes one stream for a client that did not ask for events: one JSON array, a chunk in each line."""

    __slots__ = ("_open",)

    def __init__(self, request: Request | None) -> None:
        super().__init__(request)
        self._open = False

    def close(self, comment: bytes = b"") -> bytes:
        """The last chunk, and the end of the array."""
        written = super().close()
        return written + b"]\n" if written else written

    def _last(self, document: Mapping[str, Any]) -> bytes:
        written = super()._last(document)
        return written + b"]\n" if written else written

    def _framed(self, chunk: bytes) -> bytes:
        mark, self._open = b"," if self._open else b"[", True
        return mark + chunk + b"\n"
