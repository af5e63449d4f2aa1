"""Anthropic's messages.

anthropic.py           the form: replies and errors
_anthropic_reading.py  requests, read
_anthropic_writing.py  requests, written
_anthropic_streams.py  streams, and what replies share with them
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._anthropic_reading import NAME, read
from corral.dialects._anthropic_streams import (
    KINDS,
    OVERFLOW,
    REASONS,
    STATUSES,
    STOPS,
    Reader,
    Writer,
    describe,
    envelope,
    read_usage,
    write_usage,
)
from corral.dialects._anthropic_writing import arguments, write
from corral.dialects.canonical import Call, Reply, Request, Stop, Text, Thought
from corral.dialects.form import Fault, Form, Kind, Profile, Written
from corral.dialects.meter import Keys
from corral.dialects.meter import Meter as Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.dialects.canonical import Part
    from corral.errors import CorralError

_TOO_LONG = re.compile(
    r"prompt is too long|exceeds? (the )?(maximum )?context|context (window|limit|length)|"
    r"input length and `?max_tokens`? exceed",
    re.IGNORECASE,
)
_ERROR = re.compile(rb'"type"\s*:\s*"error"')


def read_count(document: Mapping[str, Any]) -> Request:
    """The request whose tokens are to be counted, from the body of `count_tokens`: one without `max_tokens`.

    Raises:
        InvalidRequest: it is no such request; names the field.
    """
    return read(document, counted=True)


class Messages:
    """Anthropic's messages. See the protocol in `form.py`."""

    name = NAME
    dialect = "anthropic"
    kind = Kind.CHAT
    media: bytes | None = b"text/event-stream"

    def read_request(self, document: Mapping[str, Any]) -> Request:
        """The request in a parsed body."""
        return read(document)

    def write_request(self, request: Request, profile: Profile) -> Written:
        """The request for a vendor."""
        return write(request, profile)

    def read_reply(self, document: Mapping[str, Any]) -> Reply:
        """A vendor's whole answer."""
        try:
            parts = [part for block in document["content"] if (part := _part(block)) is not None]
            return Reply(
                id=document.get("id") or "",
                model=document.get("model") or "",
                parts=tuple(parts),
                stop=STOPS.get(document.get("stop_reason") or "end_turn", Stop.END),
                sequence=document.get("stop_sequence"),
                usage=read_usage(document.get("usage")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a message that lacks something: {error}") from error

    def write_reply(self, reply: Reply, request: Request) -> dict[str, Any]:
        """A whole answer for a client."""
        return {
            "id": reply.id,
            "type": "message",
            "role": "assistant",
            "model": reply.model or request.model,
            "content": [block for part in reply.parts if (block := _block(part)) is not None],
            "stop_reason": REASONS[reply.stop],
            "stop_sequence": reply.sequence,
            "usage": write_usage(reply.usage),
        }

    def stream_reader(self) -> Reader:
        """For one stream of a vendor."""
        return Reader()

    def stream_writer(self, request: Request) -> Writer:
        """For one stream to a client."""
        return Writer(request)

    def meter(self) -> Meter:
        """For one answer that is relayed untouched."""
        return Meter(_KEYS)

    def write_error(self, error: CorralError) -> dict[str, Any]:
        """An error as this dialect's clients expect it."""
        return describe(error)

    def read_error(self, status: int, document: Any) -> Fault:
        """A vendor's error body."""
        error = document.get("error") if isinstance(document, dict) else None
        return _fault(error, status)

    def write_fault(self, fault: Fault, status: int) -> dict[str, Any]:
        """A vendor's refusal as this dialect's clients expect it."""
        kind = fault.kind if fault.kind in STATUSES else KINDS.get(status)
        return envelope(kind, status, fault.message, fault.code)


class Meter(Reading):
    """As the meter of all forms, but knows an error by its type: a call's arguments may have a field of that name."""

    __slots__ = ()

    @property
    def failed(self) -> Fault | None:
        """The error that the answer or the stream itself reported, if any."""
        return super().failed if self._error is not None and _ERROR.search(self._error) else None


def _fault(error: Any, status: int = 0) -> Fault:
    if isinstance(error, dict):
        kind, message = error.get("type"), error.get("message")
        said = message if isinstance(message, str) and message else str(kind or "an error without a message")
        kind = kind if isinstance(kind, str) else None
    else:
        said, kind = error if isinstance(error, str) and error else f"an error with the status {status}", None
    refused = kind in (None, "invalid_request_error", "request_too_large")
    return Fault(said, OVERFLOW if refused and _TOO_LONG.search(said) else kind, kind)


def _stop(word: str) -> str:
    return STOPS.get(word, Stop.END).value


_KEYS = Keys(
    usage="usage",
    stop="stop_reason",
    read_usage=lambda found: read_usage(*found),
    read_stop=_stop,
    read_fault=_fault,
)


def _part(block: Mapping[str, Any]) -> Part | None:
    kind = block["type"]
    if kind == "text":
        return Text(block["text"])
    if kind == "tool_use":
        return Call(block["id"], block["name"], orjson.dumps(block["input"]).decode())
    if kind == "thinking":
        return Thought(block["thinking"], block.get("signature") or None)
    return Thought(hidden=block["data"]) if kind == "redacted_thinking" else None


def _block(part: Part) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Call):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments(part.arguments)}
    if isinstance(part, Thought):
        if part.hidden is not None:
            return {"type": "redacted_thinking", "data": part.hidden}
        return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
    return None


FORMS: dict[str, Form] = {NAME: Messages()}
