"""Containers, the models and versions in them, and what happened to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    _containers()
    _models()
    _versions()
    _history()


def _number() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("number", kind, primary_key=True, autoincrement=True)


def _containers() -> None:
    op.create_table(
        "containers",
        sa.Column("yard", sa.String(40), nullable=False),
        sa.Column("name", sa.String(48), nullable=False),
        sa.Column("container_name", sa.Text, nullable=False),
        sa.Column("container_id", sa.String(64)),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("port", sa.Integer),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("image_id", sa.Text),
        sa.Column("installed_version", sa.Text),
        sa.Column("spec", sa.String(12)),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("restarts", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Double) for name in ("since", "started_at", "finished_at", "checked_at")),
        sa.Column("previous", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_updated", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("yard", "name", name="containers_key"),
    )


def _models() -> None:
    op.create_table(
        "container_models",
        sa.Column("yard", sa.String(40), nullable=False),
        sa.Column("container", sa.String(48), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("size", sa.BigInteger),
        sa.Column("loaded", sa.Boolean, nullable=False),
        sa.Column("last_updated", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("yard", "container", "name", name="container_models_key"),
    )


def _versions() -> None:
    op.create_table(
        "container_versions",
        _number(),
        sa.Column("yard", sa.String(40), nullable=False),
        sa.Column("container", sa.String(48), nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("container_versions_of", "container_versions", ["yard", "container", "number"])


def _history() -> None:
    op.create_table(
        "container_history",
        _number(),
        sa.Column("yard", sa.String(40), nullable=False),
        sa.Column("container", sa.String(48), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("before", sa.String(20)),
        sa.Column("after", sa.String(20)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True)),
    )
    op.create_index("container_history_of", "container_history", ["yard", "container", "number"])
