"""What the Tab key offers in bash, zsh and fish, by the protocol of each, and in a real bash."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pexpect
import pytest

from tests.support.commands import CORRAL, Yard

CONFIG = """\
models:
  parrot: { runtime: fake }
  "A:tiny": { runtime: fake }
  "A:tall": { runtime: fake }
services: { ollama: {}, oracle: { kind: ollama } }
containers:
  coder: { image: "local/coder:1", port: 11434 }
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    yard = Yard(tmp_path_factory.mktemp("desk"))
    yard.configure(CONFIG)
    for name in ("editor", "early"):
        yard.run("keys", "create", name)
    yard.run("keys", "revoke", "early")
    yard.run("budgets", "create", "team", "50")
    for name in ("shop", "shelf"):
        yard.run("projects", "create", name)
    yard.run("projects", "rm", "shelf", "--yes")
    (yard.home / "page.yaml").write_text("name: page\nsteps: {one: {model: parrot, prompt: hello}}\n")
    yard.run("pipeline", "save", "page.yaml")
    yard.run("artifacts", "put", "page.yaml", "--project", "shop", "--name", "pages/page.yaml", "--kind", "text")
    return yard


def bash(line: str) -> dict[str, str]:
    """As bash breaks `line`: at colons, too."""
    words = re.findall(r"[:=]|[^ :=]+", line) + ([""] if line.endswith(" ") else [])
    return {"_CORRAL_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}


def zsh(line: str) -> dict[str, str]:
    return {"_CORRAL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}


def fish(line: str) -> dict[str, str]:
    more = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return {"_CORRAL_COMPLETE": "complete_fish", **more}


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def offered(yard: Yard, shell: str, line: str) -> set[str]:
    """The words that Corral offers at the end of `line`, without their descriptions; nothing may be complained of."""
    done = Yard(yard.home, SHELLS[shell](line)).run(code=None)
    assert done.stderr == ""
    if shell == "zsh":
        return {
            word.replace(r"\\:", ":")
            for word in re.findall(r'^(?:_arguments .*\(\()?"(.*?)"(?::|$|\)\))', done.stdout, re.MULTILINE)
        }
    return {text.partition("\t")[0] for text in done.stdout.splitlines() if text}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("corral show pa", {"parrot"}),
        ("corral show parrot --js", {"--json"}),
        ("corral services start o", {"ollama", "oracle"}),
        ("corral containers logs co", {"coder"}),
        ("corral keys rm e", {"editor"}),
        ("corral budgets change t", {"team"}),
        ("corral usage --model p", {"parrot"}),
        ("corral containers up --orphans re", {"report", "remove"}),
        ("corral show A", {"A:tiny", "A:tall"}),
        ("corral projects show s", {"shop"}),
        ("corral pipeline run p", {"page"}),
        ("corral pipeline runs --status c", {"completed", "cancelled"}),
        ("corral artifacts cat p", {"pages/page.yaml"}),
    ],
)
def test_names_are_offered(desk: Yard, shell: str, line: str, names: set[str]) -> None:
    assert offered(desk, shell, line) == names


@pytest.mark.parametrize(("line", "rest"), [("corral show A:", {"tiny", "tall"}), ("corral rm parrot A:ti", {"tiny"})])
def test_bash_is_answered_with_what_follows_the_colon(desk: Yard, line: str, rest: set[str]) -> None:
    assert offered(desk, "bash", line) == rest


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "line", ["corral keys show ", "corral show x", "corral services stop ", "corral projects show "]
)
def test_nothing_is_offered_and_nothing_made_where_there_is_nothing(tmp_path: Path, shell: str, line: str) -> None:
    yard = Yard(tmp_path)
    before = sorted(tmp_path.rglob("corral.db*"))

    assert offered(yard, shell, line) == set()
    assert sorted(tmp_path.rglob("corral.db*")) == before


def test_a_configuration_that_cannot_be_read_is_no_reason_to_speak(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.configure("models: [\n")

    assert offered(yard, "bash", "corral services start o") == set()


@pytest.mark.parametrize(
    ("shell", "says"), [("bash", "complete -o"), ("zsh", "#compdef corral"), ("fish", "complete --command corral")]
)
def test_each_shell_has_its_script(desk: Yard, shell: str, says: str) -> None:
    assert says in Yard(desk.home, {"_CORRAL_COMPLETE": f"source_{shell}"}).run(code=None).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_real_bash_completes_a_name_with_a_colon(desk: Yard) -> None:
    path = f"{Path(CORRAL).parent}{os.pathsep}{desk.env['PATH']}"
    env = {**desk.env, "PATH": path, "TERM": "dumb", "INPUTRC": os.devnull}
    terminal = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env=env, encoding="utf-8", timeout=90)
    try:
        terminal.sendline('source <(_CORRAL_COMPLETE=source_bash corral) && echo rea""dy')
        terminal.expect("ready")
        terminal.send("corral show A:ti\t")
        terminal.expect_exact("corral show A:tiny ")
    finally:
        terminal.close(force=True)
