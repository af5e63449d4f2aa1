"""What is in the repository is for everybody: no address of an index, no path of one machine, no secret."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

# Written so that this file does not match itself. Images of model servers keep their things in folders of root's own.
FORBIDDEN = {
    "a package index": re.compile(r"pythonhoste[d]|pypi\.or[g]|(?:index|registry)\.npmj[s]"),
    "a path of one machine": re.compile(
        r"(?<![\w.])/(?:wor[k]|roo[t](?!/\.(?:ollama|cache|triton)\b)|User[s]|home/[a-z_][\w-]*)/(?!\.\.)"
    ),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KE[Y]"),
    "a vendor's key": re.compile(
        r"\b(?:sk-(?:proj-|ant-)?[A-Za-z0-9]{24,}|hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}"
        r"|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|xox[abp]-[\w-]{10,})"
    ),
    # A real one has a host beyond this machine with a dot in it; those reserved for examples are none.
    "a password in an address": re.compile(
        r"https?://[\w.~-]+:[\w.~%-]{4,}@(?!127\.)(?:[\w-]+\.)+(?!(?:test|example|invalid|localhost)\b)[a-z]{2,}"
    ),
}
# pip's own default, which the source `pypi` must know to reach packages as pip does.
ALLOWED = {("src/corral/kit/pip_config.py", "a package index"): 1}


def _tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git repository, or no git: what is committed cannot be listed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_private_is_committed(what: str) -> None:
    found = []
    for name in _tracked():
        lines = [(n, line) for n, line in enumerate((_text(ROOT / name) or "").splitlines(), 1)]
        hits = [f"{name}:{n}: {line.strip()[:120]}" for n, line in lines if FORBIDDEN[what].search(line)]
        found += hits[ALLOWED.get((name, what), 0) :]

    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a package index", "url = https://pypi" + ".org/simple"),
        ("a path of one machine", "cd /work" + "/main"),
        ("a path of one machine", "open('/home" + "/ada/models')"),
        ("a private key", "-----BEGIN RSA PRIVATE" + " KEY-----"),
        ("a vendor's key", "key: sk-" + "a1" * 16),
        ("a password in an address", "https://ada:" + "lovelace1815@mirror.ada.io/simple"),
    ],
)
def test_the_patterns_find_what_they_are_for(what: str, line: str) -> None:
    assert FORBIDDEN[what].search(line)


def test_no_large_file_is_committed() -> None:
    large = [name for name in _tracked() if (ROOT / name).stat().st_size > 512 * 1024]

    assert large == []


def test_no_module_is_a_drawer() -> None:
    """Modules are nouns: nothing is called utils, helpers, common or misc."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}

    assert [name for name in _tracked() if Path(name).suffix == ".py" and Path(name).stem in drawers] == []


def test_files_stay_readable() -> None:
    """About 500 lines: what grows beyond is two things."""
    long = {}
    for name in _tracked():
        if name.endswith(".py") and name.startswith("src/"):
            lines = len((_text(ROOT / name) or "").splitlines())
            if lines > (650 if name == "src/corral/errors.py" else 550):  # one list, and read as one
                long[name] = lines

    assert long == {}
