"""Whether bytes that are relayed untouched are what they have to be, told as cheaply as that can be. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects.form import Kind
from corral.errors import UpstreamProtocol
from corral.kit.sse import data_of

if TYPE_CHECKING:
    from corral.dialects.form import Form

_PARSED = 16 * 1024
"""Bytes up to which a whole answer is parsed; of a longer one the two ends are looked at."""
_FIELDS = (b"data", b"event", b":", b"id", b"retry")
_PROOFS = {
    "openai.embeddings": b'"data"',
    "openai.rerank": b'"results"',
    "gemini.embed": b'"embedding',
    "gemini.batch": b'"embeddings"',
    "ollama.embed": b'"embedding',
}
"""What every answer without a reason to end has in it."""


def parsed_whole(body: bytes) -> dict[str, Any] | None:
    """The document of a whole answer; None of one that is so long that only its two ends are looked at.

    Raises:
        UpstreamProtocol: it is not JSON, or not whole.
    """
    if len(body) <= _PARSED:
        return _loaded(body)
    if not (body.lstrip()[:1] == b"{" and body.rstrip()[-1:] == b"}"):
        raise _garbage(body)
    return None


def check_whole(body: bytes, document: dict[str, Any] | None, form: Form) -> None:
    """Return when a whole answer that does not say why it ended is one of its form all the same.

    Raises:
        UpstreamProtocol: it is no such answer.
    """
    proof = _PROOFS.get(form.name)
    if proof is not None:
        if proof not in body:
            raise UpstreamProtocol("The engine's answer is none: what was asked for is not in it.")
        return
    if form.kind in {Kind.CHAT, Kind.TEXT}:  # some engines do not say why they ended
        try:
            form.read_reply(_loaded(body) if document is None else document)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UpstreamProtocol(f"The engine's answer is none: {error}.") from error


def sound_events(data: bytes) -> tuple[bytes, UpstreamProtocol | None]:
    """Of whole server-sent events those up to the first that is none, and what is wrong with that.

    The content of an event is a JSON object, or says that the stream ends.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    good = 0
    for event in data.split(b"\n\n"):
        for line in event.split(b"\n"):
            if line and not line.startswith(_FIELDS):
                return data[:good], _none(line)
        for content in data_of(event + b"\n\n"):
            if content.strip() not in (b"", b"[DONE]") and not _is_object(content):
                return data[:good], _none(content)
        good += len(event) + 2
    return data, None


def sound_lines(data: bytes) -> tuple[bytes, UpstreamProtocol | None]:
    """Of whole lines, each a JSON object, those up to the first that is none, and what is wrong with that."""
    good = 0
    for line in data.splitlines(keepends=True):
        if line.strip() and not _is_object(line):
            return data[:good], _none(line)
        good += len(line)
    return data, None


def _is_object(content: bytes) -> bool:
    try:
        return type(orjson.loads(content)) is dict
    except orjson.JSONDecodeError:
        return False


def _none(content: bytes) -> UpstreamProtocol:
    return UpstreamProtocol(f"The engine sent an event that is none: {_shown(content)}.")


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _garbage(body) from None
    if type(document) is not dict:
        raise _garbage(body)
    return document


def _garbage(body: bytes) -> UpstreamProtocol:
    return UpstreamProtocol(f"The engine answered with something that is no answer: {_shown(body)}.")


def _shown(data: bytes) -> str:
    """The beginning of what came, for people."""
    return repr(data[:60].decode("utf-8", "replace")) if data.strip() else "nothing"
