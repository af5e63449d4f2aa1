"""The child's side of `corral.kit.process`: live only as long as the parent, and talk to it on one private line.

    fd 0  the lifeline: the first line is the launch data, then nothing until the parent is gone
    fd 1  the control line when the process starts; moved out of the reach of libraries, and joined to fd 2
    fd 2  the log

Light on purpose: an engine's child imports this before its engine, and each import delays the first token.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ORPHANED = 3
_LIFELINE, _STDOUT, _STDERR = 0, 1, 2
_USUAL = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
"""Signals that Python, or one of us, ignores: what is ignored is inherited."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Parent:
    """The way back to the process that started this one. `launch` is what it asked for."""

    def __init__(self, launch: dict[str, Any], control: int) -> None:
        self.launch = launch
        self._control = control

    def ready(self, **facts: object) -> None:
        """Say that this process now answers, and what there is to know of it."""
        self._say({"ready": facts})

    def failed(self, message: str) -> NoReturn:
        """Say why this process cannot do what it was started for, and end."""
        self.excuse(message)
        leave(1)

    def excuse(self, message: str) -> None:
        """Say why this process cannot do what it was started for; it has something to tidy up before it ends."""
        self._say({"failed": message})

    def _say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._control, line) :]


def attach() -> Parent:
    """Tie this process to its parent and read the launch data; call it first, once, from the main thread.

    From here on the process ends when its parent does: on Linux by the kernel's hand, at once and even in the middle of
    native code, elsewhere when the lifeline closes.
    """
    die_with_parent(signal.SIGKILL)
    parent = enter()
    threading.Thread(target=_watch_lifeline, name="lifeline", daemon=True).start()
    return parent


def enter() -> Parent:
    """Read the launch data, for one that has work to do when its parent goes: it watches the lifeline, fd 0, itself.

    This process writes no core dumps from here on, and nor does what it starts.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    launch = json.loads(_first_line())
    if os.getppid() != launch["parent"]:
        leave(_ORPHANED)  # it died before the kernel was told what to do then
    return Parent(launch["launch"], control)


def rest() -> NoReturn:
    """Keep the main thread out of the way while others serve, until SIGTERM ends the process as it does by default."""
    while True:
        signal.pause()


def leave(code: int) -> NoReturn:
    """End now, without waiting for threads or for native destructors."""
    sys.stderr.flush()
    os._exit(code)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal when the thread that started this process is gone; Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def become(
    command: Sequence[str], environment: Mapping[str, str], cwd: str | Path | None, parent: int, output: int
) -> None:
    """Turn this fork of `parent` into a program that dies with it: in a group of its own, what it prints to `output`.

    It touches nothing of the parent's but its own copies. Returns only when the parent is gone already.

    Raises:
        OSError, ValueError: it could not be started.
    """
    os.setpgid(0, 0)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was told
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), _LIFELINE)
    os.dup2(output, _STDOUT)
    os.dup2(output, _STDERR)
    for number in _USUAL:
        signal.signal(number, signal.SIG_DFL)
    if cwd is not None:
        os.chdir(cwd)
    os.execvpe(command[0], list(command), dict(environment))  # noqa: S606 - no shell is what is wanted


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, in place of the first process; Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _first_line() -> bytes:
    held = bytearray()
    while not held.endswith(b"\n"):
        data = os.read(_LIFELINE, 65536)
        if not data:
            leave(_ORPHANED)
        held += data
    return bytes(held)


def _watch_lifeline() -> None:
    while os.read(_LIFELINE, 4096):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what this process started goes with it
    leave(_ORPHANED)
