"""Corral: one yard for every language model you run.

Importing this package does no I/O, reads no environment and loads no plugin: the public names arrive on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corral.domain.generation import GenerationConfig, ModelConfig
    from corral.manager import ModelManager

__version__ = "0.1.0"

_WHERE = {
    "GenerationConfig": "corral.domain.generation",
    "ModelConfig": "corral.domain.generation",
    "ModelManager": "corral.manager",
}

__all__ = ["GenerationConfig", "ModelConfig", "ModelManager", "__version__"]


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
