"""A machine that systemd runs: a container with systemd as its first process, and Corral as it stands in this folder.

The root file system is Debian's own, made by debootstrap from the mirror that this machine uses, once; it is kept as an
archive in the engines' cache. It is the same release as this machine, whose Python and packages are bound into it,
read-only and at their own paths. The container has no network, and its engine (`dockerd`) is started for it alone.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from tests.support import docker

ROOT = Path(__file__).parent.parent.parent
HOME = "/srv/yard"
USER = "ada"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "python3")
_IMAGE = "corral-systemd"


def lacking() -> str:
    """Why no such machine can be made here; empty when it can."""
    return docker.lacking() or ("" if docker.program("debootstrap") else "a container with systemd needs debootstrap")


@dataclass(frozen=True)
class Machine:
    """A machine with systemd. Commands are run in it as root, or as the user `ada`, whose manager lingers."""

    docker: tuple[str, ...]
    name: str

    def run(self, *argv: str, user: bool = False, typed: str = "", code: int | None = 0) -> str:
        """Run a command there; what it printed."""
        uid = self._uid() if user else 0
        env = [f"CORRAL_HOME={HOME}", "NO_COLOR=1", f"XDG_RUNTIME_DIR=/run/user/{uid}", f"HOME={HOME if user else '/'}"]
        options = ["--interactive", "--user", str(uid), *(part for item in env for part in ("--env", item))]
        done = subprocess.run(
            [*self.docker, "exec", *options, self.name, *argv],
            input=typed,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert code is None or done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)
        return done.stdout if done.returncode == 0 or code is None else done.stdout + done.stderr

    def corral(self, *words: str, user: bool = False, code: int = 0) -> Any:
        """`corral … --json` there; what it said, or its error."""
        said = self.run(str(Path(sys.prefix, "bin", "corral")), *words, "--json", user=user, code=code)
        return json.loads(said.strip().splitlines()[-1])

    def systemctl(self, *words: str, user: bool = False, code: int | None = 0) -> str:
        return self.run("systemctl", *(["--user"] if user else []), *words, user=user, code=code).strip()

    def write(self, path: str, text: str) -> None:
        self.run("tee", path, typed=text)
        self.run("chown", USER, path)

    def kill(self, pid: int) -> None:
        """SIGKILL to a process."""
        self.run("python3", "-c", f"import os; os.kill({pid}, 9)")

    def processes(self, word: str) -> list[str]:
        """Commands that have `word` in them."""
        code = (
            "import pathlib\nfor p in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
            "    try: print(p.read_text().replace(chr(0), ' '))\n    except OSError: pass"
        )
        return [line for line in self.run("python3", "-c", code).splitlines() if word in line]

    def _uid(self) -> int:
        return 1000


@contextmanager
def machine() -> Iterator[Machine]:
    """Such a machine, for the block's length; nothing of it is left afterwards but the archive."""
    archive = _archive()
    with docker.running() as engine:
        with archive.open("rb") as source:
            subprocess.run(
                [*engine.command, "import", "--change", 'CMD ["/sbin/init"]', "-", _IMAGE],
                stdin=source,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        built = Machine(engine.command, "machine")
        engine.cli("run", "--detach", "--name", built.name, *_options(), _IMAGE)
        _settle(built)
        yield built


def _settle(built: Machine) -> None:
    """Wait until it is up, and give it its user."""
    until = time.monotonic() + 90
    while built.run("systemctl", "is-system-running", "--wait", code=None).strip() not in ("running", "degraded"):
        assert time.monotonic() < until, "systemd did not come up"
    built.run("useradd", "--create-home", "--home-dir", HOME, "--uid", "1000", USER)
    for path in _bound():
        for parent in path.parents:  # made for the mounts; and the home of root is closed to others
            built.run("chmod", "o+x", str(parent), code=None)
    built.run("loginctl", "enable-linger", USER)
    while not built.run("systemctl", "is-active", "user@1000.service", code=None).startswith("active"):
        assert time.monotonic() < until, "the user's manager did not come up"


def _options() -> list[str]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    groups = ["--cgroupns", "host"] if unified else []
    return [
        *("--network", "none", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", *groups),
        *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"),
        *("--volume", f"/sys/fs/cgroup:/sys/fs/cgroup:{'rw' if unified else 'ro'}"),
        *(part for path in _bound() for part in ("--volume", f"{path}:{path}:ro")),
    ]


def _bound() -> Sequence[Path]:
    """The folders of this machine that are needed there: the sources, the packages, the interpreter."""
    wanted = [ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    found: list[Path] = []
    for path in wanted:
        if path != Path("/usr") and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def _archive() -> Path:
    """The root file system of this machine's own release of Debian; made when it is not there yet."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corral-engines"
    folder = Path(os.environ.get("CORRAL_ENGINES") or cache)
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"systemd-{release}-{platform.machine()}.tar"
    with (folder / "systemd.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not archive.exists():
            with tempfile.TemporaryDirectory(prefix="corral-debian-") as there:
                _bootstrap(release, there)
                beside = archive.with_suffix(".part")
                subprocess.run(["tar", "-C", there, "-cf", str(beside), "."], check=True)
                beside.replace(archive)
    return archive


def _bootstrap(release: str, folder: str) -> None:
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    mirrors = [line.split()[0] for line in listed.stdout.splitlines() if line.split()[1:] == [release, "main"]]
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", release, folder, *mirrors[:1]],
        env={**os.environ, "PATH": docker.PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
