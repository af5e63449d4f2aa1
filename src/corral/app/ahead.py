"""What operations need and nothing else does, imported ahead: some 0.5 s that no loop should stand still for."""

from __future__ import annotations

import asyncio
from importlib import import_module

_MODULES = ("corral.app.work", "corral.db.engine", "corral.operations.durable", "sqlalchemy.dialects.sqlite.aiosqlite")


async def operations() -> None:
    """Import all of it, in a thread; free of charge the second time."""
    await asyncio.to_thread(_load)


def _load() -> None:
    for name in _MODULES:
        import_module(name)
