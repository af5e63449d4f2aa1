"""Environments of engines: once with a venv and a pip for real, and the rest with a stand-in that is quick."""

import asyncio
import base64
import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from corral.domain.ports import silent
from corral.errors import Conflict, NotFound, RuntimeUnavailable
from corral.kit import environments
from corral.kit.environments import Recipe

pytestmark = pytest.mark.timeout(300)

# What Python is asked for here: to make an environment, and to install a list into it. A list may name what is missing,
# and what waits until somebody writes into the pipe `gate` beside it.
STAND_IN = r"""#!/bin/sh
if [ "$2" = venv ]; then
    mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && cp "$0" "$4/bin/engine"
    exit
fi
for list; do :; done
echo "Collecting $(head -n 1 "$list")"
! grep -q ^gated "$list" || cat "$(dirname "$list")/gate" > /dev/null
if grep -q ^missing "$list"; then
    echo "ERROR: No matching distribution found for missing"
    exit 1
fi
if grep -q +cpu "$list" && [ ! -e "$(dirname "$0")/../../../../offered" ]; then exit 1; fi
site=$(dirname "$0")/../lib/python3/site-packages
sed -n 's/^\([a-z_]*\)===*\([0-9.+a-z]*\).*/\1-\2.dist-info/p' "$list" | while read -r name; do
    set -- "$site/${name%%-*}"-*
    [ -e "$1" ] || mkdir -p "$site/$name"
done
"""


@pytest.fixture
def python(tmp_path):
    """The stand-in."""
    path = tmp_path / "python"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def recipe(tmp_path, content, finish=None) -> Recipe:
    listed = tmp_path / "x.txt"
    listed.write_text(content)
    return Recipe("x", listed, finish)


def version(home, package):
    return environments.version(environments.folder("x", home) / "bin" / "python", package)


def wheel(folder: Path, name: str, number: str) -> str:
    """A package with a program of its name, and the line of a list that asks for it."""
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-{number}-py3-none-any.whl", f"{name}-{number}.dist-info"
    content = {
        f"{name}.py": "def main():\n    print('hello')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = ""
    for file, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{file},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return f"--hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


async def test_for_real_what_was_asked_for_is_there_and_what_has_another_hash_is_not(tmp_path, home):
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("PIP_")}, **nowhere}
    program = wheel(tmp_path / "wheels", "engine", "1.0")
    torch = [wheel(tmp_path / "wheels", "torch", number) for number in ("2.0", "2.0+cpu")]
    lines = ["engine==1.0", program, "torch==2.0", *torch]
    content = " \\\n    ".join(lines).replace(" \\\n    torch", "\ntorch") + "\n"

    folder = await environments.install(recipe(tmp_path, content), home, silent, env)
    found = environments.program("x", "engine", home, {"PATH": ""})
    assert found == folder / "bin" / "engine"
    running = await asyncio.create_subprocess_exec(str(found), stdout=asyncio.subprocess.PIPE)
    assert (await running.communicate())[0] == b"hello\n"
    assert version(home, "torch") == ("2.0" if environments.has_nvidia() else "2.0+cpu")

    wrong = recipe(tmp_path, f"engine==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(RuntimeUnavailable, match="pip ended with 1") as caught:
        await environments.install(wrong, home, silent, env)
    assert "0000" in caught.value.message or "HASHES" in caught.value.message
    assert version(home, "engine") == "1.0"


async def test_it_is_finished_found_again_and_told_of(tmp_path, home, python):
    said, finished = [], []
    wanted = recipe(tmp_path, "engine==1.0\n", finished.append)

    folder = await environments.install(wanted, home, said.append, os.environ, python)
    assert folder == environments.folder("x", home)
    assert [path.resolve() for path in finished] == [folder.resolve()]
    assert any("engine==1.0" in progress.detail for progress in said)
    said.clear()
    assert await environments.install(wanted, home, said.append, os.environ, python) == folder
    assert said == []


async def test_another_list_takes_its_place_when_it_is_whole(tmp_path, home, python):
    await environments.install(recipe(tmp_path, "engine==1.0\n"), home, silent, os.environ, python)
    with pytest.raises(RuntimeUnavailable, match=r"pip ended with 1: .*No matching distribution found for missing"):
        await environments.install(recipe(tmp_path, "missing==1\n"), home, silent, os.environ, python)
    assert version(home, "engine") == "1.0"

    await environments.install(recipe(tmp_path, "engine==2.0\n"), home, silent, os.environ, python)
    assert version(home, "engine") == "2.0"
    assert len(list((home / "environments").glob(".x-*"))) == 1


@pytest.mark.skipif(environments.has_nvidia(), reason="this machine has an NVIDIA GPU")
async def test_where_no_build_of_torch_for_processors_is_offered_cuda_comes_with_it(tmp_path, home, python):
    (tmp_path / "torch-cuda.txt").write_text("nvidia_x==1.0\n")
    wanted = recipe(tmp_path, "engine==1.0\ntorch==2.0\n    --hash=sha256:00\n")

    await environments.install(wanted, home, silent, os.environ, python)
    assert (version(home, "torch"), version(home, "nvidia-x"), version(home, "engine")) == ("2.0", "1.0", "1.0")

    environments.remove("x", home)
    (tmp_path / "offered").touch()
    await environments.install(wanted, home, silent, os.environ, python)
    assert (version(home, "torch"), version(home, "nvidia-x")) == ("2.0+cpu", None)


async def begin(tmp_path, home, python):
    """An installation that waits at the gate."""
    os.mkfifo(tmp_path / "gate")
    begun = asyncio.Event()
    wanted = recipe(tmp_path, "gated==1.0\n")
    work = environments.install(wanted, home, lambda _: begun.set(), os.environ, python)
    installing = asyncio.ensure_future(work)
    await begun.wait()
    return installing


async def test_two_at_once_are_one_and_a_refusal(tmp_path, home, python):
    first = await begin(tmp_path, home, python)

    with pytest.raises(Conflict, match="'x'"):
        await environments.install(recipe(tmp_path, "gated==1.0\n"), home, silent, os.environ, python)
    with pytest.raises(Conflict):
        environments.remove("x", home)
    await asyncio.to_thread((tmp_path / "gate").write_text, "go on")
    await first
    assert version(home, "gated") == "1.0"


async def test_one_that_is_given_up_leaves_nothing_and_can_be_begun_again(tmp_path, home, python):
    given_up = await begin(tmp_path, home, python)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert list((home / "environments").glob(".x-*")) == []
    assert not environments.folder("x", home).exists()

    await environments.install(recipe(tmp_path, "engine==1.0\n"), home, silent, os.environ, python)
    assert version(home, "engine") == "1.0"


async def test_a_half_made_one_is_not_taken_for_whole(tmp_path, home, python):
    left = home / "environments" / ".x-0123456789ab" / "bin"
    left.mkdir(parents=True)

    assert environments.program("x", "engine", home, {"PATH": ""}) is None
    await environments.install(recipe(tmp_path, "engine==1.0\n"), home, silent, os.environ, python)
    assert not left.exists()
    assert environments.program("x", "engine", home, {"PATH": ""}) is not None


async def test_removed_it_is_gone(tmp_path, home, python):
    await environments.install(recipe(tmp_path, "engine==1.0\n"), home, silent, os.environ, python)

    assert environments.remove("x", home) > 0
    assert environments.program("x", "engine", home, {"PATH": ""}) is None
    with pytest.raises(NotFound):
        environments.remove("x", home)
