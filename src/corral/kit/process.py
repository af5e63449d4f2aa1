"""Child processes that say when they are ready, keep their last words, and never outlive Corral.

    parent                                     child (`corral.kit.child`, or any program that obeys the same rules)
    stdin   lifeline: the launch data as one   reads the first line; when the pipe closes the parent is gone
            line of JSON, then held open
    stdout  control                        <-  one line of JSON: {"ready": {...}} or {"failed": "why"}
    stderr  log ring                       <-  whatever it prints

A child leads a session and process group of its own, so that a Ctrl-C at the terminal does not reach it and a signal to
the group reaches what it started. Launch data never shows in a process listing. Call from the loop's own thread: the
kernel ties a child's life to the thread that started it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from corral.errors import CorralError, EngineStartFailed, EngineTimeout
from corral.kit import lineage

if TYPE_CHECKING:
    import psutil

_SECRET = re.compile(
    r"(API_?KEY|ACCESS_KEY(_ID)?|PRIVATE_KEY|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS)(_?\d+)?$|SECRET",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_MAX_READINESS = 64 * 1024
_LAST_WORDS = 1.0
_TIDYING = 8.0


def module_argv(module: str) -> tuple[str, ...]:
    """The command that runs one of Corral's own modules; the working folder is kept off its import path."""
    return (sys.executable, "-P", "-m", module)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what looks like a credential: a child gets the ones it needs in its launch data."""
    return {name: value for name, value in environ.items() if not _SECRET.search(name)}


class LogRing:
    """The last lines a process printed, bounded in number and length; control characters and escapes are left out."""

    def __init__(self, lines: int = 400, width: int = 2000) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._width = width
        self._open = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes, which may end in the middle of a line or of a character."""
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._extend(piece)
            self._lines.append(self._text())
            self._open.clear()
            self._cut = False
        self._extend(rest)

    def lines(self) -> tuple[str, ...]:
        """What is held, oldest first; a last line without an end counts."""
        return (*self._lines, self._text()) if self._open else tuple(self._lines)

    def _extend(self, piece: bytes) -> None:
        room = self._width - len(self._open)
        self._open += piece[:room]
        self._cut |= len(piece) > room

    def _text(self) -> str:
        return _CONTROL.sub("", self._open.decode(errors="replace")) + ("…" if self._cut else "")


def start_failed(title: str, reason: str, log: Sequence[str]) -> EngineStartFailed:
    """The plain diagnosis: the reason, and the end of the log."""
    tail = " | ".join(line for line in log[-3:] if line.strip())
    return EngineStartFailed(f"{title} {reason}.", f"It last said: {tail}" if tail else "It printed nothing.")


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. `title` names it in errors; `launch` goes to the child alone and is never shown.

    `diagnose` makes the error of a start that failed from the title, the reason and the log. `mark` says that the
    child, a guard, ends what it started by itself: SIGTERM asks it to, SIGQUIT tells it to do so at once, and it is
    killed when that does nothing. What it started carries the mark in its environment.
    """

    title: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    launch: Mapping[str, Any] = field(default_factory=dict, repr=False)
    diagnose: Callable[[str, str, Sequence[str]], EngineStartFailed] = start_failed
    mark: str = ""


class Child:
    """A running child process. `facts` is what it said of itself when it became ready."""

    def __init__(self, wire: _Wire) -> None:
        self.facts: Mapping[str, Any] = {}
        self._wire = wire

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too; it may be gone."""
        return self._wire.pid

    def log(self) -> tuple[str, ...]:
        """The last lines of its output, oldest first."""
        return self._wire.log.lines()

    async def ended(self) -> str:
        """Wait until it is gone and return why, as the words that follow its name: `was killed by SIGKILL, …`."""
        return await asyncio.shield(self._wire.ended)

    async def stop(self, grace: float) -> None:
        """End it and all of its group: SIGTERM, and after `grace` seconds SIGKILL; returns when it is gone.

        May be called again, by many at once, and on a dead child; the shortest grace holds. When cancelled it kills.
        """
        if self._wire.ended.done():
            return
        self._wire.terminate()
        try:
            async with asyncio.timeout(_bounded(grace)):
                await self.ended()
        except TimeoutError:
            self._wire.kill()
            await self.ended()
        except asyncio.CancelledError:
            self._wire.kill()
            raise

    def family(self) -> tuple[int, ...]:
        """Its id and those of its descendants; empty when it is gone. Takes some milliseconds."""
        return () if self._wire.ended.done() else tuple(process.pid for process in _family(self.pid))

    async def resident(self) -> int | None:
        """Bytes of memory it and its descendants hold, pages of mapped files included; None when it is gone.

        What they share with each other and with other processes is counted in parts, where the system tells.
        """
        return None if self._wire.ended.done() else await asyncio.to_thread(_resident, self.pid)


async def start(command: Command, timeout: float) -> Child:
    """Start a child and wait until it says that it is ready, at most `timeout` seconds.

    Raises:
        EngineStartFailed: it could not be started, ended, or said that it cannot.
        EngineTimeout: it said nothing in time.

    When it raises or is cancelled, no process of it is left.
    """
    spawning = asyncio.ensure_future(_spawn(command))
    try:
        wire = await asyncio.shield(spawning)
    except asyncio.CancelledError:
        await Child(await spawning).stop(0)
        raise
    child = Child(wire)
    try:
        child.facts = await _readiness(child, wire.said, command, timeout)
    except (CorralError, asyncio.CancelledError):
        await child.stop(0)
        raise
    return child


async def _spawn(command: Command) -> _Wire:
    loop = asyncio.get_running_loop()
    line = json.dumps({"parent": os.getpid(), "launch": dict(command.launch)}).encode() + b"\n"
    try:
        transport, wire = await loop.subprocess_exec(
            lambda: _Wire(loop, command.mark),
            *command.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(command.environment),
            start_new_session=True,
        )
    except OSError as error:
        raise EngineStartFailed(
            f"{command.title} could not be started: {error.strerror}: {command.argv[0]}.",
            "Check that the program is installed and may be run.",
        ) from error
    lifeline = cast("asyncio.WriteTransport", transport.get_pipe_transport(_STDIN))
    lifeline.write(line)
    return wire


async def _readiness(
    child: Child, heard: asyncio.Future[Mapping[str, Any]], command: Command, timeout: float
) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(_bounded(timeout)):
            said = await asyncio.shield(heard)
    except TimeoutError:
        tail = child.log()[-1:]
        raise EngineTimeout(
            f"{command.title} was not ready within {timeout:g} s.",
            f"Raise engines.load_timeout. It last said: {tail[0]}" if tail else "Raise engines.load_timeout.",
        ) from None
    if "ready" in said:
        return cast("Mapping[str, Any]", said["ready"])
    if "failed" in said:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await child.ended()  # it ends by itself, and writes the rest of its log while it does
        await child.stop(0)
        reason = f"failed: {said['failed']}"
    else:
        reason = await child.ended()
    raise command.diagnose(command.title, reason, child.log())


class _Wire(asyncio.SubprocessProtocol):
    """The loop's end of a child: its pipes, its exit, and the signals sent to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mark: str) -> None:
        self.log = LogRing()
        self.said: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.pid = 0
        self._loop = loop
        self._control = bytearray()
        self._sent: signal.Signals | None = None
        self._exit: int | None = None
        self._log_open = True
        self._patience: asyncio.TimerHandle | None = None
        self._mark = mark
        self._tidying: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        data = cast("bytes", data)
        if fd == _STDERR:
            self.log.feed(data)
        elif not self.said.done():
            self._control += data
            self._read_control()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == _STDERR:
            self._log_open = False
            if self._patience is not None:
                self._finish()

    def process_exited(self) -> None:
        code = self._transport.get_returncode()
        self._exit = 0 if code is None else code
        if self._tidying is not None:
            self._tidying.cancel()
        self._signal_group(signal.SIGKILL)  # what it started must not outlive it
        if self._mark and self._exit == -signal.SIGKILL:
            swept = self._loop.run_in_executor(None, lineage.sweep, self.pid, self._mark)
            swept.add_done_callback(lambda _: self._await_log())
        else:
            self._await_log()

    def terminate(self) -> None:
        """Ask the group to end; a second call does nothing."""
        if self._sent is None:
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the group. A guard is given some seconds for it; a second call does nothing then."""
        if not self._mark:
            self._send(signal.SIGKILL)
        elif self._tidying is None and self._exit is None:
            self._send(signal.SIGQUIT)
            self._sent = signal.SIGKILL
            self._tidying = self._loop.call_later(_TIDYING, self._signal_group, signal.SIGKILL)

    def _await_log(self) -> None:
        if self._log_open:
            # A descendant that left the group may hold the pipe open: wait for the rest of the log, but not for ever.
            self._patience = self._loop.call_later(_LAST_WORDS, self._finish)
        else:
            self._finish()

    def _send(self, number: signal.Signals) -> None:
        if self._exit is None:
            self._sent = number
            if self._mark:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)
            else:
                self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _read_control(self) -> None:
        line, end, _ = self._control.partition(b"\n")
        if not end and len(self._control) <= _MAX_READINESS:
            return
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or not said.keys() & {"ready", "failed"}:
            said = {"failed": "it said something else than that it is ready"}
            self.terminate()
        self.said.set_result(said)

    def _finish(self) -> None:
        if self.ended.done():
            return
        if self._patience is not None:
            self._patience.cancel()
        self._transport.close()
        self.ended.set_result(_reason(self._exit or 0, self._sent))
        if not self.said.done():
            self.said.set_result({})


def _bounded(seconds: float) -> float | None:
    """A time-out for asyncio, where infinity is None."""
    return None if seconds == math.inf else seconds


def _reason(code: int, sent: signal.Signals | None) -> str:
    """Why a process ended, from its exit code (negative: a signal) and the last signal that was sent to it."""
    if code >= 0:
        return f"exited with code {code}" if sent is None or code else "was stopped"
    if sent == -code:
        return "was stopped" if sent is signal.SIGTERM else "was killed, because it did not stop"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL, perhaps by the system for want of memory"
    return f"was ended by {name}"


def _family(pid: int) -> list[psutil.Process]:
    """A process and its descendants; empty when it is gone."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    return []


def _resident(pid: int) -> int | None:
    import psutil

    total: int | None = None
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            share = _proportional(process.pid)
            total = (total or 0) + (process.memory_info().rss if share is None else share)
    return total


def _proportional(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes a process holds, of those it shares with others its part (PSS); None where the kernel does not tell."""
    try:
        text = (proc / str(pid) / "smaps_rollup").read_bytes()
    except OSError:
        return None
    found = re.search(rb"^Pss: +(\d+) kB$", text, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024
