"""llama.cpp for real: one engine with a real model answers, and broken files are refused in plain words."""

import asyncio
import json
import os
import resource
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files

import aiohttp
import psutil
import pytest
import pytest_asyncio

from corral.catalog import capabilities, gguf
from corral.catalog.formats import Shape
from corral.domain.memory import Placement
from corral.domain.models import Capability, FileEntry, Revision
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import EngineStartFailed, EngineTimeout, OutOfMemory, RuntimeUnavailable
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from tests.support import weights

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEMPLATE = str(files("corral.catalog").joinpath("templates/chatml_tools.jinja"))
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": what,
            "parameters": {"type": "object", "properties": {value: {"type": "string"}}, "required": [value]},
        },
    }
    for name, what, value in [("get_time", "Get the time", "zone"), ("get_weather", "Get the weather", "city")]
]


def spec(path, load_timeout=120.0, **options):
    revision = Revision("file:m", "gguf", (FileEntry("m.gguf", 1, "00"),), facts={"context_length": 8192})
    made = parse_options(LlamaCppOptions, options, "llamacpp")
    return LaunchSpec("smollm2", made, {"model": path}, revision, load_timeout)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(smollm2):
    launch = spec(smollm2, context=1024, slots=2, embeddings=True, chat_template=TEMPLATE, gpu_layers=0)
    session = await LlamaCpp(os.environ).start(launch, silent)
    yield session
    await session.stop(5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ask(session):
    """Send a body the way the gateway does: through the endpoint's own adapter."""
    connector = aiohttp.TCPConnector(force_close=True)  # llama.cpp ends the connection after a stream
    async with aiohttp.ClientSession(headers=session.endpoint.headers, connector=connector) as http:

        async def send(path, **body):
            session.endpoint.adapt(path, body)
            async with http.post(session.endpoint.url + path, json=body) as answer:
                return answer.status, await answer.text()

        yield send


def user(text):
    return [{"role": "user", "content": text}]


def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


async def test_it_says_what_it_is(session):
    assert (session.facts.context, session.facts.slots, session.facts.device) == (1024, 2, "cpu")
    assert session.facts.capabilities == frozenset(Capability) - {Capability.VISION, Capability.RERANK}
    assert await session.healthy()
    assert (await session.footprint()).devices["cpu"] > 100_000_000
    assert any("model" in line for line in session.log())


async def test_it_chats_whole_and_in_a_stream(ask):
    question = {"messages": user("Say hello."), "max_tokens": 16, "temperature": 0}
    status, text = await ask("/chat/completions", **question)
    whole = json.loads(text)
    assert status == 200
    assert whole["choices"][0]["message"]["content"].strip()
    assert whole["model"] == "smollm2"
    options = {"include_usage": True}
    status, text = await ask("/chat/completions", **question, stream=True, stream_options=options)
    parts = events(text)
    said = "".join(choice["delta"].get("content") or "" for part in parts for choice in part["choices"])
    assert said == whole["choices"][0]["message"]["content"]
    assert parts[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert text.rstrip().endswith("data: [DONE]")


async def test_it_embeds(ask):
    status, text = await ask("/embeddings", input=["a cat", "a kitten", "tax law"])
    assert status == 200, text
    cat, kitten, law = (item["embedding"] for item in json.loads(text)["data"])
    closeness = [sum(a * b for a, b in zip(cat, other, strict=True)) for other in (kitten, law)]
    assert closeness[0] > closeness[1]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_forced_tool_call_is_a_call_and_nothing_else(ask, choice, stream):
    status, text = await ask(
        "/chat/completions",
        messages=user("What is the weather in Paris?"),
        tools=TOOLS,
        tool_choice=choice,
        max_tokens=80,
        temperature=0,
        stream=stream,
    )
    assert status == 200, text
    if stream:
        deltas = [choice["delta"] for part in events(text) for choice in part["choices"]]
        assert not any(delta.get("content") for delta in deltas)
        calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
        name, arguments = calls[0]["name"], "".join(call.get("arguments", "") for call in calls)
    else:
        message = json.loads(text)["choices"][0]["message"]
        assert not message["content"]
        (call,) = message["tool_calls"]
        name, arguments = call["function"]["name"], call["function"]["arguments"]
    assert name == "get_weather"
    assert json.loads(arguments)["city"]


async def test_a_schema_binds_the_answer_from_the_first_token(ask):
    properties = {"name": {"type": "string"}, "age": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    question = user("Describe Alice, aged 30.")
    _, text = await ask("/chat/completions", messages=question, response_format=form, max_tokens=100, temperature=0)
    message = json.loads(text)["choices"][0]["message"]
    assert isinstance(json.loads(message["content"])["age"], int)
    assert not message.get("reasoning_content"), "it was free to ramble before the answer"


async def test_two_are_answered_at_the_same_time(session):
    """Each waits for the other's first token before it reads on: with one slot neither would ever end."""
    meeting = asyncio.Barrier(2)

    async def stream(http):
        body = {"messages": user("Count to a hundred."), "max_tokens": 200, "stream": True, "ignore_eos": True}
        async with http.post(session.endpoint.url + "/chat/completions", json=body) as answer:
            async for line in answer.content:
                if b'"content":"' in line:
                    break
            await meeting.wait()
            return answer.status

    async with asyncio.timeout(60), aiohttp.ClientSession(headers=session.endpoint.headers) as http:
        assert await asyncio.gather(stream(http), stream(http)) == [200, 200]


async def test_it_answers_nobody_without_the_key(session):
    root = session.endpoint.url.removesuffix("/v1")
    async with aiohttp.ClientSession() as http:
        for path in ("/props", "/metrics", "/slots"):
            async with http.get(root + path) as answer:
                assert answer.status == 401, path
        async with http.post(root + "/v1/chat/completions", json={"messages": user("hi")}) as answer:
            assert answer.status == 401


async def test_a_prompt_over_the_slot_is_refused(ask):
    status, text = await ask("/chat/completions", messages=user("word " * 3000), max_tokens=1)
    assert status == 400
    assert "exceed_context_size_error" in text


async def test_a_killed_engine_is_reported(smollm2):
    session = await LlamaCpp(os.environ).start(spec(smollm2, context=256, slots=1), silent)
    os.kill(session.pid, signal.SIGKILL)
    assert await session.ended() == "was killed by SIGKILL, perhaps by the system for want of memory"
    assert not await session.healthy()
    await session.stop(5)


async def test_live_streams_do_not_hold_the_stop(smollm2):
    session = await LlamaCpp(os.environ).start(spec(smollm2, context=256, slots=1), silent)
    async with aiohttp.ClientSession(headers=session.endpoint.headers) as http:
        body = {"messages": user("Count."), "max_tokens": 200, "stream": True, "ignore_eos": True}
        async with http.post(session.endpoint.url + "/chat/completions", json=body) as answer:
            await answer.content.readline()
            await session.stop(30)
    assert await session.ended() == "was stopped", "it had to be killed"


async def test_more_options_reach_the_engine(smollm2):
    launch = spec(
        smollm2,
        context=512,
        slots=1,
        threads=1,
        gpu_layers=0,
        cache_type_k="q8_0",
        cache_type_v="q8_0",
        flash_attention=True,
        batch=256,
        micro_batch=128,
        embeddings=True,
        pooling="last",
        prompt_cache_mib=0,
    )
    session = await LlamaCpp(os.environ).start(launch, silent)
    try:
        assert (session.facts.context, session.facts.slots) == (512, 1)
        assert await session.healthy()
    finally:
        await session.stop(5)


@pytest.fixture
def broken(tmp_path, smollm2):
    """Files that are not whole models."""

    def make(kind):
        path = tmp_path / f"{kind}.gguf"
        with smollm2.open("rb") as model:
            data = {"garbage": b"\x00\xffnot a model" * 1000, "empty": b"", "truncated": model.read(3_000_000)}[kind]
        path.write_bytes(data)
        return path

    return make


@pytest.mark.parametrize(
    ("kind", "says"), [("garbage", "magic"), ("truncated", "corrupted or incomplete"), ("empty", "could not load")]
)
async def test_a_broken_file_is_refused_in_plain_words(broken, kind, says):
    with pytest.raises(EngineStartFailed, match=says) as caught:
        await LlamaCpp(os.environ).start(spec(broken(kind)), silent)
    assert "install it again" in caught.value.hint
    assert str(broken(kind)) not in caught.value.message


async def test_a_file_that_is_gone_is_refused(tmp_path):
    with pytest.raises(EngineStartFailed, match="No such file"):
        await LlamaCpp(os.environ).start(spec(tmp_path / "gone.gguf"), silent)
    with pytest.raises(EngineStartFailed, match="no model file"):
        await LlamaCpp(os.environ).start(LaunchSpec("m", LlamaCppOptions()), silent)


async def test_a_load_over_its_time_is_given_up(smollm2):
    before = psutil.Process().children()
    with pytest.raises(EngineTimeout, match="'smollm2' was not ready"):
        await LlamaCpp(os.environ).start(spec(smollm2, load_timeout=0.01), silent)
    assert psutil.Process().children() == before


def gauge(smollm2, adapters=(), **options):
    lora = {str(path): scale for path, scale in adapters}
    return spec(smollm2, context=256, slots=1, **({"lora": lora} if lora else {}), **options)


@asynccontextmanager
async def running(launch):
    session = await LlamaCpp(os.environ).start(launch, silent)
    connector = aiohttp.TCPConnector(force_close=True)
    try:
        async with aiohttp.ClientSession(headers=session.endpoint.headers, connector=connector) as http:

            async def send(path, **body):
                async with http.post(session.endpoint.url + path, json=body) as answer:
                    return answer.status, json.loads(await answer.text())

            yield session, send
    finally:
        await session.stop(5)


GREEDY = {"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}


async def test_adapters_change_the_answer_by_their_scale_and_a_request_may_choose(smollm2, tmp_path):
    nothing, style = tmp_path / "nothing.gguf", tmp_path / "style.gguf"
    nothing.write_bytes(weights.adapter(0))
    style.write_bytes(weights.adapter(0.05))
    said = {}
    async with running(gauge(smollm2, [(nothing, 1.0)])) as (_, send):
        said["nothing"] = (await send("/completions", **GREEDY))[1]["choices"][0]["text"]
    async with running(gauge(smollm2, [(nothing, 0.5), (style, 1.0)])) as (_, send):
        for name, more in {"style": {}, "style off": {"lora": [{"id": 1, "scale": 0.0}]}}.items():
            said[name] = (await send("/completions", **GREEDY, **more))[1]["choices"][0]["text"]
        status, refused = await send("/completions", **GREEDY, lora="style")
    assert said["style"] != said["nothing"]
    assert said["style off"] == said["nothing"]
    assert (status, "lora" in refused["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("made", "says"),
    [({"width": 64}, "incorrect shape"), ({"architecture": "gemma3"}, "arch mismatch"), (None, "general.type")],
)
async def test_an_adapter_of_another_model_is_refused(smollm2, tmp_path, made, says):
    path = smollm2
    if made is not None:
        path = tmp_path / "wrong.gguf"
        path.write_bytes(weights.adapter(0.05, **made))
    with pytest.raises(EngineStartFailed, match=says) as caught:
        await LlamaCpp(os.environ).start(gauge(smollm2, [(path, 1.0)]), silent)
    assert "an adapter fits only the model" in caught.value.hint


@pytest.mark.parametrize("whole", [True, False])
async def test_a_wrong_projector_is_refused(smollm2, tmp_path, whole):
    path = smollm2 if whole else tmp_path / "garbage.gguf"
    if not whole:
        path.write_bytes(b"xx" * 1000)
    with pytest.raises(EngineStartFailed) as caught:
        await LlamaCpp(os.environ).start(gauge(smollm2, mmproj=str(path)), silent)
    assert "option mmproj" in caught.value.hint


async def test_an_image_is_refused_where_no_projector_is(ask, session):
    assert Capability.VISION not in session.facts.capabilities
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    status, text = await ask("/chat/completions", messages=[{"role": "user", "content": [image]}], max_tokens=1)
    assert status >= 400
    assert "image" in text


async def test_a_model_made_for_it_ranks(tmp_path):
    path = tmp_path / "ranker.gguf"
    path.write_bytes(weights.ranker())
    found = capabilities.of_shape(Shape("gguf", (), header=gguf.read(path)), {})
    assert found.capabilities == {Capability.RERANK}
    files = (FileEntry("r.gguf", 1, "00"),)
    revision = Revision("file:r", "gguf", files, capabilities=found.capabilities, facts=found.facts)
    launch = LaunchSpec("ranker", LlamaCppOptions(), {"model": path}, revision)
    async with running(launch) as (session, send):
        assert session.facts.capabilities == {Capability.RERANK}
        assert (session.facts.context, session.facts.notes) == (64, ())
        status, body = await send("/rerank", query="cat", documents=["a cat", "tax law", "dog"])
        assert status == 200
        assert sorted(item["index"] for item in body["results"]) == [0, 1, 2]
        scores = [item["relevance_score"] for item in body["results"]]
        assert len(set(scores)) == 3
        again = (await send("/rerank", query="cat", documents=["dog"]))[1]["results"][0]["relevance_score"]
        assert again in scores


async def test_memory_that_does_not_suffice_is_told_as_such(smollm2):
    """The engine inherits a limit on its address space; its context would take six gigabytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    runtime = LlamaCpp(os.environ)
    await runtime.probe()
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, hard))
    try:
        with pytest.raises(OutOfMemory, match="allocate") as caught:
            await runtime.start(spec(smollm2, context=8192, slots=32), silent)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "fewer slots" in caught.value.hint


async def test_a_gpu_that_this_build_cannot_use_is_said(smollm2):
    runtime = LlamaCpp(os.environ)
    assert (await runtime.probe()).devices[0] == "cpu"
    if (await runtime.probe()).devices != ("cpu",):
        pytest.skip("this build of xllamacpp can use a GPU")
    asked = replace(gauge(smollm2), placement=Placement({"cuda:0": 1 << 28, "cpu": 1 << 28}, layers=12))
    session = await runtime.start(asked, silent)
    try:
        assert session.facts.device == "cpu"
        assert "cuda:0 was set aside for it" in session.facts.notes[0]
    finally:
        await session.stop(5)
    with pytest.raises(RuntimeUnavailable, match="can use cpu"):
        await runtime.start(gauge(smollm2, device="cuda"), silent)


async def test_the_devices_are_asked_for_once_and_remembered(tmp_path):
    first = await LlamaCpp(os.environ, tmp_path).probe()
    kept = tmp_path / "llamacpp.json"
    held = json.loads(kept.read_text())
    assert tuple(held["devices"]) == first.devices
    kept.write_text(json.dumps({**held, "devices": ["cpu", "cuda:7"]}))
    assert (await LlamaCpp(os.environ, tmp_path).probe()).devices == ("cpu", "cuda:7")
    assert (await LlamaCpp({**os.environ, "CUDA_VISIBLE_DEVICES": "3"}, tmp_path).probe()).devices == first.devices
    kept.write_text("not json")
    assert (await LlamaCpp(os.environ, tmp_path).probe()).devices == first.devices
    assert (await LlamaCpp(os.environ, tmp_path / "gone").probe()).devices == first.devices


async def test_it_counts_what_it_reads(session, ask):
    talk = [{"role": "user", "content": "Which is the capital of <|im_end|> France? " * 3}]
    for path, said in (
        ("/chat/completions", {"messages": talk}),
        ("/chat/completions", {"messages": talk, "tools": TOOLS}),
        ("/completions", {"prompt": "Once upon a <|im_start|> time"}),
        ("/completions", {"prompt": [1, 2, 3, 4]}),
    ):
        body = {"model": session.endpoint.model, **said, "max_tokens": 1}
        session.endpoint.adapt(path, body)
        _, text = await ask(path, **body)
        assert await session.count(path, body) == json.loads(text)["usage"]["prompt_tokens"], body


async def test_it_does_not_count_what_it_cannot(session):
    seen = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]

    assert session.facts.counts
    assert await session.count("/chat/completions", {"messages": seen}) is None
    assert await session.count("/chat/completions", {"messages": "no list"}) is None
    assert await session.count("/completions", {"prompt": ["two", "prompts"]}) is None
    assert await session.count("/embeddings", {"input": "text"}) is None
