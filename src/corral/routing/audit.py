"""What was managed, and by whom: written in the transaction of the change itself, where there is one.

An entry holds no secret: whoever writes one names what changed, never a key.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.errors import CorralError, InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock

_PRUNE_EVERY = 3600.0
_LONGEST = 1000
"""Characters of a target that are kept."""
_LOCK = 7_860_001
"""What PostgreSQL calls the lock under which entries get their numbers."""
_LARGEST = 2**63 - 1

_log = logging.getLogger("corral.keys")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something: a caller's id or `terminal`, and the request it came with."""

    id: str
    request_id: str | None = None


TERMINAL = Actor("terminal")
"""Whoever has a shell in this home."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done. `at` in Unix seconds."""

    number: int
    at: float
    actor: str
    action: str
    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None


async def append(
    connection: AsyncConnection, at: float, actor: Actor, action: str, target: str, detail: Mapping[str, Any]
) -> None:
    """Write an entry in a transaction that is under way. Numbers grow in the order in which transactions end."""
    from sqlalchemy import text

    from corral.db.tables import audit

    if connection.dialect.name == "postgresql":
        # Who looks for what is new looks for larger numbers: a smaller one must not come later. SQLite has one writer.
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    values = {"at": at, "actor": actor.id[:80], "action": action, "target": _storable(target), "detail": dict(detail)}
    await connection.execute(audit.insert().values(**values, request_id=actor.request_id))


async def newest(connection: AsyncConnection) -> int:
    """The number of the last entry; 0 where there is none."""
    from sqlalchemy import func, select

    from corral.db.tables import audit

    return int(await connection.scalar(select(func.max(audit.c.number))) or 0)


class Audit:
    """The entries of a database.

    Args:
        database: where they are; opened when it is first needed.
        clock: time.

    Raises:
        DatabaseError: from every method: the database cannot be reached, read or written.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(self, actor: Actor, action: str, target: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down that something was done."""

        async def work(connection: AsyncConnection) -> None:
            await append(connection, self._clock.wall(), actor, action, target, detail or {})

        await self._database.write(work)

    async def page(self, limit: int, before: int | None = None) -> list[Entry]:
        """At most `limit` entries, newest first: those whose number is below `before`.

        Raises:
            InvalidRequest: no number can be `before`.
        """
        from sqlalchemy import select

        from corral.db.tables import audit

        if before is not None and not 0 < before <= _LARGEST:
            raise InvalidRequest("before must be the number of an entry.", "Take `next` of the page before.")
        query = select(audit).order_by(audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.number < before)

        async def work(connection: AsyncConnection) -> list[Entry]:
            return [Entry(**row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)

    async def run(self, keep: float) -> None:
        """Forget what is older than `keep` seconds, now and each hour, until cancelled."""
        while True:
            if self._database.file is None or self._database.file.exists():
                try:
                    await self.prune(keep)
                except CorralError as error:
                    _log.warning("the audit log is not pruned: %s", error)
            await self._clock.sleep(_PRUNE_EVERY)

    async def prune(self, keep: float) -> int:
        """Forget what is older than `keep` seconds; how many entries that were. The newest of all stays."""
        from sqlalchemy import delete, func, select

        from corral.db.tables import audit

        # Its number tells every server whether keys have changed.
        last = select(func.max(audit.c.number)).scalar_subquery()
        old = delete(audit).where(audit.c.at < self._clock.wall() - keep, audit.c.number < last)

        async def work(connection: AsyncConnection) -> int:
            return int((await connection.execute(old)).rowcount)

        return await self._database.write(work)


def describe(entry: Entry) -> dict[str, Any]:
    """An entry as every surface shows it: plain values of JSON."""
    return {
        "number": entry.number,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "detail": dict(entry.detail),
        "request_id": entry.request_id,
    }


def _storable(text: str) -> str:
    """`text` as every database takes it: bounded, and without what PostgreSQL refuses in a text."""
    return text[:_LONGEST].replace("\0", "").encode("utf-8", "replace").decode()
