"""`corral containers health`, `history`, `update` and `rollback`: how containers do, and how they are renewed."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from corral.cli.containers_hands import ask
from corral.cli.containers_words import sentence, state_text, trouble
from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Container, Containers
from corral.cli.output import FAILED, Painted, size_text, time_text
from corral.cli.table import Column
from corral.cli.work import Task, carry_out
from corral.domain.operations import Order


@command
def health(
    given: Invocation,
    name: Container,
    generate: Annotated[bool, flag("--generate", "-g", help="It has to say a word, too.")] = False,
) -> None:
    """Ask a container's models' API; the exit code is 0 when it answers.

    Version, models, and with --generate a word of one of them. For example: corral containers health coder --generate
    """
    with given.output.busy(f"Asking {name} …"):
        found = ask(given, lambda hands: hands.health(name, generate=generate))
    output = given.output

    def show() -> None:
        models = [f"{model['name']} ({size_text(model['size'])})" for model in found["models"]]
        pairs = [
            ("Container", name),
            ("Health", Painted("good", "green") if found["healthy"] else Painted("bad", "red")),
            ("Why", found["reason"]),
            ("Version", found["version"]),
            ("Models", ", ".join(models)),
            ("Missing", Painted(", ".join(found["missing"]), "red") if found["missing"] else None),
            ("Said", None if found["said"] is None else repr(found["said"])),
            ("Took", None if found["latency"] is None else time_text(found["latency"])),
        ]
        output.fields([(name, value) for name, value in pairs if value not in (None, "")])

    output.result({"name": name, **found}, show, ["healthy" if found["healthy"] else "unhealthy"])
    if not found["healthy"]:
        raise typer.Exit(FAILED)


@command
def history(
    given: Invocation,
    name: Container,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=1, max=1000, help="How many of the last entries.")
    ] = 30,
    versions: Annotated[bool, flag("--versions", help="Its images and models over time instead.")] = False,
) -> None:
    """Show what happened to a container, the newest first.

    For example: corral containers history coder -n 10
    """
    if versions:
        _versions(given, name)
        return
    found = ask(given, lambda hands: hands.history(name, lines))
    output = given.output

    def show() -> None:
        if not found:
            output.say(f"Nothing has happened to {name} yet.")
            return
        columns = [Column("WHEN"), Column("WHAT"), Column("FROM", spare=1), Column("TO"), Column("WHY", soft=True)]
        output.table(columns, [_happening(line) for line in found])

    output.result({"name": name, "history": found, "count": len(found)}, show, [line["what"] for line in found])


def _happening(line: Mapping[str, Any]) -> list[object]:
    return [
        _moment(line["at"]),
        line["what"],
        "-" if line["before"] is None else state_text(line["before"]),
        "-" if line["after"] is None else state_text(line["after"]),
        line["reason"] or "-",
    ]


def _versions(given: Invocation, name: str) -> None:
    found = ask(given, lambda hands: hands.versions(name))
    output = given.output

    def show() -> None:
        if not found:
            output.say(f"{name} has had no image yet.")
            return
        columns = [Column("WHEN"), Column("WHAT", soft=True), Column("VERSION"), Column("STATUS")]
        output.table([*columns, Column("WHY", soft=True)], [_version(one) for one in found])

    output.result({"name": name, "versions": found, "count": len(found)}, show, [one["version"] for one in found])


def _version(one: Mapping[str, Any]) -> list[object]:
    status = {"current": "green", "failed": "red"}.get(str(one.get("status")), "dim")
    version = str(one.get("version") or "-").removeprefix("sha256:")[:19]
    what = one.get("model") or one.get("reference") or "image"
    return [_moment(one["at"]), what, version, Painted(one.get("status") or "-", status), one.get("reason") or "-"]


def _moment(at: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at))


@command
def update(
    given: Invocation,
    names: Containers = None,
    image_only: Annotated[bool, flag("--image-only", help="Not the models in them.")] = False,
    models_only: Annotated[bool, flag("--models-only", help="Not the images.")] = False,
) -> None:
    """Bring images and models of containers to what there is now.

    One container after the other; what does not answer with the new is put back. For example: corral containers update
    coder
    """
    from corral.errors import InvalidRequest

    if image_only and models_only:
        raise InvalidRequest("--image-only and --models-only exclude each other.", "Leave out both for both.")
    wanted, wish = list(dict.fromkeys(names or ())), {"image": not models_only, "models": not image_only}
    corral = None if given.running() is not None else given.corral()
    if corral is None:
        order = Order("container-update", wanted[0] if len(wanted) == 1 else "", {"names": wanted, **wish})
    else:
        order = corral.inside.update_order(wanted, **wish)
    again = " ".join(["corral containers update", *wanted])
    task = Task(order, ", ".join(wanted) or "containers", again)
    carry_out(given, [task], corral)
    if task.error is not None:
        raise task.error
    result = dict((task.operation.result if task.operation is not None else None) or {})
    _renewed(given, result.get("updates") or [])


def _renewed(given: Invocation, updates: Sequence[Mapping[str, Any]]) -> None:
    output = given.output

    def show() -> None:
        if not updates:
            output.say("There is nothing to update.")
            return
        columns = [Column("CONTAINER"), Column("WHAT", soft=True), Column("OUTCOME"), Column("WHY", soft=True)]
        rows = [[one["container"], one["model"] or "image", one["outcome"], one["reason"] or "-"] for one in updates]
        output.table(columns, rows)

    changed = [one["container"] for one in updates if one["before"] != one["after"]]
    output.result({"event": "updated", "updates": list(updates), "count": len(updates)}, show, changed)


@command
def rollback(
    given: Invocation,
    name: Container,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="A model in it, not its image.")] = None,
) -> None:
    """Go back to the image that a container had before.

    With --model, to what a model in it was. For example: corral containers rollback coder
    """
    with given.output.busy(f"Going back in {name} …"):
        found = ask(given, lambda hands: hands.rollback(name, model))
    output = given.output
    output.result(found, lambda: output.say(sentence(found)), [found["name"]])
    if trouble(found):
        raise typer.Exit(FAILED)
