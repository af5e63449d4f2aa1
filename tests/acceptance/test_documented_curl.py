"""The lines of the documents, run by `curl` on a real server: every answer has the keys and types that they show.

Ollama's registry is played on loopback, by its own name: behind a proxy that leads there, with a certificate that this
server is told to trust.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import models, oci
from support.origin import ThreadedOrigin
from support.servers import CORRAL, Server, corral_server, environment

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl command"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make certificates with"),
    pytest.mark.timeout(300),
]

NAME = "registry.ollama.ai"
TEMPLATE = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] }}<end_of_turn>\n{% endfor %}"
)
NUMBER = (int, float)
MAYBE = (int, float, type(None))


class Tunnel:
    """A proxy for CONNECT, which leads everywhere to one place."""

    def __init__(self, to: str) -> None:
        host, _, port = to.partition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._to) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.asked.append(head.split(b" ")[1].decode())
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 20):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    cert, key = home / "cert.pem", home / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=t"]
    command += ["-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    made = oci.image(smollm2.read_bytes(), template=TEMPLATE)
    web = ThreadedOrigin(made.files("library/llama3", "latest"), context)
    tunnel = Tunnel(web.origin.host)
    (home / "gemma.gguf").write_bytes(
        models.gguf(2000, tokenizer__chat_template=GEMMA, llama__context_length=4096, drop=["general.file_type"])
    )
    env = {"HTTPS_PROXY": tunnel.url, "PIP_CERT": str(cert), "PIP_CONFIG_FILE": "/dev/null"}
    try:
        with corral_server(home, env=env) as running:
            yield running
    finally:
        tunnel.close()
        web.close()


def run(server: Server, line: str) -> dict[str, Any]:
    """What the line answers: a method and a path as the document writes them, or curl's own arguments behind."""
    method, path, *more = shlex.split(line)
    argv = ["curl", "--silent", "--show-error", "--noproxy", "*", "-X", method, f"{server.url}{path}", *more]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def shaped(value: Any, shape: Any, where: str = "answer") -> None:
    """Check that `value` has the keys of `shape`, in order, and values of its types; more keys may follow."""
    if isinstance(shape, dict):
        assert [key for key in value if key in shape] == list(shape), where
        for key, item in shape.items():
            shaped(value[key], item, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for number, item in enumerate(value):
            shaped(item, shape[0], f"{where}[{number}]")
    else:
        assert isinstance(value, shape), f"{where}: {value!r}"
        assert not (isinstance(value, bool) and bool not in (shape if isinstance(shape, tuple) else (shape,))), where


BEGUN = {"success": bool, "operation_id": str, "message": str}
MODEL = {
    "name": str,
    "provider": str,
    "display_name": str,
    "size_gb": NUMBER,
    "status": str,
    "runtime": str,
    "capabilities": {"supports_system_role": bool, "allowed_roles": [str]},
}
OPERATION = {
    "operation_id": str,
    "model_name": str,
    "operation_type": str,
    "status": str,
    "progress": float,
    "message": str,
    "error": (str, type(None)),
}
CAPABILITIES = {
    "supports_system_role": bool,
    "supports_function_calling": bool,
    "allowed_roles": [str],
    "prompt_template": (str, type(None)),
    "max_context_length": (int, type(None)),
    "quantization": (str, type(None)),
}
USAGE = {
    "disk_usage_gb": NUMBER,
    "disk_limit_gb": NUMBER,
    "disk_usage_percent": NUMBER,
    "cpu_usage_percent": MAYBE,
    "memory_total_gb": NUMBER,
    "memory_used_gb": NUMBER,
    "memory_usage_percent": NUMBER,
    "gpu_usage_percent": MAYBE,
    "vram_usage_mb": MAYBE,
    "vram_total_mb": MAYBE,
    "vram_usage_percent": MAYBE,
    "models_count": int,
}


def ended(server: Server, operation_id: str) -> dict[str, Any]:
    """The operation when it has ended, as its document asks for it; its events tell when that is."""
    line = ["curl", "--silent", "--no-buffer", "--noproxy", "*", "--max-time", "60"]
    done = subprocess.run(
        [*line, f"{server.url}/api/v1/models/operations/{operation_id}/events"],
        capture_output=True,
        text=True,
        timeout=70,
        check=True,
    )
    assert re.search(r'"status":"(completed|failed|cancelled)"', done.stdout), done.stdout
    answer = run(server, f"GET /api/v1/models/operations/{operation_id}")
    shaped(answer, {"success": bool, "operation": OPERATION})
    operation: dict[str, Any] = answer["operation"]
    return operation


def test_the_document_line_by_line(server: Server) -> None:
    json_kind = "-H 'Content-Type: application/json'"
    begun = run(
        server,
        f"POST /api/v1/models/registry/install {json_kind} "
        """-d '{"name": "llama3:latest", "provider": "ollama", "runtime": "ollama"}'""",
    )
    shaped(begun, BEGUN)
    assert "llama3:latest" in begun["message"]

    operation = ended(server, begun["operation_id"])
    assert operation["error"] is None
    assert (operation["operation_id"], operation["model_name"], operation["operation_type"]) == (
        begun["operation_id"],
        "llama3:latest",
        "install",
    )
    assert (operation["status"], operation["progress"]) == ("completed", 100.0)

    listed = run(server, "GET /api/v1/models/providers?provider=ollama")
    shaped(listed, {"success": bool, "models": [MODEL], "count": int})
    assert [(model["name"], model["provider"]) for model in listed["models"]] == [("llama3:latest", "ollama")]

    active = run(
        server,
        f"""POST /api/v1/models/activate {json_kind} -d '{{"name": "llama3:latest", "runtime": "ollama"}}'""",
    )
    shaped(active, {"success": bool})
    assert active["success"] is True
    memory = run(server, "GET /api/v1/runtime/models/llama3:latest")
    assert memory["model"]["state"] == "ready"

    used = run(server, "GET /api/v1/models/usage")
    shaped(used, {"success": bool, "usage": USAGE})
    assert list(used["usage"]) == list(USAGE)
    assert used["usage"]["models_count"] == 1

    history = run(server, "GET /api/v1/models/operations?limit=10")
    shaped(history, {"success": bool, "operations": [OPERATION]})
    assert history["operations"][0]["operation_id"] == begun["operation_id"]

    refused = run(server, "DELETE /api/v1/models/registry/llama3:latest")
    shaped(refused, {"success": bool, "error": {"code": str, "message": str, "hint": str}})
    run(server, "POST /api/v1/runtime/models/unload?model_name=llama3:latest")
    removed = run(server, "DELETE /api/v1/models/registry/llama3:latest")
    shaped(removed, BEGUN)
    assert ended(server, removed["operation_id"])["status"] == "completed"
    assert run(server, "GET /api/v1/models/providers?provider=ollama")["models"] == []


def test_the_capabilities_of_a_model_without_a_system_role(server: Server) -> None:
    source = server.home.parent / "gemma.gguf"
    body = json.dumps({"name": "google/gemma-2b-it", "source": f"file:{source}"})
    line = f"POST /api/v1/models/registry/install -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    assert ended(server, run(server, line)["operation_id"])["status"] == "completed"

    answer = run(server, "GET /api/v1/models/google%2Fgemma-2b-it/capabilities")

    shaped(answer, {"success": bool, "model_name": str, "capabilities": CAPABILITIES})
    assert answer["model_name"] == "google/gemma-2b-it"
    assert answer["capabilities"]["supports_system_role"] is False
    assert answer["capabilities"]["supports_function_calling"] is False
    assert answer["capabilities"]["allowed_roles"] == ["user", "assistant"]
    assert answer["capabilities"]["max_context_length"] == 4096
    assert run(server, "GET /api/v1/models/google/gemma-2b-it/capabilities") == answer


def test_the_operation_that_there_is_not(server: Server) -> None:
    answer = run(server, "GET /api/v1/models/operations/550e8400-e29b-41d4-a716-446655440000")
    assert (answer["success"], answer["error"]["code"]) == (False, "operation_missing")


def test_a_provider_that_cannot_be_reached_is_told_and_answers_its_shape(server: Server) -> None:
    answer = run(server, "GET /api/v1/models/providers?provider=huggingface")
    shaped(answer, {"success": bool, "models": list, "count": int})
    assert answer["success"] is True
    assert answer["problems"]


RUNTIME = {
    "register": """\
curl -X POST http://localhost:7860/api/v1/runtime/models/register \\
  -H "Content-Type: application/json" \\
  -d '{
    "model_id": "google/gemma-2b",
    "model_name": "Gemma-2B",
    "model_type": "llm",
    "runtime_type": "transformers",
    "quantization": "int8"
  }'""",
    "load": "curl -X POST http://localhost:7860/api/v1/runtime/models/load?model_name=Gemma-2B",
    "generate": """\
curl -X POST http://localhost:7860/api/v1/runtime/generate \\
  -H "Content-Type: application/json" \\
  -d '{
    "model_name": "Gemma-2B",
    "prompt": "Escribe una función Python",
    "max_tokens": 256
  }'""",
    "health": "curl http://localhost:7860/api/v1/runtime/health",
}
"""The lines of the runtimes' document, as they stand there."""


def typed(server: Server, line: str, seconds: float = 100) -> dict[str, Any]:
    """What the line answers, typed into a shell as it stands: only the port is this server's."""
    port = server.url.rpartition(":")[2]
    quiet = "curl() { command curl --silent --show-error --noproxy '*' \"$@\"; }\n"
    done = subprocess.run(
        ["sh", "-c", quiet + line.replace("localhost:7860", f"localhost:{port}")],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["success"] is True, answer
    return answer


RECEIPT = {"request_id": str, "model": str, "runtime": str, "revision": str, "engine": str, "context": int}


def the_eight_routes(server: Server, register: str, kind: str, seconds: float = 100) -> None:
    registered = typed(server, register)
    assert (registered["model"]["name"], registered["model"]["runtime"]) == ("Gemma-2B", kind)

    loaded = typed(server, RUNTIME["load"], seconds)["model"]
    assert (loaded["state"], loaded["loaded"], loaded["runtime"]) == ("ready", True, kind)
    assert loaded["footprint"]["cpu"] > 0

    answer = typed(server, RUNTIME["generate"], seconds)
    shaped(answer, {"success": bool, "text": str, "tokens": int, "model": str, "receipt": RECEIPT})
    assert answer["text"]
    assert 0 < answer["tokens"] <= 256

    assert typed(server, RUNTIME["health"])["status"] == "ok"

    base = "http://localhost:7860/api/v1/runtime"
    listed = typed(server, f"curl {base}/models")
    assert [(m["name"], m["registered"]) for m in listed["models"] if m["loaded"]] == [("Gemma-2B", True)]
    assert typed(server, f"curl {base}/models/Gemma-2B")["model"]["served"] >= 1
    stats = typed(server, f"curl {base}/stats")
    assert stats["memory"]["cpu"]["held"] > 0
    assert stats["counters"]["loads"] == 1
    assert typed(server, f"curl '{base}/explain?model=Gemma-2B'")["explanation"]["verdict"] == "answers now"
    unloaded = typed(server, f"curl -X POST {base}/models/unload?model_name=Gemma-2B")
    assert unloaded["model"]["state"] == "cold"


def installed_as_gemma(what: Path, home: Path) -> None:
    """Put a model into the store of a home that has no server yet, under the name that the document uses."""
    subprocess.run(
        [CORRAL, "pull", f"file:{what}", "--name", "google/gemma-2b"],
        env=environment(home),
        cwd=home,
        capture_output=True,
        timeout=100,
        check=True,
    )


@pytest.mark.timeout(300)
def test_the_runtime_document_line_by_line_on_a_gguf(tmp_path: Path, smollm2: Path) -> None:
    installed_as_gemma(smollm2, tmp_path)
    line = RUNTIME["register"].replace("transformers", "llamacpp").replace("int8", "Q4_1")
    with corral_server(tmp_path) as server:
        the_eight_routes(server, line, "llamacpp")


@pytest.mark.timeout(600)
def test_the_runtime_document_line_by_line(
    tmp_path: Path, transformers_environment: Path, smollm2_snapshot: Path
) -> None:
    installed_as_gemma(smollm2_snapshot, tmp_path)
    environments = tmp_path / ".corral" / "environments"
    environments.mkdir(parents=True, exist_ok=True)
    (environments / "transformers").symlink_to(transformers_environment)
    with corral_server(tmp_path, env={"CORRAL_ENGINES_LOAD_TIMEOUT": "300s"}) as server:
        the_eight_routes(server, RUNTIME["register"], "transformers", 500)
