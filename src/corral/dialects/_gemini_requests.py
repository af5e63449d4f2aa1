"""Gemini's generateContent: a client's request read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects._gemini_reading import (
    a_bool,
    a_list,
    a_number,
    a_text,
    a_whole,
    an_object,
    camel,
    refusal,
)
from corral.dialects._gemini_schema import from_gemini
from corral.dialects.canonical import (
    Call,
    Choice,
    File,
    Format,
    Image,
    Message,
    Request,
    Result,
    Role,
    Text,
    Thinking,
    Thought,
    Tool,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.dialects.canonical import Part

NAME = "gemini.generate"
_SAID_ELSEWHERE = frozenset(
    {"model", "stream", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
)
_MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "MODE_UNSPECIFIED": "auto"}
_ALPHABET = str.maketrans("-_", "+/")
_ROLES = {"user": Role.USER, "model": Role.ASSISTANT, "function": Role.USER, None: Role.USER}
_OF_A_PART = frozenset({"text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall"}) | {
    "functionResponse"
}
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
}


def guessed_type(name: str | None) -> str | None:
    """The media type that the ending of a file's name or address tells."""
    return None if name is None else _TYPES.get(name.split("?", 1)[0].rpartition(".")[2].lower())


def bare_model(name: str) -> str:
    """A model's name without the collection it stands in."""
    return name.removeprefix("models/")


class _Talk:
    """What is found on the way through a request, beside the messages.

    The calls: those without an id get one by their place, and results without one find theirs by name. `extra` is what
    only Gemini knows, `lost` what nothing can hold.
    """

    def __init__(self, extra: dict[str, Any]) -> None:
        self.count = 0
        self.extra = extra
        self.lost: dict[str, None] = {}
        self._open: list[tuple[str, str]] = []

    def begun(self, given: Any, name: str) -> str:
        """The id of a call."""
        found = given if type(given) is str and given else f"call_{self.count}"
        self.count += 1
        self._open.append((found, name))
        return found

    def answered(self, given: Any, name: str) -> str:
        """The id of the call whose result this is."""
        for index, (found, of) in enumerate(self._open):
            if found == given or (not given and of == name):
                del self._open[index]
                return found
        return given if type(given) is str and given else f"call_{self.count}"


def read_request(document: Mapping[str, Any]) -> Request:
    """The canonical request of a generateContent body.

    The path names the model, and whether the answer is streamed; the door puts both into the body as `model` and
    `stream`. What only Gemini knows goes into `extra`, each under its own name: fields of generationConfig and kinds of
    tools too.

    Raises:
        InvalidRequest: it is no such request; names the field.
    """
    document = camel(document)
    extra = {key: value for key, value in document.items() if key not in _SAID_ELSEWHERE and value is not None}
    messages: list[Message] = []
    talk = _Talk(extra)
    system = document.get("systemInstruction")
    if system is not None:
        parts = _parts(an_object(system, "systemInstruction"), "systemInstruction", talk)
        if parts:
            messages.append(Message(Role.SYSTEM, tuple(parts)))
    contents = document.get("contents")
    if not contents:
        raise refusal("contents", "an array that is not empty")
    for index, content in enumerate(a_list(contents, "contents")):
        _read_content(messages, content, f"contents[{index}]", talk)
    tools = _tools(document["tools"], talk) if document.get("tools") else ()
    config = document.get("generationConfig")
    return Request(
        model=bare_model(a_text(document.get("model", ""), "model")),
        messages=tuple(messages),
        tools=tools,
        choice=_choice(document["toolConfig"], extra) if document.get("toolConfig") else None,
        stream=document.get("stream") is True,
        extra=extra,
        origin=NAME,
        **({} if config is None else _config(an_object(config, "generationConfig"), talk)),
        lost=tuple(talk.lost),
    )


def _read_content(messages: list[Message], content: Any, where: str, talk: _Talk) -> None:
    content = an_object(content, where)
    said = content.get("role")
    role = _ROLES.get(said) if said is None or type(said) is str else None
    if role is None:
        raise refusal(f"{where}.role", "`user` or `model`")
    parts = _parts(content, where, talk)
    if role is Role.ASSISTANT or not any(type(part) is Result for part in parts):
        messages.append(Message(role, tuple(parts)))
        return
    # Results of tools and words of the user may stand in one turn there.
    group: list[Part] = []
    for part in parts:
        if group and (type(part) is Result) is not (type(group[0]) is Result):
            messages.append(_turn(group))
            group = []
        group.append(part)
    messages.append(_turn(group))


def _turn(parts: list[Part]) -> Message:
    return Message(Role.TOOL if type(parts[0]) is Result else Role.USER, tuple(parts))


def _parts(content: Mapping[str, Any], where: str, talk: _Talk) -> list[Part]:
    out: list[Part] = []
    for index, part in enumerate(a_list(content.get("parts"), f"{where}.parts")):
        if type(part) is dict and len(part) == 1 and type(part.get("text")) is str:
            out.append(Text(part["text"]))
        else:
            _read_part(out, part, f"{where}.parts[{index}]", talk)
    return out


def _read_part(out: list[Part], part: Any, where: str, talk: _Talk) -> None:
    part = an_object(part, where)
    signature = part.get("thoughtSignature")
    if signature is not None:
        a_text(signature, f"{where}.thoughtSignature")
    for key in part:
        if key not in _OF_A_PART:
            talk.lost[f"part.{key}"] = None
    if part.get("functionCall") is not None:
        call = an_object(part["functionCall"], f"{where}.functionCall")
        name = a_text(call.get("name"), f"{where}.functionCall.name")
        arguments = orjson.dumps(an_object_as_is(call.get("args"), f"{where}.functionCall.args")).decode()
        out.append(Call(talk.begun(call.get("id"), name), name, arguments, signature))
        return
    if part.get("functionResponse") is not None:
        out.append(_result(an_object(part["functionResponse"], f"{where}.functionResponse"), where, talk))
        return
    if part.get("text") is not None:
        _read_words(out, a_text(part["text"], f"{where}.text"), part.get("thought") is True, signature)
        return
    if part.get("inlineData") is not None or part.get("fileData") is not None:
        out.append(_blob(part, where))
    else:
        out.extend(rendered(part))
    if signature is not None:
        out.append(Thought(signature=signature))


def _read_words(out: list[Part], text: str, thought: bool, signature: str | None) -> None:
    if thought:
        out.append(Thought(text, signature))
        return
    if text or signature is None:
        out.append(Text(text))
    if signature is not None:
        out.append(Thought(signature=signature))


def an_object_as_is(value: Any, where: str) -> Mapping[str, Any]:
    """`value`, an object whose names are a person's own; None is an empty one.

    Raises:
        InvalidRequest: it is none.
    """
    if value is None:
        return {}
    if type(value) is not dict:
        raise refusal(where, "an object")
    return value


def rendered(part: Mapping[str, Any]) -> list[Part]:
    """What a part of a model's says that only Gemini has a kind of part for, as words."""
    code, outcome, blob = part.get("executableCode"), part.get("codeExecutionResult"), part.get("inlineData")
    if type(code) is dict:
        return [Text(f"\n```{str(code.get('language', '')).lower()}\n{code.get('code', '')}\n```\n")]
    if type(outcome) is dict:
        return [Text(f"\n```\n{outcome.get('output', '')}\n```\n")]
    if type(blob) is dict:
        media = str(blob.get("mimeType", ""))
        sign = "!" if media.startswith("image/") else ""
        return [Text(f"{sign}[{media}](data:{media};base64,{blob.get('data', '')})")]
    return []


def _blob(part: Mapping[str, Any], where: str) -> Image | File:
    inline = part.get("inlineData")
    if inline is not None:
        blob = an_object(inline, f"{where}.inlineData")
        media: str | None = a_text(blob.get("mimeType"), f"{where}.inlineData.mimeType")
        data = _standard(a_text(blob.get("data"), f"{where}.inlineData.data"))
        if media is not None and media.startswith("image/"):
            return Image(media, data)
        return File(media, data, name=blob.get("displayName"))
    blob = an_object(part["fileData"], f"{where}.fileData")
    url = a_text(blob.get("fileUri"), f"{where}.fileData.fileUri")
    media = blob.get("mimeType")
    guessed = guessed_type(url)
    told = a_text(media, f"{where}.fileData.mimeType") if media is not None else guessed
    media = None if media == guessed else media  # the address tells as much
    if told is not None and told.startswith("image/"):
        return Image(media, url=url)
    return File(media, url=url, name=blob.get("displayName"))


def _standard(data: str) -> str:
    """Base64 as other vendors demand it: Google takes that for addresses as well, and its own client sends it."""
    return data.translate(_ALPHABET)


def _result(response: Mapping[str, Any], where: str, talk: _Talk) -> Result:
    where += ".functionResponse"
    name = a_text(response.get("name"), f"{where}.name")
    said = an_object_as_is(response.get("response"), f"{where}.response")
    parts: list[Text | Image | File] = []
    error = len(said) == 1 and type(said.get("error")) is str
    if error:
        parts.append(Text(said["error"]))
    elif len(said) == 1 and type(said.get("output")) is str:
        parts.append(Text(said["output"]))
    elif said:
        parts.append(Text(orjson.dumps(said).decode()))
    for index, part in enumerate(a_list(response.get("parts"), f"{where}.parts")):
        at = f"{where}.parts[{index}]"
        held = an_object(part, at)
        if held.get("inlineData") is None and held.get("fileData") is None:
            raise refusal(at, "an object with `inlineData`")
        parts.append(_blob(held, at))
    return Result(talk.answered(response.get("id"), name), tuple(parts), name, error)


def _tools(tools: Any, talk: _Talk) -> tuple[Tool, ...]:
    out: list[Tool] = []
    for index, tool in enumerate(a_list(tools, "tools")):
        for kind, value in an_object(tool, f"tools[{index}]").items():
            if kind != "functionDeclarations":
                talk.extra[kind] = value
                continue
            for number, each in enumerate(a_list(value, f"tools[{index}].functionDeclarations")):
                where = f"tools[{index}].functionDeclarations[{number}]"
                out.append(_tool(an_object(each, where), where, talk))
    return tuple(out)


def _tool(said: Mapping[str, Any], where: str, talk: _Talk) -> Tool:
    parameters = said.get("parametersJsonSchema")
    if parameters is None and said.get("parameters") is not None:
        parameters = from_gemini(an_object_as_is(said["parameters"], f"{where}.parameters"))
    elif parameters is not None:
        parameters = an_object_as_is(parameters, f"{where}.parametersJsonSchema")
    description = said.get("description")
    for key in said:
        if key not in {"name", "description", "parameters", "parametersJsonSchema"}:
            talk.lost[f"tool.{key}"] = None
    return Tool(
        a_text(said.get("name"), f"{where}.name"),
        None if description is None else a_text(description, f"{where}.description"),
        parameters,
    )


def _choice(config: Any, extra: dict[str, Any]) -> Choice | None:
    config = an_object(config, "toolConfig")
    calling = config.get("functionCallingConfig")
    where = "toolConfig.functionCallingConfig"
    calling = {} if calling is None else an_object(calling, where)
    names = a_list(calling.get("allowedFunctionNames"), f"{where}.allowedFunctionNames")
    said = calling.get("mode")
    mode = _MODES.get(said) if type(said) is str else None
    if (said is not None and mode is None) or len(config) > ("functionCallingConfig" in config) or len(names) > 1:
        extra["toolConfig"] = config
    if mode == "required" and len(names) == 1:
        return Choice("named", a_text(names[0], f"{where}.allowedFunctionNames[0]"))
    return None if mode is None else Choice(mode)


def _config(config: Mapping[str, Any], talk: _Talk) -> dict[str, Any]:
    """The fields of a Request that generationConfig says; the rest goes into `extra`."""
    out: dict[str, Any] = {}
    formats: dict[str, Any] = {}
    for key, value in config.items():
        if value is None:
            continue
        field = _FIELDS.get(key)
        where = f"generationConfig.{key}"
        if field is not None:
            out[field[0]] = field[1](value, where)
        elif key == "stopSequences":
            stops = value if type(value) is list else [value]
            out["stop"] = tuple(a_text(each, where) for each in stops)
        elif key == "thinkingConfig":
            out["thinking"] = _thinking(an_object(value, where), where)
        elif key in {"responseMimeType", "responseSchema", "responseJsonSchema"}:
            formats[key] = value
        elif key != "candidateCount":
            talk.extra[key] = value
        elif a_whole(value, where) != 1:
            talk.lost[key] = None
    if formats:
        out["format"] = _format(formats, talk.extra)
    return out


_FIELDS: dict[str, tuple[str, Any]] = {
    "maxOutputTokens": ("max_tokens", a_whole),
    "temperature": ("temperature", a_number),
    "topP": ("top_p", a_number),
    "topK": ("top_k", a_whole),
    "seed": ("seed", a_whole),
    "presencePenalty": ("presence_penalty", a_number),
    "frequencyPenalty": ("frequency_penalty", a_number),
    "responseLogprobs": ("logprobs", a_bool),
    "logprobs": ("top_logprobs", a_whole),
}


def _format(said: Mapping[str, Any], extra: dict[str, Any]) -> Format | None:
    media = said.get("responseMimeType")
    schema = said.get("responseJsonSchema")
    if schema is not None:
        an_object_as_is(schema, "generationConfig.responseJsonSchema")
    elif said.get("responseSchema") is not None:
        schema = from_gemini(an_object_as_is(said["responseSchema"], "generationConfig.responseSchema"))
    if schema is not None:
        if media not in {None, "application/json"}:
            extra["responseMimeType"] = media
        return Format("schema", schema)
    if media is None:
        return None
    if media == "application/json":
        return Format("json")
    if media != "text/plain":
        extra["responseMimeType"] = a_text(media, "generationConfig.responseMimeType")
    return Format("text")


def _thinking(said: Mapping[str, Any], where: str) -> Thinking:
    level = said.get("thinkingLevel")
    effort = None if level is None else a_text(level, f"{where}.thinkingLevel").lower()
    if effort == "thinking_level_unspecified":
        effort = None
    budget = a_whole(said.get("thinkingBudget"), f"{where}.thinkingBudget")
    if budget == 0 and effort is None:
        effort, budget = "none", None
    return Thinking(effort, budget, a_bool(said.get("includeThoughts"), f"{where}.includeThoughts"))
