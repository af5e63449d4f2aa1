"""The lines that begin with a slash, and the texts of several lines. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.cli.chat.conversation import SETTINGS
from corral.errors import InvalidRequest, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the chat: what it takes, and what it does. `alias` is another name for it."""

    name: str
    takes: str
    does: str
    alias: str = ""


COMMANDS = (
    Command("help", "", "Show these commands"),
    Command("clear", "", "Forget what was said"),
    Command("regenerate", "", "Answer the last question again"),
    Command("system", "TEXT", "Set the system prompt; without TEXT remove it"),
    Command("set", "NAME VALUE", f"Set {', '.join(SETTINGS)}; without VALUE back to the default"),
    Command("show", "", "Show the model, the system prompt and the settings"),
    Command("model", "NAME", "Talk to another model; what was said stays"),
    Command("stats", "", "Show how fast the last answer came"),
    Command("save", "FILE", "Write the conversation to a file"),
    Command("load", "FILE", "Read a conversation from a file"),
    Command("exit", "", "Leave (Ctrl-D does, too)", "bye"),
)
_BY_NAME = {name: command for command in COMMANDS for name in (command.name, command.alias) if name}


@dataclass(frozen=True, slots=True)
class Order:
    """A command as it was given."""

    name: str
    argument: str = ""


def parse(text: str) -> Order | str:
    """What was typed: a command, or the message it is. A leading space makes a message of a line with a slash.

    Raises:
        InvalidRequest: a command that does not exist, or one without what it takes.
    """
    if not text.startswith("/"):
        return unquoted(text)
    word, _, argument = text[1:].partition(" ")
    word, argument = word.strip(), unquoted(argument.strip())
    command = _BY_NAME.get(word.lower())
    if command is None:
        close = nearest(word, _BY_NAME, 1)
        hint = (
            f"Did you mean /{close[0]}?" if close else "/help lists them. A space in front sends the line as a message."
        )
        raise InvalidRequest(f"There is no command /{word}.", hint)
    if command.takes in ("FILE", "NAME") and not argument:
        raise InvalidRequest(
            f"/{command.name} needs a {command.takes.lower()}.", f"Type: /{command.name} {command.takes}"
        )
    return Order(command.name, argument)


def unquoted(text: str) -> str:
    """A message without the three quotation marks around it, and without blank lines at its ends."""
    stripped = text.strip()
    if stripped.startswith(QUOTES):
        return stripped.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return stripped


def unfinished(text: str) -> bool:
    '''Whether Enter should go on in a new line: a text opened with """ that is not closed yet.'''
    start = text.find(QUOTES)
    if start < 0 or (text[:start].strip() and not text.startswith("/")):
        return False
    return QUOTES not in text[start + len(QUOTES) :]


def overview() -> list[tuple[str, str]]:
    """Each command as it is typed, and what it does."""
    return [
        (f"/{command.name} {command.takes}".rstrip() + (f", /{command.alias}" if command.alias else ""), command.does)
        for command in COMMANDS
    ]


def completions(text: str, models: Sequence[str]) -> list[tuple[str, str]]:
    """What may stand in place of the last word of `text`, which ends at the cursor, with a word on each."""
    if not text.startswith("/") or "\n" in text:
        return []
    name, space, argument = text[1:].partition(" ")
    if not space:
        return [(f"/{c.name}", c.does) for c in COMMANDS if c.name.startswith(name.lower())]
    choices: Iterable[str] = {"model": models, "set": SETTINGS}.get(name, ())
    return [(choice, "") for choice in choices if choice.startswith(argument)]
