"""`corral runtimes`: what can run models here, and the environments that heavy ones live in."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.names import Kind
from corral.cli.output import Painted, size_text
from corral.cli.table import Column
from corral.errors import CorralError, NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.app import Corral
    from corral.domain.ports import Availability, Progress
    from corral.kit.environments import Recipe

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)


@app.callback()
@group
def runtimes(context: typer.Context) -> None:
    """Show what can run models here, and what installs the rest.

    For example: corral runtimes
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}))


@app.command("list", add_help_option=False)
@command
def list_runtimes(given: Invocation) -> None:
    """Show what can run models here.

    For example: corral runtimes list --json
    """
    _list(given)


def _list(given: Invocation) -> None:
    given.here_only("runtimes")
    corral = given.corral()
    found = asyncio.run(_looked(corral))
    output = given.output

    def show() -> None:
        columns = [
            Column("RUNTIME"),
            Column("USABLE"),
            Column("VERSION"),
            Column("DEVICES", soft=True),
            Column("FORMATS", soft=True),
        ]
        output.table(columns, [_row(item) for item in found])
        for item in found:
            if not item["usable"]:
                output.say(f"{item['kind']}: {item['reason']} {item['hint']}".rstrip(), "dim")

    output.result({"runtimes": found, "count": len(found)}, show, [item["kind"] for item in found if item["usable"]])


async def _looked(corral: "Corral") -> list[dict[str, Any]]:
    """Every runtime, as its probe finds it."""
    try:
        return [await _one(corral, kind) for kind in corral.runtimes]
    finally:
        await corral.close()  # one of them may have asked a Docker engine


async def _probed(corral: "Corral", kind: str) -> "Availability":
    """One runtime, likewise."""
    try:
        return await corral.runtimes[kind].probe()
    finally:
        await corral.close()


async def _one(corral: "Corral", kind: str) -> dict[str, Any]:
    try:
        runtime = corral.runtimes[kind]
    except CorralError as error:
        return _entry(kind, reason=error.message, hint=error.hint)
    available = await runtime.probe()
    recipe = getattr(runtime, "recipe", None)
    return _entry(
        kind,
        usable=available.usable,
        version=available.version,
        devices=list(available.devices),
        formats=sorted(runtime.formats),
        reason=available.reason,
        hint=available.hint,
        environment=None if recipe is None else _environment(corral, kind),
    )


def _entry(kind: str, **known: Any) -> dict[str, Any]:
    unknown: dict[str, Any] = {"usable": False, "version": None, "devices": [], "formats": [], "reason": "", "hint": ""}
    return {"kind": kind, **unknown, "environment": None, **known}


def _environment(corral: "Corral", kind: str) -> str | None:
    from corral.kit.environments import folder

    made = folder(kind, corral.settings.home)
    return str(made) if made.exists() else None


def _row(item: dict[str, Any]) -> list[object]:
    usable = Painted("yes", "green") if item["usable"] else Painted("no", "dim")
    return [
        item["kind"],
        usable,
        item["version"] or "-",
        ", ".join(item["devices"]) or "-",
        ", ".join(item["formats"]) or "-",
    ]


@app.command("install", add_help_option=False)
@command
def install(given: Invocation, kind: Kind) -> None:
    """Make the environment that a runtime lives in.

    Packages come from where pip takes them. It takes minutes, and some gigabytes of disk where a GPU is to be used.
    For example: corral runtimes install vllm
    """
    from corral.kit import environments

    given.here_only("runtimes install")
    corral = given.corral()
    recipe = _recipe(corral, kind)
    output = given.output
    with output.busy(f"Making the environment of {kind} …"):
        made = asyncio.run(environments.install(recipe, corral.settings.home, _telling(given), os.environ))
    available = asyncio.run(_probed(corral, kind))
    data = {
        "kind": kind,
        "environment": str(made),
        "usable": available.usable,
        "version": available.version,
        "devices": list(available.devices),
    }

    def show() -> None:
        on = f", for {' and '.join(available.devices)}" if available.devices else ""
        output.say(f"{kind} {available.version or ''} is installed{on}: {made}")
        if not available.usable:
            output.warn(f"{available.reason} {available.hint}".rstrip())

    output.result(data, show, [str(made)])


def _telling(given: Invocation) -> "Callable[[Progress], None]":
    """Tell what pip says, line by line, to a person whose terminal shows no moving line."""

    def tell(progress: "Progress") -> None:
        if given.output.human and not given.output.live:
            given.output.note(progress.detail)

    return tell


@app.command("rm", add_help_option=False)
@command
def remove(
    given: Invocation, kind: Kind, yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Remove the environment of a runtime; models stay.

    For example: corral runtimes rm vllm
    """
    from corral.kit import environments

    given.here_only("runtimes rm")
    corral = given.corral()
    _recipe(corral, kind)
    output = given.output
    if not yes and not output.ask(f"Remove the environment of {kind}? Its engines that run now may fail."):
        output.note("Nothing was removed.")
        raise typer.Exit(1)
    with output.busy(f"Removing the environment of {kind} …"):
        freed = environments.remove(kind, Path(corral.settings.home))
    data = {"kind": kind, "freed": freed}
    output.result(data, lambda: output.say(f"The environment of {kind} is removed: {size_text(freed)} freed."), [kind])


def _recipe(corral: "Corral", kind: str) -> "Recipe":
    """What the environment of `kind` is made of.

    Raises:
        UnknownPlugin: there is no such runtime.
        NotSupported: it has no environment of its own.
    """
    recipe: Recipe | None = getattr(corral.runtimes[kind], "recipe", None)
    if recipe is None:
        available = asyncio.run(_probed(corral, kind))
        raise NotSupported(
            f"The runtime {kind!r} has no environment of its own.", available.hint or "There is nothing to install."
        )
    return recipe
