"""Canonical requests, replies and events to try wire forms with, and what it means that two of them are the same."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from corral.dialects.canonical import (
    Begun,
    Call,
    CallBegun,
    CallDelta,
    Choice,
    Embed,
    Ended,
    Event,
    Failed,
    File,
    Format,
    Image,
    Message,
    Rank,
    Reply,
    Request,
    Result,
    Role,
    Spent,
    Stop,
    Text,
    TextDelta,
    Texts,
    Thinking,
    Thought,
    ThoughtDelta,
    Tool,
)
from corral.dialects.form import Form, Kind
from corral.domain.money import Usage
from corral.kit.sse import Splitter

# -- strategies ------------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)
names = st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)
data = st.binary(min_size=1, max_size=20).map(lambda each: base64.b64encode(each).decode())
caches = st.sampled_from((None, None, None, "5m", "1h"))
fractions = st.floats(0, 2, allow_nan=False, width=16)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | words | st.just(""),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
plain_json = st.dictionaries(names, st.none() | st.booleans() | st.integers(-999, 999) | words, max_size=3)
arguments = plain_json.map(json.dumps)
schemas = st.builds(
    lambda keys: {"type": "object", "properties": {key: {"type": "string"} for key in keys}, "required": keys},
    st.lists(names, min_size=1, max_size=3, unique=True),
)
texts = st.builds(Text, words, caches)
images = st.builds(
    Image, st.sampled_from(("image/png", "image/jpeg")), data, detail=st.sampled_from((None, "low", "high"))
) | st.builds(lambda word: Image(url=f"https://pictures.test/{word}.png"), names)
files = st.builds(
    File, st.sampled_from(("application/pdf", "audio/wav")), data, name=st.none() | names.map(lambda n: f"{n}.pdf")
)
thoughts = st.builds(Thought, words, st.none() | data)
counts = st.integers(0, 99999)
usages = st.builds(
    lambda read, wrote, cached, written, thought: Usage(
        read + cached + written, wrote + thought, cached, written, thought
    ),
    *[st.integers(1, 9999)] * 2,
    *[st.integers(0, 999)] * 3,
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Turns in an order that every dialect allows: at the end a user or a tool speaks."""
    turns: list[Message] = []
    if draw(st.booleans()):
        turns.append(Message(Role.SYSTEM, tuple(draw(st.lists(texts, min_size=1, max_size=2)))))
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        seen = draw(st.lists(images | files, max_size=2))
        turns.append(Message(Role.USER, (draw(texts), *seen), draw(st.none() | st.none() | names)))
        while draw(st.booleans()):
            made = [
                Call(f"call_{number + at}", draw(names), draw(arguments), draw(st.none() | data))
                for at in range(draw(st.integers(1, 2)))
            ]
            number += len(made)
            turns.append(Message(Role.ASSISTANT, (*draw(st.lists(thoughts, max_size=1)), *draw(_said), *made)))
            found = [Result(call.id, (Text(draw(words)),), call.name, draw(st.booleans())) for call in made]
            turns.append(Message(Role.TOOL, tuple(found)))
        turns.append(Message(Role.ASSISTANT, (*draw(st.lists(thoughts, max_size=1)), Text(draw(words)))))
    if turns[-1].role is Role.ASSISTANT:
        turns.append(Message(Role.USER, (Text(draw(words)),)))
    return tuple(turns)


_said = st.lists(st.builds(Text, words), max_size=1)
_WISHES: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(1, 9999),
    "temperature": fractions,
    "top_p": st.floats(0.125, 1, width=16),
    "top_k": st.integers(1, 99),
    "min_p": st.floats(0, 1, width=16),
    "seed": st.integers(0, 2**31 - 1),
    "presence_penalty": fractions,
    "frequency_penalty": fractions,
    "repeat_penalty": fractions,
    "user": names,
}


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """What may be asked of a chat."""
    tools = tuple(
        Tool(name, draw(st.none() | words), draw(schemas), draw(st.none() | st.booleans()), draw(caches))
        for name in draw(st.lists(names, max_size=2, unique=True))
    )
    choice = None
    if tools and draw(st.booleans()):
        mode = draw(st.sampled_from(("auto", "none", "required", "named")))
        choice = Choice(mode, tools[0].name if mode == "named" else None)
    probable = draw(st.none() | st.integers(1, 5))
    return Request(
        "model",
        draw(conversations()),
        tools=tools,
        choice=choice,
        parallel=draw(st.none() | st.booleans()) if tools else None,
        format=draw(
            st.none()
            | st.just(Format("json"))
            | st.builds(lambda *of: Format("schema", *of), schemas, names, st.none() | st.booleans(), st.none() | words)
        ),
        thinking=draw(
            st.none()
            | st.builds(Thinking, st.sampled_from(("none", "low", "medium", "high")), shown=st.none() | st.booleans())
            | st.builds(Thinking, budget=st.integers(1024, 9999), shown=st.none() | st.booleans())
        ),
        stop=tuple(draw(st.lists(words, max_size=2))),
        logprobs=True if probable else None,
        top_logprobs=probable,
        stream=draw(st.booleans()),
        **{name: draw(st.none() | wish) for name, wish in _WISHES.items()},
    )


@st.composite
def plain_requests(draw: st.DrawFn) -> Texts:
    """What may be asked of a plain completion."""
    like = Request(
        "model",
        (),
        stop=tuple(draw(st.lists(words, max_size=2))),
        stream=draw(st.booleans()),
        **{name: draw(st.none() | wish) for name, wish in _WISHES.items()},
    )
    return Texts(draw(words), like, draw(st.none() | words), draw(st.booleans()))


embeds = st.builds(
    Embed,
    st.just("model"),
    st.lists(words, min_size=1, max_size=3).map(tuple),
    st.none() | st.integers(1, 999),
    st.booleans(),
    st.none() | names,
)
ranks = st.builds(
    Rank,
    st.just("model"),
    words,
    st.lists(words, min_size=1, max_size=3).map(tuple),
    st.none() | st.integers(1, 9),
    st.booleans(),
)
ASKED: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.CHAT: requests(),
    Kind.TEXT: plain_requests(),
    Kind.EMBEDDINGS: embeds,
    Kind.RERANK: ranks,
}


@st.composite
def replies(draw: st.DrawFn, kind: Kind = Kind.CHAT) -> Reply:
    """A whole answer."""
    said: list[Any] = [Text(draw(words))]
    calls: list[Call] = []
    if kind is Kind.CHAT:
        said = [*draw(st.lists(thoughts, max_size=1)), *draw(_said)]
        calls = [Call(f"call_{at}", draw(names), draw(arguments)) for at in range(draw(st.integers(0, 2)))]
    if not said and not calls:
        said = [Text(draw(words))]
    stop = Stop.TOOLS if calls else draw(st.sampled_from((Stop.END, Stop.LENGTH, Stop.FILTER)))
    return Reply("reply-1", "model", (*said, *calls), stop, None, draw(usages), 1760000000)


def cut(text: str, places: Iterable[int]) -> list[str]:
    """`text` in pieces."""
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


@st.composite
def streams(draw: st.DrawFn, kind: Kind = Kind.CHAT) -> list[Event]:
    """The same as a stream of events."""
    reply = draw(replies(kind))
    places = draw(st.lists(st.integers(0, 40), max_size=4))
    events: list[Event] = [Begun(reply.id, reply.model, None, reply.created)]
    number = 0
    for part in reply.parts:
        if isinstance(part, Thought):
            events += [ThoughtDelta(piece) for piece in cut(part.text, places)]
            if part.signature is not None:
                events.append(ThoughtDelta(signature=part.signature))
        elif isinstance(part, Text):
            events += [TextDelta(piece) for piece in cut(part.text, places)]
        elif isinstance(part, Call):
            events.append(CallBegun(number, part.id, part.name))
            events += [CallDelta(number, piece) for piece in cut(part.arguments, places)]
            number += 1
    last: list[Event] = [Ended(reply.stop), Spent(reply.usage or Usage())]
    return [*events, *(last if draw(st.booleans()) else reversed(last))]


# -- what is the same ------------------------------------------------------------------------------------------------


def blanked(value: Any, names: Iterable[str]) -> Any:
    """A canonical request without what a form said it leaves out; see `canonical.unsaid` for the names."""
    wanted: dict[str, set[str]] = {}
    gone: set[str] = set()
    for name in names:
        of, _, what = name.partition(".")
        if what:
            wanted.setdefault(of, set()).add(what)
        else:
            gone.add(of)
    return _blank(value, wanted, gone, True)


def _blank(value: Any, wanted: dict[str, set[str]], gone: set[str], top: bool) -> Any:
    if isinstance(value, tuple):
        kept = [each for each in value if type(each).__name__.lower() not in gone]
        return tuple(_blank(each, wanted, gone, False) for each in kept)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fresh = {}
    own = wanted.get(type(value).__name__.lower(), set())
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if field.name in own or (field.name in gone and (top or type(value) is Request)):
            missing = field.default is dataclasses.MISSING
            fresh[field.name] = (() if isinstance(inner, tuple) else "") if missing else field.default
        else:
            fresh[field.name] = _blank(inner, wanted, gone, False)
    return type(value)(**fresh)


def normal(value: Any, ignored: Iterable[str] = ()) -> Any:
    """A request with everything left out that two who mean the same may say differently."""
    value = blanked(value, set(ignored) - {"call.id"})
    if isinstance(value, Texts):
        return dataclasses.replace(value, like=normal(value.like))
    if isinstance(value, Request):
        thinking = value.thinking
        if thinking is not None:
            thinking = dataclasses.replace(thinking, shown=None if thinking.shown else thinking.shown)
        return dataclasses.replace(
            value,
            messages=_merged(value.messages, "call.id" in set(ignored)),
            usage_wanted=True,
            extra={},
            origin="",
            lost=(),
            thinking=None if thinking == Thinking() else thinking,
            format=None if value.format == Format() else value.format,
            choice=None if value.choice == Choice() else value.choice,
        )
    return dataclasses.replace(value, extra={}, origin="", lost=())


def compared(request: Any, again: Any, ignored: Sequence[str]) -> tuple[Any, Any]:
    """A request and what was read of it after it was written, without what `ignored` names; they must be equal."""
    expected, found = normal(request, ignored), normal(again, ignored)
    if isinstance(request, Request):
        if request.max_tokens is None:  # some dialects demand one
            found = dataclasses.replace(found, max_tokens=None)
        # The nearest effort may stand for a budget that cannot be said, and the other way round.
        wish = request.thinking or Thinking()
        for asked, other in (("effort", "budget"), ("budget", "effort")):
            if f"thinking.{asked}" in ignored and getattr(wish, other) is None:
                found = normal(found, [f"thinking.{other}"])
    return found, expected


def _merged(messages: Sequence[Message], renumber: bool) -> tuple[Message, ...]:
    system = [part for message in messages if message.role is Role.SYSTEM for part in message.parts]
    turns = [Message(Role.SYSTEM, tuple(system))] if system else []
    for message in (each for each in messages if each.role is not Role.SYSTEM):
        if turns and turns[-1].role is message.role and turns[-1].name == message.name:
            turns[-1] = dataclasses.replace(message, parts=(*turns[-1].parts, *message.parts))
        else:
            turns.append(message)
    ids: dict[str, str] = {}
    merged = (dataclasses.replace(turn, parts=_parts(turn.parts, ids if renumber else None)) for turn in turns)
    return tuple(turn for turn in merged if turn.parts)


_ORDER = {Thought: 0, Text: 1, Image: 2, File: 2, Call: 3, Result: 4}


def _parts(parts: Sequence[Any], ids: dict[str, str] | None) -> tuple[Any, ...]:
    found: list[Any] = []
    for part in sorted(parts, key=lambda each: _ORDER[type(each)]):
        if isinstance(part, Text) and not part.text:
            continue
        if isinstance(part, Thought) and part == Thought():
            continue
        last = found[-1] if found else None
        if isinstance(part, Text) and isinstance(last, Text) and last.cache is None:
            found[-1] = Text(last.text + part.text, part.cache)
        elif isinstance(part, Call):
            given = part.id if ids is None else ids.setdefault(part.id, f"#{len(ids)}")
            found.append(dataclasses.replace(part, id=given, arguments=_sorted(part.arguments)))
        elif isinstance(part, Result):
            given = part.id if ids is None else ids.setdefault(part.id, f"#{len(ids)}")
            found.append(dataclasses.replace(part, id=given, parts=_parts(part.parts, None)))
        else:
            found.append(part)
    return tuple(found)


def _sorted(arguments: str) -> str:
    return json.dumps(json.loads(arguments or "{}"), sort_keys=True)


def told(reply: Reply) -> dict[str, Any]:
    """What an answer says, in values that can be compared."""
    return {
        "thought": "".join(part.text for part in reply.parts if isinstance(part, Thought)),
        "text": "".join(part.text for part in reply.parts if isinstance(part, Text)),
        "calls": [(part.name, json.loads(part.arguments or "{}")) for part in reply.parts if isinstance(part, Call)],
        "stop": str(reply.stop),
        "usage": None if reply.usage is None else (reply.usage.input, reply.usage.output),
    }


def gathered(events: Iterable[Event]) -> Reply:
    """The answer that a stream adds up to.

    Raises:
        AssertionError: it is no stream: no beginning, a piece of a call that never began, or more after its end.
    """
    reply, text, thought, calls = Reply(), "", "", {}
    begun = ended = False
    signature = None
    for event in events:
        if isinstance(event, Begun):
            assert not begun, "it began twice"
            begun = True
            reply = dataclasses.replace(reply, id=event.id, model=event.model, created=event.created, usage=event.usage)
            continue
        assert not isinstance(event, Failed), event
        assert begun, "it did not begin"
        assert not ended or isinstance(event, Spent), f"{event} after the end"
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, ThoughtDelta):
            thought += event.text
            signature = event.signature or signature
        elif isinstance(event, CallBegun):
            assert event.index == len(calls), "calls are counted from 0"
            calls[event.index] = Call(event.id, event.name, "", event.signature)
        elif isinstance(event, CallDelta):
            calls[event.index] = dataclasses.replace(
                calls[event.index], arguments=calls[event.index].arguments + event.arguments
            )
        elif isinstance(event, Ended):
            ended = True
            reply = dataclasses.replace(reply, stop=event.stop, sequence=event.sequence)
        elif isinstance(event, Spent):
            reply = dataclasses.replace(reply, usage=event.usage)
    assert ended, "it did not end"
    parts: list[Any] = [Thought(thought, signature)] if thought or signature else []
    parts += [Text(text)] if text else []
    return dataclasses.replace(reply, parts=(*parts, *calls.values()))


def pieces(form: Form, stream: bytes) -> list[bytes]:
    """What a reader of `form` is fed of a stream: the data of its whole events, or its whole lines."""
    if form.name == "gemini.array":  # a chunk a line, with the array's own marks before it
        marked = stream.split(b"\n")[: stream.count(b"\n")]
        return [line for each in marked if (line := each.lstrip(b"[,").strip(b"] \n"))]
    if form.media != b"text/event-stream":
        return [line for line in stream.split(b"\n")[: stream.count(b"\n")] if line.strip()]
    whole = Splitter().feed(stream)
    found = []
    for event in whole.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines:
            found.append(b"\n".join(lines))
    return found


def read(form: Form, stream: bytes) -> list[Event]:
    """The events in a whole stream."""
    reader = form.stream_reader()
    return [event for piece in pieces(form, stream) for event in reader.feed(piece)]


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """`document` with one value somewhere in it replaced, or taken out."""
    document = copy.deepcopy(document)
    place, steps = document, draw(st.integers(1, 6))
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        steps -= 1
        inner = place[key]
        if steps and isinstance(inner, dict | list) and inner:
            place = inner
            continue
        if draw(st.booleans()):
            place[key] = draw(json_values)
        else:
            del place[key]
        break
    return document
