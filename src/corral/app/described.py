"""Installed models in the catalog's words, for whoever shows them: the HTTP API, Python, the terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from corral.catalog import published
from corral.domain.models import Capability
from corral.domain.registry import ModelCapabilities, ModelMetadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corral.app.corral import Corral
    from corral.catalog.history import Past
    from corral.domain.models import Installed

_GB = 1000**3


class Describer:
    """Describes many models of one `Corral`: what they have in common is found out once."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._by_format: dict[str, str | None] = {}

    @classmethod
    async def of(cls, corral: Corral) -> Self:
        """A describer who knows what can be used here."""
        await corral.choices.survey_all()
        return cls(corral)

    def runtime(self, installed: Installed) -> str | None:
        """What runs the model here; None when nothing does."""
        configured = self._corral.models.get(installed.name)
        if configured is not None and configured.runtime is not None:
            return configured.runtime
        said = self._corral.registry.override(installed.name).get("runtime")
        if isinstance(said, str):
            return said
        return self.runs(installed.revision.format)

    def runs(self, kind: str) -> str | None:
        """What runs files of the format `kind` here; None when nothing does."""
        if kind not in self._by_format:
            self._by_format[kind] = self._corral.choices.choose(kind).runtime
        return self._by_format[kind]

    def summary(self, installed: Installed) -> dict[str, Any]:
        """The model as a list shows it: nothing is read for it that the list has not read."""
        revision = installed.revision
        facts, able = revision.facts, revision.capabilities
        return {
            "name": installed.name,
            "provider": published.provider(revision.source),
            "display_name": published.title(installed),
            "size_gb": round(revision.size / _GB, 3),
            "size": revision.size,
            "status": "installed",
            "runtime": self.runtime(installed),
            "capabilities": {
                "supports_system_role": Capability.SYSTEM_ROLE in able,
                "supports_function_calling": Capability.TOOLS in able,
                "supports_vision": Capability.VISION in able,
                "supports_embeddings": Capability.EMBEDDINGS in able,
                "allowed_roles": roles(installed),
                "max_context_length": facts.get("context_length"),
                "quantization": facts.get("quantization"),
            },
            "format": revision.format,
            "parameters": facts.get("parameters"),
            "architecture": facts.get("architecture"),
            "licence": revision.licence,
            "revision": revision.id,
            "version": revision.version,
            "source": installed.follows or revision.source,
            "pinned": installed.pinned,
            "installed_at": moment(installed.installed_at),
        }

    def metadata(self, installed: Installed) -> ModelMetadata:
        """The model as the document's Python has it."""
        revision = installed.revision
        weights = [file for file in revision.files if file.role == "model"]
        return ModelMetadata(
            name=installed.name,
            provider=published.provider(revision.source),
            display_name=published.title(installed),
            size_gb=round(revision.size / _GB, 3),
            status="installed",
            capabilities=capabilities(installed),
            local_path=None if installed.folder is None else str(installed.folder),
            # Of a file in a folder of the user's own only a fingerprint is known.
            sha256=weights[0].sha256 if len(weights) == 1 and installed.folder is None else None,
            installed_at=moment(installed.installed_at),
            runtime=self.runtime(installed),
        )


def capabilities(installed: Installed) -> ModelCapabilities:
    """What the model can do, as its files and its user say. Reads its manifest, for the template."""
    revision = installed.revision
    facts, able = revision.facts, revision.capabilities
    languages = facts.get("languages") or ()
    return ModelCapabilities(
        supports_system_role=Capability.SYSTEM_ROLE in able,
        supports_function_calling=Capability.TOOLS in able,
        allowed_roles=tuple(roles(installed)),
        prompt_template=published.capabilities(revision)["prompt_template"],
        max_context_length=facts.get("context_length"),
        quantization=facts.get("quantization"),
        supports_vision=Capability.VISION in able,
        supports_embeddings=Capability.EMBEDDINGS in able,
        supports_json_schema=Capability.JSON_SCHEMA in able,
        parameters=facts.get("parameters"),
        architecture=facts.get("architecture"),
        licence=revision.licence or facts.get("licence"),
        languages=(languages,) if isinstance(languages, str) else tuple(languages),
    )


def roles(installed: Installed) -> list[str]:
    """The roles that a conversation with the model may have; none when it does not chat."""
    able = installed.revision.capabilities
    told = installed.revision.facts.get("allowed_roles")
    if isinstance(told, list):
        found = [str(role) for role in told]
    elif Capability.CHAT in able:
        found = ["system", "user", "assistant", *(["tool"] if Capability.TOOLS in able else [])]
    else:
        return []
    return list(_with_system(found, able))


def moment(seconds: float) -> str:
    """A time of day as JSON has it, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC).isoformat(timespec="seconds")


def _with_system(found: list[str], able: Iterable[Capability]) -> list[str]:
    rest = [role for role in found if role != "system"]
    return ["system", *rest] if Capability.SYSTEM_ROLE in able else rest


def brief(installed: Installed) -> dict[str, Any]:
    """What was installed, as the result of an operation has it."""
    revision = installed.revision
    return {
        "name": installed.name,
        "revision": revision.id,
        "version": revision.version,
        "format": revision.format,
        "size": revision.size,
        "source": revision.source,
        "capabilities": sorted(revision.capabilities),
    }


def past_row(past: Past) -> dict[str, Any]:
    """One entry of a history, as JSON shows it."""
    return {
        "revision": past.revision.id,
        "version": past.revision.version,
        "source": past.revision.source,
        "size": past.revision.size,
        "installed_at": past.installed_at,
        "current": past.current,
        "here": past.here,
    }
