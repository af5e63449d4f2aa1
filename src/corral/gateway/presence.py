"""How the terminal finds the server of its home: `HOME/server.json`, locked by the server for as long as it lives.

It also holds what opens that server to whoever can read the file, the owner alone: so nobody who sets a key is locked
out of their own machine.

The lock, not the file's content, says whether a server runs: the kernel lets go of it whatever ends the process, so a
stale file after a kill -9 misleads nobody.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from corral.errors import NoPermission, ServerRunning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_TRIES = 40
_TRY_EVERY = 0.005
"""Seconds between two attempts to be the one server."""
_ROOM = 1024
"""Bytes that are taken for what a server says of itself."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A server that runs: where it answers, its process, and the Corral version it is.

    `token` opens it as a key would, for as long as it runs.
    """

    url: str
    pid: int
    version: str
    token: str = field(default="", repr=False)


def find(home: Path) -> Presence | None:
    """The server that runs for `home` now, or None. Blocks for one file read."""
    try:
        with (home / "server.json").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Presence(**json.loads(file.read()))
            return None
    except (FileNotFoundError, NotADirectoryError, PermissionError, json.JSONDecodeError, TypeError):
        return None


@contextmanager
def claim(home: Path) -> Iterator[Claim]:
    """Be the one server of `home` for the block's length.

    Raises:
        ServerRunning: there is one already; says where.
        NoPermission: the folder cannot be written.
        DiskFull: not even this file has room; said before anything is started.
    """
    from corral.kit.disk import translated  # only a server needs it, and every command imports this module

    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home / "server.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoPermission(
            f"Corral's home {home} cannot be written: {error.strerror}.", "Set CORRAL_HOME elsewhere."
        ) from error
    try:
        if not _locked(descriptor):
            other = find(home)
            where = f" at {other.url} (process {other.pid})" if other else ""
            raise ServerRunning(
                f"A Corral server already runs{where} for {home}.",
                "Use it, stop it, or set CORRAL_HOME to another folder.",
            )
        with translated("writing", home / "server.json"):
            os.pwrite(descriptor, b" " * _ROOM, 0)  # so that `announce` finds room
        yield Claim(descriptor)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours now; tried for a moment, since `find` holds it too for as long as it looks."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_TRY_EVERY)
        else:
            return True
    return False


class Claim:
    """The right to be the server of a home."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def announce(self, presence: Presence) -> None:
        """Say where the server answers. Nobody but the file's owner can read it from then on."""
        os.fchmod(self._descriptor, 0o600)
        os.ftruncate(self._descriptor, os.pwrite(self._descriptor, json.dumps(asdict(presence)).encode(), 0))
