"""Install of a large file from loopback, verified, over `curl -o FILE && sha256sum FILE` to the same disk.

    python -m benchmarks.install [--rounds N] [--size 1GB] [--folder DIR] [--check]

nginx serves the file. Both sides take turns, changing who is first; each pair gives one ratio, and printed are the
medians. Corral installs in a process of its own that is ready when the clock starts, as its server is; what curl and
sha256sum leave in the page cache, Corral writes through to the disk before it calls the model installed. Memory is the
process's peak above what it had when it was ready. Everything lies below DIR and is removed at the end. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS = {"ratio": 1.1, "megabytes": 150.0}
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error; {user}
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


def gguf(path: Path, size: int) -> None:
    """Write a GGUF file of about `size` bytes: one tensor, of noise."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = {"general.architecture": "llama", "general.name": "Bench", "tokenizer.ggml.model": "gpt2"}
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs))
    head += b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in pairs.items())
    elements = size // 4
    head += text("weights") + struct.pack("<IQIQ", 1, elements, 0, 0)
    head += b"\0" * (-len(head) % 32)
    left = 4 * elements
    with path.open("wb") as out:
        out.write(head)
        while left:
            left -= out.write(os.urandom(min(left, 4 << 20)))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An nginx of the invoking user's own that serves `folder`/files; its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, user=user))
    with (folder / "nginx.log").open("wb") as log:
        command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise SystemExit(f"nginx ended: {(folder / 'nginx.log').read_text()[-500:]}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def peak() -> float:
    """Most memory this process ever had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 * (1 if sys.platform == "linux" else 0.001)


async def install(url: str, home: Path) -> dict[str, float]:
    """Install `url` into `home`; seconds, and megabytes above idle."""
    from corral.catalog.registry import Registry
    from corral.config import load
    from corral.kit.clock import SystemClock
    from corral.sources.url import Url

    host = url.split("/")[2]
    env = {"HOME": str(home), "CORRAL_SOURCES_ALLOW_PRIVATE": host, "PIP_CONFIG_FILE": os.devnull}
    clock, settings = SystemClock(), load(env, cwd=home)
    source = Url(clock, env, settings)
    registry = Registry(home / "models", {"url": source}, clock)
    # Ready as a server is: the libraries are loaded, and one request was made.
    await registry.install(url.replace("model.gguf", "small.gguf"), name="small")
    idle, begin = peak(), time.perf_counter()
    await registry.install(url, name="bench")
    return {"seconds": time.perf_counter() - begin, "megabytes": peak() - idle}


def corral(url: str, folder: Path) -> dict[str, float]:
    home = folder / "home"
    home.mkdir()
    try:
        command = [sys.executable, "-m", "benchmarks.install", "--child", url, "--folder", str(home)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"The install failed: {error.stderr[-1500:]}") from None
    finally:
        shutil.rmtree(home)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def curl(url: str, folder: Path) -> dict[str, float]:
    target = folder / "curl.gguf"
    begin = time.perf_counter()
    subprocess.run(["curl", "-s", "-f", "--noproxy", "*", "-o", str(target), url], check=True)
    loaded = time.perf_counter()
    subprocess.run(["sha256sum", str(target)], check=True, stdout=subprocess.DEVNULL)
    end = time.perf_counter()
    target.unlink()
    return {"seconds": end - begin, "curl": loaded - begin, "sha256sum": end - loaded}


def measure(rounds: int, size: int, root: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="corral-bench-", dir=root) as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free
        if free < 4 * size:
            raise SystemExit(f"{folder} has {free / 1e9:.1f} GB free; {4 * size / 1e9:.1f} are needed.")
        files = folder / "files"
        files.mkdir()
        gguf(files / "model.gguf", size)
        gguf(files / "small.gguf", 1000)
        pairs: list[dict[str, float]] = []
        with server(folder) as address:
            url = f"{address}/model.gguf"
            for number in range(rounds):
                sides = {"corral": corral, "curl": curl}
                order = ["corral", "curl"] if number % 2 else ["curl", "corral"]
                found = {}
                for side in order:
                    os.sync()  # what one side left to be written must not be on the other's bill
                    found[side] = sides[side](url, folder)
                pairs.append(
                    {
                        "ratio": found["corral"]["seconds"] / found["curl"]["seconds"],
                        "megabytes": found["corral"]["megabytes"],
                        "corral": found["corral"]["seconds"],
                        "curl": found["curl"]["curl"],
                        "sha256sum": found["curl"]["sha256sum"],
                    }
                )
                print("  ".join(f"{key} {value:.2f}" for key, value in pairs[-1].items()), file=sys.stderr)
    medians: dict[str, Any] = {key: statistics.median(pair[key] for pair in pairs) for key in pairs[0]}
    medians["megabytes"] = max(pair["megabytes"] for pair in pairs)
    return medians


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="1GB", help="of the file, as 1GB or 256MiB")
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's temporary folder")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    parser.add_argument("--child", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(asyncio.run(install(arguments.child, arguments.folder))))
        return 0
    missing = [tool for tool in ("nginx", "curl", "sha256sum") if shutil.which(tool) is None]
    if missing:
        print(
            f"Needed and not here: {', '.join(missing)}. On Debian: apt-get install nginx-light curl", file=sys.stderr
        )
        return 2
    from corral.config import size

    found = measure(arguments.rounds, size(arguments.size), arguments.folder)
    for key, value in found.items():
        target = TARGETS.get(key)
        print(f"{key:10} {value:8.2f}{f'   at most {target:g}' if target else ''}")
    missed = [key for key, target in TARGETS.items() if found[key] > target]
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
