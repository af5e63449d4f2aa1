"""`corral runtimes`: what it shows and what it refuses, in a home where nothing is made and in one where all is."""

import json
import sys
from pathlib import Path

import pytest

from corral.cli.app import run
from corral.kit import environments
from corral.runtimes.transformers import Transformers


@pytest.fixture
def corral(tmp_path, capsys):
    """Run a command line in a home of its own: its exit code, what it said, and what it said of errors."""

    def call(*arguments):
        code = run([*arguments, "--home", str(tmp_path / "home")])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def made(tmp_path):
    """The environment of transformers, as if it had been installed."""
    link = environments.folder("transformers", tmp_path / "home")
    whole = link.with_name(f".transformers-{environments._digest(Transformers.recipe.requirements, sys.executable)}")
    (whole / "bin").mkdir(parents=True)
    for name in ("python", "transformers"):
        (whole / "bin" / name).write_text("x")
        (whole / "bin" / name).chmod(0o755)
    for package in ("transformers-5.23.0", "torch-2.13.0+cpu", "uvicorn-1", "fastapi-1", "openai-1"):
        (whole / "lib" / "python3" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    link.symlink_to(whole.name)
    return link


def test_every_runtime_is_shown_with_what_it_lacks(corral):
    code, out, _ = corral("runtimes", "--json")
    found = {item["kind"]: item for item in json.loads(out)["runtimes"]}

    assert code == 0
    assert found["llamacpp"]["formats"] == ["gguf"]
    assert found["fake"]["usable"]
    assert found["fake"]["environment"] is None
    assert found["transformers"]["formats"] == ["safetensors"]
    assert all(item["usable"] or (item["reason"] and item["hint"]) for item in found.values())


def test_a_person_sees_what_to_type(corral, made):
    for part in (made / "bin" / "transformers", made / "bin" / "python"):
        part.unlink()
    code, out, _ = corral("runtimes")

    assert code == 0
    assert out.splitlines()[0].split() == ["RUNTIME", "USABLE", "VERSION", "DEVICES", "FORMATS"]
    if "transformers  yes" not in out:  # none on this machine's PATH
        assert "corral runtimes install transformers" in out


def test_quietly_only_what_can_be_used_is_named(corral, made):
    code, out, _ = corral("runtimes", "--quiet")

    assert code == 0
    assert {"fake", "llamacpp", "openai", "transformers"} <= set(out.split())


def test_what_is_made_is_found_and_not_made_again(corral, made):
    code, out, _ = corral("runtimes", "install", "transformers", "--json")

    assert code == 0
    assert json.loads(out) == {
        "kind": "transformers",
        "environment": str(made),
        "usable": True,
        "version": "5.23.0",
        "devices": ["mps", "cpu"] if sys.platform == "darwin" else ["cpu"],
    }
    _, said, _ = corral("runtimes", "install", "transformers")
    assert said.startswith("transformers 5.23.0 is installed, for ")
    _, out, _ = corral("runtimes", "--json")
    found = {item["kind"]: item for item in json.loads(out)["runtimes"]}
    assert found["transformers"]["environment"] == str(made)


def test_it_is_removed_on_a_yes_only(corral, made):
    code, _, err = corral("runtimes", "rm", "transformers")
    assert code != 0
    assert "--yes" in err
    assert made.exists()

    code, out, _ = corral("runtimes", "rm", "transformers", "--yes", "--json")
    assert code == 0
    assert json.loads(out)["freed"] > 0
    assert list(Path(made).parent.glob(".transformers-*")) == []
    code, _, err = corral("runtimes", "rm", "transformers", "--yes")
    assert code != 0
    assert "no environment" in err


@pytest.mark.parametrize(("kind", "said"), [("llamacpp", "no environment of its own"), ("transformer", "transformers")])
def test_what_has_none_is_refused(corral, kind, said):
    for command in (("install", kind), ("rm", kind, "--yes")):
        code, _, err = corral("runtimes", *command)
        assert code != 0
        assert said in err


def test_another_machines_runtimes_are_not_its_business(corral):
    code, _, err = corral("runtimes", "--url", "http://127.0.0.1:1")

    assert code != 0
    assert "--url" in err
