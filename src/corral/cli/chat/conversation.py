"""What was said so far and how the model is asked. Pure: no terminal, no files, no clock."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corral.errors import InvalidRequest, UnknownOption

_FORMAT = "corral-conversation"
_NUMBERS: Mapping[str, type[int | float]] = {"temperature": float, "top_p": float, "max_tokens": int, "seed": int}
SETTINGS = (*_NUMBERS, "stop")
"""What `/set` and `--set` know."""


@dataclass(slots=True)
class Answer:
    """What came back for one question. Times in seconds on one clock; None is unknown."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    asked_at: float = 0.0
    first_at: float | None = None
    last_at: float | None = None

    def take(self, chunk: Mapping[str, Any], now: float) -> tuple[str, str]:
        """Take in one chunk of a chat completion, and return the reasoning and the text that it adds."""
        usage = chunk.get("usage")
        if isinstance(usage, Mapping):
            self.prompt_tokens = _count(usage.get("prompt_tokens"))
            self.completion_tokens = _count(usage.get("completion_tokens"))
        thought = said = ""
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") or {}
            thought += str(delta.get("reasoning_content") or "")
            said += str(delta.get("content") or "")
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if thought or said:
            self.first_at = now if self.first_at is None else self.first_at
            self.last_at = now
        self.text += said
        self.reasoning += thought
        return thought, said

    @property
    def tokens_per_second(self) -> float | None:
        """How fast the model wrote, from the engine's own count and the time between the first token and the last."""
        if (
            self.completion_tokens is None
            or self.first_at is None
            or self.last_at is None
            or self.last_at <= self.first_at
        ):
            return None
        return (self.completion_tokens - 1) / (self.last_at - self.first_at) if self.completion_tokens > 1 else None

    @property
    def wait(self) -> float | None:
        """Seconds from the question to the first token."""
        return None if self.first_at is None else self.first_at - self.asked_at


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(slots=True)
class Conversation:
    """Questions and answers with one model. A question without an answer stands at the end, or nowhere."""

    model: str
    system: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)
    last: Answer | None = None

    def ask(self, text: str) -> dict[str, Any]:
        """Add a question, in place of one that was never answered, and return the request for its answer."""
        if self._open:
            self.messages.pop()
        self.messages.append({"role": "user", "content": text})
        return self.body()

    def answered(self, answer: Answer) -> None:
        """Keep an answer, or the part that came; with no text the question stays open."""
        self.last = answer
        if answer.text and self._open:
            self.messages.append({"role": "assistant", "content": answer.text})

    def regenerate(self) -> dict[str, Any]:
        """Drop the last answer and return the request for another.

        Raises:
            InvalidRequest: nothing was asked yet.
        """
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        if not self._open:
            raise InvalidRequest("There is no question to answer again.", "Type a message first.")
        return self.body()

    def clear(self) -> None:
        """Forget what was said; the system prompt and the settings stay."""
        self.messages.clear()
        self.last = None

    def body(self) -> dict[str, Any]:
        """The chat-completions request for what was said so far."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": self.model,
            "messages": [*system, *self.messages],
            **self.settings,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def dump(self) -> str:
        """The conversation as JSON text."""
        content = {
            "format": _FORMAT,
            "model": self.model,
            "system": self.system,
            "settings": self.settings,
            "messages": self.messages,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def restore(self, text: str) -> None:
        """Become the conversation that `dump` wrote.

        Raises:
            InvalidRequest: it is not one; nothing is changed.
        """
        if not is_conversation(text):
            raise InvalidRequest(
                "That file is not a conversation that /save wrote.", "Name one, or start with /save FILE."
            )
        content = json.loads(text)
        messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in content["messages"]]
        given = content.get("settings") or {}
        self.settings = {key: value for key, value in given.items() if key in SETTINGS}
        self.model = str(content.get("model") or self.model)
        self.system = content.get("system") or None
        self.messages = messages
        self.last = None

    @property
    def _open(self) -> bool:
        return bool(self.messages) and self.messages[-1]["role"] == "user"


def is_conversation(text: str) -> bool:
    """Whether `text` is what `Conversation.dump` writes."""
    try:
        content = json.loads(text)
    except ValueError:
        return False
    if (
        not isinstance(content, dict)
        or content.get("format") != _FORMAT
        or not isinstance(content.get("messages"), list)
    ):
        return False
    settings = content.get("settings") or {}
    whole = all(isinstance(m, dict) and isinstance(m.get("content"), str) and "role" in m for m in content["messages"])
    return whole and isinstance(settings, dict)


def setting(name: str, value: str) -> tuple[str, Any]:
    """A setting's name and its value as a request holds it; an empty `value` gives None, which means the engine's own.

    Raises:
        UnknownOption: there is no such setting; names the nearest.
        InvalidRequest: not a value for it.
    """
    name = name.strip().replace("-", "_")
    if name not in SETTINGS:
        raise UnknownOption.among(name, SETTINGS, "the conversation")
    value = value.strip()
    if not value:
        return name, None
    if name == "stop":
        return name, _words(value)
    kind = _NUMBERS[name]
    try:
        return name, kind(value)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise InvalidRequest(f"{name} must be {wanted}, not {value!r:.80}.", param=name) from None


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise InvalidRequest(
            f"stop cannot be read: {error}.", 'Write it as: stop "first text" second', param="stop"
        ) from error
