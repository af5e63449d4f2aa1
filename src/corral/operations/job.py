"""One operation at work in this process: its tries, its progress, and how it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from corral.domain.operations import Failure, Operation, OperationStatus
from corral.domain.ports import Clock, Progress, Report
from corral.errors import CorralError, DatabaseError
from corral.operations.bell import Bell
from corral.operations.progress import Meter
from corral.operations.retries import may_pass, pause
from corral.operations.rows import Rows, Wish, storable

if TYPE_CHECKING:
    from corral.operations.leases import Lease

TICK = 0.1
"""Seconds between two looks of those who watch."""

RECORD = 0.5
"""Seconds between two times that progress is written down, and wishes of other processes are heard."""

END_TRIES = 8
"""Times that the end is tried to be written down, with growing pauses, before it is left to the next process."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What a handler is given to tell how it gets on; each may be called at any time, from any thread.

    `report` takes progress, `on_part` the key of each unfinished file that the work would go on from, `message` one
    line for people. `advanced` says that what is done now need not be done again: the tries are then counted anew, as
    work that gets on may be cut short any number of times. See `rows.advance` for saying so beside what was done.
    """

    report: Report
    on_part: Callable[[str], None]
    message: Callable[[str], None]
    advanced: Callable[[], None] = lambda: None


class Halted(Exception):
    """The work cannot go on, for a reason that is not in it: raise it `from` the error that says which.

    The operation is tried again as for that error. When no try is left it is paused, and not failed: what it would go
    on from is kept until somebody says so.
    """


Handler = Callable[[Operation, Work], Awaitable[Mapping[str, Any] | None]]
"""Does the work of one kind, from the start or from where it was left; returns the result, as JSON values.

It is paused and called off by being cancelled: it then cleans up and leaves what it would go on from.
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every job needs: the rows, time, how many tries, and whom to tell.

    `discard` is awaited with a cancelled operation before its end is written, `settle` with any as it will stand, until
    it raises no `DatabaseError`; `news` is called with an identifier.
    """

    rows: Rows
    clock: Clock
    attempts: int
    discard: Callable[[Operation], Awaitable[None]]
    news: Callable[[str], None]
    settle: Callable[[Operation], Awaitable[None]]


class Job:
    """An operation that this process holds the lease of, from the first try to the end. `run` is called once."""

    def __init__(self, operation: Operation, handler: Handler, lease: Lease, desk: Desk, report: Report) -> None:
        self._operation = operation
        self._handler = handler
        self._lease = lease
        self._desk = desk
        self._listener = report
        self._meter = Meter(operation.progress)
        self._parts = set(operation.parts)
        self._message = ""
        self._task: asyncio.Task[Any] | None = None
        self._shown: Operation | None = None
        self._leaving = Bell(desk.clock)
        self.wish = Wish.NONE
        self.finished: asyncio.Task[Operation] | None = None

    @property
    def operation(self) -> Operation:
        """How it stands now."""
        figures = self._meter.figures(self._desk.clock.now())
        return replace(
            self._operation,
            progress=figures.progress,
            phase=figures.phase,
            done=figures.done,
            total=figures.total,
            rate=figures.rate,
            eta=figures.eta,
            message=self._message,
            parts=frozenset(self._parts.copy()),
        )

    def ask(self, wish: Wish) -> None:
        """Have it stop soon; the last wish counts, but that the process ends takes back nothing that was asked for."""
        if wish is Wish.STOP:
            self._leaving.ring()
            self.wish = self.wish or wish
        else:
            self.wish = wish
        if self._task is not None and not self._task.cancelling():
            self._task.cancel()

    async def run(self) -> Operation:
        """Do the work, write down how it ended, and give the lease back."""
        keepers = [asyncio.create_task(self._publish()), asyncio.create_task(self._record())]
        try:
            try:
                ended = await self._work()
            finally:
                await _called_off(keepers)
            if ended.status is OperationStatus.CANCELLED:
                await self._desk.discard(ended)
                ended = replace(ended, parts=frozenset())
            await self._write_end(ended)
        finally:
            self._lease.free()
        return ended

    async def _work(self) -> Operation:
        while True:
            work = Work(self._report, self._parts.add, self._say, self._advanced)
            task = await self._until_done(partial(self._handler, self._operation, work))
            error = None if task.cancelled() else task.exception()
            if error is None and not task.cancelled():
                return self._ended(OperationStatus.COMPLETED, result=task.result())
            if self.wish:
                return self._as_wished()
            if error is None:
                return self._ended(OperationStatus.FAILED, error=Failure("stopped", "It stopped by itself."))
            halted = isinstance(error, Halted)
            error = error.__cause__ or error if halted else error
            if not may_pass(error) or self._operation.attempts >= self._desk.attempts:
                if halted:
                    return self._at_rest(error)
                return self._ended(OperationStatus.FAILED, error=self._failure(error))
            wait = pause(self._operation.attempts)
            failure = self._failure(error)
            again = f"Try {self._operation.attempts + 1} of {self._desk.attempts} in {wait:g} s."
            self._say(f"{failure.message} {again}")
            await self._until_done(partial(self._desk.clock.sleep, wait))
            if self.wish:
                return self._as_wished()
            self._operation = replace(self._operation, attempts=self._operation.attempts + 1)

    async def _until_done(self, step: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Run `step` to its end, or until a wish has called it off, which may be before it began."""
        self._task = task = asyncio.create_task(_awaited(step))
        if self.wish:
            task.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # the loop ends; somebody takes this up later
            await _called_off([task])
            raise
        return task

    def _report(self, progress: Progress) -> None:
        self._meter.take(progress, self._desk.clock.now())
        if progress.detail:
            self._say(progress.detail)
        self._listener(progress)

    def _advanced(self) -> None:
        self._operation = replace(self._operation, attempts=1)

    def _say(self, text: str) -> None:
        self._message = storable(text)

    def _failure(self, error: BaseException) -> Failure:
        if isinstance(error, CorralError):
            return Failure(error.code, error.message, error.hint)
        log.error("operation %s (%s) failed", self._operation.id, self._operation.order.kind, exc_info=error)
        return Failure("internal_error", f"{type(error).__name__}: {error}", "This is a fault in Corral: see its log.")

    def _as_wished(self) -> Operation:
        if self.wish is Wish.CANCEL:
            return self._ended(OperationStatus.CANCELLED)
        status = OperationStatus.PAUSED if self.wish is Wish.PAUSE else OperationStatus.PENDING
        stopped = replace(self.operation, status=status, rate=None, eta=None)
        return replace(stopped, attempts=stopped.attempts - 1)  # a try that was not let go on says nothing

    def _at_rest(self, error: BaseException) -> Operation:
        failure = self._failure(error)
        self._say(f"{failure.message} {failure.hint}")
        return replace(self.operation, status=OperationStatus.PAUSED, rate=None, eta=None, attempts=0)

    def _ended(self, status: OperationStatus, **values: Any) -> Operation:
        ended = replace(self.operation, status=status, ended_at=self._desk.clock.wall(), rate=None, eta=None, **values)
        if status is OperationStatus.COMPLETED:
            return replace(ended, progress=100.0, message="", parts=frozenset())
        return replace(ended, message="")

    async def _publish(self) -> None:
        """Tell those who watch what is new."""
        while True:
            now = self.operation
            if now != self._shown:
                self._shown = now
                self._desk.news(now.id)
            await self._desk.clock.sleep(TICK)

    async def _record(self) -> None:
        """Write down what is new, and hear what other processes ask."""
        rows = self._desk.rows
        written, seen = None, None
        while True:
            await self._desk.clock.sleep(RECORD)
            now, stamp = self.operation, rows.database.stamp()
            if now == written and stamp is not None and stamp == seen:
                continue
            try:
                wish = (await rows.get(now.id)).wish if now == written else await rows.save(now)
            except DatabaseError as error:
                log.debug("operation %s: progress is not written: %s", now.id, error)
                continue
            # Of before it was read: what somebody wrote meanwhile has not been heard yet.
            written, seen = now, stamp
            if wish in {Wish.PAUSE, Wish.CANCEL}:
                self.ask(wish)

    async def _write_end(self, ended: Operation) -> None:
        for tries in range(1, END_TRIES + 1):
            try:
                await self._desk.settle(ended)
                await self._desk.rows.save(ended, heeded=self.wish)
            except DatabaseError as error:
                log.warning("operation %s ended (%s), which is not written: %s", ended.id, ended.status, error)
                if self.wish is Wish.STOP or await self._leaving.wait(pause(tries)):
                    return
            else:
                return


async def _awaited(step: Callable[[], Awaitable[Any]]) -> Any:
    return await step()


async def _called_off(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` and wait for their end; what went wrong in one is raised."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
