"""`corral hardware` and `corral fit`: what this machine has, and what of a model it can hold."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Model
from corral.cli.output import Painted, painted_fit, size_text
from corral.cli.table import Column

_EVERY = 2.0
"""Seconds between two looks with `--watch`."""


@command
def hardware(
    invocation: Invocation,
    watch: Annotated[bool, flag("--watch", "-w", help="Go on showing it, until Ctrl-C.")] = False,
) -> None:
    """Show processor, memory, disk, GPUs, and what serves models best.

    What is not known is a dash, never zero. For example: corral hardware --watch
    """
    output = invocation.output
    while True:
        found = _look(invocation)
        output.result(found, partial(_show, invocation, found), [found["best_device"]])
        if not watch:
            return
        time.sleep(_EVERY)
        output.say()


def _look(invocation: Invocation) -> dict[str, Any]:
    if invocation.url:
        found: dict[str, Any] = invocation.ask(lambda server: server.question("/api/v1/runtime/hardware", "cpu"))
        found.pop("success", None)
        return found
    from dataclasses import asdict

    from corral.hardware import snapshot

    machine = snapshot.take(invocation.settings().models_dir)
    return asdict(machine) | {"best_device": machine.best_device}


def _show(invocation: Invocation, found: Mapping[str, Any]) -> None:
    output = invocation.output
    cpu, memory, disk = found["cpu"], found["memory"], found["disk"]
    sets = ", ".join(cpu["instructions"] or ())
    limit = "" if memory["limit"] is None else "  (limit of this container)"
    pairs: list[tuple[str, object]] = [
        ("processor", cpu["name"] or "-"),
        ("cores", f"{_known(cpu['cores'])}, {_known(cpu['count'])} threads, {_percent(cpu['usage'])} busy"),
        ("instructions", sets or "-"),
        ("memory", f"{_free(memory['available'], memory['total'])}{limit}"),
        ("swap", _free(memory["swap_free"], memory["swap_total"])),
        ("disk", _free(disk["free"], disk["total"])),
        ("best device", Painted(found["best_device"], "bold")),
    ]
    output.fields(pairs)
    if found["gpus"] is None:
        output.say("GPUs: the driver does not answer.", "red")
    if found["gpus"]:
        output.say()
        columns = [
            Column("GPU"),
            Column("NAME", soft=True),
            Column("FREE", right=True),
            Column("TOTAL", right=True),
            Column("BUSY", right=True),
            Column("TEMP", right=True),
            Column("POWER", right=True),
            Column("PROCESSES", right=True),
        ]
        output.table(columns, [_row(gpu) for gpu in found["gpus"]])
        output.say(f"driver {found['driver']}" if found["driver"] else "", "dim")
    for lost in found["lost"]:
        output.say(f"{lost['gpu']['id']} ({lost['gpu']['name'] or 'GPU'}) is gone: {lost['reason']}", "red")


def _row(gpu: Mapping[str, Any]) -> list[object]:
    power = "-" if gpu["power"] is None else f"{gpu['power']:.0f} W"
    limit = "" if gpu["power_limit"] is None else f" of {gpu['power_limit']:.0f} W"
    return [
        gpu["id"],
        gpu["fault"] or gpu["name"] or "-",
        "main memory" if gpu["unified"] else size_text(gpu["free"]),
        size_text(gpu["total"]),
        _percent(gpu["usage"]),
        "-" if gpu["temperature"] is None else f"{gpu['temperature']:.0f} C",
        f"{power}{limit}",
        "-" if gpu["processes"] is None else len(gpu["processes"]),
    ]


def _known(value: object) -> object:
    return "-" if value is None else value


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _free(free: int | None, total: int | None) -> str:
    return f"{size_text(free)} free of {size_text(total)}"


@command
def fit(
    invocation: Invocation,
    model: Model,
    tokens: Annotated[str | None, typer.Option("--context", metavar="N", help="Tokens of each slot.")] = None,
    slots: Annotated[str | None, typer.Option("--slots", metavar="N", help="Requests answered at once.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 and so on.")
    ] = None,
) -> None:
    """Say what context and offload this machine can give a model.

    MODEL is an installed name, a short name or a reference; nothing is downloaded. Where it does not fit, it says what
    to change, and the exit code is 1. For example: corral fit smollm2 --context 8192
    """
    wish = {"context": _whole(tokens, "context"), "slots": _whole(slots, "slots"), "device": device}
    found = _asked(invocation, model, wish)
    invocation.output.result(found, lambda: _tell(invocation, found), [found["verdict"]])
    if found["verdict"] == "no":
        raise typer.Exit(1)


def _whole(text: str | None, what: str) -> int | None:
    from corral.errors import InvalidRequest

    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1 << 30):
        raise InvalidRequest(f"--{what} takes a whole number from 1 on, not {text!r}.", param=what)
    return int(text)


def _asked(invocation: Invocation, model: str, wish: Mapping[str, Any]) -> dict[str, Any]:
    if invocation.url:
        from urllib.parse import urlencode

        query = urlencode({"model": model} | {key: str(value) for key, value in wish.items() if value is not None})
        found: dict[str, Any] = invocation.ask(
            lambda server: server.question(f"/api/v1/runtime/fit?{query}", "verdict")
        )
        found.pop("success", None)
        return found

    from corral.app.reaching import Wish, reaches
    from corral.hardware import snapshot

    async def ask() -> dict[str, Any]:
        corral = invocation.corral()
        try:
            machine = await asyncio.to_thread(snapshot.take, corral.settings.models_dir, usage=False)
            return await reaches(corral, model, Wish(**wish), machine)
        finally:
            await corral.close()

    return asyncio.run(ask())


def _tell(invocation: Invocation, found: Mapping[str, Any]) -> None:
    output = invocation.output
    slots = "one slot" if found["slots"] == 1 else f"{found['slots']} slots"
    pairs: list[tuple[str, object]] = [
        ("fits", painted_fit(found["verdict"])),
        ("asked for", f"{found['context']:,} tokens of context, {slots}"),
    ]
    way = found["placement"]
    if way is None:
        pairs += [("because", found["reason"]), ("to make it fit", found["hint"] or "-")]
    else:
        taken = ", ".join(f"{size_text(count)} on {device}" for device, count in way["devices"].items() if count)
        pairs += [("where", way["said"]), ("takes", f"{taken} ({way['source']})")]
    output.fields(pairs)
    for device, reason in found["lost"].items():
        output.say(f"{device} is gone: {reason}", "red")
    if not found["devices"]:
        return
    output.say()
    columns = [
        Column("DEVICE"),
        Column("NEEDS", right=True),
        Column("MAY TAKE", right=True),
        Column("FREE", right=True),
        Column(f"CONTEXT x{found['slots']}", right=True),
        Column("CONTEXT x1", right=True),
        Column("LAYERS", right=True),
        Column("FITS"),
        Column("OR", soft=True),
    ]
    output.table(columns, [_reach(one) for one in found["devices"]])


def _reach(one: Mapping[str, Any]) -> list[object]:
    return [
        one["device"],
        size_text(one["needed"]),
        size_text(one["total"]),
        size_text(one["free"]),
        _tokens(one["context"]),
        _tokens(one["single"]),
        "-" if one["of"] is None else f"{_known(one['layers'])} of {one['of']}",
        painted_fit(one["verdict"]),
        "; ".join(one["advice"]),
    ]


def _tokens(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
