"""Models and operations as the catalog tells of them, in the names that its document gave them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from corral.domain.operations import OperationStatus

if TYPE_CHECKING:
    from corral.domain.operations import Operation

_PROVIDERS = {"hf": "huggingface"}


class ModelProvider(StrEnum):
    """Where models come from, as people say it. Any other source is called by its scheme."""

    HUGGINGFACE = "huggingface"
    OLLAMA = "ollama"
    PYPI = "pypi"
    URL = "url"
    FILE = "file"
    BUCKET = "bucket"


def provider_of(scheme: str) -> str:
    """What a source is called towards people: its scheme, but for `hf`."""
    return _PROVIDERS.get(scheme, scheme)


def scheme_of(provider: str) -> str:
    """The scheme of a provider, by either of its names."""
    return next((scheme for scheme, name in _PROVIDERS.items() if name == provider), provider)


@dataclass(frozen=True, slots=True)
class ModelCapabilities:
    """What a model can do and how it is talked to. None is unknown; `max_context_length` in tokens."""

    supports_system_role: bool = True
    supports_function_calling: bool = False
    allowed_roles: tuple[str, ...] = ("system", "user", "assistant")
    prompt_template: str | None = None
    max_context_length: int | None = None
    quantization: str | None = None
    supports_vision: bool = False
    supports_embeddings: bool = False
    supports_json_schema: bool = False
    parameters: int | None = None
    architecture: str | None = None
    licence: str | None = None
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """One model as the catalog lists it. `size_gb` in 10^9 bytes; `status` is `installed` or `available`."""

    name: str
    provider: str
    display_name: str
    size_gb: float | None = None
    status: str = "available"
    capabilities: ModelCapabilities = field(default_factory=ModelCapabilities)
    local_path: str | None = None
    sha256: str | None = None
    installed_at: str | None = None
    runtime: str | None = None


@dataclass(frozen=True, slots=True)
class ModelOperation:
    """An operation by the names of its document. `progress` in percent; `error` is what went wrong, in words."""

    operation_id: str
    model_name: str
    operation_type: str
    status: OperationStatus
    progress: float = 0.0
    message: str = ""
    error: str | None = None

    @classmethod
    def of(cls, operation: Operation) -> ModelOperation:
        """The operation as it stands."""
        failure = operation.error
        return cls(
            operation_id=operation.id,
            model_name=operation.order.model,
            operation_type=operation.order.kind,
            status=operation.status,
            progress=round(operation.progress, 1),
            message=operation.message,
            error=None if failure is None else f"{failure.message} {failure.hint}".rstrip(),
        )
