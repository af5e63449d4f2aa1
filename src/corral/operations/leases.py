"""Who this home is, and which process is at which operation.

    home/
    ├── id                       a random name: whose operations these are where several homes share a database
    └── operations/<id>.lock     locked while a process is at the operation; the kernel frees it when that process dies

An operation that is `in_progress` and whose lock is free was left by a process that died.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from corral.errors import StoreError
from corral.kit.disk import lies_at, translated, try_lock, write_whole

if TYPE_CHECKING:
    from pathlib import Path

_HOME = re.compile(r"[0-9a-f]{32}")


def home_id(home: Path) -> str:
    """The name of this home, made up at the first use. Blocks for a moment.

    Raises:
        StoreError: it cannot be read or written, or is damaged.
    """
    path = home / "id"
    with translated("writing", path):
        if not path.exists():
            beside = path.with_name(f"id.{secrets.token_hex(8)}.tmp")
            try:
                write_whole(beside, secrets.token_hex(16).encode())
                with suppress(FileExistsError):
                    path.hardlink_to(beside)  # the first one wins; all others read what it wrote
            finally:
                beside.unlink(missing_ok=True)
        found = path.read_text().strip()
    if not _HOME.fullmatch(found):
        raise StoreError(f"{path} is damaged.", "Remove it. Operations from before are then no longer listed.")
    return found


class Lease:
    """The right to be at one operation; held until it is freed, or this process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, folder: Path, operation: str) -> Lease | None:
        """The lease of `operation`; None when a process, this one included, has it.

        Raises:
            StoreError: its file cannot be made.
        """
        path = folder / f"{operation}.lock"
        with translated("locking", path):
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
                if not try_lock(descriptor):
                    os.close(descriptor)
                    return None
                if lies_at(descriptor, path):
                    return cls(path, descriptor)
                os.close(descriptor)  # its last holder removed it just now

    def free(self) -> None:
        """Give it back, and leave no file. Harmless when repeated."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with suppress(OSError):  # a file that stays is swept up later, and is in nobody's way
                self._path.unlink()
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the files of leases that nobody holds, such as of killed processes. Blocks for a moment."""
    for path in sorted(folder.glob("*.lock")):
        lease = Lease.take(folder, path.stem)
        if lease is not None:
            lease.free()
