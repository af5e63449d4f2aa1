"""Clients of Ollama that say how much context they want get it, and nobody pays for it with more than one load."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.support.servers import corral_server
from tests.support.vendors.openai import OpenAI

CONFIG = """
engines: {memory: {cpu: 400MiB}, drain_grace: 5s}
models:
  small: {runtime: fake, options: {context: 100, reply: well}}
  smollm2: {runtime: llamacpp, options: {context: 256, slots: 2, gpu_layers: 0}}
"""
TALK = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_store):
    with corral_server(tmp_path_factory.mktemp("contexts"), CONFIG, models_dir=model_store) as server:
        yield server


@pytest.fixture
async def http(server):
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        for model in ("small", "smollm2"):
            await http.post("/api/v1/runtime/models/unload", params={"model_name": model, "drain": 0})
        yield http


async def asked(http, context=None, model="small", headers=None, **more):
    options = {"num_predict": 4} | ({} if context is None else {"num_ctx": context})
    body = {"model": model, "messages": TALK, "stream": False, "options": options, **more}
    return await http.post("/api/chat", json=body, headers=headers)


async def loads(http):
    return (await http.get("/api/v1/runtime/stats")).json()["counters"]["loads"]


def held(answer):
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-corral-context"])


async def test_more_is_given_and_kept_until_the_model_leaves(http):
    before = await loads(http)

    assert held(await asked(http)) == 100
    grown = await asked(http, 300)
    assert held(grown) == 300
    assert "num_ctx" not in grown.headers.get("x-corral-ignored", "")
    assert int(grown.headers["x-corral-wait-ms"]) > 0
    receipt = (await http.get(f"/api/v1/receipts/{grown.headers['x-request-id']}")).json()["receipt"]
    assert (receipt["context"], receipt.get("ignored", [])) == (300, [])
    assert held(await asked(http, 200)) == 300
    assert held(await asked(http)) == 300
    assert await loads(http) == before + 2

    await http.post("/api/v1/runtime/models/unload", params={"model_name": "small"})
    assert held(await asked(http)) == 100


async def test_a_cold_model_is_loaded_once_and_as_asked(http):
    before = await loads(http)

    assert held(await asked(http, 250)) == 250
    assert await loads(http) == before + 1


async def test_many_who_ask_for_different_lengths_do_not_make_it_flap(http):
    await asked(http)
    before = await loads(http)

    lengths = [150 + 10 * (number * 7 % 20) for number in range(20)]
    answers = await asyncio.gather(*(asked(http, length) for length in lengths))

    assert all(held(answer) >= length for answer, length in zip(answers, lengths, strict=True))
    assert held(await asked(http)) == max(lengths)
    # Two, where all of them have come before the first load is done; a client that stood still meanwhile has more.
    assert await loads(http) - before <= 5


async def test_answers_under_way_end_first(http):
    slow = {"tokens": 10, "delay_ms": 50}
    body = {"model": "small", "messages": TALK, "stream": True, "fake": slow}
    async with http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.aiter_lines()
        assert stream.status_code == 200, await anext(lines)
        await anext(lines)
        grown = asyncio.create_task(asked(http, 400))
        rest = [line async for line in lines]
    assert rest[-2:].count("data: [DONE]") == 1 or "data: [DONE]" in rest
    assert sum('"content": "t' in line or '"content":"t' in line for line in rest) >= 9
    assert held(await grown) == 400


async def test_a_real_engine_grows_up_to_what_it_was_trained_for(http):
    assert held(await asked(http, model="smollm2")) == 256
    assert held(await asked(http, 1024, model="smollm2")) == 1024
    whole = await http.post("/api/generate", json={"model": "smollm2", "options": {"num_ctx": 2048}})
    assert whole.json()["done_reason"] == "load"
    assert held(await asked(http, model="smollm2")) == 2048


async def test_what_does_not_fit_is_refused_and_the_engine_stays(http):
    first = await asked(http, model="smollm2")
    refused = await asked(http, 8192, model="smollm2", options={"num_ctx": 8192})

    assert refused.status_code == 507, refused.text
    assert "does not fit" in refused.json()["error"]
    again = await asked(http, model="smollm2")
    assert again.headers["x-corral-engine"] == first.headers["x-corral-engine"]
    assert held(again) == 256


async def test_beyond_the_training_it_is_told_as_ignored(tmp_path, model_store):
    config = "models:\n  smollm2: {runtime: llamacpp, options: {context: 256, slots: 1, gpu_layers: 0}}\n"
    with corral_server(tmp_path, config, models_dir=model_store) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            answer = await asked(http, 100_000, model="smollm2")
            assert held(answer) == 8192
            assert "num_ctx" in answer.headers["x-corral-ignored"]
            strict = await asked(http, 100_000, model="smollm2", headers={"x-corral-strict": "true"})
            assert (strict.status_code, "num_ctx" in json.dumps(strict.json())) == (422, True)
            assert held(await asked(http, 8192, model="smollm2", headers={"x-corral-strict": "true"})) == 8192


async def test_for_an_engine_elsewhere_it_is_told_as_ignored(tmp_path):
    async with OpenAI() as vendor:
        config = f'models:\n  far: {{runtime: openai, options: {{base_url: "{vendor.url}", api_key_env: FAR_KEY}}}}\n'
        with corral_server(tmp_path, config, env={"FAR_KEY": vendor.key}) as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
                answer = await asked(http, 5000, model="far")
                assert answer.status_code == 200, answer.text
                assert "num_ctx" in answer.headers["x-corral-ignored"]


async def test_one_that_cannot_be_loaded_with_more_is_as_it_was(http):
    assert held(await asked(http)) == 100
    refused = await asked(http, 0)
    assert (refused.status_code, "num_ctx" in refused.json()["error"]) == (400, True)
    missing = await asked(http, 500, model="nobody")
    assert missing.status_code == 404
    assert held(await asked(http)) == 100
