"""The small GET that asks an engine for its health."""

import asyncio

import pytest

from corral.errors import UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from corral.kit import loopback


@pytest.fixture
async def serve():
    """Serves one fixed answer on loopback, or none; tells the address."""
    servers, asked = [], []

    async def start(answer):
        async def respond(reader, writer):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    start.asked = asked
    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_it_brings_status_and_body(serve):
    url = await serve(b"HTTP/1.1 404 Not Found\r\nX: y\r\n\r\n{}\r\n\r\nmore")
    assert await loopback.get(f"{url}/health", {"Authorization": "Bearer k"}, 30) == (404, b"{}\r\n\r\nmore")
    assert serve.asked[0].startswith(b"GET /health HTTP/1.0\r\n")
    assert b"\r\nAuthorization: Bearer k\r\n" in serve.asked[0]


@pytest.mark.parametrize("answer", [b"", b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_what_is_not_http_is_said_to_be_so(serve, answer):
    with pytest.raises(UpstreamProtocol):
        await loopback.get(await serve(answer), {}, 30)


async def test_an_endless_answer_is_cut(serve):
    url = await serve(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (5 * 1024 * 1024))
    with pytest.raises(UpstreamProtocol):
        await loopback.get(url, {}, 30)


async def test_silence_has_an_end(serve):
    with pytest.raises(UpstreamTimeout, match=r"within 0\.1 s"):
        await loopback.get(await serve(None), {}, 0.1)


async def test_nobody_there_is_said(serve):
    with pytest.raises(UpstreamUnreachable):
        await loopback.get("http://127.0.0.1:1/", {}, 30)
