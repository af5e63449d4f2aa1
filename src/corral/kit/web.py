"""HTTP to indexes, hubs and whatever else has a URL: proxies, certificates and logins as this machine has them.

No secret is in a message, and none follows a redirect to another origin. Redirects are followed here, one hop at a
time, and each is judged as the first address was:

    guarded      every address must be public, unless `Access.private` names its host
    otherwise    the address asked for is as trusted as whoever configured it; a redirect leads to public addresses, or
                 stays in the kind of network (private, loopback) that it comes from
"""

from __future__ import annotations

import asyncio
import netrc
import random
import ssl
from base64 import b64encode
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import gaierror
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from corral.errors import AddressRefused, ConfigError, LoginRequired, SourceError, SourceNotFound
from corral.kit.addresses import (
    EVERYWHERE,
    OUTSIDE,
    Addresses,
    Zone,
    literal_zone,
    named,
    place,
    refused,
    system_lookup,
)
from corral.kit.disk import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from corral.config.settings import SourceSettings
    from corral.domain.ports import Clock
    from corral.kit.addresses import Lookup

_LEAST_SPEED = 1000
_STALLS = 4
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 30.0
_READ_BUFFER = 1 << 20
_MOST_HOPS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})


class Transient(SourceError):
    """A failure that another try may not meet. `after`: seconds the server asked for, if it did."""

    def __init__(self, message: str, hint: str = "", *, after: float | None = None) -> None:
        super().__init__(message, hint)
        self.after = after


@dataclass(frozen=True, slots=True)
class Access:
    """How this machine reaches the network.

    `ca` is a file or folder of certificates, None for the system's. `proxies` maps a scheme to a proxy's URL, with `no`
    for the hosts to reach directly. `trusted` hosts (`host` or `host:port`) may have any certificate or none. `timeout`
    is the seconds allowed to connect and, unless `stall` says otherwise, between two runs of bytes; `retries` is how
    often a failure is tried again. `private` hosts may be at private addresses and unencrypted; when `guarded`, only
    they may. Through a proxy it is the proxy that resolves names: then only literal addresses are judged here.
    """

    ca: Path | None = None
    client_cert: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    netrc: Path | None = None
    trusted: frozenset[str] = frozenset()
    timeout: float = 15.0
    retries: int = 5
    stall: float | None = None
    private: frozenset[str] = frozenset()
    guarded: bool = False

    def within(self, sources: SourceSettings, *, guarded: bool) -> Access:
        """The same with patience, and hosts that may be private, as the settings `sources` say."""
        return replace(
            self,
            stall=sources.stall_timeout,
            retries=sources.retries,
            private=frozenset(sources.allow_private),
            guarded=guarded,
        )


def shown(url: str) -> str:
    """`url` as a message may show it: no login, no query (it may be signed), no fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def local_path(url: str) -> Path | None:
    """The path that a `file:` URL names; None for other schemes."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


class Patience:
    """How often and how long to wait before trying again: exponential, with jitter, reset by progress."""

    def __init__(self, clock: Clock, retries: int, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._retries = retries
        self._jitter = jitter
        self._failures = 0

    def progressed(self) -> None:
        """Something arrived: count from the start again."""
        self._failures = 0

    async def wait(self, error: Transient) -> None:
        """Pause before another try.

        Raises:
            Transient: `error` itself, when it was tried often enough.
        """
        self._failures += 1
        if self._failures > self._retries:
            raise error
        pause = min(_LONGEST_PAUSE, 0.25 * 2**self._failures) * (0.5 + self._jitter() / 2)
        await self._clock.sleep(min(_LONGEST_PAUSE, error.after) if error.after is not None else pause)


class Pace:
    """Whether what arrives is worth waiting for: less than a kilobyte a second is as good as nothing.

    Judged over windows of four times the time that a connection may be silent, two minutes unless it is set otherwise,
    so that no network that works at all is given up: a server that sends one byte now and then would hold its place in
    the queue for ever.
    """

    def __init__(self, clock: Clock, access: Access, held: int = 0) -> None:
        self._clock = clock
        self._window = _STALLS * (access.timeout if access.stall is None else access.stall)
        self._begun, self._held = clock.now(), held

    def check(self, held: int, what: str) -> None:
        """So many bytes are held now, of `what`.

        Raises:
            Transient: since the window began there came too few.
        """
        if not 0 < self._window <= self._clock.now() - self._begun:
            return
        if not self.progressed(held):
            raise Transient(
                f"{what} sent less than {_LEAST_SPEED} bytes a second for {self._window:g} seconds.",
                "Try again; what arrived is kept.",
            )

    def progressed(self, held: int) -> bool:
        """Whether enough came since this was last so; if it did, a new window begins."""
        now = self._clock.now()
        if held <= self._held or held - self._held < _LEAST_SPEED * (now - self._begun):
            return False
        self._begun, self._held = now, held
        return True


class Web:
    """A pool of connections, used as `async with Web(access, clock) as web`. `logins` may be shared between several.

    `lookup` resolves names; the system does by default.
    """

    def __init__(
        self, access: Access, clock: Clock, logins: dict[str, str] | None = None, lookup: Lookup = system_lookup
    ) -> None:
        self.access = access
        self.clock = clock
        self._logins = {} if logins is None else logins
        self._addresses = Addresses(clock, lookup)
        self._verified: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # trust_env is off: it would read this process's environment, and ours is passed in.
        access = self.access
        stall = access.timeout if access.stall is None else access.stall
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=access.timeout, sock_read=stall)
        connector = aiohttp.TCPConnector(resolver=self._addresses, use_dns_cache=False)
        self._session = aiohttp.ClientSession(
            timeout=timeout, read_bufsize=_READ_BUFFER, trust_env=False, connector=connector
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def patience(self) -> Patience:
        """A fresh count of tries."""
        return Patience(self.clock, self.access.retries)

    def pace(self, held: int = 0) -> Pace:
        """A fresh look at how fast something arrives of which `held` bytes are there."""
        return Pace(self.clock, self.access, held)

    def remember(self, url: str) -> str:
        """Keep the login that `url` carries for all of its host's URLs; the URL without it."""
        parts = urlsplit(url)
        login, at, host = parts.netloc.rpartition("@")
        if not at:
            return url
        user, _, password = login.partition(":")
        self._logins[f"{parts.scheme}://{host}"] = _basic(unquote(user), unquote(password))
        return urlunsplit(parts._replace(netloc=host))

    @asynccontextmanager
    async def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        secret: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for `url` and yield the answer of whatever status; one try. Redirects are followed, a few.

        The headers in `secret`, and any login, go to the origin of `url` and to no other. `reply.url` is where the
        answer came from.

        Raises:
            Transient: no connection, a stall, a reply that broke off, also inside the block.
            AddressRefused: an address that is not safe to use.
            SourceError: a certificate that cannot be trusted, redirects without end.
        """
        url = self.remember(url)
        reply, here = await self._follow(url, {**(headers or {})}, secret or {}, method)
        try:
            yield reply
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._translated(error, here) from error
        finally:
            reply.release()

    async def _follow(
        self, url: str, headers: dict[str, str], secret: Mapping[str, str], method: str
    ) -> tuple[aiohttp.ClientResponse, str]:
        """The first answer that is no redirect, and where it came from."""
        plain = {key: value for key, value in headers.items() if key.lower() not in _SECRET}
        open_ = headers | dict(secret)
        login = self._login(url)
        if login is not None:
            open_ = {"Authorization": login} | open_
        here, before = url, None
        for _ in range(_MOST_HOPS + 1):
            try:
                before = await self._admit(here, url, before)
                reply = await self._ask(method, here, open_ if _origin(here) == _origin(url) else plain)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._translated(error, here) from error
            onward = reply.headers.get("Location")
            if reply.status not in _REDIRECTS or onward is None:
                return reply, here
            reply.release()
            here = _joined(here, onward)
        raise SourceError(f"{shown(url)} redirects in a circle, or more than {_MOST_HOPS} times.", "Check the address.")

    async def _ask(self, method: str, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("use `async with Web(…) as web`")
        return await self._session.request(
            method, url, headers=headers, allow_redirects=False, ssl=await self._tls(url), proxy=self._proxy(url)
        )

    async def _admit(self, here: str, first: str, before: Zone | None) -> Zone:
        """Let the next connection go to `here`, reached from `first` by way of a host in the zone `before`.

        Returns the zone that `here` lies in.

        Raises:
            SourceError: it must not.
        """
        self._refuse_unsafe(here, first)
        host, port = place(here)
        if named(here, self.access.private) or self._trusts(here):
            zones = EVERYWHERE
        elif self.access.guarded:
            zones = OUTSIDE
        elif before is None or place(first)[0] == host:
            zones = EVERYWHERE
        else:
            zones = OUTSIDE | ({before} & {Zone.PRIVATE, Zone.LOOPBACK})
        proxy = self._proxy(here)
        async with asyncio.timeout(self.access.timeout or None):
            if proxy:
                found = literal_zone(host) or (Zone.LOOPBACK if _is_loopback(host) else Zone.PUBLIC)
                if found not in zones:
                    raise refused(host, port, found.value)
                await self._addresses.admit(*place(proxy), EVERYWHERE)
                return found
            return await self._addresses.admit(host, port, zones)

    def _refuse_unsafe(self, url: str, first: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme not in {"http", "https"}:
            raise SourceError(f"{shown(url)!r} is not a web address.", "Use an https address.")
        allowed = named(url, self.access.private) or self._trusts(url)
        downgraded = first.startswith("https:")
        if scheme == "https" or allowed or (_is_loopback(place(url)[0]) and not downgraded):
            return
        where = urlsplit(url).netloc.rpartition("@")[2]
        raise AddressRefused(
            f"{shown(url)} is not encrypted, and {where} is not trusted.",
            f"Use https, or allow it: CORRAL_SOURCES_ALLOW_PRIVATE={where}"
            if self.access.guarded
            else f"Use https, or trust it as pip does: pip config set global.trusted-host {where}",
        )

    def _translated(self, error: Exception, url: str) -> SourceError:
        if isinstance(error, aiohttp.ClientConnectorError | TimeoutError):
            self._addresses.forget(*place(url))
        stalled = self.access.stall if isinstance(error, aiohttp.SocketTimeoutError) else None
        return _translate(error, url, self.access.timeout if stalled is None else stalled)

    def _trusts(self, url: str) -> bool:
        return named(url, self.access.trusted)

    async def _tls(self, url: str) -> ssl.SSLContext | bool:
        if not url.startswith("https:"):
            return True
        if self._trusts(url):
            return False
        if self._verified is None:
            self._verified = await in_thread(self._load_certificates)
        return self._verified

    def _load_certificates(self) -> ssl.SSLContext:
        ca, client = self.access.ca, self.access.client_cert
        where: dict[str, str] = {} if ca is None else {"capath" if ca.is_dir() else "cafile": str(ca)}
        try:
            context = ssl.create_default_context(**where)  # type: ignore[arg-type]  # mypy offers the str to cadata, too
            if client is not None:
                context.load_cert_chain(client)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"The certificates in {ca or client} cannot be read: {error}.", "See: pip config list"
            ) from error
        return context

    def _proxy(self, url: str) -> str | None:
        parts = urlsplit(url)
        proxies = self.access.proxies
        if goes_direct(parts.hostname or "", parts.port, proxies.get("no", "")):
            return None
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        return proxy if not proxy or "://" in proxy else f"http://{proxy}"

    def _login(self, url: str) -> str | None:
        parts = urlsplit(url)
        known = self._logins.get(f"{parts.scheme}://{parts.netloc}")
        if known is not None or self.access.netrc is None or parts.hostname is None:
            return known
        with suppress(OSError, netrc.NetrcParseError):
            found = netrc.netrc(self.access.netrc).authenticators(parts.hostname)
            if found is not None:
                return _basic(found[0] or "", found[2] or "")
        return None


def judge(reply: aiohttp.ClientResponse, url: str) -> None:
    """Let a success pass.

    Raises:
        SourceNotFound: nothing lies there.
        LoginRequired: it wants to know who asks, or does not let them in.
        Transient: the server has a problem that may pass.
        SourceError: it refuses.
    """
    if reply.status < 400:
        return
    what = f"{shown(url)} answered {reply.status}"
    if reply.status in {404, 410}:
        raise SourceNotFound(f"{what}: there is no such thing.")
    if reply.status in {401, 403, 407}:
        raise LoginRequired(f"{what}: it wants a login.", "Put one in ~/.netrc or in the address, as for pip.")
    if reply.status in _WORTH_RETRYING:
        asked = reply.headers.get("Retry-After", "")
        raise Transient(f"{what}.", "Try again later.", after=float(asked) if asked.isdecimal() else None)
    raise SourceError(f"{what}.", "Check the address.")


def goes_direct(host: str, port: int | None, exceptions: str) -> bool:
    """Whether `exceptions`, written as in NO_PROXY, names `host`: itself, a domain it lies in, a network, or `*`."""
    for item in (part.strip().lower() for part in exceptions.split(",")):
        name, _, of_port = item.rpartition(":") if item.count(":") == 1 else (item, "", "")
        if not name or (of_port and of_port != str(port)):
            continue
        if name == "*" or host == name.lstrip(".") or host.endswith("." + name.lstrip("*.")):
            return True
        with suppress(ValueError):
            if ip_address(host) in ip_network(name, strict=False):
                return True
    return False


def _origin(url: str) -> tuple[str, str, int]:
    return (urlsplit(url).scheme, *place(url))


def _joined(here: str, onward: str) -> str:
    """Where a redirect leads; a login in it is not taken from whoever redirects."""
    try:
        target = URL(here).join(URL(onward)).with_fragment(None)
        return str(target.with_user(None) if target.raw_host else target)
    except ValueError as error:
        raise SourceError(f"{shown(here)} redirects to what is no address.", "Try again later.") from error


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return host is not None
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return False


_REASONS: tuple[tuple[type[Exception], type[SourceError], str, str], ...] = (
    (
        aiohttp.ClientConnectorCertificateError,
        SourceError,
        "The certificate of {where} cannot be trusted.",
        "Name your certificates as for pip: pip config set global.cert FILE, or SSL_CERT_FILE.",
    ),
    (aiohttp.InvalidURL, SourceError, "{where} is not an address.", "Check the address."),
    (TimeoutError, Transient, "{where} sent nothing for {timeout:g} seconds.", "Try again; what arrived is kept."),
    (
        aiohttp.ClientProxyConnectionError,
        Transient,
        "The proxy for {where} cannot be reached: {why}.",
        "Check HTTPS_PROXY or pip's proxy setting.",
    ),
    (aiohttp.ClientHttpProxyError, SourceError, "The proxy for {where} refused.", "Check the proxy's login."),
    (
        aiohttp.ClientConnectorError,
        Transient,
        "{where} cannot be reached: {why}.",
        "Check the address and the network.",
    ),
    (gaierror, Transient, "{where} cannot be reached: its name is not known.", "Check the address and the network."),
    (aiohttp.ClientPayloadError, Transient, "{where} broke off in the middle.", "Try again; what arrived is kept."),
)


def _translate(error: Exception, url: str, timeout: float) -> SourceError:
    """The error to show for a failed exchange with `url`: never the library's own text, which may carry a login."""
    why = error.os_error.strerror or "no connection" if isinstance(error, aiohttp.ClientConnectorError) else ""
    for kind, result, text, hint in _REASONS:
        if isinstance(error, kind):
            return result(text.format(where=shown(url), timeout=timeout, why=why), hint)
    return Transient(f"The exchange with {shown(url)} failed ({type(error).__name__}).", "Try again later.")
