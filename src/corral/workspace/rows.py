"""Entries as rows: what projects, contexts, pipelines, runs and artifacts have in common.

A kind of entry says in a `Kind` what it is, and in a subclass of `Entries` what it does otherwise. Every method is one
transaction. A change reads the row with a lock, compares its version with the one that the caller has seen, and writes
the next: of two who change the same, the second is told.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from corral.db.workspace_tables import entry_tags as tags
from corral.domain.workspace import Entry, Page, Query
from corral.errors import Conflict, CorralError, EntryNotFound, InvalidRequest, NotSupported, Stale
from corral.kit.disk import in_thread
from corral.workspace import listing, search
from corral.workspace.kinds import E, Kind
from corral.workspace.soundness import check_json, check_line, check_tags, check_text, check_whole, sound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock

ACTIONS = ("archive", "restore", "delete", "purge", "tag", "move")
"""What can be done to many entries at once."""
_TOGETHER = 100  # of a bulk, in one transaction
_ID = re.compile(r"(prj|ctx|pip|run|art)-[0-9a-f]{12}")
_FIXED = frozenset({"id", "version", "created_at", "updated_at", "archived_at", "deleted_at"})


class Entries(Generic[E]):
    """The entries of one kind in a database.

    Raises:
        DatabaseError: from every method: the database cannot be reached, read or written.
        EntryNotFound: from every method with an id: there is no such entry, or it was deleted.
        Stale: from every method with a `version`: the entry has another.
        InvalidRequest: from every method that takes values: one cannot be kept; names it.
    """

    kind: Kind[E]

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, identifier: str, *, deleted: bool = False) -> E:
        """The entry with that id, or of projects and pipelines that name; with `deleted` also one that was deleted."""

        async def work(connection: AsyncConnection) -> E:
            row = await self._row(connection, identifier, deleted=deleted)
            return (await self._entries(connection, [row]))[0]

        return await self._database.read(work)

    async def page(self, query: Query) -> Page[E]:
        """Some of the entries, as the query asks."""

        async def work(connection: AsyncConnection) -> Page[E]:
            rows, following = await listing.page(connection, self.kind, query)
            return Page(tuple(await self._entries(connection, rows)), following)

        return await self._database.read(work)

    async def listed(self, query: Query) -> Page[Any]:
        """As `page`, with what a list needs of each: the entries as they are, unless a kind says otherwise."""
        return await self.page(query)

    async def count(self, query: Query) -> int:
        """How many entries the query asks for, on all pages."""
        return await self._database.read(lambda connection: listing.count(connection, self.kind, query))

    async def ids(self, query: Query, most: int) -> list[str]:
        """The ids of the entries that the query asks for, in its order and on all pages, `most` at most."""
        return await self._database.read(lambda connection: listing.ids(connection, self.kind, query, most))

    async def create(self, entry: E) -> E:
        """Write down a new entry; without an id it gets one, without times it is of now.

        Raises:
            Conflict: one with its id or name is there.
        """
        return await self._database.write(lambda connection: self._create(connection, entry))

    async def change(self, identifier: str, changes: Mapping[str, Any], *, version: int | None = None) -> E:
        """Change fields of the entry; those that are no different change nothing, not even its version.

        Raises:
            Conflict: one with that name is there.
        """

        async def work(connection: AsyncConnection) -> E:
            return await self._change(connection, await self._held(connection, identifier, version), changes)

        return await self._database.write(work)

    async def archive(self, identifier: str, *, version: int | None = None) -> E:
        """Put it away: lists leave it out unless they are asked for it."""
        return await self._do(identifier, version, self._archive)

    async def restore(self, identifier: str, *, version: int | None = None) -> E:
        """Have it back: from the deleted, as it was then; or else from those put away.

        Raises:
            Conflict: another has its name by now, or its project is deleted.
        """
        return await self._do(identifier, version, self._restore, deleted=True)

    async def delete(self, identifier: str, *, version: int | None = None) -> E:
        """Throw it away; it can be restored until its retention ends."""
        return await self._do(identifier, version, self._delete)

    async def purge(self, identifier: str, *, version: int | None = None) -> None:
        """Remove it for good, whether it was deleted before or not."""

        async def work(connection: AsyncConnection) -> None:
            row = await self._held(connection, identifier, version, deleted=True)
            await self._allow(connection, row, "purge")
            await self._erase(connection, [row["id"]])

        await self._database.write(work)

    async def duplicate(self, identifier: str, *, name: str | None = None, project: str | None = None) -> E:
        """A new entry that is equal but for its id, times and name; in another project, if one is named."""

        async def work(connection: AsyncConnection) -> E:
            row = await self._row(connection, identifier)
            home = (project or row["project"]) if "project" in self.kind.table.c else ""
            if home:  # before the row: who deletes a project locks in that order
                await listing.project_of(connection, home, locked=True)
            # Locked, or it could be purged, and its content be swept, before anybody sees that the copy names it.
            row = await self._row(connection, row["id"], locked=True)
            return await self._duplicate(connection, (await self._entries(connection, [row]))[0], name, project)

        return await self._database.write(work)

    async def move(self, identifier: str, project: str, *, version: int | None = None) -> E:
        """Let it belong to another project, named by id or name."""

        async def work(connection: AsyncConnection) -> E:
            return await self._move(connection, await self._held(connection, identifier, version), project)

        return await self._database.write(work)

    async def bulk(self, action: str, identifiers: Sequence[str], **more: Any) -> dict[str, str | None]:
        """Do the same to many: of each id the error's code, or None where it was done.

        `more` is for `tag` the texts to `add` and to `remove`, for `move` the `project`.

        Raises:
            InvalidRequest: there is no such action.
        """
        act = self._action(action, more)
        done: dict[str, str | None] = {}
        identifiers = list(dict.fromkeys(identifiers))
        for begin in range(0, len(identifiers), _TOGETHER):
            # Locked in the order of their ids, so that two who take the same wait for each other and never for ever.
            batch = sorted(identifiers[begin : begin + _TOGETHER])
            done |= await self._database.write(lambda connection, batch=batch: _each(connection, batch, act))  # type: ignore[misc]
        return {identifier: done[identifier] for identifier in identifiers}

    async def adopt(self, connection: AsyncConnection, entries: Sequence[E], bodies: Mapping[str, str]) -> None:
        """Write down, in a transaction of somebody else, entries as they were elsewhere: with ids, versions and times.

        Their project is there. `bodies` are, by id, the texts by which those are found that have them in a file.

        Raises:
            Conflict: one with the id or name of one of them is there.
        """

        def prepared(entry: E) -> tuple[E, dict[str, Any]]:
            checked = self._checked(entry)
            title, own, more = self._texts(checked)
            body = bodies.get(entry.id, "") if own is None else own
            return checked, search.row(checked, self.kind.name, _project(checked) or "", title, body, more)

        # To cut many texts into words takes its time.
        ready = await in_thread(lambda: [prepared(entry) for entry in entries])
        rows = [await self._born(connection, entry) for entry, _ in ready]
        found = [words for _, words in ready]
        tagged = [{"kind": self.kind.name, "tag": tag, "entry": entry.id} for entry, _ in ready for tag in entry.tags]
        if rows:
            async with clashing(self, entries[0]):
                await connection.execute(insert(self.kind.table), rows)
        await search.add(connection, found)
        if tagged:
            await connection.execute(insert(tags), tagged)

    # What the kinds do otherwise.

    def _checked(self, entry: E) -> E:
        """The entry with values that can be kept."""
        kind = self.kind
        values: dict[str, Any] = {}
        for name in kind.lines:
            values[name] = check_line(getattr(entry, name), name, empty=name != "name")
        for name in kind.texts:
            values[name] = check_text(getattr(entry, name), name)
        for name in kind.documents:
            value = getattr(entry, name)
            values[name] = None if value is None else check_json(value, name)
        for name in kind.numbers:
            value = getattr(entry, name)
            values[name] = None if value is None else check_whole(value, name)
        return replace(entry, tags=check_tags(entry.tags), **values)

    async def _entries(self, connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[E]:
        """The entries that rows are."""
        return [self._read(row) for row in rows]

    def _read(self, row: Mapping[Any, Any]) -> E:
        values = {each.name: row[each.name] for each in fields(self.kind.entry)}
        return self.kind.entry(**{**values, "tags": tuple(values["tags"])})

    async def _born(self, connection: AsyncConnection, entry: E) -> dict[str, Any]:
        """The row that a new entry is."""
        return self._values(entry)

    def _values(self, entry: E) -> dict[str, Any]:
        """What of a row may be another after a change."""
        found = {each.name: getattr(entry, each.name) for each in fields(entry)}
        found["tags"] = list(entry.tags)
        return {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}

    def _texts(self, entry: E) -> tuple[str, str | None, tuple[str, ...]]:
        """By what it is found: its title, its body, and more words. The body None is what it was."""
        raise NotImplementedError

    def _name(self, row: Mapping[Any, Any]) -> str:
        return f"{self.kind.name} {row['id']}"

    async def _allow(self, connection: AsyncConnection, row: RowMapping, action: str) -> None:
        """Refuse what cannot be done to the entry as it stands."""

    async def _placed(self, connection: AsyncConnection, entry: E) -> E:
        """A new entry with its project by id, once it is known that this is there."""
        if not hasattr(entry, "project"):
            return entry
        found = await listing.project_of(connection, entry.project, locked=True)
        return replace(entry, project=found)  # type: ignore[call-arg]  # those that have one

    async def _create(self, connection: AsyncConnection, entry: E, body: str | None = None) -> E:
        """Write down a new entry. `body` is by what it is found, where the entry itself does not have that."""
        now = self._clock.wall()
        entry = await self._placed(connection, self._checked(entry))
        entry = replace(
            entry,
            id=self._identified(entry.id),
            version=1,
            created_at=entry.created_at or now,
            updated_at=entry.updated_at or now,
        )
        async with clashing(self, entry):
            await connection.execute(insert(self.kind.table).values(**await self._born(connection, entry)))
        await self._tag(connection, entry, ())
        await self._index(connection, entry, body)
        return entry

    async def _change(self, connection: AsyncConnection, row: RowMapping, changes: Mapping[str, Any]) -> E:
        kind = self.kind
        known = {each.name for each in fields(kind.entry)} - _FIXED - kind.fixed - {"project"}
        for name in changes:
            if name not in known:
                raise InvalidRequest(
                    f"{name!r} of a {kind.name} cannot be changed.",
                    f"These can: {', '.join(sorted(known))}.",
                    param=name,
                )
        old = (await self._entries(connection, [row]))[0]
        new = self._checked(replace(old, **changes))
        return old if new == old else await self._write(connection, old, new)

    async def _write(self, connection: AsyncConnection, old: E, new: E, body: str | None = None) -> E:
        """Replace an entry whose row is locked, as its next version. `body`: as for a new one, where it is another."""
        new = replace(new, version=old.version + 1, updated_at=self._clock.wall())
        table, kept = self.kind.table, self._values(old)
        values = {name: value for name, value in self._values(new).items() if value != kept[name]}
        async with clashing(self, new):
            await connection.execute(update(table).where(table.c.id == old.id).values(**values))
        if new.tags != old.tags:
            await self._tag(connection, new, old.tags)
        if (new.archived_at is None) != (old.archived_at is None) or (new.deleted_at is None) != (
            old.deleted_at is None
        ):
            marks = {"archived": new.archived_at is not None, "deleted": new.deleted_at is not None}
            await search.mark(connection, [new.id], **marks)
        told = (new.tags, _project(new), self._texts(new))
        if body is not None or told != (old.tags, _project(old), self._texts(old)):
            await self._index(connection, new, body)
        return new

    async def _archive(self, connection: AsyncConnection, row: RowMapping) -> E:
        old = (await self._entries(connection, [row]))[0]
        if old.archived_at is not None:
            return old
        return await self._write(connection, old, replace(old, archived_at=self._clock.wall()))

    async def _restore(self, connection: AsyncConnection, row: RowMapping) -> E:
        old = (await self._entries(connection, [row]))[0]
        if old.deleted_at is None:
            return (
                old if old.archived_at is None else await self._write(connection, old, replace(old, archived_at=None))
            )
        await self._placed(connection, old)
        return await self._write(connection, old, replace(old, deleted_at=None))

    async def _delete(self, connection: AsyncConnection, row: RowMapping) -> E:
        await self._allow(connection, row, "delete")
        old = (await self._entries(connection, [row]))[0]
        return await self._write(connection, old, replace(old, deleted_at=self._clock.wall()))

    async def _duplicate(self, connection: AsyncConnection, entry: E, name: str | None, project: str | None) -> E:
        return await self._create(connection, await self._copied(connection, entry, name, project))

    async def _copied(self, connection: AsyncConnection, entry: E, name: str | None, project: str | None) -> E:
        more: dict[str, Any] = {} if name is None else {"name": name}
        if project is not None:
            more["project"] = project
        return replace(entry, id="", created_at=0.0, updated_at=0.0, archived_at=None, deleted_at=None, **more)

    async def _move(self, connection: AsyncConnection, row: RowMapping, project: str) -> E:
        if "project" not in self.kind.table.c:
            raise NotSupported(f"A {self.kind.name} belongs to no project.", "Move what is in it.")
        await self._allow(connection, row, "move")
        target = await listing.project_of(connection, project, locked=True)
        old = (await self._entries(connection, [row]))[0]
        return old if _project(old) == target else await self._write(connection, old, replace(old, project=target))  # type: ignore[call-arg]

    async def _erase(self, connection: AsyncConnection, identifiers: Any) -> None:
        """Remove rows, and all that hangs on them; `identifiers` are ids, or a selection of them."""
        await search.forget(connection, identifiers)
        await connection.execute(delete(tags).where(tags.c.entry.in_(identifiers)))
        await connection.execute(delete(self.kind.table).where(self.kind.table.c.id.in_(identifiers)))

    # What is the same for all.

    def _identified(self, identifier: str) -> str:
        if not identifier:
            return f"{self.kind.prefix}-{secrets.token_hex(6)}"
        if not _ID.fullmatch(identifier) or not identifier.startswith(self.kind.prefix):
            raise InvalidRequest(f"{identifier[:80]!r} is no id of a {self.kind.name}.", "Leave it out.", param="id")
        return identifier

    async def _row(
        self, connection: AsyncConnection, identifier: str, *, deleted: bool = False, locked: bool = False
    ) -> RowMapping:
        row = await self._found(connection, identifier, deleted=deleted, locked=locked)
        if row is None:
            raise EntryNotFound.of(self.kind.name, identifier)
        return row

    async def _found(
        self,
        connection: AsyncConnection,
        identifier: str,
        *conditions: ColumnElement[bool],
        deleted: bool = False,
        locked: bool = False,
    ) -> RowMapping | None:
        """The row with that id or name, of those that meet the conditions; None where there is none."""
        if not sound(identifier):
            return None
        table = self.kind.table
        living = () if deleted else (table.c.deleted_at.is_(None),)
        base = (select(table).with_for_update() if locked else select(table)).where(*conditions, *living)
        row = (await connection.execute(base.where(table.c.id == identifier[:200]))).mappings().first()
        if row is None and self.kind.named:
            by_name = base.where(table.c.name == identifier[:200])
            row = self._chosen((await connection.execute(by_name)).mappings().all(), identifier)
        return row

    def _chosen(self, rows: Sequence[RowMapping], name: str) -> RowMapping | None:
        """Of several with that name the one that is not deleted, or else the one that was deleted last."""
        living = [row for row in rows if row["deleted_at"] is None]
        of_all = [row for row in living if row.get("project") == ""]
        if len(living) > 1 and not of_all:
            raise Conflict(
                f"There are {len(living)} {self.kind.name}s {name[:100]!r}, in several projects.",
                "Say which, by its id.",
            )
        if living:
            return (of_all or living)[0]
        return max(rows, key=lambda row: float(row["deleted_at"]), default=None)

    async def _held(
        self, connection: AsyncConnection, identifier: str, version: int | None, *, deleted: bool = False
    ) -> RowMapping:
        """The row, locked, with the version that the caller has seen."""
        row = await self._row(connection, identifier, deleted=deleted, locked=True)
        if version is not None and row["version"] != version:
            raise Stale(
                f"The {self._name(row)} has version {row['version']} by now, and not {version}.",
                "Read it again, and apply your change to what it is now.",
            )
        return row

    async def _do(
        self,
        identifier: str,
        version: int | None,
        act: Callable[[AsyncConnection, RowMapping], Awaitable[E]],
        *,
        deleted: bool = False,
    ) -> E:
        async def work(connection: AsyncConnection) -> E:
            return await act(connection, await self._held(connection, identifier, version, deleted=deleted))

        return await self._database.write(work)

    def _action(self, action: str, more: Mapping[str, Any]) -> Callable[[AsyncConnection, str], Awaitable[object]]:
        """One of a bulk: what is done to each id."""
        if action not in ACTIONS:
            raise InvalidRequest(f"{action[:40]!r} is no action.", f"Use one of: {', '.join(ACTIONS)}.", param="action")
        add, remove = check_tags(more.get("add", ())), check_tags(more.get("remove", ()))

        async def work(connection: AsyncConnection, identifier: str) -> object:
            gone = action in ("restore", "purge")
            row = await self._row(connection, identifier, deleted=gone, locked=True)
            if action == "tag":
                kept = [tag for tag in row["tags"] if tag not in remove]
                return await self._change(connection, row, {"tags": tuple(dict.fromkeys((*kept, *add)))})
            if action == "move":
                return await self._move(connection, row, str(more.get("project", "")))
            if action == "purge":
                await self._allow(connection, row, "purge")
                await self._erase(connection, [row["id"]])
                return None
            acts = {"archive": self._archive, "restore": self._restore, "delete": self._delete}
            return await acts[action](connection, row)

        return work

    async def _tag(self, connection: AsyncConnection, entry: E, before: Sequence[str]) -> None:
        gone = [tag for tag in before if tag not in entry.tags]
        if gone:
            await connection.execute(delete(tags).where(tags.c.entry == entry.id, tags.c.tag.in_(gone)))
        new = [{"kind": self.kind.name, "tag": tag, "entry": entry.id} for tag in entry.tags if tag not in before]
        if new:
            await connection.execute(insert(tags), new)

    async def _index(self, connection: AsyncConnection, entry: E, body: str | None) -> None:
        title, own, more = self._texts(entry)
        body = own if body is None else body
        if body is None:
            body = await search.body_of(connection, entry.id)
        await search.write(connection, entry, self.kind.name, _project(entry) or "", title, body, more)


class clashing:  # noqa: N801 — reads as what it is at its uses
    """Turns what the database says of a second entry with the same id or name into a `Conflict`."""

    def __init__(self, entries: Entries[Any], entry: Entry) -> None:
        self._kind, self._entry = entries.kind.name, entry

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, IntegrityError):
            name = getattr(self._entry, "name", self._entry.id)
            raise Conflict(
                f"There is a {self._kind} {name!r} already.", "Choose another name, or change that one.", param="name"
            ) from error


async def _each(
    connection: AsyncConnection, identifiers: Sequence[str], act: Callable[[AsyncConnection, str], Awaitable[object]]
) -> dict[str, str | None]:
    done: dict[str, str | None] = {}
    for identifier in identifiers:
        try:
            async with connection.begin_nested():
                await act(connection, identifier)
        except CorralError as error:
            done[identifier] = error.code
        else:
            done[identifier] = None
    return done


def _project(entry: Entry) -> str | None:
    return getattr(entry, "project", None)
