"""Blobs on another disk: copied there, verified, and only then a symbolic link in their place.

    models/blobs/sha256/<hex>  ->  FOLDER/corral-<token>/sha256-<hex>
    models/places.json             the folders `FOLDER/corral-<token>` that this store has used

A place is written down before its first byte is, so that what a killed move left there is found again. The token keeps
two stores that use one folder apart.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from corral.domain.ports import Progress
from corral.domain.sizes import human
from corral.errors import Conflict, CorruptModel, DigestMismatch, DiskFull, StoreError
from corral.kit.disk import free, in_thread, sync_folder, translated, try_lock, write_whole
from corral.kit.part import BLOCK, Part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.catalog.blobs import Blobs
    from corral.domain.ports import Clock, Report


class Places:
    """The folders on other disks that the store under `root` has moved blobs to. Blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = root / "places.json"

    def known(self) -> list[Path]:
        """All of them.

        Raises:
            StoreError: the record is damaged.
        """
        with translated("reading", self._file):
            try:
                found = orjson.loads(self._file.read_bytes())
                places = [Path(place) for place in found]
            except (FileNotFoundError, NotADirectoryError):
                return []
            except (ValueError, TypeError) as error:
                raise StoreError(f"The store's record {self._file} is damaged.", "Delete it.") from error
        return [place for place in places if place.is_absolute() and place.name.startswith("corral-")]

    def under(self, folder: Path) -> Path:
        """The place in `folder`, noted and made. Call it with the store locked.

        Raises:
            Conflict: `folder` is within the store.
        """
        folder = folder.expanduser().absolute()
        root = self._root.absolute()
        with translated("making", folder):
            if folder.resolve().is_relative_to(root.resolve()):
                raise Conflict(f"{folder} is within the store.", "Name a folder on another disk.", param="folder")
            places = self.known()
            place = next((place for place in places if place.parent == folder), None)
            if place is None:
                place = folder / f"corral-{secrets.token_hex(6)}"
                write_whole(self._file, orjson.dumps([str(item) for item in (*places, place)]))
            place.mkdir(parents=True, exist_ok=True)
        return place

    def use(self, place: Path) -> int:
        """Keep the place from being tidied away until the returned descriptor is closed. Call it locked."""
        with translated("opening", place):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try_lock(descriptor, shared=True)
        return descriptor

    def tidy(self, place: Path) -> None:
        """Forget a place in which nothing is any more, and that nobody moves to. Call it with the store locked."""
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            if not try_lock(descriptor):
                return
            place.rmdir()
        except OSError:
            return  # something is in it
        finally:
            os.close(descriptor)
        write_whole(self._file, orjson.dumps([str(item) for item in self.known() if item != place]))


class Mover:
    """Moves blobs of one store to `place`, or back into the store when that is None."""

    def __init__(self, blobs: Blobs, clock: Clock, place: Path | None, report: Report) -> None:
        self._blobs = blobs
        self._clock = clock
        self._place = place
        self._report = report
        self._done = 0
        self._total = 0

    async def move(self, sizes: Mapping[str, int]) -> int:
        """Move the blobs with those digests and sizes, those that are not there yet; the bytes moved.

        Raises:
            DiskFull: there is no room for them, said before the first byte.
            DigestMismatch: the bytes are not what they were; that blob stays where it is.
        """
        todo = {digest: size for digest, size in sizes.items() if not self._is_there(digest)}
        self._total = sum(todo.values())
        target = self._place or self._blobs.root
        with translated("measuring", target):
            left = free(target)
        if self._total > left:
            raise DiskFull(
                f"{human(self._total)} are to be moved to {target}, where {human(left)} are free.",
                f"Free {human(self._total - left)} there.",
            )
        for digest, size in todo.items():
            await self._move(digest, size)
            self._done += size
            self._tell(0)
        return self._total

    def _is_there(self, digest: str) -> bool:
        away = self._blobs.away(digest)
        return away is None if self._place is None else away is not None and away.parent == self._place

    def _tell(self, done: int) -> None:
        self._report(Progress("move", self._done + done, self._total))

    async def _move(self, digest: str, size: int) -> None:
        source = self._blobs.path(digest)
        folder = self._place or self._blobs.root / "partial"
        target = source if self._place is None else self._place / f"sha256-{digest}"
        part = await Part.open(folder / f"move-{digest}.part", self._clock)
        with ExitStack() as stack:
            stack.callback(part.close)
            if self._is_there(digest):
                await part.discard()  # another model has the same file, and was moved while we waited
                return
            before = self._blobs.away(digest)
            if before is not None and not before.exists():
                raise CorruptModel(f"{before} is not there.", "Bring that disk back and try again.")
            if not await self._copy(source, part, size):
                await part.discard()  # it was removed in the meantime
                return
            if part.digest() != digest:
                await part.discard()
                raise DigestMismatch(
                    f"{source} is damaged: its SHA-256 is not its name.", "Install the model again: corral pull NAME"
                )
            if self._place is not None:
                await part.publish(target)
            async with self._blobs.locked():
                now = self._blobs.away(digest)
                if now != before or not source.exists():
                    # It was removed, or moved by somebody else, in the meantime: perhaps to this very place, where the
                    # link that they left now leads to what was published here.
                    if now != target:
                        await in_thread((target if self._place is not None else part.path).unlink, missing_ok=True)
                    return
                if self._place is None:
                    await part.publish(target)
                else:
                    await in_thread(_link, source, target)
                if before is not None and before != target:
                    await in_thread(before.unlink, missing_ok=True)

    async def _copy(self, source: Path, part: Part, size: int) -> bool:
        """Bring the part to the source's bytes, from where it stands; False when there is no source."""
        if part.size > size:
            await part.restart()
        with ExitStack() as stack, translated("reading", source):
            try:
                stream = stack.enter_context(source.open("rb"))
            except FileNotFoundError:
                return False
            stream.seek(part.size)
            self._tell(part.size)
            while block := await in_thread(stream.read, BLOCK):
                await part.append(block)
                self._tell(part.size)
        return True


def _link(path: Path, target: Path) -> None:
    """Let a link to `target` take the place of the file at `path`."""
    beside = path.with_name(f"{secrets.token_hex(8)}.tmp")
    with translated("linking", path):
        try:
            beside.symlink_to(target)
            beside.replace(path)
        finally:
            with suppress(FileNotFoundError):
                beside.unlink()
        sync_folder(path.parent)
