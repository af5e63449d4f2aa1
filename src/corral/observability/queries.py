"""What is asked of the books: a receipt, single answers, and sums. Sums are never made of single rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ColumnElement, Row, Select, and_, cast, func, or_, select
from sqlalchemy import text as words

from corral.db.tables import keys, usage, usage_days, usage_hours
from corral.domain.money import NANO
from corral.errors import InvalidRequest
from corral.observability.record import restored
from corral.observability.sums import DAY, HOUR, MEASURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

NAMES = ("key", "project", "model", "runtime")
TIMES = ("day", "hour")
BY = (*NAMES, *TIMES)
"""What sums can be told apart by; at most two at a time."""

FINE = 8 * DAY
"""Up to this many seconds, sums are exact to the hour; beyond, to the day."""
MOST_HOURS = 31 * DAY
SCANNED = 20_000
"""Single rows that one page looks at."""

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdwy])")
_SECONDS = {"s": 1, "m": 60, "h": HOUR, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}
_LATEST = 253402300799.0  # the year 9999
_TOKENS = ("input", "output", "cached", "cache_write", "reasoning")
_TOKEN_FIELDS = tuple(f"{name}_tokens" for name in _TOKENS)


@dataclass(frozen=True, slots=True)
class Question:
    """Which answers: those that came from `since` up to `until` (Unix seconds), of one key, project and model.

    None is: of all. `by` says what sums are told apart by: at most two of `BY`.
    """

    since: float
    until: float
    by: tuple[str, ...] = ("model",)
    key: str | None = None
    project: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        unknown = [each for each in self.by if each not in BY]
        if unknown or len(self.by) > 2 or len(set(self.by)) < len(self.by):
            raise InvalidRequest("Usage is told apart by one or two of them.", f"by: {', '.join(BY)}", param="by")
        if "hour" in self.by and self.until - self.since > MOST_HOURS:
            raise InvalidRequest("By the hour, at most 31 days can be looked at.", "Ask for days.", param="by")
        if not self.since <= self.until:
            raise InvalidRequest("`from` is after `to`.", param="from")

    @property
    def table(self) -> Table:
        """The sums it is answered from."""
        return usage_hours if "hour" in self.by or self.until - self.since <= FINE else usage_days

    @property
    def span(self) -> tuple[int, int]:
        """The first bucket, and the one after the last: whole hours, or whole days where it is answered from days."""
        width = HOUR if self.table is usage_hours else DAY
        return int(self.since // width) * width, -int(-self.until // width) * width


def moment(text: str, now: float) -> float:
    """Unix seconds of `2026-11-21`, `2026-11-21T14:00:00Z` (UTC unless it says otherwise), `1795291595`, or `7d` ago.

    Raises:
        InvalidRequest: it is none of these.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(now - float(ago[1]) * _SECONDS[ago[2]], 0.0)
    try:
        found = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else _date(text)
    except (ValueError, OverflowError):
        found = -1.0
    if not 0.0 <= found <= _LATEST:
        raise InvalidRequest(
            f"{text[:40]!r} is no time.", "Write 2026-11-21, 2026-11-21T14:00:00Z, Unix seconds, or 7d for a week ago."
        )
    return found


def _date(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


async def receipt(connection: AsyncConnection, request_id: str) -> dict[str, Any] | None:
    """The receipt of an answer, in JSON's values; None where there is none."""
    query = select(usage).where(usage.c.request_id == request_id, usage.c.receipt.is_not(None))
    row = (await connection.execute(query.order_by(usage.c.attempt.desc()).limit(1))).mappings().first()
    return None if row is None else restored(dict(row))


async def together(
    connection: AsyncConnection, question: Question
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The sums, and all of them together (None of nothing), as they were at one moment."""
    if connection.dialect.name == "postgresql":  # SQLite reads what there was when it began anyway
        await connection.execute(words("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    found = await sums(connection, question)
    total = await sums(connection, replace(question, by=()))
    return found, total[0] if total else None


async def sums(connection: AsyncConnection, question: Question) -> list[dict[str, Any]]:
    """The sums, as JSON's values: in order of time, else what cost most first."""
    table = question.table
    start, end = question.span
    groups = [_group(table, each).label(f"by_{each}") for each in question.by]
    measures = [cast(func.sum(table.c[name]), table.c[name].type).label(name) for name in MEASURES]
    query = select(*groups, *measures).where(table.c.bucket >= start, table.c.bucket < end, *_only(table, question))
    if groups:
        query = query.group_by(*groups)
    width = len(question.by)
    found = [
        {**dict(zip(question.by, row, strict=False)), **measured(row[width:])}
        for row in await connection.execute(query)
        if row[width] is not None
    ]
    if "key" in question.by:
        await _add_names(connection, found)
    found.sort(key=lambda row: (-row["cost_nano"], -row["requests"], *(str(row[each]) for each in question.by)))
    for each in question.by:
        if each in TIMES:
            found.sort(key=itemgetter(each))
            names = {bucket: _shown(bucket, each) for bucket in {row[each] for row in found}}
            for row in found:
                row[each] = names[row[each]]
    return found


def _group(table: Table, name: str) -> ColumnElement[Any]:
    if name not in TIMES:
        return table.c[name]
    bucket = table.c.bucket
    return bucket - bucket % DAY if name == "day" and table is usage_hours else bucket


def _only(table: Table, question: Question) -> list[ColumnElement[bool]]:
    asked = {"key": question.key, "project": question.project, "model": question.model}
    return [table.c[name] == value for name, value in asked.items() if value is not None]


def _shown(bucket: int, name: str) -> str:
    return datetime.fromtimestamp(bucket, UTC).strftime("%Y-%m-%d" if name == "day" else "%Y-%m-%dT%H:00:00Z")


async def _add_names(connection: AsyncConnection, found: Sequence[dict[str, Any]]) -> None:
    """What the keys are called, beside their ids; those that are no keys have no name."""
    names = {row.id: row.name for row in await connection.execute(select(keys.c.id, keys.c.name))}
    for row in found:
        row["key_name"] = names.get(row["key"])


def measured(values: Sequence[Any]) -> dict[str, Any]:
    """Measures, in the order of `MEASURES`, as JSON's values; means in milliseconds, None of nothing."""
    requests, errors, unpriced, firsts, *tokens, cost, first_ms, total_ms = values
    return {
        "requests": requests,
        "errors": errors,
        **dict(zip(_TOKEN_FIELDS, tokens, strict=True)),
        "cost_nano": cost,
        "cost_usd": cost / NANO,
        "unpriced": unpriced,
        "mean_first_ms": round(first_ms / firsts, 3) if firsts else None,
        "mean_ms": round(total_ms / requests, 3) if requests else None,
    }


async def answers(
    connection: AsyncConnection, question: Question, limit: int, before: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Single attempts, newest first, and what is the `before` of the next page; None on the last.

    At most `SCANNED` are looked at, so a page may hold fewer than `limit` though more follow.

    Raises:
        InvalidRequest: `before` is none that we gave.
    """
    within = [usage.c.at >= question.since, usage.c.at < question.until, *([] if before is None else [_after(before)])]
    order = (usage.c.at.desc(), usage.c.number.desc())
    conditions = _only(usage, question)
    query: Select[Any] = select(usage).where(*within).order_by(*order)
    if conditions:
        scanned = select(usage).where(*within).order_by(*order).limit(SCANNED).subquery()
        query = select(scanned).where(*_only(scanned, question))  # type: ignore[arg-type]  # it has the same columns
        query = query.order_by(scanned.c.at.desc(), scanned.c.number.desc())
    found = (await connection.execute(query.limit(limit + 1))).all()
    if len(found) > limit:
        return [_answer(row) for row in found[:limit]], _place(found[limit - 1])
    after = None
    if conditions:
        last = select(usage.c.at, usage.c.number).where(*within).order_by(*order).offset(SCANNED - 1).limit(1)
        row = (await connection.execute(last)).one_or_none()
        after = None if row is None else _place(row)  # type: ignore[arg-type]
    return [_answer(row) for row in found], after


def _place(row: Row[Any]) -> str:
    return f"{row.at!r}_{row.number}"


def _after(before: str) -> ColumnElement[bool]:
    match = re.fullmatch(r"(\d{1,12}\.\d{1,12})_(\d{1,18})", before)
    if match is None:
        raise InvalidRequest(
            "`before` is no place in these answers.", "Take `next` of the page before.", param="before"
        )
    at, number = float(match[1]), int(match[2])
    return or_(usage.c.at < at, and_(usage.c.at == at, usage.c.number < cast(number, BigInteger)))


def _answer(row: Row[Any]) -> dict[str, Any]:
    shown = ("request_id", "attempt", "at", "key", "project", "model", "asked", "runtime", "dialect", "status", "error")
    return {
        **{name: getattr(row, name) for name in shown},
        **{f"{name}_tokens": getattr(row, name) for name in _TOKENS},
        "cost_nano": row.cost,
        "cost_usd": row.cost / NANO,
        "price": row.price,
        "wait_ms": None if row.wait_ms is None else round(row.wait_ms, 3),  # of a failed attempt it is not known
        "first_ms": None if row.first_ms is None else round(row.first_ms, 3),
        "total_ms": round(row.total_ms, 3),
    }
