"""The books of what was used: each answer is noted at once, and written down a little later, off its path.

    record ─▶ waiting ─▶ batch ─▶ one transaction: usage, usage_hours, usage_days
       └▶ the last few thousand, for whoever asks for a receipt right away

A database that is slow or away slows no answer. What waits is bounded; beyond that only the sums of an answer are
kept, and the loss of its row is counted.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import orjson

from corral.errors import CorralError, DatabaseError, ReceiptNotFound
from corral.observability import sums
from corral.observability.record import receipt_json

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.config.traffic import UsageSettings
    from corral.db.engine import Database
    from corral.domain.ports import Clock
    from corral.observability.queries import Question
    from corral.observability.record import Record
    from corral.observability.writing import Batch

MOST_WAITING = 100_000
"""Answers that may wait to be written down."""
RECENT = 5000
"""Answers whose receipts are surely found without the database; up to twice as many are."""

_BATCH = 5000
_SLICE = 200
"""Answers that are prepared without letting others onto the loop: about a millisecond's worth."""
_LOOK = 0.25
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
_WARN_EVERY = 60.0
_PRUNE_EVERY = 60.0
_PRUNED_AT_ONCE = 5000

log = logging.getLogger(__name__)


class Books:
    """What is written down of answers. Creating it does no I/O; `run` writes, and `close` writes what is left.

    Args:
        database: where; opened at the first batch.
        clock: time.
        settings: how often, and for how long.
        most: answers that may wait to be written down.

    `unrecorded` counts the answers whose rows were given up, `written` the rows that were written.
    """

    def __init__(self, database: Database, clock: Clock, settings: UsageSettings, *, most: int = MOST_WAITING) -> None:
        self._database = database
        self._clock = clock
        self.settings = settings
        self._most = most
        self._waiting: list[Record] = []
        self._recent: dict[str, Record] = {}
        self._before: dict[str, Record] = {}
        self._given_up: sums.Sums = {}
        self._batch: Batch | None = None
        self._writing = asyncio.Lock()
        self._failures = 0
        self._warned_at: float | None = None
        self._warned_of = 0
        self._prune_at = clock.now() + _PRUNE_EVERY
        self.unrecorded = 0
        self.written = 0

    @property
    def waiting(self) -> int:
        """Answers that are not written down yet."""
        return len(self._waiting) + (0 if self._batch is None else len(self._batch.rows))

    def record(self, record: Record) -> None:
        """Note an answer that has ended. Never waits."""
        self.remember(record)
        if len(self._waiting) < self._most:
            self._waiting.append(record)
        else:
            self.unrecorded += 1
            sums.add(self._given_up, record)

    def remember(self, record: Record) -> None:
        """Have the receipt of an answer at hand that another writes down; see `sums.rows` and `writing.write`."""
        recent = self._recent
        recent[record.request_id] = record
        if len(recent) >= RECENT:
            self._before, self._recent = recent, {}

    def recall(self, request_id: str) -> Record | None:
        """An answer of this process, while it is remembered."""
        return self._recent.get(request_id) or self._before.get(request_id)

    async def receipt(self, request_id: str) -> dict[str, Any]:
        """The receipt of an answer, in JSON's values; `key` says whose it is.

        Raises:
            ReceiptNotFound: there was no such answer, or it is no longer kept.
            DatabaseError: the database cannot be read.
        """
        record = self.recall(request_id)
        if record is not None:
            made: dict[str, Any] = orjson.loads(receipt_json(record))
            return made
        if not request_id.isprintable() or len(request_id) > 200:
            raise missing(request_id)
        from corral.observability.queries import receipt

        found = await self._database.read(lambda connection: receipt(connection, request_id))
        if found is None:
            raise missing(request_id)
        return found

    async def sums(self, question: Question) -> list[dict[str, Any]]:
        """What was used, added up, in JSON's values; what waits to be written down is not in it.

        Raises:
            DatabaseError: the database cannot be read.
        """
        from corral.observability.queries import sums

        return await self._database.read(lambda connection: sums(connection, question))

    async def report(self, question: Question) -> dict[str, Any]:
        """The same with all of it together (`total`; None of nothing), and the span that was counted (Unix seconds)."""
        from corral.observability.queries import together

        found, total = await self._database.read(lambda connection: together(connection, question))
        start, end = question.span
        return {
            "from": start,
            "to": end,
            "by": list(question.by),
            "usage": found,
            "count": len(found),
            "total": total,
        }

    async def answers(
        self, question: Question, limit: int, before: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Single attempts, newest first, and the `before` of the next page; None on the last.

        Raises:
            InvalidRequest: `before` is none that we gave.
            DatabaseError: the database cannot be read.
        """
        from corral.observability.queries import answers

        return await self._database.read(lambda connection: answers(connection, question, limit, before))

    async def run(self) -> None:
        """Write what waits, and delete what is old, until cancelled."""
        while True:
            await self._pause()
            if await self.flush():
                await self._prune()

    async def flush(self) -> bool:
        """Write all that waits now; whether the database took it."""
        async with self._writing:
            while self._batch is not None or self._waiting:
                if self._batch is None:
                    self._batch = await self._take()
                try:
                    await self._write(self._batch)
                except DatabaseError as error:
                    self._failures += 1
                    self._warn(error)
                    return False
                self.written += len(self._batch.rows)
                self._batch = None
                self._failures = 0
        self._warn(None)
        return True

    async def close(self) -> None:
        """Write what is left. What the database does not take now is lost, and the log says so."""
        if not await self.flush():
            log.error("%d answers could not be written down: the database does not take them.", self.waiting)

    async def _take(self) -> Batch:
        """The next batch, and with it the sums of what has been given up. Cancelled, it has taken nothing."""
        from corral.observability.writing import Batch

        batch = Batch()
        count = min(len(self._waiting), _BATCH)
        for start in range(0, count, _SLICE):
            for record in self._waiting[start : min(start + _SLICE, count)]:
                batch.rows += sums.rows(record)
                sums.add(batch.hours, record)
            await asyncio.sleep(0)
        del self._waiting[:count]
        sums.merge(batch.hours, self._given_up)
        self._given_up = {}
        return batch

    async def _write(self, batch: Batch) -> None:
        from corral.observability.writing import write

        again, batch.tried = batch.tried, True

        async def work(connection: AsyncConnection) -> None:
            await write(connection, batch, again=again)

        await self._database.write(work)

    async def _pause(self) -> None:
        """Wait until it is time, or until much waits. After failures, longer."""
        length = self.settings.write_every
        if self._failures:
            length = max(length, _PAUSES[min(self._failures, len(_PAUSES)) - 1])
        until = self._clock.now() + length
        while (left := until - self._clock.now()) > 0:
            await self._clock.sleep(min(left, _LOOK))
            if len(self._waiting) >= _BATCH and not self._failures:
                return

    async def _prune(self) -> None:
        """Delete some of what is old; while there is more, some each time."""
        now = self._clock.now()
        if now < self._prune_at:
            return
        from corral.observability.writing import prune, prune_hours

        before = self._clock.wall() - self.settings.keep

        async def work(connection: AsyncConnection) -> bool:
            return await prune(connection, before, self.settings.keep_rows, _PRUNED_AT_ONCE)

        async def sweep(connection: AsyncConnection) -> None:
            await prune_hours(connection, self._clock.wall() - self.settings.keep_hours)

        try:
            if not await self._database.write(work):
                await self._database.write(sweep)
                self._prune_at = now + _PRUNE_EVERY
        except DatabaseError as error:
            self._warn(error)

    def _warn(self, error: CorralError | None) -> None:
        """Say in the log, at most once a minute, that the database fails, or that rows were given up."""
        lost = self.unrecorded - self._warned_of
        now = self._clock.now()
        if (error is None and not lost) or (self._warned_at is not None and now - self._warned_at < _WARN_EVERY):
            return
        self._warned_at, self._warned_of = now, self.unrecorded
        why = "" if error is None else f" {error}"
        log.warning("Usage: %d answers wait to be written down; %d were only added up.%s", self.waiting, lost, why)


def missing(request_id: str) -> ReceiptNotFound:
    """The error for an answer of which there is no receipt."""
    return ReceiptNotFound(
        f"There is no receipt of {request_id[:80]!r}.", "It is in the header x-request-id, and kept for usage.keep."
    )
