"""Operations, done by whoever can: the running server where there is one, else this process.

Both show the same operation. Ctrl-C pauses it: what has arrived is kept, and the same command goes on from there.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from corral.cli.output import size_text
from corral.cli.progress import Watch, shown
from corral.cli.server import Server, error_of
from corral.domain.operations import Operation, OperationStatus, Order
from corral.errors import Conflict, CorralError, ServerNotRunning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corral.app import Corral
    from corral.cli.invocation import Invocation

    Show = Callable[[Operation], None]


class Hands(Protocol):
    """Who does operations."""

    async def submit(self, order: Order) -> Operation:
        """The operation for `order`, waiting or already under way."""
        ...

    async def follow(self, operation: Operation, show: Show) -> Operation:
        """Wait for its end, or until somebody pauses it; `show` is given each change."""
        ...

    async def pause(self, identifier: str) -> Operation:
        """Let it rest, with what it has."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Here:
    """Does them in this process."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral

    async def submit(self, order: Order) -> Operation:
        """Queue it, or go on with an equal one."""
        return await self._corral.catalog.start(order)

    async def follow(self, operation: Operation, show: Show) -> Operation:
        """Do it."""
        operations = self._corral.catalog.operations
        watching = asyncio.ensure_future(self._show(operation.id, show))
        try:
            return await operations.perform(operation.id)
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def pause(self, identifier: str) -> Operation:
        """Let it rest."""
        return await self._corral.catalog.operations.pause(identifier)

    async def close(self) -> None:
        """Close the parts."""
        await self._corral.close()

    async def _show(self, identifier: str, show: Show) -> None:
        async for operation in self._corral.catalog.operations.watch(identifier):
            show(operation)


class There:
    """Has the server do them."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def submit(self, order: Order) -> Operation:
        """Hand it over, or go on with an equal one."""
        return await self._server.submit(order)

    async def follow(self, operation: Operation, show: Show) -> Operation:
        """Watch it."""
        async for now in self._server.watch(operation.id):
            show(now)
            if now.status.ended or now.status is OperationStatus.PAUSED:
                return now
        raise ServerNotRunning(
            "The server stops, and keeps what has arrived.", "It goes on when a server runs again: corral serve"
        )

    async def pause(self, identifier: str) -> Operation:
        """Have it rest."""
        return await self._server.change(identifier, "pause")

    async def close(self) -> None:
        """Hang up."""
        await self._server.close()


@dataclass(slots=True)
class Task:
    """One order, how it is called for the person who gave it, and what became of it."""

    order: Order
    called: str
    again: str
    operation: Operation | None = None
    error: CorralError | None = None
    watch: Watch | None = None
    found: int = 0
    """Bytes that an earlier run had fetched already."""

    @property
    def held(self) -> int:
        """Bytes that have arrived, as far as that is known: this run counts only once it fetches."""
        return self.watch.held if self.watch is not None and self.watch.moved else self.found

    @property
    def moved(self) -> bool:
        """Whether bytes were fetched, which may have gone too quickly to be seen."""
        seen = self.watch is not None and self.watch.moved
        return seen or (self.operation is not None and self.operation.done > 0)


def hands(invocation: Invocation, corral: Corral | None = None) -> Hands:
    """The server that runs, or this process."""
    if invocation.running() is not None:
        return There(Server.of(invocation))
    return Here(corral or invocation.corral())


def order(corral: Corral | None, kind: str, model: str = "", **params: Any) -> Order:
    """The order to do `kind` to a model; `corral` is None where another machine's server will know better."""
    if corral is not None:
        return corral.catalog.order(kind, model, **params)
    return Order(kind, model, {key: value for key, value in params.items() if value not in (None, False)})


_LONG = frozenset({"install", "update", "move", "push", "container-pull", "container-update"})
"""The kinds whose progress is told in JSON, too: lines before the outcome."""


_FETCHING = frozenset({"install", "update", "container-pull"})
"""The kinds whose bytes stay when they are stopped."""


def carry_out(invocation: Invocation, tasks: Sequence[Task], corral: Corral | None = None) -> None:
    """Do all of `tasks` at once, and show how far each is; their `operation` and `error` say what became of them.

    Raises:
        KeyboardInterrupt: Ctrl-C; the operations rest, and it has been said how to go on.
    """
    output = invocation.output
    try:
        with shown(output, events=tasks[0].order.kind in _LONG) as board:
            for task in tasks:
                task.watch = board.watch(task.called)
            asyncio.run(_all(invocation, tasks, corral))
    except KeyboardInterrupt:
        for task in tasks:
            _say_how_to_go_on(invocation, task)
        raise


def done(invocation: Invocation, order: Order, called: str, again: str) -> Operation:
    """Do one operation to its end, and show how far it is; what it became.

    Raises:
        CorralError: it failed, was cancelled or could not begin.
    """
    task = Task(order, called, again)
    carry_out(invocation, [task])
    if task.error is not None:
        raise task.error
    if task.operation is None:
        raise CorralError(f"{called} did not begin.")
    return task.operation


async def _all(invocation: Invocation, tasks: Sequence[Task], corral: Corral | None) -> None:
    workers = hands(invocation, corral)
    try:
        await asyncio.gather(*(_one(workers, task) for task in tasks))
    finally:
        await workers.close()


async def _one(workers: Hands, task: Task) -> None:
    try:
        task.operation = await workers.submit(task.order)
        if task.order.kind in _FETCHING:
            task.found = task.operation.done
        if task.watch is not None:
            task.operation = await workers.follow(task.operation, task.watch.operation)
        task.error = failure(task.operation, task.again)
    except CorralError as error:
        task.error = error
    except asyncio.CancelledError:
        if task.operation is not None:
            with suppress(CorralError):
                task.operation = await workers.pause(task.operation.id)
        raise


def failure(operation: Operation, again: str) -> CorralError | None:
    """Why the operation did not do what was asked; None when it did."""
    if operation.status is OperationStatus.FAILED and operation.error is not None:
        error = operation.error
        return error_of({"code": error.code, "message": error.message, "hint": error.hint})
    if operation.status is OperationStatus.CANCELLED:
        return Conflict(f"Operation {operation.id} was cancelled.", f"Begin anew: {again}")
    if operation.status is OperationStatus.PAUSED:
        return Conflict(f"Operation {operation.id} was paused.", f"Go on: {again}")
    return None


def located(what: str) -> str:
    """`what`, with the whole path where it is a `file:` reference: whoever does the work may stand elsewhere."""
    scheme, colon, path = what.partition(":")
    if scheme != "file" or not colon or not path or path.startswith("//") or "\0" in path:
        return what
    return f"file:{Path(path).expanduser().absolute()}"


def _say_how_to_go_on(invocation: Invocation, task: Task) -> None:
    if task.operation is not None and task.operation.status.ended:
        return
    kept = f"; {size_text(task.held)} are kept" if task.held else ""
    if not kept and task.order.kind in _FETCHING and task.operation is not None and task.operation.progress > 0:
        kept = "; what had arrived is kept"  # a run between was stopped before it counted
    invocation.output.note(f"{task.called}: stopped{kept}. To go on: {task.again}")
    if task.operation is not None:
        invocation.output.note(f"To drop what is kept: corral operations cancel {task.operation.id}")
