"""What is asked of the books: a receipt, single answers, and sums. Only single answers are read from single rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from corral.db.tables import usage

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def receipt(connection: AsyncConnection, request_id: str) -> str | None:
    """The receipt of an answer, as JSON; None where there is none."""
    query = select(usage.c.receipt).where(usage.c.request_id == request_id, usage.c.receipt.is_not(None))
    found: str | None = await connection.scalar(query.order_by(usage.c.attempt.desc()).limit(1))
    return found
