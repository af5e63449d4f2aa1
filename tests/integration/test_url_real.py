"""A real model from an address, then shared by a bucket: installed, loaded and asked both times."""

import os

import aiohttp
import pytest

from corral.catalog.registry import Registry
from corral.config import load
from corral.domain.models import Capability, ModelRef
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import SourceError
from corral.kit.clock import SystemClock
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from corral.sources.bucket import Bucket
from corral.sources.url import Url
from support import models
from support.origin import Origin, Reply
from support.s3 import S3


@pytest.fixture
def s3():
    made = S3()
    yield made
    made.close()


@pytest.fixture
async def origin():
    async with Origin() as made:
        yield made


def registry(home, env, mirrors=()):
    home.mkdir(exist_ok=True)
    env = {"HOME": str(home), **env, "CORRAL_SOURCES_RETRIES": "1"}
    clock, settings = SystemClock(), load(env, cwd=home)
    sources = {"url": Url(clock, env, settings), "bucket": Bucket(clock, env, settings)}
    return Registry(home / "models", sources, clock, mirrors=mirrors)


async def said(catalog, installed):
    """What the model answers."""
    options = parse_options(LlamaCppOptions, {"slots": 1, "gpu_layers": 0, "context": 512}, "llamacpp")
    files = catalog.files(installed)
    spec = LaunchSpec("smollm2", options, files, installed.revision)
    session = await LlamaCpp(os.environ).start(spec, silent)
    connector = aiohttp.TCPConnector(force_close=True)
    try:
        async with aiohttp.ClientSession(headers=session.endpoint.headers, connector=connector) as http:
            question = [{"role": "user", "content": "Repeat: one two three four"}]
            body = {"messages": question, "max_tokens": 20, "temperature": 0}
            async with http.post(f"{session.endpoint.url}/chat/completions", json=body) as answer:
                return (await answer.json())["choices"][0]["message"]["content"]
    finally:
        await session.stop(5)


async def test_from_an_address_to_a_bucket_to_somebody_else(origin, s3, smollm2, tmp_path):
    env = {**s3.env, "CORRAL_SOURCES_ALLOW_PRIVATE": origin.host}
    data = smollm2.read_bytes()
    origin.files["/m/smollm2.gguf"] = data
    mine = registry(tmp_path / "mine", env)
    installed = await mine.install(f"{origin.url}/m/smollm2.gguf#sha256={models.sha256(data)}")
    assert installed.name == "smollm2"
    assert installed.revision.capabilities >= {Capability.CHAT}
    assert "three" in await said(mine, installed)

    shared = await mine.push("smollm2", ModelRef.parse("s3://yard/team"))
    assert str(shared) == "s3://yard/team#smollm2"
    theirs = registry(tmp_path / "theirs", env)
    again = await theirs.install(str(shared))
    assert (again.name, again.revision.id) == ("smollm2", installed.revision.id)
    assert "three" in await said(theirs, again)


async def test_updates_of_an_address_and_of_a_shared_catalog(origin, s3, tmp_path):
    env = {**s3.env, "CORRAL_SOURCES_ALLOW_PRIVATE": origin.host}
    old, new = models.gguf(50_000, seed=1), models.gguf(60_000, seed=2)
    origin.files["/tiny.gguf"] = old
    mine, theirs = registry(tmp_path / "mine", env), registry(tmp_path / "theirs", env)
    first = await mine.install(f"{origin.url}/tiny.gguf")
    await mine.push("tiny", ModelRef.parse("s3://yard/team"))
    assert (await theirs.install("s3://yard/team#tiny")).revision.id == first.revision.id
    assert not (await theirs.check("tiny")).changed

    origin.files["/tiny.gguf"] = new
    # A server that changes a file changes its tag.
    origin.tamper = lambda asked: None if "if-range" in asked.headers else tagged(origin.serve(asked))
    assert (await mine.check("tiny")).changed
    second = await mine.update("tiny")
    assert second.revision.files[0].sha256 == models.sha256(new)
    await mine.push("tiny", ModelRef.parse("s3://yard/team"))
    change = await theirs.check("tiny")
    assert (change.changed, change.version) == (True, second.revision.id)
    assert (await theirs.update("tiny")).revision.id == second.revision.id
    assert (await theirs.rollback("tiny")).revision.id == first.revision.id
    pinned = await theirs.install(f"s3://yard/team#@{first.revision.id[:12]}", name="old")
    assert pinned.revision.id == first.revision.id


def tagged(reply):
    reply.headers["ETag"] = '"two"'
    return reply


@pytest.mark.parametrize("base", ["s3://yard/team", "url"])
async def test_a_mirror_helps_where_the_source_fails(origin, s3, tmp_path, base):
    data = models.gguf(50_000, seed=1)
    digest = models.sha256(data)
    env = {**s3.env, "CORRAL_SOURCES_ALLOW_PRIVATE": origin.host}
    async with Origin({"/tiny.gguf": data}) as failing:
        env["CORRAL_SOURCES_ALLOW_PRIVATE"] += f",{failing.host}"
        s3.put(f"team/blobs/sha256/{digest}", data)
        origin.files[f"/store/blobs/sha256/{digest}"] = data
        mirror = ModelRef.parse(f"{origin.url}/store" if base == "url" else base)
        # It lists, and then it refuses.
        failing.tamper = lambda asked: None if asked.range == "bytes=0-511" else Reply(403, {"Content-Length": "0"})
        text = f"{failing.url}/tiny.gguf#sha256={digest}"
        with pytest.raises(SourceError):
            await registry(tmp_path / "alone", env).install(text)
        installed = await registry(tmp_path / "helped", env, [mirror]).install(text)
        assert installed.revision.files[0].sha256 == digest
