"""Corral's own server in the process of a benchmark."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from corral.gateway.application import Gateway


@asynccontextmanager
async def served(flags: Mapping[str, Any]) -> AsyncIterator[tuple[str, Gateway]]:
    """The address of a Corral with this configuration, and what answers there, for the block's length."""
    import uvicorn

    from corral.app import Corral
    from corral.config import load
    from corral.gateway.application import Gateway
    from corral.gateway.server import listen, url_of

    listener = listen("127.0.0.1", 0)
    gateway = Gateway(Corral(load(flags=flags)))
    config = uvicorn.Config(
        gateway, interface="asgi3", http="httptools", ws="none", lifespan="on", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield url_of(listener), gateway
    finally:
        server.should_exit = True
        await serving
