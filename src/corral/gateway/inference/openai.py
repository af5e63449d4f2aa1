"""OpenAI's dialect at the door: what a request must be, and what an error looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from corral.config import duration
from corral.domain.models import Capability
from corral.errors import InvalidName, InvalidRequest
from corral.routing.composing import too_deep

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: dict[Any, str] = {
    str: "a string",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    (int, float): "a number",
    int: "an integer",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One of the dialect's calls: its form's name, what it needs of the model, and its main field."""

    name: str
    capability: Capability
    field: str
    kinds: tuple[type, ...]


CALLS = {
    "/v1/chat/completions": Call("chat", Capability.CHAT, "messages", (list,)),
    "/v1/completions": Call("completions", Capability.COMPLETION, "prompt", (str, list)),
    "/v1/embeddings": Call("embeddings", Capability.EMBEDDINGS, "input", (str, list)),
}

_NOTHING: frozenset[Capability] = frozenset()
_EMBEDDINGS = frozenset((Capability.EMBEDDINGS,))
_CHAT = frozenset((Capability.CHAT,))
_PRIORITIES = 100
"""The highest priority of a request: others catch up with it after so many times the patience, and not never."""
_SIGHT = frozenset((Capability.CHAT, Capability.VISION))

_LONGEST_NAME = 200
_FLAT = 200
"""What has fewer objects and lists than this cannot be nested too deeply."""
_GZIP = b"\x1f\x8b"

_OPTIONAL: tuple[tuple[str, Any], ...] = (
    ("stream", bool),
    ("max_tokens", int),
    ("max_completion_tokens", int),
    ("n", int),
    ("temperature", (int, float)),
    ("top_p", (int, float)),
    ("tools", list),
    ("response_format", dict),
    ("stream_options", dict),
)


def parse(body: bytes, call: Call) -> dict[str, Any]:
    """The request in `body`, with what routing and the engine rely on checked; the rest is the engine's to judge.

    Raises:
        InvalidRequest: not JSON, not an object, or a field of the wrong type; names the field.
    """
    document = loaded(body)
    check_name(document)
    main = document.get(call.field)
    if type(main) not in call.kinds or not main:
        expected = " or ".join(_NAMES[kind] for kind in call.kinds)
        raise InvalidRequest(f"`{call.field}` must be {expected} that is not empty.", param=call.field)
    if call.field == "messages":
        _check_messages(main)
    for name, kind in _OPTIONAL:
        if name in document:
            value = document[name]
            if value is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
                raise InvalidRequest(f"`{name}` must be {_NAMES[kind]}.", param=name)
    return document


def loaded(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if body.startswith(_GZIP):
            raise InvalidRequest("The body is compressed.", "Send it as it is, without content-encoding.") from error
        raise InvalidRequest(
            f"The body is not valid JSON: {error}.", "Check quotes, commas and the encoding (UTF-8)."
        ) from error
    if type(document) is not dict:
        raise InvalidRequest("The body is not a JSON object.")
    if body.count(b"{") + body.count(b"[") > _FLAT:
        check_depth(document)
    return document


def check_depth(document: object) -> None:
    """Refuse what is nested deeper than can be written again, which is less than can be read.

    Raises:
        InvalidRequest: it is.
    """
    try:
        # As deep within something as it is put anywhere: the fields of another form, an event.
        orjson.dumps([[[[[[[[[[[[document]]]]]]]]]]]])
    except TypeError as error:
        raise too_deep() from error


def check_name(document: Mapping[str, Any]) -> None:
    """Refuse a request that names no model.

    Raises:
        InvalidRequest: it does not.
    """
    model = document.get("model")
    if type(model) is not str or not model:
        raise InvalidRequest("`model` is missing or not a string.", "Name a model: see GET /v1/models.", param="model")
    if len(model) > _LONGEST_NAME:  # no model is called so, and what is asked for is written down
        raise InvalidName(f"{model[:80]!r}… cannot name a model.", "Name a model: see GET /v1/models.", param="model")


def take_wishes(document: dict[str, Any]) -> tuple[float | None, int | None] | None:
    """Take out the fields that are for Corral and not for the engine: `keep_alive` in seconds, and `priority`.

    None where the request has neither, as most.

    Raises:
        InvalidRequest: one of them is no such thing.
    """
    if "keep_alive" not in document and "priority" not in document:
        return None
    keep_alive, priority = document.pop("keep_alive", None), document.pop("priority", None)
    if priority is not None and (type(priority) is not int or abs(priority) > _PRIORITIES):
        raise InvalidRequest(f"`priority` must be an integer from -{_PRIORITIES} to {_PRIORITIES}.", param="priority")
    try:
        return None if keep_alive is None else duration(keep_alive), priority
    except (ValueError, TypeError) as error:
        raise InvalidRequest(
            f"`keep_alive` is {error}.", "For example 300, 10m, 0 to unload at once, or -1 to stay.", param="keep_alive"
        ) from error


def needs(document: dict[str, Any], call: Call) -> frozenset[Capability]:
    """What the request asks of a model that an engine without it would only fail at, or answer beside the point."""
    if call.capability is not Capability.CHAT:
        return _EMBEDDINGS if call.capability is Capability.EMBEDDINGS else _NOTHING
    for message in document.get("messages", ()):
        content = message.get("content")
        if type(content) is list and any(type(part) is dict and part.get("type") == "image_url" for part in content):
            return _SIGHT
    return _CHAT


def _check_messages(messages: list[Any]) -> None:
    for index, message in enumerate(messages):
        if type(message) is not dict or type(message.get("role")) is not str:
            raise InvalidRequest(f"`messages[{index}]` must be an object with a `role`.", param=f"messages[{index}]")


def model_entry(name: str, created: float, owner: str, extra: dict[str, Any]) -> dict[str, Any]:
    """One model as `GET /v1/models` lists it. `created` is Unix seconds."""
    return {"id": name, "object": "model", "created": int(created), "owned_by": owner, **extra}
