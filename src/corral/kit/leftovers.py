"""What processes that were killed leave outside of themselves: shared memory, and a folder of their own.

Python's `multiprocessing` removes the shared memory that a program forgot, by a process of its own; when that one is
killed with the others, the memory stays taken until the machine starts anew. Light on purpose, as the guard is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHARED = " /dev/shm/"  # as it stands in a map
_PYTHONS = ("psm_", "sem.mp-")  # names that Python makes up, with random letters behind them
_GONE = " (deleted)"


def segments(pids: Iterable[int]) -> set[str]:
    """Paths of the shared memory of Python's making that these living processes use. Blocks some milliseconds each."""
    found = set()
    for pid in pids:
        for line in _maps(pid).splitlines():
            _, there, name = line.partition(_SHARED)
            if there and name.startswith(_PYTHONS) and not name.endswith(_GONE):
                found.add((_SHARED + name).strip())
    return found


def remove(paths: Iterable[str], folder: str | None = None) -> None:
    """Remove shared memory and a folder, as far as they are there. Blocks."""
    import shutil  # not light, as the next one
    from pathlib import Path

    for path in paths:
        with suppress(OSError):
            Path(path).unlink()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _maps(pid: int) -> str:
    try:
        with os.fdopen(os.open(f"/proc/{pid}/maps", os.O_RDONLY), errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
