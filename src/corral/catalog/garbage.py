"""What nobody needs any more: old revisions, blobs, leftovers of killed processes. Found, and swept away."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from corral.catalog.blobs import Blobs
from corral.catalog.index import Index
from corral.catalog.manifests import Manifests, encode
from corral.catalog.move import Places
from corral.catalog.overrides import Overrides
from corral.kit.disk import lies_at, translated, try_lock

if TYPE_CHECKING:
    from pathlib import Path


_DIGEST_KEY: Final = re.compile(r"sha256-[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Garbage:
    """What was removed, or would be: ids of revisions, numbers of blobs and of parts, bytes in all.

    `kept` says what was spared although no model needs it, and why.
    """

    revisions: tuple[str, ...] = ()
    blobs: int = 0
    parts: int = 0
    bytes: int = 0
    kept: tuple[str, ...] = ()


@dataclass(slots=True)
class Collector:
    """One collection in a store that the caller has locked. Blocks.

    `index` is one that has believed nothing yet. `keep` are the keys of what operations will go on from: parts, and
    files that came whole already, which no model needs yet.
    """

    blobs: Blobs
    manifests: Manifests
    index: Index
    overrides: Overrides
    places: Places
    keep: Collection[str]
    dry_run: bool
    _freed: int = 0
    _kept: list[str] = field(default_factory=list)

    def collect(self, count: int, spared: Collection[str] = ()) -> Garbage:
        """Remove all but `count` revisions of each model and whatever else nobody needs; overrides of `spared` stay."""
        view = self.index.read()
        revisions: set[str] = set()
        blobs = 0
        if view.broken:
            # What a damaged record needs is not known, so nothing is taken from under it.
            self._kept.extend(f"all files: the record of {stem} is damaged" for stem in view.broken)
        else:
            records = view.records.values()
            named = {step.revision for record in records for step in record.history}
            live = {known for record in records for known in record.kept(count)}
            old = {known: self.index.digests(known) for known in named - live}
            unnamed = self.manifests.all() - named
            if not self.dry_run:
                self.manifests.drop(unnamed)
            gone = self._blobs({digest for known in live for digest in self.index.digests(known)})
            blobs = len(gone)
            revisions = unnamed | {known for known, digests in old.items() if gone & digests.keys()}
            self._overrides({encode(name) for name in (*view.records, *spared)})
            self._views(live)
            self._going()
        parts = self._parts(self.blobs.root / "partial", self.keep)
        parts += sum(self._far(place) for place in self.places.known())
        for folder in ("", "names", "manifests", "overrides", "blobs/sha256"):
            self._unfinished(self.blobs.root / folder)
        return Garbage(tuple(sorted(revisions)), blobs, parts, self._freed, tuple(self._kept))

    def discard(self, keys: Collection[str]) -> None:
        """Remove what came with those keys, parts with their scratch and whole files, unless somebody is at it.

        Files that a model needs stay, and all of them while a damaged record may need them.
        """
        folder = self.blobs.root / "partial"
        paths = list(folder.iterdir()) if folder.is_dir() else []
        come = _come(keys) & self.blobs.sizes().keys()
        if come:
            view = self.index.read()
            named = {step.revision for record in view.records.values() for step in record.history}
            needed = {digest for known in named for digest in self.index.digests(known)}
            for digest in () if view.broken else come - needed:
                self.blobs.drop(digest)
        for key in keys:
            mine = [path for path in paths if _key_of(path) == key]
            if mine:
                self._part(folder / f"{key}.part", mine)

    def _blobs(self, live: set[str]) -> set[str]:
        gone = set()
        come = _come(self.keep)
        for digest in sorted(self.blobs.sizes().keys() - live):
            if digest in come:
                self._kept.append(f"{digest}: an operation goes on from it")
                continue
            freed = self.blobs.drop(digest, dry_run=self.dry_run)
            if freed is None:
                away = self.blobs.away(digest)
                missing = away is not None and not away.parent.exists()
                self._kept.append(f"{digest}: {f'{away} is not there' if missing else 'in use'}")
            else:
                gone.add(digest)
                self._freed += freed
        return gone

    def _overrides(self, named: set[str]) -> None:
        for stem in self.overrides.stems():
            if stem not in named:
                self._unlink(self.overrides.folder / f"{stem}.json")

    def _going(self) -> None:
        """Forget the removals that were killed in the middle: what they left is swept by now."""
        if self.manifests.names.is_dir():
            for path in list(self.manifests.names.glob("*.gone")):
                self._unlink(path)

    def _views(self, live: set[str]) -> None:
        folder = self.blobs.root / "views"
        if folder.is_dir() and not self.dry_run:
            for path in list(folder.iterdir()):
                if path.name not in live:
                    shutil.rmtree(path, ignore_errors=True)

    def _parts(self, folder: Path, keep: Collection[str]) -> int:
        """Remove the parts, with their scratch, that nobody writes and nobody will go on with."""
        if not folder.is_dir():
            return 0
        by_key: dict[str, list[Path]] = {}
        with translated("reading", folder):
            for path in sorted(folder.iterdir()):
                by_key.setdefault(_key_of(path), []).append(path)
        count = 0
        for key, paths in by_key.items():
            if key in keep:
                self._kept.append(f"{key}: an operation goes on from it")
            elif self._part(folder / f"{key}.part", paths):
                count += 1
        return count

    def _part(self, part: Path, paths: list[Path]) -> bool:
        with translated("removing", part):
            # Whoever wants to go on with it takes this lock first; scratch alone is guarded by it, too.
            there = part in paths
            flags = os.O_RDWR if there or self.dry_run else os.O_RDWR | os.O_CREAT
            try:
                descriptor = os.open(part, flags, 0o644)
            except FileNotFoundError:
                if there or not self.dry_run:
                    return False  # just published, or swept by its writer
                self._freed += sum(path.stat().st_size for path in paths)
                return True
            try:
                if not try_lock(descriptor) or not lies_at(descriptor, part):
                    self._kept.append(f"{part.stem}: on its way")
                    return False
                for path in [*(path for path in paths if path != part), part]:
                    self._unlink(path)
            finally:
                os.close(descriptor)
        return True

    def _far(self, place: Path) -> int:
        """Remove what a killed move left on another disk."""
        if not place.is_dir():
            self._kept.append(f"{place}: not there")
            return 0
        count = self._parts_of_place(place)
        for path in sorted(place.glob("sha256-*")):
            if path.suffix == ".part" or self.blobs.away(path.name.removeprefix("sha256-")) == path:
                continue
            with translated("removing", path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    if try_lock(descriptor):
                        self._unlink(path)
                finally:
                    os.close(descriptor)
        if not self.dry_run:
            self.places.tidy(place)
        return count

    def _parts_of_place(self, place: Path) -> int:
        count = 0
        for path in sorted(place.glob("*.part")):
            if path.stem not in self.keep and self._part(path, [path]):
                count += 1
        return count

    def _unfinished(self, folder: Path) -> None:
        """Remove what a killed process was writing beside a record: only the holder of the lock writes there."""
        if folder.is_dir():
            for path in list(folder.glob("*.tmp")):
                self._unlink(path)

    def _unlink(self, path: Path) -> None:
        with suppress(FileNotFoundError), translated("removing", path):
            self._freed += path.lstat().st_size
            if not self.dry_run:
                path.unlink(missing_ok=True)


def _come(keys: Collection[str]) -> set[str]:
    """The digests among those keys: such a file may lie in the store, and not in a part any more."""
    return {key.removeprefix("sha256-") for key in keys if _DIGEST_KEY.fullmatch(key)}


def _key_of(path: Path) -> str:
    """The key of the part that a file of `partial` is, or belongs to."""
    return path.name.partition("~")[0].removesuffix(".part")
