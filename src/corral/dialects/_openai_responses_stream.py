"""The events of OpenAI's responses, read from engines and written for clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from corral.dialects import _openai_answers as answers
from corral.dialects._openai_custom import custom_item
from corral.dialects._openai_items import call_item, message_item, read_made, reasoning_item
from corral.dialects._openai_messages import arguments_of
from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Ended,
    Event,
    Failed,
    Spent,
    Stop,
    TextDelta,
    Thought,
    ThoughtDelta,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from corral.domain.money import Usage
    from corral.errors import CorralError

STATUS = {Stop.LENGTH: "incomplete", Stop.FILTER: "incomplete", Stop.ERROR: "failed"}
"""The status of a response that stopped for a reason other than its end."""
REASONS = {Stop.LENGTH: "max_output_tokens", Stop.FILTER: "content_filter"}
"""Why a response is incomplete."""


class ResponsesReader:
    """Reads one stream of an engine."""

    __slots__ = ("_begun", "_calls", "_failed", "_id", "_refused", "_said", "_written")

    def __init__(self) -> None:
        self._begun = False
        self._failed = False
        self._refused = False
        self._id = ""
        self._calls: dict[Any, int] = {}
        """The place of a call in the output → its number."""
        self._written: dict[int, bool] = {}
        self._said: set[Any] = set()

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events in one event of the engine.

        Raises:
            ValueError: it is none.
        """
        if data == b"[DONE]":
            return ()
        document = orjson.loads(data)
        if type(document) is not dict:
            raise ValueError("an event is not an object")
        kind = document.get("type")
        if kind == "response.output_text.delta":
            return self._text(document)
        if type(kind) is not str:
            if document.get("error"):
                return self._fail(document["error"])
            raise ValueError("an event has no type")
        read = self._READERS.get(kind)
        return () if read is None else read(self, document)

    def _text(self, document: Mapping[str, Any]) -> Sequence[Event]:
        delta = document.get("delta")
        if type(delta) is not str:
            raise ValueError("a delta is not text")
        if not delta:
            return ()
        self._said.add(document.get("output_index") if type(document.get("output_index")) is int else None)
        probs = document.get("logprobs")
        return (TextDelta(delta, probs if type(probs) is list and probs else None),)

    def _whole(self, document: Mapping[str, Any]) -> Sequence[Event]:
        place, text = document.get("output_index"), document.get("text")
        if (place if type(place) is int else None) in self._said or type(text) is not str or not text:
            return ()
        return (TextDelta(text),)

    def _begin(self, document: Mapping[str, Any]) -> Sequence[Event]:
        response = document.get("response")
        if self._begun or type(response) is not dict:
            return ()
        self._begun = True
        given, model = response.get("id"), response.get("model")
        self._id = given if type(given) is str else ""
        created = answers.count(response.get("created_at"))
        return (Begun(self._id, model if type(model) is str else "", None, created),)

    def _thought(self, document: Mapping[str, Any]) -> Sequence[Event]:
        delta = document.get("delta")
        return (ThoughtDelta(delta),) if type(delta) is str and delta else ()

    def _next_thought(self, document: Mapping[str, Any]) -> Sequence[Event]:
        return (ThoughtDelta("\n\n"),) if answers.count(document.get("summary_index")) else ()

    def _refuse(self, document: Mapping[str, Any]) -> Sequence[Event]:
        self._refused = True
        return self._text(document)

    def _add(self, document: Mapping[str, Any]) -> Sequence[Event]:
        item = document.get("item")
        if type(item) is not dict or item.get("type") != "function_call":
            return ()
        places = _places(document, item)
        if any(place in self._calls for place in places):
            return ()
        number = len(self._written)
        self._calls.update(dict.fromkeys(places, number))
        self._written[number] = False
        call = read_made(item, self._id, number)
        return (CallBegun(number, call.id, call.name),)

    def _arguments(self, document: Mapping[str, Any]) -> Sequence[Event]:
        number = next((self._calls[place] for place in _places(document, document) if place in self._calls), None)
        if number is None:
            raise ValueError("arguments of a call that was not announced")
        delta = document.get("delta")
        if delta is None or delta == "":
            return ()
        self._written[number] = True
        return (CallDelta(number, arguments_of(delta)),)

    def _done(self, document: Mapping[str, Any]) -> Sequence[Event]:
        item = document.get("item")
        if type(item) is not dict:
            return ()
        if item.get("type") == "reasoning":
            hidden = item.get("encrypted_content")
            return (ThoughtDelta(hidden=hidden),) if type(hidden) is str else ()
        if item.get("type") != "function_call":
            return ()
        events = list(self._add(document))
        number = next(self._calls[place] for place in _places(document, item) if place in self._calls)
        if not self._written[number] and item.get("arguments"):
            self._written[number] = True
            events.append(CallDelta(number, arguments_of(item["arguments"])))
        return events

    def _complete(self, document: Mapping[str, Any]) -> Sequence[Event]:
        response = document.get("response")
        if type(response) is not dict:
            raise ValueError("the last event has no response")
        events = list(self._begin(document))
        events.append(Ended(stop_of(response, bool(self._written), self._refused)))
        if type(response.get("usage")) is dict:
            events.append(Spent(answers.read_usage(response["usage"])))
        return events

    def _break(self, document: Mapping[str, Any]) -> Sequence[Event]:
        response = document.get("response")
        inner = response.get("error") if type(response) is dict else document.get("error") or document
        return self._fail(inner)

    def _fail(self, error: Any) -> Sequence[Event]:
        # OpenAI says it twice: as an error, and as the state of the response.
        if self._failed:
            return ()
        self._failed = True
        return (answers.failed_of(error),)

    _READERS: ClassVar[dict[str, Callable[[ResponsesReader, Mapping[str, Any]], Sequence[Event]]]] = {
        "response.created": _begin,
        "response.in_progress": _begin,
        "response.queued": _begin,
        "response.output_text.done": _whole,
        "response.refusal.delta": _refuse,
        "response.reasoning_summary_part.added": _next_thought,
        "response.reasoning_summary_text.delta": _thought,
        "response.reasoning_text.delta": _thought,
        "response.output_item.added": _add,
        "response.function_call_arguments.delta": _arguments,
        "response.output_item.done": _done,
        "response.completed": _complete,
        "response.incomplete": _complete,
        "response.failed": _break,
        "response.cancelled": _break,
        "error": _break,
    }


def _places(document: Mapping[str, Any], item: Mapping[str, Any]) -> list[int | str]:
    """What tells an item from the others: its place in the output, and its id. Engines leave out either."""
    found = (document.get("output_index"), document.get("item_id"), item.get("id"))
    return [place for place in found if isinstance(place, int | str)] or [""]


def stop_of(response: Mapping[str, Any], called: bool, refused: bool) -> Stop:
    """Why a model stopped, by the state of its response."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if type(details) is dict else None
    if type(reason) is str:
        return answers.read_stop(reason)
    if response.get("status") in ("failed", "cancelled"):
        return Stop.ERROR
    if response.get("status") == "incomplete":
        return Stop.LENGTH
    return Stop.TOOLS if called else Stop.FILTER if refused else Stop.END


class ResponsesWriter:
    """Writes one stream for a client: each item announced, filled and finished, and the whole response at the end."""

    __slots__ = (
        "_begun",
        "_calls",
        "_failed",
        "_free",
        "_head",
        "_items",
        "_make",
        "_number",
        "_open",
        "_said",
        "_stop",
        "_usage",
    )

    def __init__(
        self,
        make: Callable[[Begun, str, list[Any], Usage | None, Stop | None], dict[str, Any]],
        free: frozenset[str] = frozenset(),
    ) -> None:
        self._make = make
        """What gives the response: its beginning, status, output, usage and reason to stop."""
        self._free = free
        """Tools that take plain text."""
        self._begun: Begun | None = None
        self._number = 0
        self._items: list[dict[str, Any] | None] = []
        self._open = ""
        """The kind of the last item, while it is filled: `message` or `reasoning`."""
        self._said: list[Any] = []
        self._calls: dict[int, tuple[int, CallBegun, list[str]]] = {}
        self._head = b""
        self._usage: Usage | None = None
        self._stop: Stop | None = None
        self._failed = False

    def feed(self, event: Event) -> bytes:
        """The events that say it."""
        if isinstance(event, TextDelta):
            before = b"" if self._open == "message" else self._open_message()
            self._said.append(event.text)
            self._number += 1
            probs = b"[]" if not event.logprobs else orjson.dumps(event.logprobs)
            return b'%s%s%s,"logprobs":%s,"sequence_number":%d}\n\n' % (
                before,
                self._head,
                orjson.dumps(event.text),
                probs,
                self._number - 1,
            )
        if isinstance(event, CallDelta):
            return self._arguments(event)
        if isinstance(event, ThoughtDelta):
            return self._thought(event)
        if isinstance(event, CallBegun):
            return self._call(event)
        if isinstance(event, Begun):
            return self._begin(event)
        return self._noted(event)

    def _noted(self, event: Event) -> bytes:
        if isinstance(event, Ended):
            self._stop = event.stop
        elif isinstance(event, Spent):
            self._usage = event.usage
        elif isinstance(event, Failed):
            return self._break(event.message, event.code or "server_error")
        return b""

    def _event(self, kind: str, **fields: Any) -> bytes:
        fields = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(fields))

    def _begin(self, begun: Begun | None = None) -> bytes:
        if self._begun is not None:
            return b""
        self._begun = begun or Begun()
        self._usage = self._begun.usage
        response = self._make(self._begun, "in_progress", [], None, None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _given(self, kind: str, place: int) -> str:
        return item_id(kind, self._begun.id if self._begun else "", place)

    def _open_message(self) -> bytes:
        out = self._begin() + self._finish()
        place, self._open = len(self._items), "message"
        given = self._given("msg", place)
        self._items.append(None)
        where = {"item_id": given, "output_index": place, "content_index": 0}
        empty = message_item(given, "", "in_progress")
        part = empty["content"].pop()
        out += self._event("response.output_item.added", output_index=place, item=empty)
        out += self._event("response.content_part.added", **where, part=part)
        head = orjson.dumps({"type": "response.output_text.delta", **where})[:-1]
        self._head = b"event: response.output_text.delta\ndata: " + head + b',"delta":'
        return out

    def _thought(self, event: ThoughtDelta) -> bytes:
        if not event.text and event.hidden is None:
            return b""
        out = b""
        if self._open != "reasoning":
            out = self._begin() + self._finish()
            place, self._open = len(self._items), "reasoning"
            self._items.append(None)
            item = reasoning_item(self._given("rs", place), Thought())
            out += self._event("response.output_item.added", output_index=place, item=item)
        place = len(self._items) - 1
        where = {"item_id": self._given("rs", place), "output_index": place, "summary_index": 0}
        if event.text:
            if not any(type(piece) is str for piece in self._said):
                part = {"type": "summary_text", "text": ""}
                out += self._event("response.reasoning_summary_part.added", **where, part=part)
            self._said.append(event.text)
            out += self._event("response.reasoning_summary_text.delta", **where, delta=event.text)
        if event.hidden is not None:
            self._said.append((event.hidden,))
        return out

    def _call(self, event: CallBegun) -> bytes:
        out = self._begin() + (self._finish() if self._open else b"")
        place = len(self._items)
        self._items.append(None)
        self._calls[event.index] = (place, event, [])
        call = Call(event.id, event.name, "")
        if event.name in self._free:
            item = custom_item(self._given("ctc", place), call)
        else:
            item = call_item(self._given("fc", place), call, "in_progress")
        return out + self._event("response.output_item.added", output_index=place, item=item)

    def _arguments(self, event: CallDelta) -> bytes:
        if event.index not in self._calls:
            return b""
        place, begun, said = self._calls[event.index]
        said.append(event.arguments)
        if begun.name in self._free:
            return b""  # text within JSON: it is told when it is whole
        where = {"item_id": self._given("fc", place), "output_index": place}
        return self._event("response.function_call_arguments.delta", **where, delta=event.arguments)

    def _finish(self) -> bytes:
        """Finish the items that are open."""
        out = b""
        if self._open == "message":
            out = self._finish_message("".join(self._said))
        elif self._open == "reasoning":
            out = self._finish_thought()
        self._open = ""
        self._said.clear()
        for place, begun, said in self._calls.values():
            if begun.name in self._free:
                out += self._finish_custom(place, Call(begun.id, begun.name, "".join(said)))
                continue
            given, arguments = self._given("fc", place), "".join(said)
            where = {"item_id": given, "output_index": place}
            item = self._items[place] = call_item(given, Call(begun.id, begun.name, arguments))
            done = {"name": begun.name, "arguments": arguments}
            out += self._event("response.function_call_arguments.done", **where, **done)
            out += self._event("response.output_item.done", output_index=place, item=item)
        self._calls.clear()
        return out

    def _finish_custom(self, place: int, call: Call) -> bytes:
        item = self._items[place] = custom_item(self._given("ctc", place), call)
        where = {"item_id": item["id"], "output_index": place}
        out = self._event("response.custom_tool_call_input.delta", **where, delta=item["input"])
        out += self._event("response.custom_tool_call_input.done", **where, input=item["input"])
        return out + self._event("response.output_item.done", output_index=place, item=item)

    def _finish_message(self, text: str) -> bytes:
        place = len(self._items) - 1
        given = self._given("msg", place)
        where = {"item_id": given, "output_index": place, "content_index": 0}
        cut = self._stop in STATUS
        item = self._items[place] = message_item(given, text, "incomplete" if cut else "completed")
        out = self._event("response.output_text.done", **where, text=text, logprobs=[])
        out += self._event("response.content_part.done", **where, part=item["content"][0])
        return out + self._event("response.output_item.done", output_index=place, item=item)

    def _finish_thought(self) -> bytes:
        place = len(self._items) - 1
        given = self._given("rs", place)
        text = "".join(piece for piece in self._said if type(piece) is str)
        hidden = [piece[0] for piece in self._said if type(piece) is tuple]
        item = self._items[place] = reasoning_item(given, Thought(text, None, "".join(hidden) if hidden else None))
        out = b""
        if text:
            where = {"item_id": given, "output_index": place, "summary_index": 0}
            out = self._event("response.reasoning_summary_text.done", **where, text=text)
            part = {"type": "summary_text", "text": text}
            out += self._event("response.reasoning_summary_part.done", **where, part=part)
        return out + self._event("response.output_item.done", output_index=place, item=item)

    def fail(self, error: CorralError) -> bytes:
        """The error, and the response that failed."""
        return self._break(str(error), error.code)

    def _break(self, message: str, code: str) -> bytes:
        out = self._begin()
        self._failed = True
        out += self._event("error", code=code, message=message, param=None)
        done = [item for item in self._items if item is not None]
        response = self._make(self._begun or Begun(), "failed", done, self._usage, None)
        response["error"] = {"code": error_code(code), "message": message}
        return out + self._event("response.failed", response=response)

    def close(self, comment: bytes = b"") -> bytes:
        """The items that are open, `comment`, and the whole response."""
        if self._failed:
            return comment
        out = self._begin() + self._finish()
        stop = self._stop or Stop.END
        status = STATUS.get(stop, "completed")
        done = [item for item in self._items if item is not None]
        response = self._make(self._begun or Begun(), status, done, self._usage, stop)
        return out + comment + self._event(f"response.{status}", response=response)


def item_id(kind: str, reply_id: str, place: int) -> str:
    """The id of the item at `place` in the output of a response."""
    return f"{kind}_{reply_id.removeprefix('resp_')}_{place}"


_CODES = frozenset(("server_error", "rate_limit_exceeded", "invalid_prompt"))


def error_code(code: str) -> str:
    """The code of a failed response, of those that OpenAI's clients know."""
    return "rate_limit_exceeded" if code == "rate_limited" else code if code in _CODES else "server_error"
