"""One server, three real engines: llama.cpp, transformers and vLLM take turns in memory that holds two of them, or one.

Last, a pipeline on all of them: analysis by one, code by another, assembly by the third.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest

from support.servers import CORRAL, Server, corral_server, ended
from support.studio import Studio

PATIENCE = 1500  # vLLM takes 80 s to start on a machine that does nothing else, and a multiple of that on one that does

pytestmark = pytest.mark.timeout(3 * PATIENCE)

NAMES = ("on-llamacpp", "on-transformers", "on-vllm")
FLOW = """
name: flow
description: What a page must say, its code, and both as one document.
inputs: {topic: {type: string, required: true}}
steps:
  analysis:
    model: on-llamacpp
    prompt: "In one sentence: what should a web page about {{ inputs.topic }} say?"
    parameters: {max_tokens: 40, temperature: 0}
    timeout: 20m
  code:
    model: on-transformers
    prompt: "Write one line of HTML that says: {{ steps.analysis.output }}"
    parameters: {max_tokens: 40, temperature: 0}
    timeout: 20m
  title:
    model: on-llamacpp
    prompt: "A title of three words for a page about {{ inputs.topic }}:"
    parameters: {max_tokens: 8, temperature: 0}
    timeout: 20m
  page:
    model: on-vllm
    assemble: [title, analysis, code]
    prompt: "Put together: {% for part in parts %}{{ part.name }}: {{ part.text }} {% endfor %}"
    parameters: {max_tokens: 40, temperature: 0}
    timeout: 20m
  all:
    assemble: [title, analysis, code, page]
"""


@pytest.fixture(scope="module")
def models(transformers_environment: Path, vllm_environment: Path) -> dict[str, Any]:
    """The three of them in the words of the configuration."""
    small = {"context": 512, "slots": 2}
    return {
        "on-llamacpp": {
            "runtime": "llamacpp",
            "source": "smollm2",
            "options": {"context": 8192, "slots": 2, "threads": 1},
        },
        "on-transformers": {
            "runtime": "transformers",
            "source": "smollm2-hf",
            "options": {**small, "executable": str(transformers_environment)},
        },
        "on-vllm": {
            "runtime": "vllm",
            "source": "smollm2-hf",
            "options": {**small, "executable": str(vllm_environment), "cache_mib": 128},
        },
    }


def configured(
    models: dict[str, Any], *, budget: int | None = None, resident: tuple[str, ...] = (), seats: int | None = None
) -> str:
    """A configuration file; JSON is YAML. With one of `seats`, only one is in memory, though two would find room."""
    entries = {name: {**entry, "resident": name in resident} for name, entry in models.items()}
    engines: dict[str, Any] = {"load_timeout": PATIENCE, "idle_timeout": "never", "measure_every": "2s"}
    if budget is not None:
        engines["memory"] = {"cpu": budget}
    groups = {"seat": {"members": list(NAMES)}} if seats == 1 else {}
    return json.dumps({"engines": engines, "models": entries, "groups": groups})


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any], smollm2: Path, smollm2_snapshot: Path
) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("three"), configured(models)) as running:
        for source, name in ((smollm2, "smollm2"), (smollm2_snapshot, "smollm2-hf")):
            pull = [CORRAL, "--json", "pull", f"file:{source}", "--name", name]
            done = subprocess.run(pull, check=False, env=running.env, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
        yield running


def configure(server: Server, text: str) -> None:
    (server.home / "corral.yaml").write_text(text)
    told = httpx.post(f"{server.url}/api/v1/runtime/reload", timeout=60)
    assert told.json() == {"success": True, "file": str(server.home / "corral.yaml"), "later": []}


def ask(server: Server, model: str) -> httpx.Response:
    """An answer in words; it takes as long as a load takes."""
    body = {"model": model, "max_tokens": 12, "temperature": 0}
    body |= {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    reply = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=PATIENCE)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"].strip(), reply.text
    assert reply.json()["usage"]["completion_tokens"] > 1, reply.text
    assert reply.headers["x-corral-model"] == model
    return reply


def state(server: Server, model: str) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/api/v1/runtime/models/{model}", timeout=60).json()["model"])


def resident(server: Server) -> set[str]:
    return {name for name in NAMES if state(server, name)["state"] == "ready"}


def unload(server: Server, model: str) -> None:
    address = f"{server.url}/api/v1/runtime/models/unload?model_name={model}&force=true"
    assert httpx.post(address, timeout=120).status_code == 200


def held(server: Server) -> int:
    """Bytes of main memory that engines count for, once each of them has been measured."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        states = [state(server, name) for name in NAMES]
        if all(one["footprint"] for one in states if one["state"] == "ready"):
            break
    stats = httpx.get(f"{server.url}/api/v1/runtime/stats", timeout=60).json()
    return int(stats["memory"]["cpu"]["held"])


def decisions(server: Server, effect: str) -> list[str]:
    found = httpx.get(f"{server.url}/api/v1/runtime/decisions?limit=1000", timeout=60).json()["decisions"]
    return [entry["model"] for entry in reversed(found) if entry["effect"] == effect]


def test_three_engines_take_turns_in_memory_for_two(server: Server, models: dict[str, Any]) -> None:
    started = ask(server, "on-vllm")
    assert started.headers["x-corral-engine"].startswith("vllm")
    ask(server, "on-transformers")
    ask(server, "on-llamacpp")
    everything = held(server)
    unload(server, "on-llamacpp")
    assert resident(server) == {"on-vllm", "on-transformers"}
    # Engines grow while they work: there is room for that, and not for a third one, however small.
    budget = everything - (everything - held(server)) // 2

    configure(server, configured(models, budget=budget))
    ask(server, "on-llamacpp")
    assert len(resident(server)) == 2
    assert "on-llamacpp" in resident(server)

    # Each of them makes room where the others must stay, and comes back when it is asked for.
    for victim in NAMES:
        others = tuple(name for name in NAMES if name != victim)
        configure(server, configured(models, budget=budget, resident=others))
        for name in others:
            ask(server, name)
        assert resident(server) == set(others)
        configure(server, configured(models, budget=budget))
        ask(server, victim)
        assert victim in resident(server)
        assert len(resident(server)) == 2
        assert held(server) <= budget

    assert set(decisions(server, "evict")) == set(NAMES)
    loads = decisions(server, "load")
    assert min(loads.count(name) for name in NAMES) >= 2
    remembered = json.loads((server.home / "footprints.json").read_text())["footprints"]
    assert {entry["runtime"] for entry in remembered} == {"llamacpp", "transformers", "vllm"}


def test_a_pipeline_on_all_three_in_memory_for_one(server: Server, models: dict[str, Any]) -> None:
    ask(server, "on-vllm")  # the largest
    for name in NAMES[:2]:
        unload(server, name)
    budget = held(server) * 21 // 20
    configure(server, configured(models, budget=budget, seats=1))
    before = {effect: len(decisions(server, effect)) for effect in ("load", "evict")}

    studio = Studio(server)
    studio.project("site")
    run = studio.post("/runs", {"project": "site", "source": FLOW, "inputs": {"topic": "bees"}, "seed": 7})["run"]["id"]
    run_ended = studio.finished(run)
    assert run_ended["status"] == "completed", run_ended["error"]

    steps = {step["key"]: step for step in studio.get(f"/runs/{run}/steps")["steps"]}
    answered = {name: steps[name]["receipt"]["model"] for name in ("analysis", "title", "code", "page")}
    assert answered == {
        "analysis": "on-llamacpp",
        "title": "on-llamacpp",
        "code": "on-transformers",
        "page": "on-vllm",
    }
    assert all(step["output"].strip() for step in steps.values())
    # Each was loaded once: what one model does is done together, although another step stands between in the source.
    assert decisions(server, "load")[before["load"] :] == ["on-llamacpp", "on-transformers", "on-vllm"]
    assert decisions(server, "evict")[before["evict"] :] == ["on-vllm", "on-llamacpp", "on-transformers"]
    assert resident(server) == {"on-vllm"}
    assert held(server) <= budget
    kept = {each["name"] for each in studio.get(f"/artifacts?project=site&run={run}")["artifacts"]}
    assert kept == {"all.md"}
    revisions = {steps[name]["request"]["revision"] for name in ("analysis", "code", "page")}
    assert None not in revisions
    assert run_ended["reproducible"] == {}, "greedy, with a seed, of known revisions"


def test_afterwards_no_process_of_any_is_left(server: Server) -> None:
    engines = server.engines()
    assert engines
    ports = {c.laddr.port for engine in engines for c in engine.net_connections("tcp") if c.status == "LISTEN"}
    for name in NAMES:
        unload(server, name)
    assert ended(engines)
    assert not [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port in ports]
    assert held(server) == 0
