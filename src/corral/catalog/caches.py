"""Files that other programs on this machine have fetched already, found by their digest.

    Hugging Face    $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub
                      models--ORG--NAME/blobs/<sha256>       large files; small ones are named by Git's digest
    Ollama          $OLLAMA_MODELS or ~/.ollama/models
                      blobs/sha256-<sha256>

What is found is only a candidate: a name proves nothing, so the bytes are hashed before they are used.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HEX = re.compile(r"[0-9a-f]{64}")
_MOST_REPOSITORIES = 10_000


class Caches:
    """The caches that the environment `env` names, with `user` as the user's home folder. Nothing is read yet."""

    def __init__(self, env: Mapping[str, str], user: Path | None = None) -> None:
        home = Path(env["HOME"]) if env.get("HOME") else user or Path.home()
        self.hub = _hub(env, home)
        self.ollama = Path(env["OLLAMA_MODELS"]) if env.get("OLLAMA_MODELS") else home / ".ollama" / "models"

    def find(self, sha256: str, size: int) -> list[Path]:
        """Regular files inside the caches that are named by that digest and have `size` bytes, links resolved. Blocks.

        Never raises: what cannot be read is not there.
        """
        if not _HEX.fullmatch(sha256):
            return []
        found = [_inside(self.ollama / "blobs" / f"sha256-{sha256}", self.ollama, size)]
        found += [_inside(folder / "blobs" / sha256, self.hub, size) for folder in _repositories(self.hub)]
        return list(dict.fromkeys(path for path in found if path is not None))


def _hub(env: Mapping[str, str], home: Path) -> Path:
    if env.get("HF_HUB_CACHE"):
        return Path(env["HF_HUB_CACHE"])
    if env.get("HF_HOME"):
        return Path(env["HF_HOME"]) / "hub"
    return Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface" / "hub"


def _repositories(hub: Path) -> Iterator[Path]:
    try:
        with os.scandir(hub) as entries:
            for count, entry in enumerate(entries):
                if count >= _MOST_REPOSITORIES:
                    return
                if entry.name.startswith("models--"):
                    yield Path(entry.path)
    except OSError:
        return


def _inside(path: Path, root: Path, size: int) -> Path | None:
    """What `path` stands for, when that is a file of `size` bytes that lies within `root`."""
    try:
        there = path.resolve(strict=True)
        facts = there.stat()
        inside = there.is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):
        return None
    return there if inside and stat.S_ISREG(facts.st_mode) and facts.st_size == size else None
