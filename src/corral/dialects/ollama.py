"""Ollama's calls.

    ollama.chat      a conversation
    ollama.generate  a prompt that the model's template is put around: a conversation of one turn
    ollama.raw       a prompt that is gone on with as it stands, or the gap before its suffix; the same path as generate
    ollama.embed     vectors; also in the older shape, with one `prompt`

Which of the two a body for `/api/generate` is, `generates` tells. A context length and how long the model is to be kept
stand in `extra`, as `num_ctx` and `keep_alive`; options that nothing here knows as `options.NAME`.

ollama.py            the forms
_ollama_writing.py  requests
_ollama_answers.py   answers and streams
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from struct import unpack
from typing import TYPE_CHECKING, Any

from corral.dialects import _ollama_reading as reading
from corral.dialects import _ollama_writing as writing
from corral.dialects._ollama_answers import (
    Meter,
    Reader,
    Writer,
    read_fault,
    read_reply,
    read_usage,
    write_reply,
    write_usage,
)
from corral.dialects.canonical import Embed, Reply, Request, Texts, Vectors, unsaid
from corral.dialects.form import Fault, Form, Kind, Profile, Written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.errors import CorralError


def generates(document: Mapping[str, Any]) -> str:
    """The form of a body for `/api/generate`: whether the model's template is to be put around its prompt."""
    return reading.RAW if document.get("raw") is True or document.get("suffix") else reading.GENERATE


class _Dialect:
    """What all of Ollama's forms have in common: their errors, and what is found in answers that pass."""

    name: str
    dialect = "ollama"
    media: bytes | None = b"application/x-ndjson"

    def meter(self) -> Meter:
        """For one answer that is relayed untouched."""
        return Meter()

    def write_error(self, error: CorralError) -> dict[str, Any]:
        """An error as this dialect's clients expect it."""
        return {"error": str(error)}

    def read_error(self, status: int, document: Any) -> Fault:
        """An engine's error body."""
        return read_fault(document.get("error") if isinstance(document, dict) else None, status)

    def write_fault(self, fault: Fault, status: int) -> dict[str, Any]:
        """A vendor's refusal as this dialect's clients expect it."""
        return {"error": fault.message}


class Chat(_Dialect):
    """A conversation. See the protocol in `form.py`."""

    name = reading.CHAT
    kind = Kind.CHAT
    chat = True

    def read_request(self, document: Mapping[str, Any]) -> Any:
        """The request in a parsed body."""
        return reading.read_chat(document)

    def write_request(self, request: Any, profile: Profile) -> Written:
        """The request for an engine."""
        also: dict[str, None] = {}
        document = writing.chat_document(request, profile, also)
        return Written("/api/chat", document, unsaid(request, self.name, writing.CAN_CHAT, also))

    def read_reply(self, document: Mapping[str, Any]) -> Reply:
        """An engine's whole answer."""
        return read_reply(document, self.chat)

    def write_reply(self, reply: Reply, request: Request | Texts) -> dict[str, Any]:
        """A whole answer for a client."""
        return write_reply(reply, _model(request), self.chat)

    def stream_reader(self) -> Reader:
        """For one stream of an engine."""
        return Reader(self.chat)

    def stream_writer(self, request: Request | Texts) -> Writer:
        """For one stream to a client."""
        return Writer(_model(request), self.chat)


class Generate(Chat):
    """A prompt within the model's template. See the protocol in `form.py`."""

    name = reading.GENERATE
    chat = False

    def read_request(self, document: Mapping[str, Any]) -> Request:
        """The request in a parsed body."""
        return reading.read_generate(document)

    def write_request(self, request: Request, profile: Profile) -> Written:
        """The request for an engine; a conversation of several turns becomes a text, and is reported."""
        also: dict[str, None] = {}
        document = writing.generate_document(request, profile, also)
        return Written("/api/generate", document, unsaid(request, self.name, writing.CAN, also))


class Raw(Chat):
    """A prompt as it stands. See the protocol in `form.py`."""

    name = reading.RAW
    kind = Kind.TEXT
    chat = False

    def read_request(self, document: Mapping[str, Any]) -> Texts:
        """The request in a parsed body."""
        return reading.read_raw(document)

    def write_request(self, request: Texts, profile: Profile) -> Written:
        """The request for an engine."""
        also: dict[str, None] = {}
        document = writing.raw_document(request, profile, also)
        return Written("/api/generate", document, unsaid(request, self.name, writing.CAN_RAW, also))


class Vector(_Dialect):
    """Vectors. See the protocol in `form.py`."""

    name = reading.EMBED
    kind = Kind.EMBEDDINGS
    media: bytes | None = None

    def read_request(self, document: Mapping[str, Any]) -> Embed:
        """The request in a parsed body."""
        return reading.read_embed(document)

    def write_request(self, request: Embed, profile: Profile) -> Written:
        """The request for an engine."""
        also: dict[str, None] = {}
        document = writing.embed_document(request, profile, also)
        known = replace(request, origin=self.name) if request.origin == reading.EMBEDDINGS else request
        return Written("/api/embed", document, unsaid(known, self.name, frozenset(("dimensions",)), also))

    def read_reply(self, document: Mapping[str, Any]) -> Vectors:
        """An engine's vectors."""
        found = document.get("embeddings")
        if found is None and isinstance(document.get("embedding"), list):
            found = [document["embedding"]]
        if not isinstance(found, list) or not all(isinstance(each, list) for each in found):
            raise ValueError("an answer without vectors")
        model = document.get("model")
        return Vectors(model if isinstance(model, str) else "", tuple(found), read_usage(document))

    def write_reply(self, reply: Vectors, request: Embed) -> dict[str, Any]:
        """Vectors for a client, in the shape that it asked in."""
        vectors = [_numbers(each) for each in reply.vectors]
        if request.origin == reading.EMBEDDINGS:
            return {"embedding": vectors[0] if vectors else []}
        told = write_usage(reply.usage)
        told.pop("eval_count", None)
        return {"model": reply.model or request.model, "embeddings": vectors, **told}

    def stream_reader(self) -> Reader:
        """Never used: this form has no streams."""
        raise TypeError("vectors do not come in a stream")

    def stream_writer(self, request: Embed) -> Writer:
        """Never used: this form has no streams."""
        raise TypeError("vectors do not come in a stream")


def _model(request: Request | Texts) -> str:
    return request.like.model if isinstance(request, Texts) else request.model


def _numbers(vector: Any) -> Any:
    if not isinstance(vector, str):
        return vector
    data = b64decode(vector)
    return list(unpack(f"<{len(data) // 4}f", data))


FORMS: dict[str, Form] = {each.name: each for each in (Chat(), Generate(), Raw(), Vector())}
