"""The chunks of OpenAI's plain completions, read from engines and written for clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects import _openai_answers as answers
from corral.dialects.canonical import Begun, Ended, Event, Failed, Spent, Stop, TextDelta

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from corral.domain.money import Usage
    from corral.errors import CorralError

DONE = b"data: [DONE]\n\n"


def read_probs(said: Any) -> list[dict[str, Any]] | None:
    """Canonical logprobs of the columns of plain completion; chat's own are taken too."""
    if type(said) is not dict:
        return None
    if type(said.get("content")) is list:
        rows: list[dict[str, Any]] = said["content"]
        return rows
    tokens, numbers, best = said.get("tokens"), said.get("token_logprobs"), said.get("top_logprobs")
    if type(tokens) is not list or type(numbers) is not list:
        return None
    found = []
    for index, (token, number) in enumerate(zip(tokens, numbers, strict=False)):
        others = best[index] if type(best) is list and index < len(best) else None
        top = [{"token": each, "logprob": value} for each, value in others.items()] if type(others) is dict else []
        found.append({"token": token, "logprob": number, "bytes": None, "top_logprobs": top})
    return found


class TextReader:
    """Reads one stream of an engine."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = False

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events in one chunk.

        Raises:
            ValueError: it is none.
        """
        if data == b"[DONE]":
            return ()
        document = orjson.loads(data)
        if type(document) is not dict:
            raise ValueError("a chunk is not an object")
        choices = document.get("choices")
        if document.get("error") or (choices is None and document.get("object") == "error"):
            return (answers.failed_of(document.get("error") or document),)
        events: list[Event] = []
        if not self._begun:
            self._begun = True
            given, model = document.get("id"), document.get("model")
            created = answers.count(document.get("created"))
            name = model if type(model) is str else ""
            events.append(Begun(given if type(given) is str else "", name, None, created))
        usage = document.get("usage")
        if type(choices) is list:
            for choice in choices:
                _read(choice, events)
        elif choices is not None or type(usage) is not dict:
            raise ValueError("a chunk has no choices")
        if type(usage) is dict:
            events.append(Spent(answers.read_usage(usage, document.get("timings"))))
        return events


def _read(choice: Any, events: list[Event]) -> None:
    if type(choice) is not dict:
        raise ValueError("a choice is not an object")
    if choice.get("index") not in (0, None):
        return
    text = choice.get("text")
    if type(text) is str and text:
        events.append(TextDelta(text, read_probs(choice.get("logprobs"))))
    elif text is not None and type(text) is not str:
        raise ValueError("the text of a choice is none")
    reason = choice.get("finish_reason")
    if type(reason) is str and reason:
        events.append(_end(answers.read_stop(reason), choice))


def _end(stop: Stop, choice: Mapping[str, Any]) -> Ended:
    sequence = choice.get("stop_reason", choice.get("matched_stop"))
    if stop is Stop.END and type(sequence) is str:
        return Ended(Stop.SEQUENCE, sequence)
    return Ended(stop)


class TextWriter:
    """Writes one stream for a client; its usage only if it asked for it."""

    __slots__ = ("_ended", "_head", "_probs", "_usage", "_usage_wanted")

    def __init__(self, usage_wanted: bool, probs: Callable[[Any], Any]) -> None:
        self._usage_wanted = usage_wanted
        self._probs = probs
        self._usage: Usage | None = None
        self._head = b""
        self._ended = False

    def feed(self, event: Event) -> bytes:
        """The chunk that says it."""
        if isinstance(event, TextDelta):
            probs = b"null" if event.logprobs is None else orjson.dumps(self._probs(event.logprobs))
            return self._chunk(orjson.dumps(event.text), probs, b"null")
        if isinstance(event, Begun):
            self._start(event)
            self._usage = event.usage
        elif isinstance(event, Ended):
            return self._end(event.stop)
        elif isinstance(event, Spent):
            self._usage = event.usage
        elif isinstance(event, Failed):
            self._ended = True
            return b"data: " + orjson.dumps(answers.write_failed(event)) + b"\n\n"
        return b""

    def _start(self, begun: Begun | None = None) -> bytes:
        self._head = answers.chunk_head(b"text_completion", begun or Begun())
        return self._head

    def _chunk(self, text: bytes, probs: bytes, reason: bytes) -> bytes:
        head = self._head or self._start()
        return b'%s[{"index":0,"text":%s,"logprobs":%s,"finish_reason":%s}]}\n\n' % (head, text, probs, reason)

    def _end(self, stop: Stop) -> bytes:
        if self._ended:
            return b""
        self._ended = True
        return self._chunk(b'""', b"null", orjson.dumps(answers.TEXT_REASONS[stop]))

    def fail(self, error: CorralError) -> bytes:
        """The error, which OpenAI's clients raise."""
        return b"data: " + orjson.dumps(answers.write_error(error)) + b"\n\n"

    def close(self, comment: bytes = b"") -> bytes:
        """The end, with the usage if it is wanted, then `comment`, then `[DONE]`."""
        end = self._end(Stop.END)
        if self._usage_wanted and self._usage is not None:
            end += b'%s[],"usage":%s}\n\n' % (self._head, orjson.dumps(answers.write_usage(self._usage)))
        return end + comment + DONE
