"""The chunks of OpenAI's chat, read from engines and written for clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects import _openai_answers as answers
from corral.dialects._openai_messages import arguments_of, signature_of, write_details
from corral.dialects.canonical import (
    Begun,
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
    from collections.abc import Mapping, Sequence

    from corral.domain.money import Usage
    from corral.errors import CorralError

_NONE: tuple[Event, ...] = ()
DONE = b"data: [DONE]\n\n"


class ChatReader:
    """Reads one stream of an engine. What engines leave out (ids, indexes, names in later pieces) is made up for."""

    __slots__ = ("_begun", "_calls", "_id", "_ids", "_last", "_places")

    def __init__(self) -> None:
        self._begun = False
        self._id = ""
        self._calls: list[str] = []
        """The engine's id of each call so far; empty where it gave none."""
        self._ids: dict[str, int] = {}
        self._places: dict[int, int] = {}
        """The engine's index of a call → ours."""
        self._last = -1

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events in one chunk.

        Raises:
            ValueError: it is none.
        """
        if data == b"[DONE]":
            return _NONE
        document = orjson.loads(data)
        if type(document) is not dict:
            raise ValueError("a chunk is not an object")
        choices = document.get("choices")
        if document.get("error") or (choices is None and document.get("object") == "error"):
            return (answers.failed_of(document.get("error") or document),)
        events: list[Event] = []
        if not self._begun:
            self._begin(document, events)
        usage, timings = document.get("usage"), document.get("timings")
        if type(choices) is list:
            for choice in choices:
                self._read(choice, events)
        elif choices is not None or type(usage) is not dict:
            raise ValueError("a chunk has no choices")
        if type(usage) is dict or type(timings) is dict:
            events.append(Spent(answers.read_usage(usage if type(usage) is dict else {}, timings)))
        return events

    def _begin(self, document: Mapping[str, Any], events: list[Event]) -> None:
        self._begun = True
        given, model = document.get("id"), document.get("model")
        self._id = given if type(given) is str else ""
        created = answers.count(document.get("created"))
        events.append(Begun(self._id, model if type(model) is str else "", None, created))

    def _read(self, choice: Any, events: list[Event]) -> None:
        if type(choice) is not dict:
            raise ValueError("a choice is not an object")
        if choice.get("index") not in (0, None):
            return
        # Engines that send a whole answer as one chunk say `message`.
        delta = choice.get("delta", choice.get("message"))
        if type(delta) is dict:
            self._read_delta(delta, choice, events)
        elif delta is not None:
            raise ValueError("a delta is not an object")
        reason = choice.get("finish_reason")
        if type(reason) is str and reason:
            events.append(self._end(reason, choice))

    def _read_delta(self, delta: Mapping[str, Any], choice: Mapping[str, Any], events: list[Event]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if type(thought) is str and thought:
            events.append(ThoughtDelta(thought))
        if delta.get("reasoning_details"):
            _read_proofs(delta["reasoning_details"], events)
        content = delta.get("content")
        if content:
            self._read_content(content, choice, events)
        refusal = delta.get("refusal")
        if type(refusal) is str and refusal:
            events.append(TextDelta(refusal))
        if delta.get("tool_calls"):
            self._read_calls(delta["tool_calls"], events)
        elif delta.get("function_call"):
            self._read_calls([{"index": 0, "function": delta["function_call"]}], events)

    def _read_content(self, content: Any, choice: Mapping[str, Any], events: list[Event]) -> None:
        if type(content) is str:
            said = choice.get("logprobs")
            probs = said.get("content") if type(said) is dict else None
            events.append(TextDelta(content, probs if type(probs) is list and probs else None))
            return
        if type(content) is not list:
            raise ValueError("the content of a delta is neither text nor null")
        for piece in content:
            inner = piece.get("thinking") if type(piece) is dict else None
            text = piece.get("text") if type(piece) is dict else piece
            if type(inner) is list:
                words = [each.get("text") for each in inner if type(each) is dict]
                events.append(ThoughtDelta("".join(word for word in words if type(word) is str)))
            elif type(text) is str:
                events.append(TextDelta(text))

    def _end(self, reason: str, choice: Mapping[str, Any]) -> Ended:
        stop = answers.read_stop(reason)
        if stop is Stop.END and self._calls:
            stop = Stop.TOOLS
        sequence = choice.get("stop_reason", choice.get("matched_stop"))
        if stop is Stop.END and type(sequence) is str:
            return Ended(Stop.SEQUENCE, sequence)
        return Ended(stop)

    def _read_calls(self, calls: Any, events: list[Event]) -> None:
        if type(calls) is not list:
            raise ValueError("the tool calls of a delta are no array")
        for call in calls:
            function = call.get("function") if type(call) is dict else None
            if type(call) is not dict or (function is not None and type(function) is not dict):
                raise ValueError("a tool call is not an object")
            function = function or {}
            number = self._number(call, function, events)
            arguments = function.get("arguments")
            if arguments is not None and arguments != "":
                events.append(CallDelta(number, arguments_of(arguments)))

    def _number(self, call: Mapping[str, Any], function: Mapping[str, Any], events: list[Event]) -> int:
        """Our number of the call that a piece is of; it begins where the piece does not go on with a known one."""
        given, name, place = call.get("id"), function.get("name"), call.get("index")
        given = given if type(given) is str else ""
        named = type(name) is str and name != ""
        if type(place) is int:
            known = self._places.get(place)
        elif given and given in self._ids:
            known = self._ids[given]
        else:
            known = None if given or named or self._last < 0 else self._last
        # Some engines give each call the index 0; another id tells them apart.
        if known is not None and not (named and given and self._calls[known] and given != self._calls[known]):
            self._last = known
            return known
        if not named:
            raise ValueError("a tool call has no name")
        number = self._last = len(self._calls)
        self._calls.append(given)
        self._ids.setdefault(given, number)
        if type(place) is int:
            self._places[place] = number
        events.append(CallBegun(number, given or answers.call_id(self._id, number), str(name), signature_of(call)))
        return number


def _read_proofs(details: Any, events: list[Event]) -> None:
    """What proves the thoughts; their text stands beside, under its own name."""
    for each in details if type(details) is list else ():
        if type(each) is dict:
            proof, hidden = each.get("signature"), each.get("data")
            if type(proof) is str:
                events.append(ThoughtDelta(signature=proof))
            if type(hidden) is str:
                events.append(ThoughtDelta(hidden=hidden))


class ChatWriter:
    """Writes one stream for a client; its usage only if it asked for it."""

    __slots__ = ("_called", "_ended", "_head", "_usage", "_usage_wanted")

    def __init__(self, usage_wanted: bool) -> None:
        self._usage_wanted = usage_wanted
        self._usage: Usage | None = None
        self._head = b""
        self._ended = False
        self._called = False

    def feed(self, event: Event) -> bytes:
        """The chunk that says it."""
        kind = type(event)
        if kind is TextDelta:
            said = event.logprobs  # type: ignore[union-attr]
            probs = b"null" if said is None else orjson.dumps({"content": said, "refusal": None})
            return b'%s{"content":%s},"logprobs":%s,"finish_reason":null}]}\n\n' % (
                self._head or self._start(),
                orjson.dumps(event.text),  # type: ignore[union-attr]
                probs,
            )
        if kind is Spent:
            self._usage = event.usage  # type: ignore[union-attr]
            return b""
        return self._told(event)

    def _told(self, event: Event) -> bytes:
        if isinstance(event, Begun):
            self._start(event)
            self._usage = event.usage
            return self._delta({"role": "assistant", "content": ""})
        if isinstance(event, ThoughtDelta):
            return self._thought(event)
        if isinstance(event, CallDelta):
            return self._delta({"tool_calls": [{"index": event.index, "function": {"arguments": event.arguments}}]})
        if isinstance(event, CallBegun):
            return self._call(event)
        if isinstance(event, Ended):
            return self._end(event.stop)
        if isinstance(event, Failed):
            self._ended = True
            return b"data: " + orjson.dumps(answers.write_failed(event)) + b"\n\n"
        return b""

    def _start(self, begun: Begun | None = None) -> bytes:
        self._head = answers.chunk_head(b"chat.completion.chunk", begun or Begun())
        self._head += b'[{"index":0,"delta":'
        return self._head

    def _delta(self, delta: dict[str, Any], reason: bytes = b"null") -> bytes:
        head = self._head or self._start()
        return b'%s%s,"logprobs":null,"finish_reason":%s}]}\n\n' % (head, orjson.dumps(delta), reason)

    def _thought(self, event: ThoughtDelta) -> bytes:
        delta: dict[str, Any] = {}
        if event.text:
            delta["reasoning_content"] = event.text
        if event.signature is not None or event.hidden is not None:
            delta["reasoning_details"] = write_details([Thought("", event.signature, event.hidden)])
        return self._delta(delta) if delta else b""

    def _call(self, event: CallBegun) -> bytes:
        self._called = True
        function = {"name": event.name, "arguments": ""}
        call: dict[str, Any] = {"index": event.index, "id": event.id, "type": "function", "function": function}
        if event.signature is not None:
            call["extra_content"] = {"google": {"thought_signature": event.signature}}
        return self._delta({"tool_calls": [call]})

    def _end(self, stop: Stop) -> bytes:
        if self._ended:
            return b""
        self._ended = True
        return self._delta({}, orjson.dumps(answers.REASONS[stop]))

    def fail(self, error: CorralError) -> bytes:
        """The error, which OpenAI's clients raise."""
        return b"data: " + orjson.dumps(answers.write_error(error)) + b"\n\n"

    def close(self, comment: bytes = b"") -> bytes:
        """The end, with the usage if it is wanted, then `comment`, then `[DONE]`."""
        end = self._end(Stop.TOOLS if self._called else Stop.END)
        usage = self._usage
        if self._usage_wanted and usage is not None:
            head = self._head[: -len(b'[{"index":0,"delta":')]
            end += b'%s[],"usage":%s}\n\n' % (head, orjson.dumps(answers.write_usage(usage)))
        return end + comment + DONE
