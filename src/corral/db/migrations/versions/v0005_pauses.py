"""For how long nobody was at a run, and at each of its steps; and since when nobody is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns. Of runs that are there no pause is known."""
    for table in ("runs", "steps"):
        op.add_column(table, sa.Column("paused_seconds", sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("runs", sa.Column("paused_at", sa.Double))
