"""The Python API, in this process's loop, over `fake` engines."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import aiohttp
import psutil
import pytest

from corral import DeviceType, GenerationConfig, ModelConfig, ModelManager, RuntimeType
from corral.config import Settings, load
from corral.errors import (
    Conflict,
    EngineDied,
    EngineStartFailed,
    InvalidRequest,
    ModelNotFound,
    NotSupported,
    UnknownPlugin,
    UpstreamError,
    UpstreamProtocol,
)
from corral.gateway.presence import claim, find
from corral.gateway.server import serve
from corral.routing.generation import document

CONFIG = """
models:
  robot: {runtime: fake, options: {reply: "one two three"}}
  cut: {runtime: fake, options: {fault: cut, fault_after: 2}}
  dies: {runtime: fake, options: {fault: crash, fault_after: 1}}
  sick: {runtime: fake, options: {fault: "status:500"}}
  fussy: {runtime: fake, options: {fault: "status:400"}}
  garbled: {runtime: fake, options: {fault: garbage_event, fault_after: 1}}
  caller: {runtime: fake, options: {tool_calls: [{name: f, arguments: {x: 1}}]}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "corral.yaml"
    file.write_text(CONFIG)
    return load({"HOME": str(tmp_path)}, file=file)


async def test_load_generate_stream_and_unload(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        assert "robot" in manager.models()
        model, info = await manager.load_model("robot")
        assert (info.name, info.runtime, info.local, info.context_length) == ("robot", "fake", True, 4096)
        reply = await model.generate(prompt="hi", max_tokens=50, temperature=0.7)
        assert str(reply) == reply.text == "one two three"
        assert reply.tokens == 3
        assert (reply.receipt.model, reply.receipt.attempts, reply.receipt.finish_reason) == ("robot", 1, "stop")
        assert [piece async for piece in model.generate_stream(prompt="hi")] == ["one ", "two ", "three"]
        assert await manager.unload_model("robot") is True
        assert await manager.unload_model("robot") is False
        again = await manager.generate("robot", GenerationConfig("hello", system="be brief"))
        assert again.receipt.wait_ms > 0


async def test_nothing_is_left_when_the_block_ends(settings: Settings) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    async with ModelManager(settings=settings) as manager:
        await manager.load_model("robot")
        assert {p.pid for p in psutil.Process().children(recursive=True)} > before
    assert {p.pid for p in psutil.Process().children(recursive=True)} == before


async def test_a_stream_left_early_frees_the_engine(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        model, _ = await manager.load_model("robot")
        stream = model.generate_stream(prompt="hi", extra={"fake": {"tokens": 50, "hold_after": 1}})
        assert await anext(stream)
        await stream.aclose()
        assert await manager.unload_model("robot") is True


async def test_models_are_registered_from_python(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        manager.register_model(ModelConfig("whatever", "mine", runtime_type="fake", options={"reply": "yes"}))
        assert (await manager.generate("mine", GenerationConfig("?"))).text == "yes"
        vendor = {"base_url": "http://127.0.0.1:9/v1"}
        manager.register_model(ModelConfig("gpt-x", "cloud", runtime_type="openai", options=vendor))
        _, info = await manager.load_model("cloud")
        assert info.local is False
        with pytest.raises(UnknownPlugin):
            manager.register_model(ModelConfig("google/gemma-2b", "Gemma-2B", runtime_type="transformerz"))
        with pytest.raises(NotSupported, match="quantization"):
            manager.register_model(ModelConfig("m", "m", runtime_type="fake", quantization="int8"))
        with pytest.raises(NotSupported, match="runtime_type"):
            manager.register_model(ModelConfig("m", "m", quantization="int8"))
        manager.register_model(ModelConfig("smollm2", "small", options={"context": 512}))
        with pytest.raises(ModelNotFound, match="corral pull"):
            await manager.load_model("small")


async def test_tool_calls_come_back_as_values(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        reply = await manager.generate("caller", GenerationConfig("go", extra={"tools": tools}))
        assert reply.tool_calls[0]["function"]["name"] == "f"
        assert reply.receipt.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("model", "error"),
    [("sick", UpstreamError), ("fussy", InvalidRequest), ("dies", EngineDied), ("nobody", ModelNotFound)],
)
async def test_failures_are_errors_of_the_tree(settings: Settings, model: str, error: type[Exception]) -> None:
    async with ModelManager(settings=settings) as manager:
        with pytest.raises(error):
            await manager.generate(model, GenerationConfig("hi"))
        assert (await manager.generate("robot", GenerationConfig("hi"))).text == "one two three"


@pytest.mark.parametrize(
    ("model", "error"), [("cut", UpstreamError), ("dies", EngineDied), ("garbled", UpstreamProtocol)]
)
async def test_a_stream_that_breaks_gives_what_came_and_then_the_reason(
    settings: Settings, model: str, error: type[Exception]
) -> None:
    async with ModelManager(settings=settings) as manager:
        pieces = manager.generate_stream(model, GenerationConfig("a b c d e"))
        assert await anext(pieces)
        with pytest.raises(error):
            [piece async for piece in pieces]


async def test_the_managers_own_flags_win(tmp_path: Path, settings: Settings) -> None:
    manager = ModelManager(settings.file, flags={"store.models_dir": str(tmp_path / "m")}, env={"HOME": str(tmp_path)})
    assert manager.corral.settings.models_dir == tmp_path / "m"
    assert "robot" in manager.models()
    await manager.close()


async def test_a_stream_closed_early_is_over_at_once(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        model, _ = await manager.load_model("robot")
        stream = model.generate_stream(prompt="hi", extra={"fake": {"tokens": 50, "hold_after": 1}})
        assert await anext(stream)
        await stream.aclose()
        assert [status.engine.in_flight for status in manager.corral.supervisor.statuses() if status.engine] == [0]


def test_a_second_loop_is_refused_in_words(settings: Settings) -> None:
    manager = ModelManager(settings=settings)
    with asyncio.Runner() as first:
        first.run(manager.load_model("robot"))
        with pytest.raises(Conflict, match="event loop"):
            asyncio.run(manager.generate("robot", GenerationConfig("hi")))
        first.run(manager.close())


async def test_after_close_nothing_is_loaded_and_nothing_runs(settings: Settings) -> None:
    manager = ModelManager(settings=settings)
    await manager.close()
    before = asyncio.all_tasks()
    with pytest.raises(EngineStartFailed):
        await manager.generate("robot", GenerationConfig("hi"))
    assert asyncio.all_tasks() == before


async def test_one_stop_text_is_one_stop() -> None:
    assert GenerationConfig("hi", stop="END").body("m", stream=False)["stop"] == ["END"]
    assert GenerationConfig("hi", stop=["a", "b"]).body("m", stream=False)["stop"] == ["a", "b"]
    assert "stop" not in GenerationConfig("hi").body("m", stream=False)


async def test_a_server_that_is_cancelled_stops_its_engines(settings: Settings) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    settings = replace(
        settings,
        server=replace(settings.server, port=0),
        models={"robot": replace(settings.models["robot"], preload=True)},
    )
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(settings, ready.set_result))
    url = await ready
    async with aiohttp.ClientSession() as session:
        while (await session.get(f"{url}/readyz")).status == 503:
            pass
    assert {p.pid for p in psutil.Process().children(recursive=True)} > before
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert {p.pid for p in psutil.Process().children(recursive=True)} == before


def test_whoever_looks_for_a_server_does_not_keep_one_from_starting(tmp_path: Path) -> None:
    with claim(tmp_path):
        pass
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            find(tmp_path)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            for _ in range(2000):
                with claim(tmp_path):
                    pass
        finally:
            stop.set()
        looking.result()


@pytest.mark.parametrize(
    "body", [b"no json", b"[1]", b"{}", b'{"choices": []}', b'{"choices": [3]}', b'{"choices": "text"}']
)
def test_an_answer_that_is_none_is_an_error_of_the_tree(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        document(body)


def test_an_error_that_is_null_is_no_error() -> None:
    assert document(b'{"error": null, "choices": [{"message": {}}]}')["choices"]


async def test_another_name_for_an_installed_model_pulls_that_model(tmp_path: Path, model_store: Path) -> None:
    file = tmp_path / "corral.yaml"
    file.write_text("models: {writer: {source: smollm2}, tiny: {source: 'smollm2:135m'}}\n")
    flags = {"store.models_dir": str(model_store)}
    async with ModelManager(file, flags=flags, env={"HOME": str(tmp_path)}) as manager:
        for alias in ("writer", "tiny"):
            assert (await manager.install(alias)).name == "smollm2"
            assert manager.corral.definition(alias).installed is not None


async def test_what_is_registered_becomes_the_runtime_s_own_options(tmp_path: Path, model_store: Path) -> None:
    flags = {"store.models_dir": str(model_store)}
    async with ModelManager(flags=flags, env={"HOME": str(tmp_path)}) as manager:

        def options() -> object:
            return manager.corral.models["m"].options

        manager.register_model(ModelConfig("smollm2", "m", RuntimeType.LLAMACPP, device_type=DeviceType.CPU))
        assert options() in ({"gpu_layers": 0}, {"device": "cpu"})
        manager.register_model(ModelConfig("smollm2", "m", "llamacpp", quantization="q4_1"))
        assert options() == {}
        manager.register_model(ModelConfig("smollm2", "m", quantization="Q4_1"))
        with pytest.raises(NotSupported, match="quantization"):
            manager.register_model(ModelConfig("smollm2", "m", "llamacpp", quantization="int8"))
        with pytest.raises(NotSupported, match="device"):
            manager.register_model(ModelConfig("m", "m", "fake", device_type="cuda:1"))
        info = manager.get_model_info("m")
        assert (info.runtime, info.path is not None, (info.size or 0) > 10**7) == ("llamacpp", True, True)


async def test_another_model_is_asked_where_one_cannot_be_had(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        away = {"base_url": "http://127.0.0.1:9/v1"}
        manager.register_model(ModelConfig("x", "cloud", "openai", options=away, fallback=["dies", "nobody", "robot"]))
        reply = await manager.generate("cloud", GenerationConfig("hi"))
        assert (reply.text, reply.receipt.model) == ("one two three", "robot")
        assert [(miss.model, miss.code) for miss in reply.receipt.fallbacks] == [
            ("cloud", "upstream_refused"),
            ("dies", "engine_died"),
        ]
        assert [(miss.model, miss.code) for miss in reply.receipt.route] == [("nobody", "model_not_found")]
        manager.register_model(ModelConfig("x", "cloud", "openai", options=away, fallback=["sick", "robot"]))
        pieces = [piece async for piece in manager.generate_stream("cloud", GenerationConfig("hi"))]
        assert "".join(pieces) == "one two three"

        manager.register_model(ModelConfig("x", "gone", "llamacpp", fallback=["robot"]))
        model, info = await manager.load_model("gone")
        assert (model.name, info.name) == ("robot", "robot")
        assert "gone" in info.reason
        manager.register_model(ModelConfig("x", "gone", "llamacpp", fallback=["nobody"]))
        with pytest.raises(ModelNotFound, match="In its place 'nobody' was asked"):
            await manager.load_model("gone")


async def test_what_is_asked_wrongly_is_asked_of_nobody_else(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        manager.register_model(ModelConfig("x", "strict", "fake", options={"fault": "status:400"}, fallback=["robot"]))
        manager.register_model(ModelConfig("x", "spent", "fake", options={"fault": "status:429"}, fallback=["robot"]))
        with pytest.raises(InvalidRequest):
            await manager.generate("strict", GenerationConfig("hi"))
        assert (await manager.generate("spent", GenerationConfig("hi"))).receipt.model == "robot"


async def test_a_model_stays_as_long_as_the_generation_says(settings: Settings) -> None:
    async with ModelManager(settings=settings) as manager:
        await manager.generate("robot", GenerationConfig("hi", keep_alive=4321.0))
        [stream async for stream in manager.generate_stream("robot", GenerationConfig("hi", keep_alive=1234.0))]
        (status,) = manager.corral.supervisor.statuses()
        assert status.idle_left is not None
        assert 1200 < status.idle_left <= 1234
