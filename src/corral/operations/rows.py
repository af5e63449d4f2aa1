"""Operations as they are written down. Who changes a row holds its lease; anybody may leave a wish in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, delete, func, select, update

from corral.db.tables import operations as table
from corral.domain.models import told
from corral.domain.operations import Failure, Operation, OperationStatus, Order
from corral.errors import OperationNotFound
from corral.kit.disk import in_thread
from corral.operations.leases import home_id
from corral.operations.queue import Limits, Place, startable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import ColumnElement, RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database


_LARGEST = 2**63 - 1


class Wish(StrEnum):
    """What is asked of an operation. `STOP` is never written down: the process ends, the operation goes on later."""

    NONE = ""
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Row:
    """An operation, and what somebody asked of it that is not done yet."""

    operation: Operation
    wish: Wish = Wish.NONE

    @property
    def place(self) -> Place:
        """Its place in the queue."""
        return place(self.operation)


def place(operation: Operation) -> Place:
    """The place of `operation` in the queue."""
    return Place(operation.id, operation.order.lane, operation.order.host)


class Rows:
    """The operations of one home, in a database that several homes may share. Every method is one transaction.

    Raises:
        DatabaseError: from every method: the database cannot be reached, read or written.
    """

    def __init__(self, database: Database, home: Path) -> None:
        self.database = database
        self._folder = home
        self._home = ""

    async def add(self, operation: Operation) -> Row:
        """Write down a new one; or the unfinished one of an equal order, and nothing is written."""
        order = operation.order
        fingerprint = _fingerprint(order)
        values = {
            "id": operation.id,
            "home": await self._me(),
            "fingerprint": fingerprint,
            "kind": order.kind,
            "model": storable(order.model),
            "params": dict(order.params),
            "lane": storable(order.lane),
            "host": storable(order.host),
            "created_at": operation.created_at,
            "wish": Wish.NONE,
        }

        async def work(connection: AsyncConnection) -> Row:
            await self._alone(connection)
            equal = self._mine(table.c.fingerprint == fingerprint, table.c.ended_at.is_(None))
            found = (await connection.execute(equal)).mappings().one_or_none()
            if found is not None:
                return _row(found)
            await connection.execute(table.insert().values(**values, **_changing(operation)))
            return Row(operation)

        return await self.database.write(work)

    async def get(self, identifier: str) -> Row:
        """One of them.

        Raises:
            OperationNotFound: there is none, or no longer.
        """
        await self._me()

        async def work(connection: AsyncConnection) -> Row:
            found = (await connection.execute(self._mine(table.c.id == identifier))).mappings().one_or_none()
            if found is None:
                raise OperationNotFound(
                    f"There is no operation {identifier[:100]!r}.", "List them with: corral operations"
                )
            return _row(found)

        return await self.database.read(work)

    async def page(
        self, limit: int, before: str | None, status: OperationStatus | None, model: str | None
    ) -> list[Row]:
        """At most `limit`, newest first: those asked for before `before`, of that status, about that model.

        Raises:
            OperationNotFound: `before` is none, or no longer.
        """
        if before is not None:
            await self.get(before)
        await self._me()
        query = self._mine().order_by(table.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.number < select(table.c.number).where(table.c.id == before).scalar_subquery())
        if status is not None:
            query = query.where(table.c.status == status)
        if model is not None:
            query = query.where(table.c.model == model)
        return await self._list(query)

    async def unfinished(self) -> list[Row]:
        """All that have not ended, first come first."""
        await self._me()
        return await self._list(self._mine(table.c.ended_at.is_(None)).order_by(table.c.number))

    async def claim(self, identifier: str, limits: Limits, now: float) -> Operation | None:
        """Mark as being at work what waits, has no wish and may start beside what is at work; None when it may not.

        The caller holds its lease. `now` in Unix seconds.
        """
        home = await self._me()

        async def work(connection: AsyncConnection) -> Operation | None:
            await self._alone(connection)
            found = (await connection.execute(self._mine(table.c.id == identifier))).mappings().one_or_none()
            if found is None or found["status"] != OperationStatus.PENDING or found["wish"]:
                return None
            at_work = self._mine(table.c.status == OperationStatus.IN_PROGRESS)
            running = [_row(each).place for each in (await connection.execute(at_work)).mappings()]
            if not startable([_row(found).place], running, limits):
                return None
            started = now if found["started_at"] is None else found["started_at"]
            await connection.execute(
                update(table)
                .where(table.c.home == home, table.c.id == identifier)
                .values(status=OperationStatus.IN_PROGRESS, attempts=table.c.attempts + 1, started_at=started)
            )
            return _row(
                {**found, "status": "in_progress", "attempts": found["attempts"] + 1, "started_at": started}
            ).operation

        return await self.database.write(work)

    async def save(self, operation: Operation, *, heeded: Wish = Wish.NONE) -> Wish:
        """Write down how it stands, by the holder of its lease; what is asked of it, other than the wish `heeded`.

        What has ended stays as it is: a process may be killed, and its lease be free, while PostgreSQL still commits.
        """
        home = await self._me()
        mine = (table.c.home == home, table.c.id == operation.id, table.c.ended_at.is_(None))

        async def work(connection: AsyncConnection) -> Wish:
            await connection.execute(update(table).where(*mine).values(**_changing(operation)))
            if heeded:
                await connection.execute(update(table).where(*mine, table.c.wish == heeded).values(wish=Wish.NONE))
            return Wish((await connection.execute(select(table.c.wish).where(*mine))).scalar_one_or_none() or "")

        return await self.database.write(work)

    async def ask(self, identifier: str, wish: Wish) -> None:
        """Leave a wish for the process that is at it."""
        home = await self._me()
        change = (
            update(table)
            .where(table.c.home == home, table.c.id == identifier, table.c.ended_at.is_(None))
            .values(wish=wish)
        )

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(change)

        await self.database.write(work)

    async def prune(self, before: float) -> int:
        """Forget those that ended before `before` (Unix seconds); how many."""
        home = await self._me()

        async def work(connection: AsyncConnection) -> int:
            done = await connection.execute(delete(table).where(table.c.home == home, table.c.ended_at < before))
            return done.rowcount

        return await self.database.write(work)

    def _mine(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        return select(table).where(table.c.home == self._home, *conditions)

    async def _list(self, query: Select[Any]) -> list[Row]:
        async def work(connection: AsyncConnection) -> list[Row]:
            return [_row(each) for each in (await connection.execute(query)).mappings()]

        return await self.database.read(work)

    async def _me(self) -> str:
        if not self._home:
            self._home = await in_thread(home_id, self._folder)
        return self._home

    async def _alone(self, connection: AsyncConnection) -> None:
        """Let nobody else of this home add or claim until the transaction ends. SQLite has one writer anyway."""
        if connection.dialect.name == "postgresql":
            await connection.execute(select(func.pg_advisory_xact_lock(int(self._home[:15], 16))))


async def advance(connection: AsyncConnection, identifier: str) -> None:
    """Count the tries of an operation anew, within the transaction that keeps what it has got done.

    By the holder of its lease, which says the same to `Work.advanced`.
    """
    await connection.execute(
        update(table).where(table.c.id == identifier, table.c.ended_at.is_(None)).values(attempts=1)
    )


def _fingerprint(order: Order) -> str:
    """Equal for orders that ask for the same."""
    content = json.dumps([order.kind, order.model, dict(order.params)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def storable(text: str) -> str:
    """`text` as every database and reader takes it: file names and answers of servers may hold what is no character."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _changing(operation: Operation) -> dict[str, Any]:
    """The columns that change while an operation lives."""
    return {
        "status": operation.status,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "attempts": operation.attempts,
        "progress": operation.progress,
        "phase": storable(operation.phase)[:40],
        "done": min(operation.done, _LARGEST),
        "total": None if operation.total is None else min(operation.total, _LARGEST),
        "rate": operation.rate,
        "eta": operation.eta,
        "message": storable(operation.message),
        "error": None if operation.error is None else {k: storable(v) for k, v in asdict(operation.error).items()},
        "result": None if operation.result is None else dict(operation.result),
        "parts": sorted(operation.parts),
        # Once nobody will do it again, nobody needs the login or the signature in an address.
        **({"params": _bare(operation.order.params)} if operation.status.ended else {}),
    }


def _bare(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: told(value) if isinstance(value, str) else value for key, value in params.items()}


def _row(found: RowMapping | dict[Any, Any]) -> Row:
    operation = Operation(
        id=found["id"],
        order=Order(found["kind"], found["model"], found["params"], found["lane"], found["host"]),
        status=OperationStatus(found["status"]),
        created_at=found["created_at"],
        progress=found["progress"],
        phase=found["phase"],
        done=found["done"],
        total=found["total"],
        rate=found["rate"],
        eta=found["eta"],
        message=found["message"],
        error=None if found["error"] is None else Failure(**found["error"]),
        result=found["result"],
        attempts=found["attempts"],
        started_at=found["started_at"],
        ended_at=found["ended_at"],
        parts=frozenset(found["parts"]),
    )
    return Row(operation, Wish(found["wish"]))
