"""Models as Ollama keeps them in a registry: made, served by a script or by Debian's docker-registry, and cut off.

made = image(model=…, template="…", params={…})       the manifest and the blobs
Origin(made.files("library/tiny", "1b"))              a registry that misbehaves as told (support.origin)
async with docker_registry(folder) as host: …         the real one, on loopback; skipped aloud when missing
async with Cutter(host) as cutter: …                  a line to it that breaks after so many bytes
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from support.models import sha256
from support.origin import Origin

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = {"model_format": "gguf", "model_family": "llama", "model_type": "1K", "file_type": "F32"}


@dataclass(frozen=True)
class Image:
    """A manifest as it is sent, and the blobs it names, by digest."""

    manifest: bytes
    blobs: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        return f"sha256:{sha256(self.manifest)}"

    def files(self, name: str, tag: str) -> dict[str, bytes]:
        """By the path at which a registry has them."""
        return {
            f"/v2/{name}/manifests/{tag}": self.manifest,
            f"/v2/{name}/manifests/{self.digest}": self.manifest,
            **{f"/v2/{name}/blobs/{digest}": data for digest, data in self.blobs.items()},
        }

    def store(self, folder: Path, name: str, tag: str, host: str = "registry.ollama.ai") -> Path:
        """Laid out in `folder` as Ollama does it."""
        path = folder / "manifests" / host / name / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.manifest)
        (folder / "blobs").mkdir(exist_ok=True)
        for digest, data in self.blobs.items():
            (folder / "blobs" / digest.replace(":", "-")).write_bytes(data)
        return folder

    def changed(self, **fields: Any) -> Image:
        """The same with other fields in the manifest."""
        return Image(json.dumps(json.loads(self.manifest) | fields).encode(), self.blobs)

    def relayered(self, number: int = 0, **fields: Any) -> Image:
        """The same with other fields in one layer."""
        layers = json.loads(self.manifest)["layers"]
        layers[number] |= fields
        return self.changed(layers=layers)


def image(
    model: bytes | None = None, *more: tuple[str, bytes], config: Mapping[str, Any] | None = None, **layers: Any
) -> Image:
    """A model of those layers, by Ollama's names of their kinds; what is no text or bytes is written as JSON."""
    told = [] if model is None else [("model", model)]
    told += [(kind, _bytes(data)) for kind, data in layers.items()]
    settings = json.dumps(CONFIG if config is None else dict(config)).encode()
    blobs = {f"sha256:{sha256(data)}": data for _, data in [("", settings), *told, *more]}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _layer("application/vnd.docker.container.image.v1+json", settings),
        "layers": [
            _layer(kind if "/" in kind else f"application/vnd.ollama.image.{kind}", data)
            for kind, data in [*told, *more]
        ],
    }
    return Image(json.dumps(manifest).encode(), blobs)


def _bytes(data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    return data.encode() if isinstance(data, str) else json.dumps(data).encode()


def _layer(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data)}


@asynccontextmanager
async def docker_registry(folder: Path) -> AsyncIterator[str]:
    """Debian's docker-registry with its storage in `folder`; its `host:port`."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is missing: apt-get install docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "registry.json"  # YAML takes JSON
    settings.write_text(
        json.dumps(
            {
                "version": 0.1,
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": {"addr": "127.0.0.1:0"},
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        program, "serve", str(settings), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    drain: asyncio.Task[bytes] | None = None
    try:
        assert process.stderr is not None
        host = ""
        while not host:
            line = (await process.stderr.readline()).decode()
            assert line, "docker-registry ended before it listened"
            match = re.search(r"listening on (127\.0\.0\.1:\d+)", line)
            host = match[1] if match else ""
        drain = asyncio.ensure_future(process.stderr.read())
        yield host
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if drain is not None:
            await drain


async def push(host: str, name: str, tag: str, made: Image) -> str:
    """Put the image into the registry as Ollama does; its digest there."""
    async with aiohttp.ClientSession(f"http://{host}") as http:
        for digest, data in made.blobs.items():
            async with http.post(f"/v2/{name}/blobs/uploads/") as answer:
                assert answer.status == 202, await answer.text()
                where = answer.headers["Location"]
            kind = {"Content-Type": "application/octet-stream"}
            async with http.put(f"{where}&digest={digest}", data=io.BytesIO(data), headers=kind) as answer:
                assert answer.status == 201, await answer.text()
        kind = {"Content-Type": MANIFEST}
        async with http.put(f"/v2/{name}/manifests/{tag}", data=made.manifest, headers=kind) as answer:
            assert answer.status == 201, await answer.text()
            return answer.headers["Docker-Content-Digest"]


@dataclass
class Cutter:
    """A line to `upstream` (`host:port`): each connection breaks once `left` bytes in all have come back through it.

    `asked` holds the first line and the headers of each request that opened a connection.
    """

    upstream: str
    left: int | None = None
    asked: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        name, port = self.upstream.split(":")
        there, onward = await asyncio.open_connection(name, int(port))
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await asyncio.gather(self._up(reader, onward), self._down(there, writer))
        finally:
            self._tasks.discard(task)
            onward.close()
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.asked.append(data.decode("latin-1"))
            onward.write(data)
            await onward.drain()
        onward.close()

    async def _down(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            if self.left is not None:
                data = data[: self.left]
                self.left -= len(data)
            writer.write(data)
            await writer.drain()
            if self.left == 0:
                writer.close()
                raise ConnectionError("cut")
        writer.close()


class Background:
    """An `Origin` in a thread of its own, for tests whose set-up is not asynchronous."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.origin = Origin(files)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(60)

    @property
    def host(self) -> str:
        return self.origin.host

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        async with self.origin:
            self._ready.set()
            await self._end.wait()
