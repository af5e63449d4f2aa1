"""Corral's own HTTP client for engines and vendors: pooled keep-alive connections, streams with back-pressure.

Used for inference alone, where it is several times as fast as a general client (docs/decisions/0007). Everything else
goes through aiohttp.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NewType
from urllib.parse import urlsplit

from corral.errors import ConfigError, InvalidRequest, UpstreamTimeout, UpstreamUnreachable
from corral.kit import proxy
from corral.kit.http1 import Connection, Timeouts
from corral.kit.response import Header, Response
from corral.kit.upload import PIECE, Whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corral.kit.upload import Upload

__all__ = ["Block", "Header", "Response", "Target", "Timeouts", "Upstream", "block"]

Block = NewType("Block", bytes)
"""Request headers, checked and encoded once by `block`, to be sent many times."""

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OWN = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect"))
_LINE = re.compile(r"[A-Z]+ /[\x21-\x7e]*")
_DEFAULTS = Timeouts()


@lru_cache(maxsize=1024)
def _line(method: str, path: str) -> tuple[bytes, bytes]:
    """What a request begins with, up to its address, and its path.

    Raises:
        InvalidRequest: that cannot be asked for.
    """
    if not _LINE.fullmatch(f"{method} {path}"):
        raise InvalidRequest(f"The path {path[:200]!r} cannot be asked for.")
    return b"%b " % method.encode(), path.encode()


def unsent(error: UpstreamTimeout) -> bool:
    """Whether the time passed before anything was sent: while a connection was waited for or made.

    Such an error has the loop's own, or the operating system's, for its cause; one of an open connection has none.
    """
    return error.__cause__ is not None


def block(headers: Iterable[Header]) -> Block:
    """The headers as they are sent.

    Raises:
        InvalidRequest: a name or value that cannot be sent, or a name that is the client's own, such as
        content-length.
    """
    lines = []
    for name, value in headers:
        if not _NAME.fullmatch(name) or name.lower() in _OWN:
            raise InvalidRequest(f"A header called {name[:80]!r} cannot be sent upstream.")
        if _BAD_VALUE.search(value):
            raise InvalidRequest(f"The value of the header {name.decode()!r} has a line break or control character.")
        lines.append(b"%b: %b\r\n" % (name, value))
    return Block(b"".join(lines))


@dataclass(frozen=True, slots=True)
class Target:
    """An address to send requests to, with all that is the same for each of them worked out once: see `of`."""

    address: str
    host: str
    port: int
    tls: bool
    authority: bytes
    prefix: bytes
    head: bytes = field(repr=False)

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str] | None = None) -> Target:
        """The target for a base URL such as `https://api.example.com/v1`; `headers` go with every request.

        Raises:
            ConfigError: not such an address.
            InvalidRequest: a header that cannot be sent.
        """
        shown = url.rpartition("@")[2]
        hint = "Write it as http://HOST:PORT/PATH."
        parts = urlsplit(url)
        try:
            port = parts.port
            name = parts.hostname or ""
            host = name if ":" in name else name.encode("idna").decode()
        except ValueError as error:
            raise ConfigError(f"{shown!r} is not an address.", hint) from error
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
            raise ConfigError(f"{shown!r} is not an address.", hint)
        if parts.username is not None or parts.password is not None:
            raise ConfigError(f"The address {shown!r} carries credentials.", "Give them as a key or header instead.")
        path = parts.path.rstrip("/")
        if path and not _LINE.fullmatch(f"GET {path}"):
            raise ConfigError(f"{shown!r} is not an address.", hint)
        tls = parts.scheme == "https"
        standard = 443 if tls else 80
        bracketed = f"[{host}]" if ":" in host else host
        authority = bracketed if port in {None, standard} else f"{bracketed}:{port}"
        own = [(key.lower().encode(), _encoded(key, value)) for key, value in (headers or {}).items()]
        if not any(key == b"user-agent" for key, _ in own):
            own.insert(0, (b"user-agent", b"corral"))
        return cls(
            address=f"{parts.scheme}://{bracketed}:{port or standard}",
            host=host,
            port=port or standard,
            tls=tls,
            authority=authority.encode(),
            prefix=path.encode(),
            head=b" HTTP/1.1\r\nhost: %b\r\n%b" % (authority.encode(), block(own)),
        )


def _encoded(name: str, value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The value of the header {name!r} has characters that HTTP cannot carry.") from error


class Origin:
    """The connections to one address: a stack of idle ones, and a queue of requests when all are busy."""

    __slots__ = (
        "_limit",
        "_open",
        "_waiting",
        "address",
        "closed",
        "connections",
        "idle",
        "keep_alive",
        "lead",
        "proxy",
        "secret",
    )

    def __init__(self, target: Target, through: proxy.Proxy | None, limit: int, keep_alive: float) -> None:
        self.address = target.address
        self.keep_alive = keep_alive
        self.proxy = through
        self.lead = b""
        self.secret = b""
        if through is not None and not target.tls:
            self.lead = b"http://" + target.authority
            if through.authorization:
                self.secret = b"proxy-authorization: %b\r\n" % through.authorization
        self.idle: list[Connection] = []
        self.connections: set[Connection] = set()
        self.closed = False
        self._limit = limit
        self._open = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()

    def release(self, connection: Connection) -> None:
        """Hand a connection that can carry another request to whoever waits longest, or keep it."""
        if self.closed:
            connection.abort()
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                connection.reused = True
                turn.set_result(connection)
                return
        self.idle.append(connection)
        connection.rest()

    def discard(self, connection: Connection) -> None:
        """Count out a closed connection, and let the next in the queue open another."""
        if connection in self.connections:
            self.connections.discard(connection)
            if connection.reused and connection in self.idle:
                self.idle.remove(connection)
            self.free()

    def free(self) -> None:
        """Give up the right to have a connection open."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._open -= 1

    async def turn(self, seconds: float, *, first: bool) -> Connection | None:
        """A connection that has become free, or None with the right to open one; in the order of asking.

        Raises:
            UpstreamTimeout: none became free in time.
        """
        if self._open < self._limit:
            self._open += 1
            return None
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(turn)
        try:
            async with asyncio.timeout(seconds):
                return await turn
        except TimeoutError as error:
            self._give_up(turn)
            raise UpstreamTimeout(f"No connection to {self.address} became free within {seconds:g} s.") from error
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def _give_up(self, turn: asyncio.Future[Connection | None]) -> None:
        if turn.done() and not turn.cancelled():  # it was given in the same turn of the loop
            connection = turn.result()
            if connection is None:
                self.free()
            elif connection.alive:
                self.release(connection)

    def close(self, *, busy: bool) -> None:
        """Close the idle connections, and when `busy` those at work too; none is kept from now on."""
        self.closed = True
        for connection in list(self.connections if busy else self.idle):
            connection.abort()


class Upstream:
    """An HTTP/1.1 client that keeps connections open and hands on bodies as they arrive.

    Belongs to the loop it is used in. A request on a connection from the pool that turns out to be dead before a byte
    came back is sent once more on a fresh connection; nothing else is ever sent twice. At most `limit` connections to
    one address; further requests wait in the order they came. Idle connections are closed after `keep_alive` seconds,
    or sooner if the other side says so.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, *, limit: int = 1024, keep_alive: float = 60.0
    ) -> None:
        self._environ = dict(environ or {})
        self._limit = limit
        self._keep_alive = keep_alive
        self._origins: dict[str, Origin] = {}
        self._tls: ssl.SSLContext | None = None

    async def request(
        self,
        target: Target,
        method: str,
        path: str,
        *,
        headers: Iterable[Header] | Block = Block(b""),
        body: bytes | Upload = b"",
        timeouts: Timeouts = _DEFAULTS,
    ) -> Response:
        """Send a request to `path` below the target, and return the answer when its head is there.

        When cancelled, the connection is closed and the other side sees that.

        Raises:
            UpstreamUnreachable: no connection, or it was lost before an answer.
            UpstreamTimeout: a time-out passed.
            UpstreamProtocol: the answer is not HTTP as it should be.
            InvalidRequest: the path, a header or the body cannot be sent.
        """
        lead, line = _line(method, path)
        extra = headers if isinstance(headers, bytes) else block(headers)
        origin = self._origins.get(target.address) or self._origin(target)
        now, large = (body, None) if isinstance(body, bytes) else (b"", body)
        if len(now) > PIECE:
            now, large = b"", Whole(now)
        size = len(now) if large is None else large.size
        length = b"content-length: %d\r\n" % size if size or method != "GET" else b""
        data = b"".join(
            (
                lead,
                origin.lead,
                target.prefix,
                line,
                target.head,
                origin.secret,
                extra,
                length,
                b"\r\n",
                now,
            )
        )
        connection = origin.idle.pop() if origin.idle else await self._connect(target, origin, timeouts)
        while True:
            answer = connection.ask(data, timeouts, bodiless=method == "HEAD")
            try:
                if large is not None:
                    await connection.upload(large)
                return await answer
            except UpstreamUnreachable:
                if connection.heard or not connection.reused:
                    raise
            except (asyncio.CancelledError, InvalidRequest):
                if answer.done() and not answer.cancelled():
                    answer.exception()  # both in one turn of the loop: nobody else will look at it
                connection.abort()
                raise
            connection = await self._connect(target, origin, timeouts, fresh=True)

    def forget(self, target: Target) -> None:
        """Close the idle connections to the target's address: its engine is gone. Answers under way go on."""
        origin = self._origins.pop(target.address, None)
        if origin is not None:
            origin.close(busy=False)

    async def close(self) -> None:
        """Close every connection, those at work too, and see them gone. Idempotent."""
        origins, self._origins = list(self._origins.values()), {}
        for origin in origins:
            origin.close(busy=True)
        await asyncio.sleep(0)  # the transports say goodbye in the next turn of the loop

    def _origin(self, target: Target) -> Origin:
        through = proxy.choose(self._environ, target.host, target.port, tls=target.tls)
        return self._origins.setdefault(target.address, Origin(target, through, self._limit, self._keep_alive))

    async def _connect(self, target: Target, origin: Origin, timeouts: Timeouts, *, fresh: bool = False) -> Connection:
        """A connection to ask on: one that becomes free, or a new one; always a new one when `fresh`."""
        given = await origin.turn(timeouts.first_byte, first=fresh)
        while given is not None and (fresh or not given.alive):
            given.abort()
            given = await origin.turn(timeouts.first_byte, first=True)
        if given is not None:
            return given
        connection = None
        try:
            async with asyncio.timeout(timeouts.connect):
                connection = await self._open(target, origin)
        except OSError as error:
            raise _translated(error, target, origin, timeouts) from error
        finally:
            if connection is None:
                origin.free()
        origin.connections.add(connection)
        return connection

    async def _open(self, target: Target, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(origin, loop)
        through = origin.proxy
        if not target.tls:
            host, port = (through.host, through.port) if through else (target.host, target.port)
            await loop.create_connection(lambda: connection, host, port)
            return connection
        if self._tls is None:
            self._tls = await asyncio.to_thread(self._trust)
        context = self._tls
        if through is None:
            await loop.create_connection(lambda: connection, target.host, target.port, ssl=context)
            return connection
        tunnel = await proxy.open_tunnel(through, target.address.partition("://")[2].encode())
        secured = await loop.start_tls(tunnel, connection, context, server_hostname=target.host)
        if secured is None:
            raise ConnectionResetError("closed in the TLS handshake")
        connection.connection_made(secured)
        return connection

    def _trust(self) -> ssl.SSLContext:
        """The certificates to trust: the system's, or those that SSL_CERT_FILE and SSL_CERT_DIR name."""
        file, folder = self._environ.get("SSL_CERT_FILE"), self._environ.get("SSL_CERT_DIR")
        try:
            context = ssl.create_default_context(cafile=file or None, capath=folder or None)
        except OSError as error:
            hint = "Point SSL_CERT_FILE to a file of certificates in PEM form."
            raise ConfigError(f"The certificates at {file or folder!r} cannot be read: {error}.", hint) from error
        context.set_alpn_protocols(["http/1.1"])
        return context


def _translated(
    error: OSError, target: Target, origin: Origin, timeouts: Timeouts
) -> UpstreamUnreachable | UpstreamTimeout:
    where = target.address
    if origin.proxy is not None:
        where += f" (through the proxy {origin.proxy.host}:{origin.proxy.port})"
    if isinstance(error, TimeoutError):
        return UpstreamTimeout(f"No connection to {where} within {timeouts.connect:g} s.")
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "If the certificate is your own, point SSL_CERT_FILE to the authority that signed it."
        return UpstreamUnreachable(f"The certificate of {where} is not trusted: {error.verify_message}", hint)
    if isinstance(error, ssl.SSLError):
        return UpstreamUnreachable(
            f"No TLS with {where}: {error.reason or error}.", "Is it http:// rather than https://?"
        )
    return UpstreamUnreachable(f"Cannot connect to {where}: {error.strerror or error}.", "Is it running?")
