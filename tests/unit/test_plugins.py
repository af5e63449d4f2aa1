"""Plugins are files and entry points: listed without an import, built with the ports they name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from corral.errors import ConfigError, RuntimeUnavailable, UnknownPlugin
from corral.plugins import Plugins, runtimes, sources

FILES = {
    "good.py": "class Good:\n    def __init__(self, clock): self.clock = clock\nplugin = Good\n",
    "bare.py": "class Bare:\n    pass\nplugin = Bare\n",
    "no_plugin.py": "x = 1\n",
    "needy.py": "import a_module_that_nobody_has\n",
    "greedy.py": "class Greedy:\n    def __init__(self, moon): ...\nplugin = Greedy\n",
    "_hidden.py": "raise RuntimeError('imported')\n",
    "loud.py": "raise RuntimeError('imported')\n",
}


@pytest.fixture
def shelf(tmp_path: Path) -> Plugins[object]:
    name = f"shelf_{tmp_path.name.replace('-', '_')}"
    package = tmp_path / name / "runtimes"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    for file, text in FILES.items():
        (package / file).write_text(text)
    sys.path.insert(0, str(tmp_path))
    try:
        yield Plugins(f"{name}.runtimes", {"clock": "tick"})
    finally:
        sys.path.remove(str(tmp_path))


def test_names_are_listed_without_importing_anything(shelf: Plugins[object]) -> None:
    assert list(shelf) == ["bare", "good", "greedy", "loud", "needy", "no_plugin"]
    assert len(shelf) == 6
    assert "loud" in shelf
    assert "_hidden" not in shelf


def test_a_plugin_is_built_once_with_the_ports_it_names(shelf: Plugins[object]) -> None:
    assert shelf["good"].clock == "tick"
    assert shelf["good"] is shelf["good"]
    assert shelf["bare"] is not None


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("goood", UnknownPlugin, "good"),
        ("zzzzzz", UnknownPlugin, "Known"),
        ("no_plugin", ConfigError, "plugin = "),
        ("needy", RuntimeUnavailable, "a_module_that_nobody_has"),
        ("greedy", ConfigError, "moon"),
    ],
)
def test_what_is_no_plugin_says_why(shelf: Plugins[object], name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        shelf[name]


def test_corral_ships_these(tmp_path: Path) -> None:
    ports = {"clock": None, "env": {}, "home": tmp_path}
    assert {"fake", "llamacpp", "openai"} <= set(runtimes(ports))
    assert {"file", "pypi"} <= set(sources(ports))
    assert sources(ports).noun == "source"
