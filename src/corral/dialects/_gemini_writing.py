"""Gemini's generateContent: a request written for an engine."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from corral.dialects._gemini_requests import NAME, guessed_type
from corral.dialects._gemini_schema import to_gemini
from corral.dialects.canonical import Call, File, Image, Result, Role, Text, Thought, fold_system, unsaid
from corral.dialects.form import Written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.dialects.canonical import Choice, Format, Part, Request, Thinking, Tool
    from corral.dialects.form import Profile

_NUMBERS = (
    ("max_tokens", "maxOutputTokens"),
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("seed", "seed"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
    ("logprobs", "responseLogprobs"),
    ("top_logprobs", "logprobs"),
)
_CAN = frozenset({"tools", "choice", "format", "thinking", "stop"}) | {name for name, _ in _NUMBERS}
_OF_THE_WHOLE = frozenset({"safetySettings", "cachedContent", "labels", "serviceTier", "store", "toolConfig"}) | {
    "continuationToken"
}
_OF_THE_TOOLS = frozenset({"googleSearch", "googleSearchRetrieval", "googleMaps", "codeExecution", "urlContext"}) | {
    "computerUse",
    "fileSearch",
    "mcpServers",
    "retrieval",
    "enterpriseWebSearch",
}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768}
_LEVELS = ((512, "MINIMAL"), (1024, "LOW"), (8192, "MEDIUM"))


def write_request(request: Request, profile: Profile) -> Written:
    """The body of generateContent, and its path with the model in it; streams come as server-sent events.

    Schemas go as JSON schemas. To an engine whose profile drops `responseJsonSchema` or `parametersJsonSchema` they go
    in Gemini's own kind.
    """
    also: dict[str, None] = {}
    document: dict[str, Any] = {"contents": _contents(request, also)}
    if not document["contents"]:
        # It answers nobody who says nothing: what the system says is all there is.
        request = fold_system(request)
        document["contents"] = _contents(request, also)
    system = [_words(p, also) for m in request.messages if m.role is Role.SYSTEM for p in m.parts if type(p) is Text]
    if system:
        document["systemInstruction"] = {"parts": system}
    if request.tools or request.choice is not None:
        _write_tools(request, profile, document, also)
    config = _config(request, profile, also)
    if request.extra and request.origin == NAME:
        add(request.extra, document, config)
    if profile.extra:
        add({key: value for key, value in profile.extra.items() if not said(key, document, config)}, document, config)
    for name in profile.drop:
        if config.pop(name, None) is not None or document.pop(name, None) is not None:
            also[name] = None
    if config:
        document["generationConfig"] = config
    return Written(path(request.model, request.stream), document, unsaid(request, NAME, _CAN, also))


@lru_cache(maxsize=512)
def path(model: str, stream: bool) -> str:
    """Where the model is asked for an answer, below the engine's base URL."""
    return located(model) + (":streamGenerateContent?alt=sse" if stream else ":generateContent")


@lru_cache(maxsize=512)
def located(model: str) -> str:
    """The path of a model: in the collection `models`, unless the name says another."""
    return "/" + quote(model if "/" in model else f"models/{model}", safe="/-._~@")


def add(extra: Mapping[str, Any], document: dict[str, Any], config: dict[str, Any]) -> None:
    """Put each of what only Gemini knows to where it belongs: the whole, the tools, or generationConfig (`config`)."""
    for key, value in extra.items():
        if key in _OF_THE_WHOLE:
            document[key] = value
        elif key in _OF_THE_TOOLS:
            document.setdefault("tools", []).append({key: value})
        else:
            config[key] = value


def _write_tools(request: Request, profile: Profile, document: dict[str, Any], also: dict[str, None]) -> None:
    if request.tools:
        as_json = "parametersJsonSchema" not in profile.drop
        document["tools"] = [{"functionDeclarations": [_declaration(tool, as_json, also) for tool in request.tools]}]
    if request.choice is not None:
        document["toolConfig"] = {"functionCallingConfig": _calling(request.choice)}


def said(key: str, document: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a request says already what only Gemini knows by `key`."""
    return key in document or key in config or any(key in tool for tool in document.get("tools", ()))


def _contents(request: Request, also: dict[str, None]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    answering = False
    for message in request.messages:
        role = message.role
        if role is Role.SYSTEM:
            continue
        if message.name is not None:
            also["message.name"] = None
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if type(part) is Text:
                parts.append({"text": part.text} if part.cache is None else _words(part, also))
            else:
                written = _part(part, names, also)
                if written is not None:
                    parts.append(written)
        if not parts:
            continue
        # All results of calls made at the same time must stand in one turn.
        if role is Role.TOOL and answering:
            out[-1]["parts"] += parts
        else:
            out.append({"role": "model" if role is Role.ASSISTANT else "user", "parts": parts})
        answering = role is Role.TOOL
    return out


def _words(part: Text, also: dict[str, None]) -> dict[str, Any]:
    if part.cache is not None:
        also["text.cache"] = None
    return {"text": part.text}


def _part(part: Part, names: dict[str, str], also: dict[str, None]) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return _words(part, also)
    if isinstance(part, Call):
        names[part.id] = part.name
        out: dict[str, Any] = {"functionCall": call(part)}
        if is_proof(part.signature):
            out["thoughtSignature"] = part.signature
        elif part.signature is not None:
            also["call.signature"] = None
        return out
    if isinstance(part, Result):
        return {"functionResponse": _response(part, names, also)}
    if isinstance(part, Thought):
        return _thought(part, also)
    return _blob(part, also)


def call(part: Call) -> dict[str, Any]:
    """A functionCall. Arguments that are no object stand in one, as the field `arguments`."""
    arguments = arguments_of(part.arguments)
    return {"id": part.id, "name": part.name, "args": {"arguments": part.arguments} if arguments is None else arguments}


def arguments_of(text: str) -> dict[str, Any] | None:
    """The object that a call's arguments are, an empty one for none; None when they are no object."""
    if text == "{}" or not text:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if type(found) is dict else None


def thought(part: Thought) -> dict[str, Any] | None:
    """A part for a thought; a signature without one signs what stands before it. None for hidden ones."""
    signed = is_proof(part.signature)
    out: dict[str, Any] = {"text": part.text}
    if part.text:
        out["thought"] = True
    elif not signed:
        return None
    if signed:
        out["thoughtSignature"] = part.signature
    return out


def is_proof(signature: str | None) -> bool:
    """Whether Gemini and its clients can read the signature: they want bytes in base64, other vendors need not."""
    return signature is not None and len(signature) % 4 == 0 and _BASE64.fullmatch(signature) is not None


def _thought(part: Thought, also: dict[str, None]) -> dict[str, Any] | None:
    if part.hidden is not None:
        also["thought"] = None
    if part.signature is not None and not is_proof(part.signature):
        also["thought.signature"] = None
    return thought(part)


def _blob(part: Image | File, also: dict[str, None]) -> dict[str, Any] | None:
    kind = "image" if isinstance(part, Image) else "file"
    if part.cache is not None:
        also[f"{kind}.cache"] = None
    if isinstance(part, Image):
        if part.detail is not None:
            also["image.detail"] = None
        name, otherwise = part.url, "image/jpeg"
    else:
        if part.name is not None:
            also["file.name"] = None
        name, otherwise = part.name or part.url, "application/octet-stream"
    data, media, url = part.data, part.media_type, part.url
    if data is None and url is not None and url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        media = head.split(";", 1)[0] or media
    if data is not None:
        # The type must be told, and is looked for in the file itself where it is a picture.
        return {"inlineData": {"mimeType": media or guessed_type(name) or otherwise, "data": data}}
    if url is None:
        also[kind] = None
        return None
    out = {"fileUri": url}
    media = media or guessed_type(url) or (otherwise if kind == "image" else None)
    if media is not None:
        out["mimeType"] = media
    return {"fileData": out}


def _response(part: Result, names: Mapping[str, str], also: dict[str, None]) -> dict[str, Any]:
    if part.cache is not None:
        also["result.cache"] = None
    texts = [each for each in part.parts if isinstance(each, Text)]
    for each in texts:
        _words(each, also)
    said = texts[0].text if len(texts) == 1 else "\n".join(each.text for each in texts)
    out: dict[str, Any] = {"id": part.id, "name": part.name or names.get(part.id, part.id)}
    plain = said.startswith("{") and not part.error and arguments_of(said)
    if plain and orjson.dumps(plain).decode() == said and not _marked(plain):
        out["response"] = plain
    elif texts:
        out["response"] = {"error" if part.error else "output": said}
    else:
        out["response"] = {"error": ""} if part.error else {}
    blobs = [blob for each in part.parts if not isinstance(each, Text) and (blob := _blob(each, also)) is not None]
    if blobs:
        out["parts"] = blobs
    return out


def _marked(response: Mapping[str, Any]) -> bool:
    """Whether the response would be read as a plain text or an error."""
    return len(response) == 1 and any(type(response.get(key)) is str for key in ("output", "error"))


def _declaration(tool: Tool, as_json: bool, also: dict[str, None]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        out["description"] = tool.description
    if tool.parameters is not None:
        if as_json:
            out["parametersJsonSchema"] = tool.parameters
        elif tool.parameters.get("properties"):
            # An object without fields is refused there; nothing says as much.
            out["parameters"], less = to_gemini(tool.parameters)
            if less:
                also["tool.parameters"] = None
    if tool.strict is not None:
        also["tool.strict"] = None
    if tool.cache is not None:
        also["tool.cache"] = None
    return out


def _calling(choice: Choice) -> dict[str, Any]:
    out: dict[str, Any] = {"mode": _MODES[choice.mode]}
    if choice.mode == "named":
        out["allowedFunctionNames"] = [choice.name]
    return out


def _config(request: Request, profile: Profile, also: dict[str, None]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for field, name in _NUMBERS:
        value = getattr(request, field)
        if value is not None:
            config[name] = value
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.format is not None:
        _say_format(request.format, config, "responseJsonSchema" not in profile.drop, also)
    if request.thinking is not None:
        thinking = _thinking(request.thinking, profile, also, told=request.origin != NAME)
        if thinking:
            config["thinkingConfig"] = thinking
    return config


def _say_format(wanted: Format, config: dict[str, Any], as_json: bool, also: dict[str, None]) -> None:
    config["responseMimeType"] = "text/plain" if wanted.kind == "text" else "application/json"
    if wanted.schema is not None:
        if as_json:
            config["responseJsonSchema"] = wanted.schema
        else:
            config["responseSchema"], less = to_gemini(wanted.schema)
            if less:
                also["format.schema"] = None
    for name in ("name", "strict", "description"):
        if getattr(wanted, name) is not None:
            also[f"format.{name}"] = None


def _shown(wish: Thinking, effort: str | None, told: bool) -> bool | None:
    """Whether thoughts are asked for: other dialects tell them unless that is declined, Gemini's only then."""
    if wish.shown is None and told and effort != "none" and (effort is not None or wish.budget):
        return True
    return wish.shown


def _thinking(wish: Thinking, profile: Profile, also: dict[str, None], *, told: bool) -> dict[str, Any]:
    """What is said of thoughts. `told`: they are wanted in the answer where nothing is said of that."""
    effort = wish.effort.lower() if wish.effort else None
    out: dict[str, Any] = {}
    if profile.thinking == "none":
        if effort not in {None, "none"} or wish.budget not in {None, 0}:
            also["thinking"] = None
        return out
    shown = _shown(wish, effort, told)
    if shown is not None:
        out["includeThoughts"] = shown
    if effort is not None and effort not in _BUDGETS:
        also["thinking.effort"] = None
        effort = None
    if profile.thinking == "level":
        level = _level(effort, wish.budget, also)
        if level is not None:
            out["thinkingLevel"] = level
        return out
    budget = wish.budget
    if effort is not None and (profile.thinking == "budget" or effort == "none"):
        # No level says none; a budget of nothing does.
        budget = _BUDGETS[effort] if budget is None else budget
    elif effort is not None:
        out["thinkingLevel"] = effort.upper()
    if budget is not None:
        out["thinkingBudget"] = _within(budget, profile, also)
    return out


def _level(effort: str | None, budget: int | None, also: dict[str, None]) -> str | None:
    """The level for a model that takes no budgets, the nearest there is to one; it cannot do without thoughts."""
    if effort == "none" or (effort is None and budget == 0):
        also["thinking"] = None
        return "MINIMAL"
    if effort is None and budget is not None and budget > 0:
        also["thinking.budget"] = None
        return next((level for most, level in _LEVELS if budget <= most), "HIGH")
    return None if effort is None else effort.upper()


def _within(budget: int, profile: Profile, also: dict[str, None]) -> int:
    """The budget, or the nearest one that the model takes; -1 leaves it to the model, which each one takes."""
    if profile.thinking_range is None or budget < 0:
        return budget
    least, most = profile.thinking_range
    if least <= budget <= most:
        return budget
    also["thinking"] = None
    return min(max(budget, least), most)
