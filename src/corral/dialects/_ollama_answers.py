"""Answers of Ollama, whole and in streams of lines."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._ollama_writing import arguments
from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Ended,
    Failed,
    Reply,
    Spent,
    Stop,
    Text,
    TextDelta,
    Thought,
    ThoughtDelta,
)
from corral.dialects.form import Fault
from corral.domain.money import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.dialects.canonical import Event, Part
    from corral.errors import CorralError

_STOPS = {"length": Stop.LENGTH, "content_filter": Stop.FILTER, "error": Stop.ERROR, "tool_calls": Stop.TOOLS}
_REASONS = {Stop.LENGTH: "length", Stop.FILTER: "content_filter", Stop.ERROR: "error"}
_NANO = 1_000_000_000
OVERFLOW = "context_length_exceeded"
_TOO_LONG = re.compile(r"context (length|window|size)|exceeds? .*context|prompt is too long", re.IGNORECASE)


def read_usage(document: Mapping[str, Any]) -> Usage | None:
    """What was used; None when it does not say. A prompt that was in the cache as a whole is told with no count."""
    read, wrote = document.get("prompt_eval_count"), document.get("eval_count")
    if type(read) is not int and type(wrote) is not int:
        return None
    spent = sum(_count(document, f"{of}_duration") for of in ("prompt_eval", "eval"))
    return Usage(_count(document, "prompt_eval_count"), _count(document, "eval_count"), seconds=spent / _NANO)


def _count(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key)
    return value if type(value) is int else 0


def write_usage(usage: Usage | None) -> dict[str, int]:
    """What was used, in Ollama's words; times only where they are known."""
    if usage is None:
        return {}
    told = {"prompt_eval_count": usage.input, "eval_count": usage.output}
    if usage.seconds:
        spent = round(usage.seconds * _NANO)
        told |= {"total_duration": spent, "eval_duration": spent}
    return told


def read_fault(error: Any, status: int = 0) -> Fault:
    """An error's value, whatever it is."""
    said = error.get("message") if isinstance(error, dict) else error
    if not isinstance(said, str) or not said:
        said = f"an error with the status {status}"
    return Fault(said, OVERFLOW if _TOO_LONG.search(said) else None)


def moment(created: int) -> str:
    """A moment as Ollama writes it."""
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _created(document: Mapping[str, Any]) -> int:
    said = document.get("created_at")
    if not isinstance(said, str):
        return 0
    try:
        return int(datetime.fromisoformat(said).timestamp())
    except (ValueError, OverflowError):
        return 0


def _stop(reason: Any, called: bool) -> Stop:
    found = _STOPS.get(reason, Stop.END) if isinstance(reason, str) else Stop.END
    return Stop.TOOLS if called and found is Stop.END else found


def read_reply(document: Mapping[str, Any], chat: bool) -> Reply:
    """A whole answer, of `chat` or of `generate`.

    Raises:
        ValueError: it is none.
    """
    try:
        said = document["message"] if chat else document
        parts: list[Part] = []
        if thought := said.get("thinking"):
            parts.append(Thought(_string(thought)))
        if text := said.get("content" if chat else "response"):
            parts.append(Text(_string(text)))
        calls = _calls(said, 0)
        model = document.get("model") or ""
        return Reply(
            model=_string(model),
            parts=(*parts, *calls),
            stop=_stop(document.get("done_reason"), bool(calls)),
            usage=read_usage(document),
            created=_created(document),
            logprobs=document.get("logprobs"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an answer that lacks something: {error}") from error


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _calls(said: Mapping[str, Any], begun: int) -> list[Call]:
    found = []
    for number, call in enumerate(said.get("tool_calls") or (), begun):
        function = call["function"]
        given = function.get("arguments") or {}
        words = given if isinstance(given, str) else orjson.dumps(given).decode()
        name = call.get("id")
        found.append(
            Call(name if isinstance(name, str) and name else f"call_{number}", _string(function["name"]), words)
        )
    return found


def write_reply(reply: Reply, model: str, chat: bool) -> dict[str, Any]:
    """A whole answer for a client."""
    document: dict[str, Any] = {"model": reply.model or model, "created_at": moment(reply.created)}
    text = "".join(part.text for part in reply.parts if isinstance(part, Text))
    thought = "".join(part.text for part in reply.parts if isinstance(part, Thought))
    said: dict[str, Any] = {"role": "assistant", "content": text} if chat else {"response": text}
    if thought:
        said["thinking"] = thought
    calls = [_call(part) for part in reply.parts if isinstance(part, Call)]
    if calls:
        said["tool_calls"] = calls
    document |= {"message": said} if chat else said
    document |= {"done": True, "done_reason": _REASONS.get(reply.stop, "stop")}
    if reply.logprobs is not None:
        document["logprobs"] = reply.logprobs
    return document | write_usage(reply.usage)


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments(call.arguments)}}


class Reader:
    """Reads one stream of an engine, line by line. See the protocol in `form.py`."""

    __slots__ = ("_begun", "_calls", "_chat")

    def __init__(self, chat: bool) -> None:
        self._chat = chat
        self._begun = False
        self._calls = 0

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events in one line.

        Raises:
            ValueError: it is not what this form may say.
        """
        document = orjson.loads(data)
        if not isinstance(document, dict):
            raise ValueError("a line that is no object")  # noqa: TRY004 - what the protocol promises
        if "error" in document:
            fault = read_fault(document["error"])
            return (Failed(fault.message, None, fault.code),)
        events: list[Event] = []
        try:
            if not self._begun:
                self._begun = True
                events.append(Begun("", _string(document.get("model") or ""), None, _created(document)))
            self._read(document, events)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a line that lacks something: {error}") from error
        return events

    def _read(self, document: dict[str, Any], events: list[Event]) -> None:
        said = document["message"] if self._chat else document
        if thought := said.get("thinking"):
            events.append(ThoughtDelta(_string(thought)))
        if text := said.get("content" if self._chat else "response"):
            events.append(TextDelta(_string(text), document.get("logprobs")))
        if said.get("tool_calls"):
            for call in _calls(said, self._calls):
                events += (CallBegun(self._calls, call.id, call.name), CallDelta(self._calls, call.arguments))
                self._calls += 1
        if document.get("done"):
            if (usage := read_usage(document)) is not None:
                events.append(Spent(usage))
            events.append(Ended(_stop(document.get("done_reason"), self._calls > 0)))


class Writer:
    """Writes one stream for a client, a line for each event. See the protocol in `form.py`.

    A call is told when it is whole.
    """

    __slots__ = ("_chat", "_ended", "_lead", "_model", "_open", "_usage")

    def __init__(self, model: str, chat: bool) -> None:
        self._chat = chat
        self._model = model
        self._lead = b""
        self._open: list[str] = []
        self._ended = Stop.END
        self._usage: Usage | None = None

    def feed(self, event: Event) -> bytes:
        """What the client is told of `event`."""
        if type(event) is TextDelta:
            if not event.text:
                return b""
            if event.logprobs is None and not self._open:
                return self._text(event.text)
            more = {} if event.logprobs is None else {"logprobs": event.logprobs}
            return self._whole() + self._line({"content": event.text}, more)
        if isinstance(event, ThoughtDelta):
            return self._whole() + self._line({"content": "", "thinking": event.text}) if event.text else b""
        if isinstance(event, CallDelta):
            self._open.append(event.arguments)
            return b""
        if isinstance(event, CallBegun):
            told = self._whole()
            self._open = [event.id, event.name]
            return told
        return self._mark(event)

    def _mark(self, event: Event) -> bytes:
        if isinstance(event, Begun):
            self._begin(event)
        elif isinstance(event, Spent):
            self._usage = event.usage
        elif isinstance(event, Ended):
            self._ended = event.stop
            return self._whole()
        elif isinstance(event, Failed):
            return orjson.dumps({"error": event.message}) + b"\n"
        return b""

    def fail(self, error: CorralError) -> bytes:
        """The last bytes of a stream that breaks: a line that holds the error."""
        return orjson.dumps({"error": str(error)}) + b"\n"

    def close(self, comment: bytes = b"") -> bytes:
        """The last line of a stream that ended well. This form has no comments."""
        told = self._whole()
        end = {"done": True, "done_reason": _REASONS.get(self._ended, "stop"), **write_usage(self._usage)}
        return told + self._line({"content": ""}, end)

    def _begin(self, event: Begun) -> None:
        lead = orjson.dumps({"model": event.model or self._model, "created_at": moment(event.created)})
        said = b',"message":{"role":"assistant","content":' if self._chat else b',"response":'
        self._lead = lead[:-1] + said

    def _text(self, text: str) -> bytes:
        if not self._lead:
            self._begin(Begun())
        return self._lead + orjson.dumps(text) + (b'},"done":false}\n' if self._chat else b',"done":false}\n')

    def _line(self, said: dict[str, Any], more: Mapping[str, Any] | None = None) -> bytes:
        if not self._lead:
            self._begin(Begun())
        words = said.pop("content")
        rest = b"".join(b",%b:%b" % (orjson.dumps(key), orjson.dumps(value)) for key, value in said.items())
        end = orjson.dumps({"done": False, **(more or {})})[1:] + b"\n"
        return self._lead + orjson.dumps(words) + rest + (b"}," if self._chat else b",") + end

    def _whole(self) -> bytes:
        """The call that is complete now, if there is one."""
        if not self._open:
            return b""
        name, function, *given = self._open
        self._open = []
        return self._line({"content": "", "tool_calls": [_call(Call(name, function, "".join(given)))]})


class Meter:
    """Finds, in lines or a whole answer that pass untouched, what is said of them; they are read when somebody asks."""

    __slots__ = ("_called", "_error", "_last")

    def __init__(self) -> None:
        self._called = False
        self._error: bytes | None = None
        self._last: bytes | None = None

    def feed(self, chunk: bytes) -> None:
        """Look at whole lines, or a whole answer. Keeps at most a reference."""
        if b"_count" in chunk or b'"done_reason"' in chunk:
            self._last = chunk
        if not self._called and b'"tool_calls"' in chunk:
            self._called = True
        if self._error is None and (chunk.startswith(b'{"error"') or b'\n{"error"' in chunk):
            self._error = chunk

    @property
    def usage(self) -> Usage | None:
        """What it used; None when it did not say."""
        return next((found for line in _lines(self._last) if (found := read_usage(line)) is not None), None)

    @property
    def stop(self) -> str | None:
        """Why it stopped, as a canonical Stop; None when it did not say."""
        reasons = [line["done_reason"] for line in _lines(self._last) if isinstance(line.get("done_reason"), str)]
        return _stop(reasons[0], self._called).value if reasons else None

    @property
    def failed(self) -> Fault | None:
        """The error that the answer or the stream itself reported, if any."""
        return next((read_fault(line["error"]) for line in _lines(self._error) if "error" in line), None)


def _lines(chunk: bytes | None) -> list[dict[str, Any]]:
    """The objects in a chunk, last first; what cannot be read is left out."""
    found: list[dict[str, Any]] = []
    for line in reversed((chunk or b"").splitlines()):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
