"""Artifacts and their editions. An edition never changes: what is edited gets a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, insert, or_, select

from corral.db.workspace_tables import artifacts, editions, runs
from corral.domain.workspace import Artifact, Edition, check_path
from corral.errors import EntryNotFound, StoreError
from corral.workspace import search
from corral.workspace.kinds import Kind
from corral.workspace.rows import Entries
from corral.workspace.soundness import check_json, check_line, check_text, check_whole, sound
from corral.workspace.words import TEXT

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock
    from corral.workspace.contents import Contents

_BYTES = 4 * TEXT  # as many as so many characters can have in UTF-8

_COPY = "copy:"  # no name of a file begins so


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an edition comes from. Of a step of a run, `made_as` is the name under which that made it."""

    run: str | None = None
    step: str | None = None
    model: str | None = None
    request_id: str | None = None
    problems: Sequence[Mapping[str, Any]] = ()
    note: str = ""
    made_as: str = ""


class Artifacts(Entries[Artifact]):
    """The artifacts. What is said of an edition beside its content is what `Origin` has."""

    kind = Kind(
        name="artifact",
        prefix="art",
        table=artifacts,
        entry=Artifact,
        lines=("kind", "media_type", "title"),
        texts=("name",),
        fixed=frozenset({"digest", "size", "number", "run", "step"}),
        filters={"kind": str, "name": str, "run": str, "step": str, "media_type": str, "digest": str},
        sorts=("updated_at", "created_at", "name", "kind", "size", "title"),
    )

    def __init__(self, database: Database, clock: Clock, contents: Contents) -> None:
        super().__init__(database, clock)
        self._contents = contents

    async def create(self, entry: Artifact, content: bytes = b"", **edition: Any) -> Artifact:
        """Write down a new artifact with that content, its first edition.

        Raises:
            BodyTooLarge: the content is.
            InvalidName: its name cannot be that of a file.
        """
        async with self._contents.kept([content]) as (digest,):
            return await self._database.write(
                lambda connection: self.add(connection, entry, digest, content, _origin(edition))
            )

    async def edit(self, identifier: str, content: bytes, *, version: int | None = None, **edition: Any) -> Artifact:
        """Give the artifact a new edition; content that is as it was, of which nothing is said, changes nothing.

        Raises:
            BodyTooLarge: the content is.
        """
        origin = _origin(edition)
        async with self._contents.kept([content]) as (digest,):

            async def work(connection: AsyncConnection) -> Artifact:
                row = await self._held(connection, identifier, version)
                if row["digest"] == digest and origin == Origin():
                    return self._read(row)
                return await self.renew(connection, row, digest, content, origin)

            return await self._database.write(work)

    async def editions(self, identifier: str, *, deleted: bool = False) -> list[Edition]:
        """The editions of the artifact, the oldest first."""

        async def work(connection: AsyncConnection) -> list[Edition]:
            row = await self._row(connection, identifier, deleted=deleted)
            wanted = select(editions).where(editions.c.artifact == row["id"]).order_by(editions.c.number)
            return [_edition(each) for each in (await connection.execute(wanted)).mappings()]

        return await self._database.read(work)

    async def content(self, identifier: str, number: int | None = None, *, deleted: bool = False) -> bytes:
        """The bytes of the newest edition, or of that with the number.

        Raises:
            EntryNotFound: there is no such artifact or edition.
            StoreError: they cannot be read.
        """
        if number is not None:
            check_whole(number, "edition")

        async def work(connection: AsyncConnection) -> str:
            row = await self._row(connection, identifier, deleted=deleted)
            if number is None or number == row["number"]:
                return str(row["digest"])
            wanted = select(editions.c.digest).where(editions.c.artifact == row["id"], editions.c.number == number)
            found = (await connection.execute(wanted)).scalar_one_or_none()
            if found is None:
                raise EntryNotFound(
                    f"{row['name']} has no edition {number}.", f"It has 1 to {row['number']}.", param="edition"
                )
            return str(found)

        digest = await self._database.read(work)
        try:
            return await self._contents.read(digest)
        except StoreError:
            await self._database.read(work)  # it may have been purged meanwhile, which is told
            raise

    async def of_run(self, run: str) -> list[Artifact]:
        """What a run made or edited and nobody deleted or moved away from it, in the order in which that was."""
        if not sound(run):
            return []
        return await self._database.read(lambda connection: self.made_by(connection, run))

    # Within a transaction of somebody else.

    async def add(
        self, connection: AsyncConnection, entry: Artifact, digest: str, content: bytes, origin: Origin
    ) -> Artifact:
        """Write down a new artifact, whose content is kept already."""
        entry = replace(
            entry,
            digest=digest,
            size=len(content),
            number=1,
            run=entry.run if origin.run is None else origin.run,
            step=entry.step if origin.step is None else origin.step,
        )
        made = await self._create(connection, entry, text_of(content))
        await self._record(connection, made, origin)
        return made

    async def renew(
        self, connection: AsyncConnection, row: RowMapping, digest: str, content: bytes, origin: Origin
    ) -> Artifact:
        """Give the artifact whose row is locked a new edition, whose content is kept already."""
        old = self._read(row)
        changed = replace(old, digest=digest, size=len(content), number=old.number + 1)
        new = await self._write(connection, old, changed, text_of(content))
        await self._record(connection, new, origin)
        return new

    async def adopt_editions(self, connection: AsyncConnection, found: Sequence[Edition]) -> None:
        """Write down editions as they were elsewhere; their artifacts are there, and their contents kept."""
        rows = [
            {each.name: getattr(edition, each.name) for each in fields(edition)}
            | {"made_as": f"{edition.artifact}/{edition.number}", "problems": check_json(edition.problems, "problems")}
            for edition in found
        ]
        if rows:
            await connection.execute(insert(editions), rows)

    async def held(self, connection: AsyncConnection, identifier: str, project: str) -> RowMapping | None:
        """The row of an artifact of that project, locked; None where it is deleted by now, or moved to another."""
        try:
            row = await self._held(connection, identifier, None)
        except EntryNotFound:
            return None
        return row if row["project"] == project else None

    async def take_along(self, connection: AsyncConnection, run: str, source: str, target: str) -> None:
        """Move what a run made, and is in one project, to another, deleted or not."""
        mine = select(artifacts).where(artifacts.c.run == run, artifacts.c.project == source)
        for row in (await connection.execute(mine.with_for_update())).mappings().all():
            old = self._read(row)
            await self._write(connection, old, replace(old, project=target))

    async def made_by(self, connection: AsyncConnection, run: str, step: str | None = None) -> list[Artifact]:
        """What a run, or one step of it, made or edited and nobody deleted.

        What is in another project than the run is left out: whoever may see the one need not be one to see the other.
        """
        of_step = [] if step is None else [editions.c.step == step]
        own = editions.c.made_as.not_like(f"{_COPY}%")
        edited = select(editions.c.artifact).where(editions.c.run == run, own, *of_step)
        mine = [artifacts.c.run == run] if step is None else []
        elsewhere = exists().where(runs.c.id == run, runs.c.project != artifacts.c.project)
        wanted = (
            select(artifacts)
            .where(or_(*mine, artifacts.c.id.in_(edited)), artifacts.c.deleted_at.is_(None), ~elsewhere)
            .order_by(artifacts.c.created_at, artifacts.c.name, artifacts.c.id)
        )
        return [self._read(row) for row in (await connection.execute(wanted)).mappings()]

    def _checked(self, entry: Artifact) -> Artifact:
        checked = super()._checked(entry)
        check_path(checked.name)
        return checked

    def _texts(self, entry: Artifact) -> tuple[str, None, tuple[str, ...]]:
        return entry.title or entry.name, None, (entry.name, entry.kind)

    async def _record(self, connection: AsyncConnection, entry: Artifact, origin: Origin) -> None:
        values = {name: getattr(origin, name) for name in ("run", "step", "model", "request_id", "note")}
        await connection.execute(
            insert(editions).values(
                artifact=entry.id,
                number=entry.number,
                digest=entry.digest,
                size=entry.size,
                created_at=entry.updated_at,
                # A step makes one of a name, once. What is made otherwise has a name that is not made twice.
                made_as=origin.made_as or f"{entry.id}/{entry.number}",
                problems=check_json(origin.problems, "problems"),
                **values,
            )
        )

    async def _duplicate(
        self, connection: AsyncConnection, entry: Artifact, name: str | None, project: str | None
    ) -> Artifact:
        # No run made the copy: it is not among what the run made. Its editions still say where they come from.
        copied = replace(await self._copied(connection, entry, name, project), run=None, step=None)
        made = await self._create(connection, copied, await search.body_of(connection, entry.id))
        kept = select(editions).where(editions.c.artifact == entry.id).order_by(editions.c.number)
        for row in (await connection.execute(kept)).mappings().all():
            copy = {**row, "artifact": made.id, "made_as": f"{_COPY}{made.id}/{row['number']}"}
            await connection.execute(insert(editions).values(**copy))
        return made

    async def _erase(self, connection: AsyncConnection, identifiers: Any) -> None:
        await connection.execute(delete(editions).where(editions.c.artifact.in_(identifiers)))
        await super()._erase(connection, identifiers)


def _origin(edition: Mapping[str, Any]) -> Origin:
    origin = Origin(**edition)
    for name in ("run", "step", "model", "request_id"):
        if getattr(origin, name) is not None:
            check_line(getattr(origin, name), name)
    check_text(origin.note, "note")
    return origin


def _edition(row: RowMapping) -> Edition:
    values = {name: row[name] for name in row if name not in ("made_as", "problems")}
    return Edition(**values, problems=tuple(row["problems"]))


def text_of(content: bytes) -> str:
    """The beginning of the content as text; nothing of bytes that are none."""
    if b"\0" in content[:_BYTES]:
        return ""
    try:
        return content[:_BYTES].decode("utf-8", "strict" if len(content) <= _BYTES else "ignore")
    except UnicodeDecodeError:
        return ""
