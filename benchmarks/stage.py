"""What a benchmark of the gateway stands on: processes on two cores, an upstream that always says the same, and wrk.

Whatever is measured has the first core, one process after the other; the load and the upstream have the last. Nothing
leaves loopback: every process is told to listen and to ask there.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
MODEL = "bench"
CHAT = "/v1/chat/completions"
READY_WITHIN = 90.0

CONTENT = "A corral is an enclosure for horses and cattle. " * 5
ANSWER = json.dumps(
    {
        "id": "chatcmpl-7d1f0c9e2b",
        "object": "chat.completion",
        "created": 1760000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": CONTENT, "tool_calls": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 31, "completion_tokens": 62, "total_tokens": 93},
        "system_fingerprint": "b1",
    }
)
SYSTEM = "You are a helpful assistant."
PROMPT = "What is a corral? Answer in five sentences, please."
REQUEST = json.dumps(
    {
        "model": MODEL,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}],
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
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; {more} }}
  }}
"""
LOAD = """
local calls, sent = {{}}, 0
wrk.method = "POST"
function init(args)
{calls}
end
function request()
  sent = sent + 1
  return calls[sent % #calls + 1]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {{"requests":%d,"micros":%d,"p50":%f,"p99":%f,"refused":%d,"failed":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), e.status,
    e.connect + e.read + e.write + e.timeout))
end
"""
CALL = '  calls[#calls + 1] = wrk.format("POST", "{path}", {{{headers}}}, [==[{body}]==])'


class Malfunction(Exception):
    """The measurement could not be made; says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request as a client sends it: where to, with what."""

    path: str = CHAT
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = REQUEST

    def lua(self) -> str:
        """As a line of wrk's script."""
        headers = {"content-type": "application/json", **self.headers}
        return CALL.format(
            path=self.path, headers=", ".join(f'["{k}"]="{v}"' for k, v in headers.items()), body=self.body
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What wrk found: answers of any status, seconds, milliseconds until half and 99 % came, and how many refused."""

    requests: int
    seconds: float
    p50: float
    p99: float
    refused: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class Stage:
    """Starts the processes, each on its core, and ends them all.

    `proxy_core` is for what is measured, `load_core` for all else; with one core they are the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self.proxy_core, self.load_core = cores[0], cores[-1]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, core: int, command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        """Start a process on a core, its output in a file of its name; returns its number."""
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(env or {}),
                start_new_session=True,
                cwd=self.folder,
            )
        self._processes[name] = process
        return process.pid

    def nginx(self, name: str, core: int, http: str) -> int:
        """Start an nginx of the invoking user's own, with no path outside the stage's folder; returns its number."""
        folder = self.folder / name
        folder.mkdir()
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, user=user, http=http))
        return self.start(name, core, ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)])

    def upstream(self) -> int:
        """Start the upstream that always says the same; returns its port."""
        port = free_port()
        self.nginx("upstream", self.load_core, STATIC.format(port=port, answer=ANSWER))
        self.wait("upstream", port, Call(), exact)
        return port

    def wait(self, name: str, port: int, call: Call, good: Callable[[bytes], bool]) -> None:
        """Until the answer to `call` is good."""
        deadline = time.monotonic() + READY_WITHIN
        while not good(said := ask(port, call)):
            if time.monotonic() > deadline or self._processes[name].poll() is not None:
                log = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise Malfunction(f"{name} does not give the upstream's answer but {said[:300]!r}.\n{log}")
            time.sleep(0.1)

    def load(self, port: int, calls: Sequence[Call], connections: int, seconds: float) -> Found:
        """Send the calls in turn for so long, in whole seconds.

        Raises:
            Malfunction: a request got no answer, or there was none at all.
        """
        script = self.folder / "load.lua"
        script.write_text(LOAD.format(calls="\n".join(call.lua() for call in calls)))
        command = ["taskset", "-c", str(self.load_core), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s"]
        command += ["--timeout", "30s", "-s", str(script), f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
        line = next((text for text in done.stdout.splitlines() if text.startswith("RESULT ")), None)
        if line is None:
            raise Malfunction(f"wrk failed on port {port}: {done.stdout}{done.stderr}")
        said = json.loads(line.removeprefix("RESULT "))
        if said["failed"] or not said["requests"]:
            raise Malfunction(f"{said['failed']} requests got no answer, {said['requests']} got one.")
        return Found(said["requests"], said["micros"] / 1e6, said["p50"] / 1e3, said["p99"] / 1e3, said["refused"])

    def close(self) -> None:
        """End every process that was started."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """A stage in a folder of its own, for the block's length."""
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as name:
        stage = Stage(Path(name))
        if stage.proxy_core == stage.load_core:
            print("Only one core: load and proxies share it, so the ratios flatter everyone.", file=sys.stderr)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # who is told to end, ends what it started
        try:
            yield stage
        finally:
            stage.close()


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with more, and without settings of Corral from outside."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")} | dict(more)


def exact(said: bytes) -> bool:
    """Whether this is the upstream's answer, byte for byte."""
    return said == ANSWER.encode()


def same(said: bytes) -> bool:
    """Whether this says what the upstream's answer says: the text, why it ended, and the tokens it took."""
    try:
        return _gist(json.loads(said)) == _gist(json.loads(ANSWER))
    except (ValueError, LookupError, TypeError):
        return False


def _gist(answer: Any) -> tuple[Any, ...]:
    choice, usage = answer["choices"][0], answer["usage"]
    counts = [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    return choice["message"]["content"], choice["finish_reason"], counts


def ask(port: int, call: Call) -> bytes:
    """The answer to one call, whatever its status; empty when there is none."""
    headers = {"content-type": "application/json", **call.headers}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{call.path}", call.body.encode(), headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
    except OSError:
        return b""


def free_port() -> int:
    """A port on loopback that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lacking(*tools: str) -> bool:
    """Whether a tool is not there, which is then said with what to type."""
    packages = {"nginx": "nginx-light", "taskset": "util-linux", "node": "nodejs"}
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        print(f"Not installed: {', '.join(missing)}.", file=sys.stderr)
        print(f"On Debian: apt-get install {' '.join(packages.get(tool, tool) for tool in missing)}", file=sys.stderr)
    return bool(missing)
