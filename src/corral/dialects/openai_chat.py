"""OpenAI's chat completions, as OpenAI and the many that imitate it speak them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.dialects import _openai_answers as answers
from corral.dialects._openai_chat_stream import ChatReader, ChatWriter
from corral.dialects._openai_fields import (
    check_count,
    take,
    take_effort,
    take_model,
    take_stop,
    take_usage_wanted,
    wrong,
)
from corral.dialects._openai_messages import (
    arguments_of,
    read_choice,
    read_messages,
    read_schema,
    read_thoughts,
    read_tools,
    signature_of,
    write_call,
    write_details,
    write_function,
    write_messages,
    write_schema,
)
from corral.dialects.canonical import (
    Call,
    Choice,
    Format,
    Part,
    Reply,
    Request,
    Stop,
    Text,
    Thinking,
    Thought,
    unsaid,
)
from corral.dialects.form import Kind, Profile, Written
from corral.dialects.meter import Keys, Meter
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.money import Usage

NAME = "openai.chat"
METERED = Keys(
    "usage",
    "finish_reason",
    answers.meter_usage,
    answers.read_stop,
    lambda value: answers.read_fault(400, {"error": value}),
    beside="timings",
)
_CAN = frozenset(
    (
        "tools",
        "choice",
        "parallel",
        "format",
        "thinking",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
    )
) | frozenset(("stop", "presence_penalty", "frequency_penalty", "repeat_penalty", "logprobs", "top_logprobs", "user"))
_SAID = (
    (_CAN - {"choice", "parallel", "format"})
    | frozenset(("model", "messages", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"))
    | frozenset(("reasoning", "max_completion_tokens", "repetition_penalty", "n", "stream", "stream_options"))
    | frozenset(("functions", "function_call"))
)
_MEANS_NOTHING: dict[str, tuple[Any, ...]] = {"store": (False,), "modalities": (["text"],), "service_tier": ("auto",)}
"""Fields whose usual value asks for nothing that is not so anyway."""
_EFFORTS = ((1024, "minimal"), (4096, "low"), (16384, "medium"))


class Chat(answers.Errors):
    """`/chat/completions`."""

    name = NAME
    kind = Kind.CHAT
    media = b"text/event-stream"

    def read_request(self, document: Mapping[str, Any]) -> Request:
        """The request in a client's body."""
        messages = document.get("messages")
        if type(messages) is not list or not messages:
            raise InvalidRequest("`messages` must be an array that is not empty.", param="messages")
        lost: dict[str, None] = {name: None for name in ("functions", "function_call") if document.get(name)}
        check_count(document, lost)
        stream = bool(take(document, "stream", bool))
        most = take(document, "max_completion_tokens", int)
        least = take(document, "max_tokens", int)
        repeat = take(document, "repetition_penalty", float)
        again = take(document, "repeat_penalty", float)
        choice = document.get("tool_choice")
        model = take_model(document)
        wanted = take_usage_wanted(document, lost) if stream or "stream_options" in document else True
        return Request(
            model,
            read_messages(messages, lost),
            tools=read_tools(take(document, "tools", list), lost),
            choice=read_choice(choice, lost) if choice is not None else None,
            parallel=take(document, "parallel_tool_calls", bool),
            format=_read_format(take(document, "response_format", dict)),
            thinking=_read_thinking(document),
            max_tokens=least if most is None else most,
            temperature=take(document, "temperature", float),
            top_p=take(document, "top_p", float),
            top_k=take(document, "top_k", int),
            min_p=take(document, "min_p", float),
            seed=take(document, "seed", int),
            stop=take_stop(document),
            presence_penalty=take(document, "presence_penalty", float),
            frequency_penalty=take(document, "frequency_penalty", float),
            repeat_penalty=again if repeat is None else repeat,
            logprobs=take(document, "logprobs", bool),
            top_logprobs=take(document, "top_logprobs", int),
            user=take(document, "user", str),
            stream=stream,
            usage_wanted=wanted,
            extra=extra_of(document, _SAID),
            origin=NAME,
            lost=tuple(lost),
        )

    def write_request(self, request: Request, profile: Profile) -> Written:
        """The request for an engine."""
        also: dict[str, None] = {}
        drop = profile.drop
        system = "developer" if profile.developer else "system"
        messages = write_messages(request.messages, system, "reasoning_content" not in drop, also)
        out: dict[str, Any] = {"model": request.model, "messages": messages}
        if request.stream:
            out["stream"] = True
            if profile.usage:
                out["stream_options"] = {"include_usage": True}
        if request.tools:
            out["tools"] = [{"type": "function", "function": write_function(tool, also)} for tool in request.tools]
        if request.choice is not None:
            out["tool_choice"] = _write_choice(request.choice)
        if request.parallel is not None:
            out["parallel_tool_calls"] = request.parallel
        if request.format is not None:
            out["response_format"] = _write_format(request.format)
        if request.thinking is not None:
            _write_thinking(out, request.thinking, profile.thinking, also)
        write_sampling(out, request, profile.max_tokens)
        if request.top_k is not None:
            out["top_k"] = request.top_k
        if request.top_logprobs is not None:
            out["top_logprobs"] = request.top_logprobs
        return written("/chat/completions", out, request, profile, (NAME, _CAN, also))

    def read_reply(self, document: Mapping[str, Any]) -> Reply:
        """The answer of an engine."""
        choice = first_choice(document)
        message = choice.get("message")
        if type(message) is not dict:
            raise ValueError("the choice has no message")
        reply_id = document.get("id")
        reply_id = reply_id if type(reply_id) is str else ""
        said = _read_said(message)
        calls = _read_calls(message, reply_id)
        stop, sequence = stop_of(choice, bool(calls))
        if message.get("refusal") and stop is Stop.END:
            stop = Stop.FILTER
        return Reply(
            id=reply_id,
            model=model_of(document),
            parts=(*read_thoughts(message), *said, *calls),
            stop=stop,
            sequence=sequence,
            usage=usage_of(document),
            created=answers.count(document.get("created")),
            logprobs=logprobs_of(choice),
        )

    def write_reply(self, reply: Reply, request: Request) -> dict[str, Any]:
        """The answer for a client."""
        texts = [part.text for part in reply.parts if isinstance(part, Text)]
        thoughts = [part for part in reply.parts if isinstance(part, Thought)]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(texts) if texts else None,
            "refusal": None,
        }
        if thoughts:
            message["reasoning_content"] = "".join(thought.text for thought in thoughts)
            if any(thought.signature or thought.hidden for thought in thoughts):
                message["reasoning_details"] = write_details(thoughts)
        calls = [_write_signed(part) for part in reply.parts if isinstance(part, Call)]
        if calls:
            message["tool_calls"] = calls
        elif not texts:
            message["content"] = ""
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None if reply.logprobs is None else {"content": reply.logprobs, "refusal": None},
            "finish_reason": answers.REASONS[reply.stop],
        }
        return answers.completion("chat.completion", reply, choice)

    def stream_reader(self) -> ChatReader:
        """For one stream of an engine."""
        return ChatReader()

    def stream_writer(self, request: Request) -> ChatWriter:
        """For one stream to the client of `request`."""
        return ChatWriter(request.usage_wanted)

    def meter(self) -> Meter:
        """For one answer that is relayed."""
        return Meter(METERED)


def extra_of(document: Mapping[str, Any], said: frozenset[str]) -> dict[str, Any]:
    """The fields that nothing here knows, without those that ask for nothing."""
    return {
        name: value
        for name, value in document.items()
        if name not in said and value is not None and value not in _MEANS_NOTHING.get(name, ())
    }


def write_sampling(out: dict[str, Any], request: Request, most: str) -> None:
    """The wishes that chat and plain completion have in common; `most` is the field that bounds the answer."""
    if request.max_tokens is not None:
        out[most] = request.max_tokens
    for name in ("temperature", "top_p", "min_p", "seed", "presence_penalty", "frequency_penalty", "logprobs", "user"):
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    if request.stop:
        out["stop"] = list(request.stop)
    if request.repeat_penalty is not None:
        # vLLM, SGLang and OpenRouter have the one name, llama.cpp the other; each takes the unknown one calmly.
        out["repetition_penalty"] = out["repeat_penalty"] = request.repeat_penalty


_CANONICAL = {
    "tool_choice": "choice",
    "parallel_tool_calls": "parallel",
    "response_format": "format",
    "reasoning_effort": "thinking",
    "reasoning": "thinking",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "repetition_penalty": "repeat_penalty",
    "text": "format",
}
_NO_WISH = frozenset(("stream_options", "store", "include"))


def written(
    path: str,
    out: dict[str, Any],
    request: Any,
    profile: Profile,
    told: tuple[str, frozenset[str], dict[str, None]],
) -> Written:
    """A request with what its engine refuses taken out, and what it always wants put in. `told` is for `unsaid`."""
    name, can, also = told
    like = getattr(request, "like", request)
    if like.extra and like.origin == name:
        for key, value in like.extra.items():
            out.setdefault(key, value)
    if profile.drop:
        dropped = [key for key in out if key in profile.drop and key not in ("model", "messages", "input", "prompt")]
        for key in dropped:
            del out[key]
        also.update({_CANONICAL.get(key, key): None for key in dropped if key not in _NO_WISH})
        if "repetition_penalty" in out or "repeat_penalty" in out:
            also.pop("repeat_penalty", None)
    for key, value in profile.extra.items():
        out.setdefault(key, value)
    return Written(path, out, unsaid(request, name, can, also))


def _read_format(wish: Mapping[str, Any] | None) -> Format | None:
    if wish is None:
        return None
    kind = wish.get("type")
    if kind == "text":
        return Format()
    if kind == "json_object":
        schema = take(wish, "schema", dict, "response_format.")
        return Format("json") if schema is None else Format("schema", schema)
    if kind == "json_schema":
        inner = wish.get("json_schema")
        if type(inner) is not dict:
            raise wrong("response_format.json_schema", "an object")
        return read_schema(inner, "response_format.json_schema.")
    raise wrong("response_format.type", "one of text, json_object, json_schema")


def _write_format(wish: Format) -> dict[str, Any]:
    if wish.kind == "schema":
        return {"type": "json_schema", "json_schema": write_schema(wish)}
    return {"type": "json_object" if wish.kind == "json" else "text"}


def _read_thinking(document: Mapping[str, Any]) -> Thinking | None:
    effort = take_effort(document, "reasoning_effort")
    wish = take(document, "reasoning", dict)
    switch = take(document, "thinking", dict)
    budget = shown = None
    if wish is not None:
        effort = take_effort(wish, "effort", "reasoning.") or effort
        budget = take(wish, "max_tokens", int, "reasoning.")
        hidden = take(wish, "exclude", bool, "reasoning.")
        shown = None if hidden is None else not hidden
        if take(wish, "enabled", bool, "reasoning.") is False:
            effort = "none"
    if switch is not None:
        budget = take(switch, "budget_tokens", int, "thinking.") if budget is None else budget
        kind = take(switch, "type", str, "thinking.")
        if kind == "disabled":
            effort = "none"
        elif effort is None and budget is None:
            budget = -1
    return None if effort is None and budget is None and shown is None else Thinking(effort, budget, shown)


def effort_of(thinking: Thinking) -> str | None:
    """The effort that is asked for, or the nearest to the budget; None for as much as the model likes."""
    if thinking.effort is not None or thinking.budget is None or thinking.budget < 0:
        return thinking.effort
    if thinking.budget == 0:
        return "none"
    return next((effort for bound, effort in _EFFORTS if thinking.budget <= bound), "high")


def _write_thinking(out: dict[str, Any], thinking: Thinking, style: str, also: dict[str, None]) -> None:
    if style == "object":
        out["reasoning"] = _wish(thinking, also)
    elif style == "effort":
        effort = effort_of(thinking)
        if effort is not None:
            out["reasoning_effort"] = effort
        if thinking.budget is not None:
            also["thinking.budget"] = None
        if thinking.shown is False:
            also["thinking.shown"] = None
    else:
        also["thinking"] = None


def _wish(thinking: Thinking, also: dict[str, None]) -> dict[str, Any]:
    wish: dict[str, Any] = {}
    if thinking.effort is not None:
        wish["effort"] = thinking.effort
        if thinking.budget is not None:
            also["thinking.budget"] = None
    elif thinking.budget is not None and thinking.budget >= 0:
        wish["max_tokens"] = thinking.budget
    elif thinking.budget is not None:
        wish["enabled"] = True
        also["thinking.budget"] = None
    if thinking.shown is not None:
        wish["exclude"] = not thinking.shown
    return wish


def _write_choice(choice: Choice) -> Any:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "named" else choice.mode


def first_choice(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first choice of an engine's answer.

    Raises:
        ValueError: there is none.
    """
    choices = document.get("choices")
    if type(choices) is not list or not choices or type(choices[0]) is not dict:
        raise ValueError("the answer has no choices")
    first: Mapping[str, Any] = choices[0]
    return first


def stop_of(choice: Mapping[str, Any], called: bool) -> tuple[Stop, str | None]:
    """Why the model stopped, and the stop sequence it met where the engine tells it."""
    reason = choice.get("finish_reason")
    stop = answers.read_stop(reason) if type(reason) is str else Stop.END
    # vLLM and SGLang tell the sequence; some engines say "stop" where they call tools.
    sequence = choice.get("stop_reason", choice.get("matched_stop"))
    if stop is Stop.END and called:
        return Stop.TOOLS, None
    if stop is Stop.END and type(sequence) is str:
        return Stop.SEQUENCE, sequence
    return stop, None


def logprobs_of(choice: Mapping[str, Any]) -> Any:
    """The tokens' probabilities, as canonical logprobs."""
    said = choice.get("logprobs")
    found = said.get("content") if type(said) is dict else None
    return found if type(found) is list else None


def usage_of(document: Mapping[str, Any]) -> Usage | None:
    """What was used, where the answer says it."""
    usage, timings = document.get("usage"), document.get("timings")
    if type(usage) is dict:
        return answers.read_usage(usage, timings)
    return answers.read_usage({}, timings) if type(timings) is dict else None


def model_of(document: Mapping[str, Any]) -> str:
    """What the engine calls its model."""
    model = document.get("model")
    return model if type(model) is str else ""


def _read_said(message: Mapping[str, Any]) -> tuple[Part, ...]:
    content, refusal = message.get("content"), message.get("refusal")
    said: tuple[Part, ...] = ()
    if type(content) is str:
        said = (Text(content),) if content else ()
    elif type(content) is list:
        said = tuple(part for each in content for part in _read_piece(each))
    elif content is not None:
        raise ValueError("the content of the message is neither text nor null")
    return (*said, Text(refusal)) if type(refusal) is str and refusal else said


def _read_piece(piece: Any) -> tuple[Part, ...]:
    """A part of the content of an answer; Mistral has thoughts among them."""
    if type(piece) is str:
        return (Text(piece),)
    if type(piece) is not dict:
        raise ValueError("a part of the content is none")
    inner = piece.get("thinking")
    if piece.get("type") == "thinking" and type(inner) is list:
        return (
            Thought("".join(text for each in inner if type(each) is dict and type(text := each.get("text")) is str)),
        )
    text = piece.get("text")
    return (Text(text),) if type(text) is str else ()


def _read_calls(message: Mapping[str, Any], reply_id: str) -> tuple[Call, ...]:
    calls = message.get("tool_calls")
    if calls is None:
        old = message.get("function_call")
        calls = [{"function": old}] if type(old) is dict else []
    if type(calls) is not list:
        raise ValueError("the tool calls are no array")
    found = []
    for index, call in enumerate(calls):
        function = call.get("function", call.get("custom")) if type(call) is dict else None
        name = function.get("name") if type(function) is dict else None
        if type(function) is not dict or type(name) is not str:
            raise ValueError("a tool call has no name")
        given = call.get("id")
        arguments = arguments_of(function.get("arguments"))
        if "input" in function and "arguments" not in function:
            arguments = arguments_of({"input": function["input"]})
        known = given if type(given) is str and given else answers.call_id(reply_id, index)
        found.append(Call(known, name, arguments, signature_of(call)))
    return tuple(found)


def _write_signed(call: Call) -> dict[str, Any]:
    document = write_call(call)
    if call.signature is not None:
        document["extra_content"] = {"google": {"thought_signature": call.signature}}
    return document


FORMS = {NAME: Chat()}
