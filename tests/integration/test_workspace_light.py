"""A server on which nobody runs pipelines does not hold in memory what does them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import asyncio, sys
from pathlib import Path
from corral.app import Corral
from corral.config import load
from corral.domain.workspace import Project
from corral.workspace.pipelines.journal import folder

class Slept(Exception):
    pass

class Once:
    "A clock whose first sleep ends the work that sleeps."
    def now(self): return 0.0
    def wall(self): return 1_000_000.0
    async def sleep(self, seconds): raise Slept

async def main(home, ran):
    corral = Corral(load({"HOME": home, "CORRAL_HOME": home}), clock=Once())
    await corral.workspace.store.projects.create(Project(id="", name="site"))
    if ran:
        folder(Path(home)).mkdir(parents=True)
        (folder(Path(home)) / "run-0a1b2c3d4e5f.journal").touch()
    try:
        await corral.workspace.keep()
    except Slept:
        print(*sorted({"corral.app.runs", "jinja2", "jsonschema_rs"} & set(sys.modules)))
        print(len(list(folder(Path(home)).glob("*"))))
    await corral.close()

asyncio.run(main(sys.argv[1], sys.argv[2] == "ran"))
"""


@pytest.mark.parametrize(
    ("before", "there"), [("nothing", ["", "0"]), ("ran", ["corral.app.runs jinja2 jsonschema_rs", "0"])]
)
def test_what_does_runs_is_imported_where_there_were_any(tmp_path: Path, before: str, there: list[str]) -> None:
    argv = [sys.executable, "-c", CODE, str(tmp_path), before]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:2] == there, done.stderr
