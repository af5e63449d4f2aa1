"""A program started by a keeper: in a group of its own, dying with the keeper, without core dumps."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from corral.kit import child

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NOT_STARTED = 127


@dataclass(frozen=True, slots=True)
class Program:
    """A running program and the descriptor that its output is read from."""

    pid: int
    output: int


def start(argv: tuple[str, ...], environment: Mapping[str, str], cwd: Path) -> Program:
    """Start it.

    Call it from the main thread, which must be the only one: this forks, and the kernel ties the program's life to the
    thread that did.

    Raises:
        OSError: it could not be started.
    """
    told, tell = os.pipe()
    output, out = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(argv, environment, cwd, parent, (out, tell))
    os.close(tell)
    os.close(out)
    try:
        number = os.read(told, 16)  # nothing, once the program has taken the place of our copy
    finally:
        os.close(told)
    if number:
        os.waitpid(pid, 0)
        os.close(output)
        raise OSError(int(number), os.strerror(int(number)), argv[0])
    os.set_blocking(output, False)
    return Program(pid, output)


def _become(
    argv: tuple[str, ...], environment: Mapping[str, str], cwd: Path, parent: int, descriptors: tuple[int, int]
) -> NoReturn:
    out, tell = descriptors
    try:
        child.become(argv, environment, cwd, parent, out)
    except (OSError, ValueError) as error:
        with suppress(OSError):
            os.write(tell, str(getattr(error, "errno", errno.EINVAL)).encode())
    finally:
        os._exit(_NOT_STARTED)
