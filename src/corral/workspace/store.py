"""The workspace's store: projects, contexts, pipelines, runs and artifacts in the database, their contents on disk.

store.py ── projects.py  contexts.py  pipeline_rows.py  runs.py  artifacts.py     one file a kind of entry
               └── rows.py        what they have in common: create, change, archive, delete, restore, move, …
                      ├── listing.py     pages: filters, order, cursors
                      └── search.py      words in the database
contents.py     bytes by digest          words.py  cursors.py  soundness.py  described.py     pure
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import select

from corral.db.workspace_tables import artifacts, contexts, editions
from corral.domain.workspace import Page, RunStatus
from corral.errors import CorralError, InvalidRequest
from corral.workspace import listing, search
from corral.workspace.artifacts import Artifacts
from corral.workspace.contents import Contents
from corral.workspace.contexts import Contexts
from corral.workspace.pipeline_rows import Pipelines
from corral.workspace.projects import Projects
from corral.workspace.runs import Runs
from corral.workspace.soundness import check_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock
    from corral.domain.workspace import Hit
    from corral.workspace.rows import Entries

T = TypeVar("T")

KINDS = ("project", "context", "pipeline", "run", "artifact")
"""The kinds of entries that can be searched for."""
_BATCH = 200  # entries that a sweep looks at in one go


class Store:
    """All of the workspace. Making one does no I/O.

    Args:
        database: where the entries are.
        home: Corral's folder; contents lie in its `workspace`.
        max_artifact: bytes of one content, at most.
    """

    def __init__(self, database: Database, home: Path, clock: Clock, *, max_artifact: int) -> None:
        self._database = database
        self.clock = clock
        self.contents = Contents(home / "workspace", clock, max_artifact)
        self.contexts = Contexts(database, clock, self.contents)
        self.pipelines = Pipelines(database, clock)
        self.artifacts = Artifacts(database, clock, self.contents)
        self.runs = Runs(database, clock, self.artifacts, self.contents)
        self.projects = Projects(database, clock, (self.contexts, self.pipelines))

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `work` returns, once all that it wrote is committed; when it raises, nothing is."""
        return await self._database.write(work)

    async def search(
        self,
        text: str,
        *,
        project: str | None = None,
        within: Collection[str] | None = None,
        kinds: Sequence[str] = (),
        archived: bool | None = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Hit]:
        """What has all words of the text in it, the newest first. `count*` is any word that begins so.

        `project` is an id or a name, `within` the ids of projects beyond which nothing is found. `archived` is as in a
        `Query`.

        Raises:
            InvalidRequest: a kind is none, the limit is too large, or the cursor is made up.
            EntryNotFound: there is no such project.
        """
        check_text(text, "q")
        for kind in kinds:
            if kind not in KINDS:
                raise InvalidRequest(f"{kind[:40]!r} is no kind.", f"Use: {', '.join(KINDS)}.", param="kinds")
        if not 1 <= limit <= listing.MOST:
            raise InvalidRequest(f"limit has to be from 1 to {listing.MOST}.", param="limit")

        async def work(connection: AsyncConnection) -> Page[Hit]:
            home = None if project is None else await listing.project_of(connection, project)
            words = search.wanted(text, kinds, home, within)
            if words is None:
                return Page(())
            return await search.find(connection, words, archived=archived, limit=limit, cursor=cursor)

        return await self._database.read(work)

    async def sweep(self, now: float, retention: float) -> int:
        """Remove for good what was deleted more than `retention` seconds before `now`, and contents nothing names.

        Returns how many entries that were; those that go with their project are not counted. Safe at any time, beside
        whoever writes, and in several processes at once.
        """
        gone = 0
        kinds: tuple[Entries[Any], ...] = (self.projects, self.runs, self.artifacts, self.pipelines, self.contexts)
        for entries in kinds:
            gone += await self._purge(entries, now - retention)
        await self.runs.forget_snapshots()
        await self.contents.sweep(self._named)
        return gone

    async def _purge(self, entries: Entries[Any], before: float) -> int:
        table = entries.kind.table
        gone, last = 0, (0.0, "")
        while True:
            old = select(table.c.deleted_at, table.c.id).where(
                table.c.deleted_at.is_not(None), table.c.deleted_at < before, table.c.deleted_at >= last[0]
            )
            wanted = old.order_by(table.c.deleted_at, table.c.id).limit(_BATCH)
            if table is self.runs.kind.table:
                wanted = wanted.where(table.c.status.not_in((RunStatus.QUEUED.value, RunStatus.RUNNING.value)))
            found = await self._database.read(lambda connection, wanted=wanted: _all(connection, wanted))  # type: ignore[misc]
            fresh = [row for row in found if tuple(row) > last]
            if not fresh:
                return gone
            for _, identifier in fresh:
                try:
                    await entries.purge(identifier)
                except CorralError as error:
                    if error.code not in ("conflict", "entry_missing"):  # under way again, or gone already
                        raise
                else:
                    gone += 1
            last = tuple(fresh[-1])

    async def _named(self, digests: Collection[str]) -> Collection[str]:
        """Those of the digests that an entry or an edition names."""

        async def work(connection: AsyncConnection) -> set[str]:
            found: set[str] = set()
            for column in (artifacts.c.digest, editions.c.digest, contexts.c.digest):
                wanted = select(column).where(column.in_(list(digests))).distinct()
                found.update((await connection.execute(wanted)).scalars())
            return found

        return await self._database.read(work)


async def _all(connection: AsyncConnection, wanted: Any) -> Sequence[Any]:
    return (await connection.execute(wanted)).all()
