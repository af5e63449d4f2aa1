"""Models, engines, containers and operations as tables and fields. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from corral.cli.output import line, size_text, time_text
from corral.cli.table import Cell, Column
from corral.cli.tui.marks import Fields, Row, Table, bar, cell, inked, spark, state_word, toned

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corral.cli.tui.yard import Yard
    from corral.domain.operations import Operation

MODELS = (
    Column("NAME", soft=True),
    Column("STATE"),
    Column("VERSION", soft=True, spare=2),
    Column("SIZE", right=True),
    Column("MEMORY", right=True),
    Column("RUNTIME", spare=5),
    Column("DEVICE", spare=4),
    Column("BUSY", right=True, spare=3),
    Column("ANSWERED", right=True, spare=6),
    Column("CAN", soft=True, spare=7),
)
ENGINES = (
    Column("MODEL", soft=True),
    Column("STATE"),
    Column("ENGINE", soft=True, spare=4),
    Column("MEMORY", right=True),
    Column("DEVICE", spare=2),
    Column("BUSY", right=True),
    Column("WAIT", right=True),
    Column("ANSWERED", right=True, spare=5),
    Column("IDLE", right=True, spare=3),
    Column("LEAVES", spare=1),
)
CONTAINERS = (
    Column("NAME", soft=True),
    Column("STATE"),
    Column("PURPOSE", soft=True),
    Column("PORT", right=True),
    Column("CPU"),
    Column("MEMORY"),
    Column("MODELS", soft=True, spare=2),
    Column("UP", right=True, spare=4),
    Column("RESTARTS", right=True, spare=5),
    Column("IMAGE", soft=True, spare=6),
)
WORK = (
    Column("WHAT"),
    Column("MODEL", soft=True),
    Column("STATUS"),
    Column("DONE"),
    Column("RATE", right=True, spare=2),
    Column("LEFT", right=True, spare=1),
    Column("WHEN", spare=3),
    Column("MESSAGE", soft=True, spare=4),
)

_SPARK = 8
_BAR = 12
_DOING = {"install": "installing", "update": "updating", "remove": "removing"}


def models_table(yard: Yard) -> Table:
    """Every model that can be asked for or is being installed; what is done to it stands in place of its state."""
    doing = {operation.order.model: operation for operation in reversed(yard.at_work)}
    names = sorted(yard.models, key=lambda name: (name.casefold(), name))
    coming = [name for name in doing if name and name not in yard.models and doing[name].order.kind == "install"]
    rows = [_coming(name, doing[name]) for name in coming]
    rows += [_model(yard.models[name], yard.installed.get(name) or {}, doing.get(name)) for name in names]
    empty = "No model is here yet. Press i to install one: smollm2 is small, and a good first."
    return Table(MODELS, (*coming, *names), tuple(rows), empty)


def _coming(name: str, operation: Operation) -> Row:
    return (cell(name), doing_cell(operation), *(Cell("-", "dim") for _ in MODELS[2:]))


def doing_cell(operation: Operation) -> Cell:
    """What an operation does to its model, and how far it is."""
    word = _DOING.get(operation.order.kind, operation.order.kind)
    if operation.status == "in_progress":
        return Cell(f"{word} {operation.progress:.0f} %", "yellow")
    return Cell(f"{word}: {operation.status}", "yellow")


def _model(model: Mapping[str, Any], installed: Mapping[str, Any], operation: Operation | None) -> Row:
    return (
        cell(model.get("name")),
        toned(model.get("state")) if operation is None else doing_cell(operation),
        cell(version_of(model, installed), "dim"),
        cell(size_text(model.get("size"))),
        cell(_bytes(model.get("footprint"))),
        cell(model.get("runtime")),
        cell(model.get("device")),
        cell(_busy(model)),
        cell(model.get("served") or None),
        cell(", ".join(model.get("capabilities") or ()), "dim"),
    )


def version_of(model: Mapping[str, Any], installed: Mapping[str, Any]) -> str | None:
    """The version its source calls it by, else the beginning of the revision's digest."""
    version, revision = installed.get("version"), model.get("revision")
    return str(version or revision).removeprefix("sha256:").strip('"')[:16] if version or revision else None


def model_fields(model: Mapping[str, Any], installed: Mapping[str, Any], url: str) -> Fields:
    """What is to be known of one model."""
    fields: Fields = [("state", toned(model.get("state")))]
    if model.get("reason"):
        fields.append(("why", cell(model["reason"])))
    fields.append(("address", cell(f"{url}/v1, model {model.get('name')}", "accent")))
    fields += _given(
        ("source", model.get("source")),
        ("revision", model.get("revision")),
        ("pinned", "yes: neither updated nor removed" if installed.get("pinned") else None),
        ("format", " ".join(str(part) for part in (model.get("format"), _quantization(installed)) if part)),
        ("licence", installed.get("licence")),
        ("engine", model.get("engine")),
        (
            "context",
            f"{model['context']:,} tokens, {model.get('slots') or '?'} slots" if model.get("context") else None,
        ),
        ("memory", _devices(model.get("footprint")) or _expected(model)),
        ("leaves", _leaves(model)),
        ("can", ", ".join(model.get("capabilities") or ())),
        ("fallback", ", ".join(model.get("fallback") or ())),
    )
    fields += [("note", cell(note, "yellow")) for note in model.get("notes") or ()]
    return fields


def _quantization(installed: Mapping[str, Any]) -> str | None:
    return (installed.get("capabilities") or {}).get("quantization")


def _expected(model: Mapping[str, Any]) -> str | None:
    expected = _devices(model.get("estimated"))
    return f"{expected} expected" if expected else None


def _given(*pairs: tuple[str, object]) -> Fields:
    return [(name, cell(value)) for name, value in pairs if value not in (None, "")]


def engines_table(yard: Yard) -> Table:
    """The models in memory, and those that wait for room."""
    there = [model for model in yard.models.values() if model.get("state") != "cold"]
    there.sort(key=lambda model: (not model.get("loaded"), str(model.get("name"))))
    rows = tuple(_engine(model, yard.queues) for model in there)
    empty = "No model is in memory. One is loaded when it is asked for, or with l on the Models screen."
    return Table(ENGINES, tuple(str(model["name"]) for model in there), rows, empty)


def _engine(model: Mapping[str, Any], queues: Mapping[str, int]) -> Row:
    waiting = model.get("waiting") or queues.get(str(model.get("name")))
    return (
        cell(model.get("name")),
        toned(model.get("state")),
        cell(model.get("engine") or model.get("runtime"), "dim"),
        cell(_bytes(model.get("footprint") or model.get("held"))),
        cell(model.get("device")),
        cell(_busy(model)),
        cell(waiting or None, "yellow" if waiting else ""),
        cell(model.get("served") or None),
        cell(time_text(model.get("idle_seconds"))),
        cell(_leaves(model)),
    )


def memory_lines(memory: Mapping[str, Mapping[str, Any]], width: int) -> list[Row]:
    """A bar for each device of what engines hold of what they may take."""
    lines: list[Row] = []
    wide = max((len(name) for name in memory), default=0)
    for name, room in memory.items():
        held, most = room.get("held") or 0, room.get("capacity")
        said = f"{size_text(held)} held of {size_text(most)} for engines" if most else f"{size_text(held)} held"
        space = max(min(width - wide - len(said) - 4, 40), 0)
        drawn = bar(held / most if most else None, space)
        lines.append((Cell(name.ljust(wide), "bold"), Cell("  "), *inked(drawn), Cell("  " + said)))
    return lines


def happened_lines(messages: Iterable[Mapping[str, Any]]) -> list[Row]:
    """What happened, oldest first: a line each."""
    return [_happening(message) for message in messages]


def _happening(message: Mapping[str, Any]) -> Row:
    at = message.get("at")
    when = Cell(clock_text(at) + "  ", "dim")
    kind, model = message.get("type"), line(message.get("model") or message.get("device") or message.get("name") or "")
    reason = line(message.get("reason") or "")
    why = f": {reason}" if reason else ""
    match kind:
        case "transition":
            state = toned(message.get("state"))
            return (when, Cell(f"{model} is "), state, Cell(why))
        case "decision":
            whom = f" for {line(message['room_for'])}" if message.get("room_for") else ""
            return (when, Cell(f"{line(message.get('effect'))} {model}{whom}{why}", "dim"))
        case "device":
            back = bool(message.get("back"))
            return (when, Cell(f"{model} is "), Cell("back" if back else "lost", "green" if back else "red"), Cell(why))
        case "lost":
            said = f"{message.get('count')} events were missed: they came faster than they were read"
            return (when, Cell(said, "yellow"))
    return (when, Cell(f"{model} {state_word(message.get('what') or kind)}{why}"))


def containers_table(yard: Yard, now: float) -> Table:
    """Every container of Corral's, with what it takes."""
    names = sorted(yard.containers)
    rows = tuple(_container(yard.containers[name], yard, now) for name in names)
    empty = yard.docker or "No container is configured. They stand under `containers:` in corral.yaml."
    return Table(CONTAINERS, tuple(names), rows, empty)


def _container(one: Mapping[str, Any], yard: Yard, now: float) -> Row:
    name = str(one.get("name"))
    cpu, memory = yard.trail(f"{name}/cpu"), yard.trail(f"{name}/memory")
    models = ", ".join(str(model.get("name")) for model in one.get("models") or ())
    busiest = max([1.0, *(value for value in cpu.values if value is not None)])  # one processor is the least scale
    up = one.get("started_at") if one.get("uptime") is not None else None
    return (
        cell(name),
        toned(one.get("state")),
        cell(one.get("purpose"), "dim"),
        cell(one.get("port")),
        cell(f"{spark(cpu.values, _SPARK, busiest)} {'-' if cpu.last is None else f'{100 * cpu.last:.0f} %'}"),
        cell(f"{spark(memory.values, _SPARK, one.get('memory_limit'))} {size_text(memory.last)}"),
        cell(models),
        cell(time_text(None if up is None else max(0.0, now - up))),
        cell(one.get("restarts") or None),
        cell(one.get("image"), "dim"),
    )


def why_text(one: Mapping[str, Any]) -> str:
    """Why a container stands as it does; empty where its state says it all."""
    reason = line(one.get("reason") or "")
    return "" if reason == state_word(one.get("state")) else reason


def container_fields(one: Mapping[str, Any]) -> Fields:
    """What is to be known of one container."""
    fields: Fields = [("state", toned(one.get("state")))]
    if why := why_text(one):
        fields.append(("why", cell(why)))
    if one.get("url"):
        fields.append(("address", cell(one["url"], "accent")))
    limits = [size_text(one["memory_limit"])] if one.get("memory_limit") else []
    limits += [f"{one['cpu_limit']:g} processors"] if one.get("cpu_limit") else []
    fields += _given(
        ("purpose", one.get("purpose")),
        ("kind", " ".join(str(part) for part in (one.get("kind"), one.get("version")) if part)),
        ("image", one.get("image")),
        ("wanted", None if one.get("wanted", True) else "stopped: somebody wants it so"),
        ("models", ", ".join(_inside(model) for model in one.get("models") or ())),
        ("missing", ", ".join(one.get("missing") or ())),
        ("differs", "; ".join(one.get("drift") or ())),
        ("limits", ", ".join(limits)),
        ("gpus", ", ".join(one.get("gpus") or ())),
        ("exit code", one.get("exit_code")),
        ("before", one.get("previous")),
        ("container", one.get("container")),
    )
    return fields


def _inside(model: Mapping[str, Any]) -> str:
    size = f" {size_text(model['size'])}" if model.get("size") else ""
    return f"{model.get('name')}{size}" + (" (in memory)" if model.get("loaded") else "")


def work_table(yard: Yard, now: float) -> Table:
    """The operations, newest first."""
    found = list(yard.operations.values())
    empty = "Nothing is under way, and nothing was done lately."
    return Table(WORK, tuple(one.id for one in found), tuple(_operation(one, now) for one in found), empty)


_STEPS = "steps"
"""The phase of a pipeline's run, in which no bytes are counted."""


def _operation(one: Operation, now: float) -> Row:
    at = one.ended_at or one.started_at or one.created_at
    ago = f"{time_text(float(round(max(0.0, now - at))))} ago" if at else None
    moving = one.status == "in_progress"
    message = one.error.message if one.error is not None else one.message
    return (
        cell(one.order.kind),
        cell(one.order.model or "all"),
        toned(one.status),
        Cell(f"{bar(one.progress / 100, _BAR)} {one.progress:3.0f} %", "accent" if moving else "dim"),
        cell(f"{size_text(one.rate)}/s" if moving and one.rate and one.phase != _STEPS else None),
        cell(time_text(one.eta) if moving else None),
        cell(ago, "dim"),
        cell(message, "red" if one.error is not None else "dim"),
    )


def operation_fields(one: Operation) -> Fields:
    """What is to be known of one operation."""
    fields: Fields = [("operation", cell(one.id)), ("status", toned(one.status))]
    if one.error is not None:
        fields += [("error", cell(one.error.message, "red"))]
        fields += _given(("do", one.error.hint))
    stepwise = one.phase == _STEPS
    done, total = (one.done, one.total) if stepwise else (size_text(one.done), size_text(one.total))
    arrived = f"{done} of {total}" if one.total else None
    tries = one.attempts if one.attempts > 1 else None
    fields += _given(
        ("phase", one.phase), ("done" if stepwise else "bytes", arrived), ("tries", tries), ("message", one.message)
    )
    return fields


def clock_text(at: object) -> str:
    """A moment in Unix seconds as the time of day here."""
    return time.strftime("%H:%M:%S", time.localtime(at)) if isinstance(at, int | float) else "--:--:--"


def _bytes(devices: Mapping[str, int] | None) -> str:
    return size_text(sum(devices.values())) if devices else "-"


def _devices(devices: Mapping[str, int] | None) -> str | None:
    return ", ".join(f"{size_text(size)} on {name}" for name, size in devices.items()) if devices else None


def _busy(model: Mapping[str, Any]) -> str:
    if not model.get("engine"):
        return "-"
    slots = model.get("slots")
    return f"{model.get('in_flight') or 0}" + (f"/{slots}" if slots else "")


def _leaves(model: Mapping[str, Any]) -> str | None:
    left = model.get("idle_left")
    if left is None:
        return None
    until = model.get("until")
    return f"in {time_text(left)}" if until is None else time.strftime("%H:%M", time.localtime(until))
