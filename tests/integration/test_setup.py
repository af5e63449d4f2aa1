"""`scripts/setup.sh`, which stands behind every `make` word: with a stand-in for uv, for pip, and for the packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "grep", "sed", "cat", "cksum", "rm", "mkdir", "mv", "dirname", "tr")

UV = """\
    #!/bin/sh
    echo "uv $*" >> "$CALLS"
    env | grep -E '^(UV_|SSL_CERT_FILE)' >> "$CALLS"
    for last in "$@"; do :; done
    [ ! -f "$CALLS.fail" ] || [ "$1" = venv ] || exit 1
    case "$1 $2" in
      "venv "*) "$BASE" -m venv --without-pip "$last" ;;
      "pip install") printf '#!/bin/sh\\n' > "$VENV/bin/corral"; chmod +x "$VENV/bin/corral" ;;
    esac
"""

PIP = """\
    import os, pathlib, sys
    with open(os.environ["CALLS"], "a") as calls:
        print("pip", *sys.argv[1:], file=calls)
    if sys.argv[1:] == ["config", "list"]:
        print("global.extra-index-url='https://one.test/simple\\\\nhttps://two.test/simple'")
        print("global.cert='/etc/cert.pem'")
    elif "--editable" in sys.argv:
        script = pathlib.Path(os.environ["VENV"], "bin", "corral")
        script.write_text("#!/bin/sh\\n")
        script.chmod(0o755)
"""


class Clone:
    """A folder with Corral's scripts in it, and a path on which nothing else is found."""

    def __init__(self, at: Path) -> None:
        self.folder = at / "clone"
        self.bin = at / "bin"
        self.calls = at / "calls"
        (self.folder / "requirements").mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.folder / "scripts")
        for name in ("requirements/base.txt", "requirements/dev.txt", "pyproject.toml"):
            (self.folder / name).write_text("thing==1\n")
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        self.program("python3", f'#!/bin/sh\nexec "{self.base}" "$@"\n')
        pip = at / "modules" / "pip"
        pip.mkdir(parents=True)
        (pip / "__init__.py").touch()
        (pip / "__main__.py").write_text(dedent(PIP))
        self.modules = pip.parent

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(dedent(text))
        path.chmod(0o755)
        return path

    def with_uv(self) -> Clone:
        for tool in ("env", "chmod"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.program("uv", UV)
        return self

    def setup(self, level: str = "base", **env: str) -> subprocess.CompletedProcess[str]:
        """Run the script; what it called since the last time is in `called`."""
        self.calls.write_text("")
        known = {"PATH": str(self.bin), "CALLS": str(self.calls), "BASE": self.base, "VENV": str(self.venv)}
        return subprocess.run(
            [self.folder / "scripts" / "setup.sh", level],
            env={**known, "PYTHONPATH": str(self.modules), **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def called(self) -> str:
        return self.calls.read_text()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path).with_uv()


def test_a_second_time_does_nothing(clone: Clone) -> None:
    first = clone.setup()
    assert first.returncode == 0, first.stderr
    assert "uv pip sync" in clone.called
    assert "--require-hashes requirements/base.txt" in clone.called

    second = clone.setup()

    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert clone.called == ""


@pytest.mark.parametrize("name", ["requirements/base.txt", "pyproject.toml"])
def test_a_changed_file_is_installed_into_the_same_environment(clone: Clone, name: str) -> None:
    clone.setup()
    (clone.folder / name).write_text("thing==2\n")

    assert clone.setup().returncode == 0

    assert "uv pip sync" in clone.called
    assert "uv venv" not in clone.called


def test_an_interrupted_install_is_done_again(clone: Clone) -> None:
    fail = clone.calls.with_suffix(".fail")
    fail.touch()
    assert clone.setup().returncode != 0
    fail.unlink()

    assert clone.setup().returncode == 0
    assert "uv pip sync" in clone.called
    assert "uv venv" not in clone.called


def test_an_interrupted_change_does_not_leave_the_old_stamp(clone: Clone) -> None:
    clone.setup()
    lock = clone.folder / "requirements" / "base.txt"
    before = lock.read_text()
    lock.write_text("thing==2\n")
    fail = clone.calls.with_suffix(".fail")
    fail.touch()
    assert clone.setup().returncode != 0
    fail.unlink()
    lock.write_text(before)

    clone.setup()

    assert "uv pip sync" in clone.called


def test_what_tests_need_stays_when_the_server_is_run(clone: Clone) -> None:
    clone.setup("dev")
    assert "requirements/dev.txt" in clone.called

    clone.setup("base")
    assert clone.called == ""

    (clone.folder / "requirements" / "base.txt").write_text("thing==2\n")
    clone.setup("base")
    assert "requirements/dev.txt" in clone.called


def test_a_moved_folder_gets_a_new_environment(clone: Clone) -> None:
    clone.setup()
    clone.folder = clone.folder.rename(clone.folder.with_name("elsewhere"))

    done = clone.setup()

    assert done.returncode == 0, done.stderr
    assert "uv venv" in clone.called
    assert "making it anew" in done.stderr


def test_an_environment_whose_python_is_gone_is_made_anew(clone: Clone) -> None:
    clone.setup()
    for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
        (clone.venv / "bin" / name).unlink()

    assert clone.setup().returncode == 0

    assert "uv venv" in clone.called


def test_an_old_python_is_refused_by_its_version(clone: Clone) -> None:
    old = clone.program("python3.9", '#!/bin/sh\n[ "$1" != -V ] || { echo Python 3.9.2; exit 0; }\nexit 1\n')

    done = clone.setup(PYTHON=str(old))

    assert done.returncode != 0
    assert done.stderr == f"setup: PYTHON={old} is Python 3.9.2; Corral needs Python 3.11 or newer.\n"
    assert not clone.venv.exists()


def test_a_python_that_is_not_there_is_refused(clone: Clone) -> None:
    done = clone.setup(PYTHON="/nowhere/python3")

    assert done.returncode != 0
    assert "PYTHON=/nowhere/python3 is not a program" in done.stderr


def test_no_python_at_all_is_refused_with_what_to_do(clone: Clone) -> None:
    clone.program("python3", "#!/bin/sh\nexit 1\n")

    done = clone.setup()

    assert done.returncode != 0
    assert "needs Python 3.11 or newer and found none" in done.stderr


def test_a_folder_that_is_no_environment_is_not_removed(clone: Clone) -> None:
    clone.venv.mkdir()
    (clone.venv / "letter").write_text("mine")

    done = clone.setup()

    assert done.returncode != 0
    assert "is in the way" in done.stderr
    assert (clone.venv / "letter").read_text() == "mine"


def test_an_unfinished_environment_is_made_anew(clone: Clone) -> None:
    clone.venv.mkdir()
    (clone.venv / ".corral-making").touch()

    assert clone.setup().returncode == 0


def test_what_pip_was_told_reaches_uv(clone: Clone) -> None:
    done = clone.setup(PIP_INDEX_URL="https://index.test/simple", PIP_FIND_LINKS="/wheels https://links.test")

    assert done.returncode == 0, done.stderr
    assert "UV_DEFAULT_INDEX=https://index.test/simple\n" in clone.called
    assert "UV_INDEX=https://one.test/simple https://two.test/simple\n" in clone.called
    assert "UV_FIND_LINKS=/wheels,https://links.test\n" in clone.called
    assert "SSL_CERT_FILE=/etc/cert.pem\n" in clone.called


def test_what_uv_itself_was_told_wins(clone: Clone) -> None:
    clone.setup(PIP_INDEX_URL="https://index.test/simple", UV_DEFAULT_INDEX="https://other.test/simple")

    assert "UV_DEFAULT_INDEX=https://other.test/simple\n" in clone.called


def test_without_uv_pip_does_it(tmp_path: Path) -> None:
    clone = Clone(tmp_path)

    done = clone.setup()

    assert done.returncode == 0, done.stderr
    assert "--require-hashes --requirement requirements/base.txt" in clone.called
    clone.setup()
    assert clone.called == ""


def test_an_unknown_level_is_refused(clone: Clone) -> None:
    done = clone.setup("everything")

    assert done.returncode != 0
    assert "usage" in done.stderr
