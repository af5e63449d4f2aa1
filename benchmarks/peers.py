"""What the gateway is measured beside, each in an environment of its own under `.cache/`, and Corral itself.

A peer is started with one worker and the settings that its own documentation names for production; what it would write
to a database, ask of the internet or listen to beyond loopback is turned off. Versions are pinned here and printed with
each run.
"""

from __future__ import annotations

import json
import platform
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.stage import CHAT, MODEL, PROXY, ROOT, Call, Malfunction, Stage, environment, exact, free_port, same

if TYPE_CHECKING:
    from pathlib import Path

ROUTER = "vllm-router==0.1.17"
LITELLM = "litellm[proxy]==1.106.2"
PORTKEY = "@portkey-ai/gateway@1.15.2"

PLAIN = "Corral without a key, a price and a budget"
PRICE = {"input": 1.0, "output": 2.0}
"""US dollars for a million tokens."""
BUDGET = "1000000"
"""US dollars a month."""

LITELLM_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
"""
LOOPBACK = """
// The gateway listens on every address and cannot be told otherwise.
const {{ Server }} = require('node:net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {{
  return listen.call(this, port, '127.0.0.1', ...rest.filter((given) => typeof given === 'function'));
}};
"""


@dataclass(slots=True)
class Peer:
    """Something to measure: where it listens and what each request to it carries.

    `good` tells whether an answer is the upstream's; `pid` is the process, whose children count with it; `key` is the
    one in the headers, if any.
    """

    name: str
    port: int
    pid: int
    version: str
    headers: Mapping[str, str] = field(default_factory=dict)
    good: Callable[[bytes], bool] = exact
    key: str | None = None

    def call(self) -> Call:
        """The chat request that is measured."""
        return Call(CHAT, self.headers)

    def worked(self) -> float:
        """Seconds of processor time that it has taken so far, its children with it."""
        process = psutil.Process(self.pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return sum(each.user + each.system for each in times)


def start_nginx(stage: Stage, upstream: int, more: str = "") -> Peer:
    """The reverse proxy nginx, with more directives if any."""
    port = free_port()
    pid = stage.nginx("nginx", stage.proxy_core, PROXY.format(port=port, upstream=upstream, more=more))
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return Peer("nginx", port, pid, said.strip().rpartition("/")[2])


def installed(name: str, wanted: str) -> Path:
    """The folder of a virtual environment that holds what is wanted, made if it is not there yet."""
    folder = ROOT / ".cache" / f"bench-{name}"
    stamp = folder / "made-from"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {wanted} into {folder.relative_to(ROOT)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "--quiet", wanted], check=True)
        stamp.write_text(wanted)
    return folder


def start_router(stage: Stage, upstream: int) -> Peer:
    """vllm-router, which is written in Rust."""
    folder, port = installed("vllm-router", ROUTER), free_port()
    command = [str(folder / "bin" / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin", "--log-level", "error"]
    command += ["--disable-retries", "--disable-circuit-breaker", "--prometheus-host", "127.0.0.1"]
    pid = stage.start("vllm-router", stage.proxy_core, [*command, "--prometheus-port", str(free_port())])
    return Peer("vllm-router", port, pid, ROUTER.partition("==")[2])


def start_litellm(stage: Stage, upstream: int) -> Peer:
    """LiteLLM's proxy without a database; it writes every answer anew."""
    folder, port = installed("litellm", LITELLM), free_port()
    key = f"sk-{secrets.token_hex(24)}"
    config = stage.folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(model=MODEL, upstream=upstream))
    command = [str(folder / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
    }
    pid = stage.start("litellm", stage.proxy_core, [*command, "--num_workers", "1", "--telemetry", "False"], env)
    return Peer("litellm", port, pid, LITELLM.partition("==")[2], {"authorization": f"Bearer {key}"}, same)


def start_portkey(stage: Stage, upstream: int) -> Peer:
    """Portkey's gateway on Node; it writes every answer anew, without spaces."""
    folder, port = ROOT / ".cache" / "bench-portkey", free_port()
    stamp = folder / "made-from"
    if not stamp.exists() or stamp.read_text() != PORTKEY:
        print(f"Installing {PORTKEY} into {folder.relative_to(ROOT)} …", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(["npm", "install", "--prefix", str(folder), *options, PORTKEY], check=True)
        stamp.write_text(PORTKEY)
    preload = stage.folder / "loopback.cjs"
    preload.write_text(LOOPBACK.format())
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", "--require", str(preload), str(script), f"--port={port}", "--headless"]
    pid = stage.start("portkey", stage.proxy_core, command, {"NODE_ENV": "production"})
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    headers = {
        "authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
    }
    return Peer("portkey", port, pid, f"{PORTKEY.rpartition('@')[2]}, Node {node}", headers, same)


def start_floor(stage: Stage, upstream: int) -> Peer:
    """Corral's relay under a gateway of the fewest lines."""
    port = free_port()
    command = [sys.executable, str(ROOT / "benchmarks" / "relay_app.py"), str(port), f"http://127.0.0.1:{upstream}/v1"]
    return Peer("floor", port, stage.start("floor", stage.proxy_core, command), f"Python {platform.python_version()}")


def start_corral(stage: Stage, upstream: int, *, plain: bool = False) -> Peer:
    """Corral with one model, which is the upstream's, and with a key, a price and a budget, unless `plain`.

    Receipts, usage and metrics are kept in any case.
    """
    from corral import __version__

    home, port = stage.folder / "home", free_port()
    home.mkdir()
    config = stage.folder / "corral.json"
    options = {"base_url": f"http://127.0.0.1:{upstream}/v1"}
    settings = {"models": {MODEL: {"runtime": "openai", "options": options}}, "prices": {} if plain else {MODEL: PRICE}}
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "corral", "--config", str(config)]
    env = {"CORRAL_HOME": str(home)}
    key = None if plain else admit(command, env)
    pid = stage.start("corral", stage.proxy_core, [*command, "serve", "--port", str(port)], env)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    version = f"{__version__}, Python {platform.python_version()}" + (", plain" if plain else "")
    return Peer("corral", port, pid, version, headers, key=key)


def admit(command: Sequence[str], env: Mapping[str, str]) -> str:
    """Make a key with a budget in the home of a Corral that is not running yet; returns what opens the server."""
    whole = environment(env)

    def run(*words: str) -> dict[str, Any]:
        done = subprocess.run([*command, *words, "--json"], env=whole, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Malfunction(f"corral {' '.join(words)} failed:\n{done.stderr}")
        return dict(json.loads(done.stdout))

    secret = str(run("keys", "create", MODEL)["secret"])
    run("budgets", "create", MODEL, BUDGET, "--key", MODEL)
    return secret


STARTERS: dict[str, Callable[[Stage, int], Peer]] = {
    "vllm-router": start_router,
    "litellm": start_litellm,
    "portkey": start_portkey,
    "corral": start_corral,
    "floor": start_floor,
}
"""What can be started beside nginx."""
