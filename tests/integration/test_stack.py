"""`DockerManager` and `OllamaClient`, as the documents call them, on a real Docker engine; and the example."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

import corral
from corral import DockerManager, OllamaClient
from corral.errors import Conflict, ContainerNotFound, ModelNotFound
from tests.docs.pages import ROOT
from tests.support.fleets import corral_with, player
from tests.support.ports import free_port


@pytest.fixture
def entry(player_image):
    return {**player(), "models": ["tiny:1b"], "purpose": "code completion"}


@pytest.fixture
async def manager(tmp_path, docker, entry):
    async with corral_with(tmp_path / "home", docker, {"coder": entry}) as own, DockerManager(corral=own) as manager:
        yield manager


async def test_a_container_is_started_looked_at_and_stopped(manager, docker, entry):
    status = await manager.get_container_status("coder")
    assert (status["status"], status["state"], status["running"]) == ("inactive", "absent", False)
    assert await manager.start_container("coder")
    status = await manager.get_container_status("corral-coder")
    assert (status["name"], status["container_name"], status["status"]) == ("coder", "corral-coder", "active")
    assert (status["port"], status["installed_version"], status["purpose"]) == (
        entry["port"],
        "0.99.0",
        "code completion",
    )
    assert status["ports"] == {str(entry["port"]): f"127.0.0.1:{entry['port']}"}
    assert docker.seen()["corral-coder"]["State"]["Running"]
    stats = await manager.get_container_stats("coder")
    assert stats["running"]
    assert stats["memory_usage"] > 1_000_000
    assert stats["cpu_percent"] >= 0
    assert set(stats["gpu"]) == {"memory_used", "temperature", "utilization"}
    assert await manager.stop_container("coder")
    assert not docker.seen()["corral-coder"]["State"]["Running"]
    stats = await manager.get_container_stats("coder")
    assert (stats["running"], stats["memory_usage"]) == (False, None)


async def test_health_is_what_the_models_api_says(manager, docker):
    assert not await manager.validate_container_health("coder")
    assert await manager.start_container("coder")
    assert await manager.validate_container_health("coder")
    assert await manager.validate_container_health("coder", generate=True)
    client = OllamaClient(corral=manager.corral)
    assert await client.remove_model("tiny:1b", "coder")
    assert not await manager.validate_container_health("coder"), "it lacks the model that it shall have"
    docker.cli("kill", "corral-coder")
    assert not await manager.validate_container_health("coder")


async def test_the_stack_and_its_models_at_a_glance(manager, entry):
    stack = await manager.get_stack_status()
    assert (stack["docker"], stack["total"], stack["active"]) == (True, 1, 0)
    assert await manager.get_active_models() == []
    await manager.start_container("coder")
    (synced,) = await manager.sync_with_docker()
    assert synced["status"] == "active"
    stack = await manager.get_stack_status()
    assert (stack["active"], stack["states"]) == (1, {"healthy": 1})
    assert stack["usage"]["memory"] > 1_000_000
    (model,) = await manager.get_active_models()
    assert (model["name"], model["url"], model["status"]) == (
        "tiny:1b",
        f"http://127.0.0.1:{entry['port']}",
        "active",
    )
    assert model["openai_base_url"] == f"{model['url']}/v1"
    assert len(model["installed_version"]) == 64


async def test_models_in_a_container(manager):
    await manager.start_container("coder")
    client, reports = OllamaClient(corral=manager.corral), []
    assert await client.list_models("coder") == ["tiny:1b"]
    before = await client.get_model_version("tiny:1b", "coder")
    assert await client.pull_model("tiny:1b", "coder", report=reports.append)
    assert any(report.phase == "download" and report.done == report.total for report in reports)
    assert await client.get_model_version("tiny:1b", "coder") != before
    tried = await client.test_model("tiny:1b", "coder")
    assert (tried["success"], tried["response"], tried["error"]) == (True, "Hi", None)
    failed = await client.test_model("other", "coder")
    assert (failed["success"], "no model 'other'" in failed["error"]) == (False, True)
    with pytest.raises(ModelNotFound):
        await client.get_model_version("other", "coder")
    assert await client.remove_model("tiny:1b", "coder")
    assert not await client.remove_model("tiny:1b", "coder")


async def test_what_is_not_there_says_so(manager):
    for ask in (manager.get_container_status, manager.start_container, manager.stop_container):
        with pytest.raises(ContainerNotFound, match="no container 'codr'") as caught:
            await ask("codr")
        assert caught.value.hint == "Did you mean coder?"
    stopped = await OllamaClient(corral=manager.corral).test_model("tiny:1b", "coder")
    assert (stopped["success"], "'coder' is absent" in stopped["error"]) == (False, True)


async def test_without_docker_the_stack_says_why(tmp_path, docker, entry):
    async with corral_with(tmp_path / "home", docker, {"coder": entry}, docker={"host": "unix:///nowhere"}) as own:
        manager = DockerManager(corral=own)
        stack = await manager.get_stack_status()
        assert (stack["docker"], stack["total"]) == (False, 1)
        assert stack["reason"]
        assert stack["containers"][0]["state"] == "unknown"


def test_one_belongs_to_one_loop_and_ends(tmp_path):
    file = tmp_path / "corral.yaml"
    file.write_text(f"home: {tmp_path}\ndocker: {{host: unix:///nowhere}}\n")
    with asyncio.Runner() as runner:
        manager = DockerManager(file, env={})
        assert runner.run(manager.get_stack_status())["total"] == 0
        with pytest.raises(Conflict, match="belongs to another event loop"):
            asyncio.run(manager.get_stack_status())
        runner.run(manager.close())

    async def closed():
        async with OllamaClient(file, env={}) as client:
            pass
        await client.list_models("coder")

    with pytest.raises(Conflict, match="OllamaClient is closed"):
        asyncio.run(closed())


def test_both_are_public_names():
    assert {"DockerManager", "OllamaClient"} <= set(dir(corral))


def test_the_example_runs_on_real_containers(tmp_path, docker, entry):
    file = tmp_path / "corral.yaml"
    file.write_text(
        f"home: {tmp_path}\n"
        f"docker: {{host: {docker.address}}}\n"
        f"containers:\n  coder: {{kind: ollama, image: {entry['image']}, network: host, port: {free_port()},"
        " environment: {PLAYED_MODELS: 'tiny:1b'}, models: ['tiny:1b']}\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CORRAL_", "DOCKER_"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "containers.py"), str(file)],
        env={**env, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "0 of 1 containers answer" in done.stdout
    assert "Hi" in done.stdout
    assert "tiny:1b at http://127.0.0.1:" in done.stdout
    assert " MB, " in done.stdout
