"""Every example runs, against a real model; every example of a configuration is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.app import Corral
from corral.config import load
from corral.domain.options import parse_options
from tests.docs.pages import ROOT, read

SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
CONFIGURATIONS = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))
PROGRAMS = read("docs/python.md").blocks("python") + [
    block for block in read("README.md").blocks("python") if "import corral" in block or "from corral" in block
]


@pytest.fixture
def env(tmp_path: Path, model_store: Path) -> dict[str, str]:
    """The environment of somebody who has pulled `smollm2`, in a home that holds nothing else."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    home = {"HOME": str(tmp_path), "CORRAL_STORE_MODELS_DIR": str(model_store)}
    return {**own, **home, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def server(env: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A Corral that serves, by its address."""
    argv = [sys.executable, "-m", "corral", "--json", "serve", "--port", "0"]
    with subprocess.Popen(argv, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(30)


def _run(argv: list[str], env: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "openai_client.py"])
def test_an_example_runs(script: str, env: dict[str, str], tmp_path: Path) -> None:
    assert _run([sys.executable, str(ROOT / "examples" / script)], env, tmp_path).strip()


def test_the_openai_example_runs(server: str, env: dict[str, str], tmp_path: Path) -> None:
    said = _run(
        [sys.executable, str(ROOT / "examples" / "openai_client.py")],
        {**env, "OPENAI_BASE_URL": f"{server}/v1"},
        tmp_path,
    )

    assert said.startswith("Models: smollm2\n")
    assert "As JSON: {'city': " in said


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_in_the_documentation_runs(program: str, env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(program)

    assert _run([sys.executable, str(file)], env, tmp_path).strip()


@pytest.mark.parametrize("name", CONFIGURATIONS)
async def test_a_configuration_is_one(name: str, tmp_path: Path, model_store: Path) -> None:
    settings = load({"HOME": str(tmp_path), "CORRAL_STORE_MODELS_DIR": str(model_store)}, file=ROOT / "examples" / name)
    corral = Corral(settings, env={})

    assert settings.models
    for model in settings.models:
        definition = corral.definition(model)
        parse_options(corral.runtimes[definition.runtime].options, definition.options, model)
    await corral.close()


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_says_how_it_is_run(script: str) -> None:
    head = (ROOT / "examples" / script).read_text().split('"""')[1]

    assert f"python examples/{script}" in head
