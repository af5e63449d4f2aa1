"""Who listens on a port of this machine: said before a service is started, where it would be a riddle afterwards."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from corral.errors import AddressInUse
from corral.kit import lineage

_PATIENCE = 1.0


async def refuse_taken(service: str, host: str, port: int | None) -> None:
    """See to it that nobody listens where the service would.

    Raises:
        AddressInUse: somebody does; says who, where that can be told.
    """
    if port is None or not await answers(host, port):
        return
    who = await asyncio.to_thread(holder, port)
    raise AddressInUse(
        f"{service!r} cannot start: its port {port} is in use" + (f" by {who}." if who else "."),
        f"Stop that, or give the service another: services.{service}.options.port.",
    )


async def answers(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection(reached(host), port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


def reached(host: str) -> str:
    """The address of this machine by which one that listens on `host` is reached; every address is loopback's, too."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — compared, nothing is bound


def holder(port: int) -> str | None:
    """The process that listens on `port`, as `name (process 123)`; None when it cannot be told. Blocks."""
    listening = lineage.listeners(port)
    if not listening:
        return None
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        held = lineage.sockets([int(entry.name)])
        if held and held & listening:
            with suppress(OSError):
                return f"{(entry / 'comm').read_text().strip()} (process {entry.name})"
    return None
