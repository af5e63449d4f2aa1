"""The messages and tools of OpenAI's chat, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._openai_fields import need, note_unknown, shorten, take, wrong
from corral.dialects._openai_parts import read_content, write_chat_part
from corral.dialects.canonical import (
    Call,
    Choice,
    File,
    Format,
    Image,
    Message,
    Part,
    Result,
    Role,
    Text,
    Thought,
    Tool,
    name_results,
    unname_results,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}
_PLAIN = frozenset(("role", "content", "name"))
_SPOKEN = _PLAIN | frozenset(
    ("tool_calls", "function_call", "reasoning_content", "reasoning", "reasoning_details", "refusal")
)
_RESULT = _PLAIN | frozenset(("tool_call_id",))
_FUNCTION = frozenset(("name", "description", "parameters", "strict"))
_MODES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


def read_messages(messages: Sequence[Any], lost: dict[str, None]) -> tuple[Message, ...]:
    """The conversation; what of it has no place in the canonical form is noted as `lost`.

    Raises:
        InvalidRequest: a message is none; names it.
    """
    return name_results(_read_message(message, f"messages[{index}]", lost) for index, message in enumerate(messages))


def _read_message(message: Any, where: str, lost: dict[str, None]) -> Message:
    if type(message) is not dict or type(message.get("role")) is not str:
        raise wrong(where, "an object with a `role`")
    role = _ROLES.get(message["role"])
    if role is None:
        raise wrong(f"{where}.role", "one of system, developer, user, assistant, tool")
    name: str | None = take(message, "name", str, f"{where}.")
    parts: tuple[Part, ...] = read_content(message.get("content"), f"{where}.content")
    if role is Role.ASSISTANT:
        note_unknown((key for key in message if message[key] is not None), _SPOKEN, "messages", lost)
        return Message(role, _read_spoken(message, parts, where), name)
    if role is Role.TOOL:
        note_unknown(message, _RESULT, "messages", lost)
        if message["role"] == "function":
            asked = f"call_{need(message, 'name', str, f'{where}.')}"
        else:
            asked = need(message, "tool_call_id", str, f"{where}.")
        return Message(role, (Result(asked, parts, name),))  # type: ignore[arg-type]
    if len(message) > 2:
        note_unknown(message, _PLAIN, "messages", lost)
    return Message(role, parts, name)


def _read_spoken(message: Mapping[str, Any], parts: tuple[Part, ...], where: str) -> tuple[Part, ...]:
    if len(message) == 2 and parts:
        return parts
    refusal = take(message, "refusal", str, f"{where}.")
    if refusal:
        parts = (*parts, Text(refusal))
    calls = take(message, "tool_calls", list, f"{where}.")
    if calls:
        parts += tuple(_read_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls))
    old = take(message, "function_call", dict, f"{where}.")
    if old:
        name = need(old, "name", str, f"{where}.function_call.")
        parts = (*parts, Call(f"call_{name}", name, arguments_of(old.get("arguments"))))
    return (*read_thoughts(message), *parts)


def read_thoughts(message: Mapping[str, Any]) -> tuple[Thought, ...]:
    """The thoughts in a message, under whichever of their names; with their proofs, where OpenRouter's details are."""
    details = message.get("reasoning_details")
    if type(details) is list:
        found = tuple(thought for each in details if (thought := _read_detail(each)) is not None)
        if found:
            return found
    for name in ("reasoning_content", "reasoning"):
        said = message.get(name)
        if type(said) is str and said:
            return (Thought(said),)
    return ()


def _read_detail(detail: Any) -> Thought | None:
    if type(detail) is not dict:
        return None
    text, proof, hidden = detail.get("text", detail.get("summary")), detail.get("signature"), detail.get("data")
    thought = Thought(
        text if type(text) is str else "",
        proof if type(proof) is str else None,
        hidden if type(hidden) is str else None,
    )
    return thought if thought != Thought() else None


def write_details(thoughts: Iterable[Thought]) -> list[dict[str, Any]]:
    """Thoughts with their proofs, as OpenRouter's `reasoning_details`, which clients give back as they were."""
    details: list[dict[str, Any]] = []
    for thought in thoughts:
        if thought.text or thought.signature:
            proof = {} if thought.signature is None else {"signature": thought.signature}
            details.append({"type": "reasoning.text", "text": thought.text, **proof})
        if thought.hidden is not None:
            details.append({"type": "reasoning.encrypted", "data": thought.hidden})
    return details


def arguments_of(value: Any) -> str:
    """The arguments of a call as JSON in a string, for those who send the object itself too."""
    if type(value) is str:
        return value
    return "{}" if value is None else orjson.dumps(value).decode()


def _read_call(call: Any, where: str) -> Call:
    if type(call) is not dict:
        raise wrong(where, "an object")
    given = need(call, "id", str, f"{where}.")
    if call.get("type") == "custom":
        custom = need(call, "custom", dict, f"{where}.")
        text = need(custom, "input", str, f"{where}.custom.")
        return Call(given, need(custom, "name", str, f"{where}.custom."), orjson.dumps({"input": text}).decode())
    function = need(call, "function", dict, f"{where}.")
    name = need(function, "name", str, f"{where}.function.")
    arguments = function.get("arguments")
    if arguments is not None and type(arguments) not in (str, dict):
        raise wrong(f"{where}.function.arguments", "a string")
    return Call(given, name, arguments_of(arguments), signature_of(call))


def signature_of(call: Mapping[str, Any]) -> str | None:
    """A vendor's proof of a call, where Google's clients of this dialect carry it."""
    said = call.get("extra_content")
    said = said.get("google") if type(said) is dict else None
    said = said.get("thought_signature") if type(said) is dict else None
    return said if type(said) is str else None


def write_call(call: Call) -> dict[str, Any]:
    """A call as chat has it, without its proof."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def read_tools(tools: Sequence[Any] | None, lost: dict[str, None]) -> tuple[Tool, ...]:
    """The functions that may be called. Tools of other kinds are `lost`, by their kind.

    Raises:
        InvalidRequest: one is none; names it.
    """
    found = []
    for index, tool in enumerate(tools or ()):
        if type(tool) is not dict:
            raise wrong(f"tools[{index}]", "an object")
        kind = tool.get("type", "function")
        if kind != "function":
            lost[f"tools.{shorten(kind)}"] = None
            continue
        where = f"tools[{index}].function."
        found.append(read_function(need(tool, "function", dict, f"tools[{index}]."), where, lost))
    return tuple(found)


def read_function(function: Mapping[str, Any], where: str, lost: dict[str, None]) -> Tool:
    """One function, from the object that names it.

    Raises:
        InvalidRequest: it is none.
    """
    if len(function) > 3:
        note_unknown((key for key in function if key != "type"), _FUNCTION, "tools", lost)
    name = need(function, "name", str, where)
    if not name:
        raise wrong(f"{where}name", "a string that is not empty")
    return Tool(
        name,
        take(function, "description", str, where),
        take(function, "parameters", dict, where),
        take(function, "strict", bool, where),
    )


def write_function(tool: Tool, also: dict[str, None]) -> dict[str, Any]:
    """The object that describes a function."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    if tool.cache is not None:
        also["tool.cache"] = None
    return function


def read_choice(choice: Any, lost: dict[str, None]) -> Choice | None:
    """Which tools must be called.

    Raises:
        InvalidRequest: it says no such thing.
    """
    if choice is None:
        return None
    if type(choice) is str and choice in _MODES:
        return Choice(_MODES[choice])
    if type(choice) is dict:
        kind = choice.get("type")
        if kind == "function":
            inner = choice.get("function", choice)
            if type(inner) is not dict:
                raise wrong("tool_choice.function", "an object")
            return Choice("named", need(inner, "name", str, "tool_choice.function."))
        if kind == "allowed_tools":
            inner = choice.get("allowed_tools", choice)
            mode = inner.get("mode") if type(inner) is dict else None
            lost["tool_choice.allowed_tools"] = None
            return Choice(_MODES[mode]) if type(mode) is str and mode in _MODES else None
        if type(kind) is str:
            lost[f"tool_choice.{shorten(kind)}"] = None
            return None
    raise wrong("tool_choice", "auto, none, required, or an object that names a function")


def read_schema(schema: Mapping[str, Any], where: str) -> Format:
    """The format of an answer that keeps to a JSON schema.

    Raises:
        InvalidRequest: there is no schema.
    """
    return Format(
        "schema",
        need(schema, "schema", dict, where),
        take(schema, "name", str, where),
        take(schema, "strict", bool, where),
        take(schema, "description", str, where),
    )


def write_schema(wish: Format) -> dict[str, Any]:
    """The object that describes a JSON schema with its name, which OpenAI demands."""
    schema: dict[str, Any] = {"name": wish.name or "answer", "schema": wish.schema or {}}
    if wish.strict is not None:
        schema["strict"] = wish.strict
    if wish.description is not None:
        schema["description"] = wish.description
    return schema


def write_messages(messages: Iterable[Message], system: str, thoughts: bool, also: dict[str, None]) -> list[Any]:
    """The messages for an engine; `system` is what it calls that role. `also` gets what cannot be said."""
    written: list[dict[str, Any]] = []
    seen: list[Image | File] = []
    for message in unname_results(messages):
        if seen and message.role is not Role.TOOL:
            written.append({"role": "user", "content": [write_chat_part(part, also) for part in seen]})
            seen = []
        if message.role is Role.TOOL:
            _write_results(message, written, seen, also)
        elif message.role is Role.ASSISTANT:
            written.append(_write_spoken(message, thoughts, also))
        else:
            role = system if message.role is Role.SYSTEM else "user"
            written.append(_named({"role": role, "content": _write_content(message.parts, also)}, message))
    if seen:
        written.append({"role": "user", "content": [write_chat_part(part, also) for part in seen]})
    return written


def _named(document: dict[str, Any], message: Message) -> dict[str, Any]:
    if message.name is not None:
        document["name"] = message.name
    return document


def _write_content(parts: Sequence[Part], also: dict[str, None]) -> Any:
    if len(parts) == 1:
        only = parts[0]
        if isinstance(only, Text) and only.cache is None:
            return only.text
    said = []
    for part in parts:
        if isinstance(part, Text | Image | File):
            said.append(write_chat_part(part, also))
        else:
            also[type(part).__name__.lower()] = None
    return said or ""


def _write_spoken(message: Message, thoughts: bool, also: dict[str, None]) -> dict[str, Any]:
    said = [part for part in message.parts if isinstance(part, Text | Image | File)]
    calls = [write_call(part) for part in message.parts if isinstance(part, Call)]
    document: dict[str, Any] = {"role": "assistant", "content": _write_words(said, also)}
    if calls:
        document["tool_calls"] = calls
        document["content"] = document["content"] or None
    thought = ""
    for part in message.parts:
        if isinstance(part, Thought):
            thought += part.text
            _note_thought(part, thoughts, also)
        elif isinstance(part, Call) and part.signature is not None:
            also["call.signature"] = None
        elif isinstance(part, Result):
            also["result"] = None
    if thought and thoughts:
        document["reasoning_content"] = thought
    return _named(document, message)


def _write_words(said: Sequence[Text | Image | File], also: dict[str, None]) -> Any:
    """What an assistant said: one string, as some engines take nothing else."""
    words = [part.text for part in said if isinstance(part, Text)]
    if len(words) < len(said):
        return _write_content(said, also)
    if any(part.cache for part in said):
        also["text.cache"] = None
    return "".join(words)


def _note_thought(part: Thought, thoughts: bool, also: dict[str, None]) -> None:
    if not thoughts:
        also["thought"] = None
    if part.signature is not None:
        also["thought.signature"] = None
    if part.hidden is not None:
        also["thought.hidden"] = None


def _write_results(
    message: Message, written: list[dict[str, Any]], seen: list[Image | File], also: dict[str, None]
) -> None:
    """A message for each result. A tool's answer is text here: pictures and files follow in a turn of the user."""
    for part in message.parts:
        if not isinstance(part, Result):
            also[type(part).__name__.lower()] = None
            continue
        texts = [each for each in part.parts if isinstance(each, Text)]
        seen += [each for each in part.parts if not isinstance(each, Text)]
        result = {"role": "tool", "tool_call_id": part.id, "content": _write_content(texts, also)}
        if part.name is not None:
            result["name"] = part.name
        if part.error:
            also["result.error"] = None
        if part.cache is not None:
            also["result.cache"] = None
        written.append(result)
