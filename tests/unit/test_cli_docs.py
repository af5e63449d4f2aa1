"""docs/cli.md and the commands say the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import typer

import corral.cli
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


def below(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `group` that is no other's alias, and what is typed for it."""
    for name, command in group.commands.items():
        if path or name not in ALIASES:
            yield (*path, name), command
            yield from below(command, (*path, name)) if hasattr(command, "commands") else ()


def options() -> Iterator[tuple[str, str, Any]]:
    """Every way to spell every command's own options: that, the command, and the option."""
    common = {spelling for param in ROOT.params for spelling in param.opts}
    for path, command in below(ROOT):
        for param in command.params:
            if param.param_type_name == "option":
                yield from ((spelling, " ".join(path), param) for spelling in param.opts if spelling not in common)


def test_every_command_says_what_it_does_on_one_line() -> None:
    for path, command in below(ROOT):
        first = command.help.partition("\n")[0]
        assert first.endswith("."), path
        assert not first.startswith("corral"), path
        assert len(first) <= 68, path


def test_every_parameter_is_explained_and_has_a_name_for_its_value() -> None:
    for path, command in below(ROOT):
        for param in command.params:
            assert (param.help or "").endswith("."), (path, param.name)
            assert param.metavar is not None, (path, param.name)


def test_a_letter_means_one_thing() -> None:
    """`-n` counts, wherever it stands: who types it for one command may type it for any."""
    meant: dict[str, set[str]] = {}
    for spelling, _, param in options():
        if len(spelling) == 2:
            meant.setdefault(spelling, set()).add(param.opts[0])

    assert meant.pop("-n") == {"--lines", "--limit"}
    assert all(len(long) == 1 for long in meant.values()), meant


def test_options_named_alike_are_spelled_alike() -> None:
    """They have the same letters, take the same kind of value, and are explained alike where they do the same."""
    spelled: dict[str, set[tuple[str, ...]]] = {}
    named: dict[str, set[str]] = {}
    explained: dict[str, set[str]] = {}
    for spelling, _, param in options():
        if spelling.startswith("--"):
            spelled.setdefault(spelling, set()).add(tuple(param.opts))
            named.setdefault(spelling, set()).add(param.metavar)
            explained.setdefault(spelling, set()).add(param.help)

    differ = {name for name, ways in spelled.items() if len(ways) > 1}
    assert differ == {"--all"}  # of operations it has a letter
    differ = {name for name, metavars in named.items() if len(metavars) > 1}
    assert differ == {"--key", "--model"}  # by name, by id; a model, a pattern of models
    for name in ("--dry-run", "--yes", "--orphans", "--since", "--until"):
        assert len(explained[name]) == 1, explained[name]
    for name, first in (
        ("--force", "Also "),
        ("--no-wait", "Do not wait until "),
        ("--lines", "How many of the last "),
    ):
        assert all(text.startswith(first) for text in explained[name]), explained[name]


def test_what_a_command_works_on_is_named_alike() -> None:
    """One that is there already goes by what it is: KEY, BUDGET, MODEL; NAME is for what the configuration names."""
    explained: dict[str, set[str]] = {}
    for path, command in below(ROOT):
        for param in command.params:
            if param.param_type_name == "argument" and path[-1] not in {"create", "adopt"}:
                explained.setdefault(param.metavar, set()).add(param.help)

    assert explained["NAME"] == {f"The {kind}, as the configuration calls it." for kind in ("service", "container")}
    assert explained["MODEL"] == {
        "The model's name: see corral list.", "The model, as the container's server calls it.",
    }  # fmt: skip
    for name in ("KEY", "BUDGET", "KIND", "[NAME]..."):
        assert len(explained[name]) == 1, explained[name]


def test_removing_for_good_asks() -> None:
    """What the configuration or a pull makes again by itself need not; the rest has a --yes."""
    removing = {path: command for path, command in below(ROOT) if path[-1] == "rm"}

    asking = {path for path, command in removing.items() if any("--yes" in param.opts for param in command.params)}
    assert set(removing) - asking == {("containers", "rm")}  # its volumes stay, and `up` makes it again


def test_columns_of_one_name_stand_in_one_order() -> None:
    """In the tables that list things, what several have comes in the same order: name, state, port, up, restarts …"""
    tables = [titles for titles in map(tuple, written_tables()) if titles[:1] == ("NAME",)]
    assert len(tables) > 5

    for one, other in combinations(tables, 2):
        both = set(one) & set(other)
        assert [title for title in one if title in both] == [title for title in other if title in both], (one, other)


def written_tables() -> Iterator[list[str]]:
    """The titles of each table that a command makes, as its module writes them down."""
    for module in sorted(Path(corral.cli.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.List):
                calls = [
                    part
                    for part in node.elts
                    if isinstance(part, ast.Call) and getattr(part.func, "id", "") == "Column"
                ]
                titles = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
                if titles:
                    yield titles


@pytest.mark.parametrize(
    "group", ["services", "containers", "keys", "budgets", "runtimes", "projects", "artifacts", "pipeline"]
)
def test_every_group_lists_by_every_word_for_it(group: str) -> None:
    verbs = ROOT.commands[group]

    assert verbs.get_command(None, "ls") is verbs.commands["list"]
    assert verbs.get_command(None, "remove") is verbs.commands.get("rm")
    assert verbs.get_command(None, "nothing") is None
    for one, other in (("show", "status"), ("status", "show")):
        if one not in verbs.commands:
            assert verbs.get_command(None, one) is verbs.commands.get(other)


def test_the_exit_codes_are_documented() -> None:
    codes = {int(row[0]) for row in PAGE.table("Exit codes")}

    assert codes == {0, 1, INTERRUPTED, NO_READER, *(code for _, code in EXITS)}


def test_the_chat_s_commands_are_documented() -> None:
    table = {row[0].split("`")[1].split()[0]: row[1] for row in PAGE.table("The chat")}

    assert table == {f"/{command.name}": command.does for command in COMMANDS}


def test_every_command_shows_an_example_of_itself() -> None:
    for path, command in below(ROOT):
        example = re.search(r"For example: (.*)", " ".join((command.help or "").split()))
        assert example is not None, path
        assert f"corral {' '.join(path)}" in example[1], path
