"""OpenAI's responses, without what only OpenAI keeps: stored conversations, its own tools, background work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects import _openai_answers as answers
from corral.dialects._openai_custom import FREE, custom_item, free_tools, read_custom
from corral.dialects._openai_fields import shorten, take, take_effort, take_model, wrong
from corral.dialects._openai_items import (
    call_item,
    message_item,
    read_input,
    read_output,
    reasoning_item,
    write_input,
)
from corral.dialects._openai_messages import read_choice, read_function, read_schema, write_function, write_schema
from corral.dialects._openai_responses_stream import (
    REASONS,
    STATUS,
    ResponsesReader,
    ResponsesWriter,
    error_code,
    item_id,
    stop_of,
)
from corral.dialects.canonical import (
    Begun,
    Call,
    Choice,
    Format,
    Message,
    Reply,
    Request,
    Role,
    Stop,
    Text,
    Thinking,
    Thought,
    Tool,
)
from corral.dialects.form import Fault, Kind, Profile, Written
from corral.dialects.meter import Keys, Meter
from corral.dialects.openai_chat import effort_of, extra_of, model_of, written
from corral.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.domain.money import Usage

NAME = "openai.responses"
_METERED = Keys(
    "usage",
    "reason",  # of `incomplete_details`
    answers.meter_usage,
    answers.read_stop,
    lambda value: answers.read_fault(400, {"error": value}),
)
_CAN = frozenset(
    ("tools", "choice", "parallel", "format", "thinking", "max_tokens", "temperature", "top_p", "logprobs", "user")
) | frozenset(("top_logprobs",))
_SAID = (
    frozenset(("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning"))
    | frozenset(("max_output_tokens", "temperature", "top_p", "top_logprobs", "include", "stream", "stream_options"))
    | frozenset(("user", "previous_response_id", "conversation", "background", "prompt", "truncation"))
)
_KEPT_ELSEWHERE = {
    "previous_response_id": "Send the whole conversation in `input`.",
    "conversation": "Send the whole conversation in `input`.",
    "prompt": "Send the prompt itself in `instructions` and `input`.",
    "background": "Leave `background` out, and read the answer as a stream.",
}


class Responses(answers.Errors):
    """`/responses`."""

    name = NAME
    kind = Kind.CHAT
    media = b"text/event-stream"

    def read_request(self, document: Mapping[str, Any]) -> Request:
        """The request in a client's body."""
        for name, hint in _KEPT_ELSEWHERE.items():
            if document.get(name):
                raise NotSupported(
                    f"`{name}` needs an engine that keeps responses, and the one of this model does not.",
                    hint,
                    param=name,
                )
        model = take_model(document)
        lost: dict[str, None] = {}
        messages = read_input(document.get("input"), lost)
        instructions = take(document, "instructions", str)
        if instructions:
            messages.insert(0, Message(Role.SYSTEM, (Text(instructions),)))
        text = take(document, "text", dict) or {}
        included = _read_include(take(document, "include", list), lost)
        likely = take(document, "top_logprobs", int)
        choice = document.get("tool_choice")
        if type(choice) is dict and choice.get("type") == "custom":
            choice = {**choice, "type": "function"}  # as its tool is one to others
        if text.get("verbosity"):
            lost["text.verbosity"] = None
        if document.get("truncation") not in (None, "disabled"):
            lost["truncation"] = None
        take(document, "stream_options", dict)
        return Request(
            model,
            tuple(messages),
            tools=_read_tools(take(document, "tools", list), lost),
            choice=read_choice(choice, lost) if choice is not None else None,
            parallel=take(document, "parallel_tool_calls", bool),
            format=_read_format(take(text, "format", dict, "text.")),
            thinking=_read_thinking(take(document, "reasoning", dict)),
            max_tokens=take(document, "max_output_tokens", int),
            temperature=take(document, "temperature", float),
            top_p=take(document, "top_p", float),
            logprobs=True if included or likely else None,
            top_logprobs=likely or None,
            user=take(document, "user", str),
            stream=bool(take(document, "stream", bool)),
            extra=extra_of(document, _SAID),
            origin=NAME,
            lost=tuple(lost),
        )

    def write_request(self, request: Request, profile: Profile) -> Written:
        """The request for an engine, which shall not keep it."""
        also: dict[str, None] = {}
        out: dict[str, Any] = {"model": request.model, "store": False}
        messages = request.messages
        if (said := _instructions(messages)) is not None:
            out["instructions"] = said
            messages = messages[1:]
        out["input"] = write_input(messages, "reasoning_content" not in profile.drop, also)
        if request.tools:
            out["tools"] = [{"type": "function", **write_function(tool, also)} for tool in request.tools]
        if request.choice is not None:
            out["tool_choice"] = _write_choice(request.choice)
        if request.parallel is not None:
            out["parallel_tool_calls"] = request.parallel
        if request.format is not None:
            out["text"] = {"format": _write_format(request.format)}
        if request.thinking is not None:
            _write_thinking(out, request.thinking, profile.thinking, also)
        _write_sampling(out, request)
        return written("/responses", out, request, profile, (NAME, _CAN, also))

    def read_reply(self, document: Mapping[str, Any]) -> Reply:
        """The answer of an engine."""
        given = document.get("id")
        given = given if type(given) is str else ""
        parts, probs, refused = read_output(document.get("output"), given)
        called = any(isinstance(part, Call) for part in parts)
        usage = document.get("usage")
        return Reply(
            id=given,
            model=model_of(document),
            parts=parts,
            stop=stop_of(document, called, refused),
            usage=answers.read_usage(usage) if type(usage) is dict else None,
            created=answers.count(document.get("created_at")),
            logprobs=probs,
        )

    def write_reply(self, reply: Reply, request: Request) -> dict[str, Any]:
        """The answer for a client."""
        output: list[dict[str, Any]] = []
        text = ""
        status = STATUS.get(reply.stop, "completed")
        for part in reply.parts:
            if isinstance(part, Text):
                text += part.text
            elif isinstance(part, Thought):
                output.append(reasoning_item(item_id("rs", reply.id, len(output)), part))
        if text:
            state = "completed" if status == "completed" else "incomplete"
            output.append(message_item(item_id("msg", reply.id, len(output)), text, state, reply.logprobs))
        for part in reply.parts:
            if isinstance(part, Call):
                free = part.name in free_tools(request)
                write, kind = (custom_item, "ctc") if free else (call_item, "fc")
                output.append(write(item_id(kind, reply.id, len(output)), part))
        begun = Begun(reply.id, reply.model, None, reply.created)
        return _response(request, begun, status, output, (reply.usage, reply.stop))

    def stream_reader(self) -> ResponsesReader:
        """For one stream of an engine."""
        return ResponsesReader()

    def stream_writer(self, request: Request) -> ResponsesWriter:
        """For one stream to the client of `request`."""

        def make(
            begun: Begun, status: str, output: list[Any], usage: Usage | None, stop: Stop | None
        ) -> dict[str, Any]:
            return _response(request, begun, status, output, (usage, stop))

        return ResponsesWriter(make, free_tools(request))

    def meter(self) -> ResponsesMeter:
        """For one answer that is relayed."""
        return ResponsesMeter(_METERED)


class ResponsesMeter(Meter):
    """The meter of relayed responses: a stream says an error flatly, and nothing where it came to its end."""

    __slots__ = ()

    def feed(self, chunk: bytes) -> None:
        """Look at whole events, or a whole answer."""
        super().feed(chunk)
        if self._error is None and chunk.startswith(b"event: error\n"):
            self._error = chunk

    @property
    def stop(self) -> str | None:
        """Why it stopped, as a canonical Stop; None when it did not say."""
        if self._last is None or (self._stop is not None and self._stop.string is self._last):
            return super().stop
        called = b'"function_call"' in self._last or b'"custom_tool_call"' in self._last
        return Stop.TOOLS if called else Stop.END

    @property
    def failed(self) -> Fault | None:
        """The error that the answer or the stream itself reported, if any."""
        found = self._error
        if found is None or not found.startswith(b"event: error\n"):
            return super().failed
        data = found.partition(b"data:")[2].partition(b"\n\n")[0]
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document = None
        return answers.read_fault(400, document)


def _response(
    request: Request, begun: Begun, status: str, output: list[Any], ended: tuple[Usage | None, Stop | None]
) -> dict[str, Any]:
    """The response as an object, with what was asked said again, as OpenAI does."""
    usage, stop = ended
    thinking = request.thinking or Thinking()
    reason = None if stop is None else REASONS.get(stop)
    failed = status == "failed" and stop is not None
    return {
        "id": begun.id,
        "object": "response",
        "created_at": begun.created,
        "status": status,
        "background": False,
        "error": {"code": error_code(""), "message": "The model failed."} if failed else None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "instructions": None,
        "max_output_tokens": request.max_tokens,
        "model": begun.model,
        "output": output,
        "parallel_tool_calls": request.parallel is not False,
        "previous_response_id": None,
        "reasoning": {"effort": effort_of(thinking), "summary": "auto" if thinking.shown else None},
        "store": False,
        "temperature": request.temperature,
        "text": {"format": _write_format(request.format or Format())},
        "tool_choice": _write_choice(request.choice or Choice()),
        "tools": [_echo(tool) for tool in request.tools],
        "top_p": request.top_p,
        "truncation": "disabled",
        "usage": None if usage is None else write_usage(usage),
        "user": request.user,
        "metadata": request.extra.get("metadata", {}) if request.origin == NAME else {},
    }


def _write_sampling(out: dict[str, Any], request: Request) -> None:
    if request.max_tokens is not None:
        out["max_output_tokens"] = request.max_tokens
    if request.logprobs:
        out["include"] = ["message.output_text.logprobs"]
    for name in ("temperature", "top_p", "top_logprobs", "user"):
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    if request.stream:
        out["stream"] = True


def _echo(tool: Tool) -> dict[str, Any]:
    if tool.parameters == FREE:
        return {"type": "custom", "name": tool.name, "description": tool.description or ""}
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def write_usage(usage: Usage) -> dict[str, Any]:
    """`usage` in the words of responses."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _instructions(messages: Sequence[Message]) -> str | None:
    """What the system says first, where it is nothing but one text."""
    first = messages[0] if messages else None
    if first is None or first.role is not Role.SYSTEM or len(first.parts) != 1 or first.name is not None:
        return None
    only = first.parts[0]
    return only.text if isinstance(only, Text) and only.cache is None and only.text else None


def _read_include(wishes: list[Any] | None, lost: dict[str, None]) -> bool:
    """Whether the tokens' probabilities are wanted. Hidden thoughts are given without asking."""
    found = False
    for wish in wishes or ():
        if wish == "message.output_text.logprobs":
            found = True
        elif wish != "reasoning.encrypted_content":
            lost[f"include.{shorten(wish)}"] = None
    return found


def _read_tools(tools: list[Any] | None, lost: dict[str, None]) -> tuple[Tool, ...]:
    found = []
    for index, tool in enumerate(tools or ()):
        if type(tool) is not dict:
            raise wrong(f"tools[{index}]", "an object")
        if tool.get("type") == "function":
            found.append(read_function(tool, f"tools[{index}].", lost))
        elif tool.get("type") == "custom":
            found.append(read_custom(tool, f"tools[{index}].", lost))
        else:
            lost[f"tools.{shorten(tool.get('type'))}"] = None
    return tuple(found)


def _read_format(wish: Mapping[str, Any] | None) -> Format | None:
    kind = None if wish is None else wish.get("type")
    if wish is None or kind == "text":
        return None if wish is None else Format()
    if kind == "json_object":
        return Format("json")
    if kind == "json_schema":
        return read_schema(wish, "text.format.")
    raise wrong("text.format.type", "one of text, json_object, json_schema")


def _write_format(wish: Format) -> dict[str, Any]:
    if wish.kind == "schema":
        return {"type": "json_schema", **write_schema(wish)}
    return {"type": "json_object" if wish.kind == "json" else "text"}


def _read_thinking(wish: Mapping[str, Any] | None) -> Thinking | None:
    if wish is None:
        return None
    summary = take(wish, "summary", str, "reasoning.") or take(wish, "generate_summary", str, "reasoning.")
    effort = take_effort(wish, "effort", "reasoning.")
    return None if effort is None and summary is None else Thinking(effort, None, True if summary else None)


def _write_thinking(out: dict[str, Any], thinking: Thinking, style: str, also: dict[str, None]) -> None:
    if style == "none":
        also["thinking"] = None
        return
    wish = {"effort": effort_of(thinking), "summary": "auto" if thinking.shown else None}
    out["reasoning"] = {name: value for name, value in wish.items() if value is not None}
    if thinking.budget is not None:
        also["thinking.budget"] = None
    if thinking.shown is False:
        also["thinking.shown"] = None


def _write_choice(choice: Choice) -> Any:
    return {"type": "function", "name": choice.name} if choice.mode == "named" else choice.mode


FORMS = {NAME: Responses()}
