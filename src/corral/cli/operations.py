"""`corral operations`: the long work of this home, under way, waiting and done."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.output import Painted, size_text, time_text
from corral.cli.progress import Step, amount_text, shown
from corral.cli.server import Server
from corral.cli.table import Column
from corral.cli.work import failure
from corral.domain.operations import Operation, OperationStatus, describe
from corral.errors import InvalidRequest, OperationNotFound

if TYPE_CHECKING:
    from corral.app import Corral

_VERBS = ("cancel", "pause", "resume")
_SHORT = 11
"""Characters of an identifier in a table: enough to be told apart."""
_LOOKED_AT = 1000
_STYLES = {
    OperationStatus.IN_PROGRESS: "yellow",
    OperationStatus.COMPLETED: "green",
    OperationStatus.FAILED: "red",
    OperationStatus.CANCELLED: "dim",
    OperationStatus.PAUSED: "cyan",
}


class Book(Protocol):
    """Where operations are written down."""

    async def operations(self, limit: int) -> list[Operation]:
        """The newest, newest first."""
        ...

    async def operation(self, identifier: str) -> Operation:
        """One as it stands."""
        ...

    async def change(self, identifier: str, verb: str) -> Operation:
        """Cancel, pause or resume it."""
        ...

    def watch(self, identifier: str) -> AsyncIterator[Operation]:
        """It, now and whenever it changes."""
        ...

    async def close(self) -> None:
        """Close the book."""
        ...


class OwnBook:
    """The database of this home, opened by this process."""

    def __init__(self, corral: "Corral") -> None:
        self._corral = corral
        self._all = corral.catalog.operations

    async def operations(self, limit: int) -> list[Operation]:
        """The newest, newest first."""
        return await self._all.page(limit)

    async def operation(self, identifier: str) -> Operation:
        """One as it stands."""
        return await self._all.get(identifier)

    async def change(self, identifier: str, verb: str) -> Operation:
        """Cancel, pause or resume it."""
        verbs = {"cancel": self._all.cancel, "pause": self._all.pause, "resume": self._all.resume}
        return await verbs[verb](identifier)

    def watch(self, identifier: str) -> AsyncIterator[Operation]:
        """It, now and whenever it changes."""
        return self._all.watch(identifier)

    async def close(self) -> None:
        """Close the database."""
        await self._corral.close()


@command
def operations(
    invocation: Invocation,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[cancel|pause|resume] [ID]...", help="What to do, and to which; none lists them."),
    ] = None,
    everything: Annotated[bool, flag("--all", "-a", help="Also those that ended long ago.")] = False,
    follow: Annotated[bool, flag("--follow", "-f", help="Show how far one is until it ends.")] = False,
) -> None:
    """List installs and other long work, or cancel, pause or resume it.

    The first characters of an ID are enough. For example: corral operations, corral operations cancel op-1a2b3c4d
    """
    verb, identifiers = _understood(list(words or ()))
    if follow and (verb or len(identifiers) != 1):
        raise InvalidRequest("--follow is for one operation.", "corral operations ID --follow")
    if verb:
        changed = _with(invocation, lambda book: _change(book, verb, identifiers))
        for operation in changed:
            _tell_changed(invocation, verb, operation)
    elif follow:
        _follow(invocation, identifiers[0])
    elif identifiers:
        for operation in _with(invocation, lambda book: _each(book, identifiers)):
            _show(invocation, operation)
    else:
        _list(invocation, _with(invocation, lambda book: book.operations(_LOOKED_AT if everything else 20)))


def _understood(words: list[str]) -> tuple[str, list[str]]:
    if not words or words[0] not in _VERBS:
        return "", words
    if len(words) == 1:
        raise InvalidRequest(f"Which operation shall be {_PAST[words[0]]}?", "See them: corral operations")
    return words[0], words[1:]


_PAST = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}


def _with(invocation: Invocation, question: Callable[[Book], Awaitable[Any]]) -> Any:
    """Open the book, ask, close it."""

    async def ask() -> Any:
        book = _book(invocation)
        try:
            return await question(book)
        finally:
            await book.close()

    return asyncio.run(ask())


def _book(invocation: Invocation) -> Book:
    server: Server | None = Server.of(invocation) if invocation.running() is not None else None
    return server or OwnBook(invocation.corral())


async def _whole(book: Book, start: str) -> str:
    """The identifier that begins so.

    Raises:
        OperationNotFound: none does, or several.
    """
    if not start or len(start) > 100 or not start.isprintable():
        raise OperationNotFound(f"There is no operation {start[:40]!r}.", "See them: corral operations --all")
    found = [op.id for op in await book.operations(_LOOKED_AT) if op.id.startswith(start)]
    if len(found) > 1 and start not in found:
        raise OperationNotFound(f"{len(found)} operations begin with {start!r}.", f"{', '.join(found[:3])}, …")
    return start if not found or start in found else found[0]


async def _change(book: Book, verb: str, identifiers: Sequence[str]) -> list[Operation]:
    return [await book.change(await _whole(book, identifier), verb) for identifier in identifiers]


async def _each(book: Book, identifiers: Sequence[str]) -> list[Operation]:
    return [await book.operation(await _whole(book, identifier)) for identifier in identifiers]


def _tell_changed(invocation: Invocation, verb: str, operation: Operation) -> None:
    output = invocation.output

    def show() -> None:
        what = f"{operation.order.kind} {operation.order.model}".strip()
        busy = verb != "resume" and operation.status is OperationStatus.IN_PROGRESS  # another process is at it
        output.say(f"Operation {operation.id} ({what}) is {'being ' if busy else ''}{_PAST[verb]}.")
        if verb == "pause":
            output.note(f"Go on: corral operations resume {operation.id}")
        elif verb == "resume" and invocation.running() is None:
            output.note("It goes on when a server runs (corral serve), or when the same is asked for again.")

    output.result(describe(operation), show, [operation.id])


def _list(invocation: Invocation, found: Sequence[Operation]) -> None:
    output = invocation.output

    def show() -> None:
        if not found:
            output.say("No operation is under way, and none was done lately.")
            return
        columns = [
            Column("ID"),
            Column("WHAT"),
            Column("MODEL", soft=True),
            Column("STATUS"),
            Column("DONE", right=True),
            Column("WHEN"),
            Column("MESSAGE", soft=True),
        ]
        output.table(columns, [_cells(operation) for operation in found])

    output.result(
        {"operations": [describe(operation) for operation in found], "count": len(found)},
        show,
        [operation.id for operation in found],
    )


def _cells(operation: Operation) -> list[object]:
    message = operation.error.message if operation.error else "" if operation.status.ended else operation.message
    moment = operation.ended_at or operation.started_at or operation.created_at
    return [
        operation.id[:_SHORT],
        operation.order.kind,
        operation.order.model or "-",
        Painted(operation.status, _STYLES.get(operation.status, "")),
        f"{operation.progress:.0f}%",
        _moment(moment),
        message or "-",
    ]


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def _show(invocation: Invocation, operation: Operation) -> None:
    output = invocation.output

    def show() -> None:
        pairs: list[tuple[str, object]] = [
            ("operation", operation.id),
            ("what", operation.order.kind),
            ("model", operation.order.model or "-"),
            ("status", Painted(operation.status, _STYLES.get(operation.status, ""))),
            ("done", f"{operation.progress:.1f}%"),
        ]
        if operation.done or operation.total:
            pairs.append(("bytes", amount_text(operation.done, operation.total)))
        if operation.rate and not operation.status.ended:
            pairs.append(("rate", f"{size_text(operation.rate)}/s"))
        if operation.eta and not operation.status.ended:
            pairs.append(("left", time_text(operation.eta)))
        pairs += [
            (name, text)
            for name, text in (("phase", operation.phase), ("at", operation.message))
            if text and not operation.status.ended
        ]
        for name, moment in (
            ("ordered", operation.created_at),
            ("started", operation.started_at),
            ("ended", operation.ended_at),
        ):
            if moment:
                pairs.append((name, _moment(moment)))
        if operation.attempts > 1:
            pairs.append(("starts", operation.attempts))
        if operation.error is not None:
            pairs.append(("error", Painted(f"{operation.error.message} {operation.error.hint}".strip(), "red")))
        output.fields(pairs)

    output.result(describe(operation), show, [operation.status])


def _follow(invocation: Invocation, start: str) -> None:
    """Show how far it is until it ends; Ctrl-C only stops looking."""

    async def look(book: Book) -> Operation:
        identifier = await _whole(book, start)
        operation = await book.operation(identifier)
        with shown(invocation.output) as board:
            watch = board.watch(operation.order.model or operation.order.kind)
            async for now in book.watch(identifier):
                operation = now
                if not now.status.ended:
                    watch(Step.of(now))
        return operation

    operation: Operation = _with(invocation, look)
    _show(invocation, operation)
    error = failure(operation, f"corral operations resume {operation.id}")
    if error is not None:
        raise error
