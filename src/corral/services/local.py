"""Services as local processes, each with a keeper of its own (`_keeper`) that outlives Corral and the terminal.

Whoever comes later, another Corral or the terminal, finds the service by the files in its folder (`folder`). Of two who
start it at once, one does: the keeper's lock is taken by whoever starts it and handed on to the keeper, so that there
is no moment in which neither holds it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from corral.domain.ports import Availability
from corral.domain.services import ServiceSpec, ServiceState, ServiceStatus
from corral.errors import ServiceError, ServiceUnavailable
from corral.kit import lineage, pidfile
from corral.kit.disk import lies_at, translated, try_lock
from corral.kit.process import child_environment, module_argv
from corral.services.folder import Folder, Record, fingerprint, packed
from corral.services.ports import refuse_taken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from corral.domain.ports import Clock

_PAUSE = 0.02
"""Seconds between two looks at what another process does."""
_START = 30.0
"""Seconds that a keeper may take to come up, on a machine that is very busy."""
_MORE = 10.0
"""Seconds beyond the service's own grace that its keeper may take to stop."""


class LocalServices:
    """Local services, kept below `home`. They inherit `env` but for what looks like a credential."""

    name = "local"

    def __init__(self, home: Path, env: Mapping[str, str], clock: Clock) -> None:
        self._home = home.absolute()
        self._env = env
        self._clock = clock

    async def probe(self) -> Availability:
        """Local processes can be kept wherever Corral runs."""
        return Availability(usable=True)

    async def install(self, spec: ServiceSpec) -> None:
        """Cannot be done.

        Raises:
            ServiceUnavailable: always.
        """
        raise ServiceUnavailable(
            f"{spec.name!r} is a local process: nothing here can start it with the machine.",
            f"Set services.{spec.name}.manager to systemd-user or systemd where that runs, or start it yourself.",
        )

    async def uninstall(self, spec: ServiceSpec) -> None:
        """Stop it, and remove what was written for it, but its log.

        Raises:
            ServiceError: another has started it again in the meantime.
        """
        await self.stop(spec)
        folder = Folder(self._home, spec.name)
        lock = _lock(folder)
        if lock is None:
            if folder.path.exists():
                raise ServiceError(
                    f"{spec.name!r} is not removed: another process has started it again.",
                    f"Once more: corral services uninstall {spec.name}",
                )
            return
        try:
            for path in (folder.status, folder.pid, folder.lock):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.path.rmdir()  # unless its log is in it
        finally:
            os.close(lock)

    async def start(self, spec: ServiceSpec) -> bool:
        """Start it; False when it is up already.

        Raises:
            AddressInUse: another program has its port.
            ServiceError: its keeper could not be started.
        """
        folder = Folder(self._home, spec.name)
        lock = await self._claim(folder)
        if lock is None:
            return False
        try:
            await asyncio.to_thread(_tidy, folder)
            await refuse_taken(spec.name, spec.host, spec.port)
            await self._launch(spec, lock)
        finally:
            os.close(lock)
        return True

    async def stop(self, spec: ServiceSpec) -> bool:
        """End it and all of its processes; False when it was not up."""
        folder = Folder(self._home, spec.name)
        keeper = pidfile.read(folder.pid)
        up = keeper is not None and pidfile.send(keeper, signal.SIGTERM)
        if keeper is not None and up:
            grace = spec.stop_grace + _MORE
            if not await self._gone(keeper, grace):
                pidfile.send(keeper, signal.SIGKILL)
                await self._gone(keeper, _MORE)
        await self._look(folder)
        return up

    async def status(self, spec: ServiceSpec) -> ServiceStatus:
        """How it stands."""
        folder = Folder(self._home, spec.name)
        record = await self._look(folder)
        keeper = pidfile.read(folder.pid) if record.state.up else None
        memory = None if keeper is None or record.pid is None else await asyncio.to_thread(_resident, keeper.pid)
        notes = []
        if record.state.up and record.print and record.print != fingerprint(spec, record.mark):
            notes.append("its configuration has changed since it was started; restart it to follow")
        if spec.memory is not None:
            notes.append("memory is not limited for a local process; systemd does that")
        return ServiceStatus(
            name=spec.name,
            kind=spec.kind,
            manager=self.name,
            state=record.state,
            pid=record.pid,
            since=record.since,
            started_at=record.started_at if record.state.up else None,
            restarts=record.restarts,
            last_exit=record.last_exit,
            healthy=record.healthy,
            memory=memory,
            port=spec.port,
            reason=record.reason,
            log=str(folder.log),
            notes=tuple(notes),
        )

    async def log(self, spec: ServiceSpec, lines: int) -> Sequence[str]:
        """The last lines of its log, our own remarks among them."""
        return await asyncio.to_thread(Folder(self._home, spec.name).tail, lines)

    async def _claim(self, folder: Folder) -> int | None:
        """The keeper's lock, as a descriptor; None when a keeper has it that is up."""
        until = self._clock.now() + _START
        while True:
            with translated("making", folder.path):
                folder.make()  # each time: who removes the service takes the folder with it
            lock = _lock(folder)
            if lock is not None:
                return lock
            keeper = pidfile.read(folder.pid)
            state = folder.read().state
            # One that has said that it failed is about to go, as one that stops: it keeps nothing any more.
            if keeper is not None and pidfile.alive(keeper) and state.up and state is not ServiceState.STOPPING:
                return None
            if self._clock.now() > until:
                raise ServiceError(
                    f"{folder.path.name!r} cannot be started: another process has been starting or stopping it for "
                    f"{_START:g} s.",
                    f"See what it does: corral services status {folder.path.name}",
                )
            await self._clock.sleep(_PAUSE)

    async def _launch(self, spec: ServiceSpec, lock: int) -> None:
        """Start the keeper, which takes the lock over, and wait until it says that it keeps."""
        ours = {name: value for name, value in child_environment(self._env).items() if name != lineage.MARK}
        launch = {
            "home": str(self._home),
            "spec": packed(spec),
            "environment": {**ours, **spec.environment},
            "mark": secrets.token_hex(16),
            "lock": lock,
        }
        process = await asyncio.create_subprocess_exec(
            *module_argv("corral.services._keeper"),
            spec.name,  # only for whoever lists processes
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ours,
            pass_fds=(lock,),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START):
                said, complaint = await process.communicate(json.dumps(launch).encode() + b"\n")
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise ServiceError(f"The keeper of {spec.name!r} did not come up within {_START:g} s.") from None
        if said != b"kept\n":
            last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise ServiceError(
                f"The keeper of {spec.name!r} could not be started: {last[0]}.", "See the log of this machine."
            )

    async def _look(self, folder: Folder) -> Record:
        """What its folder says, which is made true first when its keeper was killed.

        Raises:
            ServiceError: a keeper has its lock, and its PID file does not say which.
        """
        until = self._clock.now() + _START
        record = await asyncio.to_thread(folder.read)
        while record.state.up or folder.pid.exists():
            lock = _lock(folder)
            if lock is not None:
                try:
                    await asyncio.to_thread(_tidy, folder)
                finally:
                    os.close(lock)
                return folder.read()
            keeper = pidfile.read(folder.pid)
            if keeper is not None and pidfile.alive(keeper):
                return folder.read()
            if self._clock.now() > until:
                raise ServiceError(
                    f"{folder.path.name!r} is kept by a process that {folder.pid} does not name: the file was changed.",
                    f"End who holds {folder.lock} (fuser, or lsof, names it); then start the service again.",
                )
            await self._clock.sleep(_PAUSE)  # it comes up, or goes, just now
            record = folder.read()
        return record

    async def _gone(self, keeper: pidfile.Identity, within: float) -> bool:
        until = self._clock.now() + within
        while pidfile.alive(keeper):
            if self._clock.now() >= until:
                return False
            await self._clock.sleep(_PAUSE)
        return True


def _lock(folder: Folder) -> int | None:
    """The keeper's lock, if nobody holds it."""
    try:
        descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    if try_lock(descriptor) and lies_at(descriptor, folder.lock):  # else it was removed since it was opened
        return descriptor
    os.close(descriptor)
    return None


def _tidy(folder: Folder) -> None:
    """Put right what a keeper left that was killed: end what it kept, and say so. Call it with the lock. Blocks.

    Only what carries the mark of that keeper in its environment is ended, and nothing by its number alone.
    """
    record = folder.read()
    if record.state.up:
        if record.mark:
            lineage.sweep(-1, record.mark)  # no session has that number
        reason = "its keeper was killed, and it with it"
        folder.write(replace(record, state=ServiceState.FAILED, pid=None, healthy=None, reason=reason))
    folder.pid.unlink(missing_ok=True)


def _resident(keeper: int) -> int | None:
    """Bytes of memory that what it keeps holds, shared pages counted once; None when that cannot be told. Blocks."""
    import psutil

    total: int | None = None
    for pid in lineage.descendants(keeper):
        with suppress(psutil.Error):
            full = psutil.Process(pid).memory_full_info()
            total = (total or 0) + getattr(full, "pss", full.uss)
    return total
