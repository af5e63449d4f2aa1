"""The project's habits hold together: locks and pyproject.toml, Makefile and prose, CI and what it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.pages import ROOT

ENGINES = "src/corral/runtimes/_locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORDS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def _locked(name: str) -> dict[str, Requirement]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line.partition(" --hash")[0].strip() for line in text.splitlines() if line]
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def _wanted(group: str) -> list[Requirement]:
    found: list[Requirement] = []
    for entry in PROJECT["dependency-groups"][group]:
        found += [Requirement(entry)] if isinstance(entry, str) else _wanted(entry["include-group"])
    return found


def _unmet(wanted: list[Requirement], locked: dict[str, Requirement]) -> list[str]:
    unmet = []
    for need in wanted:
        have = locked.get(canonicalize_name(need.name))
        version = next(iter(have.specifier)).version if have else None
        if version is None or not need.specifier.contains(version, prereleases=True):
            unmet.append(f"{need}, locked: {version}")
    return unmet


def test_the_locks_hold_what_the_project_asks_for() -> None:
    needs = [Requirement(text) for text in PROJECT["project"]["dependencies"]]

    assert _unmet(needs + _wanted("build"), _locked("base")) == []
    assert _unmet(needs + _wanted("dev"), _locked("dev")) == []


def test_the_project_can_be_built_from_the_lock() -> None:
    """The project itself is installed without build isolation: its backend must be in the lock."""
    assert _unmet([Requirement(text) for text in PROJECT["build-system"]["requires"]], _locked("base")) == []


def test_both_locks_agree() -> None:
    base, dev = _locked("base"), _locked("dev")

    assert {name: str(base[name].specifier) for name in base} == {
        name: str(dev[name].specifier) for name in base if name in dev
    }


@pytest.mark.parametrize("name", ["base", "dev"])
def test_every_locked_file_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()

    assert "://" not in text
    assert "index-url" not in text
    for entry in text.replace("\\\n", " ").splitlines():
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize(
    "lock", ["requirements/base", "requirements/dev", f"{ENGINES}/transformers", f"{ENGINES}/vllm"]
)
def test_a_version_is_locked_with_all_of_its_files(lock: str) -> None:
    """A lock made on a machine whose mirror has one file of a version would fit no other Python and no other system."""
    entries = (ROOT / f"{lock}.txt").read_text().replace("\\\n", " ").splitlines()

    assert [entry.split()[0] for entry in entries if entry.count("--hash=") < 2] == []


def test_what_runs_here_is_what_is_locked() -> None:
    """Tests speak for the lock only when they run on it."""
    from importlib.metadata import version

    here = default_environment()
    different = {
        name: version(name)
        for name, entry in _locked("dev").items()
        if (entry.marker is None or entry.marker.evaluate(dict(here)))
        and version(name) != next(iter(entry.specifier)).version
    }

    assert different == {}


def test_every_word_of_the_makefile_is_phony_and_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)

    assert targets == WORDS
    assert phony is not None
    assert set(phony[1].split()) == set(WORDS)


def test_make_help_lists_every_word() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert [line.split()[1] for line in done.stdout.splitlines()] == WORDS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_words_in_prose_exist(page: str) -> None:
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / page).read_text()))

    assert named <= set(WORDS)
    assert named


def test_hooks_run_what_the_makefile_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]

    assert all(hook["language"] == "system" for hook in hooks)
    assert {hook["entry"].split()[0] for hook in hooks} <= {
        f".venv/bin/{tool}" for tool in ("ruff", "mypy", "lint-imports", "python")
    }


def test_ci_runs_the_readme_s_words() -> None:
    script = (ROOT / ".ci" / "run").read_text()

    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert re.findall(r"^make ([a-z-]+)$", script, re.MULTILINE) == ["lint", "types", "test"]
    assert "export CI=true" in script


SKIPPING = """\
import pytest

@pytest.mark.skip(reason="no such machine")
def test_marked(): ...

def test_inside():
    pytest.skip("not today")

@pytest.mark.xfail(strict=True)
def test_expected():
    raise AssertionError

def test_passes(): ...
"""


def _run(folder: Path, plugin: str, files: dict[str, str], **env: str) -> str:
    """What pytest says of `files` with one of our plugins."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (folder / name).write_text(text)
    known = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", f"tests.plugins.{plugin}", "-p", "no:cacheprovider", "-rA"),
            *("--continue-on-collection-errors", str(folder)),
        ],
        cwd=folder,
        env={**known, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout


SKIPS = {"test_skipping.py": SKIPPING, "test_module.py": 'import pytest\npytest.importorskip("no_such_module")\n'}


def test_a_skip_is_a_skip_at_home(tmp_path: Path) -> None:
    assert "1 passed, 3 skipped, 1 xfailed" in _run(tmp_path, "skips", SKIPS)


def test_a_skip_is_a_failure_in_ci(tmp_path: Path) -> None:
    output = _run(tmp_path, "skips", SKIPS, CI="true")

    assert "no such machine" in output
    assert "not today" in output
    assert "no_such_module" in output
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in output


LEAKING = """\
import subprocess, sys, warnings
warnings.simplefilter("ignore", ResourceWarning)
kept = []

def test_starts():
    kept.append(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", "left-behind"]))

def test_goes_on():
    assert kept[0].poll() is None
"""


def test_a_process_left_behind_fails_its_file_and_no_other(tmp_path: Path) -> None:
    files = {"test_first.py": LEAKING, "test_second.py": "def test_passes(): ...\n"}

    output = _run(tmp_path, "leaks", files)

    assert "test_first.py left processes behind" in output
    assert "left-behind" in output
    assert "3 passed, 1 error" in output
