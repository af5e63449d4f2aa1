"""The tag `latest` goes without saying, and never hides a model that is called so."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.app import Corral
from corral.config import load

CONFIG = """
models:
  plain: {runtime: fake, aliases: [other]}
  tagged:latest: {runtime: fake}
  both: {runtime: fake}
  both:latest: {runtime: fake}
routes:
  auto: {models: [plain]}
"""


@pytest.fixture
def corral(tmp_path: Path) -> Corral:
    file = tmp_path / "corral.yaml"
    file.write_text(CONFIG)
    env = {"CORRAL_HOME": str(tmp_path), "HOME": str(tmp_path)}
    return Corral(load(env, file=file), env=env)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("plain:latest", "plain"),
        ("other:latest", "plain"),
        ("tagged", "tagged:latest"),
        ("tagged:latest", "tagged:latest"),
        ("both", "both"),
        ("both:latest", "both:latest"),
        ("auto:latest", "auto"),
        ("smollm2:latest", "smollm2"),
        ("smollm2:135m", "smollm2"),
        ("plain:other", "plain:other"),
        ("nobody:latest", "nobody:latest"),
        ("nobody", "nobody"),
    ],
)
def test_what_a_name_means(corral: Corral, asked: str, meant: str) -> None:
    assert corral.canonical(asked) == meant


def test_a_route_is_found_with_the_tag(corral: Corral) -> None:
    assert corral.routes.find("auto:latest") == corral.routes.find("auto")
