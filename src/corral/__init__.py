"""Corral: one yard for every language model you run.

Importing this package does no I/O, reads no environment and loads no plugin: the public names arrive on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corral.app.kinds import RuntimeType
    from corral.domain.generation import (
        DeviceType,
        GenerationConfig,
        ModelConfig,
        ModelInfo,
        ModelInterface,
        ModelOutput,
        Reply,
    )
    from corral.domain.operations import OperationStatus
    from corral.domain.registry import ModelCapabilities, ModelMetadata, ModelProvider
    from corral.hardware.snapshot import ResourceDetector
    from corral.manager import ModelManager, RuntimeManager
    from corral.registry import ModelRegistry
    from corral.stack import DockerManager, OllamaClient
    from corral.studio import Workspace

__version__ = "0.1.0"

_WHERE = {
    "DeviceType": "corral.domain.generation",
    "DockerManager": "corral.stack",
    "GenerationConfig": "corral.domain.generation",
    "ModelCapabilities": "corral.domain.registry",
    "ModelConfig": "corral.domain.generation",
    "ModelInfo": "corral.domain.generation",
    "ModelInterface": "corral.domain.generation",
    "ModelManager": "corral.manager",
    "ModelMetadata": "corral.domain.registry",
    "ModelOutput": "corral.domain.generation",
    "ModelProvider": "corral.domain.registry",
    "ModelRegistry": "corral.registry",
    "OllamaClient": "corral.stack",
    "OperationStatus": "corral.domain.operations",
    "Reply": "corral.domain.generation",
    "ResourceDetector": "corral.hardware.snapshot",
    "RuntimeManager": "corral.manager",
    "RuntimeType": "corral.app.kinds",
    "Workspace": "corral.studio",
}

__all__ = [
    "DeviceType",
    "DockerManager",
    "GenerationConfig",
    "ModelCapabilities",
    "ModelConfig",
    "ModelInfo",
    "ModelInterface",
    "ModelManager",
    "ModelMetadata",
    "ModelOutput",
    "ModelProvider",
    "ModelRegistry",
    "OllamaClient",
    "OperationStatus",
    "Reply",
    "ResourceDetector",
    "RuntimeManager",
    "RuntimeType",
    "Workspace",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'corral' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted(__all__)
