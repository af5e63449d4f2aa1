"""What llama.cpp is asked, where it does not understand a request as OpenAI means it."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FORCED_TOOL = "forced_tool"
END_OF_CALL = "</tool_call>"


Adapt: TypeAlias = "Callable[[str, dict[str, Any]], bool]"


def tool_adapter(template: str) -> Adapt:
    """A function for `Endpoint.adapt` that makes llama.cpp keep OpenAI's promise about forced tool calls.

    llama.cpp takes `tool_choice: required` and yet lets the model write prose first; it does not read the form that
    names one function; and its grammar allows more calls where `parallel_tool_calls` is false. Where the chat
    `template` knows the variable `forced_tool`, the template opens the answer with the call itself; a named function
    becomes the only one on offer; and where it ends a call with `</tool_call>`, the answer ends there too.
    See docs/decisions/0006.
    """
    opens_call, ends_call = FORCED_TOOL in template, END_OF_CALL in template

    def adapt(path: str, body: dict[str, Any]) -> bool:
        choice, tools = body.get("tool_choice"), body.get("tools")
        if path != "/chat/completions":
            return False
        if not isinstance(tools, list) or not tools:
            return opens_call and _think_not(body)
        forced = isinstance(choice, dict) or choice == "required"
        if isinstance(choice, dict):
            body["tools"] = [_named_tool(choice, tools)]
        if forced:
            body["tool_choice"] = "required"
            body.setdefault("parallel_tool_calls", False)
        if forced and opens_call:
            body["chat_template_kwargs"] = {**(body.get("chat_template_kwargs") or {}), FORCED_TOOL: True}
        single = ends_call and choice != "none" and body.get("parallel_tool_calls") is False
        if single:
            stop = body.get("stop") or []
            body["stop"] = [*([stop] if isinstance(stop, str) else stop), END_OF_CALL]
        return forced or single

    return adapt


def opening_adapter(adapt: Adapt, system: str | None, opening: Sequence[Mapping[str, str]] = ()) -> Adapt:
    """`adapt`, after putting `system` before a conversation whose client sent no system message, then `opening`."""
    if system is None and not opening:
        return adapt

    def introduce(path: str, body: dict[str, Any]) -> bool:
        said = body.get("messages")
        if path != "/chat/completions" or not isinstance(said, list):
            return adapt(path, body)
        own = sum(1 for _ in takewhile(_is_system, said))
        default = system is not None and not any(map(_is_system, said))
        before = [{"role": "system", "content": system}] if default else said[:own]
        body["messages"] = [*before, *map(dict, opening), *said[own:]]
        return adapt(path, body) or default or bool(opening)

    return introduce


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def _think_not(body: dict[str, Any]) -> bool:
    """Keep an answer that must be JSON from thinking first; true if it would have been allowed to.

    The think block of a template that can open a call is there for the call's sake: the model was never taught to close
    one, and would ramble in it until its tokens are spent.
    """
    wanted = body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return False
    body.setdefault("reasoning_format", "none")
    return True


def _named_tool(choice: Mapping[str, Any], tools: Sequence[object]) -> object:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") != "function" or not isinstance(name, str):
        raise InvalidRequest(
            "tool_choice names no function.",
            'Write "none", "auto", "required" or {"type": "function", "function": {"name": …}}.',
            param="tool_choice",
        )
    known = {_tool_name(tool): tool for tool in tools}
    if name not in known:
        offered = ", ".join(sorted(item for item in known if item))
        raise InvalidRequest(
            f"tool_choice asks for {name!r}, which is not among the tools.", f"Tools: {offered}.", param="tool_choice"
        )
    return known[name]


def _tool_name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
