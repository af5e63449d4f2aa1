"""The calls to an Ollama, with their answers checked: for models that run on one, and for containers that one is in."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeAlias

from corral.domain.ports import Progress, Report
from corral.errors import EngineError, EngineTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

CALL_TIMEOUT = 30.0

_MOST_LINE = 8 << 20
_MOST_REFUSAL = 64 << 10
_PIECE = 1 << 20
_MOST_BYTES = 1 << 53

Each: TypeAlias = "Callable[[Mapping[str, Any]], None]"


def _nobody(_: Mapping[str, Any]) -> None:
    """Told of what nobody wants to know."""


def whole(name: str) -> str:
    """A model's name with its tag, which is `latest` where none is said."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def entries(said: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The models that `/api/tags` or `/api/ps` lists, as far as they are any."""
    found = (said or {}).get("models")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


class OllamaApi:
    """The calls to an Ollama at `address`. Every one raises EngineError when it is not answered as hoped.

    `silence` is how long it may say nothing, in seconds, while it does what takes long: pulls, makes, reads.
    """

    def __init__(self, address: str, *, silence: float | None = None) -> None:
        self.address = address
        self._silence = silence

    async def call(
        self, method: str, path: str, body: Any = None, *, timeout: float | None = CALL_TIMEOUT, each: Each = _nobody
    ) -> dict[str, Any] | None:
        """The last object of the answer, `each` having been told of all; None to a 404. One with an error raises it."""
        import aiohttp
        from aiohttp.http_exceptions import HttpProcessingError  # a line without an end is one, and no ClientError

        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CALL_TIMEOUT, sock_read=self._silence)
        given: dict[str, Any] = {"json": body} if isinstance(body, dict) else {"data": body}
        said: dict[str, Any] = {}
        try:
            async with (
                aiohttp.ClientSession(timeout=limits, read_bufsize=_MOST_LINE) as client,
                client.request(method, f"{self.address}{path}", allow_redirects=False, **given) as answer,
            ):
                if answer.status == 404:
                    return None
                if answer.status >= 300:
                    raise _refused(path, answer.status, await answer.content.read(_MOST_REFUSAL))
                async for line in answer.content:
                    if line.strip():
                        said = _read(path, line)
                        each(said)
        except TimeoutError:
            raise EngineTimeout(f"Ollama at {self.address} did not answer {path} in time.") from None
        except HttpProcessingError as error:
            raise EngineError(f"Ollama at {self.address} did not answer {path} as it should.") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(f"Ollama at {self.address} did not answer {path}: {reason}.") from error
        return said

    async def version(self, timeout: float = CALL_TIMEOUT) -> str | None:
        """Its version; None where it tells none."""
        said = (await self.call("GET", "/api/version", timeout=timeout) or {}).get("version")
        return str(said)[:100] if said else None

    async def show(self, model: str) -> dict[str, Any] | None:
        """What it knows of a model; None when it does not have it."""
        return await self.call("POST", "/api/show", {"model": model})

    async def running(self, model: str) -> Mapping[str, Any] | None:
        """What `/api/ps` says of a model; None when it is not in memory."""
        said = await self.call("GET", "/api/ps")
        return next((entry for entry in entries(said) if entry.get("name") in (model, whole(model))), None)

    async def pull(self, model: str, report: Report) -> None:
        """Have it pulled, as long as that takes."""
        done: dict[str, tuple[int, int]] = {}

        def tell(said: Mapping[str, Any]) -> None:
            digest = said.get("digest")
            if isinstance(digest, str) and digest:
                done[digest] = (_bytes(said.get("completed")), _bytes(said.get("total")))
                have, total = (sum(pair[side] for pair in done.values()) for side in (0, 1))
                report(Progress("download", have, total, f"ollama pull {model}"))

        said = await self.call("POST", "/api/pull", {"model": model, "stream": True}, timeout=None, each=tell)
        if said is None or said.get("status") != "success":
            raise EngineError(f"Ollama could not pull the model {model!r}.", f"Try: ollama pull {model}")

    async def give(self, path: Path, digest: str) -> None:
        """Send a file, unless it has it. Takes as long as the file is large."""
        if await self.call("HEAD", f"/api/blobs/sha256:{digest}") is None:
            await self.call("POST", f"/api/blobs/sha256:{digest}", _pieces(path), timeout=None)

    async def create(self, model: str, what: Mapping[str, Any]) -> None:
        """Have a model made of blobs, or of another model, with parameters."""
        said = await self.call("POST", "/api/create", {"model": model, **what, "stream": True}, timeout=None)
        if said is None or said.get("status") != "success":
            raise EngineError(f"Ollama did not make the model {model!r}.", "Its own log may say why.")

    async def copy(self, model: str, name: str) -> None:
        """Have a model under a second name, which costs no bytes."""
        if await self.call("POST", "/api/copy", {"source": model, "destination": name}) is None:
            raise EngineError(f"Ollama has no model {model!r} to copy.")

    async def load(self, model: str, can: Sequence[str], keep_alive: float, timeout: float) -> None:
        """Load it: by a prompt, or a text to embed, that is empty."""
        path, body = "/api/generate", {"model": model, "keep_alive": keep_alive, "stream": False}
        if can and "completion" not in can:
            path, body = "/api/embed", {"model": model, "keep_alive": keep_alive, "input": ""}
        if await self.call("POST", path, body, timeout=timeout) is None:
            raise EngineError(f"Ollama no longer has the model {model!r}.", "Start it again.")

    async def unload(self, model: str, timeout: float) -> None:
        """Have it out of memory."""
        await self.call("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False}, timeout=timeout)

    async def delete(self, model: str) -> bool:
        """Have it removed; False when it is not there."""
        return await self.call("DELETE", "/api/delete", {"model": model}) is not None


def _read(path: str, line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise EngineError(f"Ollama's answer to {path} is no JSON.") from None
    if not isinstance(said, dict):
        raise EngineError(f"Ollama's answer to {path} is no object.")
    if "error" in said:
        raise EngineError(f"Ollama refused {path}: {said['error']}")
    return said


def _refused(path: str, status: int, text: bytes) -> EngineError:
    try:
        said = json.loads(text).get("error")
    except (ValueError, RecursionError, AttributeError):
        said = None
    return EngineError(f"Ollama refused {path}: {said or f'status {status}'}")


def _bytes(said: Any) -> int:
    return said if isinstance(said, int) and 0 < said <= _MOST_BYTES else 0


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while data := await asyncio.to_thread(file.read, _PIECE):
            yield data
