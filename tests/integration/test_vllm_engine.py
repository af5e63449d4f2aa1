"""vLLM itself, on the processor, with a real model: started once for all of these tests, which takes minutes."""

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from corral.domain.models import Capability
from corral.domain.ports import LaunchSpec, silent
from corral.kit import leftovers, lineage
from corral.runtimes._vllm import sizes
from corral.runtimes.vllm import Vllm, VllmOptions

MIB = 1024**2
PATIENCE = 1500  # it takes 80 s on a machine that does nothing else, and a multiple of that on one that does

pytestmark = [
    pytest.mark.timeout(PATIENCE),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return Vllm(os.environ, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def spec(vllm_environment, smollm2_snapshot):
    options = VllmOptions(executable=vllm_environment, context=1024, slots=4, cache_mib=128)
    return LaunchSpec("smollm2", options, {"model": smollm2_snapshot}, load_timeout=PATIENCE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(runtime, spec):
    session = await runtime.start(spec, silent)
    yield session
    await session.stop(30)


async def asked(engine, **body):
    said = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16, "temperature": 0, **body}
    async with (
        aiohttp.ClientSession(headers=engine.endpoint.headers) as client,
        client.post(f"{engine.endpoint.url}/chat/completions", json={"model": "smollm2", **said}) as answer,
    ):
        return answer.status, await answer.read()


async def test_it_tells_of_itself(engine):
    facts = engine.facts
    assert (facts.context, facts.slots, facts.device, facts.sleeps) == (1024, 4, "cpu", False)
    assert Capability.CHAT in facts.capabilities
    assert await engine.healthy()


async def test_it_answers_several_at_once(engine):
    answers = await asyncio.gather(*(asked(engine) for _ in range(4)))
    for status, body in answers:
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"]


async def test_a_stream_counts_its_tokens(engine):
    status, body = await asked(engine, stream=True, stream_options={"include_usage": True})
    assert status == 200
    events = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] > 0


async def test_it_counts_what_it_reads(engine):
    said = {"model": "smollm2", "messages": [{"role": "user", "content": "Which is the capital of France?"}]}
    _, body = await asked(engine, **said)
    assert engine.facts.counts
    assert await engine.count("/chat/completions", said) == json.loads(body)["usage"]["prompt_tokens"]


async def test_an_answer_keeps_to_a_schema(engine):
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    status, body = await asked(engine, response_format=wanted, max_tokens=64)
    assert status == 200
    assert set(json.loads(json.loads(body)["choices"][0]["message"]["content"])) == {"age"}


async def test_without_the_key_it_answers_nothing(engine):
    async with aiohttp.ClientSession() as client, client.get(f"{engine.endpoint.url}/models") as answer:
        assert answer.status == 401
    key = engine.endpoint.headers["Authorization"].removeprefix("Bearer ")
    for pid in engine.processes():
        assert not any(key in word for word in psutil.Process(pid).cmdline())
    assert not any(key in line for line in engine.log())


async def test_it_listens_on_loopback_only(engine):
    for pid in engine.processes():
        listening = [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert {c.laddr.ip for c in listening} <= {"127.0.0.1", "::1"}


async def test_the_estimate_is_near_what_it_takes(engine, runtime, spec, smollm2_snapshot):
    await asked(engine)
    wanted = runtime.demand(spec)
    weights = sum(path.stat().st_size for path in smollm2_snapshot.glob("*.safetensors"))
    assert wanted.cache == 128 * MIB
    assert wanted.process == sizes.PROCESS
    taken = (await engine.footprint()).devices["cpu"]
    assert 0.6 < taken / (weights + wanted.process + wanted.cache) < 1.4


async def test_a_stop_leaves_nothing(engine):
    processes = [psutil.Process(pid) for pid in engine.processes()]
    folder = Path(processes[1].environ()["TMPDIR"])
    maps = leftovers.segments(engine.processes())
    assert len(processes) > 3
    assert maps
    assert any(path.is_socket() for path in folder.iterdir())
    await engine.stop(30)
    assert await engine.ended() == "was stopped"
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
    assert not [path for path in maps if Path(path).exists()]
    assert not folder.exists()
    assert not lineage.listeners(int(engine.endpoint.url.rsplit(":", 1)[1].removesuffix("/v1")))
