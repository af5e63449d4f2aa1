"""The process in which templates run, one after another: it bounds what each may take, and ends with its parent.

stdin and stdout carry JSON, each piece after its length in four bytes: {"kind", "source", "scope", "most", "seconds"},
and back {"text"}, {"value"}, or {"error", "line"}, and "last" when this process had rather be ended.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from typing import Any, Final, NoReturn

from corral.kit.child import die_with_parent
from corral.workspace.pipelines.sandbox import compiled, compiled_expression, line_of, plain, said

_MEMORY: Final = 640 << 20
_GRACE: Final = 2
"""Seconds of processor time after which the kernel ends what does not hear its signal."""


class OutOfTime(BaseException):
    """A template takes longer than it may; nothing on the way shall take it for an error of its own."""


class TooLong(Exception):
    """What a template writes is more than it may write."""


def render(source: str, scope: dict[str, Any], most: int) -> str:
    """What the template writes."""
    written: list[str] = []
    length = 0
    for piece in compiled(source).generate(scope):
        length += len(piece)
        if length > most:
            raise TooLong(f"it writes more than {most:,} characters")
        written.append(piece)
    return "".join(written)


def evaluate(source: str, scope: dict[str, Any], most: int) -> Any:
    """What the expression comes to, as JSON has it."""
    value = plain(compiled_expression(source)(scope))
    if len(json.dumps(value)) > most:
        raise TooLong(f"it comes to more than {most:,} characters")
    return value


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """One job done, or why not."""
    try:
        if job["kind"] == "render":
            return {"text": render(job["source"], job["scope"], job["most"])}
        return {"value": evaluate(job["source"], job["scope"], job["most"])}
    except OutOfTime:
        return {"error": f"it takes more than {job['seconds']:g} s", "line": None, "last": True}
    except Exception as error:  # noqa: BLE001 - a template is a program of somebody else's and may raise anything
        return {"error": said(error), "line": line_of(error), "last": isinstance(error, MemoryError)}


def _within(seconds: float, job: dict[str, Any]) -> dict[str, Any]:
    """The answer to a job, within so many seconds of processor time."""
    with suppress(AttributeError, OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + _GRACE, hard))
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        return answer(job)
    except OutOfTime:  # in the moment between the answer and its return
        return {"error": f"it takes more than {seconds:g} s", "line": None, "last": True}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_long(*_: object) -> NoReturn:
    raise OutOfTime


def _confine() -> None:
    """Bound what this process may take, for good. What a system does not know is left out."""
    for name, limit in {"RLIMIT_AS": _MEMORY, "RLIMIT_DATA": _MEMORY, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}.items():
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (limit, limit))


def main() -> None:
    """Answer until the parent has no more to ask."""
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _confine()
    signal.signal(signal.SIGPROF, _too_long)
    asked, told = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but an answer is written where answers are read
    gc.freeze()
    while len(head := asked.read(4)) == 4:
        job = json.loads(asked.read(int.from_bytes(head)))
        said_back = json.dumps(_within(job["seconds"], job)).encode()
        told.write(len(said_back).to_bytes(4) + said_back)
        told.flush()
    sys.exit(0)


if __name__ == "__main__":
    main()
