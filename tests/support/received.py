"""What reached a played vendor, read from its own format: whatever the client's was, the same things must be there."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from google.genai import types


@dataclass
class Received:
    """One request as the vendor had it. `calls` and `results` are what the talk had before, in its order."""

    path: str
    model: str | None = None
    system: str = ""
    user: str = ""
    images: list[str] = field(default_factory=list)
    tools: list[tuple[str, Any]] = field(default_factory=list)
    forced: str | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    results: list[tuple[str, str]] = field(default_factory=list)
    """Of each result the tool that it is of, and what it says."""
    schema: Any = None
    stop: list[str] = field(default_factory=list)
    limit: int | None = None
    thinking: Any = None


def last(vendor: str) -> Received:
    """What the vendor at this address was asked last."""
    host = "/".join(vendor.split("/")[:3])
    with urllib.request.urlopen(f"{host}/asked", timeout=60) as answer:
        asked = json.load(answer)[-1]
    read = next(read for end, read in _READERS.items() if end in asked["path"])
    return read(Received(asked["path"], asked["body"].get("model")), asked["body"])


def _chat(got: Received, body: dict[str, Any]) -> Received:
    names: dict[str, str] = {}
    for message in body["messages"]:
        content = message.get("content")
        texts, images = _openai_parts(content)
        if message["role"] in ("system", "developer"):
            got.system += texts
        elif message["role"] == "user":
            got.user += texts
            got.images += images
        elif message["role"] == "tool":
            got.results.append((names[message["tool_call_id"]], texts))
        for call in message.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
            got.calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
    got.tools = [(tool["function"]["name"], tool["function"]["parameters"]) for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    got.forced = choice["function"]["name"] if isinstance(choice, dict) else None
    got.schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    stop = body.get("stop") or []
    got.stop = [stop] if isinstance(stop, str) else stop
    got.limit = body.get("max_completion_tokens", body.get("max_tokens"))
    got.thinking = body.get("reasoning_effort")
    return got


def _openai_parts(content: Any) -> tuple[str, list[str]]:
    if not isinstance(content, list):
        return content or "", []
    texts = "".join(part.get("text", "") for part in content)
    urls = [part["image_url"] for part in content if "image_url" in part]
    return texts, [(url["url"] if isinstance(url, dict) else url).partition(",")[2] for url in urls]


def _responses(got: Received, body: dict[str, Any]) -> Received:
    names: dict[str, str] = {}
    got.system = body.get("instructions") or ""
    for item in body["input"]:
        if item.get("type") in ("function_call", "custom_tool_call"):
            names[item["call_id"]] = item["name"]
            got.calls.append((item["name"], item["input"] if "input" in item else json.loads(item["arguments"])))
        elif item.get("type") in ("function_call_output", "custom_tool_call_output"):
            got.results.append((names[item["call_id"]], item["output"]))
        elif "role" in item:
            texts, images = _openai_parts(item["content"])
            if item["role"] == "user":
                got.user += texts
                got.images += images
            elif item["role"] in ("system", "developer"):
                got.system += texts
    got.tools = [(tool.get("name", ""), tool.get("parameters")) for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    got.forced = choice["name"] if isinstance(choice, dict) else None
    got.schema = (body.get("text") or {}).get("format", {}).get("schema")
    got.limit = body.get("max_output_tokens")
    got.thinking = (body.get("reasoning") or {}).get("effort")
    return got


def _completions(got: Received, body: dict[str, Any]) -> Received:
    got.user = body["prompt"]
    stop = body.get("stop") or []
    got.stop = [stop] if isinstance(stop, str) else stop
    got.limit = body.get("max_tokens")
    return got


def _messages(got: Received, body: dict[str, Any]) -> Received:
    names: dict[str, str] = {}
    system = body.get("system", "")
    got.system = system if isinstance(system, str) else "".join(block["text"] for block in system)
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "text" and message["role"] == "user":
                got.user += block["text"]
            elif block["type"] == "image":
                got.images.append(block["source"]["data"])
            elif block["type"] == "tool_use":
                names[block["id"]] = block["name"]
                got.calls.append((block["name"], block["input"]))
            elif block["type"] == "tool_result":
                told = block["content"]
                said = told if isinstance(told, str) else "".join(part["text"] for part in told)
                got.results.append((names[block["tool_use_id"]], said))
    got.tools = [(tool["name"], tool["input_schema"]) for tool in body.get("tools") or ()]
    got.forced = (body.get("tool_choice") or {}).get("name")
    got.schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    got.stop = body.get("stop_sequences") or []
    got.limit = body.get("max_tokens")
    thinking = body.get("thinking") or {}
    got.thinking = thinking if thinking.get("type") in ("enabled", "adaptive") else None
    return got


def _generate(got: Received, body: dict[str, Any]) -> Received:
    got.model = got.path.removeprefix("/models/").partition(":")[0]
    system = body.get("systemInstruction") or {}
    got.system = "".join(part["text"] for part in system.get("parts", ()))
    for content in body["contents"]:
        for part in content["parts"]:
            if "functionCall" in part:
                got.calls.append((part["functionCall"]["name"], part["functionCall"].get("args")))
            elif "functionResponse" in part:
                (said,) = part["functionResponse"]["response"].values()
                got.results.append((part["functionResponse"]["name"], said))
            elif "inlineData" in part:
                got.images.append(part["inlineData"]["data"])
            elif content.get("role") == "user":
                got.user += part["text"]
    # The service's own client writes some names with underscores, and pictures in the alphabet of addresses.
    got.images = [each.translate(str.maketrans("-_", "+/")) for each in got.images]
    for given in body.get("tools") or ():
        for each in types.Tool.model_validate(given).function_declarations or ():
            got.tools.append((each.name or "", each.parameters_json_schema))
    calling = types.ToolConfig.model_validate(body.get("toolConfig") or {}).function_calling_config
    got.forced = (calling.allowed_function_names or [None])[0] if calling else None
    config = types.GenerationConfig.model_validate(body.get("generationConfig") or {})
    got.schema = config.response_json_schema or config.response_schema
    got.stop = config.stop_sequences or []
    got.limit = config.max_output_tokens
    got.thinking = config.thinking_config
    return got


_READERS = {
    "/chat/completions": _chat,
    "/completions": _completions,
    "/responses": _responses,
    "/messages": _messages,
    ":generateContent": _generate,
    ":streamGenerateContent": _generate,
}
