"""Pipelines as rows. What their source says is for `corral.workspace.pipelines` to read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from corral.db.workspace_tables import pipelines
from corral.domain.workspace import Pipeline
from corral.errors import EntryNotFound
from corral.workspace.kinds import Kind
from corral.workspace.projects import free_name
from corral.workspace.rows import Entries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection


class Pipelines(Entries[Pipeline]):
    """The pipelines. In the database one of all projects is one of the project with an empty id."""

    kind = Kind(
        name="pipeline",
        prefix="pip",
        table=pipelines,
        entry=Pipeline,
        lines=("name",),
        texts=("description", "source"),
        filters={"name": str},
        sorts=("updated_at", "created_at", "name"),
        named=True,
    )

    async def get(
        self,
        identifier: str,
        *,
        deleted: bool = False,
        project: str | None = None,
        within: Collection[str] | None = None,
    ) -> Pipeline:
        """The pipeline with that id or name; of several with a name that of the `project` (its id), or that of all.

        `within` are the ids of projects beyond which, but for what is of all, nothing is found and nothing counts. Of
        several with a name, one of those comes before that of all.

        Raises:
            Conflict: several projects have one of that name, and none of the above says which is meant.
        """

        async def work(connection: AsyncConnection) -> Pipeline:
            for scope in _scopes(project, within):
                row = await self._found(connection, identifier, *scope, deleted=deleted)
                if row is not None:
                    return self._read(row)
            raise EntryNotFound.of(self.kind.name, identifier)

        return await self._database.read(work)

    async def copy_all(self, connection: AsyncConnection, source: str, target: str) -> None:
        """Copy the pipelines of one project to another; both by id."""
        mine = (pipelines.c.project == source) & pipelines.c.deleted_at.is_(None)
        for row in (await connection.execute(select(pipelines).where(mine))).mappings().all():
            copy = replace(self._read(row), id="", project=target, created_at=0.0, updated_at=0.0)
            await self._create(connection, copy)

    def _texts(self, entry: Pipeline) -> tuple[str, str, tuple[str, ...]]:
        return entry.name, entry.source, (entry.description,)

    def _read(self, row: Mapping[Any, Any]) -> Pipeline:
        return super()._read({**row, "project": row["project"] or None})

    def _values(self, entry: Pipeline) -> dict[str, Any]:
        return {**super()._values(entry), "project": entry.project or ""}

    async def _placed(self, connection: AsyncConnection, entry: Pipeline) -> Pipeline:
        return await super()._placed(connection, entry) if entry.project else replace(entry, project=None)

    async def _copied(
        self, connection: AsyncConnection, entry: Pipeline, name: str | None, project: str | None
    ) -> Pipeline:
        copied = await self._placed(connection, await super()._copied(connection, entry, name, project))
        if name is None:
            there = select(pipelines.c.name).where(
                pipelines.c.project == (copied.project or ""), pipelines.c.deleted_at.is_(None)
            )
            taken = set((await connection.execute(there)).scalars())
            copied = replace(copied, name=entry.name if entry.name not in taken else free_name(entry.name, taken, 200))
        return copied

    async def _move(self, connection: AsyncConnection, row: RowMapping, project: str) -> Pipeline:
        if project:
            return await super()._move(connection, row, project)
        old = self._read(row)
        return old if old.project is None else await self._write(connection, old, replace(old, project=None))

    def _name(self, row: Mapping[Any, Any]) -> str:
        return f"pipeline {row['name']}"


def _scopes(project: str | None, within: Collection[str] | None) -> Iterator[Sequence[ColumnElement[bool]]]:
    """Where a pipeline is looked for, one place after the other, each as what it asks of a row."""
    reached = None if within is None else pipelines.c.project.in_(within)
    if project is not None:
        own = pipelines.c.project == project
        yield (own,) if reached is None else (own, reached)
        yield (pipelines.c.project == "",)
    if reached is None:
        yield ()
    else:
        yield (reached,)
        yield (pipelines.c.project == "",)
