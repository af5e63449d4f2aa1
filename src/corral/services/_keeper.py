"""The keeper of one local service: a small process of its own that starts it, watches it, and ends all of it.

    corral ──fork──▶ keeper (own session) ──fork──▶ program (own group) ──▶ … whatever that starts

The keeper holds the lock of the service's folder, which it was handed by whoever started it, for as long as it lives.
It adopts what the program leaves behind, so that at the end nothing of it is left; the kernel kills the program when
the keeper is killed. SIGTERM ends both, politely. Light on purpose: it stays in memory as long as the service.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.domain.services import ServiceState
from corral.kit import child, lineage, pidfile
from corral.kit.process import LogRing
from corral.services import _program
from corral.services._logfile import LogFile
from corral.services.folder import Folder, Record, fingerprint, unpacked
from corral.services.health import QUIET, askable, well
from corral.services.ports import answers
from corral.services.vigil import Enough, Vigil

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.services import ServiceSpec

_PATIENCE = 2.0
"""Seconds that what a program leaves behind may take to stop, at most."""
_EAGER = 0.1
"""Seconds between two health checks of a service that is starting."""


class Keeper:
    """Keeps one service. `environment` is the program's, complete."""

    def __init__(self, spec: ServiceSpec, folder: Folder, environment: Mapping[str, str], record: Record) -> None:
        self._spec = spec
        self._folder = folder
        self._environment = environment
        self._record = record
        self._vigil = Vigil(spec.vigilance)
        self._log = LogFile(folder.log)
        self._last = LogRing(lines=20)
        self._leaving = asyncio.Event()
        self._stirred = asyncio.Event()
        self._exit: asyncio.Future[int] | None = None
        self._pid = 0
        self._well_since: float | None = None

    async def run(self) -> None:
        """Keep it until it is told to stop, or it is of no use to start it again."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leaving.set)
        try:
            await self._keep()
        finally:
            self._log.close()

    async def _keep(self) -> None:
        while True:
            why, code = await self._once()
            if self._leaving.is_set():
                self._note(ServiceState.STOPPED, last_exit=why, reason="", pid=None, healthy=None)
                return
            if not self._spec.restart:
                state = ServiceState.STOPPED if code == 0 else ServiceState.FAILED
                self._note(state, last_exit=why, reason=self._said(why), pid=None, healthy=None)
                return
            well = 0.0 if self._well_since is None else time.monotonic() - self._well_since
            next_ = self._vigil.ended(well)
            if isinstance(next_, Enough):
                self._tell(f"left down: {next_.reason}")
                reason = self._said(f"{next_.reason}, the last time because it {why}")
                self._note(ServiceState.FAILED, last_exit=why, reason=reason, pid=None, healthy=None)
                return
            pause = f"it {why}; it is started again after {next_.after:g} s"
            self._note(ServiceState.WAITING, last_exit=why, reason=pause, pid=None, healthy=None)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), next_.after)
                self._note(ServiceState.STOPPED, reason="")
                return
            self._note(ServiceState.STARTING, restarts=self._record.restarts + 1)

    async def _once(self) -> tuple[str, int | None]:
        """Run it once, to its end, however that comes: why, as words that follow its name, and its exit code."""
        spec = self._spec
        self._well_since = None
        if spec.port is not None and await answers(spec.host, spec.port):
            return f"found its port {spec.port} in use by another program", None
        try:
            program = _program.start(spec.argv, self._environment, spec.cwd or self._folder.path)
        except OSError as error:
            return f"could not be started: {error.strerror}: {spec.argv[0]}", None
        loop = asyncio.get_running_loop()
        self._pid, self._exit = program.pid, loop.create_future()
        loop.add_reader(program.output, self._pump, program.output)
        self._tell(f"started as process {program.pid}")
        self._note(ServiceState.STARTING, pid=program.pid, started_at=time.time(), reason="", healthy=None)
        watching = asyncio.ensure_future(self._watch())
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            events: tuple[asyncio.Future[Any], ...] = (self._exit, watching, leaving)
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            fault = watching.result() if watching.done() else None
        finally:
            watching.cancel()
            leaving.cancel()
        gone = self._exit.done()
        if not gone:
            self._note(ServiceState.STOPPING, reason="" if fault is None else f"it {fault}")
        killed = await self._end(self._exit)
        self._pump(program.output)
        loop.remove_reader(program.output)
        os.close(program.output)
        why = fault or ("was killed, because it did not stop" if killed else ended(self._exit.result()))
        self._tell(why)
        return why, self._exit.result() if gone else None

    async def _watch(self) -> str:
        """Ask after its health for as long as that is good, or may still become so; what is wrong then."""
        spec, vigilance = self._spec, self._spec.vigilance
        if not askable(spec):
            await asyncio.sleep(QUIET)
            self._well()
            await asyncio.Event().wait()
        began = time.monotonic()
        while not await well(self._spec):
            if time.monotonic() - began >= spec.start_timeout:
                return f"was not healthy within {spec.start_timeout:g} s"
            await asyncio.sleep(min(_EAGER, vigilance.every))
        self._well()
        while True:
            await asyncio.sleep(vigilance.every)
            healthy = await well(self._spec)
            if healthy is not self._record.healthy:
                state = ServiceState.RUNNING if healthy else ServiceState.UNHEALTHY
                self._note(state, healthy=healthy, reason="" if healthy else "it does not answer its health check")
            if self._vigil.hung(healthy=healthy):
                return f"did not answer {vigilance.failures} health checks in a row"

    def _well(self) -> None:
        self._well_since = time.monotonic()
        self._note(ServiceState.RUNNING, healthy=True if askable(self._spec) else None, reason="")

    async def _end(self, exited: asyncio.Future[int]) -> bool:
        """End the program and everything it has started; whether the program itself had to be killed."""
        killed = False
        if not exited.done():
            os.kill(self._pid, signal.SIGTERM)
            await asyncio.wait({exited}, timeout=self._spec.stop_grace)
            if not exited.done():
                killed = True
                os.kill(self._pid, signal.SIGKILL)
                await exited
        await self._sweep(signal.SIGTERM, min(_PATIENCE, self._spec.stop_grace))
        await self._sweep(signal.SIGKILL, None)
        return killed

    async def _sweep(self, number: signal.Signals, patience: float | None) -> None:
        """Send every descendant a signal, new ones too, until none is left or `patience` seconds have passed."""
        until = None if patience is None else time.monotonic() + patience
        told: set[int] = set()
        while found := lineage.descendants(os.getpid()):
            if until is not None and time.monotonic() >= until:
                return
            self._stirred.clear()
            for pid in found:
                if pid not in told or number is signal.SIGKILL:
                    told.add(pid)
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), 0.05)

    def _reap(self) -> None:
        """Take note of every child that has ended, adopted ones among them."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._pid and self._exit is not None and not self._exit.done():
                    self._exit.set_result(os.waitstatus_to_exitcode(status))
        self._stirred.set()

    def _pump(self, output: int) -> None:
        """Take what the program has printed."""
        with suppress(BlockingIOError):
            data = os.read(output, 65536)
            if not data:
                asyncio.get_running_loop().remove_reader(output)
            self._log.write(data)
            self._last.feed(data)

    def _tell(self, text: str) -> None:
        """Put a line of our own into the log."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        self._log.write(f"[corral {moment}] {self._spec.name} {text}\n".encode())

    def _said(self, why: str) -> str:
        last = [text for text in self._last.lines()[-3:] if text.strip()]
        return f"{why}; it last said: {' | '.join(last)}" if last else why

    def _note(self, state: ServiceState, **more: Any) -> None:
        since = self._record.since if state is self._record.state else time.time()
        self._record = replace(self._record, state=state, since=since, **more)
        with suppress(OSError):  # a full disk must not end the service; the lock still says that it is kept
            self._folder.write(self._record)


def ended(code: int) -> str:
    """Why a process ended, from its exit code (negative: a signal), as words that follow its name."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    extra = ", perhaps by the system for want of memory" if code == -signal.SIGKILL else ""
    return f"was ended by {name}{extra}"


def main() -> None:
    """Read the launch data, leave the session of whoever started us, and keep the service."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return  # whoever wanted it died while it said what
    launch = json.loads(line)
    if os.fork():
        os._exit(0)
    os.setsid()
    lock: int = launch["lock"]
    os.set_inheritable(lock, False)
    # Whatever else was inherited: the other loop's copies of the pipes below would keep these open for ever.
    os.closerange(3, lock)
    os.closerange(lock + 1, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    folder = Folder(Path(launch["home"]), launch["spec"]["name"])
    spec, mark = unpacked(launch["spec"]), launch["mark"]
    child.adopt_orphans()
    os.chdir(folder.path)
    me = pidfile.identity(os.getpid())
    if me is None:
        raise SystemExit("no process table")
    pidfile.write(folder.pid, me)
    now = time.time()
    record = Record(ServiceState.STARTING, since=now, mark=mark, print=fingerprint(spec, mark))
    folder.write(record)
    with suppress(BrokenPipeError):  # whoever started us was killed; the service is kept all the same
        os.write(1, b"kept\n")
    _let_go()
    try:
        asyncio.run(Keeper(spec, folder, {**launch["environment"], lineage.MARK: mark}, record).run())
    finally:
        folder.pid.unlink(missing_ok=True)


def _let_go() -> None:
    """Leave the streams of whoever started us."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.close(nothing)


if __name__ == "__main__":
    main()
