"""Reads requests of Ollama."""

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
    from collections.abc import Mapping

    from corral.dialects.canonical import Part

CHAT, GENERATE, RAW, EMBED, EMBEDDINGS = (
    "ollama.chat",
    "ollama.generate",
    "ollama.raw",
    "ollama.embed",
    "ollama.embeddings",
)
_SAID = frozenset(("model", "stream", "options", "format", "think", "logprobs", "top_logprobs"))
_SAID_IN_CHAT = _SAID | {"messages", "tools"}
_SAID_ONCE = _SAID | {"prompt", "system", "images", "suffix", "raw"}
_LARGEST = 2**53
"""Beyond it a float is no longer every whole number."""
_ROLES = {role.value: role for role in Role}
WHOLE = {"top_k": "top_k", "seed": "seed", "num_predict": "max_tokens"}
NUMBERS = {
    name: name for name in ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty")
}
_PICTURES = {"/9j/": "image/jpeg", "iVBORw0KGgo": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How pictures of a kind begin, in base64."""


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
        elif name not in WHOLE and name not in NUMBERS and name != "stop":
            extra[f"options.{name}"] = value
    return options


def _wishes(document: Mapping[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    options = _lift_options(document, extra)
    found: dict[str, Any] = {}
    for name, field in WHOLE.items():
        found[field] = _whole(options.get(name), f"options.{name}")
    for name, field in NUMBERS.items():
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
    named = turn.get("role") if isinstance(turn, dict) else None
    role = _ROLES.get(named) if isinstance(named, str) else None
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
    return Message(role, tuple(parts), _optional_text(turn, "name"))


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
    if type(value) is float and value.is_integer() and abs(value) < _LARGEST:
        return int(value)
    _refuse(field, "a whole number")


def _number(value: Any, field: str) -> float | None:
    if value is not None and type(value) is not float and type(value) is not int:
        _refuse(field, "a number")
    return value
