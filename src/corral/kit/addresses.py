"""Where a connection may lead: a host is resolved once, looked at, and connected to at the very address looked at.

Resolving for a look and again for the connection would let a name server answer differently the second time. So the
connector gets its addresses from here only (`Addresses` is its resolver), and here are only those that were looked at.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from corral.errors import AddressRefused, SourceError

if TYPE_CHECKING:
    from corral.domain.ports import Clock

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, best first. Raises OSError when it has none."""

_KEPT: Final = 60.0
"""Seconds for which a look counts. Later a name is resolved anew, and looked at anew."""

_PRIVATE_4 = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
_PRIVATE_6 = tuple(map(ip_network, ("fc00::/7", "fec0::/10")))
_NAT64 = ip_network("64:ff9b::/96")
_ODD_4 = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24")))
_ODD_6 = tuple(map(ip_network, ("3fff::/20", "5f00::/16")))
"""Set aside by IANA, and not known as such to every Python."""


class Zone(StrEnum):
    """What kind of network an address lies in."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    SPECIAL = "special"
    """Link-local (where clouds keep their secrets), multicast, reserved, unspecified."""


EVERYWHERE: Final = frozenset(Zone)
OUTSIDE: Final = frozenset({Zone.PUBLIC})


def zone(address: str) -> Zone:
    """The zone of a literal address; of an IPv6 address that stands for an IPv4 one, that one's.

    Raises:
        ValueError: it is no address.
    """
    return _zone(ip_address(address.partition("%")[0]))


def _zone(ip: IPv4Address | IPv6Address) -> Zone:
    if isinstance(ip, IPv6Address):
        inner = _inner(ip)
        if inner is not None:
            return _zone(inner)
        private, odd = _in(ip, _PRIVATE_6), _in(ip, _ODD_6)
    else:
        private, odd = _in(ip, _PRIVATE_4), _in(ip, _ODD_4)
    if ip.is_loopback:
        return Zone.LOOPBACK
    if private:
        return Zone.PRIVATE
    odd = odd or ip.is_multicast or ip.is_link_local or ip.is_reserved or ip.is_unspecified or not ip.is_global
    return Zone.SPECIAL if odd else Zone.PUBLIC


def _in(ip: IPv4Address | IPv6Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(ip in network for network in networks)


def _inner(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that traffic to `ip` ends up at: mapped, by NAT64, or by 6to4."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.sixtofour


def place(url: str) -> tuple[str, int]:
    """Host, in lower case and without brackets, and port of `url`, exactly as the connector reads them.

    Raises:
        SourceError: it has none.
    """
    try:
        parts = URL(url)
        host, port = parts.raw_host, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise SourceError("An address without a host cannot be fetched from.", "Check the address.")
    return host.lower(), port or 0


def named(url: str, hosts: Collection[str]) -> bool:
    """Whether `hosts` (`host` or `host:port`, as people write them) names the host of `url`."""
    host, port = place(url)
    bracketed = f"[{host}]" if ":" in host else host
    return any(item.lower() in {host, bracketed, f"{bracketed}:{port}"} for item in hosts)


def refused(host: str, port: int, kind: str) -> AddressRefused:
    """The error for a host that leads where nothing may be fetched from."""
    written = f"[{host}]" if ":" in host else host
    return AddressRefused(
        f"{written}:{port} is at a {kind} address, and nothing is fetched from there unasked.",
        f"If you mean it, allow it: CORRAL_SOURCES_ALLOW_PRIVATE={written}:{port}, "
        "or sources.allow_private in corral.yaml.",
    )


@dataclass(frozen=True, slots=True)
class _Pin:
    addresses: tuple[str, ...]
    until: float


async def system_lookup(host: str, port: int) -> list[str]:
    """The addresses of `host` as this machine resolves names."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class Addresses(AbstractResolver):
    """Resolves hosts, judges where they lead, and is the resolver of the connector, which learns nothing else."""

    def __init__(self, clock: Clock, lookup: Lookup = system_lookup) -> None:
        self._clock = clock
        self._lookup = lookup
        self._pins: dict[tuple[str, int], _Pin] = {}

    async def admit(self, host: str, port: int, zones: Collection[Zone]) -> Zone:
        """Let connections to the host lead to those of its addresses that lie in `zones`; the zone of the first.

        Raises:
            AddressRefused: it has no such address.
            OSError: it has no address at all.
        """
        addresses = await self._resolve(host, port)
        good = tuple(item for item in addresses if zone(item) in zones)
        if not good:
            raise refused(host, port, zone(addresses[0]).value)
        self._pins[host, port] = _Pin(good, self._pins[host, port].until)
        return zone(good[0])

    def forget(self, host: str, port: int) -> None:
        """Resolve the host anew the next time: its addresses did not answer."""
        self._pins.pop((host, port), None)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """What `admit` let pass. The connector asks; nothing is looked up for it."""
        pin = self._pins.get((host.lower(), port))
        if pin is None:
            raise OSError(None, f"{host} was not looked at")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in pin.addresses
        ]

    async def close(self) -> None:
        """Nothing is held open."""

    async def _resolve(self, host: str, port: int) -> tuple[str, ...]:
        pin = self._pins.get((host, port))
        if pin is None or pin.until <= self._clock.now():
            literal = _literal(host)
            found = (literal,) if literal is not None else tuple(await self._lookup(host, port))
            if not found:
                raise OSError(None, "it has no address")
            pin = self._pins[host, port] = _Pin(found, self._clock.now() + _KEPT)
        return pin.addresses


def _literal(host: str) -> str | None:
    """The address that `host` writes; None for a name.

    Also as only C libraries read it: `127.1`, `0x7f000001`, `2130706433` and `0177.0.0.1` are all 127.0.0.1.
    """
    bare = host.rstrip(".")
    try:
        ip_address(bare.partition("%")[0])
    except ValueError:
        try:
            return str(IPv4Address(socket.inet_aton(bare)))
        except (OSError, ValueError):  # ValueError: characters that are not ASCII
            return None
    return bare


def literal_zone(host: str) -> Zone | None:
    """The zone of a host that is itself an address, however it is written; None for a name."""
    address = _literal(host)
    return None if address is None else zone(address)
