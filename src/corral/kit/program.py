"""Any program as an engine's process: started under a guard, ready when its own port answers, gone without a rest.

    child = await program.start(Program("The engine of 'x'", ("server", "--port", "{port}"), environment), 60)
    child.facts["address"]      # http://127.0.0.1:PORT

`child` is an ordinary `kit.process.Child`, whose process is the guard (`corral.kit.guard`); what the program starts in
its turn, also what leaves its group or becomes a daemon, ends with it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from corral.errors import EngineStartFailed
from corral.kit import lineage, process

Diagnose: TypeAlias = Callable[[str, str, Sequence[str]], EngineStartFailed]

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Program:
    """What to start, and how to tell that it answers.

    Attributes:
        title: names it in errors, at the beginning of a sentence: `The engine of 'x'`.
        argv: the program and its arguments; `{port}` in an item becomes the port.
        environment: all of its environment; never shown.
        health: the path that answers 2xx once it is ready; empty when it is ready as soon as it takes connections.
        headers: sent with the check; never shown.
        cwd: the folder it runs in; None is Corral's own.
        diagnose: makes the error of a start that failed from the title, the reason and the log.
        expect: a text that the answer to the check must contain.
        host: where it listens, as an address and not as a name.
        port: where it listens when that cannot be chosen; None lets the guard choose a free one.
        ported: the variables of `environment` in whose values `{port}` becomes the port.
        owned: whether the listener must be the program itself or a descendant; False for one that has others listen,
            as `docker run` does.
        stop: a command that ends it, in place of SIGTERM; `{pid}` and `{port}` are replaced.
        scratch: a folder that is the program's alone; removed when all of it has ended.
    """

    title: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    health: str = "/health"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    diagnose: Diagnose = process.start_failed
    expect: str = ""
    host: str = _LOOPBACK
    port: int | None = None
    ported: tuple[str, ...] = ()
    owned: bool = True
    stop: tuple[str, ...] = ()
    scratch: Path | None = None


async def start(program: Program, timeout: float) -> process.Child:
    """Start it and wait until it answers, at most `timeout` seconds; the fact `address` is where.

    Raises:
        EngineStartFailed: it could not be started, ended, or its port stayed another's.
        EngineTimeout: it did not answer in time.

    When it raises or is cancelled, no process of it is left, or the last one is ending.
    """
    mark = secrets.token_hex(16)
    command = process.Command(
        title=program.title,
        argv=process.module_argv("corral.kit.guard"),
        environment=process.child_environment(os.environ),  # the guard's own: it is a part of Corral
        launch={
            "argv": program.argv,
            "environment": {**program.environment, lineage.MARK: mark},
            "ported": program.ported,
            "cwd": None if program.cwd is None else str(program.cwd),
            "host": program.host,
            "port": program.port,
            "request": _request(program),
            "expect": program.expect,
            "owned": program.owned,
            "stop": program.stop,
            "scratch": None if program.scratch is None else str(program.scratch),
        },
        diagnose=program.diagnose,
        mark=mark,
    )
    return await process.start(command, timeout)


def _request(program: Program) -> str:
    if not program.health:
        return ""
    lines = [f"GET {program.health} HTTP/1.1", f"Host: {program.host}", "Connection: close", "Accept: */*"]
    lines += [f"{name}: {value}" for name, value in program.headers.items()]
    return "\r\n".join((*lines, "", ""))
