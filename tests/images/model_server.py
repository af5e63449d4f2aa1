"""What corral-test/corral runs: Corral itself, in a container, as the model server that it stands in for.

OLLAMA_HOST=127.0.0.1:11434   where it listens; 0.0.0.0 goes through a relay in front of a Corral on loopback
OLLAMA_MODELS=/models         where it keeps its models
/seed                         another Corral's models, mounted read-only: they are there from the start, not copied
--host H --port N             the same as OLLAMA_HOST, in the words of llama.cpp's server and of vLLM
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

SEED = Path("/seed")


def seed(models: Path) -> None:
    """What lies in the seed, linked; names are copied, since they are written anew."""
    for path in sorted(SEED.rglob("*")):
        there = models / path.relative_to(SEED)
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
        elif "blobs" in path.parts and not there.exists():
            there.symlink_to(path)
        elif path.name != "lock" and not there.exists():
            shutil.copyfile(path, there)


def free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main() -> int:
    host, _, number = os.environ.get("OLLAMA_HOST", "0.0.0.0:11434").rpartition(":")
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default=host or "0.0.0.0")
    parser.add_argument("--port", type=int, default=int(number))
    where, _ = parser.parse_known_args()
    models = Path(os.environ.get("OLLAMA_MODELS", "/models"))
    models.mkdir(parents=True, exist_ok=True)
    if SEED.is_dir():
        seed(models)
    open_to_all = where.host not in ("127.0.0.1", "localhost", "::1")
    port = free() if open_to_all else where.port
    command = [sys.executable, "-m", "corral", "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(*command, "--models-dir", str(models))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, process.terminate)
    if not open_to_all:
        return await process.wait()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with await asyncio.start_server(relay, where.host, where.port):
        return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
