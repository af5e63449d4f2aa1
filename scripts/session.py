"""A terminal session with Corral, recorded: docs/session.svg, which the README shows.

    .venv/bin/python scripts/session.py [FILE]

The commands are typed for real, in a terminal of 88 columns, against a server and a home of their own, which are gone
afterwards. It needs `smollm2`, which is installed first.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
CORRAL = Path(sys.executable).with_name("corral")
COLUMNS = 88
CONFIG = """
models:
  smollm2: {fallback: [parrot]}
  parrot: {runtime: fake}
prices:
  smollm2: {input: 0.02, output: 0.05}
"""
COMMANDS = (
    "corral list",
    'corral run smollm2 "What is a corral? One sentence." --set seed=7 --set temperature=0',
    "corral ps",
    "corral explain smollm2",
    "corral budgets create team 5 --per month",
    "corral usage --by model",
)
_CURSOR = re.compile(r"\x1b\[\?25[hl]")
_WIPED = re.compile(r"[^\n]*(?:\r\x1b\[2K|\r\n\r\x1b\[1A\x1b\[2K)")
"""A line that was shown for a while and is gone, such as a spinner."""
_MOVES = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlnsu]")
"""Everything of a terminal's control sequences but colours."""


@contextmanager
def served(home: Path) -> Iterator[dict[str, str]]:
    """The environment of a user whose server runs."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_") and name != "NO_COLOR"}
    env |= {
        "CORRAL_HOME": str(home),
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
        "PATH": f"{CORRAL.parent}:{env['PATH']}",
    }
    (home / "corral.yaml").write_text(CONFIG)
    subprocess.run([CORRAL, "pull", "smollm2"], env=env, cwd=home, check=True, capture_output=True, timeout=600)
    server = subprocess.Popen(
        [CORRAL, "--json", "serve", "--port", "0"], env=env, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield env
    finally:
        server.terminate()
        server.wait(30)


def typed(line: str, env: Mapping[str, str], folder: Path) -> str:
    """What a command prints in a terminal, colours and all, as it stands when the command has ended."""
    printed, code = pexpect.run(
        line,
        env=dict(env),
        cwd=str(folder),
        timeout=300,
        withexitstatus=True,
        dimensions=(50, COLUMNS),
        encoding="utf-8",
    )
    if code:
        sys.exit(f"{line!r} ended with {code}:\n{printed}")
    lines = _MOVES.sub("", _WIPED.sub("", _CURSOR.sub("", printed))).replace("\r\n", "\n").split("\n")
    return "\n".join(part.rstrip("\r").rpartition("\r")[2] for part in lines).strip("\n")


def record(file: Path) -> None:
    """Type the commands and draw what came of them."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with served(folder) as env:
            for line in COMMANDS:
                console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
                console.print(Text.from_ansi(typed(line, env, folder).replace(made, "~/.corral")))
                console.print()
    file.write_text(console.export_svg(title="corral", unique_id="corral"), encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "session.svg")
