"""The model servers in containers, asked by their own APIs: real ones, a strict player, and ones that answer badly."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from corral.domain.ports import LaunchSpec, silent
from corral.errors import ContainerUnhealthy, ModelNotFound, NotSupported
from corral.fleet.asking import Asker
from corral.kit.clock import SystemClock
from corral.runtimes.llamacpp import LlamaCpp
from tests.support.ollama_daemon import playing
from tests.support.ports import free_port

CLOCK = SystemClock()


@pytest.fixture
def ollama():
    with playing() as daemon:
        daemon.add("mine", ["completion"])
        yield daemon


@pytest.fixture
def asker(ollama):
    return Asker("ollama", ollama.address, CLOCK)


@asynccontextmanager
async def server(routes):
    """One that gives each path its answer: bytes, or a status with bytes."""

    async def answer(request):
        found = routes.get(request.path)
        if callable(found):
            return await found(request)
        status, body = found if isinstance(found, tuple) else (200 if found is not None else 404, found or b"")
        return web.Response(status=status, body=body)

    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{path:.*}", answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


async def test_an_ollama_is_well_with_the_models_that_it_should_have(asker):
    health = await asker.examine(["mine", "mine:latest"])
    assert health.healthy
    assert health.version == "0.99.0"
    (model,) = health.models
    assert (model.name, len(model.digest), model.loaded) == ("mine:latest", 64, False)
    assert health.missing == ()
    assert 0 < health.latency < 60


async def test_what_it_lacks_is_named(asker):
    health = await asker.examine(["mine", "other"])
    assert not health.healthy
    assert health.missing == ("other",)
    assert health.reason == "it does not have other"


async def test_one_token_shows_that_it_works(asker, ollama):
    ollama.graphics = 1.0
    health = await asker.examine(["mine"], generate=True)
    assert (health.healthy, health.said) == (True, "Hi")
    trial = await asker.test("mine")
    assert (trial.ok, trial.said, trial.tokens, trial.load) == (True, "Hi", 1, 0.002)
    (model,) = await asker.models()
    assert (model.loaded, model.in_gpu) == (True, 5_000_000)


async def test_a_model_that_only_embeds_is_asked_for_a_vector(asker, ollama):
    ollama.add("embedder", ["embedding"])
    trial = await asker.test("embedder")
    assert (trial.ok, trial.said) == (True, None)


async def test_a_model_is_pulled_held_under_another_name_and_removed(asker, ollama):
    reports = []
    pulled = await asker.pull("tiny:1b", reports.append)
    assert [(one.done, one.total) for one in reports if one.phase == "download"] == [(0, 100), (100, 100)]
    assert pulled.digest == ollama.models["tiny:1b"]["digest"]
    assert await asker.keep("tiny:1b", "tiny:before")
    assert (await asker.pull("tiny:1b", silent)).digest != pulled.digest
    assert (await asker.find("tiny:before")).digest == pulled.digest
    await asker.remove("tiny:before")
    assert await asker.find("tiny:before") is None


async def test_what_cannot_be_pulled_or_removed_says_why(asker):
    with pytest.raises(ContainerUnhealthy, match=r"'nothing' could not be fetched: .*file does not exist"):
        await asker.pull("nothing", silent)
    with pytest.raises(ModelNotFound, match="no model 'nothing'") as caught:
        await asker.remove("nothing")
    assert caught.value.hint == "It has: mine:latest."
    trial = await asker.test("nothing")
    assert (trial.ok, trial.reason) == (False, "The container has no model 'nothing'")


async def test_nobody_there_is_said(asker):
    away = replace(asker, url=f"http://127.0.0.1:{free_port()}")
    health = await away.examine(["mine"])
    assert not health.healthy
    assert "Connect call failed" in health.reason or "refused" in health.reason
    with pytest.raises(ContainerUnhealthy):
        await away.models()
    for kind in ("llamacpp", "vllm", "openai"):
        health = await replace(away, kind=kind).examine()
        assert "cannot be reached" in health.reason


async def test_a_real_llama_cpp_server(smollm2, tmp_path):
    runtime = LlamaCpp({}, tmp_path)
    session = await runtime.start(
        LaunchSpec("smollm2", runtime.options(context=256, slots=1), {"model": smollm2}), silent
    )
    try:
        url = session.endpoint.url.removesuffix("/v1")
        bare = Asker("llamacpp", url, CLOCK)
        health = await bare.examine(["smollm2"])
        assert not health.healthy, "its key is not known here"
        assert "401" in health.reason
        assert (await bare.test("smollm2")).reason.startswith("/v1/chat/completions is answered with 401")
    finally:
        await session.stop(5)


LISTED = json.dumps({"data": [{"id": "a-model", "meta": {"size": 7}}, {"id": 3}, "no"]}).encode()
SAID = json.dumps({"choices": [{"text": "Hi"}], "usage": {"completion_tokens": 1}}).encode()


async def test_a_server_without_a_template_for_chats_is_asked_for_text():
    routes = {
        "/health": b"{}",
        "/version": b'{"version": "0.20.1"}',
        "/v1/models": LISTED,
        "/v1/chat/completions": (400, b'{"error": {"message": "no chat template"}}'),
        "/v1/completions": SAID,
    }
    async with server(routes) as url:
        health = await Asker("vllm", url, CLOCK).examine(["a-model"], generate=True)
        assert (health.healthy, health.version, health.said) == (True, "0.20.1", "Hi")
        (model,) = health.models
        assert (model.name, model.size, model.loaded) == ("a-model", 7, True)
        assert (await Asker("vllm", url, CLOCK).examine(["other"])).missing == ("other",)
        routes |= {"/props": b'{"build_info": "b1-abc"}'}
        alone = await Asker("llamacpp", url, CLOCK).examine(["any-name"])
        assert (alone.healthy, alone.version) == (True, "b1-abc")
        routes["/v1/completions"] = (404, b"")
        refused = await Asker("vllm", url, CLOCK).test("a-model")
        assert refused.reason == "/v1/chat/completions is answered with 400: no chat template"
        routes["/v1/embeddings"] = b'{"data": [{"embedding": [0.1]}]}'
        assert (await Asker("vllm", url, CLOCK).test("a-model")).ok
        with pytest.raises(NotSupported, match="cannot fetch a model"):
            await Asker("vllm", url, CLOCK).pull("a-model", silent)


@pytest.mark.parametrize(
    ("kind", "routes", "reason"),
    [
        ("llamacpp", {"/health": (503, b'{"error": {"message": "Loading model"}}')}, "503: Loading model"),
        ("llamacpp", {"/health": b"", "/v1/models": b"<html>"}, "lists no models"),
        ("openai", {"/v1/models": b'{"data": 7}'}, "lists no models"),
        ("openai", {"/v1/models": b"x" * (5 << 20)}, "did not answer in HTTP"),
        ("openai", {"/v1/models": b"[" * 100_000}, "lists no models"),
        ("openai", {}, "/v1/models is answered with 404"),
        ("ollama", {"/api/version": b"no json"}, "no JSON"),
        ("ollama", {"/api/version": b"[" * 100_000}, "no JSON"),
        ("ollama", {"/api/version": b"[1]"}, "no object"),
        ("ollama", {"/api/version": b"{}", "/api/tags": b'{"models": 3}'}, "lists no models"),
        ("ollama", {"/api/version": b"{}", "/api/tags": b"x" * (20 << 20)}, "did not answer /api/tags"),
        ("ollama", {"/api/version": b"{}"}, "lists no models"),
        ("ollama", {"/api/version": (500, b'{"error": {"deep": 1}}')}, "refused /api/version"),
        ("ollama", {"/api/version": (302, b"")}, "status 302"),
    ],
)
async def test_bad_answers_are_survived_and_said(kind, routes, reason):
    async with server(routes) as url:
        health = await Asker(kind, url, CLOCK).examine(["a-model"], generate=True)
    assert not health.healthy
    assert reason in health.reason


@pytest.mark.parametrize(
    "tags",
    [
        {"models": [{"name": "a", "size": -1, "digest": 3}, {"name": None}, {"name": "x" * 500}, 9, {"name": "b\n"}]},
        {"models": [{"name": "a", "size": True}]},
    ],
)
async def test_what_is_no_model_is_left_out(tags):
    body = json.dumps(tags).encode()
    async with server({"/api/version": b"{}", "/api/tags": body, "/api/ps": b'{"models": [{"name": "a"}]}'}) as url:
        health = await Asker("ollama", url, CLOCK).examine(["a:latest"])
        (model,) = health.models
    assert (model.name, model.size, model.digest, model.loaded, model.in_gpu) == ("a", None, None, True, None)


@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize("answer", [b"{}", b'{"choices": []}', b'{"choices": [{"text": ""}], "response": ""}', b"<"])
async def test_a_generation_that_gives_nothing_is_no_health(kind, answer):
    lists = {
        "/api/version": b"{}",
        "/api/tags": b'{"models": [{"name": "a"}]}',
        "/v1/models": b'{"data": [{"id": "a"}]}',
    }
    async with server({**lists, "/api/generate": answer, "/v1/chat/completions": answer}) as url:
        health = await Asker(kind, url, CLOCK).examine(generate=True)
    assert not health.healthy
    assert health.reason


async def test_a_server_without_any_model_cannot_show_that_it_works():
    async with server({"/v1/models": b'{"data": []}'}) as url:
        health = await Asker("openai", url, CLOCK).examine(generate=True)
    assert (health.healthy, health.reason) == (False, "it has no model that could be asked for a token")


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_one_that_never_answers_is_not_waited_for(kind):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        asker = Asker(kind, f"http://127.0.0.1:{mute.getsockname()[1]}", CLOCK)
        health = await asker.examine(timeout=0.2)
        assert "does not answer within 0.2 s" in health.reason
        trial = await asker.test("any", timeout=0.2)
        assert "no token within 0.2 s" in trial.reason


async def test_bytes_that_are_no_http_are_survived():
    async def garbage(_, writer):
        writer.write(b"\x00\xff" * 4000)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(garbage, "127.0.0.1", 0) as bad:
        url = f"http://127.0.0.1:{bad.sockets[0].getsockname()[1]}"
        for kind in ("ollama", "llamacpp", "vllm", "openai"):
            assert not (await Asker(kind, url, CLOCK).examine()).healthy
