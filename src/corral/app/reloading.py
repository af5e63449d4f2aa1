"""A configuration that changes while Corral runs: read anew, and taken over as far as it can be."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from corral.config import Settings
from corral.errors import CorralError
from corral.routing import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.app.corral import Corral

_log = logging.getLogger("corral.server")

_WATCHED_EVERY = 1.0
"""Seconds."""
_AT_ONCE = frozenset(
    {
        "engines",
        "runtimes",
        "models",
        "routes",
        "routing",
        "prices",
        "groups",
        "services",
        "containers",
        "docker",
        "file",
        "origins",
        "warnings",
    }
)
"""What is taken over while Corral runs; anything else when it starts the next time."""

Mark = tuple[int, int, int]


class Reloading:
    """Takes over a changed configuration.

    `problem` is why the last change was not taken over; None when it was.

    Args:
        corral: what is configured.
        read: reads the configuration again, as it was read the first time.
    """

    def __init__(self, corral: Corral, read: Callable[[], Settings]) -> None:
        self._corral = corral
        self._read = read
        self._mark = self._look()
        self.problem: CorralError | None = None

    async def watch(self) -> None:
        """Take over each change of the file, until cancelled. One that cannot be is logged, and all stays as it was."""
        while True:
            await self._corral.clock.sleep(_WATCHED_EVERY)
            mark = await asyncio.to_thread(self._look)
            if mark != self._mark and mark is not None:
                self._mark = mark
                try:
                    await self.reload()
                except CorralError as error:
                    _log.error("the changed configuration is not taken over: %s", error)

    async def reload(self) -> list[str]:
        """Read the configuration and take it over; returns what takes effect only when Corral starts again.

        Raises:
            CorralError: it cannot be used; all stays as it was.
        """
        corral, mark = self._corral, await asyncio.to_thread(self._look)
        try:
            fresh = await asyncio.to_thread(self._read)
            self._check(fresh)
        except CorralError as error:
            self.problem = error
            raise
        self.problem, self._mark = None, mark
        old = corral.settings
        kept = {item.name: getattr(old, item.name) for item in fields(Settings) if item.name not in _AT_ONCE}
        later = sorted(name for name, value in kept.items() if value != getattr(fresh, name))
        corral.take_over(replace(fresh, **kept))
        for name in later:
            _log.warning("the changed %s takes effect when Corral is started again", name)
        _log.info("the changed configuration is in use")
        await corral.exchange.go_by_the_rules()
        corral.exchange.look()
        return later

    def _check(self, settings: Settings) -> None:
        """Refuse a model whose runtime does not exist, routes that lead nowhere, and containers that cannot be."""
        models = settings.models
        if settings.containers:
            from corral.app.contained import endpoints
            from corral.fleet import desired

            desired.all_wanted(settings, self._corral.env)
            models = {**endpoints(settings, self._corral.env)[0], **models}
        layout.lay(settings.routes, models)
        for entry in settings.models.values():
            if entry.runtime is not None:
                self._corral.runtimes[entry.runtime]

    def _look(self) -> Mark | None:
        """What tells whether the file has changed; None while there is none."""
        file = self._corral.settings.file
        if file is None:
            return None
        try:
            found = file.stat()
        except OSError:  # it is being replaced, or gone: what was read stays
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
