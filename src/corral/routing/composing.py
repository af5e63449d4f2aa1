"""How one engine is asked what a client wants: in the client's own bytes where it speaks that form, else translated.

What is the same for all requests of one form to one engine is worked out once, as a Way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from corral.dialects.canonical import (
    Embed,
    File,
    Image,
    Message,
    Rank,
    Request,
    Result,
    Role,
    Text,
    Texts,
    fold_system,
)
from corral.dialects.form import PLAIN, Form, Kind, Profile, form, native
from corral.domain.models import Capability
from corral.domain.ports import Endpoint
from corral.errors import Degraded, InvalidRequest, NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from corral.lifecycle.engines import Engine
    from corral.routing.order import Order

_WAYS_KEPT = 500
_HARMLESS = frozenset(
    {"format.name", "tool.strict", "base64", "text.cache", "tool.cache", "image.cache", "user", "store"}
)
"""What changes nothing of an answer when it is ignored: names, hints for caches, who the client's user is."""
_STREAM_OPTIONS = {"include_usage": True}
_ASKS_FOR_USAGE = b',"stream_options":{"include_usage":true}}'
_TELLS_USAGE = frozenset({"openai.chat", "openai.completions"})
_PATHS = {
    "openai.chat": "/chat/completions",
    "openai.responses": "/responses",
    "openai.completions": "/completions",
    "openai.embeddings": "/embeddings",
    "openai.rerank": "/rerank",
    "anthropic.messages": "/messages",
    "ollama.chat": "/api/chat",
    "ollama.generate": "/api/generate",
    "ollama.raw": "/api/generate",
    "ollama.embed": "/api/embed",
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Way:
    """How a client's form reaches an engine. `direct`: its bytes are relayed; `fold`: the model knows no system role.

    `able` are the engine's capabilities, None when unknown. `lacking` is what every answer of it is less than could be
    had, such as one of a processor where there is a GPU. `path` is where it is asked, None where that has the model's
    name in it.
    """

    spoken: Form
    direct: bool
    endpoint: Endpoint
    profile: Profile
    fold: bool
    able: frozenset[Capability] | None
    suffix: str
    lacking: tuple[str, ...] = ()
    remote: bool = True
    path: str | None = None


@dataclass(slots=True, eq=False)
class Call:
    """What is sent to an engine. `asked` is the canonical request where the answer must be translated.

    `unasked`: a stream's usage was asked for, which the client did not. `betas` go beside the body.
    """

    way: Way
    path: str
    body: bytes
    asked: Any = None
    ignored: tuple[str, ...] = ()
    unasked: bool = False
    betas: bytes = b""


class Composer:
    """Composes calls; remembers the ways of engines that are there.

    Args:
        lacking: what an engine's answers are less than could be had.
    """

    def __init__(self, lacking: Callable[[Engine], tuple[str, ...]] = lambda _: ()) -> None:
        self._lacking = lacking
        self._ways: dict[tuple[str, str], Way] = {}

    def compose(self, order: Order, engine: Engine, model: str, limit: int | None = None) -> Call:
        """What the engine is sent for `order`, `model` being the candidate's name.

        `limit` bounds what may be written where the client set no bound.

        Raises:
            NotSupported: the engine's dialect has no words for what is asked.
            Degraded: the order is strict, and something of it would be ignored.
            InvalidRequest: the request is none of its form.
        """
        way = self._ways.get((engine.id, order.form.name)) or self._find(order.form, engine)
        if not way.remote and addressed(order):
            raise NotSupported(
                f"Model {engine.model!r} runs here, and nothing here fetches what a request names by its address.",
                "Send the bytes themselves, as data:image/png;base64,…",
                param="messages",
            )
        try:
            call = _relayed(order, way, model, limit) if way.direct else None
            if call is None:
                call = _translated(order, way, model, limit)
        except RecursionError as error:
            raise too_deep() from error
        if order.strict and way.lacking:
            raise Degraded(
                f"Model {engine.model!r} would be less than it could be: {', '.join(way.lacking)}.",
                "Free memory of the GPU, ask another model, or ask without strict.",
                param="model",
            )
        missed = [name for name in call.ignored if name not in _HARMLESS] if order.strict else ()
        if missed:
            raise Degraded(
                f"Model {engine.model!r} would ignore {', '.join(missed)}.",
                "Leave that out, ask another model, or ask without strict.",
                param=missed[0],
            )
        return call

    def forget(self, engine: Engine) -> None:
        """The engine is gone."""
        for key in [key for key in self._ways if key[0] == engine.id]:
            del self._ways[key]

    def _find(self, asked: Form, engine: Engine) -> Way:
        endpoint = engine.session.endpoint
        name = native(endpoint.dialect, asked.kind)
        direct = asked.name == name or asked.name in endpoint.speaks
        if not direct and name is None and asked.kind is Kind.TEXT:
            name = native(endpoint.dialect, Kind.CHAT)  # a text to go on with, as a turn of the user
        if not direct and name is None:
            raise NotSupported(
                f"Model {engine.model!r} cannot do {asked.kind}: {endpoint.dialect} has no call for it.",
                f"See what it can do: corral show {engine.model}",
                param="model",
            )
        able = engine.session.facts.capabilities
        spoken, suffix = asked if direct or name is None else form(name), f"?{endpoint.query}" if endpoint.query else ""
        path = _PATHS.get(spoken.name)
        way = Way(
            spoken=spoken,
            direct=direct,
            endpoint=endpoint,
            profile=endpoint.profile or PLAIN,
            fold=able is not None and Capability.SYSTEM_ROLE not in able,
            able=able,
            suffix=suffix,
            lacking=self._lacking(engine),
            remote=engine.remote,
            path=None if path is None else path + suffix,
        )
        if len(self._ways) >= _WAYS_KEPT:  # engines come and go for as long as the server runs
            self._ways.clear()
        self._ways[engine.id, asked.name] = way
        return way


def addressed(order: Order) -> bool:
    """Whether an engine would have to fetch something: it could reach what the client cannot, such as this machine."""
    asked = order.asked
    if isinstance(asked, Request):
        return any(_elsewhere(part) for message in asked.messages for part in message.parts)
    messages = order.document.get("messages")
    for message in messages if type(messages) is list else ():
        content = message.get("content") if type(message) is dict else None
        if type(content) is list and any(_names_address(part) for part in content):
            return True
    return False


def _elsewhere(part: Any) -> bool:
    if isinstance(part, Image | File):
        return part.url is not None and not part.url.lower().startswith("data:")
    return isinstance(part, Result) and any(_elsewhere(each) for each in part.parts)


def _names_address(part: Any) -> bool:
    """Of a part as OpenAI's clients send it, which servers take with other media than pictures, too."""
    if type(part) is not dict:
        return False
    for key, value in part.items():
        if key.endswith("_url"):
            url = value.get("url") if type(value) is dict else value
            if type(url) is not str or not url.lower().startswith("data:"):
                return True
    return False


def _relayed(order: Order, way: Way, model: str, limit: int | None) -> Call | None:
    """The client's own bytes, changed where the engine needs it; None when they must be translated after all."""
    document, endpoint, name = order.document, way.endpoint, way.spoken.name
    if way.fold and _has_system(document):
        return None
    changed: dict[str, Any] = {}
    wanted = endpoint.model or model
    if wanted != order.model or (endpoint.model is not None and endpoint.model != document.get("model")):
        changed["model"] = wanted
    if limit is not None:
        field = _LIMITS.get(name)
        if order.max_tokens is None or order.max_tokens < 1:
            if field is None:
                return None
            changed[way.profile.max_tokens if field == "max_tokens" else field] = limit
        # A client may say it twice, and nobody knows which of them the engine goes by.
        changed |= {each: limit for each in _BOUNDS if each in document and _beyond(document[each], limit)}
    unasked = order.stream and not order.usage_wanted and way.profile.usage and name in _TELLS_USAGE
    # Of a field that is there twice the engine may believe the other: what money is held for is what is sent.
    body = _bytes(order, way, changed, None if limit is not None else order.body, unasked=unasked)
    ignored: tuple[str, ...] = ()
    if way.able is not None and Capability.TOOLS not in way.able and document.get("tools"):
        ignored = ("tools",)
    betas = order.betas if way.spoken.dialect == "anthropic" else b""
    path = way.path or _path(name, wanted, stream=order.stream) + way.suffix
    return Call(way, path, body, None, ignored, unasked, betas)


def _bytes(order: Order, way: Way, changed: dict[str, Any], body: bytes | None, *, unasked: bool) -> bytes:
    """The body for the engine: the client's own, `body`, where it may be and nothing has to change."""
    document, adapt = order.document, way.endpoint.adapt
    if unasked:
        if not changed and adapt is None and body is not None and "stream_options" not in document:
            return body.rstrip()[:-1] + _ASKS_FOR_USAGE
        changed["stream_options"] = {**(document.get("stream_options") or {}), **_STREAM_OPTIONS}
    if way.spoken.dialect == "gemini":
        changed.pop("model", None)  # it stands in the path
    adapted = False
    if changed or adapt is not None:
        document = {**document, **changed}
    if adapt is not None:
        adapted = adapt(_PATHS.get(way.spoken.name, ""), document)
    if not changed and not adapted and body is not None:
        return body
    if way.spoken.dialect == "gemini":
        document = {key: value for key, value in document.items() if key not in ("model", "stream")}
    return _dumped(document)


def _dumped(document: Mapping[str, Any]) -> bytes:
    """The bytes of a body. What can be read cannot always be written: it may be nested more than 250 deep."""
    try:
        return orjson.dumps(document)
    except TypeError as error:
        raise too_deep() from error


def too_deep() -> InvalidRequest:
    """What is said to whoever nests a request so deep that it cannot be worked with."""
    return InvalidRequest("The request is nested too deeply, or holds what JSON has no words for.", "Send it flatter.")


_MOST_TOLD = 50
_LONGEST_TOLD = 100
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_LIMITS = {
    "openai.chat": "max_tokens",
    "openai.completions": "max_tokens",
    "openai.responses": "max_output_tokens",
    "anthropic.messages": "max_tokens",
}
"""Where a form that is relayed has the bound of what may be written."""


def _beyond(value: object, limit: int) -> bool:
    return type(value) is int and not 0 <= value <= limit


def _translated(order: Order, way: Way, model: str, limit: int | None) -> Call:
    asked = order.request
    request = _for_engine(asked, way.endpoint.model or model, limit, way)
    written = way.spoken.write_request(request, way.profile)
    document = written.document
    if way.endpoint.adapt is not None:
        way.endpoint.adapt(written.path, document)
    ignored = _told(written.ignored)
    if way.able is not None and Capability.TOOLS not in way.able and getattr(asked, "tools", None):
        ignored = (*ignored, "tools")
    return Call(way, written.path + way.suffix, _dumped(document), asked, ignored)


def _told(ignored: tuple[str, ...]) -> tuple[str, ...]:
    """What is ignored, as far as it is told and written down: a client makes such names up, and as many as it likes."""
    if len(ignored) > _MOST_TOLD:
        ignored = (*ignored[:_MOST_TOLD], f"{len(ignored) - _MOST_TOLD} more")
    return tuple(name if len(name) <= _LONGEST_TOLD else f"{name[:_LONGEST_TOLD]}…" for name in ignored)


def _for_engine(asked: Any, model: str, limit: int | None, way: Way) -> Any:
    """The canonical request as this engine gets it."""
    if isinstance(asked, Request):
        request = _renamed(asked, model, limit)
        return fold_system(request) if way.fold else request
    if isinstance(asked, Texts):
        like = _renamed(asked.like, model, limit)
        if way.spoken.kind is Kind.CHAT:
            return _as_turn(asked, like)
        return _with(asked, like=like)
    if isinstance(asked, Embed | Rank):
        return _with(asked, model=model)
    raise TypeError(f"{type(asked).__name__} is no canonical request")


def _renamed(request: Request, model: str, limit: int | None) -> Request:
    if limit is not None and (request.max_tokens or 0) < 1:
        return _with(request, model=model, max_tokens=limit)
    return _with(request, model=model) if request.model != model else request


def _as_turn(asked: Texts, like: Request) -> Request:
    """A text to be completed, for an engine that knows only conversations."""
    lost = [name for name, value in (("suffix", asked.suffix), ("echo", asked.echo)) if value]
    return _with(like, messages=(Message(Role.USER, (Text(asked.prompt),)),), lost=(*like.lost, *lost))


def _has_system(document: Mapping[str, Any]) -> bool:
    """Whether the request has words of the system, in any form that is relayed."""
    if document.get("system") or document.get("systemInstruction") or document.get("instructions"):
        return True
    messages = document.get("messages")
    return isinstance(messages, list) and any(
        isinstance(message, dict) and message.get("role") in ("system", "developer") for message in messages
    )


def _path(name: str, model: str, *, stream: bool) -> str:
    if name == "gemini.generate":
        return f"/models/{model}:streamGenerateContent?alt=sse" if stream else f"/models/{model}:generateContent"
    if name == "gemini.embed":
        return f"/models/{model}:embedContent"
    return _PATHS[name]


def _with(value: T, **changes: Any) -> T:
    return replace(value, **changes)  # type: ignore[type-var]  # every canonical value is a dataclass
