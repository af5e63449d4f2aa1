"""The library that ships: sound, pinned, and without surprises."""

import re
from pathlib import Path

import pytest

from corral.catalog.library import shipped
from corral.domain.models import check_name
from corral.domain.sizes import human

ENTRIES = list(shipped())


def test_the_promised_models_are_there():
    assert shipped().find("smollm2").size == 98362432
    assert shipped().find("SmolLM2:135m") is shipped().find("smollm2")
    assert shipped().find("gemma3:270m").size == 253113024
    assert shipped().find("gpt-4") is None


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_complete(entry):
    for name in (entry.name, *entry.aliases):
        assert check_name(name) == name
    assert entry.description.endswith(".")
    assert "\n" not in entry.description
    assert entry.licence
    assert entry.version in entry.ref.locator
    assert entry.files
    for file in entry.files:
        for pin in (file.entry, *file.parts):
            assert re.fullmatch("[0-9a-f]{64}", pin.sha256)
            assert pin.size > 0


def test_no_name_is_taken_twice():
    names = shipped().names()
    assert len(names) == len(set(names)) == sum(1 + len(entry.aliases) for entry in ENTRIES)


def test_templates_are_read_in():
    assert "<tools>" in shipped().find("smollm2").defaults["chat_template"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_documentation_lists_it(entry):
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
    names = ", ".join(f"`{name}`" for name in (entry.name, *entry.aliases))
    assert f"| {names} | {entry.description} | {human(entry.size)} | {entry.licence} |" in page
