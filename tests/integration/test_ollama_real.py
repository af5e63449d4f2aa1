"""A model in a real registry (Debian's docker-registry), installed, loaded and asked."""

import asyncio
import json
import os

import aiohttp
import pytest

from corral import GenerationConfig, ModelManager
from corral.catalog.imports import plan_ollama
from corral.catalog.registry import Registry
from corral.config import load
from corral.domain.models import Capability
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import SourceError
from corral.kit.clock import SystemClock
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from corral.sources.ollama import Ollama
from support import models, oci

CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""
PARAMS = {"stop": ["four"], "temperature": 0, "top_k": 7, "num_ctx": 512, "num_predict": 40, "seed": 3, "num_gpu": 99}
SYSTEM = "You repeat what you are told, word by word."


def env(home, **more):
    return {**models.only("file:///nowhere"), "HOME": str(home), **more}


def registry(home, clock=None):
    clock = clock or SystemClock()
    told = env(home)
    return Registry(home / "models", {"ollama": Ollama(clock, told, load(told))}, clock)


@pytest.fixture
async def host(tmp_path):
    async with oci.docker_registry(tmp_path / "registry") as host:
        yield host


async def test_smollm2_is_pulled_loaded_and_asked(host, smollm2, tmp_path):
    made = oci.image(
        smollm2.read_bytes(), template=CHATML, params=PARAMS, system=SYSTEM, license="Apache License\nVersion 2.0"
    )
    digest = await oci.push(host, "library/smollm2", "135m", made)
    catalog = registry(tmp_path)
    installed = await catalog.install(f"ollama:{host}/library/smollm2:135m")
    revision = installed.revision
    assert (installed.name, revision.version, revision.licence) == ("smollm2:135m", digest, "Apache-2.0")
    assert revision.capabilities >= {Capability.CHAT, Capability.SYSTEM_ROLE}
    assert {key: revision.defaults[key] for key in ("stop", "context", "top_k")} == {
        "stop": ["four"],
        "context": 512,
        "top_k": 7,
    }
    assert await catalog.install(f"ollama:{host}/library/smollm2:135m") == installed

    options = parse_options(LlamaCppOptions, {**revision.defaults, "slots": 1, "gpu_layers": 0}, "llamacpp")
    files = {file.role: catalog.path(file) for file in revision.files}
    session = await LlamaCpp(os.environ).start(LaunchSpec("smollm2", options, files, revision), silent)
    try:
        assert session.facts.context == 512
        await _ask_it(session)
    finally:
        await session.stop(5)


async def _ask_it(session):
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers=session.endpoint.headers, connector=connector) as http:

        async def ask(*messages, **body):
            body |= {"messages": [{"role": role, "content": text} for role, text in messages], "verbose": True}
            session.endpoint.adapt("/chat/completions", body)
            async with http.post(f"{session.endpoint.url}/chat/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        counting = ("user", "Repeat: one two three four five six seven eight nine ten")
        said = await ask(counting)
        asked = said["__verbose"]["prompt"]
        assert asked == (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{counting[1]}<|im_end|>\n<|im_start|>assistant\n"
        )
        settings = said["__verbose"]["generation_settings"]
        assert (settings["temperature"], settings["top_k"], settings["seed"]) == (0, 7, 3)
        assert (settings["stop"], settings["n_predict"]) == (["four"], 40)
        text = said["choices"][0]["message"]["content"]
        assert "three" in text
        assert "four" not in text

        own = await ask(("system", "Be kind."), counting, stop=["three"], top_k=3, temperature=0.5, max_tokens=60)
        assert SYSTEM not in own["__verbose"]["prompt"]
        assert "system\nBe kind.<|im_end|>" in own["__verbose"]["prompt"]
        settings = own["__verbose"]["generation_settings"]
        assert (settings["top_k"], settings["temperature"]) == (3, 0.5)
        assert (settings["stop"], settings["n_predict"]) == (["three"], 60)
        long = await ask(counting, stop=["never"], max_tokens=90, ignore_eos=True)
        assert long["usage"]["completion_tokens"] == 90


async def test_a_pull_that_broke_off_goes_on_where_it_was(host, tmp_path):
    data = models.gguf(4_000_000, seed=3)
    await oci.push(host, "me/tiny", "latest", oci.image(data, license="MIT"))
    async with oci.Cutter(host, left=6_000_000) as line:
        source = Ollama(SystemClock(), env(tmp_path), load(env(tmp_path, CORRAL_SOURCES_RETRIES="1")))
        catalog = Registry(tmp_path / "models", {"ollama": source}, SystemClock())
        with pytest.raises(SourceError):
            await catalog.install(f"ollama:{line.host}/me/tiny")
        held = sum(part.stat().st_size for part in (tmp_path / "models" / "partial").glob("*.part"))
        assert 1_000_000 < held < len(data)
        line.left = None
        line.asked.clear()
        installed = await catalog.install(f"ollama:{line.host}/me/tiny")
    assert any(f"Range: bytes={held}-" in asked for asked in line.asked)
    assert catalog.path(installed.revision.files[0]).read_bytes() == data


async def test_a_new_push_of_the_tag_is_found(host, tmp_path):
    catalog = registry(tmp_path)
    first, second = (oci.image(models.gguf(seed=seed), params={"top_k": seed}) for seed in (1, 2))
    await oci.push(host, "me/tiny", "latest", first)
    before = await catalog.install(f"ollama:{host}/me/tiny")
    await oci.push(host, "me/tiny", "latest", second)
    after = await catalog.install(f"ollama:{host}/me/tiny")
    assert (before.name, before.revision.version) == (after.name, first.digest)
    assert after.revision.version == second.digest
    pinned = await catalog.install(f"ollama:{host}/me/tiny@{first.digest}", name="old")
    assert pinned.revision.id == before.revision.id


async def test_two_pulls_at_once_are_one(host, tmp_path):
    data = models.gguf(1_000_000, seed=5)
    await oci.push(host, "me/tiny", "latest", oci.image(data))
    both = await asyncio.gather(*(registry(tmp_path).install(f"ollama:{host}/me/tiny") for _ in range(2)))
    assert both[0].revision == both[1].revision
    blobs = list((tmp_path / "models" / "blobs" / "sha256").iterdir())
    assert [blob.name for blob in blobs] == [models.sha256(data)]
    assert json.loads(json.dumps(dict(both[0].revision.facts)))


async def test_the_models_of_this_machine_s_ollama_are_taken_over(smollm2, tmp_path):
    data = smollm2.read_bytes()
    made = oci.image(data, template=CHATML, params=PARAMS, system=SYSTEM, license="MIT")
    folder = made.store(tmp_path / ".ollama" / "models", "library/smollm2", "135m")
    told = env(tmp_path)
    plan = plan_ollama(folder)
    async with ModelManager(settings=load(told), env=told) as manager:
        for ref, name in plan.installs:
            installed = await manager.install(ref, name=name)
        assert (installed.name, installed.follows) == ("smollm2:135m", "ollama:smollm2:135m")
        stored = load(told).models_dir / "blobs" / "sha256" / models.sha256(data)
        assert stored.samefile(folder / "blobs" / f"sha256-{models.sha256(data)}")
        reply = await manager.generate("smollm2:135m", GenerationConfig("Repeat: one two three four five six seven"))
        assert reply.receipt.finish_reason == "stop"
        assert "three" in reply.text
        assert "four" not in reply.text
