"""What a run has got done, written into the database behind its back, in the order in which it was done.

The journal has every answer already, so nobody who asks the next model waits for the database: what a kill keeps from
being committed is committed by whoever goes on. A step, its artifacts, its rows of usage and the run's sums are one
transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import select

from corral.db.tables import usage
from corral.domain.workspace import Artifact, Made, Step
from corral.errors import DatabaseError
from corral.observability.sums import merge
from corral.observability.writing import Batch, write
from corral.workspace.pipelines.journal import Answer

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.domain.ports import Clock
    from corral.workspace.store import Store

T = TypeVar("T")

_TOGETHER = 0.15
"""Seconds that what is done waits for more, to be written with it."""
_STANDING = 0.5
"""Seconds after which it is written that a step has begun: most have ended by then."""
_PAUSES = (0.1, 0.3, 1.0, 2.0, 5.0)
"""Seconds between tries to write, while the database cannot be reached; after them the run stops, to go on later."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A step as it stands. One that is `done` is committed with what it `made` and what `answers` cost."""

    step: Step
    made: Sequence[Made] = ()
    answers: Sequence[Answer] = ()
    done: bool = False


async def book(connection: AsyncConnection, answers: Sequence[Answer]) -> None:
    """Write what the books hold of `answers`, once, within the transaction of `connection`."""
    noted = [answer for answer in answers if answer.rows]
    if not noted:
        return
    known = select(usage.c.request_id).where(usage.c.request_id.in_([answer.request_id for answer in noted]))
    there = set((await connection.execute(known)).scalars())
    batch = Batch()
    for answer in noted:
        if answer.request_id not in there:
            batch.rows += [tuple(row) for row in answer.rows]
            merge(batch.hours, {tuple(place): values for place, values in answer.hours})
    if batch.rows:
        await write(connection, batch, again=False)


class Commits:
    """Writes for one run. `start` first; `drain` at last, and `stop`.

    Args:
        store: where.
        clock: time.
        advance: called in each transaction in which something is done.
        committed: told of each step once it is written, with what it made.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        advance: Callable[[AsyncConnection], Awaitable[None]],
        committed: Callable[[Step, Sequence[Artifact]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._advance = advance
        self._committed = committed
        self._waiting: dict[str, Entry] = {}
        self._begun: dict[str, tuple[Step, float]] = {}
        self._all = False
        self._planned: list[tuple[str, Sequence[Step]]] = []
        self._news = asyncio.Event()
        self._hurried = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self.task = asyncio.ensure_future(self._run())

    def put(self, entry: Entry) -> None:
        """Have a step written: soon, where it is done; or once it has stood so for a while."""
        key = entry.step.key
        if entry.done:
            self._begun.pop(key, None)
            self._waiting[key] = entry
            self._idle.clear()
        else:
            self._begun[key] = (entry.step, self._clock.now())
        self._news.set()

    def plan(self, run: str, steps: Sequence[Step]) -> None:
        """Have steps written down that will come."""
        self._planned.append((run, steps))
        self._idle.clear()
        self._news.set()

    async def drain(self, *, begun: bool = False) -> None:
        """Wait until all that is done is written; with `begun` also how that stands which is not done.

        Raises:
            DatabaseError, StoreError: it cannot be.
        """
        if self.task is None:
            return
        if begun and self._begun:
            self._all = True
            self._idle.clear()
            self._news.set()
        self._hurried.set()
        idle = asyncio.ensure_future(self._idle.wait())
        try:
            await asyncio.wait([idle, self.task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            self._hurried.clear()
        if self.task.done():
            self.task.result()

    async def stop(self) -> None:
        """Write no more; what is being written is brought to its end."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()

    async def _run(self) -> None:
        while True:
            await self._due()
            if self._planned:
                planned, self._planned = self._planned, []
                for run, steps in planned:
                    await self._surely(partial(self._store.runs.plan, run, steps))
            await self._write_all()
            if not self._planned and not self._waiting:
                self._idle.set()

    async def _due(self) -> None:
        """Wait until there is something to write, and a moment longer: much of it goes in one transaction."""
        while not (self._waiting or self._planned or self._all):
            try:
                async with asyncio.timeout(_STANDING if self._begun else None):
                    await self._news.wait()
            except TimeoutError:
                return
            self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_TOGETHER):
                await self._hurried.wait()

    async def _write_all(self) -> None:
        """Write what is done, and what has stood for a while as it does."""
        now = self._clock.now()
        standing = [step for step, since in self._begun.values() if self._all or now - since >= _STANDING]
        self._all = False
        entries = [*self._waiting.values(), *map(Entry, standing)]
        if not entries:
            return
        found = await self._surely(partial(self._write, entries))
        for entry, artifacts in zip(entries, found, strict=True):
            key = entry.step.key
            if self._waiting.get(key) is entry:
                del self._waiting[key]
            begun = self._begun.get(key)
            if begun is not None and begun[0] is entry.step:
                del self._begun[key]
            self._committed(entry.step, artifacts)

    async def _write(self, entries: Sequence[Entry]) -> Sequence[Sequence[Artifact]]:
        answers = {entry.step.key: entry.answers for entry in entries}

        async def also(connection: AsyncConnection, new: Sequence[Step]) -> None:
            await book(connection, [answer for step in new for answer in answers[step.key]])
            if any(entry.done for entry in entries):
                await self._advance(connection)

        return await self._store.runs.commit_all([(entry.step, entry.made) for entry in entries], also)

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, which waits for a database that is away, but not for ever."""
        for pause in _PAUSES:
            try:
                return await work()
            except DatabaseError:
                await self._clock.sleep(pause)
        return await work()
