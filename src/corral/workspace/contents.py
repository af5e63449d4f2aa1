"""The bytes of artifacts and files, by their SHA-256.

    workspace/
    ├── blobs/sha256/<hex>     whole, read-only, never changed; equal ones are there once
    ├── partial/<hex>.part     on its way
    └── lock                   held while somebody sweeps, and by those for whose sake nobody may

The database names them. Bytes are on disk, under their name, before anything names them; until it is committed they are
held by a shared lock. A sweep removes what it can lock alone and what, once it has it locked, nothing names. So a kill
at any instant leaves at worst bytes that nothing names, which the next sweep takes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import IO, TYPE_CHECKING

from corral.catalog.blobs import Blobs
from corral.domain.models import FileEntry
from corral.domain.ports import silent
from corral.domain.sizes import human
from corral.errors import BodyTooLarge, StoreError
from corral.kit.disk import in_thread, translated, try_lock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from corral.domain.ports import Clock

_BATCH = 200  # files that a sweep holds at a time
_SPOOLED = 1 << 20
"""Bytes of what is passing that stay in memory."""
_PIECE = 1 << 18
"""Bytes that are read in one go for who takes them piece by piece."""


class Contents:
    """The contents in `folder`, which is made when something is first kept. None is larger than `largest` bytes.

    Raises:
        StoreError: from every method: the disk refuses, or has no room.
    """

    def __init__(self, folder: Path, clock: Clock, largest: int) -> None:
        self._blobs = Blobs(folder, clock)
        self._largest = largest

    def check(self, size: int) -> None:
        """Refuse so many bytes, when that is too much.

        Raises:
            BodyTooLarge: it is.
        """
        if size > self._largest:
            raise BodyTooLarge(
                f"{human(size)} are more than an artifact or file may have ({human(self._largest)}).",
                "Make it smaller, or raise workspace.max_artifact.",
            )

    @asynccontextmanager
    async def kept(self, contents: Sequence[bytes]) -> AsyncIterator[list[str]]:
        """Keep the contents on disk; the block has their digests, and until its end no sweep takes them.

        Raises:
            BodyTooLarge: one of them is.
        """
        for content in contents:
            self.check(len(content))
        with ExitStack() as held:
            digests = []
            for content in contents:
                digest = await in_thread(lambda data: hashlib.sha256(data).hexdigest(), content)
                digests.append(digest)
                held.callback(os.close, await self._keep(digest, content))
            yield digests

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Let nobody sweep until the block ends: what is there stays, though nothing names it yet, or any more."""
        async with self._blobs.locked(shared=True):
            yield

    @contextmanager
    def scratch(self) -> Iterator[IO[bytes]]:
        """A file on the same disk for what is passing; it has no name, and is gone when the block ends."""
        root = self._blobs.root
        with translated("writing", root):
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.SpooledTemporaryFile(_SPOOLED, dir=str(root)) as file:
                yield file

    async def read(self, digest: str) -> bytes:
        """The bytes with that SHA-256.

        Raises:
            StoreError: they are not there (another machine shares the database and has them), or are damaged.
        """
        path = self._blobs.path(digest)
        with self._missed(digest), translated("reading", path):
            data = await in_thread(path.read_bytes)
        if await in_thread(lambda: hashlib.sha256(data).hexdigest()) != digest:
            raise self._damaged(digest)
        return data

    async def pieces(self, digest: str) -> AsyncGenerator[bytes, None]:
        """As `read`, piece by piece, for who takes long: all of it is looked through before the first.

        Purged meanwhile, it is given to its end.
        """
        path = self._blobs.path(digest)
        with self._missed(digest), translated("opening", path):
            file = await in_thread(path.open, "rb", 0)
        with file, translated("reading", path):
            found = hashlib.sha256()
            while piece := await in_thread(file.read, _PIECE):
                await in_thread(found.update, piece)
            if found.hexdigest() != digest:
                raise self._damaged(digest)
            file.seek(0)
            while piece := await in_thread(file.read, _PIECE):
                yield piece

    @contextmanager
    def _missed(self, digest: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise StoreError(
                f"The content {digest[:12]}… is not in {self._blobs.root}.",
                "It may lie on another machine that uses the same database; bring its workspace/blobs here.",
            ) from error

    def _damaged(self, digest: str) -> StoreError:
        return StoreError(
            f"The content {digest[:12]}… in {self._blobs.root} is damaged.", "Bring it back from a backup."
        )

    async def sweep(self, named: Callable[[Collection[str]], Awaitable[Collection[str]]]) -> int:
        """Remove what nothing names; returns how many bytes that freed. `named` says which digests are named.

        While others sweep, or a block is `undisturbed`, nothing is removed: whoever takes a project away may take long.
        """
        freed = 0
        if not self._blobs.root.is_dir():
            return 0
        with self._blobs.alone() as alone:
            if not alone:
                return 0
            await in_thread(self._sweep_parts)
            every = sorted(await in_thread(self._blobs.sizes))
            for begin in range(0, len(every), _BATCH):
                batch = every[begin : begin + _BATCH]
                spared = frozenset(await named(batch))
                freed += await self._take([digest for digest in batch if digest not in spared], named)
        return freed

    async def _keep(self, digest: str, content: bytes) -> int:
        """Have the content on disk; the descriptor that holds it there."""
        entry = FileEntry(digest, len(content), digest)
        while True:
            descriptor = await self._blobs.pin(digest)
            if descriptor is not None:
                if self._blobs.whole(entry):
                    return descriptor
                os.close(descriptor)
            self._blobs.require(len(content), "This content")
            part = await self._blobs.part(digest, silent)
            try:
                if not self._blobs.whole(entry):
                    await part.restart()
                    await part.append(content)
                    await part.publish(self._blobs.path(digest))
                else:
                    await part.discard()
            finally:
                part.close()

    async def _take(
        self, digests: Sequence[str], named: Callable[[Collection[str]], Awaitable[Collection[str]]]
    ) -> int:
        """Remove those that nobody holds and, now that they are locked, nothing names."""
        with ExitStack() as held:
            locked: dict[str, int] = {}
            for digest in digests:
                with suppress(FileNotFoundError):
                    descriptor = os.open(self._blobs.path(digest), os.O_RDONLY | os.O_CLOEXEC)
                    held.callback(os.close, descriptor)
                    if try_lock(descriptor):
                        locked[digest] = os.fstat(descriptor).st_size
            spared = frozenset(await named(list(locked))) if locked else frozenset()
            freed = 0
            for digest, size in locked.items():
                if digest not in spared:
                    path = self._blobs.path(digest)
                    with translated("removing", path):
                        path.unlink(missing_ok=True)
                    freed += size
        return freed

    def _sweep_parts(self) -> None:
        """Remove what was on its way when its writer died."""
        folder = self._blobs.root / "partial"
        with translated("reading", folder):
            for path in folder.iterdir() if folder.is_dir() else ():
                with suppress(FileNotFoundError):
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        if try_lock(descriptor):
                            path.unlink(missing_ok=True)
                    finally:
                        os.close(descriptor)
