"""Every example runs, against a real model; every example of a configuration is one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from corral.app import Corral
from corral.config import load
from corral.domain.options import parse_options
from corral.fleet.desired import all_wanted
from tests.docs.pages import ROOT, read
from tests.support.vendors.gemini import Gemini
from tests.support.vendors.vendor import Asked, Refusal

SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
CONFIGURATIONS = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))
CLIENTS = {
    "anthropic_client.py": (
        "ANTHROPIC_BASE_URL",
        "",
        "Tokens of the question: ",
        "It calls get_weather with {'city': ",
    ),
    "gemini_client.py": ("GOOGLE_GEMINI_BASE_URL", "", "Tokens of the question: ", "As JSON: {'city': "),
    "ollama_client.py": ("OLLAMA_HOST", "", "Models: ", "As JSON: {'city': "),
    "openai_client.py": ("OPENAI_BASE_URL", "/v1", "Models: ", "As JSON: {'city': "),
}
"""Examples that ask a server: the variable that tells its address, what stands behind that, and what they print."""
PROGRAMS = read("docs/python.md").blocks("python") + [
    block for block in read("README.md").blocks("python") if "import corral" in block or "from corral" in block
]


class Falters(Gemini):
    """Gemini on a bad day: the large model answers once and is over its limit then, the quick one answers once too."""

    def answer(self, asked: Asked, request: web.Request) -> Any:
        """What the service would say, or its refusal."""
        told = super().answer(asked, request)
        times = sum(each.path == asked.path for each in self.asked)
        if times > 1:
            raise Refusal(429, "", "Quota exceeded.") if "pro" in asked.path else Refusal(503, "", "Overloaded.")
        return told


@pytest.fixture
def env(tmp_path: Path, model_store: Path) -> dict[str, str]:
    """The environment of somebody who has pulled `smollm2`, in a home that holds nothing else."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    home = {"HOME": str(tmp_path), "CORRAL_STORE_MODELS_DIR": str(model_store)}
    home["CORRAL_DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"  # the machine's own engine is not a test's
    return {**own, **home, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def server(env: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A Corral that serves, by its address."""
    argv = [sys.executable, "-m", "corral", "--json", "serve", "--port", "0"]
    with subprocess.Popen(argv, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(90)


def _run(argv: list[str], env: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name not in CLIENTS])
def test_an_example_runs(script: str, env: dict[str, str], tmp_path: Path) -> None:
    assert _run([sys.executable, str(ROOT / "examples" / script)], env, tmp_path).strip()


@pytest.mark.parametrize("script", CLIENTS)
def test_a_clients_example_runs(script: str, server: str, env: dict[str, str], tmp_path: Path) -> None:
    variable, path, begins, says = CLIENTS[script]

    said = _run([sys.executable, str(ROOT / "examples" / script)], {**env, variable: server + path}, tmp_path)

    assert said.startswith(begins)
    assert begins != "Models: " or "smollm2" in said.partition("\n")[0]
    assert says in said


@pytest.fixture
async def vendor() -> AsyncIterator[Falters]:
    async with Falters() as stage:
        yield stage


async def test_the_gemini_example_falls_back_and_tells_the_costs(
    vendor: Falters, env: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "cloud.yaml"
    text = (ROOT / "examples" / "cloud.yaml").read_text()
    config.write_text(text.replace("      safety:", f"      base_url: {vendor.url}\n      safety:"))
    argv = [sys.executable, str(ROOT / "examples" / "gemini_fallback.py"), str(config)]

    surroundings = {**env, "GEMINI_API_KEY": vendor.key}
    said = await asyncio.to_thread(_run, argv, surroundings, tmp_path)

    first, second, third = re.findall(r"^Name .*?(?=^Name |^Spent)", said, re.MULTILINE | re.DOTALL)
    assert "gemini-2.5-pro: Hello from gemini-2.5-pro." in first
    (cost,) = re.findall(r"try 1: gemini-2.5-pro, answered, \$(\S+)", first)
    assert float(cost) > 0
    assert f"in all ${cost}, price: genai-prices" in first

    assert "gemini-2.0-flash: Hello from gemini-2.0-flash." in second
    assert "try 1: gemini-2.5-pro, RESOURCE_EXHAUSTED, $0.000000000\n" in second
    assert re.search(r"gemini-2.0-flash, answered, \$0\.\d*[1-9]", second)

    tries = re.findall(r"try \d: (\S+), (\w+)", third)
    assert list(dict.fromkeys(tries)) == [
        ("gemini-2.5-pro", "RESOURCE_EXHAUSTED"),
        ("gemini-2.0-flash", "UNAVAILABLE"),
        ("smollm2", "answered"),
    ]
    assert "in all $0.000000000, price: free" in third
    settings = vendor.asked[0].body
    assert {each["threshold"] for each in settings["safetySettings"]} == {"BLOCK_NONE"}
    assert settings["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 1024}


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_in_the_documentation_runs(program: str, env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(program)

    assert _run([sys.executable, str(file)], env, tmp_path).strip()


@pytest.mark.parametrize("name", CONFIGURATIONS)
async def test_a_configuration_is_one(name: str, tmp_path: Path, model_store: Path) -> None:
    settings = load({"HOME": str(tmp_path), "CORRAL_STORE_MODELS_DIR": str(model_store)}, file=ROOT / "examples" / name)
    corral = Corral(settings, env={})

    containers = [corral.fleet.wanted(name) for name in corral.fleet.names()]
    names = [*settings.models, *(model for container in containers for model in container.models)]
    assert names
    for model in names:
        definition = corral.definition(model)
        parse_options(corral.runtimes[definition.runtime].options, definition.options, model)
    await corral.close()


def test_three_containers_have_ports_and_purposes(tmp_path: Path) -> None:
    settings = load({"HOME": str(tmp_path)}, file=ROOT / "examples" / "containers.yaml")
    found = all_wanted(settings, {})

    assert [want.spec.ports[0].outside for want in found.values()] == [11434, 11435, 11436]
    assert all(want.purpose and want.models for want in found.values())
    assert set(settings.routes["thinking"].models) <= {model for want in found.values() for model in want.models}


def test_the_compose_file_is_taken_over_whole(env: dict[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "corral", "import", "docker-compose", str(ROOT / "examples" / "compose.yml")]
    plan = json.loads(_run([*argv, "--yes", "--json"], env, tmp_path))

    assert {name: entry["port"] for name, entry in plan["containers"].items()} == {
        "qwen": 11434,
        "deepseek": 11435,
        "mistral": 11436,
    }
    assert [name for name, entry in plan["containers"].items() if entry.get("enabled") is False] == ["mistral"]
    assert plan["containers"]["mistral"]["volumes"] == {"mistral-models": "/root/.ollama"}
    assert {entry["gpus"] for entry in plan["containers"].values()} == {"all"}
    assert {left["key"].split(".")[0] for left in plan["unsupported"]} <= {"depends_on", "healthcheck", "profiles"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_says_how_it_is_run(script: str) -> None:
    head = (ROOT / "examples" / script).read_text().split('"""')[1]

    assert f"python examples/{script}" in head
