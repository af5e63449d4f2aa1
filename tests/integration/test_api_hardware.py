"""The machine and what fits it, over HTTP on a real server and on the command line beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.api import Client
from support.models import gguf
from support.servers import corral_server
from tests.support.commands import CORRAL

CONFIG = """
engines: {memory: {cpu: 4GB}, reserve: 1GB}
models:
  robot: {runtime: fake}
"""
RUNTIME = "/api/v1/runtime"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with corral_server(home, CONFIG, env={"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": ""}) as server:
        made = Client(server)
        file = made.folder / "small.gguf"
        shape = {"llama__attention__head_count": 2, "llama__attention__head_count_kv": 1}
        file.write_bytes(gguf(3000, **shape))
        begun = made.ask("POST", "/registry/install", {"name": "small", "source": f"file:{file}"})
        assert made.ended(begun.json["operation_id"])["status"] == "completed"
        yield made


def fit(client: Client, query: str) -> Any:
    return client.ask("GET", f"/fit?{query}", base=RUNTIME)


def test_what_the_machine_has(client: Client) -> None:
    found = client.ask("GET", "/hardware?history=60", base=RUNTIME).json

    assert found["memory"]["total"] > found["memory"]["available"] > 0
    assert found["cpu"]["count"] >= 1
    assert found["disk"]["free"] > 0
    assert found["lost"] == []
    assert found["best_device"] in ("cpu", "cuda", "mps")
    history = found["history"]
    assert len(history["at"]) == len(history["cpu"]) == len(history["memory"]) >= 1
    assert "history" not in client.ask("GET", "/hardware", base=RUNTIME).json
    assert client.ask("GET", "/hardware?history=-1", base=RUNTIME).status == 400


def test_what_fits(client: Client) -> None:
    found = fit(client, "model=small&context=64&slots=2&device=cpu").json

    assert found["verdict"] in ("yes", "tight")
    assert found["placement"]["devices"] == {"cpu": found["estimate"]["total"]}
    assert (found["context"], found["slots"]) == (64, 2)
    (cpu,) = found["devices"]
    assert cpu["total"] <= 4_000_000_000
    assert cpu["context"] == cpu["single"] == 128  # more than that the model does not know


def test_what_does_not_fit_says_why_and_what_would(client: Client) -> None:
    found = fit(client, "model=small&device=cuda:9").json

    assert found["verdict"] == "no"
    assert "cuda:9" in found["reason"]
    assert found["placement"] is None
    assert found["hint"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("model=nowhere-to-be-found", 404, "model_not_found"),
        ("model=robot", 400, "not_supported"),
        ("model=small&context=0", 400, "invalid_request"),
        ("model=small&slots=many", 400, "invalid_request"),
        ("model=%0A", 400, None),
        ("", 400, "invalid_request"),
    ],
)
def test_nonsense_is_refused(client: Client, query: str, status: int, code: str | None) -> None:
    answer = fit(client, query)

    assert answer.status == status, answer.body
    assert code is None or answer.code == code


def run(client: Client, *arguments: str, remote: bool) -> subprocess.CompletedProcess[str]:
    home: Path = client.server.home
    where = ["--url", client.server.url] if remote else ["--home", str(home)]
    return subprocess.run([CORRAL, *where, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("remote", [False, True])
def test_the_same_on_the_command_line(client: Client, remote: bool) -> None:
    assert shutil.which(CORRAL) is not None
    shown = run(client, "hardware", remote=remote)
    assert shown.returncode == 0, shown.stderr
    assert "best device" in shown.stdout
    data = json.loads(run(client, "hardware", "--json", remote=remote).stdout)
    assert data["memory"]["total"] > 0
    fits = run(client, "fit", "small", "--context", "64", "--slots", "1", "--device", "cpu", remote=remote)
    assert fits.returncode == 0, fits.stderr
    assert "64 tokens of context, one slot" in fits.stdout
    refused = run(client, "fit", "small", "--device", "cuda:9", remote=remote)
    assert refused.returncode == 1
    assert "cuda:9" in refused.stdout
    assert (
        json.loads(run(client, "fit", "small", "--json", "--device", "cuda:9", remote=remote).stdout)["verdict"] == "no"
    )


def test_a_wish_that_is_no_number_is_refused(client: Client) -> None:
    refused = run(client, "fit", "small", "--context", "much", remote=False)

    assert refused.returncode == 2
    assert "--context takes a whole number" in refused.stderr
