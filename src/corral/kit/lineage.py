"""Who descends from whom and who listens where, read from Linux's `/proc`; empty on systems that have none.

Light on purpose: the guard of an engine imports this and would rather not import more.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARK = "CORRAL_GUARDED_BY"  # an environment variable: what has it was started under that guard

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = b"0A"
_ANYWHERE = {b"0" * 8, b"0" * 32}
_LOOPBACK = {b"0100007F", b"0000000000000000FFFF00000100007F", b"00000000000000000000000001000000"}
_DEAD = b"ZX"
_SWEEPS = 200
_LOOKS = 3  # one that forks all the time may be between two ids while they are read
_PAUSE = 0.01  # seconds between two looks at those that die


def descendants(ancestor: int) -> list[int]:
    """Ids of all living processes that descend from `ancestor`, parents before children.

    A process whose first thread is gone looks dead while its other threads still end, and keeps its children until
    then: the way to the living may lead over the dead.
    """
    children: dict[int, list[int]] = {}
    living = set()
    for pid, parent, _, state in _processes():
        children.setdefault(parent, []).append(pid)
        if state not in _DEAD:
            living.add(pid)
    found = children.get(ancestor, [])[:]
    for pid in found:  # grows while it is read
        found += children.get(pid, [])
    return [pid for pid in found if pid in living]


def listeners(port: int) -> set[int]:
    """Inodes of the sockets that listen on `port` where a connection to loopback may reach them."""
    found = set()
    for table in _TABLES:
        for line in _read(table).splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].partition(b":")
            if fields[3] == _LISTEN and int(number, 16) == port and address in _ANYWHERE | _LOOPBACK:
                found.add(int(fields[9]))
    return found


def sockets(pids: Iterable[int]) -> set[int] | None:
    """Inodes of the sockets these processes hold; None when one of them may not be looked into."""
    found = set()
    for pid in pids:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        if stat.S_ISSOCK(status.st_mode):
                            found.add(status.st_ino)
        except PermissionError:
            return None
        except OSError:
            continue  # it is gone
    return found


def sweep(session: int, mark: str) -> None:
    """Kill what a guard left that could not do it itself: all in its session, and all that carry its mark.

    Blocks until they are gone, at most some seconds: some milliseconds for each hundred processes of the machine, and
    as long as the memory of those that die takes to be given back.
    """
    wanted = f"{MARK}={mark}".encode()
    killed: set[int] = set()
    quiet = 0
    for _ in range(_SWEEPS):  # one that hangs in the kernel cannot be waited for
        # One that dies has lost its environment before it is gone: it is known by its id for this moment.
        found = {pid for pid, _, own in _living() if own == session or pid in killed or _carries(pid, wanted)}
        quiet = 0 if found else quiet + 1
        if quiet == _LOOKS:
            return
        for pid in found - killed:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if found and found <= killed:
            time.sleep(_PAUSE)
        killed |= found


def _carries(pid: int, wanted: bytes) -> bool:
    return wanted in _read(f"/proc/{pid}/environ").split(b"\0")


def _living() -> Iterator[tuple[int, int, int]]:
    """Id, parent and session of every process that is not dead."""
    return ((pid, parent, session) for pid, parent, session, state in _processes() if state not in _DEAD)


def _processes() -> Iterator[tuple[int, int, int, bytes]]:
    """Id, parent, session and state of every process."""
    with suppress(FileNotFoundError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                fields = _read(f"/proc/{entry.name}/stat").rpartition(b")")[2].split()[:4]
                if fields:
                    yield int(entry.name), int(fields[1]), int(fields[3]), fields[0]


def _read(path: str) -> bytes:
    """The whole of a file of `/proc`; empty when it is gone or may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        held = bytearray()
        while data := os.read(descriptor, 65536):
            held += data
        return bytes(held)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
