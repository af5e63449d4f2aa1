"""Contexts: the material of a project, in its order, and the bytes of those that are files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from corral.db.workspace_tables import contexts
from corral.domain.workspace import Context, ContextKind
from corral.errors import EntryNotFound, InvalidRequest, StoreError
from corral.workspace import listing
from corral.workspace.kinds import Kind
from corral.workspace.rows import Entries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock
    from corral.workspace.contents import Contents


class Contexts(Entries[Context]):
    """The contexts. A new one is the last of its project, unless it says its position."""

    kind = Kind(
        name="context",
        prefix="ctx",
        table=contexts,
        entry=Context,
        lines=("name", "media_type"),
        texts=("text",),
        documents=("variables",),
        numbers=("position", "size"),
        fixed=frozenset({"kind", "digest", "size"}),
        filters={"kind": str, "name": str, "enabled": bool, "media_type": str},
        sorts=("position", "updated_at", "created_at", "name", "size"),
    )

    def __init__(self, database: Database, clock: Clock, contents: Contents) -> None:
        super().__init__(database, clock)
        self._contents = contents

    async def put(
        self, identifier: str, content: bytes, media_type: str, text: str, *, version: int | None = None
    ) -> Context:
        """Let the file or document be these bytes, which models are given as `text`.

        Raises:
            BodyTooLarge: they are too many.
        """
        async with self._contents.kept([content]) as (digest,):

            async def work(connection: AsyncConnection) -> Context:
                old = self._read(await self._held(connection, identifier, version))
                if old.kind not in {ContextKind.FILE, ContextKind.DOCUMENT}:
                    raise InvalidRequest(f"{old.name!r} is {old.kind}, which has no file.", "Change its text.")
                values: dict[str, Any] = {
                    "digest": digest,
                    "size": len(content),
                    "media_type": media_type,
                    "text": text,
                }
                new = self._checked(replace(old, **values))
                return old if new == old else await self._write(connection, old, new)

            return await self._database.write(work)

    async def content(self, identifier: str, *, deleted: bool = False) -> bytes:
        """The bytes of a file or document.

        Raises:
            StoreError: they cannot be read.
        """
        digest = await self._digest(identifier, deleted)
        while True:
            try:
                return await self._contents.read(digest)
            except StoreError:
                before, digest = digest, await self._digest(identifier, deleted)
                if digest == before:  # and it was not another meanwhile
                    raise

    async def _digest(self, identifier: str, deleted: bool) -> str:
        found = await self.get(identifier, deleted=deleted)
        if found.digest is None:
            raise EntryNotFound(f"The context {found.name!r} has no file.", "What it says is its text.")
        return found.digest

    async def reorder(self, project: str, identifiers: Sequence[str]) -> list[Context]:
        """Put these contexts of a project first, in that order, and then its others as they were; returns all."""
        if isinstance(identifiers, str) or len(set(identifiers)) != len(identifiers):
            raise InvalidRequest("ids has to be a list that names each context once.", param="ids")

        async def work(connection: AsyncConnection) -> list[Context]:
            home = await listing.project_of(connection, project, locked=True)
            mine = (contexts.c.project == home) & contexts.c.deleted_at.is_(None)
            # Locked in the order of their ids, so that two who reorder wait for each other and never for ever.
            found = await connection.execute(select(contexts).where(mine).order_by(contexts.c.id).with_for_update())
            rows = {row["id"]: row for row in found.mappings()}
            for identifier in identifiers:
                if identifier not in rows:
                    raise EntryNotFound(f"The project has no context {str(identifier)[:100]!r}.", param="ids")
            rest = [row["id"] for row in sorted(rows.values(), key=_place) if row["id"] not in set(identifiers)]
            ordered = []
            for position, identifier in enumerate((*identifiers, *rest), 1):
                old = self._read(rows[identifier])
                moved = old.position != position
                new = replace(old, position=position)
                ordered.append(await self._write(connection, old, new) if moved else old)
            return ordered

        return await self._database.write(work)

    async def material(self, project: str) -> list[dict[str, Any]]:
        """What models are given of a project now: the enabled contexts that are not put away, in their order."""

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            home = await listing.project_of(connection, project)
            given = (contexts.c.id, contexts.c.kind, contexts.c.name, contexts.c.text, contexts.c.variables)
            living = contexts.c.deleted_at.is_(None) & contexts.c.archived_at.is_(None)
            wanted = (
                select(*given, contexts.c.digest)
                .where(contexts.c.project == home, living, contexts.c.enabled.is_(True))
                .order_by(contexts.c.position, contexts.c.id)
            )
            return [dict(row) for row in (await connection.execute(wanted)).mappings()]

        return await self._database.read(work)

    async def copy_all(self, connection: AsyncConnection, source: str, target: str) -> None:
        """Copy the contexts of one project to another; both by id."""
        mine = (contexts.c.project == source) & contexts.c.deleted_at.is_(None)
        # Locked, or one could be purged, and its file be swept, before anybody sees that the copy names it.
        found = await connection.execute(select(contexts).where(mine).order_by(contexts.c.id).with_for_update())
        for row in found.mappings().all():
            old = self._read(row)
            copy = replace(old, id="", project=target, created_at=0.0, updated_at=0.0)
            await self._create(connection, copy)

    def _checked(self, entry: Context) -> Context:
        checked = super()._checked(entry)
        if not isinstance(entry.enabled, bool):
            raise InvalidRequest("enabled has to be true or false.", param="enabled")
        if not isinstance(checked.variables, dict):
            raise InvalidRequest("variables have to be an object.", param="variables")
        if checked.variables and entry.kind is not ContextKind.VARIABLES:
            raise InvalidRequest("Only a context of kind 'variables' has variables.", param="variables")
        return checked

    def _read(self, row: Mapping[Any, Any]) -> Context:
        return replace(super()._read(row), kind=ContextKind(row["kind"]))

    def _texts(self, entry: Context) -> tuple[str, str, tuple[str, ...]]:
        return entry.name, entry.text, tuple(strings_in(entry.variables))

    async def _create(self, connection: AsyncConnection, entry: Context, body: str | None = None) -> Context:
        if entry.position == 0:
            entry = await self._placed(connection, entry)
            last = select(func.max(contexts.c.position)).where(contexts.c.project == entry.project)
            entry = replace(entry, position=((await connection.execute(last)).scalar_one() or 0) + 1)
        return await super()._create(connection, entry, body)

    async def _copied(
        self, connection: AsyncConnection, entry: Context, name: str | None, project: str | None
    ) -> Context:
        return replace(await super()._copied(connection, entry, name, project), position=0)


def strings_in(value: Any) -> list[str]:
    """Every text in a value as JSON has it, the names of its fields among them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (key, *strings_in(each))]
    if isinstance(value, Sequence):
        return [text for each in value for text in strings_in(each)]
    return []


def _place(row: RowMapping) -> tuple[int, str]:
    return row["position"], row["id"]
