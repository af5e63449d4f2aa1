"""The upstream client over TLS and through proxies, on both loops. Certificates come from the `openssl` command."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest
import uvloop

from corral.errors import ConfigError, UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from corral.kit import proxy
from corral.kit.upstream import Origin, Target, Timeouts, Upstream

PATIENT = Timeouts(connect=20, first_byte=20, between=20)
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make certificates with")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end in a loop of the kind, within a minute."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, 60))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A folder with a certificate for localhost, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:far.example"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@asynccontextmanager
async def listening(handler, context=None):
    """A server on a port of its own; yields the port."""
    tasks = set()

    async def accept(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def secure_server(certificate):
    """A TLS server; yields its port and the list of names that clients asked for."""
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.sni_callback = lambda _, name, __: names.append(name)

    async def handler(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HELLO)

    async with listening(handler, context) as port:
        yield port, names


@asynccontextmanager
async def proxy_to(port, heads, refusal=b""):
    """A proxy that notes what it is asked for, passes tunnels on to `port`, and answers plain requests itself."""

    async def handler(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            heads.append(head)
            if refusal:
                writer.write(refusal)
                await writer.drain()
                await reader.read()
            elif head.startswith(b"CONNECT"):
                break
            else:
                writer.write(HELLO)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.transport.abort()

    async with listening(handler) as own:
        yield own


async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def client(**environ):
    upstream = Upstream(environ)
    try:
        yield upstream
    finally:
        await upstream.close()


async def hello(upstream, url):
    response = await upstream.request(Target.of(url), "POST", "/chat", timeouts=PATIENT)
    return await response.read()


def test_tls_is_verified_names_the_server_and_is_kept_open(run, certificate):
    async def main():
        async with secure_server(certificate) as (port, names):
            async with client(SSL_CERT_FILE=str(certificate / "cert.pem")) as upstream:
                for _ in range(2):
                    assert await hello(upstream, f"https://localhost:{port}") == b"hello"
                assert names == ["localhost"]
                with pytest.raises(UpstreamUnreachable, match=r"is not trusted: .*IP address mismatch"):
                    await hello(upstream, f"https://127.0.0.1:{port}")
            async with client() as upstream:
                with pytest.raises(UpstreamUnreachable, match="is not trusted: self") as caught:
                    await hello(upstream, f"https://localhost:{port}")
                assert "SSL_CERT_FILE" in caught.value.hint

    run(main())


def test_a_server_without_tls_and_a_file_without_certificates(run, certificate, tmp_path):
    async def handler(reader, writer):
        await reader.read(100)
        writer.write(HELLO)
        await reader.read()

    async def main():
        async with listening(handler) as port:
            async with client() as upstream:
                with pytest.raises(UpstreamUnreachable, match="No TLS with"):
                    await hello(upstream, f"https://localhost:{port}")
            async with client(SSL_CERT_FILE=str(tmp_path / "none.pem")) as upstream:
                with pytest.raises(ConfigError, match=r"none.pem"):
                    await hello(upstream, f"https://localhost:{port}")

    run(main())


def test_a_server_that_does_not_shake_hands_times_out(run):
    async def handler(reader, writer):
        await reader.read()

    async def main():
        async with listening(handler) as port, client() as upstream:
            target = Target.of(f"https://localhost:{port}")
            with pytest.raises(UpstreamTimeout, match=r"No connection to .* within 0.05 s"):
                await upstream.request(target, "GET", "/", timeouts=Timeouts(connect=0.05))

    run(main())


def test_plain_requests_go_to_the_proxy_in_absolute_form(run):
    async def main():
        heads = []
        async with proxy_to(0, heads) as port, client(http_proxy=f"http://u:s3cret@127.0.0.1:{port}") as upstream:
            for _ in range(2):
                assert await hello(upstream, "http://far.example:8080/v1") == b"hello"
            lines = heads[1].split(b"\r\n")
            assert lines[0] == b"POST http://far.example:8080/v1/chat HTTP/1.1"
            assert b"host: far.example:8080" in lines
            assert b"proxy-authorization: Basic dTpzM2NyZXQ=" in lines

    run(main())


def test_tls_goes_through_the_proxy_in_a_tunnel(run, certificate):
    async def main():
        heads = []
        async with secure_server(certificate) as (port, names), proxy_to(port, heads) as through:
            environ = {
                "HTTPS_PROXY": f"http://u:s3cret@127.0.0.1:{through}",
                "SSL_CERT_FILE": f"{certificate}/cert.pem",
            }
            async with client(**environ) as upstream:
                for _ in range(2):
                    assert await hello(upstream, "https://far.example/v1") == b"hello"
            assert names == ["far.example"]
            assert len(heads) == 1
            lines = heads[0].split(b"\r\n")
            assert lines[0] == b"CONNECT far.example:443 HTTP/1.1"
            assert b"proxy-authorization: Basic dTpzM2NyZXQ=" in lines

    run(main())


@pytest.mark.parametrize(
    ("refusal", "error", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", UpstreamUnreachable, "refused .*: 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno", UpstreamUnreachable, "refused .*: 502"),
        (b"SSH-2.0\r\n\r\n", UpstreamProtocol, "as a proxy does"),
        (b"HTTP/1.1 200 OK\r\n\r\nsmuggled", UpstreamProtocol, "as a proxy does"),
        (b"x" * 100_000, UpstreamProtocol, "as a proxy does"),
    ],
)
def test_a_proxy_that_refuses(run, refusal, error, said):
    async def main():
        async with (
            proxy_to(0, [], refusal) as port,
            client(HTTPS_PROXY=f"http://u:s3cret@127.0.0.1:{port}") as upstream,
        ):
            with pytest.raises(error, match=said) as caught:
                await hello(upstream, "https://far.example")
            assert "s3cret" not in str(caught.value)

    run(main())


def test_a_proxy_that_is_not_there_is_named(run):
    async def main():
        async with listening(pump) as port:
            pass
        async with client(ALL_PROXY=f"http://u:s3cret@127.0.0.1:{port}") as upstream:
            with pytest.raises(UpstreamUnreachable, match=rf"through the proxy 127.0.0.1:{port}") as caught:
                await hello(upstream, "http://far.example")
            assert "s3cret" not in str(caught.value)

    run(main())


def test_an_origin_shows_no_secret():
    origin = Origin(Target.of("http://far.example"), proxy.Proxy("p", 1, b"Basic s3cret"), 1, 1)
    assert b"s3cret" in origin.secret
    assert "s3cret" not in repr(origin) + repr(origin.proxy)
