"""A web server on loopback that serves files with ranges, and misbehaves exactly as told."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Asked:
    """A request as it arrived; header names in lower case."""

    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass
class Reply:
    """What to answer. `body` is sent as it is, whatever the headers say; `after` is awaited before hanging up."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    after: Callable[[], Awaitable[object]] | None = None


class Origin:
    """`async with Origin(files) as origin`: serves `files` by path; `tamper` may answer a request itself."""

    def __init__(self, files: Mapping[str, bytes] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.files = dict(files or {})
        self.asked: list[Asked] = []
        self.tamper: Callable[[Asked], Reply | None] = lambda _: None
        self.ranges = True
        self.types = {".html": "text/html", ".json": "application/vnd.pypi.simple.v1+json"}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
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

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def asked_for(self, end: str) -> list[Asked]:
        return [item for item in self.asked if item.path.endswith(end)]

    def serve(self, asked: Asked) -> Reply:
        """The honest answer."""
        body = self.files.get(asked.path)
        if body is None:
            return Reply(404, {"Content-Length": "0"})
        kind = next((kind for end, kind in self.types.items() if asked.path.endswith(end)), "application/octet-stream")
        kind = "text/html" if asked.path.endswith("/") and not body.startswith(b"{") else kind
        kind = self.types[".json"] if asked.path.endswith("/") and body.startswith(b"{") else kind
        headers = {"Content-Type": kind, "ETag": '"one"'}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.range or "") if self.ranges else None
        if match is None or asked.headers.get("if-range", '"one"') != '"one"':
            return Reply(200, {**headers, "Content-Length": str(len(body))}, body)
        start = int(match[1]) if match[1] else max(0, len(body) - int(match[2]))
        end = min(int(match[2]), len(body) - 1) if match[1] and match[2] else len(body) - 1
        if start >= len(body):
            return Reply(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        return Reply(206, {**headers, "Content-Length": str(end - start + 1)}, body[start : end + 1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        asked = Asked(first.split(" ")[1], {key.lower(): text for key, text in pairs})
        self.asked.append(asked)
        reply = self.tamper(asked) or self.serve(asked)
        head = f"HTTP/1.1 {reply.status} X\r\n"
        head += "".join(f"{key}: {text}\r\n" for key, text in {**reply.headers, "Connection": "close"}.items())
        writer.write(head.encode() + b"\r\n")
        if isinstance(reply.body, bytes):
            writer.write(reply.body)
        else:
            async for data in reply.body:
                writer.write(data)
                await writer.drain()
        await writer.drain()
        if reply.after is not None:
            await reply.after()


class ThreadedOrigin:
    """An `Origin` with a thread and loop of its own, for whoever has none. It serves from now on; `close` it."""

    def __init__(self, files: Mapping[str, bytes] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.origin = Origin(files, tls)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.origin.__aenter__(), self.loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.origin.__aexit__(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def html(*files: tuple[str, bytes], host: str = "", digest: Callable[[bytes], str]) -> dict[str, bytes]:
    """An index in HTML with those wheels."""
    return {
        **{f"/files/{name}": data for name, data in files},
        **{
            f"/simple/{name.split('-')[0].replace('_', '-')}/": (
                f'<!DOCTYPE html><a href="{host}/files/{name}#sha256={digest(data)}">{name}</a>'
            ).encode()
            for name, data in files
        },
    }
