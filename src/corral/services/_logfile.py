"""A log file of bounded size: when it is full it becomes `NAME.1`, in place of the one that was that before."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 10 * 1024**2
"""Bytes of one file; two are kept."""


class LogFile:
    """Where a service's output goes. Writing blocks as files do; a full disk loses lines and nothing else."""

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self._path = path
        self._largest = largest
        self._descriptor = self._open()
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Append the bytes, in a new file where they would make this one too large."""
        if self._size and self._size + len(data) > self._largest:
            self._rotate()
        with suppress(OSError):
            self._size += os.write(self._descriptor, data)

    def close(self) -> None:
        """Write nothing more."""
        os.close(self._descriptor)

    def _rotate(self) -> None:
        with suppress(OSError):
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor, self._size = fresh, 0

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
