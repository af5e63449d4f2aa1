"""Answers as rows of `usage`, and added up by the hour: values only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.observability.record import brief, receipt_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corral.domain.money import Usage
    from corral.observability.record import Record

HOUR = 3600
DAY = 86400

COLUMNS = (
    "request_id",
    "attempt",
    "at",
    "key",
    "project",
    "model",
    "asked",
    "runtime",
    "dialect",
    "status",
    "error",
    "input",
    "output",
    "cached",
    "cache_write",
    "reasoning",
    "cost",
    "price",
    "wait_ms",
    "first_ms",
    "total_ms",
    "receipt",
)
"""What a row holds, in this order."""

MEASURES = (
    "requests",
    "errors",
    "unpriced",
    "firsts",
    "input",
    "output",
    "cached",
    "cache_write",
    "reasoning",
    "cost",
    "first_ms",
    "total_ms",
)
"""What is added up, in this order."""

Row = tuple[Any, ...]
Sums = dict[tuple[int, str, str, str, str], list[Any]]
"""By hour, key, project, model and runtime."""

UNKNOWN = "unknown"
"""The `price` of an answer whose cost nobody knows."""

_NONE = (0, 0, 0, 0, 0)
_LARGEST = 2**62
_TEXT = 200


def rows(record: Record) -> list[Row]:
    """A row for each attempt that counts, and one for the answer, which is the last and has the receipt."""
    key, project, asked = record.caller.id, text(record.project), text(record.asked)
    found: list[Row] = []
    if record.attempts:
        for number, each in enumerate(record.attempts, 1):
            if each.billed:
                head = (record.request_id, number, record.at, key, project, text(each.model), asked, each.runtime)
                tail = (each.cost, None, None, None, each.seconds * 1000, None)
                found.append((*head, record.dialect, each.status or 0, each.error, *tokens(each.usage), *tail))
    first = record.first
    found.append(
        (
            record.request_id,
            len(record.attempts) + 1,
            record.at,
            key,
            project,
            text(record.model),
            asked,
            record.runtime,
            record.dialect,
            record.status,
            record.error,
            *tokens(record.usage),
            record.cost or 0,
            UNKNOWN if record.cost is None and record.usage is not None else record.price,
            record.wait_ms,
            (first - record.started) * 1000 if first else None,
            (record.ended - record.started) * 1000,
            (brief(record) if asked is record.asked else None) or receipt_json(record).decode(),
        )
    )
    return found


def add(sums: Sums, record: Record) -> None:
    """Add an answer to `sums`: one request for the model that answered, and what each attempt cost for its own."""
    hour = int(record.at // HOUR) * HOUR
    key, project = record.caller.id, text(record.project)
    place = (hour, key, project, text(record.model), record.runtime)
    found = sums.get(place)
    if found is None:
        found = sums[place] = [0] * len(MEASURES)
    found[0] += 1
    if record.error is not None or record.status >= 400:
        found[1] += 1
    if record.cost is None and record.usage is not None:
        found[2] += 1
    _count(found, record.usage, record.cost)
    if record.first:
        found[3] += 1
        found[10] += (record.first - record.started) * 1000
    found[11] += (record.ended - record.started) * 1000
    for each in record.attempts:
        if each.billed:
            place = (hour, key, project, text(each.model), each.runtime)
            _count(sums.setdefault(place, [0] * len(MEASURES)), each.usage, each.cost)


def _count(found: list[Any], used: Usage | None, cost: int | None) -> None:
    if used is not None:
        given, written, cached, stored, thought = tokens(used)
        found[4] += given
        found[5] += written
        if cached or stored or thought:
            found[6] += cached
            found[7] += stored
            found[8] += thought
    if cost:
        found[9] += cost


def merge(sums: Sums, other: Mapping[tuple[int, str, str, str, str], Iterable[Any]], width: int = 1) -> Sums:
    """`sums` with `other` added, whose buckets become as wide as `width` seconds."""
    for (bucket, key, project, model, runtime), values in other.items():
        place = (bucket // width * width, key, project, model, runtime)
        found = sums.get(place)
        if found is None:
            sums[place] = list(values)
        else:
            found[:] = map(sum, zip(found, values, strict=True))
    return sums


def tokens(used: Usage | None) -> tuple[int, int, int, int, int]:
    """Tokens by class, as a database can hold them: what an engine says may be any number."""
    if used is None:
        return _NONE
    counted = (used.input, used.output, used.cached, used.cache_write, used.reasoning)
    if (counted[0] | counted[1] | counted[2] | counted[3] | counted[4]) >> 62:  # one is negative, or too large
        return tuple(min(max(count, 0), _LARGEST) for count in counted)  # type: ignore[return-value]
    return counted


def text(words: str) -> str:
    """`words` as every database takes them: short, and of characters."""
    if len(words) > _TEXT:
        words = words[:_TEXT]
    return words if words.isprintable() else words.encode("utf-8", "replace").decode().replace("\0", "?")
