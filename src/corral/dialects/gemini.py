"""Gemini's dialect: generateContent, streamGenerateContent, countTokens, embedContent and batchEmbedContents.

The path of a request says what else it is: it names the model, the call, and in its query the way to stream. A door
puts the model into the body as `model` and, for streamGenerateContent, `stream: true`, and chooses the form:

    gemini.generate   generateContent, and streamGenerateContent with `alt=sse`
    gemini.array      streamGenerateContent without it: the stream is one JSON array
    gemini.embed      embedContent; an engine is asked for several texts by batchEmbedContents
    gemini.batch      batchEmbedContents
"""

from __future__ import annotations

from base64 import b64decode
from struct import iter_unpack
from typing import TYPE_CHECKING, Any, ClassVar

from corral.dialects import _gemini_errors, _gemini_replies, _gemini_requests, _gemini_streams, _gemini_writing
from corral.dialects._gemini_reading import a_list, a_text, a_whole, an_object, camel, refusal
from corral.dialects.canonical import Embed, Request, Stop, Vectors, unsaid
from corral.dialects.form import Kind, Written
from corral.dialects.meter import Keys, Meter
from corral.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.dialects.canonical import Reply
    from corral.dialects.form import Fault, Form, Profile, StreamReader, StreamWriter
    from corral.domain.money import Usage
    from corral.errors import CorralError

EMBED = "gemini.embed"
_OF_EMBED = frozenset({"model", "content", "outputDimensionality"})


def _last_usage(said: Sequence[Mapping[str, Any]]) -> Usage | None:
    return _gemini_replies.read_usage(said[-1])


_KEYS = Keys(
    usage="usageMetadata",
    stop="finishReason",
    read_usage=_last_usage,
    read_stop=lambda reason: _gemini_replies.stop_of(reason, calls=False),
    read_fault=lambda error: _gemini_errors.read_error(0, {"error": error}),
)


class _Meter(Meter):
    """Finds also that a prompt was blocked, for which Gemini has no reason to stop."""

    __slots__ = ("_blocked",)

    def __init__(self) -> None:
        super().__init__(_KEYS)
        self._blocked = False

    def feed(self, chunk: bytes) -> None:
        """Look at whole events, or a whole answer."""
        super().feed(chunk)
        if b'"blockReason"' in chunk:
            self._blocked = True

    @property
    def stop(self) -> str | None:
        """Why it stopped; None when it did not say."""
        return super().stop or (Stop.FILTER if self._blocked else None)


class _Common:
    """What all forms of the dialect do alike."""

    dialect = "gemini"

    def meter(self) -> Meter:
        """For one answer that is relayed untouched."""
        return _Meter()

    def write_error(self, error: CorralError) -> dict[str, Any]:
        """An error as Google's clients expect it."""
        return _gemini_errors.write_error(error)

    def read_error(self, status: int, document: Any) -> Fault:
        """An engine's error body. Never raises."""
        return _gemini_errors.read_error(status, document)

    def write_fault(self, fault: Fault, status: int) -> dict[str, Any]:
        """A vendor's refusal as Google's clients expect it."""
        return _gemini_errors.write_fault(fault, status)


class Generate(_Common):
    """generateContent, and streamGenerateContent as server-sent events."""

    name = _gemini_requests.NAME
    kind = Kind.CHAT
    media: bytes | None = b"text/event-stream"
    _writer: ClassVar[type[_gemini_streams.Writer]] = _gemini_streams.Writer

    def read_request(self, document: Mapping[str, Any]) -> Request:
        """The canonical request.

        Raises:
            InvalidRequest: it is none; names the field.
        """
        return _gemini_requests.read_request(document)

    def write_request(self, request: Request, profile: Profile) -> Written:
        """For an engine, which is always asked for events."""
        return _gemini_writing.write_request(request, profile)

    def read_reply(self, document: Mapping[str, Any]) -> Reply:
        """The canonical answer.

        Raises:
            ValueError: it is none.
        """
        return _gemini_replies.read_reply(document)

    def write_reply(self, reply: Reply, request: Request) -> dict[str, Any]:
        """For a client that asked `request`."""
        return _gemini_replies.write_reply(reply, request)

    def stream_reader(self) -> StreamReader:
        """For one stream of an engine."""
        return _gemini_streams.Reader()

    def stream_writer(self, request: Request) -> StreamWriter:
        """For one stream to a client that asked `request`."""
        return self._writer(request)


class Array(Generate):
    """streamGenerateContent as one JSON array."""

    name = "gemini.array"
    media = b"application/json"
    _writer = _gemini_streams.ArrayWriter


class Embeddings(_Common):
    """embedContent."""

    name = EMBED
    kind = Kind.EMBEDDINGS
    media: bytes | None = None
    _always_many = False

    def read_request(self, document: Mapping[str, Any]) -> Embed:
        """The canonical request. A body of batchEmbedContents is one too, whose texts are all embedded alike.

        Raises:
            InvalidRequest: it is none; names the field.
        """
        document = camel(document)
        if document.get("requests") is None:
            asked = [("", document)]
        else:
            listed = a_list(document["requests"], "requests")
            asked = [(f"requests[{at}].", an_object(each, f"requests[{at}]")) for at, each in enumerate(listed)]
        if not asked:
            raise refusal("requests", "an array that is not empty")
        inputs = tuple(_words(each, where) for where, each in asked)
        where, first = asked[0]
        if any(each.get(key) != first.get(key) for _, each in asked for key in {*each, *first} - {"content"}):
            raise NotSupported("The texts of one call cannot be embedded in different ways.", param="requests")
        model = document.get("model") or first.get("model") or ""
        return Embed(
            _gemini_requests.bare_model(a_text(model, "model")),
            inputs,
            a_whole(first.get("outputDimensionality"), f"{where}outputDimensionality"),
            extra={key: value for key, value in first.items() if key not in _OF_EMBED and value is not None},
            origin=EMBED,
        )

    def write_request(self, request: Embed, profile: Profile) -> Written:
        """For an engine: embedContent for one text, batchEmbedContents for several.

        Raises:
            NotSupported: there are tokens among the inputs.
        """
        common: dict[str, Any] = dict(profile.extra)
        if request.extra and request.origin == EMBED:
            common |= request.extra
        if request.dimensions is not None:
            common["outputDimensionality"] = request.dimensions
        for name in profile.drop:
            common.pop(name, None)
        documents: list[dict[str, Any]] = []
        for each in request.inputs:
            if not isinstance(each, str):
                raise NotSupported("This engine embeds texts, and no tokens.", "Send the texts.", param="input")
            documents.append({"content": {"parts": [{"text": each}]}, **common})
        where = _gemini_writing.located(request.model)
        ignored = unsaid(request, EMBED, frozenset({"dimensions"}), {*common} & profile.drop)
        if len(documents) == 1:
            return Written(f"{where}:embedContent", documents[0], ignored)
        named = [{"model": where.removeprefix("/"), **each} for each in documents]
        return Written(f"{where}:batchEmbedContents", {"requests": named}, ignored)

    def read_reply(self, document: Mapping[str, Any]) -> Vectors:
        """The canonical answer, to either call.

        Raises:
            ValueError: it is none.
        """
        if type(document) is not dict:
            raise ValueError("it is not an object")
        found = document.get("embeddings")
        if found is None:
            found = [document.get("embedding")]
        listed = found if type(found) is list else []
        vectors = tuple(each.get("values") if type(each) is dict else None for each in listed)
        if not vectors or any(type(each) is not list for each in vectors):
            raise ValueError("it has no vectors")
        said = document.get("usageMetadata")
        try:
            return Vectors("", vectors, _gemini_replies.read_usage(said) if type(said) is dict else None)
        except TypeError as error:
            raise ValueError("a count of tokens is none") from error

    def write_reply(self, reply: Vectors, request: Embed) -> dict[str, Any]:
        """For a client that asked `request`."""
        values = [{"values": _numbers(each)} for each in reply.vectors]
        out: dict[str, Any] = {"embeddings": values}
        if len(values) == 1 and not self._always_many:
            out = {"embedding": values[0]}
        if reply.usage is not None:
            out["usageMetadata"] = {"promptTokenCount": reply.usage.input, "totalTokenCount": reply.usage.input}
        return out

    def stream_reader(self) -> StreamReader:
        """Vectors are never streamed."""
        raise NotSupported("Vectors are not streamed.")

    def stream_writer(self, request: Embed) -> StreamWriter:
        """Vectors are never streamed."""
        raise NotSupported("Vectors are not streamed.")


class Batch(Embeddings):
    """batchEmbedContents."""

    name = "gemini.batch"
    _always_many = True


FORMS: dict[str, Form] = {each.name: each for each in (Generate(), Array(), Embeddings(), Batch())}


def supply(document: dict[str, Any], extra: Mapping[str, Any]) -> bool:
    """Add to a parsed generateContent body, in place, what of `extra` it does not say; whether it was changed.

    `extra` is as in a Profile: fields of the body, of its generationConfig, and kinds of tools, by their names. A body
    of another call is left alone.
    """
    if "contents" not in document:
        return False
    whole = dict(camel(document))
    found, tools = whole.get("generationConfig") or {}, whole.get("tools") or []
    if type(found) is not dict or type(tools) is not list or any(type(tool) is not dict for tool in tools):
        return False  # it is for the engine to say what is wrong with it
    config = dict(camel(found))
    missing = {key: value for key, value in extra.items() if not _gemini_writing.said(key, whole, config)}
    if not missing:
        return False
    if tools:
        whole["tools"] = list(tools)
    _gemini_writing.add(missing, whole, config)
    if config:
        whole["generationConfig"] = config
    document.clear()
    document.update(whole)
    return True


def read_count(document: Mapping[str, Any]) -> Request:
    """The request whose tokens a countTokens asks for: its `generateContentRequest`, or its `contents` alone.

    Raises:
        InvalidRequest: it is none; names the field.
    """
    document = camel(document)
    whole = document.get("generateContentRequest")
    if whole is None:
        return _gemini_requests.read_request(document)
    asked = dict(an_object(whole, "generateContentRequest"))
    asked.setdefault("model", document.get("model", ""))
    return _gemini_requests.read_request(asked)


def write_count_request(request: Request, profile: Profile) -> Written:
    """The countTokens of `request`: what it would count for on an engine."""
    written = _gemini_writing.write_request(request, profile)
    where = _gemini_writing.located(request.model)
    asked = {"model": where.removeprefix("/"), **written.document}
    return Written(f"{where}:countTokens", {"generateContentRequest": asked}, written.ignored)


def read_count_reply(document: Mapping[str, Any]) -> int:
    """The tokens an engine counted.

    Raises:
        ValueError: it is no such answer.
    """
    found = document.get("totalTokens")
    if type(found) is not int:
        raise ValueError("it has no totalTokens")
    return found


def write_count_reply(tokens: int) -> dict[str, Any]:
    """The answer to a countTokens."""
    return {"totalTokens": tokens}


def _words(asked: Mapping[str, Any], where: str) -> str:
    content = an_object(asked.get("content"), f"{where}content")
    parts = a_list(content.get("parts"), f"{where}content.parts")
    texts = [a_text(an_object(part, f"{where}content.parts").get("text"), f"{where}content.parts") for part in parts]
    if not texts:
        raise refusal(f"{where}content.parts", "an array that is not empty")
    return "\n".join(texts)


def _numbers(vector: Any) -> list[float]:
    return list(vector) if not isinstance(vector, str) else [each for (each,) in iter_unpack("<f", b64decode(vector))]
