"""Keys, the audit log, budgets and what is spent of them, usage and its sums."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    _keys()
    _ledger()
    _usage()


def _number() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("number", kind, primary_key=True, autoincrement=True)


def _measures() -> list[sa.Column[int]]:
    names = ("input", "output", "cached", "cache_write", "reasoning", "cost")
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("shown", sa.String(20), nullable=False),
        sa.Column("scope", sa.String(20), nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("projects", sa.JSON, nullable=False),
        sa.Column("requests", sa.BigInteger),
        sa.Column("tokens", sa.BigInteger),
        sa.Column("parallel", sa.BigInteger),
        sa.Column("strict", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("used_at", sa.Double),
        sa.Column("rotated_at", sa.Double),
        sa.Column("previous", sa.String(64)),
        sa.Column("previous_until", sa.Double),
    )
    op.create_table(
        "audit",
        _number(),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("action", sa.String(80), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("request_id", sa.String(80)),
    )
    op.create_index("audit_by_time", "audit", ["at"])


def _ledger() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("subject", sa.String(20), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("unit", sa.String(20), nullable=False),
        sa.Column("period", sa.String(20), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "spending",
        sa.Column("budget", sa.String(40), nullable=False),
        sa.Column("period", sa.String(20), nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("leased", sa.BigInteger, nullable=False),
        sa.Column("abandoned", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("budget", "period", name="spending_pkc"),
    )
    op.create_table(
        "holders",
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("home", sa.String(40), nullable=False),
        sa.Column("applied", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("holder", sa.String(60), nullable=False),
        sa.Column("budget", sa.String(40), nullable=False),
        sa.Column("period", sa.String(20), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("holder", "budget", "period", name="leases_pkc"),
    )


def _usage() -> None:
    op.create_table(
        "usage",
        _number(),
        sa.Column("request_id", sa.String(80), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("key", sa.String(40), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("asked", sa.String(200), nullable=False),
        sa.Column("runtime", sa.String(40), nullable=False),
        sa.Column("dialect", sa.String(40), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.String(80)),
        *_measures(),
        sa.Column("price", sa.Text),
        sa.Column("wait_ms", sa.Double),
        sa.Column("first_ms", sa.Double),
        sa.Column("total_ms", sa.Double),
        sa.Column("receipt", sa.Text),
    )
    op.create_index("usage_by_request", "usage", ["request_id", "attempt"], unique=True)
    op.create_index("usage_by_time", "usage", ["at", "number"])
    for name in ("usage_hours", "usage_days"):
        op.create_table(
            name,
            sa.Column("bucket", sa.BigInteger, nullable=False),
            sa.Column("key", sa.String(40), nullable=False),
            sa.Column("project", sa.String(200), nullable=False),
            sa.Column("model", sa.String(200), nullable=False),
            sa.Column("runtime", sa.String(40), nullable=False),
            sa.Column("requests", sa.BigInteger, nullable=False),
            sa.Column("errors", sa.BigInteger, nullable=False),
            sa.Column("unpriced", sa.BigInteger, nullable=False),
            sa.Column("firsts", sa.BigInteger, nullable=False),
            *_measures(),
            sa.Column("first_ms", sa.Double, nullable=False),
            sa.Column("total_ms", sa.Double, nullable=False),
            sa.PrimaryKeyConstraint("bucket", "key", "project", "model", "runtime", name=f"{name}_pkc"),
            sqlite_with_rowid=False,
        )
