"""What takes what on the disk, what is shared, and how far a store may grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corral.kit.disk import free, translated

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a store may grow. Bytes; a `quota` of None is no limit. `quotas` are by source, such as `hf`.

    `keep_revisions` of a model are spared by `gc`, the current one among them. `default_model_size` is what a model is
    taken for when its source tells no size. `allow_pickle` are references whose files may be pickles.
    """

    quota: int | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    keep_revisions: int = 2
    default_model_size: int = 4 * 1000**3
    allow_pickle: tuple[str, ...] = ()


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one model takes, in bytes, all revisions that are here. `unique`: what removing it would free."""

    name: str
    size: int
    shared: int
    unique: int
    revisions: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store takes, in bytes. `total` is `blobs` and `partial`; `free` is what its disk has left."""

    models: tuple[ModelUsage, ...]
    blobs: int
    partial: int
    total: int
    quota: int | None
    free: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model needs: the digests of each of its revisions, and the scheme of its source."""

    name: str
    scheme: str
    revisions: tuple[frozenset[str], ...]

    def here(self, sizes: Mapping[str, int]) -> set[str]:
        """The digests that are in the store."""
        return {digest for revision in self.revisions for digest in revision if digest in sizes}


def measure(root: Path, needs: list[Needs], sizes: Mapping[str, int], partial: int, quota: int | None) -> Usage:
    """The usage of the store at `root`, whose blobs have `sizes`."""
    users = Counter(digest for need in needs for digest in need.here(sizes))
    models = []
    for need in needs:
        here = need.here(sizes)
        size = sum(sizes[digest] for digest in here)
        unique = sum(sizes[digest] for digest in here if users[digest] == 1)
        count = sum(1 for revision in need.revisions if revision and revision <= sizes.keys())
        models.append(ModelUsage(need.name, size, size - unique, unique, count))
    blobs = sum(sizes.values())
    with translated("measuring", root):
        left = free(root)
    return Usage(tuple(models), blobs, partial, blobs + partial, quota, left)
