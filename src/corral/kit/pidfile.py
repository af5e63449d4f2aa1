"""PID files that cannot name the wrong process: beside the number they hold when the process began, and in which boot.

A number is given to another process after a while, and a file survives what it speaks of. So nothing is ever signalled
by its number alone: it must have begun at the moment that was written down, since the machine was last started.

Light on purpose: a service's keeper imports this, and stays in memory for as long as its service.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STARTED = 19
"""Where a process's start stands in /proc/PID/stat, counted from what follows its name: field 22 of all."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process and no other: its number, when it began (in the system's own unit), and the boot it began in."""

    pid: int
    began: float
    boot: str


def identity(pid: int) -> Identity | None:
    """The process that has the number now; None when none has, or only a dead one that nobody has reaped."""
    began = _began(pid)
    return None if began is None else Identity(pid, began, boot())


def alive(known: Identity) -> bool:
    """Whether that very process still runs."""
    return known.boot == boot() and _began(known.pid) == known.began


def send(known: Identity, number: signal.Signals) -> bool:
    """Send it a signal; False when it is gone. A process that got its number since is never hit.

    Raises:
        PermissionError: it is somebody else's.
    """
    if not hasattr(os, "pidfd_open"):
        if not alive(known):
            return False
        with suppress(ProcessLookupError):
            os.kill(known.pid, number)
            return True
        return False
    try:
        handle = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return False
    try:
        # From here on the handle is of one process, whatever becomes of the number: look whether it is the right one.
        if not alive(known):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def write(path: Path, known: Identity) -> None:
    """Write the file: whole, or not at all. Blocks.

    Raises:
        OSError: it could not be written.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.write_text(json.dumps(asdict(known)) + "\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path) -> Identity | None:
    """What the file says; None when there is none, or it says nothing that can be meant. Blocks."""
    try:
        known = json.loads(path.read_text())
        return Identity(int(known["pid"]), float(known["began"]), str(known["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def boot() -> str:
    """Which start of the machine this is."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def _began(pid: int) -> float | None:
    if Path("/proc/self/stat").exists():
        try:
            rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if rest[0] in (b"Z", b"X") else float(rest[_STARTED])
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    return None
