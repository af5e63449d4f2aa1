"""A `Corral` of this process, as Python's classes have one: opened by their arguments, closed with their block."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from corral.app.corral import Corral
from corral.config import Settings, load
from corral.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


class Closing:
    """Is closed with its `async with` block."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of everything. Idempotent."""
        raise NotImplementedError


class Hosted(Closing):
    """Has a Corral, and lets its idle engines go while it is used. All calls belong to one event loop.

    Args:
        config: a configuration file instead of the usual places.
        settings: a configuration that has been read already.
        flags: dotted keys that win over file and environment.
        env: the environment; the process's own when None.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        settings: Settings | None = None,
        flags: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if settings is None:
            settings = load(env, flags, Path(config) if config is not None else None)
        self.corral = Corral(settings, env=env)
        self._idler: asyncio.Task[None] | None = None
        self._closed = False

    async def close(self) -> None:
        """Let work that goes on later rest, and stop every engine; nothing is loaded after that. Idempotent."""
        self._closed = True
        if self._idler is not None:
            self._idler.cancel()
            await asyncio.wait([self._idler])
            self._idler = None
        await self.corral.close()

    def _begin(self) -> None:
        """Be at work in this loop, from the first call on.

        Raises:
            Conflict: it is at work in another.
        """
        if self._idler is not None and self._idler.get_loop() is not asyncio.get_running_loop():
            name = type(self).__name__
            raise Conflict(f"This {name} belongs to another event loop.", "Do all of its work in one asyncio.run(...).")
        if self._idler is None and not self._closed:
            self._idler = asyncio.create_task(self.corral.supervisor.run(), name="idle engines")
