"""Writes requests for Ollama."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._ollama_reading import CHAT, EMBED, EMBEDDINGS, GENERATE, NUMBERS, RAW, WHOLE, kind_of
from corral.dialects.canonical import Call, Image, Result, Role, Text, Thought
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corral.dialects.canonical import Embed, Format, Part, Request, Texts, Thinking, Tool
    from corral.dialects.form import Profile

CAN = frozenset(
    ("format", "thinking", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop")
) | frozenset(("presence_penalty", "frequency_penalty", "repeat_penalty", "logprobs", "top_logprobs"))
CAN_CHAT = CAN | {"tools", "choice"}
CAN_RAW = CAN - {"thinking", "format"} | {"suffix"}
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def chat_document(request: Request, profile: Profile, also: dict[str, None]) -> dict[str, Any]:
    """A conversation for an engine."""
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        if message.name is not None:
            also["message.name"] = None
        results = [part for part in message.parts if isinstance(part, Result)]
        messages += [_write_result(result, also) for result in results]
        rest = [part for part in message.parts if not isinstance(part, Result)]
        if rest or not results:
            messages.append(_write_turn(message.role.value, rest, also))
    document: dict[str, Any] = {"model": request.model, "messages": messages}
    choice = request.choice
    if choice is not None and choice.mode != "auto":
        also["choice"] = None
    if request.tools and choice is not None and choice.mode == "none":
        also["tools"] = None  # the only way to have none called
    elif request.tools:
        document["tools"] = [_write_tool(tool, also) for tool in request.tools]
    return document | write_wishes(request, profile, also, CHAT)


def generate_document(request: Request, profile: Profile, also: dict[str, None]) -> dict[str, Any]:
    """A conversation as one prompt: what the system and the user say. More than one turn is told as a text."""
    document: dict[str, Any] = {"model": request.model}
    turns = [message for message in request.messages if message.role is not Role.SYSTEM]
    system = _words(part for message in request.messages if message.role is Role.SYSTEM for part in message.parts)
    if len(turns) == 1 and turns[0].role is Role.USER:
        turn = _write_turn("user", turns[0].parts, also)
        if turns[0].name is not None:
            also["message.name"] = None
        document["prompt"] = turn["content"]
        if "images" in turn:
            document["images"] = turn["images"]
        for message in request.messages:
            if message.role is Role.SYSTEM:
                _write_turn("system", message.parts, also)
    else:
        document["prompt"] = "\n\n".join(f"{turn.role.value}: {_words(turn.parts)}" for turn in turns)
        also["messages"] = None
    if system:
        document["system"] = system
    return document | write_wishes(request, profile, also, GENERATE)


def raw_document(request: Texts, profile: Profile, also: dict[str, None]) -> dict[str, Any]:
    """A text to go on with. With a suffix it is put into the model's own template for gaps."""
    document: dict[str, Any] = {"model": request.like.model, "prompt": request.prompt}
    if request.suffix:
        document["suffix"] = request.suffix
    else:
        document["raw"] = True
    return document | write_wishes(request.like, profile, also, RAW)


def embed_document(request: Embed, profile: Profile, also: dict[str, None]) -> dict[str, Any]:
    """Texts whose vectors are wanted."""
    texts = [each for each in request.inputs if isinstance(each, str)]
    if len(texts) < len(request.inputs):
        raise InvalidRequest("Ollama takes texts, and no tokens.", "Send the texts themselves.", param="input")
    document: dict[str, Any] = {"model": request.model, "input": texts}
    if request.dimensions is not None:
        document["dimensions"] = request.dimensions
    if request.origin in (EMBED, EMBEDDINGS):
        _restore(request.extra, document)
    return fit(document, profile, also)


def write_wishes(request: Request, profile: Profile, also: dict[str, None], form: str) -> dict[str, Any]:
    """All but the conversation."""
    document: dict[str, Any] = {"stream": request.stream}
    options: dict[str, Any] = {}
    for names in (WHOLE, NUMBERS):
        for name, field in names.items():
            if (value := getattr(request, field)) is not None:
                options[name] = value
    if request.stop:
        options["stop"] = list(request.stop)
    if options:
        document["options"] = options
    if request.logprobs is not None:
        document["logprobs"] = request.logprobs
    if request.top_logprobs is not None:
        document["top_logprobs"] = request.top_logprobs
    if form != RAW:
        _write_format(request.format, document, also)
        _write_thinking(request.thinking, profile, document, also)
    if request.origin == form:
        _restore(request.extra, document)
    return fit(document, profile, also)


def fit(document: dict[str, Any], profile: Profile, also: dict[str, None]) -> dict[str, Any]:
    """The document as this engine takes it."""
    for field in profile.drop:
        if document.pop(field, None) is not None:
            also[{"think": "thinking"}.get(field, field)] = None
    for field, value in profile.extra.items():
        document.setdefault(field, value)
    return document


def _restore(extra: Mapping[str, Any], document: dict[str, Any]) -> None:
    for key, value in extra.items():
        if key == "num_ctx":
            document.setdefault("options", {})["num_ctx"] = value
        elif key.startswith("options."):
            document.setdefault("options", {})[key[8:]] = value
        else:
            document[key] = value


def _write_format(shape: Format | None, document: dict[str, Any], also: dict[str, None]) -> None:
    if shape is None or shape.kind == "text":
        return
    if shape.kind == "json" or shape.schema is None:
        document["format"] = "json"
    else:
        document["format"] = shape.schema
    for field in ("name", "strict", "description"):
        if getattr(shape, field) is not None:
            also[f"format.{field}"] = None


def _write_thinking(wish: Thinking | None, profile: Profile, document: dict[str, Any], also: dict[str, None]) -> None:
    if wish is None:
        return
    if profile.thinking == "none":
        also["thinking"] = None
        return
    if wish.shown is False:
        also["thinking.shown"] = None
    if wish.budget == 0 or (wish.budget is None and wish.effort == "none"):
        document["think"] = False
        return
    if wish.budget is not None and wish.budget > 0:
        also["thinking.budget"] = None
    if wish.effort is not None:
        document["think"] = _LEVELS.get(wish.effort, True)
        if document["think"] != wish.effort:
            also["thinking.effort"] = None
    elif wish.budget is not None:
        document["think"] = True


def _words(parts: Iterable[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))


def _write_turn(role: str, parts: Iterable[Part], also: dict[str, None]) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": role, "content": ""}
    said, thought = [], []
    for part in parts:
        if isinstance(part, Text):
            said.append(part.text)
            if part.cache is not None:
                also["text.cache"] = None
        elif isinstance(part, Thought):
            thought.append(part.text)
            _name(part, ("signature", "hidden"), also)
        elif isinstance(part, Call):
            _name(part, ("signature",), also)
            function = {"name": part.name, "arguments": arguments(part.arguments)}
            turn.setdefault("tool_calls", []).append({"id": part.id, "function": function})
        elif isinstance(part, Image) and part.data is not None:
            turn.setdefault("images", []).append(part.data)
            _name(part, ("detail", "cache"), also)
            if part.media_type != kind_of(part.data):
                also["image.media_type"] = None
        else:
            also[type(part).__name__.lower()] = None
    turn["content"] = "".join(said)
    if any(thought):
        turn["thinking"] = "".join(thought)
    return turn


def _name(part: Any, fields: Iterable[str], also: dict[str, None]) -> None:
    for field in fields:
        if getattr(part, field) is not None:
            also[f"{type(part).__name__.lower()}.{field}"] = None


def arguments(said: str) -> dict[str, Any]:
    """The arguments as an object; what a model wrote that is none is passed on as it is, in one."""
    try:
        found = orjson.loads(said or "{}")
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"arguments": said}


def _write_result(result: Result, also: dict[str, None]) -> dict[str, Any]:
    turn = _write_turn("tool", result.parts, also)
    turn["tool_call_id"] = result.id
    if result.name is not None:
        turn["tool_name"] = result.name
    if result.error:
        also["result.error"] = None
    _name(result, ("cache",), also)
    return turn


def _write_tool(tool: Tool, also: dict[str, None]) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    _name(tool, ("strict", "cache"), also)
    return {"type": "function", "function": function}
