"""What is in memory, and why: `ps`, `load`, `unload`, `explain`, `events` and `logs`, asked of the running server."""

import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli import routing
from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import MaybeModel, Model, chosen
from corral.cli.output import painted_state, size_text, time_text
from corral.cli.table import Column
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from corral.cli.server import Server

_IN_MEMORY = ("loading", "ready", "sleeping", "stopping")
_TELLING = ("queued", "failed", "sleeping", "stopping")
"""States whose reason is worth a line."""


@command
def ps(invocation: Invocation) -> None:
    """Show the models in memory, and those that wait for room.

    For example: corral ps --json
    """
    models = [model for model in invocation.ask(lambda server: server.models()) if model.get("state") != "cold"]
    loaded = [model for model in models if model.get("state") in _IN_MEMORY]
    output = invocation.output

    def show() -> None:
        if not models:
            output.say("No model is in memory; one is loaded when it is asked for.")
            return
        columns = [
            Column("NAME"),
            Column("STATE"),
            Column("ENGINE", soft=True, spare=4),
            Column("MEMORY", right=True),
            Column("GIVEN", right=True, spare=6),
            Column("DEVICE", soft=True, spare=2),
            Column("CONTEXT", right=True, spare=5),
            Column("IDLE", right=True, spare=3),
            Column("WAIT", right=True, spare=1),
            Column("BUSY", right=True),
            Column("UNTIL"),
        ]
        output.table(columns, [_row(model) for model in models])
        for model in models:
            if model.get("state") in _TELLING and model.get("reason"):
                output.say(f"{model['name']}: {model['reason']}", "dim")
            for note in model.get("notes") or ():
                output.say(f"{model['name']}: {note}", "dim")

    where = invocation.running()
    server = {"url": where.url, "pid": where.pid or None, "version": where.version or None} if where else None
    data = {"server": server, "models": models, "count": len(models)}
    output.result(data, show, [model["name"] for model in loaded])


def _row(model: Mapping[str, Any]) -> list[object]:
    slots = model.get("slots")
    busy = f"{model.get('in_flight') or 0}" + (f"/{slots}" if slots else "")
    return [
        model["name"],
        painted_state(str(model["state"])),
        model.get("engine") or model.get("runtime") or "-",
        _bytes(model.get("footprint")),
        _bytes(model.get("estimated")),
        model.get("device") or "-",
        model.get("context") or "-",
        time_text(model.get("idle_seconds")),
        model.get("waiting") or "-",
        busy if model.get("engine") else "-",
        _until(model),
    ]


def _bytes(devices: Mapping[str, int] | None) -> str:
    return size_text(sum(devices.values())) if devices else "-"


def _until(model: Mapping[str, Any]) -> str:
    left = model.get("idle_left")
    if left is None:
        return "-"
    moment = model.get("until") or time.time() + left
    return f"{time.strftime('%H:%M', time.localtime(moment))} ({time_text(left)})"


@command
def load(
    invocation: Invocation,
    model: Model,
    keep_alive: Annotated[
        str | None,
        typer.Option("--keep-alive", metavar="TIME", help="How long it may be unused: 10m, 2h, 0, never."),
    ] = None,
    prefetch: Annotated[
        bool, flag("--prefetch", help="Only say that it will soon be asked for: it is loaded if there is room.")
    ] = False,
) -> None:
    """Bring a model into the server's memory.

    For example: corral load smollm2 --keep-alive 1h
    """
    output = invocation.output
    if prefetch:
        found = invocation.ask(lambda server: server.load(model, keep_alive=keep_alive, wait=False))
        output.result(found, lambda: output.say(f"{model} is loaded if there is room: see corral ps"), [model])
        return
    with output.busy(f"Loading {model} …"):
        found = invocation.ask(lambda server: server.load(model, keep_alive=keep_alive))
    seconds = found.get("load_seconds")
    took = "" if seconds is None else f" in {time_text(seconds)}"
    output.result(found, lambda: output.say(f"{model} is ready, loaded{took} by {found.get('engine')}."), [model])


@command
def unload(
    invocation: Invocation,
    model: Model,
    force: Annotated[bool, flag("--force", help="Also when it is answering.")] = False,
    drain: Annotated[
        float | None,
        typer.Option("--drain", metavar="SECONDS", min=0, help="How long answers under way may still take."),
    ] = None,
) -> None:
    """Take a model out of the server's memory.

    For example: corral unload smollm2
    """
    output = invocation.output
    with output.busy(f"Unloading {model} …"):
        found = invocation.ask(lambda server: server.unload(model, force=force, drain=drain))
    output.result(found, lambda: output.say(f"{model} is no longer in memory."), [model])


@command
def explain(
    invocation: Invocation,
    model: MaybeModel = None,
    request: Annotated[
        Path | None,
        typer.Option("--request", metavar="FILE", help="Say it of the request in this file (-: standard input)."),
    ] = None,
    dialect: Annotated[
        str,
        typer.Option(
            "--dialect",
            metavar="NAME",
            autocompletion=chosen("openai", "anthropic", "gemini", "ollama"),
            help="What --request is: openai, anthropic, gemini or ollama.",
        ),
    ] = "openai",
    strict: Annotated[bool, flag("--strict", help="--request is strict: nothing less than what it asks for.")] = False,
) -> None:
    """Say what would happen to a request for a model now, and why.

    For example: corral explain smollm2
    """
    if request is not None:
        routing.explain(invocation, request, dialect, model, strict=strict)
        return
    if model is None:
        raise InvalidRequest("Say which model, or which request.", "corral explain MODEL, or --request FILE.")
    found = invocation.ask(lambda server: server.explain(model))
    output = invocation.output
    verdict, candidates = str(found.get("verdict") or "-"), found.get("candidates") or []

    def show() -> None:
        output.say(f"{model}: {verdict}", "bold")
        output.say(f"  {found.get('reason') or '-'}")
        for text in _needs(found.get("placement") or {}, found.get("memory") or {}):
            output.say(f"  {text}")
        for number, step in enumerate(found.get("steps") or (), 1):
            output.say(f"  {number}. {step}")
        if candidates:
            output.say()
            columns = [Column("IN MEMORY"), Column("STATE"), Column("MAKES ROOM"), Column("WORTH", right=True)]
            output.table([*columns, Column("WHY", soft=True)], [_candidate(other) for other in candidates])

    output.result(found, show, [verdict])


def _needs(placement: Mapping[str, Any], memory: Mapping[str, Any]) -> Iterator[str]:
    """What it takes of each device, and what there is."""
    for device, size in (placement.get("devices") or {}).items():
        there = memory.get(device) or {}
        room = "without limit"
        if there.get("capacity") is not None:
            free, most = size_text(there.get("free")), size_text(there["capacity"])
            room = f"{free} free of the {most} that engines may take"
        yield f"It takes {size_text(size)} of {device} ({placement.get('source') or 'estimated'}); {room}."


def _candidate(other: Mapping[str, Any]) -> list[object]:
    may = "yes" if other.get("chosen") else "could" if other.get("possible") else "no"
    worth = other.get("worth")
    return [
        other.get("model"),
        painted_state(str(other.get("state"))),
        may,
        "-" if worth is None else f"{worth:.3g}",
        other.get("reason") or "-",
    ]


@command
def events(invocation: Invocation) -> None:
    """Show what happens in memory as it happens, until Ctrl-C.

    For example: corral events --json
    """
    output = invocation.output

    async def follow(server: "Server") -> None:
        async with aclosing(server.happenings()) as happenings:
            async for event in happenings:
                output.result(event, partial(_tell, invocation, event), _brief(event))

    invocation.ask(follow)


def _tell(invocation: Invocation, event: Mapping[str, Any]) -> None:
    output, kind = invocation.output, event.get("type")
    at = time.strftime("%H:%M:%S", time.localtime(float(event.get("at") or time.time())))
    if kind == "snapshot":
        there = [str(model["name"]) for model in event.get("models") or () if model.get("state") in _IN_MEMORY]
        output.say(f"{at}  in memory: {', '.join(there) or 'nothing'}", "dim")
    elif kind == "transition":
        output.say(f"{at}  {event.get('model')} {event.get('state')}: {event.get('reason')}")
    elif kind == "decision":
        for_whom = f" for {event['room_for']}" if event.get("room_for") else ""
        output.say(f"{at}  decided: {event.get('effect')} {event.get('model')}{for_whom}: {event.get('reason')}", "dim")
    elif kind == "container_event":
        states = " → ".join(str(event[key]) for key in ("before", "after") if event.get(key))
        why = f": {event['reason']}" if event.get("reason") else ""
        output.say(f"{at}  container {event.get('name')} {event.get('what')} ({states or 'unknown'}){why}")
    elif kind == "lost":
        output.warn(f"{event.get('count')} events went lost: they came faster than they were read.")


def _brief(event: Mapping[str, Any]) -> list[str]:
    return [f"{event.get('model')} {event.get('state')}"] if event.get("type") == "transition" else []


@command
def logs(
    invocation: Invocation,
    model: Model,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Show the last lines of a model's engine.

    For example: corral logs smollm2 -n 20
    """
    found = invocation.ask(lambda server: server.log(model))[-lines:]
    output = invocation.output

    def show() -> None:
        for text in found:
            output.say(text)

    output.result({"model": model, "lines": found}, show, found)
