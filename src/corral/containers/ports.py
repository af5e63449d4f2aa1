"""Who has a port of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.domain.containers import Port, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened at


def containers_with(port: Port, seen: Sequence[Seen], but: str) -> list[str]:
    """Containers that run with the port, all but the one of id `but`; by name, and whose they are."""
    return [
        f"the container {other.container}{f' of the Corral {other.yard}' if other.yard else ''}"
        for other in seen
        if other.running and other.id != but and any(_meet(port, theirs) for theirs in other.ports)
    ]


def programs_with(port: Port) -> list[str]:
    """Programs that listen at the port, by name and process; those of others may be hidden from us. Blocks."""
    import psutil

    found = []
    try:
        listening = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # as on macOS, without root
        return []
    for each in listening:
        if each.status != psutil.CONN_LISTEN or not each.laddr:
            continue
        if not _meet(port, Port(0, each.laddr.port, each.laddr.ip)):
            continue
        try:
            name = psutil.Process(each.pid).name() if each.pid else ""
        except psutil.Error:
            name = ""
        found.append(f"the program {name} (process {each.pid})" if name else "a program of another user")
    return sorted(set(found))


def _meet(one: Port, other: Port) -> bool:
    """Whether two cannot be published at once."""
    if one.outside != other.outside:
        return False
    return one.host == other.host or one.host in _ANY or other.host in _ANY
