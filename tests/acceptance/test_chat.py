"""The chat, in a terminal: what is typed, what is seen, and Ctrl-C."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.commands import CORRAL, Yard

CONFIG = """\
models:
  parrot: { runtime: fake }
  held: { runtime: fake, options: { hold_after: 1, reply: "one two three" } }
  broken: { runtime: fake, options: { fault: crash, fault_after: 1, fault_times: 1, reply: "one two" } }
"""
PROMPT = "Type a message, or /help"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    yard = Yard(tmp_path_factory.mktemp("chat"))
    yard.configure(CONFIG)
    with yard.serving():
        yield yard


class Screen:
    """A chat in a terminal of 80 columns."""

    def __init__(self, yard: Yard, *arguments: str) -> None:
        env = {**yard.env, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.child = pexpect.spawn(
            CORRAL, ["run", *arguments], env=env, cwd=str(yard.home), encoding="utf-8", timeout=60, dimensions=(40, 80)
        )
        self.sees(PROMPT)

    def sees(self, text: str) -> str:
        """Wait for a text; what came before it, without control sequences."""
        self.child.expect_exact(text)
        return CONTROL.sub("", self.child.before)

    def types(self, text: str) -> None:
        self.child.send(text + "\r")

    def asks(self, text: str) -> str:
        """Type a line, and wait for the next prompt: what was printed up to there."""
        self.types(text)
        return self.sees(PROMPT)

    def ends(self) -> int | None:
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus


@pytest.mark.parametrize("leave", ["/exit\r", "/bye\r", "\x04"])
def test_a_chat_from_beginning_to_end(served: Yard, leave: str) -> None:
    screen = Screen(served, "parrot")

    assert "Hello there" in screen.asks("Hello there").partition("\n")[2]
    assert "Did you mean /clear?" in screen.asks("/claer")
    screen.child.send(leave)
    assert screen.ends() == 0


def test_ctrl_c_stops_the_answer_and_frees_the_engine(served: Yard) -> None:
    screen = Screen(served, "held")
    screen.types("Go on")
    screen.sees("one")
    screen.child.sendintr()
    screen.sees("(stopped)")
    screen.sees(PROMPT)

    assert served.json("unload", "held", "--drain", "60")["state"] == "cold"
    assert "Now talking to parrot." in screen.asks("/model parrot")
    assert "still here" in screen.asks("still here").partition("\n")[2]
    screen.child.sendintr()
    screen.sees("To leave, press Ctrl-D or type /exit.")
    screen.sees(PROMPT)
    screen.child.sendeof()
    assert screen.ends() == 0


def test_several_lines_and_history(served: Yard) -> None:
    screen = Screen(served, "parrot", "--system", "Echo.")
    screen.types('"""first')
    screen.types("second")
    answer = screen.asks('third"""')
    assert "first" in answer
    assert "third\n" in answer
    screen.child.send("fourth\x1b\rfifth\r")
    assert "fifth" in screen.sees(PROMPT).rpartition("fourth")[2]
    screen.child.sendeof()
    assert screen.ends() == 0
    history = served.home / "history"
    assert "+third" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_an_engine_that_dies_does_not_end_the_chat(served: Yard) -> None:
    screen = Screen(served, "broken")

    assert "error:" in screen.asks("hi")
    assert "parrot" in screen.asks("/model parrot")
    assert "hello" in screen.asks("hello").partition("\n")[2]
    screen.child.sendeof()
    assert screen.ends() == 0


def test_settings_save_and_load(served: Yard, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    screen = Screen(served, "parrot", "--set", "seed=7")

    assert "seed" in screen.asks("/set")
    assert "max_tokens is 2." in screen.asks("/set max_tokens 2")
    assert "cut off" in screen.asks("one two three four")
    assert "answer tokens" in screen.asks("/stats")
    assert "runtime" in screen.asks("/show")
    assert f"Saved to {file}." in screen.asks(f"/save {file}").replace("\n", "")
    assert "Forgotten." in screen.asks("/clear")
    assert "Loaded 2 messages" in screen.asks(f"/load {file}")
    assert "one two" in screen.asks("/regenerate").partition("\n")[2]
    screen.child.sendeof()
    assert screen.ends() == 0


def test_a_chat_without_a_server(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.configure(CONFIG)
    screen = Screen(yard, "held")
    screen.types("Go on")
    screen.sees("one")
    screen.child.sendintr()
    screen.sees("(stopped)")
    screen.sees(PROMPT)

    assert "runtime" in screen.asks("/show")
    assert "Did you mean parrot?" in screen.asks("/model parott")
    assert "parrot" in screen.asks("/model parrot")
    assert "hello" in screen.asks("hello").partition("\n")[2]
    screen.child.sendeof()
    assert screen.ends() == 0


def test_a_real_model_writes_and_stops(tmp_path: Path, model_store: Path) -> None:
    yard = Yard(tmp_path, {"CORRAL_STORE_MODELS_DIR": str(model_store)})
    screen = Screen(yard, "smollm2", "--set", "max_tokens=400")
    screen.types("Tell me a long story about a dragon.")
    screen.sees("\x1b[?2004l")  # the prompt is over: what follows is the answer, and Ctrl-C a signal
    screen.child.expect(r"[a-z]+ [a-z]+ [a-z]+")
    screen.child.sendintr()
    screen.sees("(stopped)")
    screen.sees(PROMPT)
    screen.asks("/set max_tokens 12")

    assert screen.asks("Say hello.").partition("\n")[2].strip()
    screen.child.sendeof()
    assert screen.ends() == 0
