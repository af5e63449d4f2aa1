"""docs/runtimes.md lists every option of every runtime that ships, and nothing else."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml

from corral.config import load
from corral.domain.options import parse_options
from corral.plugins import runtimes
from tests.docs import pages

PAGE = pages.read("docs/runtimes.md")
PLUGINS = runtimes({"env": {}, "clock": None, "home": None, "containers": None})


@pytest.mark.parametrize("kind", PLUGINS)
def test_every_option_is_documented_and_every_documented_option_exists(kind: str) -> None:
    documented = [name for row in PAGE.table(kind) for name in re.findall(r"`(\w+)`", row[0])]

    assert sorted(documented) == sorted(item.name for item in fields(PLUGINS[kind].options))


@pytest.mark.parametrize("kind", PLUGINS)
def test_plain_defaults_are_the_documented_ones(kind: str) -> None:
    """Where the page says a number or a piece of code, it is the default; where it says words, it is not."""
    defaults = {item.name: item.default for item in fields(PLUGINS[kind].options)}
    for names, default, *_ in PAGE.table(kind):
        said = [part.strip().strip("`") for part in default.split(",")]
        options = re.findall(r"`(\w+)`", names)
        for option, word in zip(options, said * len(options) if len(said) == 1 else said, strict=False):
            actual = defaults[option]
            if actual is not None and actual is not MISSING and isinstance(actual, int | float | str):
                spelt = str(actual).lower() if isinstance(actual, bool) else str(actual)
                assert word == spelt, f"{kind}.{option} is {actual!r}, and the page says {default!r}"


@pytest.mark.parametrize("block", PAGE.blocks("yaml"))
def test_the_files_shown_are_read(block: str, tmp_path: Path) -> None:
    file = tmp_path / "corral.yaml"
    file.write_text(block)
    settings = load({"HOME": str(tmp_path)}, file=file)

    assert set(settings.models) == set(yaml.safe_load(block).get("models", {}))
    for kind, options in settings.runtimes.items():
        parse_options(PLUGINS[kind].options, options, kind)
