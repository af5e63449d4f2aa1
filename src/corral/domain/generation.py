"""What a Python caller asks for and gets: `ModelConfig`, `GenerationConfig`, `Reply`, `ModelInfo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.domain.receipts import Receipt


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model to register under a name.

    `model_id` says where it comes from: a reference (`file:./a.gguf`, `pypi:…`), a library name, or for a remote
    runtime the vendor's own name. `runtime_type` None chooses by the files. `options` are the runtime's own.
    """

    model_id: str
    model_name: str
    runtime_type: str | None = None
    device_type: str = "auto"
    quantization: str | None = None
    model_type: str = "llm"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """One generation: the prompt (or whole messages), and how to sample. None leaves a value to the engine."""

    prompt: str = ""
    max_tokens: int | None = 1024
    temperature: float | None = 0.7
    top_p: float | None = None
    seed: int | None = None
    stop: str | Sequence[str] = ()
    system: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, model: str, *, stream: bool) -> dict[str, Any]:
        """The chat-completions request that asks `model` for this."""
        messages: list[Mapping[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        messages.extend(self.messages)
        if self.prompt:
            messages.append({"role": "user", "content": self.prompt})
        optional = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": [self.stop] if isinstance(self.stop, str) and self.stop else list(self.stop) or None,
        }
        body: dict[str, Any] = {"model": model, "messages": messages}
        body |= {key: value for key, value in optional.items() if value is not None}
        body |= self.extra
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `tokens` counts what the model wrote, as the engine reports it."""

    text: str
    tokens: int
    receipt: Receipt
    tool_calls: tuple[Mapping[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a model when it is loaded."""

    name: str
    runtime: str
    revision: str | None = None
    context_length: int | None = None
    device: str | None = None
    local: bool = True
