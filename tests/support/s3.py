"""An S3 server on loopback, and a line to it that can be cut."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import Callable
from typing import Self
from urllib.parse import quote

from moto.server import ThreadedMotoServer


class S3:
    """A server in memory, with one bucket. It serves from now on; `close` it."""

    def __init__(self, bucket: str = "yard") -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.bucket = bucket
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()
        self._ask("POST", "/moto-api/reset", b"")  # its memory is the process's, not the server's
        self._ask("PUT", f"/{bucket}", b"")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment of somebody who may use it."""
        return self.env_through(self.endpoint)

    def env_through(self, endpoint: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-somebody",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "PIP_CONFIG_FILE": "/dev/null",
        }

    def put(self, key: str, data: bytes) -> None:
        self._ask("PUT", f"/{self.bucket}/{quote(key)}", data)

    def get(self, key: str) -> bytes:
        return self._ask("GET", f"/{self.bucket}/{quote(key)}")

    def delete(self, key: str) -> None:
        self._ask("DELETE", f"/{self.bucket}/{quote(key)}")

    def held(self) -> list[str]:
        text = self._ask("GET", f"/{self.bucket}?list-type=2").decode()
        return sorted(item.partition("</Key>")[0] for item in text.split("<Key>")[1:])

    def uploads(self) -> int:
        """Uploads in pieces that were begun and neither completed nor given up."""
        return self._ask("GET", f"/{self.bucket}?uploads").decode().count("<Upload>")

    def close(self) -> None:
        self._server.stop()

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        signed = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        headers = {"Content-Type": "application/octet-stream", "Authorization": signed}
        request = urllib.request.Request(self.endpoint + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as reply:
            return reply.read()


class Line:
    """`async with Line(port) as line`: passes connections on to a port of loopback, and breaks them when told.

    `limit` is asked, with a connection's first bytes, how many bytes of the answers may pass; None is all.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.limit: Callable[[bytes], int | None] = lambda _: None
        self.cuts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            first = await reader.read(65536)
            while first:
                # One request at a time: what it may get back is decided by its head.
                left = self.limit(first)
                back.write(first)
                first = await self._exchange(reader, writer, there, back, left)
        except ConnectionError:
            pass
        finally:
            self._tasks.discard(task)
            for end in (writer, back):
                end.transport.abort()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        left: int | None,
    ) -> bytes:
        """Pass bytes both ways until the next request begins; its first bytes, or none when the line is cut."""
        answered = False
        up = asyncio.ensure_future(reader.read(65536))
        down = asyncio.ensure_future(there.read(65536))
        try:
            while True:
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
                if down.done():
                    data = down.result()
                    if left is not None and len(data) >= left:
                        writer.write(data[:left])
                        await writer.drain()
                        self.cuts += 1
                        return b""
                    if not data:
                        return b""
                    left = None if left is None else left - len(data)
                    answered = True
                    writer.write(data)
                    await writer.drain()
                    down = asyncio.ensure_future(there.read(65536))
                if up.done():
                    data = up.result()
                    if not data or answered:
                        return data
                    back.write(data)
                    await back.drain()
                    up = asyncio.ensure_future(reader.read(65536))
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
