"""Gemini, played: what it is sent and what it says are checked with the types of Google's own library.

Beside the script of every vendor it knows `#blocked`, a prompt that is refused without an answer, and `#noids`, calls
without ids as older models make them.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from google.genai import types
from pydantic import TypeAdapter, ValidationError

from tests.support.vendors.vendor import Asked, Refusal, Script, Vendor, pieces, play

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
LIMIT = 100_000
"""Characters of a prompt that a model holds."""
SIGNATURE = base64.b64encode(b"signed").decode()
RPC = "type.googleapis.com/google.rpc."
_GENERATE: dict[str, Any] = {
    "contents": list[types.Content],
    "systemInstruction": types.Content,
    "tools": list[types.Tool],
    "toolConfig": types.ToolConfig,
    "safetySettings": list[types.SafetySetting],
    "generationConfig": types.GenerationConfig,
    "cachedContent": str,
    "labels": dict[str, str],
    "model": str,
}
_EMBED: dict[str, Any] = {
    "model": str,
    "content": types.Content,
    "taskType": str,
    "title": str,
    "outputDimensionality": int,
}


class Gemini(Vendor):
    """The service."""

    name = "gemini"
    prefix = "/v1beta"

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)
        self._after: str | None = None

    def question(self, body: Any) -> str:
        """The last thing the user said."""
        for content in reversed(body.get("contents") or []):
            if isinstance(content, dict) and content.get("role", "user") == "user":
                parts = content.get("parts")
                said = [str(part.get("text", "")) for part in parts if isinstance(part, dict)] if parts else []
                if any(said):
                    self._after = Script.of(" ".join(said)).words.get("retry_after")
                    return " ".join(said)
        return ""

    def refusal(self, refusal: Refusal) -> Any:
        """As the service refuses."""
        error: dict[str, Any] = {"code": refusal.status, "message": refusal.message}
        error["status"] = STATUSES.get(refusal.status, "UNKNOWN")
        details: list[dict[str, Any]] = []
        if refusal.kind:
            details.append({"@type": f"{RPC}ErrorInfo", "reason": refusal.kind, "domain": "googleapis.com"})
        if self._after is not None:
            details.append({"@type": f"{RPC}RetryInfo", "retryDelay": f"{self._after}s"})
        if details:
            error["details"] = details
        return {"error": error}

    def broken(self) -> bytes:
        """An error in a stream."""
        error = {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}
        return _sse({"error": error})

    def answer(self, asked: Asked, request: web.Request) -> Any:
        """What the service would say."""
        shown = asked.headers.get("x-goog-api-key") or request.query.get("key")
        if shown is None:
            raise Refusal(403, "", "Method doesn't allow unregistered callers (callers without established identity).")
        if shown != self.key:
            raise Refusal(400, "API_KEY_INVALID", "API key not valid. Please pass a valid API key.")
        if asked.path == "/models":
            return {"models": [{"name": "models/gemini-2.5-pro", "supportedGenerationMethods": ["generateContent"]}]}
        model, _, call = asked.path.removeprefix("/models/").partition(":")
        if not asked.path.startswith("/models/") or "gemini" not in model:
            raise Refusal(404, "", f"models/{model} is not found for API version v1beta.")
        others = {"countTokens": self._count, "embedContent": self._embed, "batchEmbedContents": self._vectors}
        if call in others:
            return others[call](asked.body)
        if call not in {"generateContent", "streamGenerateContent"}:
            raise Refusal(404, "", f"{call} is not known.")
        return self._generate(model, asked.body, call, request.query.get("alt"))

    def _generate(self, model: str, body: dict[str, Any], call: str, alt: str | None) -> Any:
        _check(body, _GENERATE)
        self._rules(model, body)
        document = self._reply(model, body, Script.of(self.question(body)))
        _said(document)
        if call == "generateContent":
            return document
        if alt != "sse":
            raise Refusal(400, "", "This stage plays streams of events only.")
        return self._chunks(document)

    def _rules(self, model: str, body: dict[str, Any]) -> None:
        """What the service demands, and its types do not say."""
        if not body.get("contents"):
            raise Refusal(400, "", "* GenerateContentRequest.contents: contents is not specified")
        if len(json.dumps(body)) > LIMIT:
            message = f"The input token count (250000) exceeds the maximum number of tokens allowed ({LIMIT // 4})."
            raise Refusal(400, "", message)
        thinking = _config(body).get("thinkingConfig", {})
        budget = thinking.get("thinkingBudget")
        if "2.0" in model and budget:
            raise Refusal(400, "", "Thinking is not enabled for this model.")
        if "2.5-pro" in model and budget is not None and budget != -1 and not 128 <= budget <= 32768:
            raise Refusal(
                400, "", f"The thinking budget {budget} is invalid. Please choose a value between 128 and 32768."
            )
        if "2." in model and "thinkingLevel" in thinking:
            raise Refusal(400, "", "Thinking level is not supported for this model.")
        _check_turns(body["contents"])

    def _reply(self, model: str, body: dict[str, Any], script: Script) -> dict[str, Any]:
        number = next(self._numbers)
        config = _config(body)
        prompt = len(json.dumps(body["contents"])) // 4
        usage = {"promptTokenCount": prompt, "totalTokenCount": prompt}
        out: dict[str, Any] = {"usageMetadata": usage, "modelVersion": model, "responseId": f"resp-{number}"}
        if "blocked" in script:
            return out | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        tools = [each for tool in body.get("tools", []) for each in tool.get("functionDeclarations", [])]
        calls = script.number("tools", 1 if "tool" in script else 0) if tools else 0
        parts: list[dict[str, Any]] = []
        if "think" in script:
            usage["thoughtsTokenCount"] = 7
            if config.get("thinkingConfig", {}).get("includeThoughts"):
                parts.append({"text": "Let me see.", "thought": True})
        if not calls or "say" in script:
            said = script.said(f"Hello from {model}.")
            shape = config.get("responseMimeType") == "application/json"
            parts.append({"text": json.dumps({"said": said}) if shape else said})
        for call in range(calls):
            name = tools[call % len(tools)]["name"]
            made: dict[str, Any] = {"name": name, "args": {"city": "Paris", "number": call}}
            if "noids" not in script:
                made["id"] = f"fc-{number}-{call}"
            parts.append({"functionCall": made} | ({"thoughtSignature": SIGNATURE} if call == 0 else {}))
        if "cached" in script:
            usage["promptTokenCount"] += 2000
            usage["cachedContentTokenCount"] = 2000
        usage["candidatesTokenCount"] = 12
        usage["totalTokenCount"] = usage["promptTokenCount"] + 12 + usage.get("thoughtsTokenCount", 0)
        stop = script.words.get("stop") or "STOP"
        content = {"parts": parts, "role": "model"}
        return {"candidates": [{"content": content, "finishReason": stop, "index": 0}]} | out

    def _chunks(self, document: dict[str, Any]) -> Iterator[bytes]:
        candidates = document.get("candidates")
        if not candidates:
            yield _sse(document)
            return
        rest = {key: value for key, value in document.items() if key != "candidates"}
        early = {key: value for key, value in rest["usageMetadata"].items() if not key.startswith("candidates")}
        cut: list[dict[str, Any]] = []
        for part in candidates[0]["content"]["parts"]:
            cut += [part | {"text": piece} for piece in pieces(part["text"])] if "text" in part else [part]
        for index, part in enumerate(cut):
            last = index == len(cut) - 1
            candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
            if last:
                candidate["finishReason"] = candidates[0]["finishReason"]
            chunk = {"candidates": [candidate]} | rest | {"usageMetadata": rest["usageMetadata"] if last else early}
            _said(chunk)
            yield _sse(chunk)

    def _count(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body.get("generateContentRequest", body)
        _check(asked, _GENERATE)
        return {"totalTokens": len(json.dumps(asked["contents"])) // 4}

    def _vectors(self, body: dict[str, Any]) -> dict[str, Any]:
        for each in body["requests"]:
            if "model" not in each:
                raise Refusal(400, "", "* BatchEmbedContentsRequest.requests[0].model: model is not specified")
        return {"embeddings": [self._vector(each) for each in body["requests"]]}

    def _embed(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"embedding": self._vector(body)}

    def _vector(self, body: dict[str, Any]) -> dict[str, Any]:
        _check(body, _EMBED)
        text = body["content"]["parts"][0]["text"]
        vector = {"values": [float(len(text)), 0.5][: body.get("outputDimensionality", 2)]}
        types.ContentEmbedding.model_validate(vector)
        return vector


def _config(body: dict[str, Any]) -> dict[str, Any]:
    """The generationConfig as the service spells it: its own client sends some names with underscores."""
    said = types.GenerationConfig.model_validate_json(json.dumps(body.get("generationConfig", {})))
    return said.model_dump(mode="json", by_alias=True, exclude_none=True)


def _check(body: dict[str, Any], known: dict[str, Any]) -> None:
    """Refuse what the service does not know, as it does."""
    for name, value in body.items():
        if name not in known:
            raise Refusal(400, "", f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
        try:
            TypeAdapter(known[name]).validate_json(json.dumps(value))
        except ValidationError as error:
            raise Refusal(400, "", f"Invalid value at '{name}': {error.errors()[0]}") from error


def _check_turns(contents: list[dict[str, Any]]) -> None:
    """Results stand in the turn after the calls, as many of them."""
    calls = 0
    for content in contents:
        parts = content["parts"]
        results = sum("functionResponse" in part for part in parts)
        if not parts or (content.get("role", "user") == "user" and results != calls):
            message = (
                "Please ensure that the number of function response parts is equal to the number of function call "
            )
            raise Refusal(400, "", message + "parts of the function call turn.")
        calls = sum("functionCall" in part for part in parts)


def _said(document: dict[str, Any]) -> None:
    types.GenerateContentResponse.model_validate_json(json.dumps(document))


def _sse(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\r\n\r\n"


if __name__ == "__main__":
    play(Gemini)
