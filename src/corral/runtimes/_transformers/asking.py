"""How a request of OpenAI's dialect is put to the library's server: mended where that can be, refused where it cannot.

The server itself ignores what it does not know: penalties, more than one answer, forms of answers, forced tools. Here
each of these is followed, or named in an error; none is dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.errors import InvalidRequest, NotSupported

CHAT = "/chat/completions"

_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repetition_penalty",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
}
"""What requests and options call a parameter, and what the library does."""
SAMPLING = tuple(_NAMES)

_CHOOSING = ("top_p", "top_k", "min_p", "typical_p")
_ONE_BY_ONE = {"typical_p": (None, 1, 1.0)}
_BATCHED = {"presence_penalty": (None, 0, 0.0), "frequency_penalty": (None, 0, 0.0)}
_NEVER = {
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "generation_config": (None,),
}
_UNUSED = ("parallel_tool_calls", "stream_options", "service_tier", "store", "user", "metadata")


@dataclass(frozen=True, slots=True)
class Asking:
    """`Endpoint.adapt` for one engine.

    Attributes:
        model: the library's own settings of generation for the model, by its names.
        defaults: how the next token is chosen when the client does not say, by our names.
        system: whether the chat template has a place for a system message.
        batched: whether requests are answered in batches.
        max_tokens: most tokens of an answer when the client says nothing.
        stop: texts that end an answer when the client names none.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    system: bool = True
    batched: bool = True
    max_tokens: int | None = None
    stop: Sequence[str] = ()

    def __call__(self, path: str, body: dict[str, Any]) -> bool:
        """Change the request in place into what the server understands; always true.

        Raises:
            NotSupported: it asks for what neither the server nor this can do; names the field.
            InvalidRequest: a field cannot be what it is.
        """
        self._refuse(body)
        if path == CHAT:
            if isinstance(body.get("messages"), list):
                body["messages"] = conversation(body["messages"], system=self.system)
            _tools(body)
        elif isinstance(body.get("prompt"), list):
            body["prompt"] = _prompt(body["prompt"])
        if self.stop and not body.get("stop"):
            body["stop"] = list(self.stop)
        config = self._sampling(body)
        config["max_new_tokens"] = self._length(body)
        body["generation_config"] = json.dumps(config)
        for name in _UNUSED:
            body.pop(name, None)
        return True

    def _refuse(self, body: dict[str, Any]) -> None:
        other = _ONE_BY_ONE if self.batched else _BATCHED
        for name, neutral in {**_NEVER, **other}.items():
            if name in body and body[name] not in neutral:
                hint = "Leave it out, or ask a model of another runtime: corral show MODEL."
                if name in other:
                    hint = f"Leave it out, or set the option batching: {str(not self.batched).lower()}."
                raise NotSupported(f"The runtime transformers does not follow {name!r}.", hint, param=name)
        for name in _NEVER:
            body.pop(name, None)
        form = body.pop("response_format", None)
        if isinstance(form, dict) and form.get("type") not in (None, "text"):
            raise NotSupported(
                f"The runtime transformers cannot hold an answer to the form {form.get('type')!r}.",
                "Leave out response_format and ask for the form in words, or use a model of llamacpp or vllm.",
                param="response_format",
            )

    def _sampling(self, body: dict[str, Any]) -> dict[str, Any]:
        said = {name: body.pop(name) for name in SAMPLING if name in body}
        said = {name: value for name, value in said.items() if value is not None}
        for name, value in said.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InvalidRequest(f"{name} must be a number, not {value!r:.40}.", param=name)
        _check(said)
        config = {**self.model, **_theirs(self.defaults), **_theirs(said)}
        for known in (self.defaults, said):  # the client has the last word
            if known.get("temperature") is not None:
                config["do_sample"] = known["temperature"] > 0
            elif any(known.get(name) is not None for name in _CHOOSING):
                config["do_sample"] = True
        if not config.get("do_sample"):
            for name in ("temperature", *_CHOOSING):
                config.pop(name, None)
        if not self.batched and "seed" in config:
            body["seed"] = config.pop("seed")  # the server's own way, for one request at a time
        return config

    def _length(self, body: dict[str, Any]) -> int | None:
        asked = [body.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
        given = next((value for value in asked if value is not None), None)
        if given is None or given == -1:
            return self.max_tokens
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise InvalidRequest(f"max_tokens must be at least 1, not {given!r:.40}.", param="max_tokens")
        return given


def conversation(messages: list[Any], *, system: bool) -> list[Any]:
    """The messages as the chat template takes them; `system` says whether it has a place for a system message.

    `developer` is OpenAI's newer word for `system`. Where there is no place for one, what it says stands at the
    beginning of the first message of the user, which is how such models are taught to be told.
    """
    said = [
        {**item, "role": "system"} if isinstance(item, dict) and item.get("role") == "developer" else item
        for item in messages
    ]
    if system or not any(map(_is_system, said)):
        return said
    told = [part for item in said if _is_system(item) for part in _parts(item.get("content"))]
    rest = [item for item in said if not _is_system(item)]
    first = next((at for at, item in enumerate(rest) if isinstance(item, dict) and item.get("role") == "user"), None)
    if first is None:
        return [{"role": "user", "content": _joined(told)}, *rest]
    own = _parts(rest[first].get("content"))
    rest[first] = {**rest[first], "content": _joined([*told, *own])}
    return rest


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == "system"


def _parts(content: object) -> list[Any]:
    """The pieces of a message's content, whatever form it has."""
    return [content] if isinstance(content, str) else list(content) if isinstance(content, list) else []


def _joined(parts: list[Any]) -> object:
    """One text, with a blank line between; a list of parts where some are no text."""
    texts = [_text(part) for part in parts]
    if all(text is not None for text in texts):
        return "\n\n".join(text for text in texts if text)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]


def _text(part: object) -> str | None:
    found = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
    return found if isinstance(found, str) else None


def _tools(body: dict[str, Any]) -> None:
    choice = body.pop("tool_choice", None)
    if choice == "none" or not body.get("tools"):
        body.pop("tools", None)
    elif choice not in (None, "auto"):
        raise NotSupported(
            "The runtime transformers cannot force a tool call.",
            'Leave out tool_choice, or use a model of llamacpp or vllm. It follows "auto" and "none".',
            param="tool_choice",
        )


def _prompt(prompt: list[Any]) -> str:
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    raise NotSupported(
        "The runtime transformers takes one prompt at a time, as text.", "Send one request for each.", param="prompt"
    )


def _check(said: Mapping[str, Any]) -> None:
    for name in ("temperature", "top_k", "min_p", "repeat_penalty", "repetition_penalty"):
        if said.get(name) is not None and said[name] < 0:
            raise InvalidRequest(f"{name} must not be negative, and is {said[name]!r:.40}.", param=name)
    for name in ("top_p", "min_p"):
        if said.get(name) is not None and not 0 <= said[name] <= 1:
            raise InvalidRequest(f"{name} must lie between 0 and 1, and is {said[name]!r:.40}.", param=name)
    for name in ("top_k", "seed"):
        if said.get(name) is not None and said[name] != int(said[name]):
            raise InvalidRequest(f"{name} must be a whole number, and is {said[name]!r:.40}.", param=name)


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under the library's names, as it takes them."""
    found = {_NAMES[name]: value for name, value in ours.items() if value is not None}
    for name in ("top_k", "seed"):
        if name in found:
            found[name] = int(found[name])
    return found
