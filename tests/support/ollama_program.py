"""Fixtures: Ollama's API played in this process, and by a program `ollama`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ollama_daemon


@pytest.fixture
def ollama_there() -> Iterator[ollama_daemon.Daemon]:
    """An Ollama that is there."""
    with ollama_daemon.playing() as daemon:
        yield daemon


@pytest.fixture
def ollama_stand_in(tmp_path: Path) -> Path:
    """A program that answers to `ollama serve`."""
    path = tmp_path / "bin" / "ollama"
    path.parent.mkdir()
    player = shlex.join([sys.executable, "-P", "-B", ollama_daemon.__file__])
    path.write_text(f'#!/bin/sh\nexec {player} "$@"\n')
    path.chmod(0o755)
    return path
