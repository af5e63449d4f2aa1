"""The chat at the terminal: a prompt with history and several lines, and answers printed as they come.

Ctrl-C stops an answer, never the chat. Text is printed once, as it arrives, and never drawn again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from corral.cli.chat import commands
from corral.cli.chat.conversation import Answer, Conversation, is_conversation, setting
from corral.cli.chat.talker import Talker, listen
from corral.cli.output import Output, size_text, time_text
from corral.errors import CorralError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

    from prompt_toolkit.document import Document
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output as Screen

_PATIENCE = 0.4
"""Seconds without a token after which the chat says that it waits."""

_REMARKS = {
    "stopped": "(stopped)",
    "length": "(cut off at the limit of tokens; see /set max_tokens)",
    "empty": "(the model said nothing)",
}


class Chat:
    """One chat: reads, asks, prints, until the person leaves.

    Args:
        conversation: what was said; it is changed.
        talker: who answers; it is for the caller to close.
        output: where answers go.
        session: the prompt.
    """

    def __init__(self, conversation: Conversation, talker: Talker, output: Output, session: PromptSession[str]) -> None:
        self._conversation = conversation
        self._talker = talker
        self._output = output
        self._session = session
        self._answering: asyncio.Task[None] | None = None
        self._orders: Mapping[str, Callable[[str], Any]] = {
            "help": self._help,
            "clear": self._clear,
            "system": self._system,
            "set": self._set,
            "stats": self._stats,
            "save": self._save,
            "load": self._load,
        }

    async def run(self) -> None:
        """Talk until /exit or Ctrl-D."""
        self._output.note(f"{self._conversation.model}: /help shows the commands, Ctrl-D leaves.")
        async with self._signals():
            while True:
                try:
                    text = await self._session.prompt_async(handle_sigint=False)
                except KeyboardInterrupt:
                    if not self._session.default_buffer.text:
                        self._output.note("To leave, press Ctrl-D or type /exit.")
                    continue
                except EOFError:
                    return
                if text.strip() and not await self._handle(text):
                    return

    async def _handle(self, text: str) -> bool:
        """Do what was typed; False when it was to leave. Errors are shown, and the chat goes on."""
        try:
            match commands.parse(text):
                case commands.Order("exit"):
                    return False
                case commands.Order("regenerate"):
                    await self._answer(self._conversation.regenerate())
                case commands.Order("show"):
                    await self._show()
                case commands.Order("model", name):
                    await self._switch(name)
                case commands.Order(name, argument):
                    self._orders[name](argument)
                case message if message:
                    await self._answer(self._conversation.ask(message))
                case _:
                    pass
        except CorralError as error:
            self._output.fail(error)
        return True

    async def _answer(self, body: Mapping[str, Any]) -> None:
        answer = Answer()
        with _no_echo():
            task = self._answering = asyncio.create_task(self._receive(body, answer))
            try:
                await asyncio.wait([task])
            finally:
                self._answering = None
                task.cancel()
        shown = answer.text or answer.reasoning
        if shown and not shown.endswith("\n"):
            self._output.say()
        if task.cancelled():
            answer.finish_reason = "stopped"
        self._conversation.answered(answer)
        if not task.cancelled() and (error := task.exception()):
            raise error
        if remark := _REMARKS.get("empty" if not shown and not task.cancelled() else answer.finish_reason or ""):
            self._output.note(remark)
        self._output.say()

    async def _receive(self, body: Mapping[str, Any], answer: Answer) -> None:
        with ExitStack() as waiting:
            loop = asyncio.get_running_loop()
            busy = loop.call_later(
                _PATIENCE, lambda: waiting.enter_context(self._output.busy(f"Waiting for {self._conversation.model} …"))
            )
            waiting.callback(busy.cancel)

            def hear(thought: str, said: str) -> None:
                waiting.close()
                if thought:
                    self._output.piece(thought, "dim")
                if said:
                    if answer.reasoning and answer.text == said:
                        self._output.piece("\n\n")
                    self._output.piece(said)

            await listen(self._talker, body, answer, hear)

    @asynccontextmanager
    async def _signals(self) -> AsyncIterator[None]:
        """Within the block Ctrl-C stops an answer, and a polite request to end leaves the terminal as it was."""
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        ends = this.cancel if this is not None else self._interrupt
        taken = []
        for number, act in ((signal.SIGINT, self._interrupt), (signal.SIGTERM, ends), (signal.SIGHUP, ends)):
            with suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, act)
                taken.append(number)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def _help(self, _: str) -> None:
        self._output.fields(commands.overview())
        self._output.note('Several lines: Alt-Enter begins a new one, and so does Enter between """ and """.')

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._output.note("Forgotten.")

    def _system(self, text: str) -> None:
        self._conversation.system = text or None
        self._output.note("The system prompt is set." if text else "There is no system prompt.")

    def _set(self, argument: str) -> None:
        settings = self._conversation.settings
        if argument:
            name, _, value = argument.replace("=", " ", 1).partition(" ")
            key, known = setting(name, value)
            settings.pop(key, None)
            if known is not None:
                settings[key] = known
            self._output.note(f"{key} is {known}." if known is not None else f"{key} is the model's own.")
        elif settings:
            self._output.fields(list(settings.items()))
        else:
            self._output.note("Nothing is set; the model's own settings apply.")

    def _stats(self, _: str) -> None:
        answer = self._conversation.last
        if answer is None:
            raise InvalidRequest("There is no answer to measure yet.", "Type a message first.")
        speed, wait = answer.tokens_per_second, answer.wait
        pairs = [
            ("prompt tokens", answer.prompt_tokens),
            ("answer tokens", answer.completion_tokens),
            ("tokens a second", speed and f"{speed:.1f}"),
            ("first token after", wait and time_text(wait)),
            ("ended", answer.finish_reason),
        ]
        self._output.fields([(name, value) for name, value in pairs if value is not None])

    async def _show(self) -> None:
        known = await self._talker.describe(self._conversation.model)
        size, capabilities = known.get("size"), known.get("capabilities") or ()
        pairs: list[tuple[str, object]] = [
            ("model", self._conversation.model),
            ("runtime", known.get("runtime") or "unknown"),
            *([("revision", str(known["revision"])[:12])] if known.get("revision") else []),
            *([("size", size_text(size))] if size else []),
            *([("capabilities", ", ".join(capabilities))] if capabilities else []),
            ("system", self._conversation.system or "none"),
            ("messages", len(self._conversation.messages)),
            *self._conversation.settings.items(),
        ]
        self._output.fields(pairs)

    async def _switch(self, name: str) -> None:
        await self._talker.describe(name)
        self._conversation.model = name
        self._output.note(f"Now talking to {name}.")

    def _save(self, argument: str) -> None:
        path = Path(argument).expanduser()
        try:
            if path.exists() and not is_conversation(path.read_text(encoding="utf-8", errors="replace")):
                raise InvalidRequest(f"{path} exists and is not a saved conversation.", "Choose another name.")
            path.write_text(self._conversation.dump(), encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be written: {error.strerror}.", "Choose another place.") from error
        self._output.note(f"Saved to {path}.")

    def _load(self, argument: str) -> None:
        path = Path(argument).expanduser()
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be read: {error.strerror}.", "Check its name.") from error
        self._conversation.restore(text)
        count = len(self._conversation.messages)
        self._output.note(f"Loaded {count} messages with {self._conversation.model}.")


class Words(Completer):
    """Completes commands, and what they take."""

    def __init__(self, models: Iterable[str]) -> None:
        self._models = sorted(models)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand where the cursor is."""
        text = document.text_before_cursor
        start = -len(text) if " " not in text else -len(text.partition(" ")[2])
        for choice, doc in commands.completions(text, self._models):
            yield Completion(choice, start_position=start, display_meta=doc)


def prompt(
    history: History, models: Iterable[str], screen: Screen | None = None, keyboard: Input | None = None
) -> PromptSession[str]:
    """The prompt: Enter sends, Alt-Enter begins a new line, and so does Enter within three quotation marks."""
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        state = buffer.complete_state
        if state is not None and state.current_completion is not None:
            buffer.apply_completion(state.current_completion)
        if commands.unfinished(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    return PromptSession(
        FormattedText([("bold", "> ")]),
        multiline=True,
        prompt_continuation=FormattedText([("", ". ")]),
        placeholder=_placeholder,
        history=history,
        completer=Words(models),
        complete_while_typing=True,
        key_bindings=keys,
        output=screen,
        input=keyboard,
    )


def _placeholder() -> FormattedText:
    """A word of help in an empty prompt; it does not stay behind when the prompt is left."""
    return FormattedText([] if get_app().is_done else [("fg:ansibrightblack", "Type a message, or /help")])


@contextmanager
def _no_echo() -> Iterator[None]:
    """Keep what is typed during the block off the screen; the next prompt gets it. Ctrl-C still interrupts."""
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (OSError, ValueError, termios.error):  # not a terminal
        yield
        return
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(keyboard, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)


def history_in(home: Path) -> History:
    """What was typed before, kept in `home` for its owner alone; kept nowhere when `home` cannot be written."""
    path = home / "history"
    try:
        home.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
