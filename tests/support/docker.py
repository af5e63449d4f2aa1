"""A Docker engine of the tests' own, never the machine's: all of it is in one short temporary folder.

    def test_x(docker: Engine):            one engine for a test file, running and empty at each test's start
        docker.address                     "unix:///tmp/dk…/docker.sock": give it to `docker.host` in settings
        docker.cli("ps", "--all")          the docker command line on it: what really is there, and what is done by hand
        docker.seen()                      {container's name: what `docker inspect` says of it}
        docker.json("info")                a command's output, read as JSON
        docker.image(TINY)                 loads an image if it is not there (0.1 s; PLAYER 1 s; CORRAL 3 s), names it
        docker.stop(); docker.start(); docker.kill()     the engine itself: SIGTERM, anew, SIGKILL
        docker.pid                         of dockerd
    def test_y(bridged: Engine):           the same in its own network namespace, with a bridge and published ports
        with bridged.forwarded(11434):     127.0.0.1:11434 there is 127.0.0.1:11434 here, for the block's length
        bridged.inside                     words before a command that shall run in that namespace
    def test_z(docker: Engine, corral_image: str, model_store: Path): ...   also tiny_image, player_image

The engine `docker` has no bridge: its containers have network `host` (bind to 127.0.0.1, on a port of `free_port()`) or
`none`. All that is load, fault or kill is done there. `bridged` is for what needs published ports, for few requests.
Images: see tests/support/docker_images.py, and for the words of tiny tests/images/tiny.sh. In short

    docker.cli("run", "-d", "--name", "one", "--network", "host", docker.image(TINY), "serve", "18000", "127.0.0.1")
    OLLAMA_HOST=127.0.0.1:PORT             in the environment: where PLAYER and CORRAL listen; 0.0.0.0:11434 without it
    {str(model_store): "/seed:ro"}         as a mount: CORRAL has these models (`smollm2`) from the start

    until(lambda: docker.seen()["one"]["State"]["Running"])     waits for what other processes do

A test is skipped aloud where this cannot be had (no root, no dockerd, no busybox). Nothing is left behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import docker_images
from tests.support.docker_images import CORRAL, PLAYER, TINY

__all__ = ["CORRAL", "PLAYER", "TINY", "Engine", "bridged", "corral_image", "docker", "running", "until"]

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_NO_BRIDGE = ("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
_NEWNET = 0x40000000


def lacking(*, bridge: bool = False) -> str:
    """Why there can be no engine here; empty when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Docker engine of our own needs Linux and root"
    needed = ("dockerd", "docker", *(("iptables", "unshare", "nsenter", "ip") if bridge else ()))
    missing = [name for name in needed if not program(name)]
    return f"a Docker engine of our own needs {', '.join(missing)} (Debian: docker.io iptables)" if missing else ""


def program(name: str) -> str:
    """Where a program of the administrator is; empty where it is not."""
    return shutil.which(name, path=PATH) or ""


def until(condition: Callable[[], Any], within: float = 90.0) -> Any:
    """What `condition` gives as soon as that is true; for what other processes do."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {within:g} s"
        time.sleep(0.02)
    return found


class Engine:
    """A Docker engine, and what a test does with it."""

    def __init__(self, folder: Path, *flags: str, bridge: bool = False) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.address = f"unix://{self.socket}"
        self.bridge = bridge
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self._images: set[str] = set()

    @property
    def pid(self) -> int:
        """The process of dockerd."""
        assert self._process is not None, "the engine is stopped"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def command(self) -> tuple[str, ...]:
        """The docker command line on this engine; what the user's own is set to has no say."""
        return ("docker", "--config", str(self.folder / "client"), "--host", self.address)

    @property
    def inside(self) -> tuple[str, ...]:
        """Words before a command that shall run where the engine's network is."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--") if self.bridge else ()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers. Its images and containers are still there."""
        if self.running:
            return
        command = [
            *("dockerd", "--host", self.address),
            *(() if "--data-root" in self._flags else ("--data-root", f"{self.folder}/data")),
            *("--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid", "--shutdown-timeout", "3"),
            *(() if self.bridge else _NO_BRIDGE),
            *self._flags,
        ]
        if self.bridge:  # exec keeps the process's number through both
            command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 60
        while self.run("version").returncode != 0:
            assert self._process.poll() is None, self.log[-2000:]
            assert time.monotonic() < until, f"dockerd did not come up: {self.log[-2000:]}"

    def stop(self) -> None:
        """End it politely: its containers end with it, unless it was told `--live-restore`."""
        self._end(psutil.Process(self.pid).terminate if self.running else None)

    def kill(self) -> None:
        """End it at once. Its containers go on until it is started again, and with `--live-restore` beyond that."""
        if not self.running:
            return
        helpers = [each for each in psutil.Process(self.pid).children() if each.name() == "containerd"]
        self._end(psutil.Process(self.pid).kill)
        for helper in helpers:
            with suppress(psutil.NoSuchProcess):
                helper.kill()
        # Where nobody reaps orphans, its successor would take the dead helper for one that is well.
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def run(self, *words: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
        """The docker command line, whatever comes of it."""
        return subprocess.run(
            [*self.command, *words],
            env=_environment(),
            input=typed,
            stdin=subprocess.DEVNULL if typed is None else None,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def cli(self, *words: str) -> str:
        """The docker command line, which shall succeed; what it printed."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.strip()

    def json(self, *words: str) -> Any:
        """The same, read as JSON."""
        return json.loads(self.cli(*words, "--format", "{{json .}}"))

    def seen(self) -> dict[str, dict[str, Any]]:
        """Every container by its name, as the engine describes it; one that goes meanwhile is not among them."""
        ids = self.cli("ps", "--all", "--quiet", "--no-trunc").split()
        found = json.loads(self.run("inspect", *ids).stdout) if ids else []
        return {each["Name"].removeprefix("/"): each for each in found}

    def image(self, name: str) -> str:
        """`name`, an image for tests that is on the engine from now on."""
        if name not in self._images:
            if why := docker_images.lacking(name):
                pytest.skip(why)
            docker_images.load(name, self.command)
            self._images.add(name)
        return name

    def forget(self, name: str) -> None:
        """An image for tests was removed: `image` loads it anew."""
        self._images.discard(name)

    def empty(self) -> None:
        """Remove every container, volume and network that tests made."""
        if ids := self.cli("ps", "--all", "--quiet").split():
            self.run("rm", "--force", "--volumes", *ids)
        if names := self.cli("volume", "ls", "--quiet").split():
            self.run("volume", "rm", "--force", *names)
        if self.bridge:
            self.run("network", "prune", "--force")

    def close(self) -> None:
        """End it with everything of it."""
        if self._process is None or not self.running:
            self.start()  # what a killed engine left running ends with its successor
        self.empty()
        below = psutil.Process(self.pid).children(recursive=True)
        self.stop()
        psutil.wait_procs(below, timeout=60)
        for mount in self._mounts():
            subprocess.run(["umount", mount], capture_output=True, check=False)

    @contextmanager
    def forwarded(self, *ports: int) -> Iterator[None]:
        """Ports of the engine's own loopback on this machine's, each by the same number."""
        servers = [_Forward(port, self) for port in ports]
        threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                thread.join()
                server.server_close()

    def _end(self, how: Any) -> None:
        if how is None or self._process is None:
            return
        how()
        self._process.wait(60)
        self._process = None

    def _mounts(self) -> list[str]:
        """What the engine left mounted below its folder, the innermost first."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return sorted(
            (line.split()[1] for line in lines if line.split()[1].startswith(f"{self.folder}/")), reverse=True
        )


class _Forward(socketserver.ThreadingTCPServer):
    """A port of loopback that goes on in the network namespace that the engine has by then."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, engine: Engine) -> None:
        self.there, self.engine = port, engine
        super().__init__(("127.0.0.1", port), _Pump)


class _Pump(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Forward)
        if not server.engine.running:
            return
        with open(f"/proc/{server.engine.pid}/ns/net", "rb") as namespace:  # noqa: PTH123 - a descriptor is wanted
            # Of this thread alone, which ends with the connection; a socket stays in the namespace it was made in.
            done = ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEWNET)
            assert done == 0, os.strerror(ctypes.get_errno())
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.there), timeout=60) as there:
            self._pump(there)

    def _pump(self, there: socket.socket) -> None:
        other = {self.request: there, there: self.request}
        reading = set(other)
        while reading:
            for ready in select.select(list(reading), (), ())[0]:
                if data := ready.recv(65536):
                    other[ready].sendall(data)
                else:
                    reading.discard(ready)
                    other[ready].shutdown(socket.SHUT_WR)


@contextmanager
def running(*flags: str, bridge: bool = False) -> Iterator[Engine]:
    """An engine with further flags of dockerd's, such as `--live-restore`, for the block's length."""
    if why := lacking(bridge=bridge):
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="dk", dir="/tmp") as made:  # a socket's path has 107 bytes
        engine = Engine(Path(made), *flags, bridge=bridge)
        engine.start()
        try:
            yield engine
        finally:
            engine.close()


@pytest.fixture(scope="module")
def docker_of_module() -> Iterator[Engine]:
    with running() as engine:
        yield engine


@pytest.fixture
def docker(docker_of_module: Engine) -> Iterator[Engine]:
    """A Docker engine without a bridge, running and without containers; its images stay for the file's other tests."""
    yield from _for_one_test(docker_of_module)


@pytest.fixture(scope="module")
def bridged_of_module() -> Iterator[Engine]:
    with running(bridge=True) as engine:
        yield engine


@pytest.fixture
def bridged(bridged_of_module: Engine) -> Iterator[Engine]:
    """A Docker engine with a bridge and published ports, in a network namespace of its own."""
    yield from _for_one_test(bridged_of_module)


@pytest.fixture
def tiny_image(docker: Engine) -> str:
    """The name of the smallest image, which is on `docker`."""
    return docker.image(TINY)


@pytest.fixture
def player_image(docker: Engine) -> str:
    """The name of the image that plays Ollama, which is on `docker`."""
    return docker.image(PLAYER)


@pytest.fixture
def corral_image(docker: Engine) -> str:
    """The name of the image that serves real models, which is on `docker`."""
    return docker.image(CORRAL)


def _for_one_test(engine: Engine) -> Iterator[Engine]:
    engine.start()
    yield engine
    engine.start()
    engine.empty()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COVERAGE_"))}
    return {**kept, "PATH": PATH}
