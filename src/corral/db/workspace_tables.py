"""The tables of the workspace: projects and what is in them, their tags, and the words by which they are found.

Words are looked for with FTS5 in SQLite and with a `tsvector` in PostgreSQL, both over the same words: those in
`entry_texts.words`, which `corral.workspace.words` cuts. So both find the same.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import TEXT

metadata = MetaData()
"""What all tables of Corral belong to; the others are in `corral.db.tables`."""

_DELETED = text("deleted_at IS NOT NULL")
_ARCHIVED = text("archived_at IS NOT NULL")
_HERE = text("deleted_at IS NULL")
_MADE = text("run IS NOT NULL")


def _word(name: str, *, nullable: bool = False) -> Column[str]:
    """Text that is sorted by its characters, in every database alike."""
    return Column(name, Text().with_variant(TEXT(collation="C"), "postgresql"), nullable=nullable)


def _entry() -> tuple[Column[Any], ...]:
    return (
        Column("id", String(40), primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("created_at", Double, nullable=False),
        Column("updated_at", Double, nullable=False),
        Column("archived_at", Double),
        Column("deleted_at", Double),
        Column("tags", JSON, nullable=False),
    )


def _pauses() -> Column[Any]:
    """Seconds for which nobody was at it."""
    return Column("paused_seconds", Double, nullable=False, server_default=text("0"))


def _shelves(name: str) -> tuple[Index, ...]:
    return (
        Index(f"{name}_by_change", "updated_at", "id"),
        Index(f"{name}_deleted", "deleted_at", sqlite_where=_DELETED, postgresql_where=_DELETED),
        Index(f"{name}_archived", "archived_at", sqlite_where=_ARCHIVED, postgresql_where=_ARCHIVED),
    )


def _measures() -> tuple[Column[int], ...]:
    return tuple(Column(name, BigInteger, nullable=False) for name in ("cost", "input_tokens", "output_tokens"))


projects = Table(
    "projects",
    metadata,
    *_entry(),
    _word("name"),
    _word("title"),
    Column("description", Text, nullable=False),
    Column("settings", JSON, nullable=False),
    *_shelves("projects"),
    Index("projects_by_name", "name", unique=True, sqlite_where=_HERE, postgresql_where=_HERE),
)
"""What is worked on. Of those that are not deleted, one has a name."""

contexts = Table(
    "contexts",
    metadata,
    *_entry(),
    Column("project", String(40), nullable=False),
    Column("kind", String(20), nullable=False),
    _word("name"),
    Column("position", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("variables", JSON, nullable=False),
    Column("digest", String(64)),
    Column("size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    *_shelves("contexts"),
    Index("contexts_of", "project", "position", "id"),
    Index("contexts_changed", "project", "updated_at", "id"),
    Index("contexts_by_digest", "digest"),
)
"""Material. `digest` is the SHA-256 of the bytes of a file, which lie on disk."""

pipelines = Table(
    "pipelines",
    metadata,
    *_entry(),
    Column("project", String(40), nullable=False),
    _word("name"),
    Column("source", Text, nullable=False),
    Column("description", Text, nullable=False),
    *_shelves("pipelines"),
    Index("pipelines_by_name", "project", "name", unique=True, sqlite_where=_HERE, postgresql_where=_HERE),
    Index("pipelines_changed", "project", "updated_at", "id"),
)
"""Pipelines as YAML. `project` is empty for one of all projects."""

snapshots = Table(
    "snapshots",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("body", Text, nullable=False),
    Column("used_at", Double, nullable=False),
)
"""What runs were given, as JSON: equal ones are there once. Those that no run names go some time after `used_at`."""

runs = Table(
    "runs",
    metadata,
    *_entry(),
    Column("project", String(40), nullable=False),
    _word("name"),
    Column("source", String(64), nullable=False),
    Column("pipeline", String(40)),
    _word("title"),
    Column("inputs", JSON, nullable=False),
    Column("material", String(64), nullable=False),
    Column("models", JSON, nullable=False),
    Column("seed", BigInteger),
    Column("budget", BigInteger),
    Column("caller", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("operation", String(40)),
    Column("rerun_of", String(40)),
    Column("environment", JSON, nullable=False),
    Column("reproducible", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("started_at", Double),
    Column("ended_at", Double),
    *_measures(),
    Column("steps_total", BigInteger, nullable=False),
    Column("steps_done", BigInteger, nullable=False),
    _pauses(),
    Column("paused_at", Double),
    *_shelves("runs"),
    Index("runs_changed", "project", "updated_at", "id"),
    Index("runs_created", "project", "created_at", "id"),
    Index("runs_by_name", "project", "name", "id"),
    Index("runs_by_cost", "project", "cost", "id"),
    Index("runs_by_status", "project", "status", "updated_at", "id"),
    Index("runs_with_status", "status", "updated_at", "id"),
    Index("runs_of_pipeline", "pipeline", "updated_at", "id"),
    Index("runs_of_run", "rerun_of"),
    Index("runs_by_source", "source"),
    Index("runs_by_material", "material"),
)
"""Executions. `source` and `material` are the digests of their snapshots; `cost` is in nanodollars."""

steps = Table(
    "steps",
    metadata,
    Column("run", String(40), nullable=False),
    Column("key", String(200), nullable=False),
    Column("name", Text, nullable=False),
    Column("index", BigInteger),
    Column("position", BigInteger, nullable=False),
    Column("status", String(20), nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("model", Text),
    Column("request_id", Text),
    Column("request", JSON(none_as_null=True)),
    Column("output", Text),
    Column("value", JSON(none_as_null=True)),
    Column("receipt", JSON(none_as_null=True)),
    Column("tries", JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("started_at", Double),
    Column("ended_at", Double),
    *_measures(),
    _pauses(),
    PrimaryKeyConstraint("run", "key", name="steps_key"),
)
"""The steps of runs; of one that fans out, one for each item."""

artifacts = Table(
    "artifacts",
    metadata,
    *_entry(),
    Column("project", String(40), nullable=False),
    _word("name"),
    _word("kind"),
    Column("media_type", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    _word("title"),
    Column("run", String(40)),
    Column("step", String(200)),
    *_shelves("artifacts"),
    Index("artifacts_changed", "project", "updated_at", "id"),
    Index("artifacts_created", "project", "created_at", "id"),
    Index("artifacts_by_name", "project", "name", "id"),
    Index("artifacts_by_size", "project", "size", "id"),
    Index("artifacts_by_kind", "project", "kind", "updated_at", "id"),
    Index("artifacts_of_kind", "kind", "updated_at", "id"),
    Index("artifacts_of_run", "run", "step"),
    Index("artifacts_by_digest", "digest"),
)
"""What came of runs, or was put there by hand. `number` is that of the newest edition."""

editions = Table(
    "editions",
    metadata,
    Column("artifact", String(40), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("run", String(40)),
    Column("step", String(200)),
    Column("made_as", Text, nullable=False),
    Column("model", Text),
    Column("request_id", Text),
    Column("problems", JSON, nullable=False),
    Column("note", Text, nullable=False),
    PrimaryKeyConstraint("artifact", "number", name="editions_key"),
    Index("editions_once", "run", "step", "made_as", unique=True, sqlite_where=_MADE, postgresql_where=_MADE),
    Index("editions_by_digest", "digest"),
)
"""The versions of artifacts. A step of a run makes one of a name, `made_as`, once."""

entry_tags = Table(
    "entry_tags",
    metadata,
    Column("kind", String(20), nullable=False),
    _word("tag"),
    Column("entry", String(40), nullable=False),
    PrimaryKeyConstraint("kind", "tag", "entry", name="entry_tags_key"),
    Index("entry_tags_of", "entry"),
)
"""Which entries have a tag; the same as the entries' own `tags`."""

entry_texts = Table(
    "entry_texts",
    metadata,
    # The order in which they were written: the last is the newest.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("entry", String(40), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("project", String(40), nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("words", Text, nullable=False),
    Index("entry_texts_of", "project", "kind", "number"),
    Index("entry_texts_by_kind", "kind", "number"),
)
"""By what entries are found: `words`, each once, with a space before and after each. `body` is for what is shown."""

WORDS = (
    (
        "CREATE VIRTUAL TABLE entry_words USING fts5"
        " (words, content='entry_texts', content_rowid='number', tokenize='ascii', detail=none)"
    ),
    (
        "CREATE TRIGGER entry_texts_came AFTER INSERT ON entry_texts BEGIN"
        " INSERT INTO entry_words (rowid, words) VALUES (new.number, new.words); END"
    ),
    (
        "CREATE TRIGGER entry_texts_went AFTER DELETE ON entry_texts BEGIN"
        " INSERT INTO entry_words (entry_words, rowid, words) VALUES ('delete', old.number, old.words); END"
    ),
    (
        "CREATE TRIGGER entry_texts_changed AFTER UPDATE OF words ON entry_texts BEGIN"
        " INSERT INTO entry_words (entry_words, rowid, words) VALUES ('delete', old.number, old.words);"
        " INSERT INTO entry_words (rowid, words) VALUES (new.number, new.words); END"
    ),
)
"""The index of words of SQLite, which follows `entry_texts` by itself."""

DOCUMENT = (
    (
        "ALTER TABLE entry_texts ADD COLUMN document tsvector"
        " GENERATED ALWAYS AS (array_to_tsvector(string_to_array(btrim(words), ' '))) STORED"
    ),
    "CREATE INDEX entry_texts_document ON entry_texts USING gin (document) WITH (fastupdate = off)",
)
"""That of PostgreSQL."""


@event.listens_for(entry_texts, "after_create")
def _index(_table: Table, connection: Connection, **_: Any) -> None:
    for statement in WORDS if connection.dialect.name == "sqlite" else DOCUMENT:
        connection.exec_driver_sql(statement)


@event.listens_for(entry_texts, "after_drop")
def _drop_index(_table: Table, connection: Connection, **_: Any) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TABLE IF EXISTS entry_words")
