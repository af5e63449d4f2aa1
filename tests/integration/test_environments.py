"""Environments of engines for real: a venv and a pip, and packages made on the spot in a folder of wheels."""

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

pytestmark = pytest.mark.timeout(180)


def wheel(folder: Path, name: str, version: str) -> str:
    """A package with a program of its name, and the line of a list that asks for it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": "def main():\n    print('hello')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = ""
    for file, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{file},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    public = version.partition("+")[0]
    return f"{name}=={public} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def env(tmp_path):
    """The environment of a machine whose packages all lie in one folder."""
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, **nowhere}


def recipe(tmp_path, content, finish=None) -> Recipe:
    listed = tmp_path / "x.txt"
    listed.write_text(content)
    return Recipe("x", listed, finish)


async def test_what_was_asked_for_is_there_and_found_again(tmp_path, env):
    home, said, finished = tmp_path / "home", [], []
    wanted = recipe(tmp_path, wheel(tmp_path / "wheels", "engine", "1.0"), finished.append)

    folder = await environments.install(wanted, home, said.append, env)
    assert folder == environments.folder("x", home)
    program = environments.program("x", "engine", home, {"PATH": ""})
    assert program == folder / "bin" / "engine"
    assert environments.version(program, "engine") == "1.0"
    assert [path.resolve() for path in finished] == [folder.resolve()]
    assert any("engine" in progress.detail for progress in said)

    again = []
    assert await environments.install(wanted, home, again.append, env) == folder
    assert again == []


async def test_another_list_takes_its_place_when_it_is_whole(tmp_path, env):
    home = tmp_path / "home"
    first = recipe(tmp_path, wheel(tmp_path / "wheels", "engine", "1.0"))
    await environments.install(first, home, silent, env)
    missing = recipe(tmp_path, wheel(tmp_path / "elsewhere", "engine", "2.0"))
    with pytest.raises(RuntimeUnavailable, match=r"pip ended with 1: .*engine==2\.0"):
        await environments.install(missing, home, silent, env)
    assert environments.version(environments.folder("x", home) / "bin" / "engine", "engine") == "1.0"

    wheel(tmp_path / "wheels", "engine", "2.0")
    await environments.install(missing, home, silent, env)
    assert environments.version(environments.folder("x", home) / "bin" / "engine", "engine") == "2.0"
    assert len(list((home / "environments").glob(".x-*"))) == 1


async def test_what_has_another_hash_is_not_installed(tmp_path, env):
    wrong = wheel(tmp_path / "wheels", "engine", "1.0").rpartition(":")[0] + ":" + "0" * 64 + "\n"

    with pytest.raises(RuntimeUnavailable):
        await environments.install(recipe(tmp_path, wrong), tmp_path / "home", silent, env)
    assert environments.program("x", "engine", tmp_path / "home", {"PATH": ""}) is None


async def test_the_build_of_torch_for_processors_is_taken_where_it_is_offered(tmp_path, env):
    wheels = tmp_path / "wheels"
    hashes = [wheel(wheels, "torch", version).split()[-1] for version in ("2.0.0", "2.0.0+cpu")]
    both = " \\\n    ".join(["torch==2.0.0", *hashes]) + "\n"
    home = tmp_path / "home"

    await environments.install(recipe(tmp_path, both), home, silent, env)
    expected = "2.0.0" if environments.has_nvidia() else "2.0.0+cpu"
    assert environments.version(environments.folder("x", home) / "bin" / "python", "torch") == expected


async def test_the_public_build_of_torch_gets_what_it_needs_of_cuda(tmp_path, env):
    wheels = tmp_path / "wheels"
    (tmp_path / "torch-cuda.txt").write_text(wheel(wheels, "nvidia_x", "1.0"))
    wanted = recipe(tmp_path, wheel(wheels, "torch", "2.0.0"))

    await environments.install(wanted, tmp_path / "home", silent, env)
    python = environments.folder("x", tmp_path / "home") / "bin" / "python"
    assert (environments.version(python, "torch"), environments.version(python, "nvidia-x")) == ("2.0.0", "1.0")


async def test_two_at_once_are_one_and_a_refusal(tmp_path, env):
    home, begun = tmp_path / "home", asyncio.Event()
    wanted = recipe(tmp_path, wheel(tmp_path / "wheels", "engine", "1.0"))
    first = asyncio.ensure_future(environments.install(wanted, home, lambda _: begun.set(), env))
    await begun.wait()

    with pytest.raises(Conflict, match="'x'"):
        await environments.install(wanted, home, silent, env)
    with pytest.raises(Conflict):
        environments.remove("x", home)
    await first


async def test_one_that_is_given_up_leaves_nothing_and_can_be_begun_again(tmp_path, env):
    home, begun = tmp_path / "home", asyncio.Event()
    wanted = recipe(tmp_path, wheel(tmp_path / "wheels", "engine", "1.0"))
    given_up = asyncio.ensure_future(environments.install(wanted, home, lambda _: begun.set(), env))
    await begun.wait()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert list((home / "environments").glob(".x-*")) == []
    assert not environments.folder("x", home).exists()

    await environments.install(wanted, home, silent, env)


async def test_a_half_made_one_is_not_taken_for_whole(tmp_path, env):
    home = tmp_path / "home"
    left = home / "environments" / ".x-0123456789ab" / "bin"
    left.mkdir(parents=True)
    wanted = recipe(tmp_path, wheel(tmp_path / "wheels", "engine", "1.0"))

    assert environments.program("x", "engine", home, {"PATH": ""}) is None
    await environments.install(wanted, home, silent, env)
    assert not left.exists()


async def test_removed_it_is_gone(tmp_path, env):
    home = tmp_path / "home"
    await environments.install(recipe(tmp_path, wheel(tmp_path / "wheels", "engine", "1.0")), home, silent, env)

    assert environments.remove("x", home) > 0
    assert environments.program("x", "engine", home, {"PATH": ""}) is None
    with pytest.raises(NotFound):
        environments.remove("x", home)
