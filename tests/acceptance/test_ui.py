"""`corral ui` as it is started: in a terminal of 80 by 24, in lines, and where there is no terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.commands import CORRAL, Yard

CONFIG = """\
models:
  parrot: { runtime: fake, options: { reply: "one two three" } }
  second: { runtime: fake }
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    yard = Yard(tmp_path_factory.mktemp("ui"))
    yard.configure(CONFIG)
    with yard.serving():
        yield yard


def terminal(yard: Yard, *arguments: str, **more: str) -> pexpect.spawn:
    env = {**yard.env, "TERM": "xterm-256color", **more}
    return pexpect.spawn(
        CORRAL, ["ui", *arguments], env=env, cwd=str(yard.home), encoding="utf-8", timeout=60, dimensions=(24, 80)
    )


def ended(child: pexpect.spawn) -> int | None:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


@pytest.mark.parametrize("colour", ["", "1"])
def test_a_menu_is_opened_used_and_left(served: Yard, colour: str) -> None:
    child = terminal(served, NO_COLOR=colour)
    child.expect_exact("parrot")
    child.send("2")
    child.expect_exact("No model is in memory")
    child.send("4")
    child.expect_exact("Processor")
    child.send("q")
    assert ended(child) == 0


def test_what_was_on_the_screen_before_is_there_again(served: Yard) -> None:
    child = terminal(served)
    child.expect_exact("\x1b[?1049h")
    child.expect_exact("parrot")
    child.sendintr()
    child.expect_exact("\x1b[?1049l")
    assert ended(child) == 0


def test_a_menu_in_lines(served: Yard) -> None:
    typed = "models\nload parrot\nqueue\ntest parrot\nask parrot hello\nspend\nwork\nmachine\nnonsense\nload\nquit\n"
    done = served.run("ui", "--plain", typed=typed)

    assert "2 models. Type a word, or help." in done.stdout
    assert "parrot is ready, loaded in" in done.stdout
    assert "one two three" in done.stdout
    assert "waited" in done.stdout
    assert "Processor" in done.stdout
    assert "'nonsense' is no word of this menu." in done.stderr
    assert "load needs a name." in done.stderr
    assert not set("▁▂▃▄▅▆▇█·\x1b") & set(done.stdout)


def test_a_menu_in_lines_ends_with_what_is_typed(served: Yard) -> None:
    assert "models: the models and how they stand" in served.run("ui", "--plain", typed="help\n").stdout


def test_ctrl_c_leaves_the_lines_at_once(served: Yard) -> None:
    child = terminal(served, "--plain")
    child.expect_exact("corral: ")
    child.sendintr()
    assert ended(child) == 130


def test_where_there_is_no_terminal_lines_are_offered(served: Yard) -> None:
    done = served.run("ui", code=2)

    assert "corral ui --plain" in done.stderr


def test_a_theme_that_there_is_not(served: Yard) -> None:
    assert "dark, light, contrast" in served.run("ui", "--theme", "pink", code=2).stderr


def test_without_a_server_lines_say_what_to_type(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.configure("models: {}")

    assert "corral serve" in yard.run("ui", "--plain", typed="models\n", code=4).stderr


def test_a_menu_is_for_people(served: Yard) -> None:
    assert "A menu is for people." in served.run("ui", "--json", code=2).stderr
