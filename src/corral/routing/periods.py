"""The periods of budgets, in UTC: which one a moment is in, and when the next begins. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf

PERIODS = ("day", "week", "month", "total")
"""What a budget may be for, shortest first."""


def period_key(period: str, wall: float) -> str:
    """The name of the period that the moment `wall` (Unix seconds) is in.

    `2026-11-21`, `2026-W47` (ISO weeks, from Monday), `2026-11`, or `total`.
    """
    moment = datetime.fromtimestamp(wall, UTC)
    if period == "day":
        return f"{moment:%Y-%m-%d}"
    if period == "week":
        year, week, _ = moment.isocalendar()
        return f"{year:04d}-W{week:02d}"
    return f"{moment:%Y-%m}" if period == "month" else "total"


def period_end(period: str, wall: float) -> float:
    """When, in Unix seconds, the next period begins; infinity for `total`."""
    if period == "total":
        return inf
    day = datetime.fromtimestamp(wall, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return (day + timedelta(days=1)).timestamp()
    if period == "week":
        return (day + timedelta(days=7 - day.weekday())).timestamp()
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1).timestamp()
