"""Tools of OpenAI's that take plain text, such as an editor's `apply_patch`, as functions with one argument.

Other vendors know functions alone. Such a tool is known again by its parameters, which are FREE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._openai_fields import need, note_unknown, take
from corral.dialects.canonical import Request, Tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.dialects.canonical import Call

_KNOWN = frozenset(("type", "name", "description", "format"))
FREE: dict[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "All that the tool is given, as plain text."}},
    "required": ["input"],
    "additionalProperties": False,
}
"""The parameters of such a function."""


def read_custom(tool: Mapping[str, Any], where: str, lost: dict[str, None]) -> Tool:
    """One such tool. That its input keeps to a grammar cannot be promised: the grammar is told, and noted as `lost`.

    Raises:
        InvalidRequest: it is none.
    """
    note_unknown(tool, _KNOWN, "tools", lost)
    told = take(tool, "description", str, where) or ""
    shape = take(tool, "format", dict, where) or {}
    grammar = take(shape, "definition", str, f"{where}format.")
    if grammar:
        lost["tools.format"] = None
        syntax = take(shape, "syntax", str, f"{where}format.") or "a grammar"
        told = f"{told}\n\nThe input keeps to this grammar ({syntax}):\n{grammar}".strip()
    return Tool(need(tool, "name", str, where), told or None, FREE)


def free_tools(request: Request) -> frozenset[str]:
    """The names of the tools in a request that take plain text."""
    return frozenset(tool.name for tool in request.tools if tool.parameters == FREE)


def custom_item(given: str, call: Call) -> dict[str, Any]:
    """An item that is a call of such a tool."""
    item = {"id": given, "type": "custom_tool_call", "call_id": call.id, "name": call.name}
    return item | {"input": _input_of(call.arguments)}


def _input_of(arguments: str) -> str:
    """The text for the tool; what a model wrote otherwise is passed on as it is."""
    try:
        said = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return arguments
    text = said.get("input") if type(said) is dict else None
    return text if type(text) is str else "" if said == {} else arguments
