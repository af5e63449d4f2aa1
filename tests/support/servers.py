"""A Corral server of its own process, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

CORRAL = Path(sys.executable).with_name("corral")
RENDERER = "corral.workspace.pipelines._rendering"


@dataclass
class Server:
    """A running server. `engines` are the processes below it."""

    url: str
    home: Path
    process: subprocess.Popen[str]
    env: Mapping[str, str] = field(repr=False)

    @property
    def base_url(self) -> str:
        """Where OpenAI's clients are pointed."""
        return self.url + "/v1"

    def engines(self) -> list[psutil.Process]:
        """The server's children now, without the one that renders templates: it stays for a while."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if RENDERER not in process.cmdline():
                    found.append(process)
        return found


def environment(home: Path, models_dir: Path | None = None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a user whose home is `home`, with nothing of Corral's left in it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CORRAL_")}
    env |= {"HOME": str(home), "CORRAL_HOME": str(home / ".corral"), "NO_COLOR": "1"}
    if models_dir is not None:
        env["CORRAL_STORE_MODELS_DIR"] = str(models_dir)
    return env | dict(more or {})


@contextmanager
def corral_server(
    home: Path, config: str = "", *, models_dir: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server on a port of the kernel's choosing, with `config` as its corral.yaml; stopped politely afterwards."""
    folder = home / ".corral"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corral.yaml").write_text(config)
    surroundings = environment(home, models_dir, env)
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [CORRAL, "--json", "serve", "--port", "0"],
            env=surroundings,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (home / "server.log").read_text()
        yield Server(json.loads(line)["url"], folder, process, surroundings)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(90)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def ended(processes: list[psutil.Process], within: float = 90.0) -> bool:
    """Whether every process is gone, waiting for that for at most `within` seconds."""
    _, alive = psutil.wait_procs(processes, timeout=within)
    return not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
