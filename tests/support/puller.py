"""A process that installs one model and tells on each line of its output how far it is; made to be killed.

python -m support.puller MODELS_DIR REFERENCE     environment: pip's, and the hub's
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.config import load
from corral.domain.ports import Progress
from corral.errors import CorralError
from corral.kit.clock import SystemClock
from corral.sources.hf import HuggingFace
from corral.sources.pypi import PyPI


def tell(progress: Progress) -> None:
    sys.stdout.write(f"{progress.phase} {progress.done}\n")
    sys.stdout.flush()


async def main(folder: str, what: str) -> None:
    clock = SystemClock()
    sources = {"pypi": PyPI(clock, os.environ), "hf": HuggingFace(clock, os.environ, load(os.environ))}
    registry = Registry(Path(folder), sources, clock, Library(()))
    try:
        installed = await registry.install(what, report=tell)
    except CorralError as error:
        sys.exit(f"{error.code} {error}")
    sys.stdout.write(f"installed {installed.revision.size}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
