"""docs/configuration.md says what config.py does: every key, in both directions."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral import config
from tests.docs import pages

PAGE = pages.read("docs/configuration.md")
KEYS = {key: (default, meaning) for key, default, meaning in config.reference()}
ROWS = {pages.code(row[0]): row for row in PAGE.table("Keys")}


def test_every_key_is_documented_and_every_documented_key_exists() -> None:
    assert list(ROWS) == list(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_has_its_variable_its_meaning_and_its_default(key: str, tmp_path: Path) -> None:
    _, default, variable, meaning = ROWS[key]

    assert pages.code(variable) == config.variable(key)
    assert meaning == KEYS[key][1]
    if default == "—":
        assert not KEYS[key][0]
    else:
        assert _read(variable, default, tmp_path) == _expected(KEYS[key][0], tmp_path)


def _read(variable: str, default: str, home: Path) -> Any:
    """What the documented default means when it is given in the environment."""
    env = {"HOME": str(home), pages.code(variable): pages.code(default)}
    settings = config.load(env, cwd=home)
    return next(value for _, value, origin in settings.rows() if origin.startswith("environment"))


def _expected(default: Any, home: Path) -> Any:
    if isinstance(default, tuple):
        return tuple(_expected(item, home) for item in default)
    return home / str(default).removeprefix("~/") if isinstance(default, Path) else default


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("One model: `models.NAME`", config.ModelSettings),
        ("A name for several models: `routes.NAME`", config.RouteSettings),
        ("What a model costs: `prices.NAME`", config.PriceSettings),
        ("Models that may not stand together: `groups.NAME`", config.GroupSettings),
        ("A long-lived server: `services.NAME`", config.ServiceSettings),
        ("A model server in a container: `containers.NAME`", config.ContainerSettings),
    ],
)
def test_the_keys_of_an_entry_are_documented(heading: str, kind: type[Any]) -> None:
    documented = {pages.code(row[0]): row[1] for row in PAGE.table(heading)}

    assert documented == {item.name: item.metadata["doc"] for item in fields(kind)}


@pytest.mark.parametrize("block", PAGE.blocks("yaml"))
def test_the_files_shown_are_read(block: str, tmp_path: Path) -> None:
    file = tmp_path / "corral.yaml"
    file.write_text(block)

    settings = config.load({"HOME": str(tmp_path)}, file=file)

    assert settings.warnings == ()
    assert set(settings.models) == set(yaml.safe_load(block)["models"])
