"""Pages of entries: filtered, sorted, and continued where the page before ended.

A page is found along an index and ends when it is full, so that it takes as long among many entries as among few. What
cannot be walked along, tags and words, is looked up first: few matches are fetched by their ids, of many the index is
walked and each entry looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Float, Integer, Select, false, func, literal, select, tuple_
from sqlalchemy.sql import exists

from corral.db.workspace_tables import entry_tags as tags
from corral.db.workspace_tables import projects
from corral.errors import EntryNotFound, InvalidRequest, UnknownOption
from corral.workspace import search
from corral.workspace.cursors import Cursor, pack, unpack
from corral.workspace.soundness import check_tags, check_text, check_whole, sound

if TYPE_CHECKING:
    from sqlalchemy import FromClause, RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.domain.workspace import Query
    from corral.workspace.kinds import Kind

MOST = 500
"""Entries of a page, at most."""

_ID = re.compile(r"prj-[0-9a-f]{12}")
_SPANS = {"created_after": "created_at", "created_before": "created_at"} | {
    "updated_after": "updated_at",
    "updated_before": "updated_at",
}
FEW = 250
_MANY = 100  # values of one filter


async def page(
    connection: AsyncConnection, kind: Kind[Any], query: Query, *, few: int = FEW, names: Sequence[str] = ()
) -> tuple[Sequence[RowMapping], str | None]:
    """The rows of a page, and the cursor of the next.

    Up to `few` matches of a tag or of words are fetched and sorted; of more, the sorted entries are looked at in turn.
    `names` are the columns that are read, those of filters and order among them; none are all.

    Raises:
        InvalidRequest: the query asks for what this kind has not, or its cursor is made up.
        EntryNotFound: it names a project that is not there.
    """
    if not 1 <= query.limit <= MOST:
        raise InvalidRequest(f"limit has to be from 1 to {MOST}.", "Ask for the next page with cursor.", param="limit")
    name, down = _sorted(kind, query.sort)
    project = await _project(connection, query)
    found, more = await _looked_up(connection, _lookups(connection, kind, query, project), few)
    source: FromClause = kind.table
    columns = [column for column in kind.table.c if not names or column.name in names]
    if found is not None:
        # Made first, by the ids: whatever a planner thinks of the other conditions, it does not walk an index for few.
        source = select(*columns).where(kind.table.c.id.in_(found)).cte("few").prefix_with("MATERIALIZED")
    conditions = [*_conditions(kind, query, source, project), *(each(source.c.id) for each in more)]
    column, own = source.c[name], source.c.id
    if query.cursor is not None:
        last = unpack(query.cursor, query.sort, _type(column))
        pair, at = tuple_(column, own), tuple_(literal(last.value, column.type), literal(last.id, own.type))
        conditions.append(pair < at if down else pair > at)
    order = (column.desc(), own.desc()) if down else (column.asc(), own.asc())
    read = [source.c[column.name] for column in columns]
    wanted = select(*read).where(*conditions).order_by(*order).limit(query.limit + 1)
    rows = (await connection.execute(wanted)).mappings().all()
    if len(rows) <= query.limit:
        return rows, None
    final = rows[query.limit - 1]
    return rows[: query.limit], pack(Cursor(query.sort, final[name], final["id"]))


async def count(connection: AsyncConnection, kind: Kind[Any], query: Query) -> int:
    """How many entries the query asks for."""
    conditions = await _whole(connection, kind, query)
    found = await connection.execute(select(func.count()).select_from(kind.table).where(*conditions))
    return int(found.scalar_one())


async def ids(connection: AsyncConnection, kind: Kind[Any], query: Query, most: int) -> list[str]:
    """The ids of all entries that the query asks for, `most` at most, in its order."""
    conditions = await _whole(connection, kind, query)
    name, down = _sorted(kind, query.sort)
    column, own = kind.table.c[name], kind.table.c.id
    order = (column.desc(), own.desc()) if down else (column.asc(), own.asc())
    found = await connection.execute(select(own).where(*conditions).order_by(*order).limit(most))
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


class _Lookup(NamedTuple):
    """What is not a column of an entry: the ids of the entries that have it, and whether one has it."""

    among: Select[Any]
    each: Callable[[ColumnElement[Any]], ColumnElement[bool]]


def _lookups(connection: AsyncConnection, kind: Kind[Any], query: Query, project: str | None) -> list[_Lookup]:
    """The tags and words that the query asks for."""
    found = []
    for tag in check_tags(query.tags):
        mine = (tags.c.kind == kind.name) & (tags.c.tag == tag)
        found.append(_Lookup(select(tags.c.entry).where(mine), partial(_tagged, mine)))
    if query.search.strip():
        inside = project if "project" in kind.table.c else None
        words = search.wanted(check_text(query.search, "search"), (kind.name,), inside)
        if words is None:
            found.append(_Lookup(select(tags.c.entry).where(false()), lambda _: false()))
        else:
            found.append(_Lookup(search.matching(connection, words), partial(search.having, connection, words)))
    return found


def _tagged(mine: ColumnElement[bool], identifier: ColumnElement[Any]) -> ColumnElement[bool]:
    return exists().where(mine, tags.c.entry == identifier)


async def _looked_up(
    connection: AsyncConnection, lookups: Sequence[_Lookup], most: int
) -> tuple[set[str] | None, list[Callable[[ColumnElement[Any]], ColumnElement[bool]]]]:
    """The ids of the entries that are left, where those are few, and what is still to be asked of each entry."""
    few: set[str] | None = None
    more = []
    for lookup in lookups:
        found = (await connection.execute(lookup.among.limit(search.bounded(most + 1)))).scalars().all()
        if len(found) > most:
            more.append(lookup.each)
        else:
            few = set(found) if few is None else few & set(found)
    return few, more


async def _whole(connection: AsyncConnection, kind: Kind[Any], query: Query) -> list[ColumnElement[bool]]:
    """The conditions where all entries are wanted that meet them, and not only a page."""
    project = await _project(connection, query)
    looked = [kind.table.c.id.in_(each.among.order_by(None)) for each in _lookups(connection, kind, query, project)]
    return [*_conditions(kind, query, kind.table, project), *looked]


async def _project(connection: AsyncConnection, query: Query) -> str | None:
    return None if query.project is None else await project_of(connection, query.project, deleted=query.deleted)


def _conditions(kind: Kind[Any], query: Query, source: FromClause, project: str | None) -> list[ColumnElement[bool]]:
    """What the query asks of the columns of an entry."""
    found: list[ColumnElement[bool]] = [
        source.c.deleted_at.is_not(None) if query.deleted else source.c.deleted_at.is_(None)
    ]
    if query.archived is not None:
        found.append(source.c.archived_at.is_not(None) if query.archived else source.c.archived_at.is_(None))
    home = source.c.project if "project" in source.c else source.c.id
    if project is not None:
        found.append(home == project)
    if query.within is not None:
        found.append(home.in_(("", *query.within)))  # without a project is what is for all of them
    return [*found, *(_filter(kind, source, name, value) for name, value in query.filters.items())]


def _filter(kind: Kind[Any], source: FromClause, name: str, value: Any) -> ColumnElement[bool]:
    known: Mapping[str, type] = kind.filters or {}
    if name in _SPANS:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            raise InvalidRequest(f"{name} has to be Unix seconds.", param=name)
        span: ColumnElement[Any] = source.c[_SPANS[name]]
        return span > float(value) if name.endswith("after") else span < float(value)
    if name not in known:
        raise UnknownOption.among(name, [*known, *_SPANS], f"a list of {kind.name}s")
    column: ColumnElement[Any] = source.c[name]
    if value is None:
        return column.is_(None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > _MANY:
            raise InvalidRequest(f"{name} has more than {_MANY} values.", param=name)
        return column.in_([_asked(known[name], name, each) for each in value])
    asked: ColumnElement[bool] = column == _asked(known[name], name, value)
    return asked


def _asked(form: type, name: str, value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if form is int:
        return check_whole(value, name)
    if not isinstance(value, form) or (isinstance(value, str) and not sound(value)):
        raise InvalidRequest(f"{name} has to be of type {form.__name__}.", param=name)
    return value


def _sorted(kind: Kind[Any], sort: str) -> tuple[str, bool]:
    name = sort.removeprefix("-")
    if name not in kind.sorts:
        raise InvalidRequest(
            f"{kind.name.capitalize()}s cannot be sorted by {name[:40]!r}.",
            f"Use one of: {', '.join(kind.sorts)}; '-' before it is downwards.",
            param="sort",
        )
    return name, sort.startswith("-")


def _type(column: ColumnElement[Any]) -> type:
    if isinstance(column.type, Float):
        return float
    return int if isinstance(column.type, Integer) else str
