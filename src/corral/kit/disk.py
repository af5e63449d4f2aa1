"""Files on disk: errors in Corral's words, locks that die with their holder, writes that are whole or absent."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import shutil
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

from corral.domain.sizes import human
from corral.errors import DiskFull, NoPermission, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator
    from pathlib import Path

    from corral.domain.ports import Clock

P = ParamSpec("P")
T = TypeVar("T")

LOCK_PAUSE = 0.05
"""Seconds between two tries for a lock that another process holds."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def free(path: Path) -> int:
    """Bytes that may still be written where `path` lies or would lie."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free


def translate(error: OSError, doing: str, path: Path) -> StoreError:
    """The error of the store that `error` amounts to, met while `doing` something at `path`."""
    if error.errno in _FULL:
        with suppress(OSError):
            left = free(path)
            return DiskFull(f"No room while {doing} {path}: {human(left)} free.", "Free some space and try again.")
        return DiskFull(f"No room while {doing} {path}.", "Free some space and try again.")
    if error.errno in _REFUSED:
        why = "The disk is read-only: choose" if error.errno == errno.EROFS else "Check who owns the folder, or choose"
        hint = f"{why} another with CORRAL_HOME."
        return NoPermission(f"Not allowed: {doing} {path} ({error.strerror}).", hint)
    return StoreError(f"Failed {doing} {path}: {error.strerror or error}.", "Check the disk and the folder.")


@contextmanager
def translated(doing: str, path: Path) -> Iterator[None]:
    """Turn any `OSError` inside into the store's error for `doing` something at `path`."""
    try:
        yield
    except OSError as error:
        raise translate(error, doing, path) from error


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `work` in a thread.

    When cancelled it first waits until the thread is done, since a thread cannot be stopped and may still use
    descriptors that the caller would close: keep each piece of work short.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


def lies_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is what `path` names now, and not one that was renamed or removed since."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the file's lock if nobody holds it against us; whether it was taken."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def hold(
    path: Path,
    clock: Clock,
    *,
    flags: int = os.O_RDWR | os.O_CREAT,
    shared: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> int:
    """Open `path` and wait for its lock; the descriptor, to be closed by the caller, which frees the lock.

    The kernel frees it too when the holder dies. What was opened is still what lies at `path` when this returns.
    `waiting` is called once if another holds it.

    Raises:
        FileNotFoundError: nothing lies there, and `flags` do not create it.
        OSError: it cannot be opened.
    """
    told = False
    while True:
        with ExitStack() as undo:
            descriptor = os.open(path, flags, 0o644)
            undo.callback(os.close, descriptor)
            held = False
            # Whoever renames the file keeps its lock: a waiter for what is no longer there would wait for nothing.
            while lies_at(descriptor, path) and not (held := try_lock(descriptor, shared=shared)):
                if not told:
                    told = True
                    waiting()
                await clock.sleep(LOCK_PAUSE)
            if held and lies_at(descriptor, path):
                undo.pop_all()
                return descriptor


def sync_folder(path: Path) -> None:
    """Make what was created, renamed or removed in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path`, replacing what lies there: a reader sees the old or the new, never a part. Blocks.

    What is not `durable` may be lost, or cut, by a power cut: for what can be made again.

    Raises:
        OSError: it could not be written; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as out:
            out.write(data)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


async def pour(path: Path, pieces: AsyncIterable[bytes], check: Callable[[], None] = lambda: None) -> int:
    """Put what comes at `path`, replacing what lies there: it is written beside it, and moved once it is whole.

    Returns how many bytes that were. `check` is asked before the move, and may refuse it.

    Raises:
        OSError: it could not be written; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside, size = path.with_name(f".{secrets.token_hex(8)}.part"), 0
    try:
        with beside.open("xb") as out:
            async for piece in pieces:
                size += await in_thread(out.write, piece)
            await in_thread(_settle, out)
        check()
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    await in_thread(sync_folder, path.parent)
    return size


def _settle(out: IO[bytes]) -> None:
    out.flush()
    os.fsync(out.fileno())
