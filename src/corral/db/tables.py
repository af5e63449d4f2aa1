"""The tables as they are now. A change needs a migration beside it and a new `HEAD`; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Which form the database has, where Alembic looks for it."""

_UNFINISHED = text("ended_at IS NULL")

operations = Table(
    "operations",
    metadata,
    # The order in which they were asked for. The wall clock may jump; this does not.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("home", String(40), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("model", Text, nullable=False),
    Column("params", JSON, nullable=False),
    Column("lane", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("wish", String(20), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("attempts", Integer, nullable=False),
    Column("progress", Double, nullable=False),
    Column("phase", String(40), nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger),
    Column("rate", Double),
    Column("eta", Double),
    Column("message", Text, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("parts", JSON, nullable=False),
    Index("operations_by_home", "home", "number"),
    Index(
        "operations_unfinished",
        "home",
        "fingerprint",
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    ),
)
"""Long work. `fingerprint` says which orders are equal: of those, one at a time is unfinished. `home` is whose work it
is, where several share a database. `wish` is what another process asks of the one that is at it: pause, cancel."""
