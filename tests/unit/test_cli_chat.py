"""The chat, with a keyboard that is a pipe and a talker that is a script."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import stat
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from corral.cli.chat.conversation import Answer, Conversation
from corral.cli.chat.talker import listen
from corral.cli.chat.terminal import Chat, Words, history_in, prompt
from corral.cli.output import Output
from corral.errors import EngineDied, ModelNotFound


class Script:
    """Answers each question with the next of `answers`: pieces of text, or an error after them."""

    def __init__(self, *answers: list[str | Exception | None]) -> None:
        self.answers = list(answers)
        self.asked: list[Mapping[str, Any]] = []
        self.waiting = asyncio.Event()
        self.stopped = 0

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        self.asked.append({**body, "messages": [dict(m) for m in body["messages"]]})
        try:
            for piece in self.answers.pop(0):
                if isinstance(piece, Exception):
                    raise piece
                if piece is None:
                    self.waiting.set()
                    await asyncio.Event().wait()
                yield {"choices": [{"delta": {"content": piece}}]}
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        yield {
            "choices": [{"delta": {}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        }

    async def describe(self, model: str) -> Mapping[str, Any]:
        if model != "other":
            raise ModelNotFound(f"No {model}.", "Try other.")
        return {"name": model, "runtime": "fake", "revision": "ab" * 32, "size": 1000, "capabilities": ["chat"]}

    async def models(self) -> list[str]:
        return ["other"]

    async def close(self) -> None:
        pass


async def chat(script: Script, *typed: str, talk: Conversation | None = None) -> tuple[str, str, Conversation]:
    """What a chat prints when `typed` is typed, and Ctrl-D after it; "\\x03" interrupts the answer that waits."""
    talk = talk or Conversation("m")
    output = Output(stdout=io.StringIO(), stderr=io.StringIO(), env={})
    with create_pipe_input() as keyboard:
        session = prompt(InMemoryHistory(), ["other"], DummyOutput(), keyboard)
        running = asyncio.create_task(Chat(talk, script, output, session).run())
        for text in typed:
            if text == "\x03 while answering":
                await script.waiting.wait()
                os.kill(os.getpid(), signal.SIGINT)
            else:
                keyboard.send_text(text)
        keyboard.send_text("\x04")
        await asyncio.wait_for(running, 20)
    return output.stdout.getvalue(), output.stderr.getvalue(), talk


async def test_answers_are_printed_and_remembered() -> None:
    script = Script(["Hel", "lo\x1b[2J"], ["Bye\n"])
    said, noted, talk = await chat(script, "Hi\r", "Ciao\r")

    assert said == "Hello[2J\n\nBye\n\n"
    assert noted.startswith("m: /help shows the commands")
    assert [m["content"] for m in talk.messages] == ["Hi", "Hello\x1b[2J", "Ciao", "Bye\n"]
    assert [m["role"] for m in script.asked[1]["messages"]] == ["user", "assistant", "user"]


async def test_ctrl_c_stops_the_answer_and_not_the_chat() -> None:
    script = Script(["par", None], ["whole"])
    said, noted, talk = await chat(script, "One?\r", "\x03 while answering", "Two?\r", "/stats\r")

    assert "par\n" in said
    assert "whole\n" in said
    assert "(stopped)" in noted
    assert script.stopped == 1
    assert [m["content"] for m in talk.messages] == ["One?", "par", "Two?", "whole"]


async def test_an_error_in_mid_answer_keeps_the_chat_alive() -> None:
    script = Script(["par", EngineDied("It died.", "Ask again.")], ["whole"])
    said, noted, talk = await chat(script, "One?\r", "/regenerate\r")

    assert "error: It died.\nhint: Ask again.\n" in noted
    assert said == "par\nwhole\n\n"
    assert [m["content"] for m in talk.messages] == ["One?", "whole"]


async def test_ctrl_c_at_an_empty_prompt_says_how_to_leave() -> None:
    _, noted, _ = await chat(Script(), "\x03", "abc\x03")

    assert noted.count("To leave, press Ctrl-D or type /exit.") == 1


async def test_exit_leaves_at_once() -> None:
    script = Script(["never"])
    said, _, _ = await chat(script, "/exit\r", "Hi\r")

    assert said == ""
    assert script.asked == []


async def test_several_lines() -> None:
    script = Script(["a"], ["b"])
    await chat(script, '"""one\rtwo"""\r', "three\x1b\rfour\r")

    assert [m["content"] for m in script.asked[1]["messages"]] == ["one\ntwo", "a", "three\nfour"]


async def test_settings_and_system() -> None:
    script = Script(["a"])
    said, noted, _ = await chat(
        script, "/set\r", "/set temperature 0.5\r", "/set seed=7\r", "/set\r", "/set seed\r", "/set nonsense 1\r",
        "/system Be brief.\r", "Hi\r", "/system\r",
    )  # fmt: skip

    assert "Nothing is set" in noted
    assert "temperature is 0.5." in noted
    assert "seed is the model's own." in noted
    assert "error: Unknown option 'nonsense'" in noted
    assert "temperature  0.5\nseed         7\n" in said
    assert script.asked[0]["temperature"] == 0.5
    assert "seed" not in script.asked[0]
    assert script.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "There is no system prompt." in noted


async def test_another_model() -> None:
    script = Script(["a"])
    said, noted, talk = await chat(script, "/model nobody\r", "/model other\r", "/show\r", "Hi\r")

    assert "error: No nobody." in noted
    assert "Now talking to other." in noted
    assert "runtime       fake" in said
    assert script.asked[0]["model"] == talk.model == "other"


async def test_stats_help_and_clear() -> None:
    script = Script(["a", "b"])
    said, noted, talk = await chat(script, "/stats\r", "/help\r", "Hi\r", "/stats\r", "/clear\r")

    assert "error: There is no answer to measure yet." in noted
    assert "/regenerate" in said
    assert "answer tokens" in said
    assert talk.messages == []


async def test_an_answer_that_is_empty_or_cut_off() -> None:
    script = Script([""])
    _, noted, _ = await chat(script, "Hi\r")
    assert "(the model said nothing)" in noted


async def test_save_and_load(tmp_path: Path) -> None:
    file, precious = tmp_path / "talk.json", tmp_path / "precious.txt"
    precious.write_text("mine")
    script = Script(["a"])
    _, noted, _ = await chat(
        script, "Hi\r", f"/save {file}\r", f"/save {file}\r", f"/save {precious}\r", f"/save {tmp_path}/no/file\r"
    )

    assert noted.count(f"Saved to {file}.") == 2
    assert "is not a saved conversation" in noted
    assert "cannot be written" in noted
    assert precious.read_text() == "mine"

    _, noted, talk = await chat(Script(), f"/load {file}\r", f"/load {precious}\r", f"/load {tmp_path}/none\r")
    assert "Loaded 2 messages with m." in noted
    assert "error: That file is not a conversation" in noted
    assert "cannot be read" in noted
    assert [m["content"] for m in talk.messages] == ["Hi", "a"]


async def test_a_request_to_end_ends_the_chat() -> None:
    script = Script([None])
    output = Output(stdout=io.StringIO(), stderr=io.StringIO(), env={})
    with create_pipe_input() as keyboard:
        session = prompt(InMemoryHistory(), [], DummyOutput(), keyboard)
        running = asyncio.create_task(Chat(Conversation("m"), script, output, session).run())
        keyboard.send_text("Hi\r")
        await script.waiting.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait({running}, timeout=20)

    assert running.cancelled()
    assert script.stopped == 1


async def test_reasoning_is_shown_and_not_remembered() -> None:
    class Thinker(Script):
        async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
            yield {"choices": [{"delta": {"reasoning_content": "hm"}}]}
            yield {"choices": [{"delta": {"content": "yes"}, "finish_reason": "length"}]}

    said, noted, talk = await chat(Thinker(), "Hi\r")

    assert said == "hm\n\nyes\n\n"
    assert "(cut off at the limit of tokens" in noted
    assert talk.messages[-1]["content"] == "yes"


async def test_listening_closes_the_stream_when_the_listener_fails() -> None:
    closed = asyncio.Event()

    class Closing(Script):
        async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
            try:
                yield {"choices": [{"delta": {"content": "a"}}]}
            finally:
                closed.set()

    def fail(thought: str, said: str) -> None:
        raise BrokenPipeError

    try:
        await listen(Closing(), {"messages": []}, Answer(), fail)
    except BrokenPipeError:
        assert closed.is_set()
    else:
        raise AssertionError("nothing was raised")


def test_completion_replaces_what_was_typed() -> None:
    words = Words(["other"])

    def complete(text: str) -> list[tuple[str, int]]:
        return [(c.text, c.start_position) for c in words.get_completions(Document(text), None)]

    assert complete("/sta") == [("/stats", -4)]
    assert complete("/model o") == [("other", -1)]


def test_the_history_is_for_its_owner(tmp_path: Path) -> None:
    home = tmp_path / "home"

    assert isinstance(history_in(home), FileHistory)
    assert stat.S_IMODE((home / "history").stat().st_mode) == 0o600


def test_without_a_home_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")

    assert isinstance(history_in(tmp_path / "home"), InMemoryHistory)
