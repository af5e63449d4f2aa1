"""The installed `corral`, run as people run it: as a process, in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORRAL = str(Path(sys.executable).with_name("corral"))

_DESK = """
import contextlib, io, json, os, sys
from corral.cli.app import run

orders, answers = sys.stdin, sys.stdout
sys.stdin = open(os.devnull)
for order in orders:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(json.loads(order))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Yard:
    """A home, and the environment of commands in it; nothing of the developer's own Corral leaks in."""

    home: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        known = {key: value for key, value in os.environ.items() if not key.startswith("CORRAL_")}
        return {**known, "CORRAL_HOME": str(self.home), "NO_COLOR": "1", **self.more}

    def configure(self, text: str) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "corral.yaml").write_text(text)

    def run(self, *arguments: str, typed: str | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`corral` with these arguments, ended with exit code `code`; `typed` is piped in."""
        done = subprocess.run(
            [CORRAL, *arguments],
            env=self.env,
            cwd=self.home,
            input=typed,
            stdin=subprocess.DEVNULL if typed is None else None,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert code is None or done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """The same commands in one process that stays, for the block's length: most of a command is its start."""
        command = [sys.executable, "-c", _DESK]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=self.env, cwd=self.home, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield Desk(self.home, self.more, process)
            finally:
                process.kill()

    def json(self, *arguments: str) -> Any:
        """What `corral … --json` says."""
        return json.loads(self.run(*arguments, "--json").stdout)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """A server on a free port, for the block's length; its URL."""
        command = [CORRAL, "serve", "--port", "0", "--json"]
        with subprocess.Popen(command, env=self.env, cwd=self.home, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield json.loads(server.stdout.readline())["url"]
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(60)


@dataclass(frozen=True)
class Desk(Yard):
    """A yard whose commands are given to one process, one after the other; each builds everything anew."""

    process: subprocess.Popen[str] | None = None

    def run(self, *arguments: str, typed: str | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """As a yard's; nothing can be piped in."""
        assert typed is None
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        done = subprocess.CompletedProcess([CORRAL, *arguments], *json.loads(self.process.stdout.readline()))
        assert code is None or done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done
