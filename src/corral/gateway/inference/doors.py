"""The doors of inference: each path, the form that is spoken there, and how an order is read from its body.

What OpenAI's chat, completion and embeddings clients send is looked at as far as routing needs, since most engines
understand it as it is; of all other forms the whole request is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from corral.dialects.canonical import Embed, Image, Rank, Request, Result, Texts
from corral.dialects.form import form
from corral.domain.callers import Caller
from corral.domain.models import Capability
from corral.errors import InvalidRequest
from corral.gateway.inference import openai
from corral.routing.composing import too_deep
from corral.routing.order import Order

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True, eq=False)
class Asked:
    """What stands beside a body: who asks, under what name, whether strictly; and the model where the path names it.

    `betas` are parts of Anthropic's dialect that the client means to use.
    """

    request_id: str
    caller: Caller
    strict: bool = False
    model: str | None = None
    query: bytes = b""
    betas: bytes = b""
    started: float = field(default_factory=perf_counter)


@dataclass(frozen=True, slots=True)
class Door:
    """A way in. `stream` is what a request means that does not say whether it wants a stream; None: it never does.

    `call` is what is checked of a body that is relayed as it is.
    """

    form: str
    call: openai.Call | None = None
    stream: bool | None = None


_GENERATE = Door("ollama.generate", stream=True)
_RAW = Door("ollama.raw", stream=True)
"""The same path: a prompt that the model's template is not to be put around."""
DOORS: Mapping[str, Door] = {
    **{path: Door(f"openai.{call.name}", call) for path, call in openai.CALLS.items()},
    "/v1/responses": Door("openai.responses"),
    "/v1/rerank": Door("openai.rerank"),
    "/v1/messages": Door("anthropic.messages"),
    "/api/chat": Door("ollama.chat", stream=True),
    "/api/generate": _GENERATE,
    "/api/embed": Door("ollama.embed"),
    "/api/embeddings": Door("ollama.embed"),
}
"""Path → door. Gemini's paths name the model: see `gemini`."""
_EVENTS = Door("gemini.generate", stream=True)
_ARRAY = Door("gemini.array", stream=True)
"""The same path: a client that does not ask for events gets its stream as one JSON array."""
_GEMINI: Mapping[str, Door] = {
    "generateContent": Door("gemini.generate"),
    "streamGenerateContent": _EVENTS,
    "embedContent": Door("gemini.embed"),
    "batchEmbedContents": Door("gemini.batch"),
}
_ROOTS = ("/v1beta/models/", "/v1/models/", "/v1alpha/models/")
_NEEDS: Mapping[str, Capability] = {
    "chat": Capability.CHAT,
    "embeddings": Capability.EMBEDDINGS,
    "rerank": Capability.RERANK,
}


GEMINI_PATHS = tuple(f"/v1beta/models/{{id}}:{method}" for method in _GEMINI)


def gemini(path: str) -> tuple[Door, str] | None:
    """The door of one of Gemini's paths, `/v1beta/models/MODEL:METHOD`, with the model; None: it is none."""
    model, method = named(path)
    door = _GEMINI.get(method)
    return None if door is None or not model else (door, model)


def named(path: str) -> tuple[str, str]:
    """Model and method of a path of Gemini's; empty where it is none."""
    root = next((root for root in _ROOTS if path.startswith(root)), None)
    model, _, method = path.removeprefix(root or path).rpartition(":")
    return model, method


def read(door: Door, body: bytes, asked: Asked) -> Order:
    """The order in a body.

    Raises:
        InvalidRequest: it is none; names the field.
    """
    if door.call is not None:
        return _relayable(door, door.call, body, asked)
    document = openai.loaded(body)
    if door is _EVENTS and b"alt=sse" not in asked.query.split(b"&"):
        door = _ARRAY
    if door is _GENERATE:
        from corral.dialects.ollama import generates

        door = _RAW if generates(document) == _RAW.form else door
    if asked.model is not None:
        document["model"] = asked.model
    if door.stream is not None and "stream" not in document:
        document["stream"] = door.stream
    openai.check_name(document)
    return _understood(door, document, body, asked)


def _relayable(door: Door, call: openai.Call, body: bytes, asked: Asked) -> Order:
    document = openai.parse(body, call)
    wishes = openai.take_wishes(document)
    order = Order(
        asked.request_id,
        form(door.form),
        document["model"],
        document,
        body,
        asked.caller,
        needs=openai.needs(document, call),
        strict=asked.strict or asked.caller.strict,
        started=asked.started,
    )
    if document.get("stream"):
        order.stream = True
        options = document.get("stream_options")
        order.usage_wanted = bool(options and options.get("include_usage"))
    # Of both, engines differ in which they believe: money is held for the larger.
    limit = max(document.get("max_completion_tokens") or 0, document.get("max_tokens") or 0)
    if limit > 0:
        order.max_tokens = limit
    if wishes is not None:
        order.body = None  # the engine gets the document without them
        order.keep_alive, order.priority = wishes
    return order


def _understood(door: Door, document: dict[str, Any], body: bytes, asked: Asked) -> Order:
    spoken = form(door.form)
    options = document.get("options")
    wishes = openai.take_wishes(document)
    try:
        request = spoken.read_request(document)
    except RecursionError as error:
        raise too_deep() from error
    like = request.like if isinstance(request, Texts) else request
    order = Order(
        asked.request_id,
        spoken,
        document["model"],
        document,
        body,
        asked.caller,
        needs=_needs(request, spoken.kind),
        strict=asked.strict or asked.caller.strict,
        started=asked.started,
        asked=request,
        betas=asked.betas,
    )
    if isinstance(like, Request):
        order.stream, order.max_tokens = like.stream, like.max_tokens
    if wishes is not None:
        order.body = None
        order.keep_alive, order.priority = wishes
    if spoken.dialect == "ollama" and isinstance(options, dict):
        context = options.get("num_ctx")
        if context is not None and (type(context) is not int or context < 1):
            raise InvalidRequest("`options.num_ctx` must be an integer of at least 1.", param="options.num_ctx")
        order.context = context
    return order


def _needs(request: Request | Texts | Embed | Rank, kind: str) -> frozenset[Capability]:
    """What the model must be able to do for it."""
    first = _NEEDS.get(kind)
    found = frozenset() if first is None else frozenset((first,))
    if isinstance(request, Request) and any(_seen(message.parts) for message in request.messages):
        return found | {Capability.VISION}
    return found


def _seen(parts: tuple[Any, ...]) -> bool:
    """Whether there is a picture among them."""
    return any(
        isinstance(part, Image) or (isinstance(part, Result) and any(isinstance(each, Image) for each in part.parts))
        for part in parts
    )
