"""Small decisions of the catalog's commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.cli.configuring import add_models, added
from corral.cli.overrides import changed
from corral.cli.revisions import _short, _sizes
from corral.cli.search import _matches, count_text
from corral.config import load
from corral.errors import ConfigError, InvalidRequest, UnknownOption

NEW: Mapping[str, Mapping[str, Any]] = {"cloud": {"runtime": "openai", "options": {"base_url": "https://x/v1"}}}


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# nothing but this\n",
        "server:\n  port: 1 # mine\n",
        "server: {port: 1}",
        "models:\n",
        "models:\n  # the parrot\n  parrot: { runtime: fake }\nserver:\n  port: 1\n",
        "models:\n    parrot:\n        runtime: fake\n\nserver: { port: 1 }\n",
        "server: { port: 1 }\nmodels:\n  parrot: { runtime: fake }",
        '{"server": {"port": 1}, "models": {"parrot": {"runtime": "fake"}}}',
        '{"server": {"port": 1}}',
    ],
)
def test_models_are_added_and_the_rest_stays(before: str) -> None:
    after = added(before, NEW, "corral.yaml")

    old, new = yaml.safe_load(before) or {}, yaml.safe_load(after)
    assert new == old | {"models": {**(old.get("models") or {}), **NEW}}
    comments = [line.partition("#")[2] for line in before.splitlines() if "#" in line]
    assert all(comment in after for comment in comments)


@pytest.mark.parametrize("before", ["models: {parrot: {runtime: fake}}\n", "models: []\n", "- a list\n", "text"])
def test_what_cannot_be_added_to_is_left_alone(before: str) -> None:
    with pytest.raises(ConfigError):
        added(before, NEW, "corral.yaml")


def test_a_new_file_is_read_as_it_was_meant(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "CORRAL_HOME": str(tmp_path / "home")}
    file = add_models(load(env, cwd=tmp_path), NEW)

    assert file == tmp_path / "home" / "corral.yaml"
    assert set(load(env, cwd=tmp_path).models) == {"cloud"}
    add_models(load(env, cwd=tmp_path), {"other": {"runtime": "fake"}})
    assert set(load(env, cwd=tmp_path).models) == {"cloud", "other"}
    assert [path.name for path in file.parent.iterdir()] == ["corral.yaml"]


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "CORRAL_HOME": str(tmp_path)}
    (tmp_path / "corral.yaml").write_text("server: { port: 1 }\n")
    settings = load(env, cwd=tmp_path)
    with pytest.raises((ConfigError, UnknownOption)):
        add_models(settings, {"bad": {"runtme": "fake"}})

    assert (tmp_path / "corral.yaml").read_text() == "server: { port: 1 }\n"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ({}, ["supports_tools=true"], {"capabilities": {"supports_tools": True}}),
        ({}, ["supports_tools=No"], {"capabilities": {"supports_tools": False}}),
        ({}, ["context_length=4096", "runtime=fake"], {"context_length": 4096, "runtime": "fake"}),
        ({}, ["allowed_roles=user, assistant"], {"capabilities": {"allowed_roles": ["user", "assistant"]}}),
        ({"capabilities": {"supports_tools": True}}, ["supports_tools="], {}),
        ({"runtime": "fake"}, ["runtime="], {}),
        ({"runtime": "fake"}, ["other="], {"runtime": "fake"}),
        ({}, ["context_length=many"], {"context_length": "many"}),  # the store says why not
    ],
)
def test_what_is_said_by_hand(before: dict[str, Any], values: list[str], after: dict[str, Any]) -> None:
    assert changed(before, values) == after


@pytest.mark.parametrize("value", ["supports_tools", "=true", ""])
def test_what_says_nothing(value: str) -> None:
    with pytest.raises(InvalidRequest, match="KEY=VALUE"):
        changed({}, [value])


def test_what_can_be_said_is_named_whole() -> None:
    with pytest.raises(UnknownOption) as caught:
        changed({}, ["weather=fine"])
    assert {"context_length", "runtime", "supports_tools", "allowed_roles"} <= set(
        caught.value.hint.removeprefix("Known: ").rstrip(".").split(", ")
    )
    with pytest.raises(UnknownOption) as caught:
        changed({}, ["contextlength=64"])
    assert "'context_length'" in caught.value.hint


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (True, "-"), ("x", "-"), (7, "7"), (1500, "1.5k"), (135e6, "135M"), (1_235_814_400, "1.24B"),
     (1e12, "1T"), (0, "0")],
)  # fmt: skip
def test_counts(count: object, text: str) -> None:
    assert count_text(count) == text


def test_each_word_must_match() -> None:
    assert _matches("Qwen2.5-Coder hf:x/y", "qwen CODER")
    assert not _matches("Qwen2.5-Coder", "qwen chat")
    assert _matches("anything", "")


def test_versions_and_sizes_of_a_change() -> None:
    assert _short("a" * 40) == "a" * 12
    assert _short("1.2.3") == "1.2.3"
    assert _sizes({"size_before": 1000, "size_after": 2000}) == "1 kB → 2 kB"
    assert _sizes({"size_before": 1000, "size_after": 1000}) == "1 kB"
    assert _sizes({"size_before": None, "size_after": None}) == "size unknown"
