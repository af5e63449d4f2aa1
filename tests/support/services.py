"""Programs that misbehave as servers do, services that are watched quickly, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from corral.domain.services import ServiceSpec, ServiceState, ServiceStatus, Vigilance
from corral.kit.clock import SystemClock
from corral.services.local import LocalServices
from support.ports import free_port

QUICK = Vigilance(every=0.05, timeout=5.0, failures=3, first=0.05, longest=0.2, settled=60.0, crashes=4)

SERVER = """
import http.server, os, pathlib, signal, subprocess, sys, threading, time

port, *modes = int(sys.argv[1]), *sys.argv[2:]
print("server says hello", flush=True)
if "deaf" in modes:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "forks" in modes:
    rest = [sys.executable, "-c", "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"]
    subprocess.Popen([*rest, __file__, "child"])
    subprocess.Popen([*rest, __file__, "own session"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(rest[0], [*rest, __file__, "daemon"])
        os._exit(0)
if "waits" in modes:
    pathlib.Path("go").read_text()
    sys.exit(3)
if "crashes" in modes:
    print("no such model", flush=True)
    sys.exit(3)
if "flood" in modes:
    while True:
        os.write(1, b"x" * 200 + bytes([10]))
if "environment" in modes:
    print(sorted(os.environ.items()), flush=True)
    import resource
    print("core", resource.getrlimit(resource.RLIMIT_CORE), flush=True)

hung = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: hung.set())

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if hung.is_set():
            time.sleep(3600)
        self.send_response(503 if "sick" in modes else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

Server(("127.0.0.1", port), Handler).serve_forever()
"""


class Place:
    """A home with services in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.program = folder / "server.py"
        self.program.write_text(SERVER)

    def manager(self, env: dict[str, str] | None = None) -> LocalServices:
        return LocalServices(self.home, dict(os.environ) if env is None else env, SystemClock())

    def spec(self, *modes: str, name: str = "web", **more: Any) -> ServiceSpec:
        port = more.pop("port", None) or free_port()
        argv = (sys.executable, str(self.program), str(port), *modes)
        given = {"port": port, "health": f"http://127.0.0.1:{port}/", "vigilance": QUICK, "stop_grace": 5.0, **more}
        return ServiceSpec(name, "command", argv, start_timeout=given.pop("start_timeout", 20.0), **given)

    def left(self) -> list[str]:
        """Commands of the processes that belong to this place: their arguments or their folder lie in it."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if any(str(self.folder) in word for word in words) or process.cwd().startswith(str(self.folder)):
                    found.append(f"{process.pid} {' '.join(words)}")
            except psutil.Error:
                continue
        return found


async def until(condition: Callable[[], Any], within: float = 90.0) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


async def until_state(manager: LocalServices, spec: ServiceSpec, *states: ServiceState) -> ServiceStatus:
    """Wait until the service stands so."""
    status = await manager.status(spec)
    try:
        async with asyncio.timeout(90):
            while status.state not in states:
                await asyncio.sleep(0.01)
                status = await manager.status(spec)
    except TimeoutError:
        raise AssertionError(f"{status}\n{await manager.log(spec, 20)}") from None
    return status
