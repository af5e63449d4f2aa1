"""docs/cli.md and the commands say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from corral.cli.app import ALIASES, application
from corral.cli.chat.commands import COMMANDS
from corral.cli.output import EXITS, INTERRUPTED, NO_READER
from tests.docs.pages import read

PAGE = read("docs/cli.md")
ROOT = typer.main.get_command(application())


def documented() -> set[str]:
    cells = [
        cell for row in PAGE.table("Commands") for cell in re.findall(r"`corral ([a-z ]+?)(?: [\[A-Z].*?)?`", row[0])
    ]
    return {name.strip() for name in cells}


def every(group: Any, path: str = "") -> Iterator[str]:
    """Every command below `group`, by what is typed for it."""
    for name, command in group.commands.items():
        yield f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from every(command, f"{path} {name}".strip())


def test_every_command_is_documented_and_no_other() -> None:
    assert documented() == set(every(ROOT))


def test_aliases_do_the_same() -> None:
    for alias, name in ALIASES.items():
        assert ROOT.commands[alias].hidden
        assert ROOT.commands[alias].callback.__wrapped__ is ROOT.commands[name].callback.__wrapped__


def test_every_command_has_the_options_of_all() -> None:
    wanted = {re.match(r"`(--[a-z]+)", row[0])[1] for row in PAGE.table("Options of every command")}
    commands = [ROOT, *ROOT.commands.values(), *ROOT.commands["config"].commands.values()]

    assert wanted == {"--json", "--quiet", "--home", "--config", "--url", "--debug"}
    for command in commands:
        assert wanted | {"--help"} <= {option for parameter in command.params for option in parameter.opts}, (
            command.name
        )


def test_every_command_says_what_it_does_on_one_line() -> None:
    for command in ROOT.commands.values():
        first = command.help.partition("\n")[0]
        assert first.endswith("."), command.name
        assert len(first) <= 68, command.name


def test_the_exit_codes_are_documented() -> None:
    codes = {int(row[0]) for row in PAGE.table("Exit codes")}

    assert codes == {0, 1, INTERRUPTED, NO_READER, *(code for _, code in EXITS)}


def test_the_chat_s_commands_are_documented() -> None:
    table = {row[0].split("`")[1].split()[0]: row[1] for row in PAGE.table("The chat")}

    assert table == {f"/{command.name}": command.does for command in COMMANDS}


def test_every_command_shows_an_example_of_itself() -> None:
    commands = {(name,): command for name, command in ROOT.commands.items() if name not in ALIASES}
    for (name,), command in list(commands.items()):
        commands |= {(name, inner): one for inner, one in getattr(command, "commands", {}).items()}

    for path, command in commands.items():
        example = re.search(r"For example: (.*)", " ".join((command.help or "").split()))
        assert example is not None, path
        assert f"corral {' '.join(path)}" in example[1], path
