"""A PostgreSQL of the tests' own: a cluster in a folder, reached by a socket in it, that listens on no network."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ACCOUNT = "postgres"  # PostgreSQL refuses to run as root


def _programs() -> Path | None:
    """Where initdb and pg_ctl are: Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    command = shutil.which("initdb")
    return None if command is None else Path(command).parent


class Cluster:
    """A PostgreSQL cluster in a folder of its own, reached by a socket in that folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self.folder = folder
        self._data = str(folder / "data")

    def new(self) -> str:
        """The address of a fresh, empty database."""
        name = f"t{secrets.token_hex(6)}"
        self._run("psql", "-h", str(self.folder), "-U", ACCOUNT, "-d", "postgres", "-qc", f"CREATE DATABASE {name}")
        return f"postgresql://{ACCOUNT}@/{name}?host={self.folder}"

    def make(self) -> None:
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", ACCOUNT, "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        lead = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*lead, str(self._programs / program), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}"


@contextmanager
def address(kind: str) -> Iterator[str]:
    """Where a database of that kind is: empty for `sqlite`, which is a file of the home; for `postgresql` a new one."""
    if kind == "sqlite":
        yield ""
        return
    with cluster() as running:
        yield running.new()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running PostgreSQL for the block; skips the test, with the reason, where there is none."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL here (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="corral-pg-"))  # not in pytest's folder: the account may not enter that
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, ACCOUNT)
        made = Cluster(programs, folder)
        made.make()
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)
