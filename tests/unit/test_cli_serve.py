"""Which model is recommended once the server answers or a model is installed: one that can be talked to."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.app import Corral
from corral.cli.pull import next_step
from corral.cli.serve import to_try, welcome
from corral.config import load
from support import models


def yard(home: Path, config: str = "") -> Corral:
    (home / "corral.yaml").write_text(config)
    env = {"HOME": str(home), "CORRAL_HOME": str(home)}
    return Corral(load(env, cwd=home), env=env)


async def install_snapshot(corral: Corral, home: Path, name: str) -> None:
    folder = home / name
    folder.mkdir()
    for file, data in models.snapshot().items():
        (folder / file).write_bytes(data)
    await corral.origins.install(f"file:{folder}")
    await corral.choices.survey_all()


async def install_gguf(corral: Corral, home: Path, name: str, *, chats: bool = True) -> None:
    path = home / f"{name}.gguf"
    path.write_bytes(models.gguf(drop=() if chats else ["tokenizer.chat_template"]))
    await corral.origins.install(f"file:{path}")


async def test_what_no_runtime_runs_is_not_recommended(tmp_path: Path) -> None:
    corral = yard(tmp_path)
    await install_snapshot(corral, tmp_path, "first")
    assert corral.registry.get("first").revision.format == "safetensors"
    assert to_try(corral) is None
    await install_gguf(corral, tmp_path, "plain", chats=False)
    assert to_try(corral) is None
    await install_gguf(corral, tmp_path, "talks")
    assert to_try(corral) == "talks"


async def test_configured_models_are_recommended_where_none_is_installed(tmp_path: Path) -> None:
    corral = yard(
        tmp_path, "models: { a: { source: first }, b: { runtime: nowhere }, parrot: { runtime: fake }, z: {} }"
    )
    await install_snapshot(corral, tmp_path, "first")

    assert to_try(corral) == "parrot"


@pytest.mark.parametrize(
    ("model", "some", "said"),
    [
        ("talks", True, None),
        (None, True, "No model here chats yet. In another terminal: corral pull smollm2"),
        (None, False, "No model is installed yet. In another terminal: corral pull smollm2"),
    ],
)
def test_what_serve_says(model: str | None, some: bool, said: str | None) -> None:
    text = welcome("http://127.0.0.1:1", model, some=some, keyed=False)

    assert f'"model": "{model or "smollm2"}"' in text
    assert ("In another terminal" in text) is (said is not None)
    assert said is None or said in text.splitlines()


def test_the_next_step_after_an_install() -> None:
    facts = {"name": "m", "format": "gguf", "capabilities": ["chat", "completion"]}

    assert next_step(facts, runs=True) == "Talk to it: corral run m"
    none = "No runtime here runs safetensors files yet. What could: corral runtimes"
    assert next_step(facts | {"format": "safetensors"}, runs=False) == none
    assert "/v1/completions" in next_step(facts | {"capabilities": ["completion"]}, runs=True)
    assert next_step(facts | {"capabilities": ["embeddings"]}, runs=True) == ""
