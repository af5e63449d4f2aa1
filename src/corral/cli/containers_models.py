"""`corral containers models`: the models that the servers in containers have."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.containers_hands import Found, Hands, ask
from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.names import Container, Containers, Inside
from corral.cli.output import FAILED, Painted, size_text, time_text
from corral.cli.table import Column
from corral.cli.work import Task, carry_out
from corral.domain.operations import Order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.errors import CorralError


class _Listing(Verbs):
    """`models NAME` is `models list NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = args and self.get_command(ctx, args[0]) is not None
        return super().resolve_command(ctx, args if known else ["list", *args])


app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=_Listing)


@app.callback()
@group
def models(context: typer.Context) -> None:
    """Show and change the models in containers.

    `models NAME` shows those in one. For example: corral containers models coder
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}), [])


@app.command("list", add_help_option=False)
@command
def list_models(given: Invocation, names: Containers = None) -> None:
    """Show the models that the servers in containers have.

    For example: corral containers models list coder
    """
    _list(given, names or [])


@app.command(add_help_option=False)
@command
def pull(
    given: Invocation,
    name: Container,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models, as its server calls them.")],
) -> None:
    """Have a container's server fetch models.

    Ctrl-C pauses it. For example: corral containers models pull coder qwen2.5-coder:7b
    """
    corral = None if given.running() is not None else given.corral()
    tasks = []
    for model in dict.fromkeys(models):
        order = (
            Order("container-pull", name, {"model": model}) if corral is None else corral.inside.pull_order(name, model)
        )
        tasks.append(Task(order, f"{name}: {model}", f"corral containers models pull {name} {model}"))
    carry_out(given, tasks, corral)
    for task, model in zip(tasks, dict.fromkeys(models), strict=True):
        if task.error is None and task.operation is not None:
            result = dict(task.operation.result or {})
            data = {"event": "pulled", "container": name, "model": model, **result}
            given.output.result(data, lambda model=model: given.output.say(f"{name} has {model}."), [model])  # type: ignore[misc]  # its own
    _raise([task.error for task in tasks if task.error is not None], given)


@app.command("rm", add_help_option=False)
@command
def remove(
    given: Invocation,
    name: Container,
    model: Inside,
    yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Have a container's server remove a model.

    For example: corral containers models rm coder qwen2.5-coder:7b
    """
    if not yes and not given.output.ask(f"Remove {model} from {name}?"):
        given.output.note("Nothing was removed.")
        raise typer.Exit(FAILED)
    ask(given, lambda hands: hands.remove_model(name, model))
    data = {"container": name, "removed": model}
    given.output.result(data, lambda: given.output.say(f"{name} no longer has {model}."), [model])


@app.command(add_help_option=False)
@command
def test(given: Invocation, name: Container, model: Inside) -> None:
    """Have a model in a container say a word.

    The exit code is 1 when it does not. For example: corral containers models test coder qwen2.5-coder:7b
    """
    with given.output.busy(f"Asking {model} in {name} …"):
        found = ask(given, lambda hands: hands.test(name, model))
    output = given.output

    def show() -> None:
        took = "" if found["seconds"] is None else f" in {time_text(found['seconds'])}"
        if found["ok"]:
            said = "a vector" if found["said"] is None else repr(found["said"])
            output.say(f"{model} answers{took}: {said}")
        else:
            output.say(f"{model} does not answer: {found['reason']}", "red")

    output.result({"container": name, **found}, show, ["ok" if found["ok"] else "failed"])
    if not found["ok"]:
        raise typer.Exit(FAILED)


def _list(given: Invocation, names: "Sequence[str]") -> None:
    found = ask(given, lambda hands: _found(hands, names))
    output = given.output
    rows = [(name, model) for name, models in found.items() for model in models]

    def show() -> None:
        if not rows:
            where = ", ".join(found) or "the containers"
            output.say(f"There is no model in {where}. Fetch one: corral containers models pull NAME MODEL")
            return
        columns = [
            Column("CONTAINER"),
            Column("MODEL", soft=True),
            Column("SIZE", right=True),
            Column("LOADED"),
            Column("IN GPU", right=True, spare=1),
            Column("DIGEST", spare=2),
        ]
        output.table(columns, [_row(name, model) for name, model in rows])

    data = {"models": [{"container": name, **model} for name, model in rows], "count": len(rows)}
    output.result(data, show, [model["name"] for _, model in rows])


async def _found(hands: Hands, names: "Sequence[str]") -> dict[str, list[Found]]:
    """The models of each: of those that are named as their servers say it, of all as it was last seen."""
    if not names:
        return {one["name"]: list(one["models"]) for one in await hands.all()}
    return {name: await hands.models(name) for name in dict.fromkeys(names)}


def _row(name: str, model: "Mapping[str, Any]") -> list[object]:
    return [
        name,
        model["name"],
        size_text(model["size"]),
        Painted("yes", "green") if model["loaded"] else "-",
        size_text(model["in_gpu"]),
        (model["digest"] or "-").removeprefix("sha256:")[:12],
    ]


def _raise(failed: "Sequence[CorralError]", given: Invocation) -> None:
    for error in failed[:-1]:
        given.output.fail(error)
    if failed:
        raise failed[-1]
