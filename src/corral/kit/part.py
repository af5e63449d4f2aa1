"""A file that is being put together: locked by its writer, resumed after a kill, hashed while it is written."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Protocol

from corral.domain.ports import Progress, Report, silent
from corral.errors import StoreError
from corral.kit.disk import hold, in_thread, sync_folder, translate, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from corral.domain.ports import Clock

BLOCK = 4 << 20
"""Bytes worked on in one go in a thread: long enough to hide the switch, short enough to be cancelled."""

_FICLONE = 0x40049409
_LINK = "link"


def _granted(_: int) -> None:
    """Any number of bytes may be written."""


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class Part:
    """A `PartFile` on disk, for its one writer. Open it with `Part.open` and close it, also when cancelled.

    Its lock is the file's own `flock`, which stays with the file when `publish` renames it and ends with `close` or
    with the process. Blocking work happens in threads.

    `ask` is called with the number of bytes before they are written, in the thread that writes; what it raises ends
    the write.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.ask: Callable[[int], None] = _granted
        self._scratch_of = path
        self._descriptor = descriptor
        self._hash: _Hash = hashlib.sha256()
        self._size = 0
        self._linked = -1

    @classmethod
    async def open(cls, path: Path, clock: Clock, waiting: Callable[[], None] = lambda: None) -> Part:
        """Own the part at `path`, new or left by a writer that died; what it holds is read and hashed again.

        Waits while another process owns it; `waiting` is called once then.

        Raises:
            StoreError: the file or its folder cannot be made or read.
        """
        with ExitStack() as undo:
            with translated("opening", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                part = cls(path, await hold(path, clock, waiting=waiting))
            undo.callback(part.close)
            await part._read_again()
            undo.pop_all()
        return part

    @property
    def size(self) -> int:
        """Bytes held, all of them hashed."""
        return self._size

    @property
    def held_at(self) -> Path:
        """Where the bytes lie that are held: the part itself, or what it was linked to."""
        return self.path if self._linked < 0 else self.scratch(_LINK)

    def digest(self) -> str:
        """SHA-256, in hex, of the bytes held."""
        return self._hash.hexdigest()

    def scratch(self, name: str) -> Path:
        """A path beside the part for material of this operation; gone when the part is published or discarded."""
        if "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not a file name")
        return self._scratch_of.with_name(f"{self._scratch_of.stem}~{name}")

    async def append(self, data: bytes) -> None:
        """Write and hash the next bytes.

        Raises:
            DiskFull, QuotaExceeded: there is no room; what was written stays, and can be resumed.
        """
        if self._linked >= 0:
            raise ValueError("what is linked cannot be added to")
        await in_thread(self._write, data)

    async def restart(self) -> None:
        """Throw away what is held."""
        self._unlink()
        with translated("emptying", self.path):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash, self._size = hashlib.sha256(), 0

    async def clone(self, path: Path, report: Report = silent) -> None:
        """Hold the bytes of the local file `path`, and only those.

        Where the file system can share blocks copy-on-write this takes no room; elsewhere they are copied. Never a hard
        link: whoever edits the original in place must not change what is held.

        Raises:
            OSError: `path` cannot be read.
            DiskFull: there is no room.
        """
        await self.restart()
        with path.open("rb") as source:
            total = os.fstat(source.fileno()).st_size
            if _shares_blocks(source.fileno(), self._descriptor):
                await self._read_again()
                report(Progress("download", self._size, total))
                return
            while block := await in_thread(source.read, BLOCK):
                await in_thread(self._write, block)
                report(Progress("download", self._size, max(total, self._size)))

    async def link(self, path: Path, sha256: str, report: Report = silent) -> bool:
        """Hold the bytes of the local file `path` instead of what is held, if their SHA-256 is that one; whether it is.

        They are hashed before anything is believed, and what is held so far is kept when they are others. Both names
        then stand for one file, as a hard link: for files that their owner never edits in place, such as those of
        another store of blobs. Its mode is left alone. On another disk the bytes are cloned.

        Raises:
            DiskFull: there is no room for a copy on this disk.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        with ExitStack() as undo:
            undo.callback(os.close, descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False
            found, size = await _digest_of(descriptor)
            if found.hexdigest() != sha256:
                return False
            if not await in_thread(self._link_to, path, descriptor):
                try:
                    await self.clone(path, report)
                except OSError:
                    return False
                return self.digest() == sha256
            undo.pop_all()
        self._linked, self._hash, self._size = descriptor, found, size
        report(Progress("download", size, size))
        return True

    async def publish(self, target: Path) -> None:
        """Make the part, whole and on disk, appear at `target`, read-only; its scratch is removed.

        The lock is kept until `close`, on `target` now and shared: other readers may hold it too, but nobody may remove
        the file under it.

        Raises:
            StoreError: it could not be moved; the part is kept.
        """
        await in_thread(self._move, target)
        self.path = target

    async def discard(self) -> None:
        """Remove the part and its scratch."""
        self._unlink()
        self.path.unlink(missing_ok=True)
        self._sweep()

    def close(self) -> None:
        """Let go of the file and its lock. Idempotent."""
        self._unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _read_again(self) -> None:
        self._hash, self._size = hashlib.sha256(), 0
        with translated("reading", self.path):
            while count := await in_thread(self._read_block):
                self._size += count

    def _read_block(self) -> int:
        data = os.pread(self._descriptor, BLOCK, self._size)
        self._hash.update(data)
        os.lseek(self._descriptor, self._size + len(data), os.SEEK_SET)
        return len(data)

    def _write(self, data: bytes) -> None:
        self.ask(len(data))
        left = memoryview(data)
        while left:
            try:
                count = os.write(self._descriptor, left)
            except OSError as error:
                raise translate(error, "writing", self.path) from error
            self._hash.update(left[:count])
            self._size += count
            left = left[count:]

    def _link_to(self, path: Path, descriptor: int) -> bool:
        """Give the open file at `path` a second name beside the part; whether the system allows that."""
        beside = self.scratch(_LINK)
        with suppress(OSError):
            beside.unlink(missing_ok=True)
            os.link(path, beside, follow_symlinks=False)
            if os.path.samestat(beside.lstat(), os.fstat(descriptor)):
                return True
            beside.unlink(missing_ok=True)
        return False

    def _unlink(self) -> None:
        """Forget the file that the part was linked to."""
        if self._linked >= 0:
            os.close(self._linked)
            self._linked = -1
            with suppress(OSError):
                self.scratch(_LINK).unlink(missing_ok=True)

    def _move_link(self, target: Path) -> None:
        with translated("publishing", target):
            if os.fstat(self._linked).st_size != self._size:
                raise StoreError(f"{target.name} was changed by somebody else.", "Try again.")
            os.fsync(self._linked)  # its owner need not have done so
            target.parent.mkdir(parents=True, exist_ok=True)
            self.held_at.rename(target)
            sync_folder(target.parent)
            fcntl.flock(self._linked, fcntl.LOCK_SH)
            self._scratch_of.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor, self._linked = self._linked, -1
            self._sweep()

    def _move(self, target: Path) -> None:
        if self._linked >= 0:
            self._move_link(target)
            return
        with translated("publishing", target):
            if os.fstat(self._descriptor).st_size != self._size:
                raise StoreError(f"{self.path} was changed by somebody else.", "Try again.")
            os.fsync(self._descriptor)
            os.fchmod(self._descriptor, 0o444)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path.rename(target)
            sync_folder(target.parent)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            self._sweep()

    def _sweep(self) -> None:
        mine = f"{self._scratch_of.stem}~"
        for path in self._scratch_of.parent.iterdir():
            if path.name.startswith(mine):
                path.unlink(missing_ok=True)


async def _digest_of(descriptor: int) -> tuple[_Hash, int]:
    """The hash and size of an open file, read from its start."""
    found, size = hashlib.sha256(), 0
    while True:
        block = await in_thread(_pread, descriptor, size)
        if not block:
            return found, size
        await in_thread(found.update, block)
        size += len(block)


def _pread(descriptor: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, BLOCK, offset)
    except OSError:
        return b""  # what cannot be read is not what was asked for: its digest will tell


def _shares_blocks(source: int, target: int) -> bool:
    """Ask the file system to let both files share their blocks copy-on-write; whether it did."""
    if sys.platform != "linux":
        return False
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return True
    return False
