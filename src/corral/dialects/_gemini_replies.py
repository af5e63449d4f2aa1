"""Gemini's answers: whole ones, to and from the canonical form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._gemini_requests import NAME, rendered
from corral.dialects._gemini_writing import arguments_of, is_proof, thought
from corral.dialects.canonical import Call, Reply, Stop, Text, Thought
from corral.domain.money import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.dialects.canonical import Part, Request

_STOPS = {
    "STOP": Stop.END,
    "MAX_TOKENS": Stop.LENGTH,
    "SAFETY": Stop.FILTER,
    "RECITATION": Stop.FILTER,
    "LANGUAGE": Stop.FILTER,
    "BLOCKLIST": Stop.FILTER,
    "PROHIBITED_CONTENT": Stop.FILTER,
    "SPII": Stop.FILTER,
    "MODEL_ARMOR": Stop.FILTER,
    "ESCALATION": Stop.FILTER,
    "IMAGE_SAFETY": Stop.FILTER,
    "IMAGE_PROHIBITED_CONTENT": Stop.FILTER,
    "IMAGE_RECITATION": Stop.FILTER,
}
"""Reasons to stop; any other is a failure of the model's, such as a call of a tool that is none."""
_REASONS = {Stop.LENGTH: "MAX_TOKENS", Stop.FILTER: "SAFETY", Stop.ERROR: "OTHER"}
"""All others are STOP: Gemini does not tell a stop sequence, or calls of tools, from the end."""


def stop_of(reason: Any, calls: bool) -> Stop:
    """The canonical reason to stop; `calls`: the answer calls tools."""
    stop = _STOPS.get(reason, Stop.ERROR) if type(reason) is str else Stop.ERROR
    return Stop.TOOLS if calls and stop is Stop.END else stop


def reason_of(stop: Stop) -> str:
    """Gemini's finishReason."""
    return _REASONS.get(stop, "STOP")


def call_id(response: Any, index: int) -> str:
    """The id of the answer's call `index`, which has none of its own.

    The same whenever it is asked for; another in each answer, so that a conversation has none twice.
    """
    return f"call_{response}_{index}" if type(response) is str and response else f"call_{index}"


def read_usage(said: Mapping[str, Any]) -> Usage:
    """The tokens of a usageMetadata. What was thought stands beside what was written there, and is part of it here.

    Raises:
        ValueError, TypeError: it is none.
    """
    get = said.get
    thoughts, cached = get("thoughtsTokenCount") or 0, get("cachedContentTokenCount") or 0
    read = (get("promptTokenCount") or 0) + (get("toolUsePromptTokenCount") or 0)
    wrote = (get("candidatesTokenCount") or 0) + thoughts
    if not type(thoughts) is type(cached) is type(read) is type(wrote) is int:
        raise ValueError("a count of tokens is none")
    usage = Usage(read, wrote, cached, 0, thoughts)
    heard = _sound(get("promptTokensDetails")) - _sound(get("cacheTokensDetails"))
    spoken = _sound(get("candidatesTokensDetails"))
    if heard <= 0 and not spoken:
        return usage
    return Usage(usage.input, usage.output, usage.cached, 0, thoughts, max(heard, 0), spoken)


def _sound(details: Any) -> int:
    if not details:
        return 0
    return sum(int(each.get("tokenCount") or 0) for each in details if each.get("modality") == "AUDIO")


def write_usage(usage: Usage) -> dict[str, Any]:
    """A usageMetadata."""
    out: dict[str, Any] = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(usage.output - usage.reasoning, 0),
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cached:
        out["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        out["thoughtsTokenCount"] = usage.reasoning
    if usage.audio_input:
        out["promptTokensDetails"] = [{"modality": "AUDIO", "tokenCount": usage.audio_input}]
    if usage.audio_output:
        out["candidatesTokensDetails"] = [{"modality": "AUDIO", "tokenCount": usage.audio_output}]
    return out


def _string(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    raise ValueError("a text is none")


def read_logprobs(said: Any) -> list[dict[str, Any]] | None:
    """The tokens of a logprobsResult with their logarithms, as the canonical form has them."""
    if not said:
        return None
    chosen, others = said.get("chosenCandidates") or [], said.get("topCandidates") or []
    out = []
    for index, each in enumerate(chosen):
        top = others[index].get("candidates") or [] if index < len(others) else []
        out.append({**_token(each), "top_logprobs": [_token(one) for one in top]})
    return out


def _token(said: Mapping[str, Any]) -> dict[str, Any]:
    token = _string(said.get("token")) or ""
    return {"token": token, "logprob": float(said.get("logProbability") or 0.0), "bytes": list(token.encode())}


def write_logprobs(tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A logprobsResult."""
    out: dict[str, Any] = {"chosenCandidates": [_candidate(each) for each in tokens]}
    if any(each.get("top_logprobs") for each in tokens):
        out["topCandidates"] = [
            {"candidates": [_candidate(one) for one in each.get("top_logprobs") or ()]} for each in tokens
        ]
    return out


def _candidate(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": said["token"], "logProbability": said["logprob"]}


def read_reply(document: Mapping[str, Any]) -> Reply:
    """The canonical answer: of several candidates the first.

    A prompt that was blocked is an answer without words that the vendor refused. What only Gemini has a kind of part
    for (code that ran, its output, a picture) becomes words.

    Raises:
        ValueError: it is no such answer.
    """
    if type(document) is not dict:
        raise ValueError("it is not an object")
    try:
        return _read(document)
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"a part of it is none: {error}") from error


def _read(document: Mapping[str, Any]) -> Reply:
    response, said = _string(document.get("responseId")), document.get("usageMetadata")
    usage = read_usage(said) if said else None
    candidates = document.get("candidates")
    head = Reply(response or "", _string(document.get("modelVersion")) or "", usage=usage)
    if not candidates:
        if not document.get("promptFeedback"):
            raise ValueError("it has no candidates")
        return replace(head, stop=Stop.FILTER)
    candidate = candidates[0]
    parts: list[Part] = []
    calls = 0
    for part in (candidate.get("content") or {}).get("parts") or ():
        calls += read_part(parts, part, response, calls)
    return replace(
        head,
        parts=tuple(parts),
        stop=stop_of(candidate.get("finishReason"), calls > 0),
        logprobs=read_logprobs(candidate.get("logprobsResult")),
    )


def read_part(out: list[Part], part: Mapping[str, Any], response: Any, calls: int) -> bool:
    """Add what a part of an answer says; whether it is a call, of which `calls` came before.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is no such part.
    """
    text = part.get("text")
    signature = _string(part.get("thoughtSignature"))
    if text is not None:
        if type(text) is not str:
            raise ValueError("a text is none")
        if part.get("thought"):
            out.append(Thought(text, signature))
            return False
        if text:
            out.append(Text(text))
    elif (called := part.get("functionCall")) is not None:
        name, arguments = _string(called["name"]), called.get("args")
        if name is None or (arguments is not None and type(arguments) is not dict):
            raise ValueError("a call is none")
        given = _string(called.get("id")) or call_id(response, calls)
        out.append(Call(given, name, orjson.dumps(arguments).decode() if arguments else "{}", signature))
        return True
    else:
        out.extend(rendered(part))
    if signature is not None:
        out.append(Thought(signature=signature))
    return False


def write_reply(reply: Reply, request: Request | None) -> dict[str, Any]:
    """The answer for a client; thoughts only when it asked for them, as Gemini does."""
    shown = wants_thoughts(request)
    parts: list[dict[str, Any]] = []
    broken: Call | None = None
    for part in reply.parts:
        if isinstance(part, Text):
            parts.append({"text": part.text})
        elif isinstance(part, Call):
            written = write_call(part.id, part.name, part.arguments, part.signature)
            if written is None:
                broken = part
            else:
                parts.append(written)
        elif isinstance(part, Thought):
            written = thought(part if shown else Thought(signature=part.signature))
            if written is not None:
                parts.append(written)
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    candidate |= write_end(reply.stop, broken)
    if reply.logprobs:
        candidate["logprobsResult"] = write_logprobs(reply.logprobs)
    out: dict[str, Any] = {"candidates": [candidate]}
    if reply.usage is not None:
        out["usageMetadata"] = write_usage(reply.usage)
    out["modelVersion"] = reply.model
    out["responseId"] = reply.id
    return out


def wants_thoughts(request: Request | None) -> bool:
    """Whether the client of `request` is shown thoughts: one of Gemini's when it asked for them, any other always."""
    if request is None or request.origin != NAME:
        return True
    return request.thinking is not None and request.thinking.shown is True


def write_call(given: str, name: str, arguments: str, signature: str | None) -> dict[str, Any] | None:
    """A part that calls a tool; None when the arguments are no object, which Gemini has no way to pass on."""
    found = arguments_of(arguments)
    if found is None:
        return None
    part: dict[str, Any] = {"functionCall": {"id": given, "name": name, "args": found}}
    if is_proof(signature):
        part["thoughtSignature"] = signature
    return part


def write_end(stop: Stop, broken: Call | None) -> dict[str, Any]:
    """The fields of a candidate that is finished. `broken` is a call whose arguments are no object."""
    if broken is None or stop is Stop.LENGTH:
        return {"finishReason": reason_of(stop)}
    words = f"The call of {broken.name} has arguments that are no object: {broken.arguments}"
    return {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": words}
