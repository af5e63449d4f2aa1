"""Reads requests for Anthropic's messages."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from corral.dialects.canonical import (
    Call,
    Choice,
    File,
    Format,
    Image,
    Message,
    Part,
    Request,
    Result,
    Role,
    Text,
    Thinking,
    Thought,
    Tool,
    name_results,
)
from corral.errors import InvalidRequest, NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "anthropic.messages"
_COMMON = frozenset(("model", "messages", "max_tokens", "system", "tools", "tool_choice", "thinking")) | frozenset(
    ("stop_sequences", "temperature", "top_p", "top_k", "metadata", "stream", "output_config", "output_format")
)
_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
_CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": "named"}
_TOOL_FIELDS = frozenset({"name", "description", "input_schema", "strict", "cache_control", "type"})


def read(document: Mapping[str, Any], counted: bool = False) -> Request:
    """The request in a parsed body. With `counted` it is one whose tokens are to be counted: it needs no `max_tokens`.

    Raises:
        InvalidRequest: it is no such request; names the field.
        NotSupported: it has content that only Anthropic itself can use, such as a file by its id.
    """
    lost: list[str] = []
    extra = {key: value for key, value in document.items() if key not in _COMMON}
    messages = _system(document.get("system"))
    given = document.get("messages")
    if not isinstance(given, list):
        _refuse("messages", "a list")
    for number, turn in enumerate(given):
        _read_turn(turn, number, messages, lost)
    tools = _tools(document["tools"], extra) if document.get("tools") is not None else ()
    choice, parallel = _choice(document.get("tool_choice"))
    shape, thinking = _wishes(document, extra, lost)
    most = _whole(document, "max_tokens")
    if most is None and not counted:
        raise InvalidRequest("The field 'max_tokens' is missing.", "Say how much may be written.", param="max_tokens")
    stop = document.get("stop_sequences")
    if stop is not None and not (isinstance(stop, list) and all(isinstance(each, str) for each in stop)):
        _refuse("stop_sequences", "a list of texts")
    return Request(
        model=_text(document, "model"),
        messages=name_results(messages),
        tools=tools,
        choice=choice,
        parallel=parallel,
        format=shape,
        thinking=thinking,
        max_tokens=most,
        temperature=_number(document, "temperature"),
        top_p=_number(document, "top_p"),
        top_k=_whole(document, "top_k"),
        stop=tuple(stop) if stop else (),
        user=_user(document.get("metadata"), lost),
        stream=_flag(document, "stream"),
        extra=extra,
        origin=NAME,
        lost=tuple(dict.fromkeys(lost)),
    )


def _refuse(field: str, wanted: str) -> NoReturn:
    raise InvalidRequest(f"The field {field!r} must be {wanted}.", param=field)


def _text(document: Mapping[str, Any], field: str) -> str:
    value = document.get(field)
    if not isinstance(value, str):
        _refuse(field, "a text")
    return value


def _whole(document: Mapping[str, Any], field: str) -> int | None:
    value = document.get(field)
    if value is None:
        return None
    if type(value) is not int or value < 0:
        _refuse(field, "a whole number")
    return value


def _number(document: Mapping[str, Any], field: str) -> float | None:
    value = document.get(field)
    if value is None:
        return None
    if type(value) is not float and type(value) is not int:
        _refuse(field, "a number")
    return value


def _flag(document: Mapping[str, Any], field: str) -> bool:
    value = document.get(field)
    if value is not None and type(value) is not bool:
        _refuse(field, "true or false")
    return bool(value)


def _object(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(field, "an object")
    return value


def _user(metadata: Any, lost: list[str]) -> str | None:
    if metadata is None:
        return None
    user = _object(metadata, "metadata").get("user_id")
    if user is not None and not isinstance(user, str):
        _refuse("metadata.user_id", "a text")
    lost.extend(f"metadata.{key}" for key in metadata if key != "user_id")
    return user


def _system(system: Any) -> list[Message]:
    if system is None:
        return []
    return [Message(Role.SYSTEM, _system_parts(system, "system"))]


def _system_parts(content: Any, where: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    if not isinstance(content, list):
        _refuse(where, "a text or a list of text blocks")
    parts: list[Part] = []
    for block in content:
        if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            _refuse(where, "a text or a list of text blocks")
        parts.append(Text(block["text"], cache(block)))
    return tuple(parts)


def cache(block: Mapping[str, Any]) -> str | None:
    """How long the vendor may keep the prompt up to this block; None when nothing is said of it."""
    control = block.get("cache_control")
    if control is None:
        return None
    ttl = _object(control, "cache_control").get("ttl", "5m")
    if not isinstance(ttl, str):
        _refuse("cache_control.ttl", "a text")
    return ttl


def _read_turn(turn: Any, number: int, messages: list[Message], lost: list[str]) -> None:
    where = f"messages.{number}"
    named = turn.get("role") if isinstance(turn, dict) else None
    role = _ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        _refuse(f"{where}.role", "user, assistant or system")
    content = turn.get("content")
    if isinstance(content, str):
        messages.append(Message(role, (Text(content),)))
        return
    if role is Role.SYSTEM:
        messages.append(Message(role, _system_parts(content, where)))
        return
    if not isinstance(content, list):
        _refuse(f"{where}.content", "a text or a list of blocks")
    parts: list[Part] = []
    for block in content:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            _flush(role, parts, messages)
            messages.append(Message(Role.TOOL, (_result(block, lost),)))  # each is a turn of its own
        else:
            _read_block(block, where, parts, lost)
    if parts or not content:
        messages.append(Message(role, tuple(parts)))


def _flush(role: Role, parts: list[Part], messages: list[Message]) -> None:
    if parts:
        messages.append(Message(role, tuple(parts)))
        parts.clear()


def _read_block(block: Any, where: str, parts: list[Part], lost: list[str]) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text":
        if block.get("citations"):
            lost.append("messages.citations")
        parts.append(Text(_text(block, "text"), cache(block)))
    elif kind == "tool_use":
        given = _object(block.get("input", {}), "input")
        if block.get("cache_control"):
            lost.append("messages.tool_use.cache_control")
        parts.append(Call(_text(block, "id"), _text(block, "name"), orjson.dumps(given).decode()))
    elif kind in ("thinking", "redacted_thinking"):
        parts.append(_thought(block))
    elif kind == "image":
        if block.get("transformations"):
            lost.append("messages.image.transformations")
        parts.append(_image(block))
    elif kind == "document":
        _document(block, parts, lost)
    else:
        _reject(kind, where)


def _reject(kind: Any, where: str) -> NoReturn:
    if not isinstance(kind, str):
        _refuse(f"{where}.content", "a list of blocks with a type")
    raise NotSupported(
        f"A block of the kind {kind!r} means something to Anthropic's own service only.",
        "Leave it out, or ask a model of Anthropic's.",
        param=where,
    )


def _thought(block: Mapping[str, Any]) -> Thought:
    if block["type"] == "redacted_thinking":
        return Thought(hidden=_text(block, "data"))
    proof = block.get("signature")
    if proof is not None and not isinstance(proof, str):
        _refuse("signature", "a text")
    return Thought(_text(block, "thinking"), signature=proof or None)


def _source(block: Mapping[str, Any]) -> dict[str, Any]:
    source = _object(block.get("source"), "source")
    if source.get("type") == "file":
        raise NotSupported(
            "A file by its id lies with Anthropic, where no other model can read it.",
            "Send its content instead.",
            param="source",
        )
    return source


def _image(block: Mapping[str, Any]) -> Image:
    source = _source(block)
    if source.get("type") == "base64":
        return Image(_text(source, "media_type"), _text(source, "data"), cache=cache(block))
    if source.get("type") == "url":
        return Image(url=_text(source, "url"), cache=cache(block))
    _refuse("source.type", "base64 or url")


def _document(block: Mapping[str, Any], parts: list[Part], lost: list[str]) -> None:
    source = _source(block)
    citations = block.get("citations")
    if citations is not None and _object(citations, "citations").get("enabled"):
        lost.append("messages.citations")
    if block.get("context"):
        lost.append("messages.document.context")
    kind, name = source.get("type"), block.get("title")
    if name is not None and not isinstance(name, str):
        _refuse("title", "a text")
    if kind == "base64":
        parts.append(File(_text(source, "media_type"), _text(source, "data"), name=name, cache=cache(block)))
    elif kind == "url":
        parts.append(File(url=_text(source, "url"), name=name, cache=cache(block)))
    elif kind in ("text", "content"):
        words = source.get("data" if kind == "text" else "content")
        if isinstance(words, list):
            words = "\n\n".join(_text(_object(each, "source.content"), "text") for each in words)
        if not isinstance(words, str):
            _refuse("source", "a document of text")
        data = b64encode(words.encode()).decode()
        parts.append(File("text/plain", data, name=name, cache=cache(block)))
    else:
        _refuse("source.type", "base64, url, text or content")


def _result(block: Mapping[str, Any], lost: list[str]) -> Result:
    content = block.get("content")
    parts: list[Part] = []
    if isinstance(content, str):
        parts.append(Text(content))
    elif isinstance(content, list):
        for inner in content:
            _read_block(inner, "tool_result", parts, lost)
    elif content is not None:
        _refuse("tool_result.content", "a text or a list of blocks")
    kept = tuple(part for part in parts if isinstance(part, Text | Image | File))
    if len(kept) != len(parts):
        _refuse("tool_result.content", "text, images and documents")
    return Result(_text(block, "tool_use_id"), kept, error=_flag(block, "is_error"), cache=cache(block))


def _tools(given: Any, extra: dict[str, Any]) -> tuple[Tool, ...]:
    if not isinstance(given, list):
        _refuse("tools", "a list")
    tools = []
    for tool in given:
        kind = _object(tool, "tools").get("type")
        if kind is not None and kind != "custom":
            # Anthropic runs these itself, or has taught its models what they are: nobody else has.
            extra.setdefault("server_tools", []).append(tool)
            continue
        schema, said, strict = tool.get("input_schema"), tool.get("description"), tool.get("strict")
        if not isinstance(schema, dict):
            _refuse("tools.input_schema", "an object")
        if said is not None and not isinstance(said, str):
            _refuse("tools.description", "a text")
        name = _text(tool, "name")
        if strict is not None:
            strict = _flag(tool, "strict")
        if not tool.keys() <= _TOOL_FIELDS:
            for key in tool.keys() - _TOOL_FIELDS:
                extra.setdefault(f"tools.{key}", {})[name] = tool[key]
        tools.append(Tool(name, said, schema, strict, cache(tool)))
    return tuple(tools)


def _choice(given: Any) -> tuple[Choice | None, bool | None]:
    if given is None:
        return None, None
    kind = _object(given, "tool_choice").get("type")
    mode = _CHOICES.get(kind) if isinstance(kind, str) else None
    if mode is None:
        _refuse("tool_choice.type", "auto, any, tool or none")
    name = _text(given, "name") if mode == "named" else None
    single = given.get("disable_parallel_tool_use")
    if single is not None and type(single) is not bool:
        _refuse("tool_choice.disable_parallel_tool_use", "true or false")
    return Choice(mode, name), None if single is None else not single


def _wishes(
    document: Mapping[str, Any], extra: dict[str, Any], lost: list[str]
) -> tuple[Format | None, Thinking | None]:
    """The shape of the answer, and how much is to be thought."""
    config = document.get("output_config")
    shape, effort = document.get("output_format"), None
    if config is not None:
        shape = _object(config, "output_config").get("format") or shape
        effort = config.get("effort")
        if effort is not None and not isinstance(effort, str):
            _refuse("output_config.effort", "a text")
        lost.extend(f"output_config.{key}" for key in config if key not in ("format", "effort"))
    found = None
    if shape is not None:
        if _object(shape, "output_config.format").get("type") != "json_schema":
            _refuse("output_config.format.type", "json_schema")
        found = Format("schema", _object(shape.get("schema"), "output_config.format.schema"))
    thinking = document.get("thinking")
    if thinking is None:
        return found, Thinking(effort) if effort else None
    return found, _thinking(_object(thinking, "thinking"), effort, extra)


def _thinking(given: dict[str, Any], effort: str | None, extra: dict[str, Any]) -> Thinking | None:
    kind = given.get("type")
    shown = {"summarized": True, "omitted": False}.get(str(given.get("display")))
    if kind == "enabled":
        budget = _whole(given, "budget_tokens")
        if budget is None:
            _refuse("thinking.budget_tokens", "a whole number")
        return Thinking(effort, budget, shown)
    if kind == "disabled":
        return Thinking(effort, 0, shown) if effort else Thinking("none", shown=shown)
    if kind == "adaptive":
        return Thinking(effort, None if effort else -1, shown)
    if not isinstance(kind, str):
        _refuse("thinking.type", "enabled, disabled or adaptive")
    extra["thinking"] = given
    return Thinking(effort) if effort else None
