"""The words of entries in the database: written with every change of an entry's texts, and looked for.

Both databases keep the same words (`corral.workspace.words`) and so find the same. What is found comes the newest text
first: no order by merit, which would need every match to be weighed before the first could be shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR
from sqlalchemy.sql import and_, column, or_, table

from corral.db.workspace_tables import entry_texts as texts
from corral.domain.workspace import Hit, Page
from corral.workspace.cursors import Cursor, pack, unpack
from corral.workspace.words import MARKS, TEXT, Word, asked, excerpt, mark_of_kind, mark_of_project, unmarked, words_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_SORT = "-number"
_words = table("entry_words", column("rowid"), column("entry_words"))
_document: ColumnElement[Any] = column("document", TSVECTOR)

Words = tuple[tuple[Word, ...], ...]
"""What is looked for: of each of these, any."""


async def write(
    connection: AsyncConnection, entry: Any, kind: str, project: str, title: str, body: str, more: Iterable[str]
) -> None:
    """Let the entry be found by these texts. `body` is what excerpts are taken from; `more` is not shown."""
    await connection.execute(delete(texts).where(texts.c.entry == entry.id))
    await connection.execute(texts.insert(), [row(entry, kind, project, title, body, more)])


def row(entry: Any, kind: str, project: str, title: str, body: str, more: Iterable[str]) -> dict[str, Any]:
    """What is written so that the entry is found by these texts."""
    return {
        "entry": entry.id,
        "kind": kind,
        "project": project,
        "archived": entry.archived_at is not None,
        "deleted": entry.deleted_at is not None,
        "title": title,
        "body": body[:TEXT],
        "words": words_of((title, body, *more, *entry.tags), kind=kind, project=project),
    }


async def add(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Let new entries be found, by what `row` says of each."""
    if rows:
        await connection.execute(texts.insert(), rows)


async def body_of(connection: AsyncConnection, entry: str) -> str:
    """The body with which it was written last."""
    return (await connection.execute(select(texts.c.body).where(texts.c.entry == entry))).scalar_one_or_none() or ""


async def mark(connection: AsyncConnection, entries: Any, **marks: bool) -> None:
    """Let entries (ids, or a selection of them) be `archived` or `deleted`, or no longer."""
    await connection.execute(update(texts).where(texts.c.entry.in_(entries)).values(**marks))


async def forget(connection: AsyncConnection, entries: Any) -> None:
    """Let the entries be found no more."""
    await connection.execute(delete(texts).where(texts.c.entry.in_(entries)))


def wanted(
    search: str, kinds: Collection[str], project: str | None, within: Collection[str] | None = None
) -> Words | None:
    """What is looked for; None when nothing can be found: the text has no word, or `within` no project."""
    found = asked(search)
    if not found or (within is not None and not within):
        return None
    words: list[tuple[Word, ...]] = [(word,) for word in found]
    if kinds:
        words.append(tuple(Word(mark_of_kind(kind)) for kind in kinds))
    if project:
        words.append((Word(mark_of_project(project)),))
    if within is not None:
        words.append(tuple(Word(mark_of_project(each)) for each in within))
    return tuple(words)


def matching(connection: AsyncConnection, words: Words) -> Select[Any]:
    """The ids of the entries that have the words, found by the index of words: the newest text first."""
    return select(texts.c.entry).where(_indexed(connection, words)).order_by(_number(connection).desc())


def having(connection: AsyncConnection, words: Words, identifier: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the entry with that id has the words, found by looking at that entry."""
    within = func.strpos if connection.dialect.name == "postgresql" else func.instr
    looked = [or_(*(within(texts.c.words, _within(word)) > 0 for word in group)) for group in words]
    return exists().where(texts.c.entry == identifier, *looked)


async def find(
    connection: AsyncConnection, words: Words, *, archived: bool | None, limit: int, cursor: str | None
) -> Page[Hit]:
    """A page of what has the words and is not deleted, the newest text first."""
    order = _number(connection)
    conditions = [_indexed(connection, words), texts.c.deleted.is_(False)]
    if archived is not None:
        conditions.append(texts.c.archived.is_(archived))
    if cursor is not None:
        conditions.append(order < unpack(cursor, _SORT, int).value)
    rows = (
        await connection.execute(select(texts).where(*conditions).order_by(order.desc()).limit(bounded(limit + 1)))
    ).mappings()
    found: Sequence[Any] = rows.all()
    shown = [word for group in words for word in group]
    items = tuple(
        Hit(row["kind"], row["entry"], row["project"] or None, row["title"], excerpt(row["body"], shown))
        for row in found[:limit]
    )
    more = len(found) > limit
    return Page(items, pack(Cursor(_SORT, found[limit - 1]["number"], items[-1].id)) if more else None)


def _number(connection: AsyncConnection) -> ColumnElement[int]:
    """What to sort by for the newest first: SQLite's index of words goes along its own numbers, which costs nothing.

    And PostgreSQL, of words that many have, then goes along the numbers and not through all that have them.
    """
    return _words.c.rowid if connection.dialect.name == "sqlite" else texts.c.number


def _indexed(connection: AsyncConnection, words: Words) -> ColumnElement[bool]:
    if connection.dialect.name == "sqlite":
        query = " AND ".join(f"({' OR '.join(map(_token, group))})" for group in words)
        return and_(
            _words.c.rowid == texts.c.number, text("entry_words.entry_words MATCH :words").bindparams(words=query)
        )
    conditions = [_marked(group) for group in words if group[0].text[0] in MARKS]
    query = " & ".join(f"({' | '.join(map(_lexeme, group))})" for group in words if group[0].text[0] not in MARKS)
    # PostgreSQL plans a statement that it has met before without looking at what is asked; how many have these words
    # decides what is quick. So they are part of the statement.
    said = bindparam(None, query, type_=SqlText, literal_execute=True)
    return and_(*conditions, _document.op("@@", is_comparison=True)(cast(said, TSQUERY)))


def _marked(group: tuple[Word, ...]) -> ColumnElement[bool]:
    """Whether an entry has one of the marks, by the columns that say the same: PostgreSQL walks along those."""
    said = [unmarked(word.text) for word in group]
    column = texts.c.project if said[0].startswith("prj-") else texts.c.kind
    return or_(*(column == bindparam(None, each, type_=SqlText, literal_execute=True) for each in said))


def bounded(limit: int) -> ColumnElement[int]:
    """A limit that is part of the statement, for the same reason."""
    return literal_column(str(int(limit)), Integer)


def _token(word: Word) -> str:
    """As FTS5 reads it. A word has no quotation mark in it."""
    return f'"{word.text}"{" *" if word.begins else ""}'


def _lexeme(word: Word) -> str:
    """As PostgreSQL reads it. A word has neither quotation mark nor backslash in it."""
    return f"'{word.text}'{':*' if word.begins else ''}"


def _within(word: Word) -> str:
    return f" {word.text}" if word.begins else f" {word.text} "
