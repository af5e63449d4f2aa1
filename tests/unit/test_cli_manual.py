"""The manual page has every command with its options, and is roff."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command

from corral.cli.app import application
from corral.cli.manual import render

PAGE = render(application())


def commands(group: Any, path: str = "corral") -> Iterator[tuple[str, Any]]:
    for name, inner in group.commands.items():
        if not inner.hidden:
            yield f"{path} {name}", inner
            if hasattr(inner, "commands"):
                yield from commands(inner, f"{path} {name}")


COMMANDS = dict(commands(get_command(application())))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_it_with_its_options(name: str) -> None:
    parts = re.split(r'^\.SS "', PAGE, flags=re.MULTILINE)
    (section,) = [part for part in parts if re.match(rf'{re.escape(name)}( (?![a-z-]+[" ]).*)?"\n', part)]
    for param in COMMANDS[name].params:
        if param.param_type_name == "option" and not param.hidden:
            assert (param.opts[0].replace("-", "\\-") in section) or f".B {param.opts[0]}".replace("-", "\\-") in PAGE


def test_nothing_but_requests_begins_with_a_dot() -> None:
    requests = {line.split(" ")[0] for line in PAGE.splitlines() if line.startswith((".", "'"))}

    assert requests <= {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I"}


def test_what_roff_would_take_for_its_own_is_kept() -> None:
    app = typer.Typer()

    @app.callback()
    def root() -> None:
        """Root."""

    @app.command("x")
    def x() -> None:
        """.TH is no request, C:\\dir keeps its stroke."""

    page = render(app)
    assert "\n\\&.TH is no request, C:\\edir keeps its stroke.\n" in page
