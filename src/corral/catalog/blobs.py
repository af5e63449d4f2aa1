"""The store on disk: blobs by digest, and the files that are on their way to become blobs.

    models/
    ├── blobs/sha256/<hex>             whole, read-only, never changed; many revisions may name one; a symlink when
    │                                  its bytes were moved to another disk
    ├── partial/<key>.part             on its way; its one writer holds its flock; survives a kill
    │           <key>~<name>           scratch of that writer, such as an archive
    ├── manifests/<revision id>.json   what a revision consists of; written when all its blobs are there
    ├── names/<encoded name>.json      the revision that a name stands for, and its history; the last thing an
    │                                  install writes
    │         <encoded name>.gone      what it was, while a removal is under way; whoever finishes it reads it
    ├── overrides/<encoded name>.json  what the user says of a model
    ├── views/<revision id>/<name>     links to blobs, for what needs real names; made on demand
    ├── places.json                    folders on other disks that blobs were moved to
    ├── index.json                     what the records say, to read them fast; may be deleted
    ├── manifest.json                  what is installed, for people and scripts; written, never read
    ├── doubted/<hex>                 the blob's bytes were found to be wrong; empty, gone once they are right
    └── lock                           flock: held while manifests, names and blobs are committed or removed

Order is what makes it safe. A blob appears by a rename when it is whole, verified and on disk; a manifest when its
blobs are there; a name when its manifest is. Removal goes the other way. So a kill at any instant leaves nothing that
can be seen and is not whole, at worst something that nothing names, which the next `gc` sweeps away.

Whoever relies on a blob that no manifest names yet holds its flock, shared; a removal takes only what it can lock
alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from corral.domain.ports import Progress
from corral.domain.sizes import human
from corral.errors import CorruptModel, DiskFull, StoreError
from corral.kit.disk import free, hold, in_thread, translate, translated, try_lock
from corral.kit.part import BLOCK, Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
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

    def doubt(self, sha256: str) -> None:
        """Note that the blob is not what it is called, so that the next install does not take it for whole."""
        # On a disk that is read-only nothing can be installed either.
        with suppress(OSError):
            path = self.root / "doubted" / self.path(sha256).name
            path.parent.mkdir(exist_ok=True)
            path.touch()

    def trust(self, sha256: str) -> None:
        """Note that the blob's bytes are right."""
        with suppress(OSError):
            (self.root / "doubted" / self.path(sha256).name).unlink(missing_ok=True)

    def doubted(self) -> frozenset[str]:
        """The digests of the blobs that were found to be damaged and not brought again since."""
        folder = self.root / "doubted"
        with translated("reading", folder):
            return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()

    def away(self, sha256: str) -> Path | None:
        """Where the blob's bytes lie, when they are on another disk."""
        path = self.path(sha256)
        try:
            return path.readlink() if path.is_symlink() else None
        except OSError:
            return None

    def missing(self, entry: FileEntry) -> CorruptModel:
        """The error for a file that is not `whole`: a disk that is not there is told from a damage."""
        away = self.away(entry.sha256)
        if away is not None and not away.parent.exists():
            return CorruptModel(
                f"{entry.name} was moved to {away.parent}, which is not there.",
                "Bring that disk back, or install the model again: corral pull NAME",
            )
        return CorruptModel(
            f"{entry.name} is not in the store as it was installed ({human(entry.size)}).",
            "Install it again: corral pull NAME",
        )

    def sizes(self) -> dict[str, int]:
        """The size in bytes of every blob, by digest; 0 for one whose disk is not there. Blocks."""
        found: dict[str, int] = {}
        folder = self.root / "blobs" / "sha256"
        with translated("reading", folder):
            for item in os.scandir(folder) if folder.is_dir() else ():
                if _HEX.fullmatch(item.name):
                    away = item.is_symlink() and not os.path.exists(item.path)  # noqa: PTH110
                    with suppress(FileNotFoundError):
                        found[item.name] = 0 if away else item.stat().st_size
        return found

    def held(self) -> dict[str, int]:
        """Bytes of every file on its way, by its name. Blocks."""
        found: dict[str, int] = {}
        folder = self.root / "partial"
        with translated("reading", folder):
            for item in os.scandir(folder) if folder.is_dir() else ():
                with suppress(FileNotFoundError):
                    found[item.name] = item.stat().st_size
        return found

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

    @asynccontextmanager
    async def locked(self, *, shared: bool = False) -> AsyncIterator[None]:
        """Be the only one who commits to or removes from the store, in any process; or, `shared`, one of several."""
        with ExitStack() as stack:
            with translated("locking", self.root / "lock"):
                self.root.mkdir(parents=True, exist_ok=True)
                descriptor = await hold(self.root / "lock", self._clock, shared=shared)
            stack.callback(os.close, descriptor)
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """As `locked`, for whoever would rather come again than wait: the block is told whether it is so."""
        with ExitStack() as stack:
            with translated("locking", self.root / "lock"):
                descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, descriptor)
            yield try_lock(descriptor)

    def drop(self, sha256: str, *, dry_run: bool = False) -> int | None:
        """Remove the blob, wherever its bytes lie; the bytes freed, or None when somebody holds it or its disk is gone.

        Call it locked. With `dry_run` nothing is removed. Blocks.
        """
        path, away = self.path(sha256), self.away(sha256)
        with translated("removing", path):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                if away is None:
                    return 0
                if not away.parent.exists():
                    return None
                if not dry_run:
                    path.unlink(missing_ok=True)
                return 0
            try:
                if not try_lock(descriptor):
                    return None
                size = os.fstat(descriptor).st_size
                if not dry_run:
                    if away is not None:
                        away.unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
        return size

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
