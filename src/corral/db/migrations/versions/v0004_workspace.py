"""Projects, contexts, pipelines, runs, steps and artifacts; their tags, and the words by which they are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    _projects()
    _contexts()
    _pipelines()
    _runs()
    _steps()
    _artifacts()
    _finding()


def _word(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text().with_variant(TEXT(collation="C"), "postgresql"), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _json(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON, nullable=nullable)


def _measures() -> list[sa.Column[Any]]:
    return [_big(name) for name in ("cost", "input_tokens", "output_tokens")]


def _entry(table: str, columns: Sequence[sa.Column[Any]], **indexes: Sequence[str]) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.String(40), primary_key=True),
        _big("version"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("archived_at", sa.Double),
        sa.Column("deleted_at", sa.Double),
        _json("tags"),
        *columns,
    )
    op.create_index(f"{table}_by_change", table, ["updated_at", "id"])
    for name in ("deleted", "archived"):
        where = sa.text(f"{name}_at IS NOT NULL")
        op.create_index(f"{table}_{name}", table, [f"{name}_at"], sqlite_where=where, postgresql_where=where)
    for name, over in indexes.items():
        op.create_index(f"{table}_{name}", table, list(over))


def _once(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=True, sqlite_where=where, postgresql_where=where)


def _projects() -> None:
    _entry("projects", [_word("name"), _word("title"), _text("description"), _json("settings")])
    _once("projects_by_name", "projects", ["name"], "deleted_at IS NULL")


def _contexts() -> None:
    columns: list[sa.Column[Any]] = [
        sa.Column("project", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        _word("name"),
        _big("position"),
        _text("text"),
        _json("variables"),
        sa.Column("digest", sa.String(64)),
        _big("size"),
        _text("media_type"),
        sa.Column("enabled", sa.Boolean, nullable=False),
    ]
    _entry(
        "contexts",
        columns,
        of=["project", "position", "id"],
        changed=["project", "updated_at", "id"],
        by_digest=["digest"],
    )


def _pipelines() -> None:
    project: sa.Column[Any] = sa.Column("project", sa.String(40), nullable=False)
    columns = [project, _word("name"), _text("source"), _text("description")]
    _entry("pipelines", columns, changed=["project", "updated_at", "id"])
    _once("pipelines_by_name", "pipelines", ["project", "name"], "deleted_at IS NULL")


def _runs() -> None:
    op.create_table(
        "snapshots",
        sa.Column("digest", sa.String(64), primary_key=True),
        _text("body"),
        sa.Column("used_at", sa.Double, nullable=False),
    )
    columns: list[sa.Column[Any]] = [
        sa.Column("project", sa.String(40), nullable=False),
        _word("name"),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("pipeline", sa.String(40)),
        _word("title"),
        _json("inputs"),
        sa.Column("material", sa.String(64), nullable=False),
        _json("models"),
        _big("seed", nullable=True),
        _big("budget", nullable=True),
        _text("caller"),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("operation", sa.String(40)),
        sa.Column("rerun_of", sa.String(40)),
        _json("environment"),
        _json("reproducible"),
        _json("error", nullable=True),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        *_measures(),
        _big("steps_total"),
        _big("steps_done"),
    ]
    _entry(
        "runs",
        columns,
        changed=["project", "updated_at", "id"],
        created=["project", "created_at", "id"],
        by_name=["project", "name", "id"],
        by_cost=["project", "cost", "id"],
        by_status=["project", "status", "updated_at", "id"],
        with_status=["status", "updated_at", "id"],
        of_pipeline=["pipeline", "updated_at", "id"],
        of_run=["rerun_of"],
        by_source=["source"],
        by_material=["material"],
    )


def _steps() -> None:
    op.create_table(
        "steps",
        sa.Column("run", sa.String(40), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        _text("name"),
        _big("index", nullable=True),
        _big("position"),
        sa.Column("status", sa.String(20), nullable=False),
        _big("attempt"),
        _text("model", nullable=True),
        _text("request_id", nullable=True),
        _json("request", nullable=True),
        _text("output", nullable=True),
        _json("value", nullable=True),
        _json("receipt", nullable=True),
        _json("tries"),
        _text("reason"),
        _json("error", nullable=True),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        *_measures(),
        sa.PrimaryKeyConstraint("run", "key", name="steps_key"),
    )


def _artifacts() -> None:
    columns: list[sa.Column[Any]] = [
        sa.Column("project", sa.String(40), nullable=False),
        _word("name"),
        _word("kind"),
        _text("media_type"),
        sa.Column("digest", sa.String(64), nullable=False),
        _big("size"),
        _big("number"),
        _word("title"),
        sa.Column("run", sa.String(40)),
        sa.Column("step", sa.String(200)),
    ]
    _entry(
        "artifacts",
        columns,
        changed=["project", "updated_at", "id"],
        created=["project", "created_at", "id"],
        by_name=["project", "name", "id"],
        by_size=["project", "size", "id"],
        by_kind=["project", "kind", "updated_at", "id"],
        of_kind=["kind", "updated_at", "id"],
        of_run=["run", "step"],
        by_digest=["digest"],
    )
    op.create_table(
        "editions",
        sa.Column("artifact", sa.String(40), nullable=False),
        _big("number"),
        sa.Column("digest", sa.String(64), nullable=False),
        _big("size"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("run", sa.String(40)),
        sa.Column("step", sa.String(200)),
        _text("made_as"),
        _text("model", nullable=True),
        _text("request_id", nullable=True),
        _json("problems"),
        _text("note"),
        sa.PrimaryKeyConstraint("artifact", "number", name="editions_key"),
    )
    _once("editions_once", "editions", ["run", "step", "made_as"], "run IS NOT NULL")
    op.create_index("editions_by_digest", "editions", ["digest"])


def _finding() -> None:
    op.create_table(
        "entry_tags",
        sa.Column("kind", sa.String(20), nullable=False),
        _word("tag"),
        sa.Column("entry", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("kind", "tag", "entry", name="entry_tags_key"),
    )
    op.create_index("entry_tags_of", "entry_tags", ["entry"])
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "entry_texts",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("entry", sa.String(40), nullable=False, unique=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("project", sa.String(40), nullable=False),
        sa.Column("archived", sa.Boolean, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        _text("title"),
        _text("body"),
        _text("words"),
    )
    op.create_index("entry_texts_of", "entry_texts", ["project", "kind", "number"])
    op.create_index("entry_texts_by_kind", "entry_texts", ["kind", "number"])
    for statement in _WORDS if op.get_bind().dialect.name == "sqlite" else _DOCUMENT:
        op.execute(statement)


_WORDS = (
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

_DOCUMENT = (
    (
        "ALTER TABLE entry_texts ADD COLUMN document tsvector"
        " GENERATED ALWAYS AS (array_to_tsvector(string_to_array(btrim(words), ' '))) STORED"
    ),
    "CREATE INDEX entry_texts_document ON entry_texts USING gin (document) WITH (fastupdate = off)",
)
