"""Closing the books of processes that died: their journals lie in the home, and nobody holds their locks."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from corral.errors import StoreError
from corral.kit.disk import in_thread, lies_at, translated, try_lock
from corral.routing.journal import SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

    from corral.domain.ports import Clock
    from corral.routing.treasury import Recovery, Treasury

_UNKNOWN: Final = 60.0
"""Seconds for which a journal is kept that the database has not heard of: what it was told last may still arrive."""


async def recover(folder: Path, treasury: Treasury, clock: Clock, mine: str | None = None) -> list[Recovery]:
    """Close the books of every dead process whose journal lies in `folder`; those that the database knew.

    Several processes may do so at the same time: each journal is taken by one of them.

    Raises:
        DatabaseError: it cannot be reached; the rest is left for the next time.
        StoreError: a journal, or the folder, cannot be read; the others are closed.
    """
    closed: list[Recovery] = []
    problem: StoreError | None = None
    for path in await in_thread(_journals, folder):
        if path.stem == mine:
            continue
        with ExitStack() as held:
            try:
                taken = await in_thread(_take, path, held)
            except StoreError as error:
                problem = error
                continue
            if taken is None:
                continue
            content, changed = taken
            recovery = await treasury.recover(path.stem, content)
            if recovery.known:
                closed.append(recovery)
            if recovery.known or clock.wall() - changed > _UNKNOWN:
                path.unlink(missing_ok=True)
    if problem is not None:
        raise problem
    return closed


def _journals(folder: Path) -> list[Path]:
    with translated("reading", folder):
        return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


def _take(path: Path, held: ExitStack) -> tuple[bytes, float] | None:
    """What is in a journal, whose lock is ours until `held` is closed, and when it was written last.

    None when its process lives, when it is gone, or when it is no file and so nobody's journal.
    """
    with translated("reading", path):
        if not path.is_file() or path.is_symlink():
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        held.callback(os.close, descriptor)  # here: who waits for us may be cancelled, and never hear of it
        if try_lock(descriptor) and lies_at(descriptor, path):
            return path.read_bytes(), path.stat().st_mtime
        return None
