"""The guard of an engine that is any program: it starts it, says when it answers, and leaves nothing of it behind.

    Corral  <-  control, log  -  guard  -  the program  -  whatever that starts
            -  lifeline, signals  ->

`corral.kit.program` runs this module as a child. The guard adopts every process the program lets go of, so that all of
them can be found and ended: when asked (SIGTERM), at once (SIGQUIT), when the program ends, and when Corral is gone
(the lifeline, fd 0, closes). It passes the program's output on and never makes it wait: what is more than Corral should
read is left out, and the log says so. It is ready when the health path answers *and* the port belongs to the program.

Light on purpose, for there is one beside each engine: one thread, few imports. Where there is no `/proc`, as on macOS,
the program's process group is what is ended, and whose the port is cannot be told.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import NoReturn

from corral.kit import child, leftovers, lineage
from corral.kit.probing import Try

_SEES_ALL = sys.platform == "linux"
_LIFELINE, _LOG = 0, 2
_ORPHANED = 3
_CANNOT_RUN = 127
_CHOICES = 3  # of a port: the first, and two anew
_SUSPICIONS = 2  # a process may be born or die while it is looked at

_PIECE = 65536
_HELD = 65536  # bytes of output kept for when Corral reads again
_BURST = 1024 * 1024  # bytes passed on at once, and then so many a second
_RATE = 128 * 1024

_FIRST_LOOK, _LAST_LOOK, _GROWTH = 0.02, 0.25, 1.3  # seconds between two looks at the health path
_STEP = 0.03  # seconds between two looks at what is left
_AFTERWARDS = 2.0  # seconds for what a program that ended has left behind
_ORPHANS_GRACE = 5.0
_STOPPING = 5.0  # seconds for the stop command when there is no more time
_MOST_PIECES = 32
_NOBODY = "no connection"


class Output:
    """What the program prints, on its way to Corral: bounded in memory and in rate, the newest kept."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._held = bytearray()
        self._lost = 0
        self._room = float(_BURST)
        self._filled = time.monotonic()

    def feed(self, data: bytes) -> None:
        """Take some output."""
        self._held += data
        over = len(self._held) - _HELD
        if over > 0:
            end = self._held.find(b"\n", over)
            cut = end + 1 if 0 <= end < over + 4096 else over
            self._lost += cut
            del self._held[:cut]

    def pass_on(self) -> None:
        """Write what may be written now; never waits."""
        now = time.monotonic()
        self._room = min(_BURST, self._room + (now - self._filled) * _RATE)
        self._filled = now
        with suppress(OSError):  # it reads nothing now, or is gone
            while self._held and self._room >= 1:
                if self._lost:
                    self._room -= os.write(self._to, b"\n[%d bytes of output left out]\n" % self._lost)
                    self._lost = 0
                written = os.write(self._to, self._held[: min(_PIECE, int(self._room))])
                self._room -= written
                del self._held[:written]

    def finish(self) -> None:
        """Write the rest."""
        self._room = _HELD + _PIECE
        self.pass_on()

    @property
    def wait(self) -> float | None:
        """Seconds until there is something to pass on; None when nothing is held."""
        return None if not self._held else max(0.05, (_PIECE / 4 - self._room) / _RATE)


class Guard:
    """One program and all that descends from it. Used from the main thread only."""

    def __init__(self, parent: child.Parent) -> None:
        launch = parent.launch
        self._parent = parent
        self._launch = launch
        self._output = Output(_LOG)
        self._poll = select.poll()
        self._program = 0
        self._status: int | None = None
        self._read = self._wakeup = -1
        self._choices = 0
        self._port = 0
        self._try: Try | None = None
        self._ready = False
        self._next_look = 0.0
        self._pause = _FIRST_LOOK
        self._suspected = 0
        self._heard = False
        self._said = ""
        self._deadline = math.inf
        self._next_step = 0.0
        self._stop_command = 0
        self._told: set[int] = set()
        self._asked = self._at_once = self._orphaned = False
        self._parting = self._childless = False
        self._segments: set[str] = set()

    def run(self) -> NoReturn:
        """Start the program, keep it company, and end with it."""
        self._listen_to_signals()
        self._poll.register(_LIFELINE, select.POLLIN)
        os.set_blocking(_LOG, False)
        self._start()
        while True:
            self._wait()
            self._reap()
            if not self._ready and not self._ending:
                self._look()
            if self._ending and self._end():
                break
        self._leave()

    def _wait(self) -> None:
        """Wait until something happens or something is due, and take what came."""
        now = time.monotonic()
        due = [] if self._output.wait is None else [self._output.wait]
        if self._ending:
            due.append(self._next_step - now)
        elif not self._ready:
            due.append((self._next_look if self._try is None else self._try.deadline) - now)
        for descriptor, _ in self._poll.poll(max(0.0, min(due)) * 1000 + 1 if due else None):
            if descriptor == self._read:
                self._take_output()
            elif descriptor == _LIFELINE:
                self._take_lifeline()
            elif descriptor == self._wakeup:
                os.read(descriptor, 4096)
        self._output.pass_on()

    def _take_output(self) -> int:
        """Read what the program has printed; its size, 0 when there is no more."""
        try:
            data = os.read(self._read, _PIECE)
        except BlockingIOError:
            return 0
        if data:
            self._output.feed(data)
        else:
            self._close_output()
        return len(data)

    def _close_output(self) -> None:
        self._poll.unregister(self._read)
        os.close(self._read)
        self._read = -1

    def _drain(self) -> None:
        """Take what the program has printed before it ended; more than a pipe holds cannot be of its own."""
        for _ in range(_MOST_PIECES):
            if self._read < 0 or not self._take_output():
                return

    def _take_lifeline(self) -> None:
        if not os.read(_LIFELINE, 4096):
            self._poll.unregister(_LIFELINE)
            self._orphaned = True

    def _note(self, text: str) -> None:
        """Put a word of the guard's own into the log."""
        self._output.feed(f"corral: {text}\n".encode())

    def _listen_to_signals(self) -> None:
        self._wakeup, end = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(end, False)
        signal.set_wakeup_fd(end, warn_on_full_buffer=False)
        self._poll.register(self._wakeup, select.POLLIN)

        def heard(number: int, _: object) -> None:
            self._asked |= number == signal.SIGTERM
            self._at_once |= number == signal.SIGQUIT
            self._orphaned |= number == signal.SIGHUP

        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, heard)

    @property
    def _ending(self) -> bool:
        return self._asked or self._at_once or self._orphaned or self._status is not None

    # The program

    def _start(self) -> None:
        """Choose a port and start the program. What it cannot be started for is said, and ends the guard."""
        self._choices += 1
        self._port = self._launch["port"] or _free_port(self._launch["host"])
        self._status, self._deadline, self._told, self._suspected = None, math.inf, set(), 0
        self._heard = False
        self._said, self._pause, self._next_look = "", _FIRST_LOOK, time.monotonic() + _FIRST_LOOK
        if self._read >= 0:
            self._close_output()
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self._poll.register(self._read, select.POLLIN)
        self._program = self._spawn(self._launch["argv"], write)
        os.close(write)

    def _spawn(self, argv: list[str], output: int) -> int:
        """Start a process in a group of its own that dies with this one, its output going to `output`."""
        words = {"{port}": str(self._port)}
        if argv is self._launch["stop"]:
            words["{pid}"] = str(self._program)
        command = [_filled(item, words) for item in argv]
        environment = dict(self._launch["environment"])
        for name in self._launch["ported"]:
            environment[name] = _filled(environment[name], words)
        trouble, report = os.pipe()
        guard = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(command, environment, self._launch["cwd"], (guard, output, report))
        os.close(report)
        why = os.read(trouble, 4096)
        os.close(trouble)
        if why and argv is not self._launch["stop"]:
            os.waitpid(pid, 0)
            self._parent.failed(f"it could not be started: {why.decode(errors='replace')}")
        return pid

    def _reap(self) -> None:
        """Collect every process that has ended."""
        self._childless = not _SEES_ALL
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._program:
                    self._status = status
                    self._deadline = time.monotonic() + _AFTERWARDS
                    self._unless_stolen()
                elif pid == self._stop_command:
                    self._stop_command = 0
                    if status:
                        self._note("the stop command failed")
                        if self._status is None:  # else its number may be another's by now
                            _signal(self._program, signal.SIGTERM)
        except ChildProcessError:
            # Who is let go becomes a child of this one: without any, no descendant is left. The list of processes may
            # miss one that forks all the time, between two ids.
            self._childless = True

    def _unless_stolen(self) -> None:
        """Start a program anew on another port if it ended before it was ready and another holds its port."""
        if self._stopping:
            return
        if not self._ready and all(self._owners() is False for _ in range(_SUSPICIONS)):
            self._clear()
            self._choose_anew()
        elif left := len(self._left()):
            advice = "; it must stay in the foreground" if self._status == 0 else ""
            self._note(f"it ended and left {left} of its processes behind, which are ended too{advice}")

    @property
    def _stopping(self) -> bool:
        return self._asked or self._at_once or self._orphaned

    def _choose_anew(self) -> None:
        taken = f"port {self._port} is taken by another program"
        if self._launch["port"] or self._choices == _CHOICES:
            self._output.finish()
            self._parent.excuse(taken)
            self._at_once = True
            return
        self._note(f"{taken}; choosing another")
        self._drain()
        self._give_up_trying()
        self._start()

    # Readiness

    def _look(self) -> None:
        """See whether the program answers; say so, once it does and the port is its own."""
        if self._try is None:
            if time.monotonic() < self._next_look:
                return
            if self._heard and self._is_foreign():  # the table of sockets is not cheap to read
                self._clear()
                self._choose_anew()
                return
            if self._suspected:
                self._next_look = time.monotonic() + _FIRST_LOOK
                return
            # Nothing is said before it is known to whom: the headers may hold a key.
            launch, known = self._launch, self._heard or not self._doubts
            address = launch["host"], self._port
            self._try = Try(address, launch["request"], launch["expect"]) if known else Try(address, "", "")
            self._poll.register(self._try.fileno(), self._try.events)
        said = self._try.step()
        if said is None:
            self._poll.modify(self._try.fileno(), self._try.events)
            return
        self._give_up_trying()
        self._pause = min(_LAST_LOOK, self._pause * _GROWTH)
        self._next_look = time.monotonic() + self._pause
        heard, self._heard = self._heard, not said.startswith(_NOBODY)
        if said == "" and not heard and self._doubts:
            self._next_look = 0.0  # somebody listens: see who it is, and then ask
            return
        if said == "":
            said = self._lie()
            if said == "":
                self._ready = True
                self._parent.ready(address=f"http://{_bracketed(self._launch['host'])}:{self._port}")
                self._segments |= leftovers.segments(self._left())  # for when it is killed, and cannot be looked at
                return
        if said != self._said and not said.startswith(_NOBODY):
            self._note(said)
        self._said = said

    @property
    def _doubts(self) -> bool:
        """Whether it matters who listens, and can be told."""
        return _SEES_ALL and bool(self._launch["owned"])

    def _give_up_trying(self) -> None:
        if self._try is not None:
            self._poll.unregister(self._try.fileno())
            self._try.close()
            self._try = None

    def _is_foreign(self) -> bool:
        """Whether somebody else listens on the port, as seen more than once."""
        self._suspected = self._suspected + 1 if self._owners() is False else 0
        return self._suspected >= _SUSPICIONS

    def _lie(self) -> str:
        """Why an answer is not the program's, as far as that can be seen here; "" when it is."""
        if not self._doubts:
            return ""
        owners = self._owners()
        if owners is None:
            return f"port {self._port} answers, but nobody is seen to listen there"
        return "" if owners else f"port {self._port} is answered by another program"

    def _owners(self) -> bool | None:
        """True: all who listen are the program's; False: not all; None: nobody listens, or it does not matter."""
        listening = lineage.listeners(self._port) if self._launch["owned"] else set()
        if not listening:
            return None
        own = lineage.sockets(lineage.descendants(os.getpid()))
        return own is None or listening <= own

    # The end

    def _end(self) -> bool:
        """Take the next step towards the end; true when nothing is left."""
        now = time.monotonic()
        if now < self._next_step:
            return False
        self._next_step = now + _STEP
        left = self._left()
        if not left:
            self._reap()
            return self._childless
        if not self._parting:
            self._parting = True
            self._segments |= leftovers.segments(left)
        patience = _STOPPING if self._at_once else _ORPHANS_GRACE if self._orphaned else math.inf
        self._deadline = min(self._deadline, now + patience)
        if 0 not in self._told and self._status is None and (self._launch["stop"] or not self._at_once):
            self._ask()
        elif now >= self._deadline or (self._at_once and not self._stop_command):
            self._clear()
        elif self._status is not None:
            for pid in left:
                if pid not in self._told and pid != self._stop_command:
                    self._told.add(pid)
                    _signal(pid, signal.SIGTERM)
        return False

    def _ask(self) -> None:
        """Ask the program to end: by its own stop command, or by SIGTERM."""
        self._told.add(0)
        if self._launch["stop"]:
            self._stop_command = self._spawn(self._launch["stop"], _LOG)
        else:
            self._told.add(self._program)
            _signal(self._program, signal.SIGTERM)

    def _left(self) -> list[int]:
        """What still lives of the program."""
        if _SEES_ALL:
            return lineage.descendants(os.getpid())
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._program, 0)
            return [self._program]
        return []

    def _clear(self) -> None:
        """Kill all that is left. They are halted first, so that none gets away while the others die."""
        halted: set[int] = set()
        while new := set(self._left()) - halted:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            halted |= new
            if not _SEES_ALL:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._program, signal.SIGKILL)
        self._segments |= leftovers.segments(halted)
        for pid in halted:
            _signal(pid, signal.SIGKILL)

    def _leave(self) -> NoReturn:
        """End as the program ended, or as was asked."""
        self._reap()  # the last ones died after the last look; a zombie would go to the system's first process
        self._drain()
        self._output.finish()
        if self._segments or self._launch["scratch"]:
            leftovers.remove(self._segments, self._launch["scratch"])
        if self._orphaned:
            child.leave(_ORPHANED)
        if self._at_once:
            _die_of(signal.SIGKILL)
        if self._asked or self._status is None:
            child.leave(0)
        if os.WIFSIGNALED(self._status):
            _die_of(os.WTERMSIG(self._status))
        child.leave(os.WEXITSTATUS(self._status))


def _become(command: list[str], environment: dict[str, str], cwd: str | None, talk: tuple[int, int, int]) -> NoReturn:
    """Turn this fork of the guard into a program, or say on `report` why that cannot be."""
    guard, output, report = talk
    try:
        child.become(command, environment, cwd, guard, output)
    except (OSError, ValueError) as error:
        where = cwd if cwd is not None and getattr(error, "filename", None) == cwd else command[0]
        os.write(report, f"{getattr(error, 'strerror', error)}: {where}".encode(errors="replace")[:4096])
    finally:
        os._exit(_CANNOT_RUN)


def _free_port(host: str) -> int:
    """A port that nobody uses at this instant."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as held:
        held.bind((host, 0))
        return int(held.getsockname()[1])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _filled(item: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        item = item.replace(word, value)
    return item


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _die_of(number: int) -> NoReturn:
    """End as one that a signal ended."""
    with suppress(OSError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    child.leave(128 + number)


def main() -> None:
    """Guard the program that the launch data names."""
    child.die_with_parent(signal.SIGHUP)
    child.adopt_orphans()
    Guard(child.enter()).run()


if __name__ == "__main__":
    main()
