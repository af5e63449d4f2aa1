"""Models of a Hugging Face hub, installed: one answers a chat, one is killed in the middle, one is a snapshot."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.config import load
from corral.domain.models import Capability
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import ModelNotFound, SourceError, UnsafeFormat
from corral.kit.clock import SystemClock
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from corral.sources.hf import HuggingFace
from support import models
from support.hub import Hub, sha256

TESTS = Path(__file__).parent.parent
MODEL = models.gguf(400_000, seed=1)


@pytest.fixture
async def hub():
    async with Hub(cdn=True) as hub:
        yield hub


def registry(folder, hub, **env):
    env = hub.env | env
    return Registry(folder, {"hf": HuggingFace(SystemClock(), env, load(env))}, SystemClock(), Library(()))


def parts(folder):
    return list(folder.glob("partial/*"))


def safetensors(**tensors):
    """A sound file with these tensors of floats, by name."""
    header, at = {}, 0
    for name, count in tensors.items():
        header[name] = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + random.Random(1).randbytes(at)


async def test_a_model_of_the_hub_answers_a_chat(hub, smollm2, tmp_path):
    names = ("README.md", "SmolLM2-135M-Instruct-Q2_K.gguf", "SmolLM2-135M-Instruct-Q4_1.gguf")
    hub.repo("corral/SmolLM2-GGUF", dict(zip(names, (b"# SmolLM2", MODEL, smollm2), strict=True)))
    yard = registry(tmp_path, hub)

    installed = await yard.install("hf:corral/SmolLM2-GGUF:Q4_1")

    revision = installed.revision
    assert revision.source == "hf:corral/SmolLM2-GGUF:Q4_1"
    assert revision.version == hub.repos["corral/SmolLM2-GGUF"].commits[0][0]
    assert [(file.name, file.size) for file in revision.files] == [(names[2], smollm2.stat().st_size)]
    assert revision.files[0].sha256 == sha256(smollm2)
    assert Capability.CHAT in revision.capabilities
    assert parts(tmp_path) == []
    options = parse_options(LlamaCppOptions, {"context": 512, "slots": 1, "gpu_layers": 0}, "llamacpp")
    launch = LaunchSpec(installed.name, options, {"model": yard.path(revision.files[0])}, revision)
    session = await LlamaCpp(os.environ).start(launch, silent)
    try:
        body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
        session.endpoint.adapt("/chat/completions", body)
        url = session.endpoint.url + "/chat/completions"
        async with (
            aiohttp.ClientSession(headers=session.endpoint.headers) as http,
            http.post(url, json={**body, "max_tokens": 24}) as answer,
        ):
            said = (await answer.json())["choices"][0]["message"]["content"]
        assert len(said.split()) > 3
    finally:
        await session.stop(5)


async def test_an_installed_model_is_not_fetched_again_under_another_commit(hub, tmp_path):
    repo = hub.repo("o/m", {"m.gguf": MODEL})
    first = await registry(tmp_path, hub).install("hf:o/m")
    repo.commit({"m.gguf": MODEL, "README.md": b"more"})
    second = await registry(tmp_path, hub).install("hf:o/m")
    assert first.revision.id == second.revision.id
    assert hub.sent == len(MODEL)


async def test_a_failed_install_is_invisible_and_goes_on_later(hub, tmp_path):
    hub.repo("o/m", {"m.gguf": MODEL})
    hub.fault("stall", where="cdn", after=600_000)
    hub.fault("status", where="cdn", status=500, times=2)
    patience = {"CORRAL_SOURCES_STALL_TIMEOUT": "0.3", "CORRAL_SOURCES_RETRIES": "1"}
    with pytest.raises(SourceError, match="500"):
        await registry(tmp_path, hub, **patience).install("hf:o/m")
    yard = registry(tmp_path, hub)
    assert yard.names() == []
    installed = await yard.install("hf:o/m")
    assert yard.path(installed.revision.files[0]).read_bytes() == MODEL
    assert hub.sent == len(MODEL)
    assert parts(tmp_path) == []


@asynccontextmanager
async def puller(folder, hub):
    """A process that installs; killed at the end whatever happens."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.puller", str(folder), "hf:o/m"),
        env=os.environ | hub.env | {"PYTHONPATH": str(TESTS), "no_proxy": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def test_a_killed_install_goes_on_where_it_was(hub, tmp_path):
    hub.repo("o/m", {"m.gguf": MODEL})
    for held in (300_000, 600_000, 900_000):
        hub.stalled.clear()
        before = hub.sent
        hub.fault("stall", where="cdn", after=held - before)
        async with puller(tmp_path, hub) as child:
            await hub.stalled.wait()
            while line := (await child.stdout.readline()).decode().split():
                if line[0] == "download" and int(line[1]) >= held:
                    break
            assert child.returncode is None
        with pytest.raises(ModelNotFound):
            registry(tmp_path, hub).get("m")
    async with puller(tmp_path, hub) as child:
        out, err = await child.communicate()
    assert (child.returncode, out.decode().splitlines()[-1:]) == (0, [f"installed {len(MODEL)}"]), err
    assert hub.sent == len(MODEL)
    assert [asked.range for asked in hub.asked_for("/cdn/")] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]
    assert parts(tmp_path) == []


SNAPSHOT = {
    "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny",
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}).encode(),
    "generation_config.json": b"{}",
    "model-00001-of-00002.safetensors": safetensors(a=60_000),
    "model-00002-of-00002.safetensors": safetensors(b=50_000),
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": json.dumps({"chat_template": models.CHATML}).encode(),
}


async def test_a_snapshot_is_installed_whole(hub, tmp_path):
    hub.repo("o/tiny", {**SNAPSHOT, "modeling_tiny.py": b"evil()", "pytorch_model.bin": b"\x80\x02."})
    yard = registry(tmp_path, hub)
    installed = await yard.install("hf:o/tiny")
    assert installed.revision.format == "safetensors"
    assert {file.name for file in installed.revision.files} == set(SNAPSHOT)
    for file in installed.revision.files:
        assert yard.path(file).read_bytes() == SNAPSHOT[file.name]
    assert installed.revision.licence == "apache-2.0"
    assert Capability.CHAT in installed.revision.capabilities


async def test_pickles_are_refused_before_the_first_byte(hub, tmp_path):
    hub.repo("o/old", {"config.json": b"{}", "pytorch_model.bin": MODEL})
    with pytest.raises(UnsafeFormat) as caught:
        await registry(tmp_path, hub).install("hf:o/old")
    assert "allow_pickle" in caught.value.hint
    assert hub.sent == 0
