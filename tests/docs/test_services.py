"""docs/services.md lists every option of every kind and every verb, and its samples are configurations."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from corral.cli.services import app
from corral.config import load
from corral.services.kinds import KINDS, Surroundings, spec
from tests.docs import pages

PAGE = pages.read("docs/services.md")


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_kind_with_its_default(kind: str) -> None:
    rows = {pages.code(row[0]): row[1] for row in PAGE.table(kind)}
    options = {item.name: item.default for item in fields(KINDS[kind][0])}

    assert set(rows) == set(options)
    for name, said in rows.items():
        if said.startswith("`") and said != "`model`":
            assert pages.code(said) == str(options[name]), name


def test_every_verb() -> None:
    assert [pages.code(row[0]) for row in PAGE.table("Verbs")] == [
        command.name or command.callback.__name__ for command in app.registered_commands
    ]


@pytest.mark.parametrize("block", PAGE.blocks("yaml"))
def test_the_samples_can_be_used(block: str, tmp_path: Path) -> None:
    file = tmp_path / "corral.yaml"
    file.write_text(block)
    settings = load({"HOME": str(tmp_path)}, file=file)
    around = Surroundings(lambda *_: Path("/bin/true"), Path)

    made = [spec(name, entry, around) for name, entry in settings.services.items()]

    assert made


def test_the_shell_s_samples_are_commands() -> None:
    text = "\n".join(PAGE.blocks("sh"))
    words = set(re.findall(r"^corral services (\w+)", text, re.MULTILINE))

    assert words <= {pages.code(row[0]) for row in PAGE.table("Verbs")}
