"""The server: Corral's own loop under uvicorn, on a socket that was bound, checked and claimed first."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import os
import secrets
import signal
import socket
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from corral import __version__
from corral.app import Corral
from corral.errors import AddressInUse, CorralError, ServerError
from corral.gateway.application import Gateway
from corral.gateway.auth import check_exposure
from corral.gateway.presence import Presence, claim
from corral.gateway.wire import Protocol, hurry, websocket
from corral.observability.logs import formatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corral.config import LogSettings, Settings


_TICKS_A_SECOND = 10  # of uvicorn's
_LOOKED_THROUGH = 15_000
"""New objects after which they are looked through for garbage. Those that the latest answers are remembered by
(`observability.usage.RECENT`) are fewer: they come and go without ever being looked through."""
_LARGEST_MESSAGE = 64 * 1024
"""Bytes of a message that a WebSocket takes; a larger one ends it."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket at `host`:`port`.

    Raises:
        AddressInUse: another program listens there.
        ServerError: the address is not this machine's, or not allowed to us.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ServerError(
            f"{host!r} is not an address of this machine: {error.strerror}.", "Check server.host."
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"Port {port} of {host} is in use by another program.", f"Take another: corral serve --port {port + 1}"
            ) from error
        raise ServerError(
            f"Cannot listen on {host}:{port}: {error.strerror}.", "Check server.host and server.port."
        ) from error
    listener.setblocking(False)
    return listener


async def check_bind(listener: socket.socket, corral: Corral) -> None:
    """Refuse an address that others can reach, unless somebody has a key.

    Raises:
        UnsafeBind: it is not loopback and there is no key.
        DatabaseError: whether there is one cannot be told.
    """
    address = listener.getsockname()[0].partition("%")[0]
    if not ipaddress.ip_address(address).is_loopback and not corral.settings.api_key:
        await corral.keys.refresh()
        check_exposure(address, corral.settings, corral.keys)


def url_of(listener: socket.socket) -> str:
    """Where a listening socket is reached, as a URL without a trailing slash."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Uvicorn, telling when it is up, and ending by return instead of by raising the signal once more."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], gateway: Gateway, patience: float) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._gateway = gateway
        self._patience = patience

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        taken = []
        # A terminal that closes says so by the signal that tells a service to read its configuration.
        hangup = self._stop if os.isatty(0) else self._gateway.reload
        wanted = {signal.SIGINT: self._stop, signal.SIGTERM: self._stop, signal.SIGHUP: hangup}
        for number, what in wanted.items():
            # Only the main thread may; elsewhere whoever started the loop ends the server by cancelling it.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, what)
                taken.append(number)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            hurry(self.server_state.connections, asyncio.get_running_loop().time(), self._patience)
        return await super().on_tick(counter)

    def _stop(self) -> None:
        """Stop once the answers under way have ended; asked again, end them."""
        if self.should_exit:
            for task in self.server_state.tasks:
                task.cancel()
        self._gateway.hush()
        self.should_exit = True


@contextlib.contextmanager
def logs(settings: LogSettings) -> Iterator[None]:
    """Write to standard error what Corral and uvicorn log, for the block's length.

    Of Corral from `log.level` on, of uvicorn warnings and errors; request lines are decided by `log.requests` alone.
    """
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    levels = {"corral": level, "corral.access": logging.INFO, "uvicorn": max(level, logging.WARNING)}
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.format))
    loggers = {logging.getLogger(name): value for name, value in levels.items()}
    before = {logger: logger.level for logger in loggers}
    writers = [logging.getLogger(name) for name in ("corral", "uvicorn")]
    for logger, value in loggers.items():
        logger.setLevel(value)
    for logger in writers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in writers:
            logger.removeHandler(handler)
        for logger, value in before.items():
            logger.setLevel(value)


def settle() -> None:
    """Spare what stays for as long as the server lives from being looked through for garbage, over and over.

    Modules and what they made at import are hundreds of thousands of objects. To look through them all, each time that
    some thousands of requests have left something to keep, costs more than anything that is done for a request. What
    requests leave behind is looked through less often, too: hardly any of it is garbage in a circle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_LOOKED_THROUGH, *gc.get_threshold()[1:])


async def serve(settings: Settings, on_ready: Callable[[str], None] = lambda _: None, **parts: Any) -> None:
    """Serve until SIGINT, SIGTERM or cancellation, then stop every engine. `on_ready` gets the URL once it answers.

    SIGHUP has the configuration read again, unless this runs in a terminal; so has every change of its file.

    Args:
        settings: the configuration.
        on_ready: called once, in the loop.
        parts: `env`, `clock` and `again` for `Corral`.

    Raises:
        AddressInUse, UnsafeBind, ServerRunning, NoPermission, ServerError: nothing was started.
    """
    with (
        logs(settings.log),
        claim(settings.home) as presence,
        contextlib.closing(listen(settings.server.host, settings.server.port)) as listener,
    ):
        url, token = url_of(listener), secrets.token_urlsafe(32)

        def ready() -> None:
            settle()
            presence.announce(Presence(url, os.getpid(), __version__, token))
            on_ready(url)

        corral = Corral(settings, **parts)
        try:
            await check_bind(listener, corral)
        except CorralError:
            await corral.close()
            raise
        gateway = Gateway(corral, token)
        config = uvicorn.Config(
            gateway,
            http=Protocol,
            interface="asgi3",
            ws=cast("type[asyncio.Protocol]", websocket),
            ws_max_size=_LARGEST_MESSAGE,
            ws_per_message_deflate=False,
            proxy_headers=False,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=2048,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(min(settings.server.shutdown_grace, 3600))),
        )
        server = _Server(config, ready, gateway, settings.server.request_timeout)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            gateway.hush()
            server.should_exit = True  # uvicorn itself would leave without telling the application
            await serving
            raise
