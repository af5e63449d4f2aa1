"""What OpenAI's forms share in answers: usage, reasons to stop, and errors as OpenAI and its imitators say them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects.canonical import Failed, Stop
from corral.dialects.form import Fault
from corral.domain.money import Usage

if TYPE_CHECKING:
    from corral.dialects.canonical import Begun, Reply
    from corral.errors import CorralError

OVERFLOW = "context_length_exceeded"
"""The code of each fault that says: more than the model's context."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_OVERFLOWS = re.compile(
    r"maximum context length|context length is only|exceeds? the (?:available |model'?s? )?(?:maximum )?context"
    r"|longer than the (?:maximum )?(?:model|context)|(?:prompt|input|request) is too (?:long|large)"
    r"|exceed_context_size|context (?:window|size|length) (?:is |was )?(?:exceeded|too small)|too many tokens",
    re.IGNORECASE,
)
_STOPS = {
    "stop": Stop.END,
    "eos": Stop.END,
    "eos_token": Stop.END,
    "end_turn": Stop.END,
    "stop_sequence": Stop.SEQUENCE,
    "length": Stop.LENGTH,
    "max_tokens": Stop.LENGTH,
    "max_output_tokens": Stop.LENGTH,
    "model_length": Stop.LENGTH,
    "tool_calls": Stop.TOOLS,
    "tool_use": Stop.TOOLS,
    "function_call": Stop.TOOLS,
    "content_filter": Stop.FILTER,
    "refusal": Stop.FILTER,
    "safety": Stop.FILTER,
    "error": Stop.ERROR,
    "abort": Stop.ERROR,
    "cancelled": Stop.ERROR,
}
REASONS = {
    Stop.END: "stop",
    Stop.SEQUENCE: "stop",
    Stop.LENGTH: "length",
    Stop.TOOLS: "tool_calls",
    Stop.FILTER: "content_filter",
    Stop.ERROR: "error",
}
"""The `finish_reason` of each reason to stop."""
TEXT_REASONS = REASONS | {Stop.TOOLS: "stop"}
"""The same for plain completion, which calls no tools."""
_LONGEST_MESSAGE = 4000


def read_stop(reason: str) -> Stop:
    """Why a model stopped, by its `finish_reason`; one that nobody knows is an end."""
    return _STOPS.get(reason.lower(), Stop.END)


def count(value: Any) -> int:
    """A number of tokens; 0 where there is none. Some engines write numbers as floats or in strings."""
    if type(value) is int:
        return max(value, 0)
    if type(value) is float and 0 <= value < 2**53:
        return int(value)
    return int(value) if type(value) is str and value.isascii() and value.isdigit() and len(value) < 16 else 0


_PLAIN = {"prompt_tokens", "completion_tokens", "total_tokens"}


def read_usage(usage: Mapping[str, Any], timings: Any = None) -> Usage:
    """What was used, by any of the names that engines of this dialect have for it. `timings` is llama.cpp's."""
    if timings is None and usage.keys() == _PLAIN:
        return Usage(count(usage["prompt_tokens"]), count(usage["completion_tokens"]))
    read = count(usage.get("prompt_tokens", usage.get("input_tokens")))
    wrote = count(usage.get("completion_tokens", usage.get("output_tokens")))
    of_input = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    of_output = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    cached = written = heard = spoken = 0
    thought = count(usage.get("reasoning_tokens"))
    if type(of_input) is dict:
        cached, heard = count(of_input.get("cached_tokens")), count(of_input.get("audio_tokens"))
        written = count(of_input.get("cache_write_tokens") or of_input.get("cache_creation_tokens"))
    if type(of_output) is dict:
        thought = count(of_output.get("reasoning_tokens")) or thought
        spoken = count(of_output.get("audio_tokens"))
    if not cached:
        for name in ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"):
            cached = cached or count(usage.get(name))
    written = written or count(usage.get("cache_creation_input_tokens"))
    # Some vendors count thoughts beside what was written, and not among it; their total gives them away.
    if thought and count(usage.get("total_tokens")) == read + wrote + thought:
        wrote += thought
    seconds = 0.0
    if type(timings) is dict:
        seconds = (_milliseconds(timings.get("prompt_ms")) + _milliseconds(timings.get("predicted_ms"))) / 1000
        kept = count(timings.get("cache_n"))
        cached, read = cached or min(kept, read or kept), read or count(timings.get("prompt_n")) + kept
        wrote = wrote or count(timings.get("predicted_n"))
    return Usage(read, wrote, cached, written, thought, heard, spoken, seconds=seconds)


def _milliseconds(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value < 10**12 else 0.0


def meter_usage(found: Sequence[Mapping[str, Any]]) -> Usage | None:
    """The last usage of those found in a stream, with llama.cpp's `timings` where they stand beside it."""
    timings = found[-1].get("timings") if len(found[-1]) == 1 else None
    objects = found[:-1] if type(timings) is dict else found
    return read_usage(objects[-1], timings) if objects else None


def write_usage(usage: Usage) -> dict[str, Any]:
    """`usage` in the words of chat."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": usage.audio_input,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_output},
    }


def error_type(status: int) -> str:
    """What OpenAI calls an error with this HTTP status."""
    return _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "server_error")


def write_error(error: CorralError) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    kind = error_type(error.http_status)
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def write_fault(fault: Fault, status: int) -> dict[str, Any]:
    """A vendor's refusal as OpenAI's clients expect it."""
    kind = fault.kind or error_type(status)
    return {"error": {"message": fault.message, "type": kind, "param": fault.param, "code": fault.code}}


def write_failed(failed: Failed) -> dict[str, Any]:
    """What an engine said of its own failure within a stream."""
    return write_fault(Fault(failed.message, failed.code), failed.status or 500)


def read_fault(status: int, document: Any) -> Fault:
    """An engine's error, in whichever shape. The code of each that says its context is too small is OVERFLOW."""
    inner = _inner(document)
    if isinstance(inner, Mapping):
        message = _said(inner, "message", "msg", "detail", "error", "error_message", "description")
        code, kind, param = inner.get("code"), inner.get("type"), inner.get("param")
        wait = inner.get("retry_after")
    else:
        message, code, kind, param, wait = _flat(inner), None, None, None, None
    message = message[:_LONGEST_MESSAGE] or f"The engine answered with HTTP status {status}."
    said = _word(code)
    if said == OVERFLOW or kind == "exceed_context_size_error" or (status < 500 and _OVERFLOWS.search(message)):
        said = OVERFLOW
    # vLLM and llama.cpp give the HTTP status once more as the code.
    elif said is not None and said == str(status):
        said = None
    seconds = float(wait) if isinstance(wait, int | float) and 0 <= wait < 10**9 else None
    return Fault(message, said, _word(kind), _word(param), seconds)


def _inner(document: Any) -> Any:
    """The part of an error body that speaks: some wrap it in a list, or in `error`, or in `detail`."""
    for _ in range(3):
        if type(document) is list and len(document) == 1:
            document = document[0]
        elif isinstance(document, Mapping) and isinstance(document.get("error"), (Mapping, list)):
            document = document["error"]
        elif isinstance(document, Mapping) and isinstance(document.get("detail"), Mapping):
            document = document["detail"]
        else:
            break
    return document


def _said(inner: Mapping[str, Any], *names: str) -> str:
    for name in names:
        if text := _flat(inner.get(name)):
            return text
    return ""


def _flat(value: Any) -> str:
    """The words in `value`: a string, or FastAPI's list of what is wrong."""
    if type(value) is str:
        return value
    if type(value) is list:
        said = [_wrong(each) for each in value[:10]]
        return "; ".join(each for each in said if each)
    return ""


def _wrong(item: Any) -> str:
    if not isinstance(item, Mapping):
        return item if type(item) is str else ""
    where, text = item.get("loc"), item.get("msg", item.get("message"))
    place = ".".join(str(step) for step in where if step != "body") if type(where) is list else ""
    return f"{place}: {text}" if place and type(text) is str else text if type(text) is str else ""


def _word(value: Any) -> str | None:
    if type(value) is str:
        return value[:200] or None
    return str(value) if type(value) is int and abs(value) < 10**9 else None


def failed_of(value: Any, status: int | None = None) -> Failed:
    """The event for an `error` that stood in a stream."""
    code = value.get("code", status) if isinstance(value, Mapping) else status
    status = code if type(code) is int and 400 <= code < 600 else status
    fault = read_fault(status or 400, {"error": value} if isinstance(value, Mapping) else value)
    return Failed(fault.message, status, fault.code or fault.kind)


def call_id(reply_id: str, index: int) -> str:
    """An id for the call with this number in an answer of an engine that gives none."""
    return f"call_{reply_id[-40:]}_{index}" if reply_id else f"call_{index}"


class Errors:
    """Errors, which all calls of the dialect share."""

    dialect = "openai"

    def write_error(self, error: CorralError) -> dict[str, Any]:
        """An error in OpenAI's envelope."""
        return write_error(error)

    def read_error(self, status: int, document: Any) -> Fault:
        """An engine's error; the code of one for want of context is `context_length_exceeded`."""
        return read_fault(status, document)

    def write_fault(self, fault: Fault, status: int) -> dict[str, Any]:
        """A vendor's refusal in OpenAI's envelope."""
        return write_fault(fault, status)


def completion(kind: str, reply: Reply, choice: Mapping[str, Any]) -> dict[str, Any]:
    """A whole answer with one choice; `kind` is what it calls itself."""
    document: dict[str, Any] = {
        "id": reply.id,
        "object": kind,
        "created": reply.created,
        "model": reply.model,
        "choices": [choice],
    }
    if reply.usage is not None:
        document["usage"] = write_usage(reply.usage)
    return document


def chunk_head(kind: bytes, begun: Begun) -> bytes:
    """How every chunk of a stream begins, up to its choices."""
    return b'data: {"id":%s,"object":"%b","created":%d,"model":%s,"choices":' % (
        orjson.dumps(begun.id),
        kind,
        begun.created,
        orjson.dumps(begun.model),
    )
