"""Databases for tests: SQLite in a folder, and a PostgreSQL cluster of our own that listens on no network.

A module that wants both imports the fixtures `cluster` and `database_url`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
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

    @property
    def admin(self) -> str:
        return f"postgresql://{ACCOUNT}@/postgres?host={self.folder}"

    def new(self) -> str:
        """The address of a fresh, empty database."""
        name = f"t{secrets.token_hex(6)}"
        self._run("psql", "-h", str(self.folder), "-d", "postgres", "-qc", f"CREATE DATABASE {name}")
        return f"postgresql://{ACCOUNT}@/{name}?host={self.folder}"

    def start(self) -> None:
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-A", "trust", "-U", ACCOUNT, "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        self._run("pg_ctl", "-D", data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

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


@pytest.fixture(scope="module")
def cluster():
    """A running PostgreSQL; ended with the module."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL here (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="corral-pg-"))  # not in pytest's folder: the account may not enter that
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, ACCOUNT)
        cluster = Cluster(programs, folder)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """What `database.url` says: nothing, or an empty database of PostgreSQL."""
    return None if request.param == "sqlite" else request.getfixturevalue("cluster").new()
