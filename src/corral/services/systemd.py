"""Services as systemd units, of the machine or of a user: `corral-NAME.service`, written whole, checked, then loaded.

Only units that carry our signature are touched. systemd itself is asked through its own programs, without a shell, each
call within a time-out.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from corral.domain.ports import Availability
from corral.domain.services import ServiceSpec, ServiceState, ServiceStatus, check_service
from corral.errors import ServiceError, ServiceUnavailable
from corral.kit.disk import translated
from corral.services import units
from corral.services.health import QUIET, askable, well
from corral.services.ports import refuse_taken

if TYPE_CHECKING:
    from corral.domain.ports import Clock

OLDEST = 244
"""The first version of systemd that starts commands without replacing variables in them."""
_CALL = 30.0
_MORE = 15.0
_RUNS = Path("/run/systemd/system")
_LINGER = Path("/var/lib/systemd/linger")
_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HF_HOME")
"""What a unit takes over of the environment of whoever installs it; more is said in the configuration."""
_SHOWN = (
    "LoadState,ActiveState,SubState,Job,MainPID,NRestarts,Result,ExecMainCode,ExecMainStatus,MemoryCurrent,"
    "StateChangeTimestampMonotonic,ExecMainStartTimestampMonotonic,UnitFileState"
)
_RESULTS = {
    "exit-code": "it ended with an error",
    "signal": "it was ended by a signal",
    "core-dump": "it crashed",
    "oom-kill": "the system ended it for want of memory",
    "timeout": "it was not ready, or did not stop, in time",
    "watchdog": "it did not answer its health checks",
    "start-limit-hit": "it ended too often in a row",
    "resources": "the system could not start it",
    "protocol": "it ended before it was ready",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What a program said and how it ended."""

    code: int
    output: str
    errors: str


Run = Callable[[Sequence[str], Mapping[str, str], float], Awaitable[Done]]
"""Runs a program: its arguments, its environment, the seconds it may take."""


async def run(argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> Done:
    """Run a program to its end, without a shell; when it takes too long it is killed.

    Raises:
        ServiceUnavailable: it is not installed.
        ServiceError: it took longer than `timeout` seconds.
    """
    pipe = subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=dict(environment)
        )
    except FileNotFoundError:
        raise ServiceUnavailable(f"{argv[0]} is not installed.", "Use the manager `local`.") from None
    try:
        async with asyncio.timeout(timeout):
            output, errors = await process.communicate()
    except TimeoutError:
        raise ServiceError(f"{' '.join(argv)} did not end within {timeout:g} s.", "See the journal.") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return Done(process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace"))


class SystemdServices:
    """Services as units of systemd.

    Args:
        home: Corral's.
        env: the environment of whoever asks.
        clock: time.
        user: whether it is the user's own manager, or the machine's.
        run: runs programs.
        runs: the folder that is there where systemd runs.
        linger: the folder in which it notes whose manager outlives their last session.
    """

    def __init__(
        self,
        home: Path,
        env: Mapping[str, str],
        clock: Clock,
        *,
        user: bool,
        run: Run = run,
        runs: Path = _RUNS,
        linger: Path = _LINGER,
    ) -> None:
        self.name = "systemd-user" if user else "systemd"
        self._home = home.absolute()
        self._clock = clock
        self._user = user
        self._run = run
        self._runs = runs
        self._linger = linger
        self._env = dict(env)
        runtime = Path(f"/run/user/{os.getuid()}")
        if user and not env.get("XDG_RUNTIME_DIR") and runtime.is_dir():
            self._env["XDG_RUNTIME_DIR"] = str(runtime)
        config = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or Path.home(), ".config"))
        self._units = config / "systemd" / "user" if user else Path("/etc/systemd/system")

    async def probe(self) -> Availability:
        """Whether systemd runs here and takes units from us; never raises."""
        if not self._runs.is_dir():
            return Availability(usable=False, reason="systemd does not run here.", hint="Use the manager `local`.")
        if not self._user and os.geteuid() != 0:
            hint = "Use the manager `systemd-user`, or run Corral as root."
            return Availability(usable=False, reason="Units of the machine are root's to write.", hint=hint)
        try:
            shown = await self._systemctl("show", "--property=Version", "--value")
            version = await self._version()
        except ServiceError as error:
            return Availability(usable=False, reason=error.message, hint=error.hint)
        if shown.code != 0:
            said = _first_line(shown.errors)
            hint = "Log in by a session that systemd knows, or use the manager `local`."
            return Availability(usable=False, reason=f"{self.name} cannot be asked: {said}", hint=hint)
        if version < OLDEST:
            reason = f"systemd {version} is too old: {OLDEST} is the first that will do."
            return Availability(usable=False, version=str(version), reason=reason, hint="Use the manager `local`.")
        return Availability(usable=True, version=str(version))

    async def install(self, spec: ServiceSpec) -> None:
        """See to it that the service starts with the machine, or with the user's manager.

        Raises:
            ServiceError: systemd refuses the unit.
        """
        await self._write(spec)
        await self._must("enable", units.title(spec.name))

    async def uninstall(self, spec: ServiceSpec) -> None:
        """Stop it, and remove its unit and its variables."""
        unit = units.title(check_service(spec.name))
        path = self._units / unit
        if not path.exists():
            return
        self._check_ours(spec.name, path)
        await self.stop(spec)
        await self._must("disable", unit)
        with translated("removing", path):
            path.unlink(missing_ok=True)
            self._variables_file(spec.name).unlink(missing_ok=True)
        await self._must("daemon-reload")
        await self._systemctl("reset-failed", unit)

    async def start(self, spec: ServiceSpec) -> bool:
        """Start it, after its unit has been written anew where that has changed; False when it is up already.

        Raises:
            AddressInUse: another program has its port.
            ServiceError: systemd refuses.
        """
        if (await self._shown(spec.name)).state.up:
            return False
        await refuse_taken(spec.name, spec.host, spec.port)
        await self._write(spec)
        unit = units.title(spec.name)
        await self._systemctl("reset-failed", unit)  # what happened before does not count against this start
        await self._must("start", "--no-block", unit)
        return True

    async def stop(self, spec: ServiceSpec) -> bool:
        """End it and all of its processes; False when it was not up."""
        if not (await self._shown(spec.name)).state.up:
            return False
        await self._must("stop", units.title(spec.name), timeout=spec.stop_grace + _MORE)
        return True

    async def status(self, spec: ServiceSpec) -> ServiceStatus:
        """How it stands, its health asked for now."""
        known = await self._shown(spec.name)
        state, healthy, reason = known.state, None, known.reason
        age = self._clock.now() - (known.started or 0)
        if state is ServiceState.RUNNING and askable(spec):
            healthy = await well(spec)
            if not healthy:
                state = ServiceState.STARTING if age < spec.start_timeout else ServiceState.UNHEALTHY
                reason = "it does not answer its health check"
        elif state is ServiceState.RUNNING and age < QUIET:
            state = ServiceState.STARTING
        behind = self._clock.wall() - self._clock.now()
        notes = []
        if known.loaded and not self._written(spec, await self._version()):
            notes.append("its configuration has changed since its unit was written; restart it to follow")
        if self._user and state.up and not self._lingers():
            notes.append("it ends with your last session here; keep it with: loginctl enable-linger")
        return ServiceStatus(
            name=spec.name,
            kind=spec.kind,
            manager=self.name,
            state=state,
            pid=known.pid,
            since=None if known.since is None else known.since + behind,
            started_at=None if known.started is None or not state.up else known.started + behind,
            restarts=known.restarts,
            last_exit=known.last_exit,
            healthy=healthy,
            memory=known.memory,
            port=spec.port,
            reason=reason,
            log=f"journalctl {'--user ' if self._user else ''}--unit {units.title(spec.name)}",
            notes=tuple(notes),
            installed=known.enabled,
        )

    async def log(self, spec: ServiceSpec, lines: int) -> Sequence[str]:
        """The last lines of its journal.

        Raises:
            ServiceError: the journal cannot be read.
        """
        # What it printed, and not what systemd says of it.
        which = f"{'_SYSTEMD_USER_UNIT' if self._user else '_SYSTEMD_UNIT'}={units.title(check_service(spec.name))}"
        done = await self._run(
            ["journalctl", f"--lines={lines}", "--output=cat", "--no-pager", "--quiet", which], self._env, _CALL
        )
        if done.code != 0:
            raise ServiceError(f"The journal of {spec.name!r} cannot be read: {_first_line(done.errors)}.")
        return done.output.splitlines()

    async def _write(self, spec: ServiceSpec) -> None:
        """Write unit and variables, checked by systemd itself, and have them loaded. Nothing is done when they are so.

        Raises:
            ServiceError: systemd refuses the unit, or another's lies in its place.
        """
        version = await self._version()
        path = self._units / units.title(check_service(spec.name))
        self._check_ours(spec.name, path)
        if self._written(spec, version):
            return
        text = units.unit(spec, self._place(spec, version))
        await self._verify(spec.name, text)
        with translated("writing", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self._variables_file(spec.name), units.variables(self._variables(spec)), 0o600)
            _replace(path, text, 0o644)
        await self._must("daemon-reload")

    async def _verify(self, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory(prefix="corral-") as there:
            path = Path(there, units.title(name))
            _replace(path, text, 0o600)
            mode = ["--user"] if self._user else ["--system"]
            done = await self._run(["systemd-analyze", *mode, "--man=no", "verify", str(path)], self._env, _CALL)
        if done.code != 0:
            said = _first_line(done.errors or done.output)
            raise ServiceError(f"systemd refuses the unit of {name!r}: {said}.", "Check the service's options.")

    def _written(self, spec: ServiceSpec, version: int) -> bool:
        """Whether unit and variables say what they would say if they were written now."""
        path = self._units / units.title(spec.name)
        try:
            unit = path.read_text()
            held = set(self._variables_file(spec.name).read_text().splitlines())
        except OSError:
            return False
        wanted = set(units.variables(spec.environment).splitlines())
        # What it has inherited is of whoever wrote it: another's terminal may well have another PATH.
        others = {line.partition("=")[0] for line in held - wanted}
        return unit == units.unit(spec, self._place(spec, version)) and wanted <= held and others <= set(_INHERITED)

    def _check_ours(self, name: str, path: Path) -> None:
        try:
            first = path.read_text(errors="replace").partition("\n")[0]
        except FileNotFoundError:
            return
        except OSError as error:
            raise ServiceError(f"{path} cannot be read: {error.strerror}.") from error
        if first != units.signature(name, self._home):
            raise ServiceError(
                f"{path} was not written by Corral for this home, and is left as it is.",
                "Give the service another name, or remove that unit.",
            )

    def _place(self, spec: ServiceSpec, version: int) -> units.Place:
        user = None if self._user else _owner(self._home)
        return units.Place(self._home, self._variables_file(spec.name), version, user)

    def _variables_file(self, name: str) -> Path:
        return self._units / units.variables_file(name)

    def _variables(self, spec: ServiceSpec) -> dict[str, str]:
        inherited = {name: value for name in _INHERITED if (value := self._env.get(name, "")) and value.isprintable()}
        return {**inherited, **spec.environment}

    def _lingers(self) -> bool:
        return self._linger.joinpath(pwd.getpwuid(os.getuid()).pw_name).exists()

    async def _version(self) -> int:
        done = await self._systemctl("--version")
        found = re.match(r"systemd (\d+)", done.output)
        if found is None:
            raise ServiceUnavailable("systemd does not tell its version.", "Use the manager `local`.")
        return int(found[1])

    async def _shown(self, name: str) -> _Shown:
        unit = units.title(check_service(name))
        done = await self._must("show", f"--property={_SHOWN}", unit)
        return _Shown.read(done.output)

    async def _must(self, *words: str, timeout: float = _CALL) -> Done:
        done = await self._systemctl(*words, timeout=timeout)
        if done.code != 0:
            raise ServiceError(
                f"`systemctl {' '.join(words)}` failed: {_first_line(done.errors)}",
                "See: corral services status, and the journal.",
            )
        return done

    async def _systemctl(self, *words: str, timeout: float = _CALL) -> Done:
        mode = ["--user"] if self._user else ["--system"]
        return await self._run(["systemctl", *mode, "--no-ask-password", "--no-pager", *words], self._env, timeout)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What systemd says of a unit. Times are on the machine's monotonic clock."""

    state: ServiceState
    loaded: bool
    enabled: bool
    reason: str
    pid: int | None
    restarts: int
    last_exit: str | None
    memory: int | None
    since: float | None
    started: float | None

    @classmethod
    def read(cls, text: str) -> _Shown:
        """From what `systemctl show` printed."""
        told = dict(line.partition("=")[::2] for line in text.splitlines())
        state = _state(told)
        reason = _RESULTS.get(told.get("Result", ""), "")
        return cls(
            state=state,
            loaded=told.get("LoadState") == "loaded",
            enabled=told.get("UnitFileState") == "enabled",
            reason=reason if state in (ServiceState.FAILED, ServiceState.WAITING) else "",
            pid=_number(told.get("MainPID")) or None,
            restarts=_number(told.get("NRestarts")) or 0,
            last_exit=_last_exit(told),
            memory=_number(told.get("MemoryCurrent")),
            since=_moment(told.get("StateChangeTimestampMonotonic")),
            started=_moment(told.get("ExecMainStartTimestampMonotonic")),
        )


def _state(told: Mapping[str, str]) -> ServiceState:
    match told.get("ActiveState"), told.get("SubState"):
        case "active" | "reloading", _:
            return ServiceState.RUNNING
        case "activating", "auto-restart":
            return ServiceState.WAITING
        case "activating", _:
            return ServiceState.STARTING
        case "deactivating", _:
            return ServiceState.STOPPING
        case "failed", _:
            return ServiceState.FAILED
    return ServiceState.STARTING if _number(told.get("Job")) else ServiceState.STOPPED


def _last_exit(told: Mapping[str, str]) -> str | None:
    status = told.get("ExecMainStatus", "0")
    match told.get("ExecMainCode"):
        case "1":
            return f"exited with code {status}"
        case "2" | "3":
            return f"was ended by signal {status}"
    return None


def _number(text: str | None) -> int | None:
    """A number that systemd told; its largest stands for none."""
    return int(text) if text and text.isdigit() and int(text) < 2**63 else None


def _moment(text: str | None) -> float | None:
    microseconds = _number(text)
    return microseconds / 1e6 if microseconds else None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "it gave no reason"


def _owner(home: Path) -> str:
    """Whose Corral's home is: the service runs as that user."""
    there = home
    while not there.exists() and there != there.parent:
        there = there.parent
    uid = there.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file whole, readable by those only that `mode` names from its first moment on."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "w") as out:  # noqa: PTH123 — the descriptor has the mode
            out.write(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
