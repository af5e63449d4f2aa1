"""The store on disk: blobs by digest, and the files that are on their way to become blobs.

    models/
    ├── blobs/sha256/<hex>             whole, read-only, never changed; many revisions may name one
    ├── partial/<key>.part             on its way; its one writer holds its flock; survives a kill
    │           <key>~<name>           scratch of that writer, such as an archive
    ├── manifests/<revision id>.json   what a revision consists of; written when all its blobs are there
    ├── names/<encoded name>.json      the revision that a name stands for; the last thing an install writes
    └── lock                           flock: held while manifests, names and blobs are committed or removed

Order is what makes it safe. A blob appears by a rename when it is whole, verified and on disk; a manifest when its
blobs are there; a name when its manifest is. Removal goes the other way. So a kill at any instant leaves nothing that
can be seen and is not whole, at worst something that nothing names, which the next removal sweeps away.

Whoever relies on a blob that no manifest names yet holds its flock, shared; a removal takes only what it can lock
alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from corral.domain.ports import Progress
from corral.errors import DiskFull, StoreError
from corral.kit.disk import free, hold, human, in_thread, lies_at, translate, translated, try_lock
from corral.kit.part import BLOCK, Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from corral.domain.models import FileEntry
    from corral.domain.ports import Clock, Report

_HEX = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """The files of a store under `root`, which is made when something is first written."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root = root
        self._clock = clock

    def path(self, sha256: str) -> Path:
        """Where the blob with that digest lies or would lie.

        Raises:
            StoreError: it is no digest, and might climb out of the store.
        """
        if not _HEX.fullmatch(sha256):
            raise StoreError(
                f"{sha256[:80]!r} is not a SHA-256 digest.", "The store's records are damaged: pull again."
            )
        return self.root / "blobs" / "sha256" / sha256

    def whole(self, entry: FileEntry) -> bool:
        """Whether the file's blob is there with its size. Its content was verified when it came; see `digest`."""
        try:
            return self.path(entry.sha256).stat().st_size == entry.size
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise translate(error, "reading", self.path(entry.sha256)) from error

    async def digest(self, sha256: str) -> str:
        """The SHA-256 of the blob's bytes as they are now, which differs from its name when the disk did not keep them.

        Raises:
            StoreError: it cannot be read.
        """
        path, digest = self.path(sha256), hashlib.sha256()
        with translated("reading", path), path.open("rb") as stream:
            while block := await in_thread(stream.read, BLOCK):
                await in_thread(digest.update, block)
        return digest.hexdigest()

    async def part(self, key: str, report: Report) -> Part:
        """Own the part called `key`, waiting while another process is at it. The caller closes it."""
        waiting = Progress("wait", detail="another process is fetching it")
        return await Part.open(self.root / "partial" / f"{key}.part", self._clock, lambda: report(waiting))

    async def pin(self, sha256: str) -> int | None:
        """Keep the blob from removal until the returned descriptor is closed; None when it is not there."""
        path = self.path(sha256)
        with translated("opening", path):
            try:
                return await hold(path, self._clock, flags=os.O_RDONLY, shared=True)
            except FileNotFoundError:
                return None

    def holds(self, descriptor: int, sha256: str) -> bool:
        """Whether the pinned file still is what lies under that digest."""
        return lies_at(descriptor, self.path(sha256))

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Be the only one who commits to or removes from the store, in any process."""
        with ExitStack() as stack:
            with translated("locking", self.root / "lock"):
                self.root.mkdir(parents=True, exist_ok=True)
                descriptor = await hold(self.root / "lock", self._clock)
            stack.callback(os.close, descriptor)
            yield

    def sweep(self, live: Collection[str]) -> int:
        """Remove the blobs that are not `live` and that nobody holds; the bytes freed. Call it locked. Blocks."""
        freed = 0
        folder = self.root / "blobs" / "sha256"
        with translated("removing from", folder):
            for path in [item for item in folder.iterdir() if item.name not in live] if folder.is_dir() else []:
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    if try_lock(descriptor):
                        freed += os.fstat(descriptor).st_size
                        path.unlink()
                finally:
                    os.close(descriptor)
        return freed

    def require(self, room: int, what: str) -> None:
        """Check before the first byte that `room` bytes can be written.

        Raises:
            DiskFull: they cannot; says how much is missing.
        """
        with translated("measuring", self.root):
            left = free(self.root)
        if room > left:
            raise DiskFull(
                f"{what} needs {human(room)} more in {self.root}, where {human(left)} are free.",
                f"Free {human(room - left)}, for example with: corral rm NAME",
            )
