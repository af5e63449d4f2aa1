"""The calls to an Ollama that the runtime makes, with their answers checked."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeAlias

from corral.domain.ports import Progress, Report
from corral.errors import EngineError, EngineStartFailed, EngineTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

CALL_TIMEOUT = 30.0

_MOST_LINE = 8 << 20
_PIECE = 1 << 20

Each: TypeAlias = "Callable[[Mapping[str, Any]], None]"


def _nobody(_: Mapping[str, Any]) -> None:
    """Told of what nobody wants to know."""


class Daemon:
    """The calls to an Ollama that are needed here. Every one raises EngineError when it is not answered as hoped."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def call(
        self, method: str, path: str, body: Any = None, *, timeout: float | None = CALL_TIMEOUT, each: Each = _nobody
    ) -> dict[str, Any] | None:
        """The last object of the answer, `each` having been told of all; None to a 404. One with an error raises it."""
        import aiohttp

        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CALL_TIMEOUT)
        given: dict[str, Any] = {"json": body} if isinstance(body, dict) else {"data": body}
        said: dict[str, Any] = {}
        try:
            async with (
                aiohttp.ClientSession(timeout=limits, read_bufsize=_MOST_LINE) as client,
                client.request(method, f"{self.address}{path}", **given) as answer,
            ):
                if answer.status == 404:
                    return None
                if answer.status >= 400:
                    raise _refused(path, answer.status, await answer.text())
                async for line in answer.content:
                    if line.strip():
                        said = _read(path, line)
                        each(said)
        except TimeoutError:
            raise EngineTimeout(f"Ollama at {self.address} did not answer {path} in time.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(f"Ollama at {self.address} did not answer {path}: {reason}.") from error
        return said

    async def show(self, model: str) -> dict[str, Any] | None:
        """What it knows of a model; None when it does not have it."""
        return await self.call("POST", "/api/show", {"model": model})

    async def running(self, model: str) -> dict[str, Any] | None:
        """What `/api/ps` says of a model; None when it is not in memory."""
        said = await self.call("GET", "/api/ps") or {}
        full = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
        return next((entry for entry in said.get("models") or () if entry.get("name") in (model, full)), None)

    async def pull(self, model: str, report: Report) -> None:
        """Have it pulled, as long as that takes."""
        done: dict[str, tuple[int, int]] = {}

        def tell(said: Mapping[str, Any]) -> None:
            if said.get("digest"):
                done[said["digest"]] = (int(said.get("completed") or 0), int(said.get("total") or 0))
                have, whole = (sum(pair[side] for pair in done.values()) for side in (0, 1))
                report(Progress("download", have, whole, f"ollama pull {model}"))

        said = await self.call("POST", "/api/pull", {"model": model, "stream": True}, timeout=None, each=tell)
        if said is None or said.get("status") != "success":
            raise EngineStartFailed(f"Ollama could not pull the model {model!r}.", f"Try: ollama pull {model}")

    async def give(self, path: Path, digest: str) -> None:
        """Send a file, unless it has it. Takes as long as the file is large."""
        if await self.call("HEAD", f"/api/blobs/sha256:{digest}") is None:
            await self.call("POST", f"/api/blobs/sha256:{digest}", _pieces(path), timeout=None)

    async def create(self, model: str, what: Mapping[str, Any]) -> None:
        """Have a model made of blobs, or of another model, with parameters."""
        said = await self.call("POST", "/api/create", {"model": model, **what, "stream": True}, timeout=None)
        if said is None or said.get("status") != "success":
            raise EngineStartFailed(f"Ollama did not make the model {model!r}.", "Its own log may say why.")

    async def load(self, model: str, can: Sequence[str], keep_alive: float, timeout: float) -> None:
        """Load it: by a prompt, or a text to embed, that is empty."""
        path, body = "/api/generate", {"model": model, "keep_alive": keep_alive, "stream": False}
        if can and "completion" not in can:
            path, body = "/api/embed", {"model": model, "keep_alive": keep_alive, "input": ""}
        if await self.call("POST", path, body, timeout=timeout) is None:
            raise EngineStartFailed(f"Ollama no longer has the model {model!r}.", "Start it again.")

    async def unload(self, model: str, timeout: float) -> None:
        """Have it out of memory."""
        await self.call("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False}, timeout=timeout)

    async def delete(self, model: str) -> None:
        """Remove what was made for one engine."""
        await self.call("DELETE", "/api/delete", {"model": model})


def _read(path: str, line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        raise EngineError(f"Ollama's answer to {path} is no JSON.") from None
    if not isinstance(said, dict):
        raise EngineError(f"Ollama's answer to {path} is no object.")
    if "error" in said:
        raise EngineError(f"Ollama refused {path}: {said['error']}")
    return said


def _refused(path: str, status: int, text: str) -> EngineError:
    try:
        said = json.loads(text).get("error")
    except (ValueError, AttributeError):
        said = None
    return EngineError(f"Ollama refused {path}: {said or f'status {status}'}")


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while data := await asyncio.to_thread(file.read, _PIECE):
            yield data
