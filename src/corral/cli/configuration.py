"""`corral config`: every setting, its value, and where that came from; and having the server read them again."""

from typing import Any

import typer

from corral.cli.invocation import Invocation, Verbs, command, group, invocation
from corral.cli.output import Painted, plain
from corral.cli.table import Column

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)


@app.callback()
@group
def config(context: typer.Context) -> None:
    """Show each setting and where its value came from.

    For example: corral config
    """
    if context.invoked_subcommand is None:
        _values(invocation(context, {}))


def _values(given: Invocation) -> None:
    settings = given.settings()
    output = given.output
    rows = [{"key": key, "value": value, "origin": origin} for key, value, origin in settings.rows()]

    def show() -> None:
        columns = [Column("KEY"), Column("VALUE", soft=True), Column("FROM", soft=True)]
        output.table(columns, [[row["key"], _shown(row["value"]), _origin(row["origin"])] for row in rows])
        output.note(f"File: {settings.file or 'none; see corral config path'}")

    output.result(
        {"file": settings.file, "values": rows}, show, [f"{row['key']}={_shown(row['value'])}" for row in rows]
    )


def _shown(value: Any) -> object:
    known = plain(value)
    if isinstance(known, bool):
        return str(known).lower()
    if isinstance(known, float) and known.is_integer():
        return int(known)
    if isinstance(known, list):
        return ", ".join(str(item) for item in known) or "-"
    return "-" if known is None else known


def _origin(origin: str) -> Painted:
    return Painted(origin, "dim" if origin == "default" else "green")


@app.command("path", add_help_option=False)
@command
def path(given: Invocation) -> None:
    """Show which configuration file is read, and where one would be.

    For example: corral config path
    """
    settings = given.settings()
    output = given.output
    candidates = ["--config FILE", "$CORRAL_CONFIG", "./corral.yaml", str(settings.home / "corral.yaml")]

    def show() -> None:
        if settings.file is not None:
            output.say(str(settings.file))
            return
        output.say("No configuration file is read. The first of these that exists would be:")
        for candidate in candidates:
            output.say(f"  {candidate}")

    data = {"file": settings.file, "candidates": candidates}
    output.result(data, show, [settings.file] if settings.file else [])


@app.command("reload", add_help_option=False)
@command
def reload(given: Invocation) -> None:
    """Have the running server read its configuration again.

    Answers under way are not cut short. For example: corral config reload
    """
    done = given.ask(lambda server: server.reload())
    output = given.output

    def show() -> None:
        output.say(f"The server uses {done['file']}." if done["file"] else "The server has no configuration file.")
        for name in done["later"]:
            output.say(f"{name}: takes effect when the server is started again.", "yellow")

    output.result(done, show, done["later"])
