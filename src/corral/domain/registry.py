"""Models and operations as the catalog tells of them, in the names that its document gave them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from corral.domain.models import Capability, Installed, ModelRef
from corral.domain.operations import OperationStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.operations import Operation

_GB = 1000**3
_PROVIDERS = {"hf": "huggingface"}


class ModelProvider(StrEnum):
    """Where models come from, as people say it. Any other source is named by its scheme."""

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

    @classmethod
    def of(cls, installed: Installed, override: Mapping[str, Any] | None = None) -> ModelCapabilities:
        """What the model's files say of it, and where the user says otherwise, what he says."""
        revision, said = installed.revision, override or {}
        facts, able = revision.facts, revision.capabilities
        corrected: Mapping[str, Any] = said.get("capabilities") or {}
        system = Capability.SYSTEM_ROLE in able
        tools = Capability.TOOLS in able
        roles = facts.get("allowed_roles") or _roles(chat=Capability.CHAT in able, system=system, tools=tools)
        languages = facts.get("languages") or ()
        found: dict[str, Any] = {
            "supports_system_role": system,
            "supports_function_calling": tools,
            "allowed_roles": tuple(roles),
            "prompt_template": revision.defaults.get("chat_template") or facts.get("chat_template"),
            "max_context_length": _whole(facts.get("context_length")),
            "quantization": facts.get("quantization"),
            "supports_vision": Capability.VISION in able,
            "supports_embeddings": Capability.EMBEDDINGS in able,
            "supports_json_schema": Capability.JSON_SCHEMA in able,
            "parameters": _whole(facts.get("parameters")),
            "architecture": facts.get("architecture"),
            "licence": revision.licence or facts.get("licence"),
            "languages": (languages,) if isinstance(languages, str) else tuple(languages),
        }
        names = {"supports_tools": "supports_function_calling"}
        for key, value in corrected.items():
            name = names.get(key, key)
            if name in found:
                found[name] = tuple(value) if isinstance(found[name], tuple) else value
        if "supports_system_role" in corrected and "allowed_roles" not in corrected:
            rest = tuple(role for role in found["allowed_roles"] if role != "system")
            found["allowed_roles"] = ("system", *rest) if found["supports_system_role"] else rest
        if said.get("context_length") is not None:
            found["max_context_length"] = said["context_length"]
        return cls(**found)


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

    @classmethod
    def of(
        cls, installed: Installed, runtime: str | None = None, override: Mapping[str, Any] | None = None
    ) -> ModelMetadata:
        """An installed model's."""
        revision = installed.revision
        weights = [file for file in revision.files if file.role == "model"]
        moment = datetime.fromtimestamp(installed.installed_at, UTC)
        return cls(
            name=installed.name,
            provider=provider_of(scheme_in(installed.follows or revision.source)),
            display_name=str(revision.facts.get("title") or installed.name),
            size_gb=round(revision.size / _GB, 3),
            status="installed",
            capabilities=ModelCapabilities.of(installed, override),
            local_path=None if installed.folder is None else str(installed.folder),
            sha256=weights[0].sha256 if len(weights) == 1 else None,
            installed_at=moment.isoformat(timespec="seconds"),
            runtime=runtime,
        )


@dataclass(frozen=True, slots=True)
class ModelOperation:
    """An operation as its document names its fields. `progress` in percent; `error` is what went wrong, in words."""

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


def scheme_in(source: str) -> str:
    """The scheme of the source that a reference names; empty when it is none."""
    return ModelRef.parse(source).scheme if ":" in source else ""


def _roles(*, chat: bool, system: bool, tools: bool) -> tuple[str, ...]:
    if not chat:
        return ()
    return (*(("system",) if system else ()), "user", "assistant", *(("tool",) if tools else ()))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
