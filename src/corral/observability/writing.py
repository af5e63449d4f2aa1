"""Rows and sums into the database, in one transaction, and out of it again when they are old.

A batch is written whole or not at all. Whether one was written though its commit was never confirmed is told by its
rows, so a batch that is tried again counts once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, tuple_

from corral.db.tables import usage, usage_days, usage_hours
from corral.observability.sums import COLUMNS, DAY, HOUR, MEASURES, Row, Sums, merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_AT_ONCE = 500
"""Rows of one statement to SQLite, which has room for 32,766 values. In one statement, since between two the driver's
thread would ask the loop's for the interpreter each time."""
_LOOKED_UP = 200
_PLACES = 40
"""Sums of one statement."""

_KEY = ("bucket", "key", "project", "model", "runtime")
_TYPES = {
    **dict.fromkeys(("attempt", "status"), "integer"),
    **dict.fromkeys(("input", "output", "cached", "cache_write", "reasoning", "cost"), "bigint"),
    **dict.fromkeys(("at", "wait_ms", "first_ms", "total_ms"), "double precision"),
}
_UNNEST = ", ".join(f"${number}::{_TYPES.get(name, 'text')}[]" for number, name in enumerate(COLUMNS, 1))
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_INSERT = f"INSERT INTO usage ({_NAMES})"
_ONE = f"({', '.join('?' * len(COLUMNS))})"
_ONCE = "ON CONFLICT DO NOTHING"
_SINGLE = f"{_INSERT} VALUES {_ONE} {_ONCE}"
_MANY = f"{_INSERT} VALUES {', '.join([_ONE] * _AT_ONCE)} {_ONCE}"
_COLUMNS = f"{_INSERT} SELECT * FROM unnest({_UNNEST}) {_ONCE}"  # noqa: S608  # our own names
_GROW = {name: f'"{name}" = {{table}}."{name}" + excluded."{name}"' for name in MEASURES}


@dataclass(slots=True)
class Batch:
    """What is written at once. `tried`: once before, and nobody knows whether it was written."""

    rows: list[Row] = field(default_factory=list)
    hours: Sums = field(default_factory=dict)
    tried: bool = False


async def write(connection: AsyncConnection, batch: Batch, *, again: bool) -> None:
    """Write a batch within the transaction of `connection`; where it is done `again`, unless it is there already.

    Raises:
        SQLAlchemyError: it cannot be written; the transaction must be rolled back.
    """
    if again and batch.rows and await _known(connection, batch.rows):
        return
    if batch.rows:
        await (_to_postgresql if connection.dialect.name == "postgresql" else _to_sqlite)(connection, batch.rows)
    await _grow(connection, usage_hours.name, batch.hours)
    await _grow(connection, usage_days.name, merge({}, batch.hours, DAY))


async def _known(connection: AsyncConnection, rows: Sequence[Row]) -> bool:
    """Whether the rows are there: all of them, since a batch is written whole."""
    some = [row[:2] for row in rows[:_LOOKED_UP]]
    query = select(func.count()).select_from(usage).where(tuple_(usage.c.request_id, usage.c.attempt).in_(some))
    return bool(await connection.scalar(query))


async def _to_sqlite(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    whole = len(rows) // _AT_ONCE * _AT_ONCE
    for start in range(0, whole, _AT_ONCE):
        values = tuple(chain.from_iterable(rows[start : start + _AT_ONCE]))
        await connection.exec_driver_sql(_MANY, values)
    if whole < len(rows):
        await connection.exec_driver_sql(_SINGLE, list(rows[whole:]))


async def _to_postgresql(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    columns = tuple(list(column) for column in zip(*rows, strict=True))
    await connection.exec_driver_sql(_COLUMNS, columns)


async def _grow(connection: AsyncConnection, table: str, sums: Sums) -> None:
    """Add `sums` to a table of sums. In order: of two processes, neither waits for the other's."""
    rows = [(*place, *sums[place]) for place in sorted(sums)]
    for start in range(0, len(rows), _PLACES):
        some = rows[start : start + _PLACES]
        values = tuple(chain.from_iterable(some))
        await connection.exec_driver_sql(_upsert(table, len(some), connection.dialect.name), values)


def _upsert(table: str, count: int, dialect: str) -> str:
    names, width = (*_KEY, *MEASURES), len(_KEY) + len(MEASURES)
    marks = [
        ", ".join(f"${row * width + column + 1}" if dialect == "postgresql" else "?" for column in range(width))
        for row in range(count)
    ]
    grow = ", ".join(each.format(table=table) for each in _GROW.values())
    return (
        f"INSERT INTO {table} ({', '.join(chr(34) + name + chr(34) for name in names)}) "  # noqa: S608  # our own names
        f"VALUES {', '.join(f'({mark})' for mark in marks)} "
        f"ON CONFLICT ({', '.join(chr(34) + name + chr(34) for name in _KEY)}) DO UPDATE SET {grow}"
    )


async def prune(connection: AsyncConnection, before: float, most: int, at_once: int) -> bool:
    """Delete at most `at_once` of the single rows from before `before` (Unix seconds) or beyond the newest `most`.

    Whether there are more.
    """
    newest = await connection.scalar(select(func.max(usage.c.number)))
    if newest is None:
        return False
    old = select(usage.c.number).where(usage.c.at < before).order_by(usage.c.at).limit(at_once)
    done: Any = await connection.execute(delete(usage).where(usage.c.number.in_(old)))
    if done.rowcount >= at_once:
        return True
    over = select(usage.c.number).where(usage.c.number <= newest - most).order_by(usage.c.number).limit(at_once)
    done = await connection.execute(delete(usage).where(usage.c.number.in_(over)))
    return bool(done.rowcount >= at_once)


async def prune_hours(connection: AsyncConnection, before: float) -> None:
    """Delete the sums of hours that ended before `before` (Unix seconds); those of days stay."""
    if isfinite(before):
        await connection.execute(delete(usage_hours).where(usage_hours.c.bucket < int(before) - HOUR))
