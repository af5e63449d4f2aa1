"""What the command line imports: that it starts quickly is a matter of what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "aiohttp", "fastapi", "pydantic", "starlette", "uvicorn", "uvloop", "xllamacpp", "prompt_toolkit", "psutil", "rich",
    "sqlalchemy", "alembic", "huggingface_hub", "obstore",
}  # fmt: skip


def imported(home: Path, *arguments: str) -> set[str]:
    """The modules that `corral` has imported when it is done with `arguments`."""
    code = (
        "import sys\nfrom corral.cli.main import main\ncode = main(sys.argv[1:])\n"
        "print('\\n'.join(sorted(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CORRAL_", "COVERAGE_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**env, "CORRAL_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_needs_no_library(tmp_path: Path, flag: str) -> None:
    modules = imported(tmp_path, flag)

    assert {name for name in modules if name.startswith("corral")} == {"corral", "corral.cli", "corral.cli.main"}
    assert not modules & (HEAVY | {"typer", "rich", "asyncio", "json", "argparse", "dataclasses", "importlib.metadata"})


@pytest.mark.parametrize("command", ["list", "config"])
def test_quick_commands_leave_the_heavy_libraries_alone(tmp_path: Path, command: str) -> None:
    assert not imported(tmp_path, command) & HEAVY


def test_a_command_leaves_the_others_alone(tmp_path: Path) -> None:
    modules = imported(tmp_path, "list")

    own = {name.removeprefix("corral.cli.") for name in modules if name.startswith("corral.cli.")}
    assert own == {"main", "app", "invocation", "output", "table", "models"}


def test_help_leaves_the_heavy_libraries_alone(tmp_path: Path) -> None:
    modules = imported(tmp_path, "--help")

    assert not modules & (HEAVY - {"pydantic", "rich"})  # Typer's own completion options and its help take these
    assert "corral.app" not in modules


@pytest.mark.parametrize("group", ["projects", "pipeline", "artifacts"])
def test_help_of_the_workspace_builds_nothing(tmp_path: Path, group: str) -> None:
    modules = imported(tmp_path, group, "--help")

    assert not modules & (HEAVY - {"pydantic", "rich"})
    assert not {name for name in modules if name.startswith(("corral.app", "corral.workspace", "corral.studio"))}
