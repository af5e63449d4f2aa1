"""The server's hand for operations: one that does them, once there are any, and costs nothing before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from corral.app import ahead

if TYPE_CHECKING:
    from pathlib import Path

    from corral.app import Corral
    from corral.operations.durable import Operations


class Workshop:
    """Where the server's operations are done. The database is opened when one is asked for, or was left unfinished.

    `leaving` is set when the server is about to stop: whoever streams to a client then ends.
    """

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._wanted = asyncio.Event()
        self._loading = asyncio.Lock()
        self._loaded = False
        self.leaving = asyncio.Event()
        corral.catalog.opened = self._wanted.set

    async def open(self) -> Operations:
        """The operations of this home, which are at work from now on. The first call takes some 0.5 s, in a thread.

        Raises:
            ConfigError: the database that is configured cannot be meant.
        """
        async with self._loading:
            if not self._loaded:
                await ahead.operations()
                self._loaded = True
        self._wanted.set()
        return self._corral.catalog.operations

    async def look(self) -> Operations | None:
        """The operations of this home; None when there has never been one, which is not worth a database."""
        if self._loaded or self._corral.settings.database.url or self._file.exists():
            return await self.open()
        return None

    async def run(self) -> None:
        """Do what waits, and what an earlier server left, until cancelled; what is at work then the next one does."""
        if bool(self._corral.settings.database.url) or await asyncio.to_thread(unfinished, self._file):
            await self.open()
        await self._wanted.wait()
        await (await self.open()).run()

    @property
    def _file(self) -> Path:
        return self._corral.settings.home / "corral.db"


def unfinished(file: Path) -> bool:
    """Whether the database in `file` has operations that have not ended; also when that cannot be told. Blocks."""
    if not file.exists():
        return False
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            found = database.execute("SELECT 1 FROM operations WHERE ended_at IS NULL LIMIT 1").fetchone()
            return found is not None
    except sqlite3.Error:
        return True  # whoever opens it properly finds out
