"""The import contracts of pyproject.toml hold, and each of them fails when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

LAYERS = "Layers: imports point down only"
ADAPTERS = "Adapters see only kit, dialects, config, domain and errors"
SIBLINGS = "Plugins never import each other"
PURE = "Decisions are pure: no loop, socket, process or database"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package and its contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _lint(house: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house / "src")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_house_as_it_stands(house: Path) -> None:
    done = _lint(house)

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{name} KEPT" in done.stdout for name in (LAYERS, ADAPTERS, SIBLINGS, PURE))


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("domain/models.py", "import corral.config", LAYERS),
        ("config/values.py", "import corral.kit.clock", LAYERS),
        ("lifecycle/scheduler.py", "import corral.catalog", LAYERS),
        ("kit/clock.py", "import corral.routing", LAYERS),
        ("gateway/server.py", "import corral.manager", LAYERS),
        ("app/corral.py", "import corral.cli", LAYERS),
        ("runtimes/llamacpp.py", "import corral.lifecycle", ADAPTERS),
        ("sources/file.py", "import corral.catalog", ADAPTERS),
        ("runtimes/fake.py", "import corral.routing", ADAPTERS),
        ("runtimes/openai.py", "from corral.runtimes import llamacpp", SIBLINGS),
        ("sources/pypi.py", "import corral.sources.file", SIBLINGS),
        ("runtimes/openai.py", "import corral.sources.file", SIBLINGS),
        ("domain/states.py", "import asyncio", PURE),
        ("lifecycle/scheduler.py", "import time", PURE),
        ("domain/ports.py", "import subprocess", PURE),
    ],
)
def test_a_bad_import_is_found(house: Path, module: str, line: str, contract: str) -> None:
    path = house / "src" / "corral" / module
    path.write_text(f"{path.read_text()}\n{line}\n")

    done = _lint(house)

    assert done.returncode != 0
    assert f"{contract} BROKEN" in done.stdout, done.stdout


def test_a_new_room_must_be_given_its_place(house: Path) -> None:
    (house / "src" / "corral" / "attic.py").write_text('"""A module that no contract knows."""\n')

    done = _lint(house)

    assert done.returncode != 0
    assert "corral.attic" in done.stdout
