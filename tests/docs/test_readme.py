"""A stranger follows the README: a fresh clone, an empty home, its commands as they stand.

Every `sh` block is run, in order, with one change: the port, which may be taken on the machine that tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.docs.pages import ROOT, read
from tests.support.docker import PLAYER, Engine

README = read("README.md")
COMMANDS = README.blocks("sh")
PIPELINE = next(block for block in README.blocks("yaml") if block.startswith("name: leaflet"))
PYTHON = next(block for block in README.blocks("python") if "import openai" in block)
UNREACHABLE = "http://127.0.0.1:9"


class Stranger:
    """Somebody with a clone, a home with nothing in it, and what the machine says of its package index."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.home = folder / "clone", folder / "home"
        self.home.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        own = ("CORRAL_", "COVERAGE_", "COV_", "PYTEST_", "VIRTUAL_ENV", "PYTHONPATH", "MAKE", "MFLAGS", "ARGS", "XDG_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        path = [place for place in kept["PATH"].split(os.pathsep) if Path(place) != Path(sys.prefix, "bin")]
        self.env = {
            **kept,
            "PATH": os.pathsep.join(path),
            "HOME": str(self.home),
            "CORRAL_SERVER_PORT": self.port,
            "PYTHONUNBUFFERED": "1",
        }

    def take(self) -> None:
        """What a clone would hold if everything here were committed."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.clone / name)

    def said(self, text: str) -> str:
        return text.replace("7860", self.port)

    def types(self, command: str) -> str:
        """What a command prints; it must succeed."""
        done = subprocess.run(
            ["sh", "-e", "-c", self.said(command)],
            cwd=self.clone,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self, command: str, **env: str) -> Iterator[list[str]]:
        """`command` in a terminal of its own until it answers, and Ctrl-C at the end. Yields what it said."""
        with subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.clone,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            lines: list[str] = []
            family: list[psutil.Process] = []
            try:
                for line in process.stdout:
                    lines.append(line)
                    if "Ctrl-C stops" in line:
                        break
                assert process.poll() is None, "".join(lines)
                yield lines
                family = psutil.Process(process.pid).children(recursive=True)
                os.killpg(process.pid, signal.SIGINT)
                process.stdout.read()
                process.wait(60)
                _, alive = psutil.wait_procs(family, timeout=30)
                assert alive == [], "processes are left behind"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    for program in ("git", "make", "curl", "sh"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine, which the README's commands need")
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository: there is nothing to clone")
    found = Stranger(tmp_path)
    found.take()
    return found


@pytest.mark.timeout(900)
def test_a_stranger_follows_the_readme(stranger: Stranger) -> None:
    first, ask, tour, room, money, _, work = COMMANDS
    begun = time.monotonic()
    with stranger.serving(first) as said:
        took_first = time.monotonic() - begun
        output = "".join(said)
        assert stranger.said(README.blocks("text")[0].strip()) in output
        assert "installing" in output
        assert "smollm2 is installed" in output

        answer = json.loads(stranger.types(ask))
        assert answer["choices"][0]["message"]["content"].strip()
        assert answer["usage"]["completion_tokens"] > 1

        program = subprocess.run(
            [sys.executable, "-c", stranger.said(PYTHON)], capture_output=True, text=True, timeout=100, check=True
        )
        assert program.stdout.strip()

        toured = stranger.types(tour)
        assert "smollm2" in toured

        told = stranger.types(f". .venv/bin/activate\n{room}")
        assert "llamacpp" in told
        assert "best device" in told

        question = {"model": "smollm2", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
        (stranger.clone / "request.json").write_text(json.dumps(question))
        paid = stranger.types(f". .venv/bin/activate\n{money}")
        assert "ck-" in paid
        assert "smollm2" in paid

        (stranger.clone / "leaflet.yaml").write_text(PIPELINE)
        worked = stranger.types(f". .venv/bin/activate\n{work}")
        assert "leaflet can run: fact, title, leaflet" in worked
        assert "leaflet.md" in worked

    begun = time.monotonic()
    offline = {"UV_OFFLINE": "1", "PIP_INDEX_URL": UNREACHABLE, "https_proxy": UNREACHABLE, "HTTPS_PROXY": UNREACHABLE}
    with stranger.serving(first, **offline) as said:
        assert "installing" not in "".join(said)
        assert "smollm2 was installed already" in "".join(said)
        assert time.monotonic() - begun < took_first / 2


def test_every_command_of_the_readme_is_run() -> None:
    """The test above takes the blocks apart by number: a new one has to be given its place there."""
    assert len(COMMANDS) == 7
    assert COMMANDS[0].strip() == "make run"


@pytest.mark.timeout(300)
def test_the_containers_of_the_readme(bridged: Engine, tmp_path: Path) -> None:
    """Ollama's image is played, and the machine that tests has no GPU; what is typed is what stands there."""
    bridged.cli("tag", bridged.image(PLAYER), "ollama/ollama")
    content = next(block for block in README.blocks("yaml") if block.startswith("containers:"))
    file = tmp_path / "corral.yaml"
    file.write_text(content.replace(", gpus: all", "") + f"docker: {{ host: {bridged.address} }}\n")
    shutil.copy(ROOT / "examples" / "compose.yml", tmp_path / "docker-compose.yml")
    env = {**os.environ, "HOME": str(tmp_path), "CORRAL_HOME": str(tmp_path)}
    # There is no registry here that images could come from.
    more = {"corral containers stats": " --once", "corral import": " --yes --json"}
    more["corral containers update"] = " --models-only"

    said = {}
    with bridged.forwarded(11434, 11435):
        for line in COMMANDS[5].strip().splitlines():
            typed = line.partition("#")[0].strip()
            typed += next((words for begin, words in more.items() if typed.startswith(begin)), "")
            command = [str(Path(sys.executable).with_name("corral")), *typed.split()[1:]]
            done = subprocess.run(
                command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, (typed, done.stdout, done.stderr)
            said[typed] = done.stdout

    assert set(bridged.seen()) == {"corral-code", "corral-reasoning"}
    assert "create" in said["corral containers plan"]
    assert "healthy" in said["corral containers up"]


def test_the_address_in_the_readme_is_the_default() -> None:
    from corral import __version__
    from corral.config import Settings

    default = Settings()

    assert f"Corral {__version__} serves at http://{default.server.host}:{default.server.port}" in README.text
