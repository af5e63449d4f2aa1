"""The folder of one local service, and what lies in it.

HOME/services/NAME/
  keeper.lock    locked by the keeper for as long as it lives: the lock says whether one does, the files do not
  keeper.pid     the keeper, so that it can be told to stop (`kit.pidfile`)
  status.json    how the service stands, written by its keeper; stays when that is gone
  service.log    what it printed; service.log.1 is what came before
  environment    its variables, for systemd; for its owner's eyes only
"""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from corral.domain.services import ServiceSpec, ServiceState, Vigilance


@dataclass(frozen=True, slots=True)
class Record:
    """How a service stands, as its keeper writes it down. Unix seconds.

    `mark` is in the environment of each of its processes, by which they are known also when the keeper that started
    them was killed. `print` is of the configuration it was started with.
    """

    state: ServiceState = ServiceState.STOPPED
    pid: int | None = None
    since: float | None = None
    started_at: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    healthy: bool | None = None
    reason: str = ""
    mark: str = ""
    print: str = ""


class Folder:
    """Paths and files of the service `name` below `home`. Everything here blocks, briefly."""

    def __init__(self, home: Path, name: str) -> None:
        self.path = home / "services" / name
        self.lock = self.path / "keeper.lock"
        self.pid = self.path / "keeper.pid"
        self.status = self.path / "status.json"
        self.log = self.path / "service.log"

    def make(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            OSError: it cannot be made.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> Record:
        """How the service stands, or stood; stopped when nothing is known."""
        try:
            known = json.loads(self.status.read_text())
            return Record(**{**known, "state": ServiceState(known["state"])})
        except (OSError, ValueError, KeyError, TypeError):
            return Record()

    def write(self, record: Record) -> None:
        """Write down how it stands: whole, or not at all.

        Raises:
            OSError: it could not be written.
        """
        beside = self.status.with_name(f"status.{secrets.token_hex(4)}.tmp")
        try:
            beside.write_text(json.dumps(asdict(record)))
            beside.replace(self.status)
        finally:
            beside.unlink(missing_ok=True)

    def tail(self, lines: int) -> list[str]:
        """The last lines of its log, oldest first."""
        found: list[str] = []
        for path in (self.log, self.log.with_name(f"{self.log.name}.1")):
            if len(found) < lines:
                with suppress(OSError):
                    found = [*_last_lines(path, lines - len(found)), *found]
        return found


def packed(spec: ServiceSpec) -> dict[str, Any]:
    """A spec as JSON can hold it."""
    return {**asdict(spec), "cwd": None if spec.cwd is None else str(spec.cwd)}


def unpacked(content: dict[str, Any]) -> ServiceSpec:
    """A spec from what `packed` made of it."""
    cwd = content["cwd"]
    spec = ServiceSpec(**{**content, "argv": tuple(content["argv"]), "cwd": None if cwd is None else Path(cwd)})
    return replace(spec, vigilance=Vigilance(**content["vigilance"]))


def fingerprint(spec: ServiceSpec, salt: str) -> str:
    """What tells this configuration from another, and nothing of what it says."""
    return hashlib.sha256((salt + json.dumps(packed(spec), sort_keys=True)).encode()).hexdigest()


def _last_lines(path: Path, lines: int) -> list[str]:
    with path.open("rb") as file:
        end = file.seek(0, 2)
        held = b""
        while end > 0 and held.count(b"\n") <= lines:
            step = min(65536, end)
            end -= step
            file.seek(end)
            held = file.read(step) + held
    return [piece.decode(errors="replace") for piece in held.splitlines()[-lines:]]
