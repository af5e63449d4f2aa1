"""A player of Ollama's API, after its documentation: strict about what it is sent, and without a model.

    with playing() as daemon: daemon.address, daemon.seen, daemon.loaded
    python ollama_daemon.py serve        # as `ollama serve`: where OLLAMA_HOST says

Only the standard library, so that any Python can run it as a program.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

FIELDS = {
    "/api/show": {"model", "verbose"},
    "/api/pull": {"model", "insecure", "stream"},
    "/api/create": {"model", "from", "files", "adapters", "template", "license", "system", "parameters", "messages"}
    | {"stream", "quantize"},
    "/api/generate": {"model", "prompt", "suffix", "images", "format", "options", "system", "template", "stream"}
    | {"raw", "keep_alive", "context", "think"},
    "/api/embed": {"model", "input", "truncate", "options", "keep_alive", "dimensions"},
    "/api/delete": {"model"},
    "/api/copy": {"source", "destination"},
}
NUMBERS = {"num_ctx", "num_gpu", "num_thread", "temperature", "seed", "top_k", "top_p", "num_predict"}
REGISTRY = {
    "tiny:1b": ["completion", "tools"],
    "embedder:latest": ["embedding"],
    "qwen2.5-coder:7b": ["completion", "tools"],
    "deepseek-r1:8b": ["completion"],
}
SIZE = 5_000_000


def full(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Daemon:
    """What one Ollama knows. `graphics` is the share of a model that it says is on the GPU.

    `mute`: no model says anything; `spoils`: those do not that are pulled from that pull on, counted from 1.
    """

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, int] = {}
        self.loaded: dict[str, Any] = {}
        self.seen: list[tuple[str, str, Any]] = []
        self.graphics = 0.0
        self.address = ""
        self.pulled = 0
        self.spoils = 0
        self.mute = False

    def add(self, name: str, capabilities: list[str], **parameters: Any) -> None:
        digest = hashlib.sha256(f"{name} {self.pulled}".encode()).hexdigest()
        self.models[full(name)] = {"capabilities": capabilities, "parameters": parameters, "digest": digest}

    def model(self, body: dict[str, Any]) -> str:
        name = full(body.get("model", ""))
        if name not in self.models:
            raise Refusal(404, f"model '{body.get('model')}' not found")
        return name

    def show(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        known = self.models[self.model(body)]
        text = "\n".join(f"{name} {value}" for name, value in known["parameters"].items())
        return [{"parameters": text, "details": {"format": "gguf"}, "capabilities": known["capabilities"]}]

    def pull(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        name = full(body["model"])
        if name not in REGISTRY:
            return [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
        self.pulled += 1  # each time the registry has something newer
        self.add(name, REGISTRY[name])
        self.models[name]["mute"] = 0 < self.spoils <= self.pulled
        layer = {"status": "pulling 0a1b", "digest": "sha256:0a1b", "total": 100}
        return [{"status": "pulling manifest"}, layer, {**layer, "completed": 100}, {"status": "success"}]

    def create(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        parameters = body.get("parameters", {})
        for name in parameters:
            if name not in NUMBERS:
                raise Refusal(400, f"unknown parameter '{name}'")
        if "files" in body:
            for name, digest in body["files"].items():
                if not name.endswith(".gguf") or digest not in self.blobs:
                    raise Refusal(400, f"invalid digest or file: {name}")
            base: dict[str, Any] = {"capabilities": ["completion"], "parameters": {}}
        elif "from" in body:
            base = self.models[self.model({"model": body["from"]})]
        else:
            raise Refusal(400, "neither 'from' or 'files' was specified")
        self.add(body["model"], base["capabilities"], **{**base["parameters"], **parameters})
        return [{"status": "writing manifest"}, {"status": "success"}]

    def load(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        name = self.model(body)
        if body.get("keep_alive") == 0:
            self.loaded.pop(name, None)
            return [{"model": name, "response": "", "done": True, "done_reason": "unload"}]
        if self.models[name]["parameters"].get("num_ctx", 0) > 100_000:
            raise Refusal(500, "model requires more system memory (9.9 GiB) than is available (1.2 GiB)")
        self.loaded[name] = body.get("keep_alive", 300)
        return [{"model": name, "response": "", "done": True, "done_reason": "load"}]

    def generate(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        model = self.models[self.model(body)]
        if self.mute or model.get("mute"):
            raise Refusal(500, "llama runner process has terminated: exit status 2")
        if "completion" not in model["capabilities"]:
            raise Refusal(400, f'"{body["model"]}" does not support generate')
        (said,) = self.load(body)
        if body.get("prompt"):
            said |= {"response": "Hi", "done_reason": "length", "eval_count": 1, "load_duration": 2_000_000}
        return [said]

    def embed(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        self.load(body)
        return [{"model": body["model"], "embeddings": [[0.1, 0.2]] if body.get("input") else []}]

    def copy(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        self.models[full(body["destination"])] = self.models[self.model({"model": body["source"]})]
        return []

    def delete(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        name = self.model(body)
        del self.models[name]
        self.loaded.pop(name, None)
        return []

    def tags(self) -> dict[str, Any]:
        models = self.models.items()
        return {"models": [{"name": name, "size": SIZE, "digest": model["digest"]} for name, model in models]}

    def running(self) -> dict[str, Any]:
        return {
            "models": [
                {
                    "name": name,
                    "model": name,
                    "size": SIZE,
                    "size_vram": int(SIZE * self.graphics),
                    "context_length": self.models[name]["parameters"].get("num_ctx", 4096),
                    "expires_at": "2318-01-01T00:00:00Z",
                }
                for name in self.loaded
            ]
        }

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        # Ollama wants a name; a test that asks any engine gives none, and Corral puts the engine's own in its place.
        name = self.model(body if "model" in body else {"model": next(iter(self.loaded))})
        self.loaded.setdefault(name, 300)
        said = {"role": "assistant", "content": f"hello from {name}"}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}


class Handler(http.server.BaseHTTPRequestHandler):
    """The routes; `daemon` is whose."""

    protocol_version = "HTTP/1.1"
    daemon: Daemon

    def do_HEAD(self) -> None:
        self.answer(200 if self.path.removeprefix("/api/blobs/") in self.daemon.blobs else 404, b"")

    def do_GET(self) -> None:
        self.daemon.seen.append(("GET", self.path, None))
        if self.path == "/api/version":
            self.answer(200, b'{"version":"0.99.0"}')
        elif self.path == "/api/tags":
            self.answer(200, json.dumps(self.daemon.tags()).encode())
        elif self.path == "/api/ps":
            self.answer(200, json.dumps(self.daemon.running()).encode())
        else:
            self.answer(404, b"404 page not found")

    def do_POST(self) -> None:
        data = self.body()
        if self.path.startswith("/api/blobs/"):
            digest = self.path.removeprefix("/api/blobs/")
            if digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
                self.answer(400, b'{"error":"digest mismatch"}')
                return
            self.daemon.blobs[digest] = len(data)
            self.answer(201, b"")
            return
        body = json.loads(data)
        self.daemon.seen.append((self.command, self.path, body))
        try:
            self.called(body)
        except Refusal as refusal:
            self.answer(refusal.status, json.dumps({"error": str(refusal)}).encode())

    def do_DELETE(self) -> None:
        self.do_POST()

    def called(self, body: dict[str, Any]) -> None:
        if self.path == "/v1/chat/completions":
            self.answer(200, json.dumps(self.daemon.chat(body)).encode())
            return
        unknown = body.keys() - FIELDS.get(self.path, set())
        if self.path not in FIELDS or unknown or (self.command == "DELETE") is not (self.path == "/api/delete"):
            raise Refusal(400, f"not in Ollama's API: {self.command} {self.path} {sorted(unknown)}")
        said = getattr(self.daemon, self.path.rpartition("/")[2])(body)
        self.answer(200, b"".join(json.dumps(line).encode() + b"\n" for line in said))

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        held = b""
        while size := int(self.rfile.readline(), 16):
            held += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return held

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def handler(daemon: Daemon) -> type[Handler]:
    return type("Bound", (Handler,), {"daemon": daemon})


@contextlib.contextmanager
def playing() -> Iterator[Daemon]:
    """A daemon that is there, in a thread of this process."""
    daemon = Daemon()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(daemon)) as server:
        daemon.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield daemon
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    if sys.argv[1:] != ["serve"]:
        sys.exit("Usage: ollama serve")
    daemon = Daemon()
    daemon.mute, daemon.spoils = bool(os.environ.get("PLAYED_MUTE")), int(os.environ.get("PLAYED_SPOILS", "0"))
    time.sleep(float(os.environ.get("PLAYED_DELAY", "0")))  # as a server that has much to read
    for name in os.environ.get("PLAYED_MODELS", "").split():
        daemon.add(name, ["completion"])
    print(f"models in {os.environ['OLLAMA_MODELS']}", file=sys.stderr, flush=True)
    host, _, port = os.environ["OLLAMA_HOST"].partition(":")
    http.server.ThreadingHTTPServer((host, int(port)), handler(daemon)).serve_forever()


if __name__ == "__main__":
    main()
