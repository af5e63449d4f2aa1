"""What needs the database and nothing else does, imported ahead: some 0.5 s that no loop should stand still for."""

from __future__ import annotations

import asyncio
from importlib import import_module

_OPERATIONS = (
    "corral.app.work",
    "corral.db.engine",
    "corral.operations.durable",
    "sqlalchemy.dialects.sqlite.aiosqlite",
)
_BOOKS = (
    "corral.routing.budgets",
    "corral.routing.treasury",
    "corral.observability.writing",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.dialects.sqlite.aiosqlite",
)
_WORKSPACE = (
    *_OPERATIONS,
    "corral.app.authoring",
    "corral.app.showing",
    "corral.app.workspace",
)


async def operations() -> None:
    """Import what operations need, in a thread; free of charge the second time."""
    await asyncio.to_thread(_load, _OPERATIONS)


async def books() -> None:
    """Import what budgets and usage need, likewise."""
    await asyncio.to_thread(_load, _BOOKS)


async def workspace() -> None:
    """Import what projects, pipelines and artifacts need, likewise."""
    await asyncio.to_thread(_load, _WORKSPACE)


def _load(modules: tuple[str, ...]) -> None:
    for name in modules:
        import_module(name)
