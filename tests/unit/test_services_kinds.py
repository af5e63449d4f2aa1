"""Settings of a service become what is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.config import ServiceSettings
from corral.errors import ConfigError, InvalidName, InvalidRequest, ServiceUnavailable, UnknownOption
from corral.services.kinds import Surroundings, spec


def program(kind: str, name: str, given: Path | None) -> Path | None:
    return None if "missing" in f"{kind}{name}{given}" else given or Path("/opt", kind, name)


AROUND = Surroundings(program, lambda name: Path("/models", name))


def made(name: str = "web", kind: str | None = "command", **options: Any):
    more = {
        key: options.pop(key) for key in ("environment", "stop_grace", "start_timeout", "restart") if key in options
    }
    return spec(name, ServiceSettings(kind=kind, options=options, **more), AROUND)


def test_ollama_needs_no_settings() -> None:
    found = made("ollama", None)

    assert found.argv == ("/opt/ollama/ollama", "serve")
    assert found.environment == {"OLLAMA_HOST": "127.0.0.1:11434"}
    assert (found.kind, found.port, found.health) == ("ollama", 11434, "http://127.0.0.1:11434/api/version")
    assert (found.stop_grace, found.start_timeout, found.restart) == (20.0, 300.0, True)


def test_ollama_s_options() -> None:
    found = made("o", "ollama", host="::1", port=1, models="/m", executable="/x/ollama", memory="8GB")

    assert found.argv == ("/x/ollama", "serve")
    assert found.environment == {"OLLAMA_HOST": "[::1]:1", "OLLAMA_MODELS": "/m"}
    assert found.health == "http://[::1]:1/api/version"
    assert found.memory == 8 * 10**9


def test_vllm_serves_an_installed_model_under_its_name() -> None:
    found = made("v", "vllm", model="qwen", dtype="bfloat16", context=2048, parallel=2, arguments=["--seed", "7"])

    assert found.argv == (
        *("/opt/vllm/vllm", "serve", "/models/qwen", "--host", "127.0.0.1", "--port", "8000"),
        *("--served-model-name", "qwen", "--dtype", "bfloat16", "--max-model-len", "2048"),
        *("--tensor-parallel-size", "2", "--seed", "7"),
    )
    assert found.health == "http://127.0.0.1:8000/health"
    assert "--gpu-memory-utilization" in made("v", "vllm", model="q", gpu_memory=0.5).argv


def test_a_command_with_its_port_in_its_place() -> None:
    found = made(
        command=["serve", "--at={host}:{port}", "%h", "$HOME"],
        port=9000,
        health="up",
        host="0.0.0.0",
        cwd="/srv",
        environment={"N": 1, "YES": True, "T": "x y"},
        restart=False,
    )

    assert found.argv == ("/opt/command/serve", "--at=0.0.0.0:9000", "%h", "$HOME")
    assert found.health == "http://127.0.0.1:9000/up"
    assert found.environment == {"N": "1", "YES": "true", "T": "x y"}
    assert (found.cwd, found.restart) == (Path("/srv"), False)
    assert made(command=["/bin/x"]).argv == ("/bin/x",)
    assert made(command=["/bin/x"], port=5).health is None


@pytest.mark.parametrize(
    ("error", "given"),
    [
        (InvalidName, {"name": "../x"}),
        (ConfigError, {"name": "web", "kind": None}),
        (ConfigError, {"kind": "docker"}),
        (UnknownOption, {"command": ["x"], "prot": 1}),
        (InvalidRequest, {}),
        (InvalidRequest, {"command": []}),
        (InvalidRequest, {"command": "x y"}),
        (InvalidRequest, {"command": ["x\ny"]}),
        (InvalidRequest, {"command": ["x"], "port": 0}),
        (InvalidRequest, {"command": ["x"], "port": 70000}),
        (InvalidRequest, {"command": ["x"], "health": "/"}),
        (InvalidRequest, {"command": ["x"], "host": "localhost"}),
        (InvalidRequest, {"command": ["x"], "memory": "a lot"}),
        (ServiceUnavailable, {"command": ["missing"]}),
        (ServiceUnavailable, {"kind": "vllm", "model": "m", "executable": "/missing"}),
        (ConfigError, {"command": ["x"], "environment": {"A-B": "1"}}),
        (ConfigError, {"command": ["x"], "environment": {"1A": "1"}}),
        (ConfigError, {"command": ["x"], "environment": {"A": "1\n2"}}),
        (ConfigError, {"command": ["x"], "environment": {"A": None}}),
        (ConfigError, {"command": ["x"], "environment": {"A": ["1"]}}),
    ],
)
def test_what_cannot_be_meant_is_refused(error: type[Exception], given: dict[str, Any]) -> None:
    with pytest.raises(error) as caught:
        made(**given)

    assert caught.value.args[0]


def test_what_is_missing_says_how_to_get_it() -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        made("v", "vllm", model="m", executable="/missing")

    assert "corral runtimes install vllm" in caught.value.hint
