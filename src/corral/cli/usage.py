"""`corral usage`: what was used and what it cost, and the receipt of one answer. No server is needed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Protocol
from urllib.parse import quote, urlencode

import typer

from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.names import completion, known
from corral.cli.output import Painted
from corral.cli.server import Server
from corral.cli.table import Column
from corral.errors import NotSupported

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.routing.recompute import Recomputed

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

_BAR = 16
_EIGHTHS = " ▏▎▍▌▋▊▉"
_DAY = 86400
_MOST_DAYS = 400
"""Days of a plot that are shown though nothing was used on them."""


class Book(Protocol):
    """Where usage is written down."""

    async def usage(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """What was used, added up, as the HTTP interface says it."""
        ...

    async def receipt(self, request_id: str) -> dict[str, Any]:
        """The receipt of one answer."""
        ...

    async def close(self) -> None:
        """Close the book."""
        ...


class OwnBook:
    """The database of this home, opened by this process."""

    def __init__(self, corral: "Corral") -> None:
        self._corral = corral

    async def usage(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """What was used, added up."""
        from corral.observability.queries import Question, moment

        now = self._corral.clock.wall()
        question = Question(
            moment(asked["from"], now),
            moment(asked["to"], now) if "to" in asked else now,
            tuple(each for each in asked["by"].split(",") if each),
            asked.get("key"),
            asked.get("project"),
            asked.get("model"),
        )
        return await self._corral.books.report(question)

    async def receipt(self, request_id: str) -> dict[str, Any]:
        """The receipt of one answer."""
        return await self._corral.books.receipt(request_id)

    async def close(self) -> None:
        """Close the database, where it was opened."""
        await self._corral.close()


class TheirBook:
    """The books of a server, which also knows what it has not written down yet."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def usage(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """What was used, added up."""
        return await self._server.question(f"/api/v1/usage?{urlencode(asked)}", "usage")

    async def receipt(self, request_id: str) -> dict[str, Any]:
        """The receipt of one answer."""
        found = await self._server.question(f"/api/v1/receipts/{quote(request_id, safe='')}", "receipt")
        return dict(found["receipt"])

    async def close(self) -> None:
        """Close its connections."""
        await self._server.close()


@app.callback()
@group
def usage(
    context: typer.Context,
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="7d, 24h, 2026-11-21: from then on.")] = "7d",
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Up to then; now by default.")] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="One or two of model, key, project, runtime, day, hour.")
    ] = "model",
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", autocompletion=completion(known), help="Only of this model."),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="ID", help="Only of the key with this id.")] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="NAME", help="Only of this project.")] = None,
) -> None:
    """Show what was used and what it cost, as a table and a plot.

    For example: corral usage --since 7d --by model
    """
    if context.invoked_subcommand is not None:
        return
    asked = {"from": since, "to": until, "by": by, "model": model, "key": key, "project": project}
    given = invocation(context, {})
    _show(given, _with(given, lambda book: book.usage({name: text for name, text in asked.items() if text})))


@app.command(add_help_option=False)
@command
def show(
    given: Invocation,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="What the answer says in x-request-id.")],
) -> None:
    """Show the receipt of one answer: what was done, and what it cost.

    For example: corral usage show req-1a2b3c-1
    """
    _show_receipt(given, _with(given, lambda book: book.receipt(request_id)))


@app.command(add_help_option=False)
@command
def recompute(
    given: Invocation,
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="7d, 24h, 2026-11-21: from then on.")] = "7d",
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Up to then; now by default.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", autocompletion=completion(known), help="Only of this model."),
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Compute costs anew after a wrong price; sums and budgets follow.

    For example: corral usage recompute --since 30d --dry-run
    """
    if given.url:
        raise NotSupported("Costs are computed anew where the database is.", "Do it on the server's machine.")
    corral = given.corral()

    async def work() -> "Recomputed":
        from corral.observability.queries import moment
        from corral.routing.recompute import recompute as compute

        now = corral.clock.wall()
        end = now if until is None else moment(until, now)
        try:
            price = corral.traffic.price_of
            start = moment(since, now)
            return await compute(corral.database, price, since=start, until=end, model=model, dry_run=dry_run)
        finally:
            await corral.close()

    done = asyncio.run(work())
    would = "would change" if dry_run else "changed"

    def human() -> None:
        output = given.output
        before, after = money_text(done.before), money_text(done.after)
        output.say(f"{done.changed:,} of {done.rows:,} costs {would}: {before} before, {after} after.")
        if done.skipped:
            output.note(f"{done.skipped:,} stay: their price is not known, or is not one of tokens alone.")

    given.output.result({**asdict(done), "dry_run": dry_run}, human, [done.changed])


def _with(given: Invocation, question: Callable[[Book], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Open the books, ask, close them."""

    async def ask() -> dict[str, Any]:
        running = given.running() is not None
        book: Book = TheirBook(Server.of(given)) if running else OwnBook(given.corral())
        try:
            return await question(book)
        finally:
            await book.close()

    return asyncio.run(ask())


def money_text(nano: int) -> str:
    """Nanodollars as a person reads them: never nothing for something."""
    dollars = nano / 1e9
    if not nano or abs(dollars) >= 0.01:
        return f"${dollars:,.2f}"
    return f"${dollars:.9f}".rstrip("0")


def count_text(count: int) -> str:
    """A count in at most five characters: 12, 34.5k, 6.7M."""
    number, unit = float(count), ""
    for larger in ("k", "M", "G", "T"):
        if number < 999.5:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f}{unit}" if not unit or number >= 99.95 else f"{number:.1f}{unit}"


def bar(part: float, width: int = _BAR) -> str:
    """A bar of `part` (0 to 1) of `width` cells, to an eighth of a cell; something is never nothing."""
    eighths = min(max(round(part * width * 8), 1 if part > 0 else 0), width * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _show(given: Invocation, found: dict[str, Any]) -> None:
    output, rows, by = given.output, found["usage"], found["by"]

    def human() -> None:
        if not rows:
            output.say("Nothing was used in that time.")
            return
        listed = _every_day(rows) if by == ["day"] else rows
        what, unit = _plotted(listed)
        most = max(row[what] for row in listed) or 1
        unpriced = any(row["unpriced"] for row in rows)
        columns = [
            *(Column(name.upper(), soft=True) for name in by),
            *_columns(unpriced),
            Column(f"BY {unit}", spare=2),
        ]
        output.table(
            columns,
            [[*_names(row, by), *_cells(row, unpriced), Painted(bar(row[what] / most), "cyan")] for row in listed],
        )
        total = found["total"]
        output.say(
            f"In all: {money_text(total['cost_nano'])}, {total['requests']:,} requests, "
            f"{total['input_tokens']:,} tokens in, {total['output_tokens']:,} out.",
            "bold",
        )
        if total["unpriced"]:
            output.note(f"The cost of {total['unpriced']:,} answers is not known, and not in the sums.")

    output.result(
        {name: value for name, value in found.items() if name != "success"},
        human,
        [" ".join(map(str, _names(row, by))) for row in rows],
    )


def _plotted(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What the bars show: money, where any was spent, else tokens, else requests."""
    for what, unit in (("cost_nano", "COST"), ("output_tokens", "OUTPUT")):
        if any(row[what] for row in rows):
            return what, unit
    return "requests", "REQUESTS"


def _columns(unpriced: bool) -> list[Column]:
    titles = [("REQUESTS", 0), ("ERRORS", 1), ("INPUT", 0), ("CACHED", 3), ("OUTPUT", 0), ("FIRST", 4), ("TIME", 5)]
    columns = [Column(title, right=True, spare=spare) for title, spare in titles]
    return [*columns, Column("COST", right=True), *([Column("UNPRICED", right=True)] if unpriced else [])]


def _names(row: Mapping[str, Any], by: Sequence[str]) -> list[object]:
    return [row["key_name"] or row["key"] if name == "key" and row.get("key_name") else row[name] or "-" for name in by]


def _cells(row: Mapping[str, Any], unpriced: bool) -> list[object]:
    errors = count_text(row["errors"])
    return [
        count_text(row["requests"]),
        Painted(errors, "red") if row["errors"] else errors,
        count_text(row["input_tokens"]),
        count_text(row["cached_tokens"]),
        count_text(row["output_tokens"]),
        _ms(row["mean_first_ms"]),
        _ms(row["mean_ms"]),
        money_text(row["cost_nano"]) if row["cost_nano"] or not row["unpriced"] else "?",
        *([count_text(row["unpriced"])] if unpriced else []),
    ]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.1f} s" if value >= 999.5 else f"{value:.0f} ms"


def _every_day(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The days between the first and the last: a plot without the empty ones would mislead."""
    found = {row["day"]: row for row in rows}
    first, last = (_noon(rows[place]["day"]) for place in (0, -1))
    days = (last - first) // _DAY + 1
    if days > _MOST_DAYS:
        return list(rows)
    none = {name: 0 if isinstance(value, int) else None for name, value in rows[0].items() if name != "day"}
    names = [time.strftime("%Y-%m-%d", time.gmtime(first + number * _DAY)) for number in range(days)]
    return [found.get(name) or {**none, "day": name, "mean_ms": None, "mean_first_ms": None} for name in names]


def _noon(day: str) -> int:
    from calendar import timegm

    return timegm(time.strptime(day, "%Y-%m-%d")) + _DAY // 2


def _show_receipt(given: Invocation, found: dict[str, Any]) -> None:
    output = given.output

    def human() -> None:
        used = found.get("usage") or {}
        pairs: list[tuple[str, object]] = [("request", found["request_id"]), ("when", _moment(found.get("at")))]
        pairs += [(name, found[name]) for name in ("key", "project") if found.get(name)]
        model = found.get("model") or "-"
        asked = found.get("asked")
        pairs.append(("model", f"{model} (asked: {asked})" if asked not in (None, "", model) else model))
        for name in ("runtime", "revision", "engine", "device", "context"):
            if found.get(name):
                pairs.append((name, found[name]))
        forms = [found[name] for name in ("dialect", "spoken") if found.get(name)]
        pairs.append(("dialect", " → ".join(dict.fromkeys(forms)) or "-"))
        error = found.get("error")
        pairs.append(("status", Painted(f"{found['status']} {error}", "red") if error else found.get("status") or "-"))
        pairs += [(name, found[name]) for name in ("message", "finish_reason") if found.get(name)]
        pairs += [_used(name, count) for name, count in used.items()]
        pairs.append(("cost", _cost(found)))
        pairs.append(("time", _times(found)))
        pairs += [(name, ", ".join(found[name])) for name in ("ignored", "degraded") if found.get(name)]
        for number, each in enumerate(found.get("tries", ()), 1):
            pairs.append((f"call {number}", _call(each)))
        pairs += [
            ("not asked", f"{each['model']}: {each['message'] or each['code']}") for each in found.get("route", ())
        ]
        output.fields(pairs)

    output.result(found, human, [found["request_id"]])


def _used(name: str, count: float) -> tuple[str, str]:
    what = name.replace("_", " ")
    return what if name in ("images", "seconds") else f"{what} tokens", f"{count:,}"


def _moment(at: float | None) -> str:
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _cost(found: Mapping[str, Any]) -> str:
    cost, price = found.get("cost_nano"), found.get("price")
    text = "unknown" if cost is None else money_text(cost)
    return f"{text} ({price})" if price else text


def _times(found: Mapping[str, Any]) -> str:
    parts = [("waited", "wait_ms"), ("first byte", "first_ms"), ("in all", "total_ms")]
    return ", ".join(f"{_ms(found[name])} {what}" for what, name in parts if found.get(name)) or "-"


def _call(each: Mapping[str, Any]) -> str:
    end = f"{each['error']}: {each.get('message', '')}".rstrip(": ") if each.get("error") else "answered"
    cost = f", {money_text(each['cost_nano'])}" if each.get("cost_nano") else ""
    return f"{each['model']}, {each['seconds']:.1f} s{cost}: {end}"
