"""docs/routing.md: its configuration can be used, and its tables are complete."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from corral import errors
from corral.config import load
from corral.config.traffic import RouteSettings
from corral.routing.layout import lay
from corral.routing.plan import _ORDERS
from tests.docs import pages

PAGE = pages.read("docs/routing.md")


def test_the_configuration_of_the_page_can_be_used(tmp_path: Path) -> None:
    (text,) = PAGE.blocks("yaml")
    file = tmp_path / "corral.yaml"
    file.write_text(text)
    settings = load({"HOME": str(tmp_path)}, file=file)
    found = lay(settings.routes, settings.models)
    assert [leg.model for leg in found["saving"].legs] == ["smollm2", "gpt-4o-mini", "gemini-2.0-flash"]
    assert set(yaml.safe_load(text)["routes"]) | {"smollm2"} == set(found)


def test_every_policy() -> None:
    assert {pages.code(row[0]) for row in PAGE.table("In which order")} == set(_ORDERS)


def test_every_setting_of_a_route_is_told() -> None:
    assert [item.name for item in fields(RouteSettings) if f"`{item.name}" not in PAGE.text + "`models`"] == []


def test_codes_are_those_of_errors() -> None:
    known = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    said = [pages.code(row[0].split(",")[0]) for row in PAGE.table("Who is not asked")]
    assert len(said) == 8
    assert set(said) <= known
