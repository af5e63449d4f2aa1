"""The Python of the users' documents, as they wrote it: only the package in the import lines is ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import pytest
import yaml

from corral import (
    DeviceType,
    GenerationConfig,
    ModelConfig,
    ModelInterface,
    ModelManager,
    ModelOutput,
    Reply,
    RuntimeManager,
    RuntimeType,
)
from corral.config import load
from corral.domain.states import State
from corral.errors import ModelNotFound
from support.servers import CORRAL, corral_server, environment
from tests.docs.pages import ROOT

BASIC = """\
import asyncio
from models.core import ModelManager

async def main():
    # Crear el gestor de modelos
    model_manager = ModelManager()

    # Cargar un modelo
    model, info = await model_manager.load_model("gemini-2.0-flash")

    # Generar texto
    response = await model.generate(
        prompt="Escribe un poema sobre la tecnología",
        max_tokens=500,
        temperature=0.7
    )

    print(response.text)

    # Descargar el modelo
    await model_manager.unload_model("gemini-2.0-flash")

if __name__ == "__main__":
    asyncio.run(main())
"""

STREAMING = """\
import asyncio
from models.core import ModelManager

async def main():
    model_manager = ModelManager()
    model, _ = await model_manager.load_model("mistral-7b-instruct")

    # Usar generación en streaming
    async for chunk in model.generate_stream(
        prompt="Escribe un cuento de misterio",
        max_tokens=500
    ):
        print(chunk, end="", flush=True)

    await model_manager.unload_model("mistral-7b-instruct")

if __name__ == "__main__":
    asyncio.run(main())
"""

MODEL = """\
from typing import Dict, List, Any, Optional, Union, AsyncGenerator
from ..core.model_manager import ModelInterface, ModelInfo, ModelOutput

class NuevoModelo(ModelInterface):
    def __init__(self, model_info: ModelInfo):
        self.model_info = model_info
        # Inicialización específica del modelo

    async def generate(self, prompt: str, max_tokens: int = 1024,
                      temperature: float = 0.7) -> ModelOutput:
        # Implementación de generación de texto
        return ModelOutput(text="Texto generado", tokens=10)

    async def generate_stream(self, prompt: str, max_tokens: int = 1024,
                             temperature: float = 0.7) -> AsyncGenerator[str, None]:
        # Implementación de streaming
        yield "Texto "
        yield "generado "
        yield "en chunks"
"""

MODELS_JSON = """\
{
  "models": [
    {
      "name": "nuevo-modelo",
      "model_type": "nuevo",
      "local": false,
      "api_key_env": "NUEVO_API_KEY",
      "context_length": 16384
    }
  ]
}
"""

RUNTIMES = """\
manager = RuntimeManager()
config = ModelConfig(
    model_id="google/gemma-2b",
    model_name="Gemma-2B",
    runtime_type=RuntimeType.TRANSFORMERS,
    device_type=DeviceType.AUTO,  # MPS/GPU/CPU
)
manager.register_model(config)
await manager.load_model("Gemma-2B")
result = await manager.generate("Gemma-2B", GenerationConfig("Hello"))
"""

VIA_PYTHON = """\
from langflow.custom.runtimes import RuntimeManager, ModelConfig, GenerationConfig

manager = RuntimeManager()
config = ModelConfig(...)
manager.register_model(config)

await manager.load_model("Gemma-2B")
result = await manager.generate("Gemma-2B", GenerationConfig("Hello"))
print(result.text)
"""


def ours(sample: str) -> str:
    """The sample with our package in its import lines."""
    return re.sub(
        r"^from (?:models\.core|\.\.core\.model_manager|langflow\S+) import",
        "from corral import",
        sample,
        flags=re.MULTILINE,
    )


def awaited(sample: str, names: str) -> str:
    """A sample that awaits outside of any function, inside one."""
    inside = indent(ours(sample) + "\nprint(result.text)\n", "    ")
    return f"import asyncio\nfrom corral import {names}\n\nasync def main():\n{inside}\nasyncio.run(main())\n"


def run(program: str, env: dict[str, str], folder: Path, seconds: float = 100) -> str:
    file = folder / "sample.py"
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, file],
        env={**env, "PYTHONPATH": str(ROOT / "src")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def configure(folder: Path, models: dict[str, object]) -> None:
    home = folder / ".corral"
    home.mkdir(exist_ok=True)
    (home / "corral.yaml").write_text(yaml.safe_dump({"models": models}))


def install(what: Path, name: str, env: dict[str, str], folder: Path) -> None:
    subprocess.run(
        [CORRAL, "pull", f"file:{what}", "--name", name],
        env=env,
        cwd=folder,
        capture_output=True,
        timeout=240,
        check=True,
    )


@pytest.fixture
def gemini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vendor on loopback who knows one model, and one key."""
    models = {"gemini-2.0-flash": {"runtime": "fake", "options": {"reply": "Un poema sobre la tecnología."}}}
    config = yaml.safe_dump({"models": models})
    with corral_server(tmp_path_factory.mktemp("vendor"), config, env={"CORRAL_API_KEY": "secreto"}) as server:
        yield server.base_url


def test_the_basic_sample_reaches_the_cloud(tmp_path: Path, gemini: str) -> None:
    options = {"base_url": gemini, "api_key_env": "GEMINI_API_KEY"}
    configure(tmp_path, {"gemini-2.0-flash": {"runtime": "openai", "options": options}})

    said = run(ours(BASIC), environment(tmp_path, more={"GEMINI_API_KEY": "secreto"}), tmp_path)

    assert said == "Un poema sobre la tecnología."


def test_the_streaming_sample_runs_a_local_model(tmp_path: Path, model_store: Path) -> None:
    configure(tmp_path, {"mistral-7b-instruct": {"source": "smollm2", "options": {"context": 600, "slots": 1}}})

    assert len(run(ours(STREAMING), environment(tmp_path, model_store), tmp_path)) > 20


async def test_the_class_of_the_guide_is_a_model_as_ours_are() -> None:
    scope: dict[str, type] = {}
    exec(ours(MODEL), scope)
    model = scope["NuevoModelo"](None)

    assert isinstance(model, ModelInterface)
    output = await model.generate("hola")
    assert (output.text, output.tokens, str(output)) == ("Texto generado", 10, "Texto generado")
    assert "".join([piece async for piece in model.generate_stream("hola")]) == "Texto generado en chunks"
    assert issubclass(Reply, ModelOutput)


def test_models_json_becomes_configuration(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.json").write_text(MODELS_JSON)
    env = environment(tmp_path)

    done = subprocess.run(
        [CORRAL, "--json", "import", "config/models.json", "--yes"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    plan = json.loads(done.stdout.splitlines()[0])
    assert plan["event"] == "plan"
    assert "nuevo-modelo" in json.dumps(plan)  # configured, or skipped with the reason


NAMES = "DeviceType, GenerationConfig, ModelConfig, RuntimeManager, RuntimeType"


def test_the_runtime_samples_run_a_gguf(tmp_path: Path, smollm2: Path) -> None:
    env = environment(tmp_path)
    configure(tmp_path, {})
    install(smollm2, "google/gemma-2b", env, tmp_path)
    with_llama = RUNTIMES.replace("RuntimeType.TRANSFORMERS", "RuntimeType.LLAMA_CPP")

    assert run(awaited(with_llama, NAMES), env, tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sample", ["first", "second"])
def test_the_runtime_samples_run_as_written(
    sample: str, tmp_path: Path, transformers_environment: Path, smollm2_snapshot: Path
) -> None:
    env = environment(tmp_path, more={"CORRAL_ENGINES_LOAD_TIMEOUT": "300s"})
    configure(tmp_path, {})
    (tmp_path / ".corral" / "environments").mkdir()
    (tmp_path / ".corral" / "environments" / "transformers").symlink_to(transformers_environment)
    install(smollm2_snapshot, "google/gemma-2b", env, tmp_path)
    filled = re.search(r"ModelConfig\((.*?)\n\)", RUNTIMES, re.DOTALL)
    assert filled is not None
    program = RUNTIMES if sample == "first" else VIA_PYTHON.replace("(...)", f"({filled[1]}\n)")

    assert run(awaited(program, NAMES), env, tmp_path, 500)


# What the second document's fifteen tests are called.


@pytest.fixture
def manager(tmp_path: Path) -> ModelManager:
    return RuntimeManager(settings=load({"HOME": str(tmp_path)}, cwd=tmp_path), env={})


async def test_the_life_of_a_model_in_the_manager_s_words(manager: ModelManager) -> None:
    assert manager.list_models() == []
    config = ModelConfig("google/gemma-2b", "Gemma-2B", runtime_type=RuntimeType.FAKE, model_type="chat")
    manager.register_model(config)
    (listed,) = manager.list_models()
    assert (listed.name, listed.runtime, listed.state, listed.model_type) == ("Gemma-2B", "fake", State.COLD, "chat")
    with pytest.raises(ModelNotFound):
        await manager.load_model("nobody")
    with pytest.raises(ModelNotFound):
        manager.get_model_info("nobody")
    model, info = await manager.load_model("Gemma-2B")
    assert isinstance(model, ModelInterface)
    assert (info.state, info.device, info.model_type) == (State.READY, "cpu", "chat")
    assert manager.get_model_info("Gemma-2B") == info
    assert (await manager.generate("Gemma-2B", GenerationConfig("Hello"))).text == "Hello"
    health = await manager.health_check()
    assert health == {"status": "ok", "models": {"Gemma-2B": State.READY}, "problems": {}}
    assert await manager.unload_model("Gemma-2B")
    assert manager.get_model_info("Gemma-2B").state == "cold"
    await manager.close()


async def test_health_tells_of_what_failed_and_of_what_hangs(manager: ModelManager) -> None:
    manager.register_model(ModelConfig("m", "sick", runtime_type="fake", options={"fault": "crash_on_start"}))
    manager.register_model(ModelConfig("not-here", "absent", runtime_type="llamacpp"))
    manager.register_model(ModelConfig("m", "shy", runtime_type="fake", options={"fault": "refuse"}))
    with pytest.raises(Exception, match="sick"):
        await manager.load_model("sick")
    await manager.load_model("shy")
    health = await manager.health_check()
    assert health["status"] == "degraded"
    assert set(health["problems"]) == {"sick", "shy"}
    assert health["models"]["absent"] == "cold"
    assert "not" in manager.get_model_info("absent").reason
    await manager.close()


def test_configurations_have_the_documents_defaults() -> None:
    config = ModelConfig("google/gemma-2b", "Gemma-2B")
    assert (config.device_type, config.quantization, config.runtime_type) == (DeviceType.AUTO, None, None)
    generation = GenerationConfig("Hello")
    assert (generation.prompt, generation.max_tokens, generation.temperature) == ("Hello", 1024, 0.7)
    assert GenerationConfig("a", max_tokens=5, temperature=0.1, top_p=0.5).max_tokens == 5


def test_runtime_types_are_what_plugins_there_are() -> None:
    assert RuntimeType.TRANSFORMERS == RuntimeType.TRANSFORMERS.value == "transformers"
    assert RuntimeType.LLAMA_CPP == RuntimeType.LLAMACPP == "llamacpp"
    assert RuntimeType("vllm").name == "VLLM"
    assert {"OPENAI", "FAKE"} <= {kind.name for kind in RuntimeType}
    assert len(RuntimeType) == len(list(RuntimeType))
    assert "fake" in RuntimeType
    assert "FAKE" in dir(RuntimeType)
    assert repr(RuntimeType.FAKE) == "RuntimeType.FAKE"
    with pytest.raises(AttributeError, match="did you mean TRANSFORMERS"):
        _ = RuntimeType.TRANSFORMER
    with pytest.raises(AttributeError):
        _ = RuntimeType._private


def test_device_types() -> None:
    assert [str(device) for device in DeviceType] == ["auto", "cpu", "cuda", "rocm", "mps"]
