"""Requests a second and p50 through Corral to a static upstream, against nginx and vllm-router on the same core.

    python benchmarks/gateway.py            measure and print
    python benchmarks/gateway.py --check    and exit with 1 when a target is missed

One run starts all of them, each pinned to one core; the load (wrk) and the upstream (nginx) have another. Then they are
measured one after the other, in rounds whose order alternates; what is printed is the median. Ratios are what counts:
the figures themselves belong to the machine. Loopback only. Needs nginx, wrk and taskset; vllm-router is installed into
an environment of its own under `.cache/` the first time.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
ROUTER = "vllm-router==0.1.17"
MODEL = "bench"
CONNECTIONS = (1, 16)
READY_WITHIN = 40.0
TARGETS = {"rate/nginx": 0.25, "rate/vllm-router": 0.6, "p50/nginx": 2.0}

ANSWER = json.dumps(
    {
        "id": "chatcmpl-7d1f0c9e2b",
        "object": "chat.completion",
        "created": 1760000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "A corral is an enclosure for horses and cattle. " * 5,
                    "tool_calls": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 31, "completion_tokens": 62, "total_tokens": 93},
        "system_fingerprint": "b1",
    }
)
REQUEST = json.dumps(
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is a corral? Answer in five sentences, please."},
        ],
        "temperature": 0.7,
        "max_tokens": 128,
    }
)

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type application/json;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {http}
}}
"""
STATIC = """
  server {{
    listen 127.0.0.1:{port};
    location = /v1/chat/completions {{ return 200 '{answer}'; }}
    location = /v1/models {{ return 200 '{{"object":"list","data":[{{"id":"bench","object":"model"}}]}}'; }}
    location / {{ return 200 '{{}}'; }}
  }}
"""
PROXY = """
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
"""
LOAD = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = [==[{request}]==]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {{"requests":%d,"micros":%d,"p50":%f,"p99":%f,"failed":%d}}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Malfunction(Exception):
    """The measurement could not be made; says why."""


@dataclass
class Peer:
    """Something to measure: where it listens, and what was measured, by number of connections."""

    name: str
    port: int
    rates: dict[int, list[float]] = field(default_factory=dict)
    p50s: dict[int, list[float]] = field(default_factory=dict)

    def rate(self, connections: int) -> float:
        """Requests a second, the median of the rounds."""
        return statistics.median(self.rates[connections])

    def p50(self, connections: int) -> float:
        """Milliseconds, the median of the rounds."""
        return statistics.median(self.p50s[connections])


class Stage:
    """Starts the processes, each on its core, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self.proxy_core, self.load_core = cores[0], cores[-1]
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, core: int, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        """Start a process on a core, its output in a file of its name."""
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                cwd=self.folder,
            )
        self._processes.append(process)

    def nginx(self, name: str, core: int, http: str) -> None:
        """Start an nginx of the invoking user's own, with no path outside the stage's folder."""
        folder = self.folder / name
        folder.mkdir()
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, user=user, http=http))
        self.start(name, core, ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)])

    def wait(self, peer: Peer) -> None:
        """Until the peer gives the upstream's very answer."""
        deadline = time.monotonic() + READY_WITHIN
        while (said := ask(peer.port)) != ANSWER.encode():
            if time.monotonic() > deadline:
                log = (self.folder / f"{peer.name}.log").read_text(errors="replace")[-2000:]
                raise Malfunction(f"{peer.name} does not give the upstream's answer but {said[:300]!r}.\n{log}")
            time.sleep(0.1)

    def close(self) -> None:
        """End every process that was started."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            for process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)


def ask(port: int) -> bytes:
    """The answer to the request that is measured; empty when there is none."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", REQUEST.encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as response:
            return bytes(response.read()) if response.status == 200 else b""
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
    except OSError:
        return b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def router_command() -> str:
    """The path of vllm-router, installed if it is not there yet."""
    folder = ROOT / ".cache" / "bench-venv"
    command = folder / "bin" / "vllm-router"
    if not command.exists():
        print(f"Installing {ROUTER} into {folder.relative_to(ROOT)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", ROUTER], check=True)
    return str(command)


def start_router(stage: Stage, port: int, upstream: int) -> None:
    command = [router_command(), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin", "--log-level", "error"]
    command += ["--disable-retries", "--disable-circuit-breaker", "--prometheus-host", "127.0.0.1"]
    stage.start("vllm-router", stage.proxy_core, [*command, "--prometheus-port", str(free_port())])


def start_floor(stage: Stage, port: int, upstream: int) -> None:
    app = str(ROOT / "benchmarks" / "relay_app.py")
    stage.start("floor", stage.proxy_core, [sys.executable, app, str(port), f"http://127.0.0.1:{upstream}/v1"])


def start_corral(stage: Stage, port: int, upstream: int) -> None:
    home = stage.folder / "home"
    home.mkdir()
    config = stage.folder / "corral.yaml"
    address = f"http://127.0.0.1:{upstream}/v1"
    config.write_text(f"models:\n  {MODEL}:\n    runtime: openai\n    options:\n      base_url: {address}\n")
    command = [sys.executable, "-m", "corral", "--config", str(config), "serve", "--port", str(port)]
    stage.start("corral", stage.proxy_core, command, {"CORRAL_HOME": str(home)})


STARTERS = {"vllm-router": start_router, "corral": start_corral, "floor": start_floor}


def measure(peer: Peer, stage: Stage, connections: int, seconds: float) -> tuple[float, float]:
    """Requests a second and p50 in milliseconds."""
    script = stage.folder / "load.lua"
    command = ["taskset", "-c", str(stage.load_core), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s"]
    command += ["-s", str(script), f"http://127.0.0.1:{peer.port}/v1/chat/completions"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    line = next((text for text in done.stdout.splitlines() if text.startswith("RESULT ")), None)
    if line is None:
        raise Malfunction(f"wrk failed on {peer.name}: {done.stdout}{done.stderr}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["failed"] or not result["requests"]:
        raise Malfunction(f"{peer.name}: {result['failed']} of {result['requests']} requests failed.")
    return result["requests"] / result["micros"] * 1e6, result["p50"] / 1000


@contextlib.contextmanager
def staged(names: Sequence[str]) -> Iterator[tuple[Stage, dict[str, Peer]]]:
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as name:
        stage = Stage(Path(name))
        try:
            upstream, proxied = free_port(), free_port()
            stage.nginx("upstream", stage.load_core, STATIC.format(port=upstream, answer=ANSWER))
            stage.wait(Peer("upstream", upstream))
            stage.nginx("nginx", stage.proxy_core, PROXY.format(port=proxied, upstream=upstream))
            peers = {"nginx": Peer("nginx", proxied)}
            for peer in names:
                peers[peer] = Peer(peer, free_port())
                STARTERS[peer](stage, peers[peer].port, upstream)
            (stage.folder / "load.lua").write_text(LOAD.format(request=REQUEST))
            for each in peers.values():
                stage.wait(each)
            yield stage, peers
        finally:
            stage.close()


def run(stage: Stage, peers: dict[str, Peer], rounds: int, seconds: float) -> None:
    for peer in peers.values():
        measure(peer, stage, CONNECTIONS[-1], 1)  # warm
    for number in range(rounds):
        order = list(peers.values())
        for connections in CONNECTIONS:
            for peer in order if number % 2 == 0 else reversed(order):
                rate, p50 = measure(peer, stage, connections, seconds)
                peer.rates.setdefault(connections, []).append(rate)
                peer.p50s.setdefault(connections, []).append(p50)
    for peer in peers.values():
        stage.wait(peer)  # still the same answer


def report(peers: dict[str, Peer]) -> dict[str, dict[str, float]]:
    """Print the table and return the ratios of Corral, and of the floor, to the others."""
    print(f"{'':14}{'connections':>12}{'requests/s':>12}{'p50 ms':>9}")
    for peer in peers.values():
        for connections in CONNECTIONS:
            print(f"{peer.name:14}{connections:>12}{peer.rate(connections):>12.0f}{peer.p50(connections):>9.3f}")
    ratios: dict[str, dict[str, float]] = {}
    nginx, many = peers["nginx"], CONNECTIONS[-1]
    for name in ("corral", "floor"):
        if name in peers:
            peer = peers[name]
            ratios[name] = {"rate/nginx": peer.rate(many) / nginx.rate(many), "p50/nginx": peer.p50(1) / nginx.p50(1)}
            if "vllm-router" in peers:
                ratios[name]["rate/vllm-router"] = peer.rate(many) / peers["vllm-router"].rate(many)
            for ratio, value in ratios[name].items():
                bound = f"{'at most' if ratio.startswith('p50') else 'at least'} {TARGETS[ratio]}"
                where = "1 connection" if ratio.startswith("p50") else f"{many} connections"
                print(f"{name} {ratio} at {where}: {value:.2f} (target: {bound})")
    return ratios


def missed(ratios: dict[str, float]) -> list[str]:
    """The targets that were not reached."""
    return [
        name
        for name, value in ratios.items()
        if (value > TARGETS[name] if name.startswith("p50") else value < TARGETS[name])
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="for one measurement, whole seconds")
    parser.add_argument("--peers", default="vllm-router,corral", help="besides nginx: vllm-router, corral, floor")
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON in the last line")
    arguments = parser.parse_args()
    names = [name for name in arguments.peers.split(",") if name != "nginx"]
    unknown = sorted(set(names) - set(STARTERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(STARTERS)}, and nginx always")
    missing = [tool for tool in ("nginx", "wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        print(f"Not installed: {', '.join(missing)}.", file=sys.stderr)
        print("On Debian: apt-get install nginx-light wrk util-linux", file=sys.stderr)
        return 2
    try:
        with staged(names) as (stage, peers):
            if stage.proxy_core == stage.load_core:
                print("Only one core: load and proxies share it, so the ratios flatter everyone.", file=sys.stderr)
            run(stage, peers, arguments.rounds, arguments.seconds)
    except (Malfunction, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 2
    ratios = report(peers)
    if arguments.json:
        print(json.dumps(ratios))
    short = missed(ratios.get("corral") or ratios.get("floor") or {})
    if short:
        print(f"Missed: {', '.join(short)}", file=sys.stderr)
    return 1 if short and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
