"""Keys as they are written down, each change together with its entry in the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import RowMapping, delete, select, update

from corral.db.tables import keys as table
from corral.domain.callers import Scope
from corral.domain.keys import Key, KeyWish
from corral.errors import KeyNotFound
from corral.routing.audit import Actor, append, newest

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database


@dataclass(frozen=True, slots=True)
class Row:
    """A key and what it hashes to, in hexadecimal; `previous` is the one it was rotated from."""

    key: Key
    hash: str
    previous: str | None = None


class Book:
    """The keys of a database. Every method is one transaction.

    Raises:
        DatabaseError: from every method: the database cannot be reached, read or written.
        KeyNotFound: from every method with an identifier: there is no such key, or no longer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Row]:
        """Every key, oldest first."""
        return await self._database.read(_rows)

    async def since(self, version: int | None) -> tuple[int, list[Row] | None]:
        """The version that the keys have, and all of them; None in their place where that is `version` still."""

        async def work(connection: AsyncConnection) -> tuple[int, list[Row] | None]:
            now = await newest(connection)
            return now, None if now == version else await _rows(connection)

        return await self._database.read(work)

    async def add(self, key: Key, digest: str, actor: Actor) -> Key:
        """Write down a new one."""
        wish = key.wish

        async def work(connection: AsyncConnection) -> Key:
            values = {"id": key.id, "hash": digest, "shown": key.shown, "created_at": key.created_at}
            await connection.execute(table.insert().values(**values, **_columns(wish)))
            detail = {"name": wish.name, "scope": str(wish.scope), "shown": key.shown}
            await append(connection, key.created_at, actor, "keys.create", key.id, detail)
            return key

        return await self._database.write(work)

    async def change(self, identifier: str, wish: KeyWish, named: list[str], actor: Actor, now: float) -> Key:
        """Let it be as `wish` says of what is `named`; the rest stays as it is, which others may have changed."""
        columns = _columns(wish)
        detail = {name: columns[name] for name in named}
        return await self._update(identifier, detail or {"name": table.c.name}, actor, "keys.change", now, detail)

    async def rotate(self, identifier: str, digest: str, shown: str, now: float, until: float, actor: Actor) -> Key:
        """Let it hash to something else; what it hashed to counts until `until`."""
        values = {"hash": digest, "shown": shown, "rotated_at": now, "previous": table.c.hash, "previous_until": until}
        detail = {"shown": shown, "previous_until": until}
        return await self._update(identifier, values, actor, "keys.rotate", now, detail)

    async def revoke(self, identifier: str, now: float, actor: Actor) -> Key:
        """Let it open nothing; when that was done before, the time of it stays."""
        from sqlalchemy import func

        values = {"revoked_at": func.coalesce(table.c.revoked_at, now)}
        return await self._update(identifier, values, actor, "keys.revoke", now, {})

    async def delete(self, identifier: str, now: float, actor: Actor) -> None:
        """Forget it."""

        async def work(connection: AsyncConnection) -> None:
            key = await _one(connection, identifier)
            await connection.execute(delete(table).where(table.c.id == identifier))
            await append(connection, now, actor, "keys.delete", identifier, {"name": key.wish.name})

        await self._database.write(work)

    async def use(self, identifiers: Collection[str], now: float) -> None:
        """Write down that these were used."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(table).where(table.c.id.in_(identifiers)).values(used_at=now))

        await self._database.write(work)

    async def _update(
        self, identifier: str, values: dict[str, Any], actor: Actor, action: str, now: float, detail: dict[str, Any]
    ) -> Key:
        async def work(connection: AsyncConnection) -> Key:
            await connection.execute(update(table).where(table.c.id == identifier).values(**values))
            key = await _one(connection, identifier)
            await append(connection, now, actor, action, identifier, {"name": key.wish.name, **detail})
            return key

        return await self._database.write(work)


async def _rows(connection: AsyncConnection) -> list[Row]:
    found = (await connection.execute(select(table).order_by(table.c.created_at, table.c.id))).mappings()
    return [Row(_key(row), row["hash"], row["previous"]) for row in found]


async def _one(connection: AsyncConnection, identifier: str) -> Key:
    row = (await connection.execute(select(table).where(table.c.id == identifier))).mappings().one_or_none()
    if row is None:
        raise KeyNotFound(f"There is no key {identifier[:100]!r}.", "See them: corral keys list")
    return _key(row)


def _columns(wish: KeyWish) -> dict[str, Any]:
    return {
        "name": wish.name,
        "scope": str(wish.scope),
        "models": list(wish.models),
        "projects": list(wish.projects),
        "requests": wish.requests,
        "tokens": wish.tokens,
        "parallel": wish.parallel,
        "strict": wish.strict,
        "expires_at": wish.expires_at,
    }


def _key(row: RowMapping) -> Key:
    wish = KeyWish(
        row["name"],
        Scope(row["scope"]),
        tuple(row["models"]),
        tuple(row["projects"]),
        row["requests"],
        row["tokens"],
        row["parallel"],
        row["strict"],
        row["expires_at"],
    )
    times = ("created_at", "rotated_at", "previous_until", "revoked_at", "used_at")
    return Key(row["id"], wish, row["shown"], **{name: row[name] for name in times})
