"""The Docker engine that tests have, and the images on it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.docker import CORRAL, PLAYER, TINY, Engine, until
from tests.support.ports import free_port


def fetch(port: int, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(asked, timeout=60) as answer:
        return json.load(answer)


def answered(port: int, path: str) -> Any:
    try:
        return fetch(port, path)
    except OSError:
        return None


def test_an_engine_is_apart_and_starts_again(docker: Engine, tiny_image: str):
    port = free_port()
    docker.cli("run", "-d", "--name", "one", "--network", "host", tiny_image, "serve", str(port), "127.0.0.1")
    until(lambda: answered(port, "/api/version") == {"version": "0.0.1"})
    assert docker.seen()["one"]["State"]["Running"] is True
    docker.stop()
    assert not docker.running
    docker.start()
    assert docker.seen()["one"]["State"]["Running"] is False


def test_each_test_begins_without_containers(docker: Engine):
    assert docker.seen() == {}


def test_a_killed_engine_leaves_nothing(docker: Engine, tiny_image: str):
    docker.cli("run", "-d", "--name", "left", "--network", "none", tiny_image, "wait", "5000")
    inner = psutil.Process(docker.seen()["left"]["State"]["Pid"])
    docker.kill()
    assert inner.is_running()
    docker.start()
    psutil.wait_procs([inner], timeout=60)
    assert not inner.is_running()


@pytest.mark.parametrize(
    ("words", "code", "oom"),
    [(("exit", "3"), 3, False), (("after", "0.1", "exit", "4"), 4, False), (("after", "1", "eat", "200"), 137, True)],
)
def test_the_tiny_image_ends_as_told(docker: Engine, tiny_image: str, words: tuple[str, ...], code: int, oom: bool):
    for _ in range(
        5
    ):  # the engine takes note of a kill beside the end of the process, and may be too late on a busy machine
        docker.cli("run", "-d", "--name", "one", "--network", "none", "--memory", "64m", "--init", tiny_image, *words)
        assert docker.cli("wait", "one") == str(code)
        noted = docker.seen()["one"]["State"]["OOMKilled"]
        if noted is oom:
            return
        docker.cli("rm", "one")
    pytest.fail(f"OOMKilled is {noted}")


def test_the_tiny_image_prints_and_may_be_deaf(docker: Engine, tiny_image: str):
    docker.cli("run", "--name", "one", "--network", "none", tiny_image, "lines", "20000", "warn", "end", "exit", "0")
    # Two pipes have no order: what was said on the other may stand before the last line or behind it.
    assert docker.cli("logs", "--tail", "2", "one").splitlines()[-1] == "line 20000"
    docker.cli("run", "-d", "--name", "deaf1", "--init", "--network", "none", tiny_image, "deaf", "say", "up", "wait")
    until(lambda: docker.cli("logs", "deaf1") == "up")
    docker.cli("stop", "--time", "1", "deaf1")
    assert docker.seen()["deaf1"]["State"]["ExitCode"] == 137


def test_a_bridged_engine_publishes_ports(bridged: Engine):
    port = free_port()
    bridged.cli("run", "-d", "--name", "pub", "-p", f"127.0.0.1:{port}:8000", bridged.image(TINY), "serve", "8000")
    assert answered(port, "/health") is None
    with bridged.forwarded(port):
        until(lambda: answered(port, "/health") == {"status": "ok"})
    assert answered(port, "/health") is None


def test_the_player_plays_ollama(docker: Engine):
    port = free_port()
    docker.cli(
        *("run", "-d", "--name", "oll", "--network", "host", "-e", f"OLLAMA_HOST=127.0.0.1:{port}"),
        docker.image(PLAYER),
    )
    until(lambda: answered(port, "/api/version"))
    assert "models" in fetch(port, "/api/tags")


def test_the_corral_image_serves_a_real_model(docker: Engine, model_store: Path):
    port = free_port()
    docker.cli(
        *("run", "-d", "--name", "cor", "--network", "host", "-v", f"{model_store}:/seed:ro"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-e", f"OLLAMA_HOST=127.0.0.1:{port}"),
        docker.image(CORRAL),
    )
    until(lambda: answered(port, "/api/version"), within=60)
    assert "smollm2:latest" in [model["name"] for model in fetch(port, "/api/tags")["models"]]
    asked = {"model": "smollm2", "prompt": "Two and two is", "stream": False, "options": {"num_predict": 4}}
    assert fetch(port, "/api/generate", asked)["eval_count"] == 4


def test_the_corral_image_answers_through_a_published_port(bridged: Engine, model_store: Path):
    port = free_port()
    bridged.cli(*("run", "-d", "-p", f"127.0.0.1:{port}:11434", "-v", f"{model_store}:/seed:ro", bridged.image(CORRAL)))
    with bridged.forwarded(port):
        until(lambda: answered(port, "/v1/models"), within=60)
