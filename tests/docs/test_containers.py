"""docs/containers.md names every state and kind, and its sample is a configuration."""

from __future__ import annotations

from pathlib import Path

from corral.config import load
from corral.domain.standings import ContainerState
from corral.fleet.desired import all_wanted
from corral.fleet.kinds import KINDS
from tests.docs import pages

PAGE = pages.read("docs/containers.md")


def test_every_state_in_the_order_of_the_code() -> None:
    assert [pages.code(row[0]) for row in PAGE.table("States")] == [str(state) for state in ContainerState]


def test_every_kind_with_what_it_is() -> None:
    rows = {pages.code(row[0]): row[1:] for row in PAGE.table("What is made of an entry")}
    assert set(rows) == set(KINDS)
    for name, (image, _, inside, health, _) in rows.items():
        kind = KINDS[name]
        assert image == (f"`{kind.image}`" if kind.image else "none: name one"), name
        assert (int(inside), pages.code(health)) == (kind.inside, kind.health), name


def test_the_sample_is_what_it_says(tmp_path: Path) -> None:
    (block,) = PAGE.blocks("yaml")
    file = tmp_path / "corral.yaml"
    file.write_text(block)
    env = {"HOME": str(tmp_path)}
    wanted = all_wanted(load(env, file=file), env)
    assert [want.spec.ports[0].outside for want in wanted.values()] == [11434, 11435, 11436]
    assert [want.purpose for want in wanted.values()] == ["code completion", "reasoning", "writing"]
