"""The one form between all dialects: requests, replies, and the events of a reply that is coming.

Values only. What a dialect says that has no place here is carried in `extra` when it goes back to the same dialect, and
is reported as ignored when it goes to another: nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from corral.domain.money import Usage


class Role(StrEnum):
    """Whose turn a message is."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Stop(StrEnum):
    """Why a model stopped."""

    END = "end"  # it had no more to say
    SEQUENCE = "sequence"  # it wrote one of the request's stop sequences
    LENGTH = "length"  # it wrote as much as it may, or its context is full
    TOOLS = "tools"  # it calls tools
    FILTER = "filter"  # the vendor or the model refuses
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Text:
    """Words. `cache`: the vendor may keep the prompt up to here (`5m`, `1h`)."""

    text: str
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: `data` in base64 with its `media_type`, or a `url`."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    detail: str | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """Sound, a document, or another file: as Image, with a name."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    name: str | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model thought. `signature` is the vendor's proof of it; `hidden` is thought only the vendor can read."""

    text: str = ""
    signature: str | None = None
    hidden: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool. `arguments` is JSON in a string, as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gave back to the call `id`; `name` is the tool's: see `name_results`."""

    id: str
    parts: tuple[Text | Image | File, ...] = ()
    name: str | None = None
    error: bool = False
    cache: str | None = None


Part = Text | Image | File | Thought | Call | Result


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Results of tools stand in messages of role TOOL, calls in those of ASSISTANT."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tools must be called: `auto`, `none`, `required`, or `named` with a `name`."""

    mode: str = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """What the answer must be: `text`, `json`, or `schema` with a JSON `schema`."""

    kind: str = "text"
    schema: Mapping[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """How much to think before the answer: an `effort`, or a `budget` in tokens.

    Efforts are none, minimal, low, medium, high, xhigh, max. A budget of 0 is none at all, of -1 as much as the model
    likes. `shown`: the thoughts are wanted in the answer; False, they are not.
    """

    effort: str | None = None
    budget: int | None = None
    shown: bool | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to go on with. None leaves a value to the engine.

    `max_tokens` bounds what is written, thoughts included.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    choice: Choice | None = None
    parallel: bool | None = None
    format: Format | None = None
    thinking: Thinking | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    stream: bool = False
    usage_wanted: bool = True
    """Whether the client of a stream asked to be told its usage; only OpenAI's chat leaves the choice."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What only the form it came from knows, by its own names."""
    origin: str = ""
    """The name of that form: only it may say what is in `extra`."""
    lost: tuple[str, ...] = ()
    """What the client said and nothing here can hold, such as `n`; whoever writes the request reports it as ignored."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: `parts` are Text, Thought and Call. `created` in Unix seconds; 0 is unknown.

    `sequence` is the stop sequence that was met, where the engine tells it. `model` is as the engine calls itself.
    `logprobs` is, here and in the events, a list of objects as OpenAI's chat has them: `token`, `logprob`, `bytes`,
    `top_logprobs`.
    """

    id: str = ""
    model: str = ""
    parts: tuple[Part, ...] = ()
    stop: Stop = Stop.END
    sequence: str | None = None
    usage: Usage | None = None
    created: int = 0
    logprobs: Any = None


@dataclass(frozen=True, slots=True)
class Begun:
    """The first event of a stream. `usage` holds what is known of the prompt by then."""

    id: str = ""
    model: str = ""
    usage: Usage | None = None
    created: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the text."""

    text: str
    logprobs: Any = None


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """More of the thoughts, or their signature, or hidden thoughts."""

    text: str = ""
    signature: str | None = None
    hidden: str | None = None


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of a tool begins; `index` counts calls from 0."""

    index: int
    id: str
    name: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of a call's arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The model stopped."""

    stop: Stop
    sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What it used, so far or in all; the last one counts."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine reports, within a stream, that it failed. `status` is the HTTP status it would have been, if known."""

    message: str
    status: int | None = None
    code: str | None = None


Event = Begun | TextDelta | ThoughtDelta | CallBegun | CallDelta | Ended | Spent | Failed


@dataclass(frozen=True, slots=True)
class Texts:
    """A request for plain completion of one text. `suffix` is what is to come after the completion.

    Everything else as in Request, in `like`, whose messages are empty.
    """

    prompt: str
    like: Request
    suffix: str | None = None
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Embed:
    """A request for vectors: one for each of `inputs`, which are texts, or tokens."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    base64: bool = False
    user: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors in the order of the inputs: lists of numbers, or as base64 of little-endian floats."""

    model: str
    vectors: tuple[Any, ...]
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Rank:
    """A request to sort `documents` by how well they answer `query`; `top` is how many of them are wanted."""

    model: str
    query: str
    documents: tuple[str, ...]
    top: int | None = None
    documents_wanted: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents' numbers with their scores, best first."""

    model: str
    scores: tuple[tuple[int, float], ...]
    usage: Usage | None = None


def fold_system(request: Request) -> Request:
    """The request for a model that knows no system role: what the system says stands first in the first user turn."""
    said = [part for message in request.messages if message.role is Role.SYSTEM for part in message.parts]
    if not said:
        return request
    rest = [message for message in request.messages if message.role is not Role.SYSTEM]
    first = next((index for index, message in enumerate(rest) if message.role is Role.USER), None)
    if first is None:
        rest.insert(0, Message(Role.USER, tuple(said)))
    else:
        texts = [part.text for part in said if isinstance(part, Text)]
        lead = Text("\n\n".join(texts) + "\n\n")
        rest[first] = Message(Role.USER, (lead, *rest[first].parts), rest[first].name)
    return replace(request, messages=tuple(rest))


def name_results(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages, where each result of a tool has the name of the tool, as its call tells it.

    Readers of dialects that name a call's result by its id alone end with it, since others want the name too.
    """
    return _renamed(messages, lambda name, called: name or called)


def unname_results(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages, where a result has a name only if its call does not tell the same: for dialects without names."""
    return _renamed(messages, lambda name, called: None if name == called else name)


def _renamed(
    messages: Iterable[Message], rename: Callable[[str | None, str | None], str | None]
) -> tuple[Message, ...]:
    called: dict[str, str] = {}
    out: list[Message] = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            called.update((part.id, part.name) for part in message.parts if isinstance(part, Call))
        elif message.role is Role.TOOL:
            parts = (
                replace(part, name=rename(part.name, called.get(part.id))) if isinstance(part, Result) else part
                for part in message.parts
            )
            message = replace(message, parts=tuple(parts))  # noqa: PLW2901
        out.append(message)
    return tuple(out)


def unsaid(request: Any, form: str, can: frozenset[str], also: Iterable[str] = ()) -> tuple[str, ...]:
    """What `form` leaves out of `request`: the value of `Written.ignored`. Every writer of requests ends with it.

    `can` names the fields that the form has words for; of the others, those are reported that were asked for, that is,
    that differ from their default. So is what the request's reader had already `lost`, and each key of `extra` when the
    request came from another form. `also` is what the writer itself found no words for: a field in `can` whose value it
    cannot say, or what stands deeper, as `class.field` in small letters (`text.cache`, `image.detail`, `tool.strict`,
    `message.name`, `result.error`, `call.id`), or as the class alone when parts of it are left out (`thought`, `file`).

    Each name is given once, in a lasting order.
    """
    found: dict[str, None] = {}
    for name, default in _unsayable(type(request), can):
        value = getattr(request, name)
        if value is not default and value != default:
            found[name] = None
    found.update(dict.fromkeys(also))
    inner = request.like if isinstance(request, Texts) else request
    if inner is not request:
        for name, default in _unsayable(Request, can):
            if getattr(inner, name) != default:
                found[name] = None
    if inner.extra and inner.origin != form:
        found.update(dict.fromkeys(inner.extra))
    found.update(dict.fromkeys(inner.lost))
    return tuple(found)


_NO_WISHES = frozenset(("model", "messages", "stream", "usage_wanted", "extra", "origin", "lost")) | frozenset(
    ("prompt", "like", "inputs", "query", "documents")
)
_plans: dict[tuple[type, frozenset[str]], tuple[tuple[str, Any], ...]] = {}


def _unsayable(kind: type, can: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    """The fields of `kind` that are not in `can`, with their defaults."""
    found = _plans.get((kind, can))
    if found is None:
        wishes = [each for each in fields(kind) if each.name not in _NO_WISHES and each.name not in can]
        found = _plans[kind, can] = tuple((each.name, each.default) for each in wishes if each.default is not MISSING)
    return found
