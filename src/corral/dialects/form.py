"""What a wire form must do, and which there are.

A form is one kind of call of one dialect, such as OpenAI's chat or Anthropic's messages. It reads and writes requests,
replies, errors and streams; it is asked for by name and imported when it is first needed. All of it is pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from corral.dialects.canonical import Event
    from corral.domain.money import Usage
    from corral.errors import CorralError


class Kind(StrEnum):
    """What is asked for. Forms of one kind can be translated into each other."""

    CHAT = "chat"
    TEXT = "text"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True)
class Profile:
    """How one engine differs from its dialect's common form: facts, never a vendor's name.

    `max_tokens` is the field that bounds the answer in OpenAI's chat. `developer`: its system role is called so.
    `thinking` is how it takes a wish for thoughts: `effort` (`reasoning_effort`), `object` (`reasoning: {…}`), `none`;
    in Gemini's form `budget` or `level`. `usage`: it tells a stream's usage when asked (`stream_options`). `drop` are
    fields it refuses. `extra` is added to every request that does not say otherwise, such as safety settings.
    `max_output` is what is asked for where the dialect demands a bound and the client gave none. `thinking_range` are
    the least and the most tokens of thought that it takes as a budget.
    """

    max_tokens: str = "max_tokens"
    developer: bool = False
    thinking: str = "effort"
    usage: bool = True
    drop: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_output: int = 4096
    thinking_range: tuple[int, int] | None = None


PLAIN = Profile()


@dataclass(frozen=True, slots=True)
class Written:
    """A request in an engine's form: what to send, and where to, below the engine's base URL.

    `ignored` names what this form cannot say, in canonical field names.
    """

    path: str
    document: dict[str, Any]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """An engine's refusal, as it said it. `code` and `kind` are its own words; `param` the field it complains of."""

    message: str
    code: str | None = None
    kind: str | None = None
    param: str | None = None
    retry_after: float | None = None


class StreamReader(Protocol):
    """Reads one stream of an engine."""

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events in `data`: the data of one server-sent event, or one line of a stream of lines.

        Raises:
            ValueError: it is not what this form may say.
        """
        ...


class StreamWriter(Protocol):
    """Writes one stream for a client: bytes with their framing, ready to be sent. Empty where nothing is to be said."""

    def feed(self, event: Event) -> bytes:
        """What the client is told of `event`."""
        ...

    def fail(self, error: CorralError) -> bytes:
        """The last bytes of a stream that breaks: an error, in the form's own way."""
        ...

    def close(self, comment: bytes = b"") -> bytes:
        """The last bytes of a stream that ended well; with `comment` before the end, where the form has comments."""
        ...


class Meter(Protocol):
    """Finds, in bytes that pass untouched, what an answer says of itself."""

    def feed(self, chunk: bytes) -> None:
        """Look at whole events, whole lines, or a whole answer. Cheap: this is on the way of each chunk."""
        ...

    @property
    def usage(self) -> Usage | None:
        """What it used; None when it did not say."""
        ...

    @property
    def stop(self) -> str | None:
        """Why it stopped, as a canonical Stop; None when it did not say."""
        ...

    @property
    def failed(self) -> Fault | None:
        """The error that the stream itself reported, if any."""
        ...


class Form(Protocol):
    """One kind of call of one dialect.

    `R` below is the canonical request of the form's kind (Request, Texts, Embed, Rank), `A` its answer (Reply, Reply,
    Vectors, Ranking). `media` is the content type of its streams; forms without streams have None.
    """

    name: str
    dialect: str
    kind: Kind
    media: bytes | None

    def read_request(self, document: Mapping[str, Any]) -> Any:
        """R, from a parsed body.

        Raises:
            InvalidRequest: it is no such request; names the field.
        """
        ...

    def write_request(self, request: Any, profile: Profile) -> Written:
        """R for an engine, `request.model` being the engine's own name for the model."""
        ...

    def read_reply(self, document: Mapping[str, Any]) -> Any:
        """A, from an engine's whole answer.

        Raises:
            ValueError: it is no such answer.
        """
        ...

    def write_reply(self, reply: Any, request: Any) -> dict[str, Any]:
        """A for a client that asked `request`; `reply.id`, `.model` and `.created` are as the client shall see them."""
        ...

    def stream_reader(self) -> StreamReader:
        """For one stream of an engine."""
        ...

    def stream_writer(self, request: Any) -> StreamWriter:
        """For one stream to a client that asked `request`."""
        ...

    def meter(self) -> Meter:
        """For one answer that is relayed untouched."""
        ...

    def write_error(self, error: CorralError) -> dict[str, Any]:
        """An error as this dialect's clients expect it; its HTTP status is the error's."""
        ...

    def read_error(self, status: int, document: Any) -> Fault:
        """An engine's error body, parsed JSON or None where it is none. Never raises."""
        ...

    def write_fault(self, fault: Fault, status: int) -> dict[str, Any]:
        """A vendor's refusal as this dialect's clients expect it."""
        ...


_WHERE = {
    "openai.chat": "openai_chat",
    "openai.responses": "openai_responses",
    "openai.completions": "openai_text",
    "openai.embeddings": "openai_text",
    "openai.rerank": "openai_text",
    "anthropic.messages": "anthropic",
    "gemini.generate": "gemini",
    "gemini.array": "gemini",
    "gemini.embed": "gemini",
    "gemini.batch": "gemini",
    "ollama.chat": "ollama",
    "ollama.generate": "ollama",
    "ollama.raw": "ollama",
    "ollama.embed": "ollama",
}
"""Form → the module whose `FORMS` holds it."""
_NATIVE = {
    "openai": {Kind.CHAT: "openai.chat", Kind.TEXT: "openai.completions", Kind.EMBEDDINGS: "openai.embeddings"}
    | {Kind.RERANK: "openai.rerank"},
    "anthropic": {Kind.CHAT: "anthropic.messages"},
    "gemini": {Kind.CHAT: "gemini.generate", Kind.EMBEDDINGS: "gemini.embed"},
    "ollama": {Kind.CHAT: "ollama.chat", Kind.TEXT: "ollama.raw", Kind.EMBEDDINGS: "ollama.embed"},
}
_loaded: dict[str, Form] = {}


def form(name: str) -> Form:
    """The form called `name`; its module is imported when it is first asked for."""
    found = _loaded.get(name)
    if found is None:
        found = _loaded[name] = import_module(f"corral.dialects.{_WHERE[name]}").FORMS[name]
    return found


def names() -> tuple[str, ...]:
    """Every form's name."""
    return tuple(_WHERE)


def native(dialect: str, kind: Kind) -> str | None:
    """The form in which an engine of `dialect` is asked for `kind`; None when the dialect has none."""
    return _NATIVE[dialect].get(kind)
