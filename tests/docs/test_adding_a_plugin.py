"""docs/adding-a-plugin.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from corral.config import load
from tests.docs import pages

PAGE = pages.read("docs/adding-a-plugin.md")
BLOCKS = {
    found[1]: block
    for block in PAGE.blocks("python", "yaml")
    if (found := re.match(r"# (\S+\.(?:py|yaml))\n", block)) is not None
}
COMMANDS = [line.removeprefix("$ ") for block in PAGE.blocks("console") for line in block.splitlines()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, model_store: Path) -> Path:
    """The repository with the page's files in it, and the models fetched already."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("src", "tests"):
        shutil.copytree(pages.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(pages.ROOT / name, folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / model_store.name).symlink_to(model_store)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    for name, block in BLOCKS.items():
        assert not (folder / name).exists(), f"{name} is edited, not added"
        (folder / name).write_text(block)
    return folder


def _run(copy: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src"), "CORRAL_HOME": str(copy / "home"), **env},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _python(copy: Path, script: str, **env: str) -> str:
    done = _run(copy, sys.executable, "-c", dedent(script), **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_page_shows_whole_files() -> None:
    assert {name for name in BLOCKS if name.endswith(".py")} == {
        "src/corral/runtimes/parrot.py",
        "src/corral/runtimes/_parrot_child.py",
        "src/corral/sources/shelf.py",
    }


def test_the_contract_tests_find_it_and_it_passes_them(copy: Path) -> None:
    command = next(command for command in COMMANDS if "pytest" in command)

    done = _run(copy, *command.split(), "-q", "-p", "no:cacheprovider")

    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 7, done.stdout
    assert "skipped" not in done.stdout


def test_the_files_keep_the_house_rules(copy: Path) -> None:
    files = [name for name in BLOCKS if name.endswith(".py")]

    for tool in (["ruff", "check"], ["ruff", "format", "--check"]):
        done = _run(copy, str(Path(sys.prefix, "bin", tool[0])), *tool[1:], "--no-cache", *files)
        assert done.returncode == 0, done.stdout
    assert "0 broken" in _run(copy, str(Path(sys.prefix, "bin", "lint-imports")), "--no-cache").stdout


def test_a_model_of_it_answers(copy: Path) -> None:
    said = _python(
        copy,
        """\
        import asyncio
        from corral import GenerationConfig, ModelManager

        async def main():
            async with ModelManager() as manager:
                return await manager.generate("polly", GenerationConfig("who goes there?"))

        print(asyncio.run(main()))
        """,
    )

    assert said == "Ahoy, who goes there?"


def test_the_source_installs_what_is_on_the_shelf(copy: Path, smollm2: Path) -> None:
    shelf = copy / "shelf"
    shelf.mkdir()
    (shelf / "some-model.gguf").symlink_to(smollm2)
    command = next(command for command in COMMANDS if "corral pull" in command)
    reference = command.split()[-1]

    installed = _python(
        copy,
        f"""\
        import asyncio, json
        from corral import ModelManager

        async def main():
            async with ModelManager() as manager:
                found = await manager.install({reference!r})
                return [found.name, found.revision.source, found.revision.size]

        print(json.dumps(asyncio.run(main())))
        """,
        MODEL_SHELF=str(shelf),
    )

    assert json.loads(installed) == ["some-model", reference, smollm2.stat().st_size]


def test_another_package_may_bring_it(copy: Path, tmp_path: Path) -> None:
    lines = PAGE.blocks("toml")[0]
    points = re.sub(r'\[project\.entry-points\."([\w.]+)"\]', r"[\1]", lines).replace('"', "")
    package = tmp_path / "parrots"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "runtime.py").write_text(BLOCKS["src/corral/runtimes/parrot.py"])
    (package / "shelf.py").write_text(BLOCKS["src/corral/sources/shelf.py"])
    facts = tmp_path / "parrots-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: parrots\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(points)

    script = """\
        from corral.plugins import runtimes, sources
        ports = {"env": {}, "clock": None, "home": None}
        print(type(runtimes(ports)["parrot"]).__module__, type(sources(ports)["shelf"]).__module__)
    """
    source = os.pathsep.join([str(tmp_path), str(pages.ROOT / "src")])

    assert _python(tmp_path, script, PYTHONPATH=source) == "parrots.runtime parrots.shelf"


def test_the_configuration_shown_is_read(tmp_path: Path) -> None:
    file = tmp_path / "corral.yaml"
    file.write_text(BLOCKS["corral.yaml"])

    assert load({"HOME": str(tmp_path)}, file=file).models["polly"].runtime == "parrot"
