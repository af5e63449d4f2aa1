"""`corral containers logs` and `stats`: what containers print and take, as it comes."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from functools import partial
from typing import Annotated, Any

import typer

from corral.cli.containers_hands import Found, Hands, ask
from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Container, Containers
from corral.cli.output import Mode, Output, size_text
from corral.cli.table import Column
from corral.errors import ContainerNotFound, CorralError, DockerUnavailable

_EVERY = 1.0
"""Seconds between two looks of the table, which shows the newest that is known of each."""
_HEAD = 2
"""Lines of the terminal that are left free below the table."""

Draw = Callable[[], None]


@command
def logs(
    given: Invocation,
    name: Container,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=1, max=10_000, help="How many of the last lines.")
    ] = 100,
    follow: Annotated[bool, flag("--follow", "-f", help="Go on with each further line, until Ctrl-C.")] = False,
    timestamps: Annotated[bool, flag("--timestamps", "-t", help="Show when each was printed.")] = False,
) -> None:
    """Show the last lines that a container printed.

    For example: corral containers logs coder -f
    """
    output = given.output
    show = partial(_line, output, timestamps)

    async def read(hands: Hands) -> list[Found]:
        found = []
        async with aclosing(hands.logs(name, lines, follow=follow)) as told:
            async for line in told:
                if follow:
                    output.result(line, partial(show, line), [line["text"]])
                else:
                    found.append(line)
        return found

    found = ask(given, read)
    if not follow:

        def whole() -> None:
            for line in found:
                show(line)

        output.result({"name": name, "lines": found}, whole, [line["text"] for line in found])


def _line(output: Output, timestamps: bool, line: Mapping[str, Any]) -> None:
    at = line["at"]
    moment = f"{time.strftime('%H:%M:%S', time.localtime(at))}  " if timestamps and at is not None else ""
    output.say(moment + line["text"])


@command
def stats(
    given: Invocation,
    names: Containers = None,
    once: Annotated[bool, flag("--once", help="Look once, and stop.")] = False,
) -> None:
    """Show what containers take, live, until Ctrl-C.

    What does not run is left out. Processors, memory, network, disk, processes, throttling and GPU memory. For
    example: corral containers stats --once
    """
    wanted = list(dict.fromkeys(names or ()))
    if once:
        found = ask(given, lambda hands: _once(hands, wanted))
        rows = [{"name": name, **usage} for name, usage in found.items() if usage is not None]
        idle = [name for name, usage in found.items() if usage is None]
        data = {"stats": rows, "count": len(rows), "idle": idle}
        given.output.result(data, lambda: _show(given.output, rows, idle), [row["name"] for row in rows])
        return
    ask(given, lambda hands: _live(given, hands, wanted))


async def _once(hands: Hands, wanted: Sequence[str]) -> dict[str, Found | None]:
    names = await _running(hands, wanted)
    found = await asyncio.gather(*(hands.usage(name) for name in names))
    return dict(zip(names, found, strict=True))


async def _running(hands: Hands, wanted: Sequence[str]) -> list[str]:
    """Those that were named, or all whose process runs.

    Raises:
        DockerUnavailable: nobody knows which those are.
    """
    if wanted:
        return list(wanted)
    found = await hands.all()
    away = next((one["reason"] for one in found if one["state"] == "unknown"), None)
    if away is not None:
        raise DockerUnavailable(
            f"{away[:1].upper()}{away[1:]}".rstrip(".") + ".", "See what is the matter: corral doctor"
        )
    return [one["name"] for one in found if one["uptime"] is not None]


async def _live(given: Invocation, hands: Hands, wanted: Sequence[str]) -> None:
    names = await _running(hands, wanted)
    output = given.output
    if not names:
        _show(output, [], [])
        return
    latest: dict[str, Found] = {}
    if output.mode is Mode.JSON:
        await _followed(hands, names, output, latest)
        return
    with _screen(output, latest) as draw:
        following = asyncio.ensure_future(_followed(hands, names, output, latest))
        try:
            while not following.done():
                await asyncio.wait([following], timeout=_EVERY)
                draw()
            await following
        finally:
            following.cancel()
            await asyncio.wait([following])


async def _followed(hands: Hands, names: Sequence[str], output: Output, latest: dict[str, Found]) -> None:
    """Keep the newest figures of each in `latest`, until all have ended; in JSON, say each.

    Raises:
        CorralError: none of them could be looked at.
    """
    done = await asyncio.gather(
        *(_one(hands.usages(name), name, output, latest) for name in names), return_exceptions=True
    )
    failed = [error for error in done if isinstance(error, BaseException)]
    wrong = next((error for error in failed if not isinstance(error, CorralError)), None)
    if wrong is not None or (failed and (len(failed) == len(names) or isinstance(failed[0], ContainerNotFound))):
        raise wrong or failed[0]


async def _one(usages: AsyncGenerator[Found, None], name: str, output: Output, latest: dict[str, Found]) -> None:
    try:
        async with aclosing(usages) as figures:
            async for usage in figures:
                latest[name] = {"name": name, **usage}
                if output.mode is Mode.JSON:
                    output.emit(latest[name])
    finally:
        latest.pop(name, None)  # it has ended, and takes nothing any more


@contextmanager
def _screen(output: Output, latest: Mapping[str, Found]) -> Iterator[Draw]:
    """Where the table is drawn again and again: in place on a terminal, one after the other elsewhere."""

    def rows() -> list[Found]:
        return [latest[name] for name in sorted(latest)]

    def plainly() -> None:
        if latest:
            output.result({}, lambda: _show(output, rows(), []), [row["name"] for row in rows()])
            output.say()

    if not (output.human and output.live and output.stdout.isatty()):
        with nullcontext():
            yield plainly
        return
    from rich.live import Live
    from rich.text import Text

    console = output.console(output.stdout)
    live = Live(console=console, auto_refresh=False, transient=False)

    def draw() -> None:
        console.width = output.width(output.stdout) or console.width
        shown = output.lines(*_figures(rows()))
        room = max(console.height - _HEAD, 3)
        if len(shown) > room:
            shown = [*shown[: room - 1], f"… and {len(shown) - room + 1} more: name those that you want to see"]
        live.update(Text.from_ansi("\n".join(shown), no_wrap=True), refresh=True)

    screen: AbstractContextManager[object] = live
    with screen:
        yield draw


def _show(output: Output, rows: Sequence[Mapping[str, Any]], idle: Sequence[str]) -> None:
    if rows:
        output.table(*_figures(rows))
    elif not idle:
        output.say("No container runs. Bring them up: corral containers up")
    if idle:
        output.say(f"{', '.join(idle)}: not running", "dim")


def _figures(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Column], list[list[object]]]:
    """The table's columns and rows, without those that are known of none, such as a GPU's where there is none."""
    columns, shown = _columns(), [_row(row) for row in rows]
    kept = [
        index
        for index, column in enumerate(columns)
        if not column.spare or any(str(row[index]) != "-" for row in shown)
    ]
    return [columns[index] for index in kept], [[row[index] for index in kept] for row in shown]


def _columns() -> list[Column]:
    return [
        Column("NAME", soft=True),
        Column("CPU", right=True),
        Column("MEMORY", right=True),
        Column("LIMIT", right=True, spare=3),
        Column("NET IN", right=True, spare=4),
        Column("NET OUT", right=True, spare=5),
        Column("READ", right=True, spare=6),
        Column("WRITTEN", right=True, spare=7),
        Column("PIDS", right=True, spare=8),
        Column("THROTTLED", right=True, spare=2),
        Column("GPU", right=True, spare=1),
        Column("GPU MEMORY", right=True, spare=1),
        Column("TEMP", right=True, spare=9),
    ]


def _row(row: Mapping[str, Any]) -> list[object]:
    cpu, temperature, throttled = row["cpu"], row["gpu_temperature"], row["throttled"]
    return [
        row["name"],
        "-" if cpu is None else f"{cpu * 100:.0f} %",
        size_text(row["memory"]),
        size_text(row["memory_limit"]),
        size_text(row["received"]),
        size_text(row["sent"]),
        size_text(row["read"]),
        size_text(row["written"]),
        "-" if row["pids"] is None else row["pids"],
        "-" if throttled is None else f"{throttled * 100:.0f} %",
        "-" if row["gpu_utilization"] is None else f"{row['gpu_utilization']:.0f} %",
        size_text(row["gpu_memory"]),
        "-" if temperature is None else f"{temperature:.0f} C",
    ]
