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

from corral.domain.workspace import Artifact, Made, Step
from corral.errors import DatabaseError
from corral.observability.writing import Batch, write
from corral.workspace.pipelines.journal import Answer

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.domain.ports import Clock
    from corral.workspace.store import Store

T = TypeVar("T")

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
    for answer in answers:
        if answer.rows:
            hours = {tuple(place): list(values) for place, values in answer.hours}
            batch = Batch([tuple(row) for row in answer.rows], hours)
            await write(connection, batch, again=True)


class Commits:
    """Writes for one run. `start` first; `drain` at last, or `stop`.

    Args:
        store: where.
        clock: time.
        advance: called in the transaction of each step that is done.
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
        self._planned: list[tuple[str, Sequence[Step]]] = []
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self.task = asyncio.ensure_future(self._run())

    def put(self, entry: Entry) -> None:
        """Have a step written. Of several states of one step that wait, the last is."""
        self._waiting.pop(entry.step.key, None)
        self._waiting[entry.step.key] = entry
        self._idle.clear()
        self._news.set()

    def plan(self, run: str, steps: Sequence[Step]) -> None:
        """Have steps written down that will come."""
        self._planned.append((run, steps))
        self._idle.clear()
        self._news.set()

    async def drain(self) -> None:
        """Wait until all is written.

        Raises:
            DatabaseError, StoreError: it cannot be.
        """
        if self.task is None:
            return
        idle = asyncio.ensure_future(self._idle.wait())
        try:
            await asyncio.wait([idle, self.task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
        if self.task.done():
            self.task.result()

    async def stop(self) -> None:
        """Write no more; what is being written is brought to its end."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
            if not task.cancelled():
                task.exception()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._planned or self._waiting:
                while self._planned:
                    await self._surely(partial(self._store.runs.plan, *self._planned[0]))
                    del self._planned[0]
                if not self._waiting:
                    break
                key = next(iter(self._waiting))
                entry = self._waiting[key]
                self._committed(entry.step, await self._surely(partial(self._write, entry)))
                if self._waiting.get(key) is entry:
                    del self._waiting[key]
            self._idle.set()

    async def _write(self, entry: Entry) -> Sequence[Artifact]:
        if entry.done:
            return await self._store.runs.commit(entry.step, entry.made, self._also(entry))
        await self._store.runs.save(entry.step)
        return ()

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, which waits for a database that is away, but not for ever."""
        for pause in _PAUSES:
            try:
                return await work()
            except DatabaseError:
                await self._clock.sleep(pause)
        return await work()

    def _also(self, entry: Entry) -> Callable[[AsyncConnection], Awaitable[None]]:
        async def also(connection: AsyncConnection) -> None:
            await book(connection, entry.answers)
            await self._advance(connection)

        return also
