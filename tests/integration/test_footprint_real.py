"""The estimate beside what a real engine takes, from a short context to the longest that the model knows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.catalog import gguf
from corral.domain.memory import Demand
from corral.domain.models import FileEntry, Revision
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.lifecycle.reckoning import estimate
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions


@pytest.mark.parametrize(("context", "slots"), [(512, 1), (2048, 1), (8192, 1), (4096, 4)])
async def test_the_estimate_is_near(smollm2: Path, context: int, slots: int) -> None:
    facts = gguf.read(smollm2).facts()
    size = smollm2.stat().st_size
    options = parse_options(LlamaCppOptions, {"context": context, "slots": slots, "gpu_layers": 0}, "llamacpp")
    revision = Revision("file:m", "gguf", (FileEntry("m.gguf", size, "00"),), facts=facts)
    session = await LlamaCpp(os.environ).start(LaunchSpec("m", options, {"model": smollm2}, revision), silent)
    try:
        measured = (await session.footprint()).devices["cpu"]
    finally:
        await session.stop(5)

    estimated = estimate(facts, size, Demand(context, slots)).total
    print(f"{context} x {slots}: estimated {estimated / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert 0.9 * measured <= estimated <= 1.25 * measured
