"""Pages of entries: filtered, sorted, and continued where the page before ended.

A page is found along an index and ends when it is full, so that it takes as long among many entries as among few. What
cannot be walked along, tags and words, is looked up first: few matches are fetched by their ids, of many the index is
walked and each entry looked at (`corral.workspace.search.narrowed`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Float, Integer, false, func, literal, select, tuple_
from sqlalchemy.sql import exists

from corral.db.workspace_tables import entry_tags as tags
from corral.db.workspace_tables import projects
from corral.errors import EntryNotFound, InvalidRequest, UnknownOption
from corral.workspace import search
from corral.workspace.cursors import Cursor, pack, unpack
from corral.workspace.soundness import check_tags, check_text, check_whole, sound

if TYPE_CHECKING:
    from sqlalchemy import Column, RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.domain.workspace import Query
    from corral.workspace.rows import Kind

MOST = 500
"""Entries of a page, at most."""

_ID = re.compile(r"prj-[0-9a-f]{12}")
_SPANS = {"created_after": "created_at", "created_before": "created_at"} | {
    "updated_after": "updated_at",
    "updated_before": "updated_at",
}
_MANY = 100  # values of one filter


async def page(connection: AsyncConnection, kind: Kind[Any], query: Query) -> tuple[Sequence[RowMapping], str | None]:
    """The rows of a page, and the cursor of the next.

    Raises:
        InvalidRequest: the query asks for what this kind has not, or its cursor is made up.
        EntryNotFound: it names a project that is not there.
    """
    if not 1 <= query.limit <= MOST:
        raise InvalidRequest(f"limit has to be from 1 to {MOST}.", "Ask for the next page with cursor.", param="limit")
    conditions = await _conditions(connection, kind, query)
    column, down = _sorted(kind, query.sort)
    own = kind.table.c.id
    if query.cursor is not None:
        last = unpack(query.cursor, query.sort, _type(column))
        pair, at = tuple_(column, own), tuple_(literal(last.value, column.type), literal(last.id, own.type))
        conditions.append(pair < at if down else pair > at)
    order = (column.desc(), own.desc()) if down else (column.asc(), own.asc())
    wanted = select(kind.table).where(*conditions).order_by(*order).limit(query.limit + 1)
    rows = (await connection.execute(wanted)).mappings().all()
    if len(rows) <= query.limit:
        return rows, None
    final = rows[query.limit - 1]
    return rows[: query.limit], pack(Cursor(query.sort, final[column.name], final["id"]))


async def count(connection: AsyncConnection, kind: Kind[Any], query: Query) -> int:
    """How many entries the query asks for."""
    conditions = await _conditions(connection, kind, query, whole=True)
    found = await connection.execute(select(func.count()).select_from(kind.table).where(*conditions))
    return int(found.scalar_one())


async def ids(connection: AsyncConnection, kind: Kind[Any], query: Query, most: int) -> list[str]:
    """The ids of all entries that the query asks for, `most` at most, in its order."""
    conditions = await _conditions(connection, kind, query, whole=True)
    column, down = _sorted(kind, query.sort)
    order = column.desc() if down else column.asc()
    found = await connection.execute(select(kind.table.c.id).where(*conditions).order_by(order).limit(most))
    return list(found.scalars())


async def project_of(connection: AsyncConnection, project: str, *, deleted: bool = False, locked: bool = False) -> str:
    """The id of the project with that id or name; `locked`, it stays there until the transaction ends.

    Raises:
        EntryNotFound: there is none, or it is deleted.
    """
    check_text(project, "project")
    wanted = projects.c.id if _ID.fullmatch(project) else projects.c.name
    base = select(projects.c.id, projects.c.deleted_at).where(wanted == project[:200])
    rows = (await connection.execute(base.with_for_update(read=True) if locked else base)).all()
    found = [row for row in rows if deleted or row.deleted_at is None]
    if not found:
        raise EntryNotFound(
            f"There is no project {project[:100]!r}.", "See them: corral projects list", param="project"
        )
    return str(max(found, key=lambda row: row.deleted_at or float("inf")).id)


async def _conditions(
    connection: AsyncConnection, kind: Kind[Any], query: Query, *, whole: bool = False
) -> list[ColumnElement[bool]]:
    """What the query asks for. `whole`: all of it is wanted, and not only a page."""
    table, project = kind.table, None
    found = [table.c.deleted_at.is_not(None) if query.deleted else table.c.deleted_at.is_(None)]
    if query.archived is not None:
        found.append(table.c.archived_at.is_not(None) if query.archived else table.c.archived_at.is_(None))
    if query.project is not None:
        project = await project_of(connection, query.project, deleted=query.deleted)
        found.append((table.c.project if "project" in table.c else table.c.id) == project)
    if query.within is not None:
        home = table.c.project if "project" in table.c else table.c.id
        found.append(home.in_(("", *query.within)))  # without a project is what is for all of them
    for name, value in query.filters.items():
        found.append(_filter(kind, name, value))
    for tag in check_tags(query.tags):
        among = select(tags.c.entry).where(tags.c.kind == kind.name, tags.c.tag == tag)
        each = exists().where(tags.c.kind == kind.name, tags.c.tag == tag, tags.c.entry == table.c.id)
        found.append(table.c.id.in_(among) if whole else await search.narrowed(connection, among, each, table.c.id))
    if query.search.strip():
        inside = project if "project" in table.c else None
        words = search.wanted(check_text(query.search, "search"), (kind.name,), inside)
        if words is None:
            return [*found, false()]
        among, each = search.matching(connection, words), search.having(connection, words, table.c.id)
        found.append(table.c.id.in_(among) if whole else await search.narrowed(connection, among, each, table.c.id))
    return found


def _filter(kind: Kind[Any], name: str, value: Any) -> ColumnElement[bool]:
    known: Mapping[str, type] = kind.filters or {}
    if name in _SPANS:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            raise InvalidRequest(f"{name} has to be Unix seconds.", param=name)
        column = kind.table.c[_SPANS[name]]
        return column > float(value) if name.endswith("after") else column < float(value)
    if name not in known:
        raise UnknownOption.among(name, [*known, *_SPANS], f"a list of {kind.name}s")
    column = kind.table.c[name]
    if value is None:
        return column.is_(None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > _MANY:
            raise InvalidRequest(f"{name} has more than {_MANY} values.", param=name)
        return column.in_([_asked(known[name], name, each) for each in value])
    return column == _asked(known[name], name, value)


def _asked(form: type, name: str, value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if form is int:
        return check_whole(value, name)
    if not isinstance(value, form) or (isinstance(value, str) and not sound(value)):
        raise InvalidRequest(f"{name} has to be of type {form.__name__}.", param=name)
    return value


def _sorted(kind: Kind[Any], sort: str) -> tuple[Column[Any], bool]:
    name = sort.removeprefix("-")
    if name not in kind.sorts:
        raise InvalidRequest(
            f"{kind.name.capitalize()}s cannot be sorted by {name[:40]!r}.",
            f"Use one of: {', '.join(kind.sorts)}; '-' before it is downwards.",
            param="sort",
        )
    return kind.table.c[name], sort.startswith("-")


def _type(column: Column[Any]) -> type:
    if isinstance(column.type, Float):
        return float
    return int if isinstance(column.type, Integer) else str
