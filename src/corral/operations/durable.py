"""Durable operations: ordered here or in another process, done once, and gone on with after whatever happens.

    submit ─▶ row ─▶ queue ─▶ lease ─▶ job: handler, progress, tries ─▶ end of the row
                └ wishes of other processes: pause, resume, cancel

The row says what is to be done and how far it is; the lease says which process is at it, and is freed by the kernel
when that process dies. Whoever holds the lease, and nobody else, changes the row.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from corral.domain.operations import Failure, Operation, OperationStatus, Order
from corral.domain.ports import Clock, Progress, Report, silent
from corral.errors import Conflict, CorralError, DatabaseError, NotSupported, OperationNotFound, StoreError
from corral.kit.disk import in_thread
from corral.operations.bell import Bell
from corral.operations.job import Desk, Halted, Handler, Job, Work
from corral.operations.leases import Lease, sweep
from corral.operations.queue import Limits, Place, startable
from corral.operations.rows import Row, Rows, Wish

if TYPE_CHECKING:
    from pathlib import Path

    from corral.db.engine import Database

__all__ = ["Halted", "Handler", "Limits", "Operations", "Work"]

POLL = 1.0
"""Seconds between two looks for what other processes wrote."""

LOOK = 30.0
"""Seconds after which one looks even if nothing seems to have been written."""

SWEEP = 3600.0
"""Seconds between two times that the history is pruned."""

log = logging.getLogger(__name__)

Parts = Callable[[], Awaitable[frozenset[str]]]
Discard = Callable[[frozenset[str], Parts], Awaitable[None]]
Settle = Callable[[Operation], Awaitable[None]]


async def _keep(_: frozenset[str], __: Parts) -> None:
    """Throw nothing away."""


class Operations:
    """The long work of one home. Creating it does no I/O.

    Args:
        database: where it is written down; closed with this.
        home: Corral's folder: who we are, and the leases.
        handlers: who does the work of each kind.
        clock: time.
        limits: how much at once, how many tries, how long the history.
        on_cancelled: given the keys of the unfinished files of a cancelled operation, and what says those that others
            would go on from, to remove the rest: ask it when nobody can come to need one any more.
        settlers: by kind, who is told of an operation as it will stand, before that is written: that it waits again,
            is paused, or has ended. May be told the same again.

    Raises:
        DatabaseError, StoreError: from every method: the database or the leases cannot be reached.
    """

    def __init__(
        self,
        database: Database,
        home: Path,
        handlers: Mapping[str, Handler],
        clock: Clock,
        *,
        limits: Limits | None = None,
        on_cancelled: Discard = _keep,
        settlers: Mapping[str, Settle] | None = None,
    ) -> None:
        self._rows = Rows(database, home)
        self._folder = home / "operations"
        self._handlers = handlers
        self._clock = clock
        self._limits = limits or Limits()
        self._on_cancelled = on_cancelled
        self._settlers = settlers or {}
        self._desk = Desk(self._rows, clock, self._limits.attempts, self._discard, self._news, self._settle)
        self._jobs: dict[str, Job] = {}
        self._watchers: dict[str, set[Bell]] = {}
        self._nudge = Bell(clock)
        self._swept: float | None = None

    async def submit(self, order: Order) -> Operation:
        """Write an order down; it is begun by whoever runs this home. An equal one that has not ended is joined.

        An order says that something shall be done: it also wakes an equal one that is paused.

        Raises:
            NotSupported: nobody here does work of that kind.
        """
        if order.kind not in self._handlers:
            raise NotSupported(f"There is no operation {order.kind!r}.", f"Known: {', '.join(sorted(self._handlers))}.")
        new = Operation(f"op-{secrets.token_hex(8)}", order, OperationStatus.PENDING, self._clock.wall())
        while True:
            row = await self._rows.add(new)
            identifier = row.operation.id
            job = self._jobs.get(identifier)
            if job is not None and job.wish and job.finished is not None:
                await asyncio.wait([job.finished])  # it is stopping just now; see how it ended
                continue
            if row.operation.status is OperationStatus.PAUSED or row.wish:
                with suppress(Conflict):
                    await self._ask(identifier, Wish.RESUME)
            self._nudge.ring()
            return await self.get(identifier)

    async def get(self, identifier: str) -> Operation:
        """How it stands now.

        Raises:
            OperationNotFound: there is none, or no longer.
        """
        job = self._jobs.get(identifier)
        return job.operation if job is not None else (await self._rows.get(identifier)).operation

    async def page(
        self,
        limit: int,
        before: str | None = None,
        status: OperationStatus | None = None,
        model: str | None = None,
    ) -> list[Operation]:
        """At most `limit`, newest first, that were ordered before the operation `before`.

        Raises:
            OperationNotFound: `before` is none, or no longer.
        """
        rows = await self._rows.page(limit, before, status, model)
        return [self._live(row.operation) for row in rows]

    async def pause(self, identifier: str) -> Operation:
        """Stop it where it is; what it would go on from is kept. In another process, that takes a moment.

        Raises:
            OperationNotFound: there is none.
            Conflict: it has ended, or is paused.
        """
        return await self._ask(identifier, Wish.PAUSE)

    async def resume(self, identifier: str) -> Operation:
        """Put a paused one back in the queue, in its old place.

        Raises:
            OperationNotFound: there is none.
            Conflict: it is not paused.
        """
        return await self._ask(identifier, Wish.RESUME)

    async def cancel(self, identifier: str) -> Operation:
        """Call it off; what nobody else would go on from is removed. In another process, that takes a moment.

        Raises:
            OperationNotFound: there is none.
            Conflict: it has ended.
        """
        return await self._ask(identifier, Wish.CANCEL)

    async def tell_again(self, identifier: str) -> None:
        """Have its settler told how it stands, where nobody is at it: a process may have died before it had been.

        Raises:
            OperationNotFound: there is none, or no longer.
        """
        lease = Lease.take(self._folder, identifier)
        if lease is None:
            return  # who is at it tells
        try:
            operation = (await self._rows.get(identifier)).operation
            if operation.status is not OperationStatus.IN_PROGRESS:
                await self._settle(operation)
        finally:
            lease.free()
        self._nudge.ring()  # who would have begun it meanwhile could not

    async def watch(self, identifier: str) -> AsyncIterator[Operation]:
        """How it stands, now and whenever that changes, about ten times a second at most; ends when it has ended.

        Raises:
            OperationNotFound: there is none, or no longer.
        """
        bell = Bell(self._clock)
        self._watchers.setdefault(identifier, set()).add(bell)
        last: Operation | None = None
        try:
            while last is None or not last.status.ended:
                now = await self.get(identifier)
                if now != last:
                    last = now
                    yield now
                else:
                    await bell.wait(POLL)
        finally:
            self._watchers[identifier].discard(bell)
            if not self._watchers[identifier]:
                del self._watchers[identifier]

    async def parts(self) -> frozenset[str]:
        """The keys of the unfinished files that operations which have not ended would go on from."""
        return await self._parts_but("")

    async def run(self) -> None:
        """Do what waits, and what a killed process left, until cancelled; what is at work then goes on the next time.

        A database or folder that cannot be reached is waited for.
        """
        begun: set[str] = set()
        failing = False
        try:
            while True:
                seen, looked = self._rows.database.stamp(), self._clock.now()
                try:
                    await self._round(begun)
                    failing = False
                except (DatabaseError, StoreError, OperationNotFound) as error:
                    log.log(logging.DEBUG if failing else logging.WARNING, "operations wait: %s", error)
                    failing = True
                while not await self._nudge.wait(POLL):
                    stamp = self._rows.database.stamp()
                    if failing or stamp is None or stamp != seen or self._clock.now() - looked >= LOOK:
                        break
        finally:
            await self._stop(begun)

    async def perform(self, identifier: str, report: Report = silent) -> Operation:
        """Do that one here, or watch it while another process does, until it has ended or is paused.

        It waits for its lane and its host, not for those that only wait themselves. When cancelled it is paused, where
        it is done here.

        Raises:
            OperationNotFound: there is none.
        """
        while True:
            await self._survey()
            job = await self._begin(identifier, report)
            if job is not None and job.finished is not None:
                try:
                    return await asyncio.shield(job.finished)
                except asyncio.CancelledError:
                    job.ask(Wish.PAUSE)
                    await asyncio.wait([job.finished])
                    raise
            now = await self.get(identifier)
            if now.status.ended or now.status is OperationStatus.PAUSED:
                return now
            if now.status is OperationStatus.IN_PROGRESS:
                report(Progress(now.phase, now.done, now.total, now.message))
            await self._clock.sleep(POLL)

    async def close(self) -> None:
        """Stop what is at work here, so that it goes on the next time, and close the database."""
        await self._stop(set(self._jobs))
        await self._rows.database.close()

    async def _round(self, begun: set[str]) -> None:
        """Begin what may begin; `begun` takes the identifiers."""
        await self._prune()
        waiting, running = await self._survey()
        for identifier in startable(waiting, running, self._limits):
            if await self._begin(identifier, silent) is not None:
                begun.add(identifier)

    async def _survey(self) -> tuple[list[Place], list[Place]]:
        """What waits and what is at work, first come first, after what dead processes left has been taken up."""
        waiting, running = [], []
        for row in await self._rows.unfinished():
            here = row.operation.id in self._jobs
            now = row.operation if here or _settled(row) else await self._carry_out(row.operation.id, Wish.NONE)
            if here or now is None:
                running.append(row.place)
            elif now.status is OperationStatus.PENDING:
                waiting.append(row.place)
        return waiting, running

    async def _begin(self, identifier: str, report: Report) -> Job | None:
        """Begin it here if it waits, nobody is at it and the limits allow it."""
        if identifier in self._jobs:
            return None
        lease = Lease.take(self._folder, identifier)
        if lease is None:
            return None
        claiming = asyncio.ensure_future(self._rows.claim(identifier, self._limits, self._clock.wall()))
        try:
            operation = await asyncio.shield(claiming)
        except BaseException:
            try:
                await self._unclaim(claiming)
            finally:
                lease.free()
            raise
        if operation is None:
            lease.free()
            return None
        handler = self._handlers.get(operation.order.kind, _unknown)
        job = Job(operation, handler, lease, self._desk, report)
        self._jobs[identifier] = job
        job.finished = asyncio.create_task(job.run())
        job.finished.add_done_callback(lambda task: self._finished(identifier, task))
        return job

    async def _unclaim(self, claiming: asyncio.Future[Operation | None]) -> None:
        """Have an operation wait again that is being claimed by who has to leave: that was no try."""
        await asyncio.wait([claiming])
        with suppress(DatabaseError):
            claimed = claiming.result()
            if claimed is not None:
                await self._rows.save(replace(claimed, status=OperationStatus.PENDING, attempts=claimed.attempts - 1))

    def _finished(self, identifier: str, task: asyncio.Task[Operation]) -> None:
        del self._jobs[identifier]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("operation %s was left where it was", identifier, exc_info=error)
        self._nudge.ring()
        self._news(identifier)

    async def _ask(self, identifier: str, wish: Wish) -> Operation:
        """Have `wish` done: by our own job, here and now where nobody is at it, or by the process that is."""
        job = self._jobs.get(identifier)
        if job is not None and job.finished is not None:
            _allow(job.operation, wish)
            job.ask(wish)
            await asyncio.wait([job.finished])
            now = await self.get(identifier)
            if now.status.ended or (wish is Wish.PAUSE and now.status is OperationStatus.PAUSED):
                return now
            return await self._ask(identifier, wish)  # how it ends was settled before it was asked
        row = await self._rows.get(identifier)
        _allow(row.operation, wish, row.wish)
        done = await self._carry_out(identifier, wish)
        if done is None:
            await self._rows.ask(identifier, wish)
            return await self.get(identifier)
        return done

    async def _carry_out(self, identifier: str, wish: Wish) -> Operation | None:
        """Do `wish`, or else the one in the row, to an operation that nobody is at; None when somebody is."""
        lease = Lease.take(self._folder, identifier)
        if lease is None:
            return None
        try:
            row = await self._rows.get(identifier)
            if wish:
                _allow(row.operation, wish, row.wish)
            if not wish and _settled(row):  # its job here came to its end since it was seen at work
                return row.operation
            operation = self._after(row.operation, wish or row.wish)
            if operation.status is OperationStatus.CANCELLED:
                await self._discard(operation)
                operation = replace(operation, parts=frozenset())
            with suppress(DatabaseError):  # what cannot be told now is told by whoever looks after those
                await self._settle(operation)
            await self._rows.save(operation, heeded=row.wish)
        finally:
            lease.free()
        self._nudge.ring()
        self._news(identifier)
        return operation

    def _after(self, operation: Operation, wish: Wish) -> Operation:
        """What becomes of an operation that nobody is at."""
        still = replace(operation, rate=None, eta=None)
        if wish is Wish.CANCEL:
            return replace(still, status=OperationStatus.CANCELLED, ended_at=self._clock.wall())
        if wish is Wish.PAUSE:
            return replace(still, status=OperationStatus.PAUSED)
        if operation.status is OperationStatus.IN_PROGRESS and operation.attempts >= self._limits.attempts:
            failure = Failure(
                "interrupted",
                f"Each of {operation.attempts} tries was cut short: the process that was at it died.",
                "Look at the log of Corral and the system's (out of memory?), then order it again.",
            )
            return replace(still, status=OperationStatus.FAILED, ended_at=self._clock.wall(), error=failure)
        return replace(still, status=OperationStatus.PENDING)

    async def _discard(self, operation: Operation) -> None:
        """Have the files removed that only this cancelled operation would go on from."""
        if operation.parts:
            try:
                await self._on_cancelled(operation.parts, partial(self._parts_but, operation.id))
            except (CorralError, OSError) as error:
                log.warning("operation %s is cancelled, and leaves unfinished files: %s", operation.id, error)

    async def _settle(self, operation: Operation) -> None:
        """Tell whoever is to be told how an operation will stand.

        Raises:
            DatabaseError: that could not be done now.
        """
        settler = self._settlers.get(operation.order.kind)
        if settler is not None:
            try:
                await settler(operation)
            except DatabaseError:
                raise
            except (CorralError, OSError) as error:
                log.warning("operation %s: that it is %s could not be told: %s", operation.id, operation.status, error)

    async def _parts_but(self, identifier: str) -> frozenset[str]:
        rows = await self._rows.unfinished()
        others = (self._live(row.operation) for row in rows if row.operation.id != identifier)
        return frozenset().union(*(operation.parts for operation in others))

    async def _prune(self) -> None:
        now = self._clock.now()
        if self._swept is None or now - self._swept >= SWEEP:
            await self._rows.prune(self._clock.wall() - self._limits.keep)
            await in_thread(sweep, self._folder)
            self._swept = now

    async def _stop(self, identifiers: set[str]) -> None:
        jobs = [self._jobs[identifier] for identifier in identifiers if identifier in self._jobs]
        for job in jobs:
            job.ask(Wish.STOP)
        ends = [job.finished for job in jobs if job.finished is not None]
        if ends:
            await asyncio.wait(ends)

    def _live(self, operation: Operation) -> Operation:
        job = self._jobs.get(operation.id)
        return operation if job is None else job.operation

    def _news(self, identifier: str) -> None:
        for bell in self._watchers.get(identifier, ()):
            bell.ring()


def _settled(row: Row) -> bool:
    """Whether nothing is left to do about it but to run it."""
    return row.operation.status.ended or (row.operation.status is not OperationStatus.IN_PROGRESS and not row.wish)


def _allow(operation: Operation, wish: Wish, pending: Wish = Wish.NONE) -> None:
    """Refuse what its state does not allow. One that has a wish `pending` may be asked to go on after all."""
    status = operation.status
    what = f"Operation {operation.id} ({operation.order.kind} {operation.order.model}".rstrip() + ")"
    if status.ended:
        raise Conflict(f"{what} has ended: {status}.", "Order it again to have it done again.")
    if wish is Wish.RESUME and status is not OperationStatus.PAUSED and not pending:
        raise Conflict(f"{what} is not paused: {status}.")
    if wish is Wish.PAUSE and status is OperationStatus.PAUSED:
        raise Conflict(f"{what} is paused.", f"Go on with it: corral operations resume {operation.id}")


async def _unknown(operation: Operation, _: Work) -> None:
    raise NotSupported(
        f"Nobody here does {operation.order.kind!r}.", "It was ordered by another version of Corral, or of a plugin."
    )
