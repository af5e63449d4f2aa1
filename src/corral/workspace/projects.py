"""Projects: what is in one goes with it when it is deleted, and comes back with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import delete, exists, select, update

from corral.db.workspace_tables import artifacts, contexts, editions, entry_tags, pipelines, projects, runs, steps
from corral.domain.workspace import Project, RunStatus, check_project
from corral.errors import Conflict, InvalidName, NotSupported
from corral.workspace import search
from corral.workspace.kinds import Kind
from corral.workspace.rows import Entries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock

IN_IT: tuple[Table, ...] = (contexts, pipelines, runs, artifacts)
"""The tables of what belongs to a project."""
UNDER_WAY = (RunStatus.QUEUED.value, RunStatus.RUNNING.value)
"""Runs that somebody is at, or will be."""


class Copying(Protocol):
    """What goes with a project that is duplicated."""

    async def copy_all(self, connection: AsyncConnection, source: str, target: str) -> None:
        """Copy what is in one project to another; both by id."""
        ...


class Projects(Entries[Project]):
    """The projects. Their contexts and pipelines are duplicated with them: `also`."""

    kind = Kind(
        name="project",
        prefix="prj",
        table=projects,
        entry=Project,
        lines=("name", "title"),
        texts=("description",),
        documents=("settings",),
        fixed=frozenset({"name"}),
        filters={"name": str, "title": str},
        sorts=("updated_at", "created_at", "name", "title"),
        named=True,
    )

    def __init__(self, database: Database, clock: Clock, also: tuple[Copying, ...]) -> None:
        super().__init__(database, clock)
        self._also = also

    def _checked(self, entry: Project) -> Project:
        if check_project(entry.name).startswith("prj-"):
            raise InvalidName(
                "A project's name cannot begin with 'prj-': its id does.", "Choose another.", param="name"
            )
        return super()._checked(entry)

    def _texts(self, entry: Project) -> tuple[str, str, tuple[str, ...]]:
        return entry.title or entry.name, entry.description, (entry.name,)

    async def _allow(self, connection: AsyncConnection, row: RowMapping, action: str) -> None:
        going = select(runs.c.id).where(runs.c.project == row["id"], runs.c.status.in_(UNDER_WAY)).limit(1)
        found = (await connection.execute(going)).scalar_one_or_none()
        if found is not None:
            raise Conflict(
                f"The project {row['name']} has a run under way ({found}): it cannot be {action}d.",
                f"Let it end, or end it: corral pipeline cancel {found}",
            )

    async def _delete(self, connection: AsyncConnection, row: RowMapping) -> Project:
        gone = await super()._delete(connection, row)
        for table in IN_IT:
            inside = select(table.c.id).where(table.c.project == gone.id, table.c.deleted_at.is_(None))
            await search.mark(connection, inside, deleted=True)
            values = {"deleted_at": gone.deleted_at, "updated_at": gone.updated_at, "version": table.c.version + 1}
            await connection.execute(
                update(table).where(table.c.project == gone.id, table.c.deleted_at.is_(None)).values(**values)
            )
        return gone

    async def _restore(self, connection: AsyncConnection, row: RowMapping) -> Project:
        back = await super()._restore(connection, row)
        if row["deleted_at"] is None:
            return back
        for table in IN_IT:
            with_it = (table.c.project == back.id) & (table.c.deleted_at == row["deleted_at"])
            if table is pipelines:  # one with its name may have come meanwhile; it stays deleted then
                other = pipelines.alias()
                same = (other.c.project == back.id) & (other.c.name == pipelines.c.name) & other.c.deleted_at.is_(None)
                with_it &= ~exists(select(other.c.id).where(same))
            await search.mark(connection, select(table.c.id).where(with_it), deleted=False)
            values = {"deleted_at": None, "updated_at": back.updated_at, "version": table.c.version + 1}
            await connection.execute(update(table).where(with_it).values(**values))
        return back

    async def _copied(
        self, connection: AsyncConnection, entry: Project, name: str | None, project: str | None
    ) -> Project:
        if project is not None:
            raise NotSupported("A project belongs to no other.", "Duplicate it without one.", param="project")
        copied = await super()._copied(connection, entry, name, None)
        if name is None:
            taken = set((await connection.execute(select(projects.c.name))).scalars())
            copied = replace(copied, name=free_name(entry.name, taken, 80))
        return copied

    async def _duplicate(
        self, connection: AsyncConnection, entry: Project, name: str | None, project: str | None
    ) -> Project:
        made = await super()._duplicate(connection, entry, name, project)
        for kind in self._also:
            await kind.copy_all(connection, entry.id, made.id)
        return made

    async def _erase(self, connection: AsyncConnection, identifiers: Any) -> None:
        for table in IN_IT:
            inside = select(table.c.id).where(table.c.project.in_(identifiers))
            if table is runs:
                await connection.execute(delete(steps).where(steps.c.run.in_(inside)))
            if table is artifacts:
                await connection.execute(delete(editions).where(editions.c.artifact.in_(inside)))
            await search.forget(connection, inside)
            await connection.execute(delete(entry_tags).where(entry_tags.c.entry.in_(inside)))
            await connection.execute(delete(table).where(table.c.project.in_(identifiers)))
        await super()._erase(connection, identifiers)

    def _name(self, row: Mapping[Any, Any]) -> str:
        return f"project {row['name']}"


def free_name(name: str, taken: set[str], longest: int) -> str:
    """The first of `name-copy`, `name-copy-2`, … that is not taken."""
    number = 1
    while True:
        tail = "-copy" if number == 1 else f"-copy-{number}"
        found = name[: longest - len(tail)] + tail
        if found not in taken:
            return found
        number += 1
