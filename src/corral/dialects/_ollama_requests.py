"""Requests of Ollama, read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from corral.dialects.canonical import (
    Call,
    Embed,
    Format,
    Image,
    Message,
    Request,
    Result,
    Role,
    Text,
    Texts,
    Thinking,
    Thought,
    Tool,
)
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corral.dialects.canonical import Part
    from corral.dialects.form import Profile

CHAT, GENERATE, RAW, EMBED, EMBEDDINGS = (
    "ollama.chat",
    "ollama.generate",
    "ollama.raw",
    "ollama.embed",
    "ollama.embeddings",
)
CAN = frozenset(
    ("format", "thinking", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop")
) | frozenset(("presence_penalty", "frequency_penalty", "repeat_penalty", "logprobs", "top_logprobs"))
CAN_CHAT = CAN | {"tools", "choice"}
CAN_RAW = CAN - {"thinking", "format"} | {"suffix"}
_SAID = frozenset(("model", "stream", "options", "format", "think", "logprobs", "top_logprobs"))
_SAID_IN_CHAT = _SAID | {"messages", "tools"}
_SAID_ONCE = _SAID | {"prompt", "system", "images", "suffix", "raw"}
_ROLES = {role.value: role for role in Role}
_WHOLE = {"top_k": "top_k", "seed": "seed", "num_predict": "max_tokens"}
_NUMBERS = {
    name: name for name in ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty")
}
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_PICTURES = {"/9j/": "image/jpeg", "iVBORw0KGgo": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How pictures of a kind begin, in base64."""


# -- reading ---------------------------------------------------------------------------------------------------------


def read_chat(document: Mapping[str, Any]) -> Request:
    """A conversation."""
    lost: list[str] = []
    messages = []
    calls = _Calls()
    for number, turn in enumerate(_list(document, "messages")):
        messages.append(_message(turn, f"messages.{number}", calls, lost))
    tools = tuple(_tool(tool, lost) for tool in _list(document, "tools"))
    extra = {key: value for key, value in document.items() if key not in _SAID_IN_CHAT}
    return Request(
        _model(document), tuple(messages), tools=tools, **_wishes(document, extra), extra=extra, origin=CHAT,
        lost=tuple(dict.fromkeys(lost)),
    )  # fmt: skip


def read_generate(document: Mapping[str, Any]) -> Request:
    """A prompt to be put into the model's template: a conversation of one turn."""
    messages = []
    system = _optional_text(document, "system")
    if system:
        messages.append(Message(Role.SYSTEM, (Text(system),)))
    prompt = _optional_text(document, "prompt") or ""
    parts: list[Part] = [Text(prompt)] if prompt else []
    parts += [_picture(each) for each in _list(document, "images")]
    messages.append(Message(Role.USER, tuple(parts)))
    extra = {key: value for key, value in document.items() if key not in _SAID_ONCE}
    return Request(_model(document), tuple(messages), **_wishes(document, extra), extra=extra, origin=GENERATE)


def read_raw(document: Mapping[str, Any]) -> Texts:
    """A text to go on with, as it stands; or the gap between it and a `suffix`."""
    known = _SAID - {"think", "format"} | {"prompt", "suffix", "raw"}
    extra = {key: value for key, value in document.items() if key not in known}
    wishes = _wishes({key: value for key, value in document.items() if key in known}, extra)
    like = Request(_model(document), (), **wishes, extra=extra, origin=RAW)
    return Texts(_optional_text(document, "prompt") or "", like, _optional_text(document, "suffix") or None)


def read_embed(document: Mapping[str, Any]) -> Embed:
    """Texts whose vectors are wanted: `input`, or in the older call `prompt`."""
    older = "input" not in document and "prompt" in document
    given = document.get("prompt" if older else "input")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        _refuse("prompt" if older else "input", "a text or a list of texts")
    said = ("model", "prompt" if older else "input", "dimensions")
    extra = {key: value for key, value in document.items() if key not in said}
    _lift_options(document, extra)
    return Embed(
        _model(document),
        tuple(given),
        dimensions=_whole(document.get("dimensions"), "dimensions"),
        extra=extra,
        origin=EMBEDDINGS if older else EMBED,
    )


def _lift_options(document: Mapping[str, Any], extra: dict[str, Any]) -> Mapping[str, Any]:
    """The options, those that no canonical field holds being put into `extra`, the context by its own name."""
    extra.pop("options", None)
    options = document.get("options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        _refuse("options", "an object")
    for name, value in options.items():
        if name == "num_ctx":
            extra["num_ctx"] = _whole(value, "options.num_ctx")
        elif name not in _WHOLE and name not in _NUMBERS and name != "stop":
            extra[f"options.{name}"] = value
    return options


def _wishes(document: Mapping[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    options = _lift_options(document, extra)
    found: dict[str, Any] = {}
    for name, field in _WHOLE.items():
        found[field] = _whole(options.get(name), f"options.{name}")
    for name, field in _NUMBERS.items():
        found[field] = _number(options.get(name), f"options.{name}")
    if (found["max_tokens"] or 0) < 0:
        extra["options.num_predict"] = found["max_tokens"]
        found["max_tokens"] = None
    stop = options.get("stop")
    if isinstance(stop, str):
        stop = [stop]
    if stop is not None and not (isinstance(stop, list) and all(isinstance(each, str) for each in stop)):
        _refuse("options.stop", "a list of texts")
    stream = document.get("stream")
    if stream is not None and type(stream) is not bool:
        _refuse("stream", "true or false")
    probable = document.get("logprobs")
    if probable is not None and type(probable) is not bool:
        _refuse("logprobs", "true or false")
    return found | {
        "stop": tuple(stop or ()),
        "stream": stream is not False,
        "logprobs": probable,
        "top_logprobs": _whole(document.get("top_logprobs"), "top_logprobs"),
        "format": _format(document.get("format")),
        "thinking": _thinking(document.get("think")),
    }


def _format(given: Any) -> Format | None:
    if given is None or given == "":
        return None
    if given == "json":
        return Format("json")
    if not isinstance(given, dict):
        _refuse("format", "json or a JSON schema")
    return Format("schema", given)


def _thinking(given: Any) -> Thinking | None:
    if given is None:
        return None
    if given is True:
        return Thinking(budget=-1)
    if given is False or given in ("none", ""):
        return Thinking("none")
    if not isinstance(given, str):
        _refuse("think", "true, false, low, medium or high")
    return Thinking(given)


class _Calls:
    """Names for calls that have none: Ollama's older clients tell which result belongs to which call by the order."""

    def __init__(self) -> None:
        self.count = 0
        self.waiting: list[tuple[str, str]] = []

    def begin(self, given: Any, name: str) -> str:
        self.count += 1
        found = given if isinstance(given, str) and given else f"call_{self.count - 1}"
        self.waiting.append((found, name))
        return found

    def answer(self, given: Any, name: str | None) -> str:
        if isinstance(given, str) and given:
            self.waiting = [each for each in self.waiting if each[0] != given]
            return given
        named = [at for at, each in enumerate(self.waiting) if name is None or each[1] == name]
        at = named[0] if named else 0
        return self.waiting.pop(at)[0] if self.waiting else f"call_{max(self.count - 1, 0)}"


_OF_A_TURN = frozenset(("role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id", "name"))


def _message(turn: Any, where: str, calls: _Calls, lost: list[str]) -> Message:
    role = _ROLES.get(turn.get("role")) if isinstance(turn, dict) and isinstance(turn.get("role"), str) else None
    if role is None:
        _refuse(f"{where}.role", "system, user, assistant or tool")
    lost.extend(f"messages.{key}" for key in turn.keys() - _OF_A_TURN)
    content = _optional_text(turn, "content") or ""
    parts: list[Part] = []
    thought = _optional_text(turn, "thinking")
    if thought:
        parts.append(Thought(thought))
    if content:
        parts.append(Text(content))
    parts += [_picture(each) for each in _list(turn, "images")]
    if role is Role.TOOL:
        name = _optional_text(turn, "tool_name") or _optional_text(turn, "name") or None
        held = tuple(part for part in parts if isinstance(part, Text | Image))
        return Message(role, (Result(calls.answer(turn.get("tool_call_id"), name), held, name),))
    for call in _list(turn, "tool_calls"):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            _refuse(f"{where}.tool_calls", "a list of calls of functions")
        given = function.get("arguments", {})
        said = given if isinstance(given, str) else orjson.dumps(given).decode()
        parts.append(Call(calls.begin(call.get("id"), function["name"]), function["name"], said))
    return Message(role, tuple(parts), None if role is Role.TOOL else _optional_text(turn, "name"))


def _picture(data: Any) -> Image:
    if not isinstance(data, str):
        _refuse("images", "a list of pictures in base64")
    return Image(kind_of(data), data)


def kind_of(data: str) -> str:
    """The media type of a picture in base64; what is not known is taken for JPEG, as Ollama's clients send no type."""
    return next((kind for start, kind in _PICTURES.items() if data.startswith(start)), "image/jpeg")


def _tool(tool: Any, lost: list[str]) -> Tool:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        _refuse("tools", "a list of functions")
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        _refuse("tools.function.parameters", "an object")
    lost.extend(f"tools.{key}" for key in function.keys() - {"name", "description", "parameters"})
    return Tool(function["name"], _optional_text(function, "description"), schema)


def _refuse(field: str, wanted: str) -> NoReturn:
    raise InvalidRequest(f"The field {field!r} must be {wanted}.", param=field)


def _model(document: Mapping[str, Any]) -> str:
    model = document.get("model")
    if not isinstance(model, str):
        _refuse("model", "a text")
    return model


def _optional_text(document: Mapping[str, Any], field: str) -> str | None:
    value = document.get(field)
    if value is not None and not isinstance(value, str):
        _refuse(field, "a text")
    return value


def _list(document: Mapping[str, Any], field: str) -> list[Any]:
    value = document.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(field, "a list")
    return value


def _whole(value: Any, field: str) -> int | None:
    if value is None or type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    _refuse(field, "a whole number")


def _number(value: Any, field: str) -> float | None:
    if value is not None and type(value) is not float and type(value) is not int:
        _refuse(field, "a number")
    return value


# -- writing ---------------------------------------------------------------------------------------------------------


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
    for names in (_WHOLE, _NUMBERS):
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
