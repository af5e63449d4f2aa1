"""`corral budgets`: what may be spent, and what is left. No server is needed; one that runs knows at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from corral.cli import names
from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.output import FAILED, Painted, time_text
from corral.cli.table import Column
from corral.errors import Conflict, CorralError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from corral.db.engine import Database
    from corral.routing.budgets import Budgets, HolderStatus, Status

T = TypeVar("T")

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

_BAR = 12
_NEARLY = 0.8
_CENT = 10_000_000
"""Nanodollars."""
_ALIVE = 600.0
"""Seconds since it was heard of in which a holder of another home counts as alive."""


@app.callback()
@group
def budgets(context: typer.Context) -> None:
    """Show and change what keys, projects and all together may spend.

    For example: corral budgets
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}))


@app.command("list", add_help_option=False)
@command
def list_budgets(given: Invocation) -> None:
    """Show every budget, what of it is used, and when it is renewed.

    For example: corral budgets list --json
    """
    _list(given)


@app.command(add_help_option=False)
@command
def create(
    given: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the budget is called.")],
    amount: Annotated[float, typer.Argument(metavar="AMOUNT", help="How much: US dollars, or a number.")],
    unit: Annotated[
        str,
        typer.Option(
            metavar="UNIT", autocompletion=names.chosen("usd", "tokens", "requests"), help="usd, tokens or requests."
        ),
    ] = "usd",
    per: Annotated[
        str,
        typer.Option(
            metavar="PERIOD",
            autocompletion=names.chosen("day", "week", "month", "total"),
            help="day, week, month or total; in UTC.",
        ),
    ] = "month",
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", autocompletion=names.completion(names.keys), help="Of this key, by name or id."),
    ] = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="Of this project.")] = None,
) -> None:
    """Make a budget: of a key, of a project, or of all together.

    For example: corral budgets create team 50 --per month --project game
    """
    if key is not None and project is not None:
        raise InvalidRequest("A budget is of a key or of a project.", "Make two: both hold at once.")
    subject, who = ("key", key) if key is not None else ("project", project) if project is not None else ("all", "")

    async def make(book: "Budgets") -> "Status":
        from corral.routing.audit import TERMINAL
        from corral.routing.book import Budget
        from corral.routing.budgets import amount_of

        return await book.create(Budget("", name, subject, who or "", unit, per, amount_of(unit, amount)), TERMINAL)

    _said(given, _with(given, make), "made")


@app.command(add_help_option=False)
@command
def change(
    given: Invocation,
    budget: names.Budget,
    amount: Annotated[float | None, typer.Option(metavar="AMOUNT", help="Another amount; what is spent stays.")] = None,
    rename: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Another name.")] = None,
) -> None:
    """Change the amount or the name of a budget.

    For example: corral budgets change team --amount 20
    """
    if amount is None and rename is None:
        raise InvalidRequest("There is nothing to change.", "Give --amount or --name.")

    async def alter(book: "Budgets") -> "Status":
        from corral.routing.audit import TERMINAL
        from corral.routing.budgets import amount_of

        unit = (await book.get(budget)).budget.unit
        whole = None if amount is None else amount_of(unit, amount)
        return await book.change(budget, amount=whole, rename=rename, actor=TERMINAL)

    _said(given, _with(given, alter), "changed")


@app.command("rm", add_help_option=False)
@command
def remove(
    given: Invocation, budget: names.Budget, yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Remove a budget, and what is written down of it.

    For example: corral budgets rm team --yes
    """
    if not yes and not given.output.ask(f"Remove {_with(given, lambda book: book.get(budget)).budget.name}?"):
        given.output.note("Nothing was removed.")
        raise typer.Exit(FAILED)

    async def drop(book: "Budgets") -> str:
        from corral.routing.audit import TERMINAL

        return (await book.remove(budget, TERMINAL)).name

    found = _with(given, drop)
    given.output.result(
        {"name": found, "removed": True}, lambda: given.output.say(f"Budget {found} is removed."), [found]
    )


@app.command(add_help_option=False)
@command
def release(
    given: Invocation,
    holder: Annotated[str, typer.Argument(metavar="HOLDER", help="The process, as `corral budgets` names it.")],
    unspent: Annotated[
        bool, flag("--unspent", help="Give back what it had leased; otherwise it counts as spent.")
    ] = False,
    force: Annotated[bool, flag("--force", help="Also when it was heard of lately.")] = False,
) -> None:
    """End what a process has leased that will never come back.

    A process of a machine that is gone, for instance. For example: corral budgets release HOLDER --unspent
    """
    given.here_only("budgets")

    async def end(database: "Database", book: "Budgets") -> dict[str, int]:
        from corral.routing.treasury import Treasury

        await _recover(given, database)
        known = {each.id: each for each in await book.holders()}
        if holder not in known:
            raise NotFound(f"No process {holder[:60]!r} has a lease.", "See them: corral budgets")
        if time.time() - known[holder].seen_at < _ALIVE and not force:
            raise Conflict(
                f"{holder} was heard of {time_text(time.time() - known[holder].seen_at)} ago.",
                "It gives back what it has when it ends; --force ends it all the same.",
            )
        await Treasury(database).release(holder, spent=not unspent)
        return dict(known[holder].leases)

    leased = asyncio.run(_opened(given, end))
    fate = "given back" if unspent else "counted as spent"
    given.output.result(
        {"holder": holder, "leases": leased, "spent": not unspent},
        lambda: given.output.say(f"What {holder} had leased is {fate}."),
        [holder],
    )


def _with(given: Invocation, question: Callable[["Budgets"], Awaitable[T]]) -> T:
    """What the answer to a change is, of which a server that runs for this home knows by then."""
    given.here_only("budgets")

    async def work() -> T:
        answer = await _opened(given, lambda _, book: question(book))
        if given.running() is not None:
            await _tell_server(given)
        return answer

    return asyncio.run(work())


async def _tell_server(given: Invocation) -> None:
    """Have the server look: it would do so within a second, but a second is time for many requests."""
    from corral.cli.server import Server

    server = Server.of(given)
    try:
        await server.question("/api/v1/budgets", "budgets")
    except CorralError as error:
        given.output.note(f"The server knows of it within a second; it could not be told at once: {error.message}")
    finally:
        await server.close()


async def _opened(given: Invocation, work: Callable[["Database", "Budgets"], Awaitable[T]]) -> T:
    from corral.db.engine import Database
    from corral.kit.clock import SystemClock
    from corral.routing.budgets import Budgets

    settings = given.settings()
    database = Database(settings.database.url, settings.home)
    try:
        return await work(database, Budgets(database, SystemClock()))
    finally:
        await database.close()


async def _recover(given: Invocation, database: "Database") -> None:
    """Close the books of processes of this home that died, so that what is shown is so."""
    from corral.kit.clock import SystemClock
    from corral.routing.recovery import recover
    from corral.routing.treasury import Treasury

    for found in await recover(given.settings().home / "ledger", Treasury(database), SystemClock()):
        given.output.note(f"A process had died: its books are closed ({found.holder}).")


def _list(given: Invocation) -> None:
    given.here_only("budgets")

    async def look(database: "Database", book: "Budgets") -> "tuple[list[Status], list[HolderStatus], dict[str, str]]":
        await _recover(given, database)
        standing = await book.standing()
        named = {key.id: key.wish.name for key in await Keys(database, SystemClock()).all()} if standing else {}
        return standing, [each for each in await book.holders() if each.leases], named

    from corral.kit.clock import SystemClock
    from corral.routing.budgets import describe
    from corral.routing.keys import Keys

    found, holders, named = asyncio.run(_opened(given, look))
    output = given.output

    def show() -> None:
        if not found:
            output.say("There is no budget. Make one: corral budgets create NAME AMOUNT")
            return
        now = time.time()
        columns = [
            Column("NAME"),
            Column("OF", soft=True),
            Column("PER"),
            Column("AMOUNT", right=True),
            Column("SPENT", right=True),
            Column("RESERVED", right=True, spare=2),
            Column("LEFT", right=True),
            Column("USED", spare=1),
            Column("RENEWED IN", spare=3),
        ]
        output.table(columns, [_row(status, named, now) for status in found])
        for status in found:
            if status.abandoned:
                lost = status.budget.shown(status.abandoned)
                output.note(
                    f"Of {status.budget.name}, {lost} was reserved by calls of killed processes and counts as spent."
                )
        _tell_lost(given, holders, now)

    data = {
        "budgets": [describe(status) for status in found],
        "count": len(found),
        "holders": [
            {"holder": each.id, "home": each.home, "seen_at": each.seen_at, "leases": dict(each.leases)}
            for each in holders
        ],
    }
    output.result(data, show, [status.budget.name for status in found])


def _tell_lost(given: Invocation, holders: Sequence["HolderStatus"], now: float) -> None:
    for each in holders:
        if now - each.seen_at >= _ALIVE:
            given.output.note(
                f"{each.id} has leases and was last heard of {time_text(now - each.seen_at)} ago. If its machine never "
                f"comes back: corral budgets release {each.id}"
            )


def _row(status: "Status", named: Mapping[str, str], now: float) -> list[object]:
    from corral.cli.usage import money_text

    budget = status.budget
    shown = money_text if budget.unit == "usd" else budget.figure
    renewal = "never" if status.renews_at is None else time_text(status.renews_at - now)
    return [
        budget.name,
        f"{budget.subject} {named.get(budget.who, budget.who)}".strip(),
        budget.period,
        shown(budget.amount) if budget.unit == "usd" else budget.shown(budget.amount),
        shown(status.spent),
        shown(status.leased),
        # What is left is told in whole cents, and never more than it is.
        shown(status.left - status.left % _CENT if budget.unit == "usd" and status.left > _CENT else status.left),
        _bar(status.spent, budget.amount),
        renewal,
    ]


def _bar(spent: int, amount: int) -> Painted:
    """How much is gone, as a bar and in per cent."""
    part = min(spent / amount, 1.0) if amount else 1.0
    full = min(int(part * _BAR + 0.5), _BAR)
    style = "red" if part >= 1 else "yellow" if part >= _NEARLY else "green"
    return Painted(f"{'█' * full}{'·' * (_BAR - full)} {int(part * 100):3d}%", style)


def _said(given: Invocation, status: "Status", what: str) -> None:
    from corral.routing.budgets import describe

    output, budget = given.output, status.budget
    data: Mapping[str, Any] = describe(status)
    period = "in all" if budget.period == "total" else f"per {budget.period}"
    message = (
        f"Budget {budget.name} is {what}: {budget.shown(budget.amount)} {period}, {budget.figure(status.spent)} spent."
    )
    output.result(data, lambda: output.say(message), [budget.name])
