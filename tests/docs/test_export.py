"""docs/export.md names the forms, the files of an archive and the controls that there are."""

from __future__ import annotations

import re

from corral.domain.workspace import FORMS
from corral.workspace.exports import framer, survey
from tests.docs.pages import ROOT

TEXT = (ROOT / "docs" / "export.md").read_text()


def test_every_form_is_told() -> None:
    assert re.findall(r"^\| `(\w+)` \| ", TEXT, re.MULTILINE) == list(FORMS)


def test_every_file_of_an_archive_is_drawn_where_the_code_draws_it() -> None:
    drawn = re.findall(r"(\w+\.jsonl)", TEXT.split("```text", 1)[1].split("```", 1)[0])

    assert drawn == [survey.place(kind).removeprefix("entries/") for kind in survey.RECORDS]
    assert drawn == re.findall(r"(\w+\.jsonl)", survey.__doc__ or "")
    assert f'format: "{survey.FORMAT}", version: {survey.VERSION}' in TEXT


def test_every_control_is_told() -> None:
    source = (ROOT / "src" / "corral" / "workspace" / "exports" / "framer.py").read_text()
    written = set(re.findall(r'"(String|Number|Boolean|Enum|Color|Array|Object|EventHandler|Slot)"', source))

    assert len(written) == 9
    assert written == set(re.findall(r"`([A-Z]\w+)`", TEXT.split("| prop | control |", 1)[1].split("\n\n", 1)[0]))
    assert "{} by {} pixels".format(*framer.SIZE) in TEXT


def test_the_packages_that_framer_gives_are_told() -> None:
    for name in framer.OFFERED:
        assert f"`{name}`" in TEXT
