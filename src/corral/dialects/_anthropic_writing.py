"""Writes requests for Anthropic's messages."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Garbled
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._anthropic_reading import NAME
from corral.dialects.canonical import Call, File, Format, Image, Result, Role, Text, Thought, unname_results, unsaid
from corral.dialects.form import Written

if TYPE_CHECKING:
    from corral.dialects.canonical import Part, Request, Thinking, Tool
    from corral.dialects.form import Profile

_CAN = frozenset(("tools", "choice", "parallel", "format", "thinking", "max_tokens")) | frozenset(
    ("temperature", "top_p", "top_k", "stop", "user")
)
_CHOICES = {"auto": "auto", "required": "any", "none": "none", "named": "tool"}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
_LEAST_BUDGET = 1024
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_ID = re.compile(r"[^a-zA-Z0-9_-]")
_PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_ANYTHING = {"type": "object"}


def write(request: Request, profile: Profile) -> Written:
    """The request as a vendor of this form takes it.

    Its `max_tokens`, which the form demands, is the profile's `max_output` when the request has none.
    """
    also: dict[str, None] = {}
    system, messages = _turns(request, also)
    document: dict[str, Any] = {"model": request.model, "messages": messages}
    if system:
        document["system"] = system[0]["text"] if len(system) == 1 and len(system[0]) == 2 else system
    if request.tools or request.choice is not None or request.parallel is not None:
        _write_tools(request, document, also)
    _write_wishes(request, profile, document, also)
    if request.stop:
        _write_stop(request.stop, document, also)
    if request.user is not None:
        document["metadata"] = {"user_id": request.user}
    if request.stream:
        document["stream"] = True
    if request.origin == NAME and request.extra:
        _restore(request, document)
    return Written("/messages", _fit(document, profile, also), unsaid(request, NAME, _CAN, also))


def _turns(request: Request, also: dict[str, None]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the system says before anybody else, and the turns after it."""
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for message in unname_results(request.messages):
        if message.name is not None:
            also["message.name"] = None
        if message.role is Role.SYSTEM and not messages:
            system += [_words(part) for part in message.parts if isinstance(part, Text) and part.text]
            continue
        blocks = [block for part in message.parts if (block := _block(part, also)) is not None]
        if blocks:  # the vendor refuses turns that say nothing
            _append("user" if message.role is Role.TOOL else message.role.value, blocks, messages)
    for turn in messages:
        blocks = turn["content"]
        if len(blocks) == 1 and blocks[0]["type"] == "text" and "cache_control" not in blocks[0]:
            turn["content"] = blocks[0]["text"]
    return system, messages


def _append(role: str, blocks: list[dict[str, Any]], messages: list[dict[str, Any]]) -> None:
    # Results of calls made at the same time must stand in one turn, and before what the user says to them.
    if messages and role == "user" == messages[-1]["role"] and messages[-1]["content"][-1]["type"] == "tool_result":
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


def _write_stop(stop: tuple[str, ...], document: dict[str, Any], also: dict[str, None]) -> None:
    said = [each for each in stop if each.strip()]
    if len(said) < len(stop):
        also["stop"] = None  # the vendor refuses those of nothing but white space
    if said:
        document["stop_sequences"] = said


def _fit(document: dict[str, Any], profile: Profile, also: dict[str, None]) -> dict[str, Any]:
    for field in profile.drop:
        if document.pop(field, None) is not None:
            also[_CANONICAL.get(field, field)] = None
    for field, value in profile.extra.items():
        document.setdefault(field, value)
    return document


_CANONICAL = {"stop_sequences": "stop", "metadata": "user", "tool_choice": "choice"}


def _words(part: Text) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": part.text}
    if part.cache is not None:
        block["cache_control"] = _control(part.cache)
    return block


def _control(cache: str) -> dict[str, str]:
    return {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}


def _block(part: Part, also: dict[str, None]) -> dict[str, Any] | None:
    """A part as a block; None for what cannot be said, which is then in `also`."""
    if type(part) is Text:
        return _words(part) if part.text else None
    block: dict[str, Any] | None
    if isinstance(part, Call):
        if part.signature is not None:
            also["call.signature"] = None
        return {
            "type": "tool_use",
            "id": _call_id(part.id, also),
            "name": part.name,
            "input": arguments(part.arguments),
        }
    if isinstance(part, Thought):
        if part.hidden is not None:
            return {"type": "redacted_thinking", "data": part.hidden}
        if part.signature is None:
            also["thought"] = None  # the vendor takes no thoughts but its own
            return None
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    if isinstance(part, Result):
        return _result(part, also)
    block = _image(part, also) if isinstance(part, Image) else _file(part, also) if isinstance(part, File) else None
    if block is not None and isinstance(part, Image | File) and part.cache is not None:
        block["cache_control"] = _control(part.cache)
    return block


def _call_id(name: str, also: dict[str, None]) -> str:
    if _ID.fullmatch(name):
        return name
    also["call.id"] = None
    return _NOT_ID.sub("_", name) or "call"


def arguments(said: str) -> dict[str, Any]:
    """The arguments as an object; what a model wrote that is none is passed on as it is, in one."""
    try:
        found = orjson.loads(said or "{}")
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"arguments": said}


def _image(part: Image, also: dict[str, None]) -> dict[str, Any] | None:
    if part.detail not in (None, "auto"):
        also["image.detail"] = None
    if part.data is not None and part.media_type in _PICTURES:
        return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}
    if part.data is None and part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    also["image"] = None
    return None


def _file(part: File, also: dict[str, None]) -> dict[str, Any] | None:
    source: dict[str, Any] | None = None
    if part.data is None and part.url is not None:
        source = {"type": "url", "url": part.url}
        if part.media_type not in (None, "application/pdf"):
            source = None
    elif part.data is not None and part.media_type == "application/pdf":
        source = {"type": "base64", "media_type": "application/pdf", "data": part.data}
    elif part.data is not None and (part.media_type or "").startswith("text/"):
        try:
            words = b64decode(part.data, validate=True).decode()
            source = {"type": "text", "media_type": "text/plain", "data": words}
        except (Garbled, UnicodeDecodeError):
            source = None
    if source is None:
        also["file"] = None
        return None
    block: dict[str, Any] = {"type": "document", "source": source}
    if part.name is not None:
        block["title"] = part.name
    return block


def _result(part: Result, also: dict[str, None]) -> dict[str, Any]:
    if part.name is not None:
        also["result.name"] = None
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _call_id(part.id, also)}
    blocks = [inner for each in part.parts if (inner := _block(each, also)) is not None]
    if len(blocks) == 1 and len(blocks[0]) == 2 and "text" in blocks[0]:
        block["content"] = blocks[0]["text"]
    elif blocks:
        block["content"] = blocks
    if part.error:
        block["is_error"] = True
    if part.cache is not None:
        block["cache_control"] = _control(part.cache)
    return block


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    written["input_schema"] = _ANYTHING if tool.parameters is None else tool.parameters
    if tool.strict is not None:
        written["strict"] = tool.strict
    if tool.cache is not None:
        written["cache_control"] = _control(tool.cache)
    return written


def _write_tools(request: Request, document: dict[str, Any], also: dict[str, None]) -> None:
    choice, parallel = request.choice, request.parallel
    if request.tools:
        document["tools"] = [_tool(tool) for tool in request.tools]
    elif "server_tools" not in request.extra:
        # Without tools the vendor refuses any choice among them.
        if choice is not None and choice.mode != "none":
            also["choice"] = None
        choice = None
        if parallel is not None:
            also["parallel"] = None
        return
    if choice is None and parallel is None:
        return
    mode = "auto" if choice is None else choice.mode
    written: dict[str, Any] = {"type": _CHOICES.get(mode, "auto")}
    if choice is not None and choice.name is not None and mode == "named":
        written["name"] = choice.name
    if parallel is not None:
        if mode == "none":
            also["parallel"] = None
        else:
            written["disable_parallel_tool_use"] = not parallel
    document["tool_choice"] = written


def _write_wishes(request: Request, profile: Profile, document: dict[str, Any], also: dict[str, None]) -> None:
    config: dict[str, Any] = {}
    if request.format is not None:
        _write_format(request.format, config, also)
    most = request.max_tokens
    thinks = False
    if request.thinking is not None:
        thinking, effort = _thinking(request.thinking, profile, most, also)
        if thinking is not None and thinking["type"] != "disabled":
            if document.get("tool_choice", {}).get("type") in ("any", "tool"):
                also["thinking"] = None  # the vendor refuses to think before a call that is forced
                thinking = None
            else:
                thinks = True
        if thinking is not None:
            document["thinking"] = thinking
        if effort is not None:
            config["effort"] = effort
    if most is None:
        budget = document.get("thinking", {}).get("budget_tokens", 0)
        most = profile.max_output + budget
    document["max_tokens"] = most
    if config:
        document["output_config"] = config
    _write_sampling(request, thinks, document, also)


def _write_sampling(request: Request, thinks: bool, document: dict[str, Any], also: dict[str, None]) -> None:
    warmth = request.temperature
    if warmth is not None:
        if warmth > 1 or (thinks and warmth != 1):
            also["temperature"] = None
        if warmth == 1 or not thinks:
            document["temperature"] = min(warmth, 1.0)
    if request.top_p is not None:
        document["top_p"] = request.top_p
    if request.top_k is not None:
        if thinks:
            also["top_k"] = None
        else:
            document["top_k"] = request.top_k


def _write_format(shape: Format, config: dict[str, Any], also: dict[str, None]) -> None:
    if shape.kind == "text":
        return
    if shape.kind != "schema" or shape.schema is None:
        also["format"] = None
        return
    config["format"] = {"type": "json_schema", "schema": shape.schema}
    for field in ("name", "strict", "description"):
        if getattr(shape, field) is not None:
            also[f"format.{field}"] = None


def _thinking(
    wish: Thinking, profile: Profile, most: int | None, also: dict[str, None]
) -> tuple[dict[str, Any] | None, str | None]:
    """`thinking` and `output_config.effort`, as far as this vendor's model knows them."""
    budget, effort = wish.budget, wish.effort
    if profile.thinking == "none":
        also["thinking"] = None
        return None, None
    if budget == 0 or (budget is None and effort == "none"):
        if wish.shown is not None:
            also["thinking.shown"] = None
        return {"type": "disabled"}, _EFFORTS.get(effort or "")
    if profile.thinking == "budget" and (budget is None or budget < 0):
        budget = _BUDGETS.get(effort or "medium", _BUDGETS["medium"])
        effort = None
    found: dict[str, Any] = {"type": "adaptive"}
    if budget is not None and budget > 0:
        if most is not None and budget >= most:
            budget = most - 1  # the service refuses a budget that leaves nothing for the answer
            if wish.budget is not None:
                also["thinking.budget"] = None
        if budget < _LEAST_BUDGET:
            also["thinking"] = None
            return None, None
        found = {"type": "enabled", "budget_tokens": budget}
    if wish.shown is not None:
        found["display"] = "summarized" if wish.shown else "omitted"
    return found, None if effort is None else _EFFORTS.get(effort)


def _restore(request: Request, document: dict[str, Any]) -> None:
    """Put back what only this form knows, where it was."""
    for key, value in request.extra.items():
        if key == "server_tools":
            document["tools"] = [*document.get("tools", ()), *value]
        elif key.startswith("tools."):
            for tool in document.get("tools", ()):
                if tool.get("name") in value:
                    tool[key[6:]] = value[tool["name"]]
        else:
            document[key] = value
