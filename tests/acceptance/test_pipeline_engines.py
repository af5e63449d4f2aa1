"""The whole flow on real engines: analysis by one, code by another, assembly by a third, in memory for one of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from support.servers import CORRAL, Server, corral_server
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


def configured(transformers: Path, vllm: Path, budget: int | None = None) -> str:
    """A configuration file; JSON is YAML."""
    small = {"context": 512, "slots": 2}
    models: dict[str, Any] = {
        "on-llamacpp": {
            "runtime": "llamacpp",
            "source": "smollm2",
            "options": {"context": 8192, "slots": 2, "threads": 1},
        },
        "on-transformers": {
            "runtime": "transformers",
            "source": "smollm2-hf",
            "options": {**small, "executable": str(transformers)},
        },
        "on-vllm": {
            "runtime": "vllm",
            "source": "smollm2-hf",
            "options": {**small, "executable": str(vllm), "cache_mib": 128},
        },
    }
    engines: dict[str, Any] = {"load_timeout": PATIENCE, "idle_timeout": "never", "measure_every": "2s"}
    if budget is None:
        return json.dumps({"engines": engines, "models": models})
    engines["memory"] = {"cpu": budget}
    # The two that are small would find room together: they may not use it.
    return json.dumps({"engines": engines, "models": models, "groups": {"seat": {"members": list(NAMES)}}})


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    transformers_environment: Path,
    vllm_environment: Path,
    smollm2: Path,
    smollm2_snapshot: Path,
) -> Iterator[Server]:
    config = configured(transformers_environment, vllm_environment)
    with corral_server(tmp_path_factory.mktemp("flow"), config) as running:
        for source, name in ((smollm2, "smollm2"), (smollm2_snapshot, "smollm2-hf")):
            pull = [CORRAL, "--json", "pull", f"file:{source}", "--name", name]
            done = subprocess.run(pull, check=False, env=running.env, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
        yield running


def took(server: Server, model: str) -> int:
    """Bytes of main memory that a model takes once it has answered; it is out of memory afterwards."""
    body = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]}
    reply = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=PATIENCE)
    assert reply.status_code == 200, reply.text
    stats = httpx.get(f"{server.url}/api/v1/runtime/stats", timeout=60).json()
    address = f"{server.url}/api/v1/runtime/models/unload?model_name={model}&force=true"
    assert httpx.post(address, timeout=120).status_code == 200
    return int(stats["memory"]["cpu"]["held"])


def decided(server: Server, effect: str) -> list[str]:
    found = httpx.get(f"{server.url}/api/v1/runtime/decisions?limit=1000", timeout=60).json()["decisions"]
    return [entry["model"] for entry in reversed(found) if entry["effect"] == effect]


def test_three_engines_make_one_page_in_memory_for_one(
    server: Server, transformers_environment: Path, vllm_environment: Path
) -> None:
    sizes = {name: took(server, name) for name in NAMES}
    # There is room for the largest, and for none beside it.
    budget = max(sizes.values()) + min(sizes.values()) // 2
    (server.home / "corral.yaml").write_text(configured(transformers_environment, vllm_environment, budget))
    assert httpx.post(f"{server.url}/api/v1/runtime/reload", timeout=60).json()["success"]
    before = {effect: len(decided(server, effect)) for effect in ("load", "evict")}

    studio = Studio(server)
    studio.project("site")
    run = studio.post("/runs", {"project": "site", "source": FLOW, "inputs": {"topic": "bees"}, "seed": 7})["run"]["id"]
    ended = studio.finished(run)
    assert ended["status"] == "completed", ended["error"]

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
    assert sorted(decided(server, "load")[before["load"] :]) == sorted(NAMES)
    assert decided(server, "evict")[before["evict"] :] == decided(server, "load")[before["load"] : -1]
    stats = httpx.get(f"{server.url}/api/v1/runtime/stats", timeout=60).json()
    assert int(stats["memory"]["cpu"]["held"]) <= budget
    kept = {each["name"] for each in studio.get(f"/artifacts?project=site&run={run}")["artifacts"]}
    assert kept == {"all.md"}
    revisions = {steps[name]["request"]["revision"] for name in ("analysis", "code", "page")}
    assert None not in revisions
    assert ended["reproducible"] == {}, "greedy, with a seed, of known revisions"
