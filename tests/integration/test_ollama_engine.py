"""The runtime `ollama`, on a player of Ollama's API that is strict about what it is sent."""

import hashlib
import os

import aiohttp
import psutil
import pytest

from corral.domain.memory import Placement
from corral.domain.models import Capability
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import EngineStartFailed, InvalidRequest, OutOfMemory, RuntimeUnavailable
from corral.runtimes.ollama import Ollama, OllamaOptions, address_of

CHAT = {"messages": [{"role": "user", "content": "Say hello."}]}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def runtime(tmp_path):
    return Ollama({**os.environ, "OLLAMA_HOST": NOBODY}, tmp_path)


def spec(name="tiny:1b", files=None, placement=None, **options):
    return LaunchSpec(name, parse_options(OllamaOptions, options, "ollama"), files or {}, None, 30.0, placement)


async def asked(session) -> str:
    async with (
        aiohttp.ClientSession() as client,
        client.post(
            f"{session.endpoint.url}/chat/completions", json={**CHAT, "model": session.endpoint.model}
        ) as answer,
    ):
        return (await answer.json())["choices"][0]["message"]["content"]


async def test_a_model_that_a_daemon_has_is_loaded_there_and_unloaded(runtime, ollama_there):
    ollama_there.add("mine", ["completion", "vision", "thinking"])
    session = await runtime.start(spec("mine", base_url=ollama_there.address), silent)
    assert ollama_there.loaded == {"mine:latest": 3600.0}
    assert await asked(session) == "hello from mine:latest"
    assert session.facts.context == 4096
    assert session.facts.device == "cpu"
    assert Capability.VISION in session.facts.capabilities
    assert (await session.footprint()).devices == {"cpu": 5_000_000}
    assert await session.healthy()
    assert session.processes() == ()
    await session.stop(5)
    await session.stop(5)
    assert await session.ended() == "was stopped"
    assert not await session.healthy()
    assert ollama_there.loaded == {}
    assert "mine:latest" in ollama_there.models
    assert (await session.footprint()).devices == {}


async def test_a_model_that_it_lacks_is_pulled(runtime, ollama_there):
    reports = []
    session = await runtime.start(spec(base_url=ollama_there.address), reports.append)
    assert [(report.done, report.total) for report in reports if report.phase == "download"] == [(0, 100), (100, 100)]
    await session.stop(5)


async def test_one_that_nobody_has_is_said(runtime, ollama_there):
    with pytest.raises(EngineStartFailed, match="file does not exist"):
        await runtime.start(spec("nothing", base_url=ollama_there.address), silent)
    with pytest.raises(EngineStartFailed, match="has no model 'nothing'"):
        await runtime.start(spec("nothing", base_url=ollama_there.address, pull=False), silent)


async def test_what_is_asked_for_becomes_parameters_of_a_model_that_goes_again(runtime, ollama_there):
    ollama_there.add("mine", ["completion"])
    wanted = spec("mine", base_url=ollama_there.address, context=512, gpu_layers=0, threads=2, parameters={"seed": 1})
    session = await runtime.start(wanted, silent)
    made = session.endpoint.model
    assert made.startswith("corral-mine:")
    assert ollama_there.models[made]["parameters"] == {"num_ctx": 512, "num_gpu": 0, "num_thread": 2, "seed": 1}
    assert session.facts.context == 512
    await session.stop(5)
    assert made not in ollama_there.models
    assert ollama_there.loaded == {}


@pytest.mark.parametrize(("name", "home"), [("my-model", "here"), ("my.model", "there")])
async def test_what_was_made_for_another_engine_stays_when_one_goes(ollama_there, tmp_path, name, home):
    ollama_there.add("mine", ["completion"])
    env = {**os.environ, "OLLAMA_HOST": ollama_there.address}
    first = await Ollama(env, tmp_path / "here").start(spec("my.model", model="mine", context=512), silent)
    second = await Ollama(env, tmp_path / home).start(spec(name, model="mine", context=512), silent)
    await first.stop(5)
    assert await asked(second) == f"hello from {second.endpoint.model}"
    await second.stop(5)
    assert list(ollama_there.models) == ["mine:latest"]


async def test_installed_files_are_given_once(runtime, ollama_there, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" * 700_000)
    for _ in range(2):
        session = await runtime.start(spec("My Model", {"model": file}, base_url=ollama_there.address), silent)
        assert session.endpoint.model.startswith("corral-my-model:")
        await session.stop(5)
    assert ollama_there.blobs == {f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}": 2_800_000}
    assert sum(path == "/api/create" for _, path, _ in ollama_there.seen) == 1


async def test_an_embedder_is_loaded_by_an_embedding(runtime, ollama_there):
    session = await runtime.start(spec("embedder", base_url=ollama_there.address), silent)
    assert session.facts.capabilities == {Capability.EMBEDDINGS}
    assert "embedder:latest" in ollama_there.loaded
    await session.stop(5)


async def test_too_little_memory_is_told_from_other_failures(runtime, ollama_there):
    ollama_there.add("mine", ["completion"])
    with pytest.raises(OutOfMemory, match="requires more system memory"):
        await runtime.start(spec("mine", base_url=ollama_there.address, context=200_000), silent)
    assert list(ollama_there.models) == ["mine:latest"]
    with pytest.raises(EngineStartFailed, match="unknown parameter 'colour'"):
        await runtime.start(spec("mine", base_url=ollama_there.address, parameters={"colour": 1}), silent)


@pytest.mark.parametrize(
    ("share", "device", "note"), [(1.0, "cuda:0", None), (0.25, "cuda:0", "25%"), (0.0, "cpu", "not on cuda:0")]
)
async def test_where_it_runs_is_said_as_it_is(runtime, ollama_there, share, device, note):
    ollama_there.add("mine", ["completion"])
    ollama_there.graphics = share
    placed = Placement({"cuda:0": 10_000_000, "cpu": 1_000_000})
    session = await runtime.start(spec("mine", placement=placed, base_url=ollama_there.address), silent)
    assert session.facts.device == device
    assert (note is None and not session.facts.notes) or note in session.facts.notes[0]
    assert (await session.footprint()).devices.get("cuda:0", 0) == int(5_000_000 * share)
    await session.stop(5)


async def test_an_ollama_of_its_own_is_started_and_ended(runtime, ollama_stand_in, tmp_path):
    session = await runtime.start(spec(executable=str(ollama_stand_in)), silent)
    assert len(session.processes()) >= 2
    assert await asked(session) == "hello from tiny:1b"
    assert session.log()[0] == f"models in {tmp_path / 'ollama'}"
    assert await session.healthy()
    await session.stop(5)
    assert psutil.Process().children() == []


async def test_a_start_that_fails_on_its_own_ollama_leaves_nothing(runtime, ollama_stand_in):
    with pytest.raises(EngineStartFailed, match="file does not exist"):
        await runtime.start(spec("nothing", executable=str(ollama_stand_in)), silent)
    assert psutil.Process().children() == []


async def test_without_any_ollama_it_says_what_to_do(tmp_path):
    bare = Ollama({"PATH": "/nowhere", "OLLAMA_HOST": NOBODY}, tmp_path)
    availability = await bare.probe()
    assert not availability.usable
    assert "ollama serve" in availability.hint
    for options, says in [
        ({}, "'ollama' is not here"),
        ({"serve": False}, "No Ollama answers at"),
        ({"base_url": NOBODY}, NOBODY),
    ]:
        with pytest.raises(RuntimeUnavailable, match=says):
            await bare.start(spec(**options), silent)


async def test_a_probe_sees_the_daemon_or_the_program(tmp_path, ollama_there, ollama_stand_in):
    assert (await Ollama({"OLLAMA_HOST": ollama_there.address}, tmp_path).probe()).version == "0.99.0"
    installed = await Ollama({"PATH": str(ollama_stand_in.parent), "OLLAMA_HOST": NOBODY}, tmp_path).probe()
    assert installed.usable
    assert installed.version is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1:11500", "http://127.0.0.1:11500"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://box", "http://box:80"),
        ("https://box/", "https://box:443"),
        ("[::1]:9", "http://[::1]:9"),
        ("ftp://box", None),
        ("http://box/path", None),
        ("box:port", None),
    ],
)
def test_addresses_as_ollama_reads_them(host, address):
    assert address_of(host) == address


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"context": 0}, "at least 1"),
        ({"base_url": "x://y"}, "x://y"),
        ({"base_url": NOBODY, "serve": True}, "starts another"),
    ],
)
def test_options_that_cannot_be(options, says):
    with pytest.raises(InvalidRequest, match=says):
        parse_options(OllamaOptions, options, "ollama")


def test_what_it_takes_is_counted_where_it_stands(runtime):
    assert runtime.demand(spec(base_url="http://elsewhere:1")) is None
    assert runtime.demand(spec(base_url=NOBODY, memory=7)).fixed == 7
    assert runtime.demand(spec(serve=True)).slots == 4
