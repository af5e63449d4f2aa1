"""HTTP/1.1 as far as a fake engine needs it, and the ways to break it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


PAGE = b"<!DOCTYPE html><html><body><h1>Under maintenance</h1></body></html>\n"
_HALFWAY = frozenset(("truncate", "cut", "stall"))


class CutError(Exception):
    """The connection was dropped on purpose."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `path` without the query, `headers` in lower case, `body` as parsed JSON or None."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    keep_alive: bool


class Wire:
    """One connection's answers. `streaming` once a stream has begun."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.streaming = False

    async def whole(
        self, value: dict[str, Any], status: int = 200, extra: dict[str, str] | None = None, broken: str = ""
    ) -> None:
        """A JSON answer; `truncate`, `cut` and `stall` stop halfway, and other faults are told by `_spoilt`."""
        kind, data = _spoilt(json.dumps(value).encode(), broken)
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(data)), **(extra or {})})
        self._writer.write(data[: len(data) // 2] if broken in _HALFWAY else data)
        await self._writer.drain()
        if broken == "stall":
            await asyncio.get_running_loop().create_future()
        if broken == "cut":
            self.cut()
        if broken == "truncate":
            self._writer.close()

    async def stream(self, chunks: AsyncGenerator[bytes, None], kind: str = "text/event-stream") -> None:
        """A stream of the given content type, each chunk sent when it comes."""
        self.streaming = True
        self._head(200, {"Content-Type": kind, "Transfer-Encoding": "chunked"})
        await self._writer.drain()
        async with aclosing(chunks):
            async for chunk in chunks:
                self._writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                await self._writer.drain()
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        self.streaming = False

    async def raw(self, data: bytes) -> None:
        """Bytes as they are, and the end of the connection."""
        self._writer.write(data)
        await self._writer.drain()
        self._writer.close()

    def cut(self) -> NoReturn:
        """Drop the connection in the middle of an answer."""
        self._writer.transport.abort()
        raise CutError

    def _head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Status", "Server: fake", *(f"{name}: {value}" for name, value in headers.items())]
        self._writer.write("\r\n".join((*lines, "", "")).encode("latin-1"))


def _spoilt(data: bytes, broken: str) -> tuple[str, bytes]:
    """The content type and the bytes of a whole answer with a fault in it."""
    if broken == "untyped":
        return "text/plain", data
    if broken == "html":
        return "text/html", PAGE
    if broken == "half":
        return "application/json", data[: len(data) // 2]
    return "application/json", b"" if broken == "empty" else data


async def read_request(reader: asyncio.StreamReader, ahead: bytes) -> Request | None:
    """The next request, whose first bytes may already be read; None when the client has ended the connection."""
    try:
        head = ahead + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial and not ahead:
            return None
        raise
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raw = await _read_body(reader, headers)
    connection = headers.get("connection", "").lower()
    keep = connection != "close" and (version == "HTTP/1.1" or connection == "keep-alive")
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = raw.decode(errors="replace")
    return Request(method, urlsplit(target).path, headers, body, keep)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass
    return bytes(body)
