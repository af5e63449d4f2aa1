"""Stores over a source in memory, for tests of what happens to installed models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.kit.clock import SystemClock
from support import models
from support.sources import MemorySource

VERSIONS = [models.gguf(seed=seed) for seed in range(5)]
EYES = models.gguf(seed=9, general__architecture="clip")


def digest(version: int) -> str:
    return models.sha256(VERSIONS[version])


class Store(Registry):
    """A registry whose source `memory` has whatever was offered last."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.source = MemorySource({})
        library = more.pop("library", Library(()))
        clock = more.pop("clock", SystemClock())
        super().__init__(folder, {"memory": self.source}, clock, library, **more)

    def offer(self, name: str, version: int, files: Mapping[str, bytes] | None = None) -> None:
        """Let the source have that version of a model."""
        self.source.models[name] = dict(files) if files is not None else {f"{name}.gguf": VERSIONS[version]}
        self.source.version = str(version)

    async def through(self, name: str, *versions: int) -> list[str]:
        """Install a model and update it to each version; the ids of its revisions."""
        ids = []
        for version in versions:
            self.offer(name, version)
            ids.append((await self.install(f"memory:{name}")).revision.id)
        return ids

    def blobs(self) -> set[str]:
        """The digests of the files in the store."""
        return {path.name for path in (self._blobs.root / "blobs" / "sha256").glob("*")}
