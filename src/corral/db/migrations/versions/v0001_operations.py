"""Operations: long work that survives a restart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first table."""
    op.create_table(
        "operations",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("home", sa.String(40), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("wish", sa.String(20), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("phase", sa.String(40), nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger),
        sa.Column("rate", sa.Double),
        sa.Column("eta", sa.Double),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("parts", sa.JSON, nullable=False),
    )
    op.create_index("operations_by_home", "operations", ["home", "number"])
    unfinished = sa.text("ended_at IS NULL")
    op.create_index(
        "operations_unfinished",
        "operations",
        ["home", "fingerprint"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
