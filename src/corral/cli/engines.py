"""What is in memory: `ps`, `load`, `unload` and `logs`, asked of the running server."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Model
from corral.cli.output import painted_state, size_text, time_text
from corral.cli.table import Column

_IN_MEMORY = ("loading", "ready", "stopping")


@command
def ps(invocation: Invocation) -> None:
    """Show the models in memory."""
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
            Column("ENGINE", soft=True),
            Column("MEMORY", right=True),
            Column("DEVICE", soft=True),
            Column("CONTEXT", right=True),
            Column("BUSY", right=True),
            Column("UNTIL"),
        ]
        output.table(columns, [_row(model) for model in models])
        for model in models:
            if model.get("state") == "failed":
                output.say(f"{model['name']}: {model.get('reason')}", "dim")

    where = invocation.running()
    server = {"url": where.url, "pid": where.pid or None, "version": where.version or None} if where else None
    data = {"server": server, "models": models, "count": len(models)}
    output.result(data, show, [model["name"] for model in loaded])


def _row(model: Mapping[str, Any]) -> list[object]:
    footprint = model.get("footprint")
    left = model.get("idle_left")
    slots = model.get("slots")
    busy = f"{model.get('in_flight') or 0}" + (f"/{slots}" if slots else "")
    return [
        model["name"],
        painted_state(str(model["state"])),
        model.get("engine") or model.get("runtime") or "-",
        size_text(sum(footprint.values())) if footprint else "-",
        model.get("device") or "-",
        model.get("context") or "-",
        busy if model["state"] != "failed" else "-",
        "-" if left is None else f"{time.strftime('%H:%M', time.localtime(time.time() + left))} ({time_text(left)})",
    ]


@command
def load(invocation: Invocation, model: Model) -> None:
    """Bring a model into the server's memory."""
    output = invocation.output
    with output.busy(f"Loading {model} …"):
        found = invocation.ask(lambda server: server.load(model))
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
    """Take a model out of the server's memory."""
    output = invocation.output
    with output.busy(f"Unloading {model} …"):
        found = invocation.ask(lambda server: server.unload(model, force=force, drain=drain))
    output.result(found, lambda: output.say(f"{model} is no longer in memory."), [model])


@command
def logs(
    invocation: Invocation,
    model: Model,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Show the last lines of a model's engine."""
    found = invocation.ask(lambda server: server.log(model))[-lines:]
    output = invocation.output

    def show() -> None:
        for text in found:
            output.say(text)

    output.result({"model": model, "lines": found}, show, found)
