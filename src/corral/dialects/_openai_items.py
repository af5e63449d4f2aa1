"""The items of OpenAI's responses: what is put in, and what comes out, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._openai_answers import call_id
from corral.dialects._openai_fields import need, note_unknown, take, wrong
from corral.dialects._openai_messages import arguments_of
from corral.dialects._openai_parts import read_content, write_input_part
from corral.dialects.canonical import (
    Call,
    File,
    Image,
    Message,
    Part,
    Result,
    Role,
    Text,
    Thought,
    name_results,
    unname_results,
)
from corral.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
_MESSAGE = frozenset(("type", "role", "content", "id", "status", "phase"))


def read_input(items: Any, lost: dict[str, None]) -> list[Message]:
    """The conversation in `input`. What the model did in one turn is one message, as are its tools' results.

    Raises:
        InvalidRequest: it is neither text nor an array of items; names the item.
        NotSupported: an item that only OpenAI itself can follow.
    """
    if type(items) is str and items:
        return [Message(Role.USER, (Text(items),))]
    if type(items) is not list or not items:
        raise wrong("input", "a string or an array that is not empty")
    turns: list[tuple[Role, list[Part]]] = []
    for index, item in enumerate(items):
        where = f"input[{index}]"
        if type(item) is not dict:
            raise wrong(where, "an object")
        role, parts = _read_item(item, where, lost)
        if turns and turns[-1][0] is role and role in (Role.ASSISTANT, Role.TOOL):
            turns[-1][1].extend(parts)
        else:
            turns.append((role, list(parts)))
    return list(name_results(Message(role, tuple(parts)) for role, parts in turns))


def _read_item(item: Mapping[str, Any], where: str, lost: dict[str, None]) -> tuple[Role, Iterable[Part]]:
    kind = item.get("type", "message")
    if kind == "message":
        said = item.get("role")
        role = _ROLES.get(said) if type(said) is str else None
        if role is None:
            raise wrong(f"{where}.role", "one of system, developer, user, assistant")
        note_unknown(item, _MESSAGE, "input", lost)
        return role, read_content(item.get("content"), f"{where}.content")
    if kind in ("function_call", "custom_tool_call"):
        return Role.ASSISTANT, (_read_call(item, f"{where}."),)
    if kind in ("function_call_output", "custom_tool_call_output"):
        parts = read_content(item.get("output"), f"{where}.output")
        return Role.TOOL, (Result(need(item, "call_id", str, f"{where}."), parts),)
    if kind == "reasoning":
        return Role.ASSISTANT, read_reasoning(item, where)
    raise NotSupported(
        f"`{where}` is of the type {str(kind)[:100]!r}, which only OpenAI itself can follow.",
        "Send messages, function calls, their outputs and reasoning.",
        param=where,
    )


def _read_call(item: Mapping[str, Any], where: str) -> Call:
    given, name = need(item, "call_id", str, where), need(item, "name", str, where)
    if item.get("type") == "custom_tool_call":
        return Call(given, name, orjson.dumps({"input": need(item, "input", str, where)}).decode())
    arguments = item.get("arguments")
    if arguments is not None and type(arguments) not in (str, dict):
        raise wrong(f"{where}arguments", "a string")
    return Call(given, name, arguments_of(arguments))


def read_reasoning(item: Mapping[str, Any], where: str) -> tuple[Thought, ...]:
    """The thoughts in an item: a summary, or the thoughts themselves, or what only their vendor can read.

    Raises:
        InvalidRequest: it is no such item.
    """
    summary = take(item, "summary", list, f"{where}.") or ()
    content = take(item, "content", list, f"{where}.") or ()
    hidden: str | None = take(item, "encrypted_content", str, f"{where}.")
    words = []
    for index, piece in enumerate(summary or content):
        if type(piece) is not dict:
            raise wrong(f"{where}.summary[{index}]", "an object")
        words.append(need(piece, "text", str, f"{where}.summary[{index}]."))
    thought = Thought("\n\n".join(words), None, hidden)
    return () if thought == Thought() else (thought,)


def write_input(messages: Iterable[Message], thoughts: bool, also: dict[str, None]) -> list[dict[str, Any]]:
    """The items for an engine. Thoughts without their vendor's proof are only sent where `thoughts` are taken."""
    items: list[dict[str, Any]] = []
    for message in unname_results(messages):
        if message.name is not None:
            also["message.name"] = None
        if message.role in (Role.ASSISTANT, Role.TOOL):
            for part in message.parts:
                items += _write_part(part, thoughts, len(items), also)
        else:
            role = "user" if message.role is Role.USER else "developer"
            said = [part for part in message.parts if isinstance(part, Text | Image | File)]
            items.append({"type": "message", "role": role, "content": _write_content(said, also)})
    return items


def _write_content(parts: Sequence[Text | Image | File], also: dict[str, None]) -> Any:
    if len(parts) == 1:
        only = parts[0]
        if isinstance(only, Text) and only.cache is None:
            return only.text
    return [write_input_part(part, also) for part in parts] or ""


def _write_part(part: Part, thoughts: bool, number: int, also: dict[str, None]) -> list[dict[str, Any]]:
    if isinstance(part, Text):
        if part.cache is not None:
            also["text.cache"] = None
        return [{"type": "message", "role": "assistant", "content": part.text}]
    if isinstance(part, Call):
        if part.signature is not None:
            also["call.signature"] = None
        return [{"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}]
    if isinstance(part, Result):
        return [_write_result(part, also)]
    if isinstance(part, Thought):
        if part.signature is not None:
            also["thought.signature"] = None
        # OpenAI looks up what it cannot decrypt, and refuses what it does not find.
        if part.hidden is None and not thoughts:
            also["thought"] = None
            return []
        return [_write_reasoning(part, f"rs_{number}")] if part.text or part.hidden is not None else []
    also[type(part).__name__.lower()] = None
    return []


def _write_result(part: Result, also: dict[str, None]) -> dict[str, Any]:
    if part.name is not None:
        also["result.name"] = None
    if part.error:
        also["result.error"] = None
    if part.cache is not None:
        also["result.cache"] = None
    return {"type": "function_call_output", "call_id": part.id, "output": _write_content(part.parts, also)}


def _write_reasoning(thought: Thought, given: str) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning", "id": given, "summary": []}
    if thought.text:
        item["summary"] = [{"type": "summary_text", "text": thought.text}]
    if thought.hidden is not None:
        item["encrypted_content"] = thought.hidden
    return item


def read_output(items: Any, reply_id: str) -> tuple[tuple[Part, ...], Any, bool]:
    """What an engine's answer holds, the probabilities of its tokens, and whether it refuses.

    Raises:
        ValueError: it is no such answer.
    """
    if type(items) is not list:
        raise ValueError("the output is no array")
    parts: list[Part] = []
    probs: list[Any] = []
    refused = False
    for item in items:
        if type(item) is not dict:
            raise ValueError("an item of the output is not an object")
        kind = item.get("type")
        if kind == "message":
            refused = _read_said(item, parts, probs) or refused
        elif kind == "function_call":
            parts.append(read_made(item, reply_id, len(parts)))
        elif kind == "reasoning":
            parts += _read_thought(item)
    return tuple(parts), probs or None, refused


def _read_said(item: Mapping[str, Any], parts: list[Part], probs: list[Any]) -> bool:
    content = item.get("content")
    if type(content) is not list:
        raise ValueError("a message has no content")
    refused = False
    for piece in content:
        if type(piece) is not dict:
            raise ValueError("a part of a message is not an object")
        text = piece.get("text", piece.get("refusal"))
        if type(text) is str and text:
            parts.append(Text(text))
            refused = refused or "refusal" in piece
        if type(piece.get("logprobs")) is list:
            probs += piece["logprobs"]
    return refused


def _read_thought(item: Mapping[str, Any]) -> list[Part]:
    words: list[str] = []
    for name in ("summary", "content"):
        pieces = item.get(name)
        found = [piece.get("text") for piece in pieces if type(piece) is dict] if type(pieces) is list else []
        words = words or [word for word in found if type(word) is str]
    hidden = item.get("encrypted_content")
    thought = Thought("\n\n".join(words), None, hidden if type(hidden) is str else None)
    return [thought] if thought != Thought() else []


def read_made(item: Mapping[str, Any], reply_id: str, number: int) -> Call:
    """The call in an item of an engine's answer.

    Raises:
        ValueError: it has no name.
    """
    given, name = item.get("call_id") or item.get("id"), item.get("name")
    if type(name) is not str or not name:
        raise ValueError("a function call has no name")
    known = given if type(given) is str else call_id(reply_id, number)
    return Call(known, name, arguments_of(item.get("arguments")))


def message_item(given: str, text: str, status: str = "completed", probs: Any = None) -> dict[str, Any]:
    """An item that says `text`."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": probs or []}
    return {"id": given, "type": "message", "role": "assistant", "status": status, "content": [part]}


def call_item(given: str, call: Call, status: str = "completed") -> dict[str, Any]:
    """An item that is a call."""
    return {
        "id": given,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def reasoning_item(given: str, thought: Thought) -> dict[str, Any]:
    """An item that holds thoughts."""
    return _write_reasoning(thought, given)
