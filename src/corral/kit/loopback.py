"""One small request to an engine on this machine: health, properties, a command. More is a real client's business."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from corral.errors import UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_ANSWER = 4 * 1024 * 1024


async def get(url: str, headers: Mapping[str, str], timeout: float) -> tuple[int, bytes]:
    """The status and body of what lies at the plain-HTTP `url`; the whole may take `timeout` seconds.

    Raises:
        UpstreamUnreachable: no connection, or it was lost.
        UpstreamTimeout: it took too long.
        UpstreamProtocol: the answer is not HTTP, or over 4 MiB.
    """
    return await _ask("GET", url, headers, timeout)


async def post(url: str, headers: Mapping[str, str], timeout: float, body: bytes = b"") -> tuple[int, bytes]:
    """The status and body of the answer to a POST of JSON, or of nothing; otherwise as `get`."""
    kind = {"Content-Type": "application/json"} if body else {}
    return await _ask("POST", url, {**headers, **kind, "Content-Length": f"{len(body)}"}, timeout, body)


async def _ask(
    method: str, url: str, headers: Mapping[str, str], timeout: float, sent: bytes = b""
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.0", f"Host: {host}:{port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join((*lines, "", "")).encode("latin-1") + sent
    try:
        async with asyncio.timeout(timeout):
            return _parse(url, await _exchange(host, port, request))
    except TimeoutError:
        raise UpstreamTimeout(f"{url} did not answer within {timeout:g} s.") from None
    except OSError as error:
        raise UpstreamUnreachable(f"{url} cannot be reached: {error.strerror or error}.") from error


async def _exchange(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        answer = bytearray()
        while (data := await reader.read(65536)) and len(answer) <= _MAX_ANSWER:
            answer += data
        return bytes(answer)
    finally:
        writer.transport.abort()


def _parse(url: str, answer: bytes) -> tuple[int, bytes]:
    head, end, body = answer.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    if not end or not version.startswith(b"HTTP/") or not rest[:3].isdigit() or len(answer) > _MAX_ANSWER:
        raise UpstreamProtocol(f"{url} did not answer in HTTP.")
    return int(rest[:3]), body
