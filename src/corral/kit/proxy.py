"""Which proxy, if any, stands between us and an address, and the tunnel through it.

The environment's usual variables are read from a mapping that is passed in: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`
and `NO_PROXY`, lower-case spelling first. Loopback never goes through a proxy, whatever the variables say: an engine
of this machine cannot be reached from a proxy, and its key must not travel to one.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from corral.errors import ConfigError, UpstreamProtocol, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

_REPLY_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `authorization` is the value for Proxy-Authorization, empty when there is none; never shown."""

    host: str
    port: int
    authorization: bytes = field(default=b"", repr=False)


def choose(environ: Mapping[str, str], host: str, port: int, *, tls: bool) -> Proxy | None:
    """The proxy for an address, by the environment; None goes straight there.

    Raises:
        ConfigError: the variable's value is not an `http://` address.
    """
    if is_loopback(host) or _excepted(environ, host, port):
        return None
    for name in ("https_proxy" if tls else "http_proxy", "all_proxy"):
        for spelling in (name, name.upper()):
            if spelling in environ:
                return _parse(spelling, environ[spelling]) if environ[spelling] else None
    return None


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


async def open_tunnel(proxy: Proxy, host: bytes) -> asyncio.Transport:
    """A transport that reaches `host` (`name:port`) through the proxy, by CONNECT; the caller starts TLS on it.

    Raises:
        OSError: the proxy could not be reached.
        UpstreamUnreachable: the proxy refused.
        UpstreamProtocol: it did not answer as a proxy.
    """
    loop = asyncio.get_running_loop()
    transport, greeting = await loop.create_connection(lambda: _Greeting(loop), proxy.host, proxy.port)
    status, through = 0, False
    try:
        secret = b"proxy-authorization: %b\r\n" % proxy.authorization if proxy.authorization else b""
        transport.write(b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (host, host, secret))
        status = await greeting.status
        through = 200 <= status < 300
    finally:
        if not through:
            transport.abort()
    where = f"{proxy.host}:{proxy.port}"
    if not status:
        raise UpstreamProtocol(f"The proxy {where} did not answer as a proxy does.")
    if not through:
        hint = "Put the user and password into the proxy's address." if status == 407 else ""
        raise UpstreamUnreachable(f"The proxy {where} refused to connect to {host.decode()}: {status}.", hint)
    return transport


class _Greeting(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT. `status` is 0 when that is no HTTP, or more than its head came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status: asyncio.Future[int] = loop.create_future()
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= _REPLY_LIMIT:
            return
        # A server speaks second in TLS: whatever follows the head of a success came from someone else.
        version, _, rest = bytes(self._head[:end]).partition(b" ")
        code = rest[:3]
        good = end >= 0 and version.startswith(b"HTTP/1.") and code.isdigit()
        if good and code.startswith(b"2") and end + 4 != len(self._head):
            good = False
        self._say(int(code) if good else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._say(0)

    def _say(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)


def _parse(name: str, value: str) -> Proxy:
    parts = urlsplit(value if "://" in value else f"http://{value}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        shown = value.rpartition("@")[2]  # never the credentials
        raise ConfigError(f"{name} is {shown!r}, which is no HTTP proxy.", "Write it as http://HOST:PORT.")
    secret = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        secret = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(parts.hostname, port, secret)


def _excepted(environ: Mapping[str, str], host: str, port: int) -> bool:
    host = host.rstrip(".").lower()
    address = _address(host)
    for entry in environ.get("no_proxy", environ.get("NO_PROXY", "")).lower().split(","):
        name = entry.strip()
        if name == "*":
            return True
        bare, _, wanted = name.rpartition(":")
        if wanted.isdigit() and bare and (":" not in bare or bare.endswith("]")):
            if int(wanted) != port:
                continue
            name = bare
        if name and (_in_network(address, name) if address else _in_domain(host, name)):
            return True
    return False


def _in_domain(host: str, name: str) -> bool:
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith("." + name))


def _in_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, name: str) -> bool:
    try:
        return address in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
