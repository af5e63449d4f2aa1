"""The commands put together, and the one place where errors become exit codes.

    run, serve, ui                              run.py, chat/, serve.py, tui/
    search, pull, list|ls, show, rm             search.py, pull.py, models.py, show.py, removal.py
    import, override                            importing.py, configuring.py, overrides.py
    update, rollback, history, pin, verify      revisions.py
    df, gc, move, push, operations|ops          store.py, operations.py
    ps, load, unload|stop                       engines.py
    explain, events, logs                       engines.py
    hardware, fit                               hardware.py
    projects [list|create|contexts|…]           projects.py, projects_contexts.py
    pipeline [run|list|validate|runs|…]         pipelines.py, pipelines_runs.py
    artifacts [list|cat|export|diff|…]          artifacts.py
    services [list|start|stop|…]                services.py
    containers [list|up|down|logs|…]            containers.py, containers_*.py
    keys [create|list|rotate|…]                 keys.py
    budgets [create|change|rm|release]          budgets.py
    usage [show|recompute]                      usage.py
    runtimes [install|rm]                       runtimes.py
    doctor, config [path|reload], man           doctor.py, configuration.py, manual.py

Importing this module imports Typer and little else. A command's module is imported when the command is on the command
line, and all of them only where all are shown; what a command needs it imports when it runs.
"""

import os
import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from corral import __version__
from corral.cli.invocation import ReaderGone, flag, group
from corral.cli.output import INTERRUPTED, NO_READER, USAGE, Mode, Output, exit_code
from corral.errors import CorralError, InvalidRequest

_PANELS: dict[str, dict[str, str]] = {
    "Run and serve": {"run": "run:run", "serve": "serve:serve", "ui": "tui.command:ui"},
    "Models": {
        "search": "search:search",
        "pull": "pull:pull",
        "list": "models:list_models",
        "show": "show:show_model",
        "rm": "removal:remove",
        "import": "importing:import_models",
        "override": "overrides:override",
    },
    "Revisions": {
        "update": "revisions:update",
        "rollback": "revisions:rollback",
        "history": "revisions:history",
        "pin": "revisions:pin",
        "verify": "revisions:verify",
    },
    "Store": {
        "df": "store:df",
        "gc": "store:gc",
        "move": "store:move",
        "push": "store:push",
        "operations": "operations:operations",
    },
    "In memory": {
        "ps": "engines:ps",
        "load": "engines:load",
        "unload": "engines:unload",
        "explain": "engines:explain",
        "events": "engines:events",
        "logs": "engines:logs",
    },
    "Workspace": {"projects": "projects:app", "pipeline": "pipelines:app", "artifacts": "artifacts:app"},
    "Services": {"services": "services:app", "containers": "containers:app"},
    "Who may ask": {"keys": "keys:app"},
    "What it costs": {"budgets": "budgets:app", "usage": "usage:app"},
    "This machine": {
        "hardware": "hardware:hardware",
        "fit": "hardware:fit",
        "runtimes": "runtimes:app",
        "doctor": "doctor:doctor",
        "config": "configuration:app",
        "man": "manual:manual",
    },
}
"""Each command's module and function, in the order of the help."""

ALIASES = {"ls": "list", "stop": "unload", "ops": "operations"}
"""Other names of commands, which the help does not show."""

_NAMES = frozenset(ALIASES) | {name for commands in _PANELS.values() for name in commands}


def _version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        output = Output(Mode.JSON if "--json" in sys.argv else Mode.HUMAN)
        output.result({"version": __version__}, lambda: output.say(f"corral {__version__}"))
        raise typer.Exit


@group
def corral(
    context: typer.Context,
    version: Annotated[
        bool, flag("--version", "-V", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """One yard for every language model you run."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def application(wanted: Collection[str] = ()) -> typer.Typer:
    """The command line with the commands of `wanted`, or with all when it names none."""
    app = typer.Typer(
        name="corral",
        help="Corral: one yard for every language model you run.",
        no_args_is_help=False,
        pretty_exceptions_enable=False,
        add_help_option=False,
    )
    app.callback(invoke_without_command=True)(corral)
    places = {name: (place, panel) for panel, commands in _PANELS.items() for name, place in commands.items()}
    asked = _NAMES.intersection(wanted) or _NAMES
    for name, (place, panel) in places.items():
        if name in asked:
            found = _found(place)
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=name, rich_help_panel=panel)
            else:
                app.command(name, rich_help_panel=panel, add_help_option=False)(found)
    for alias, name in ALIASES.items():
        if alias in asked:
            app.command(alias, hidden=True, add_help_option=False)(_found(places[name][0]))
    return app


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"corral.cli.{module}"), name)


def run(arguments: list[str]) -> int:
    """Run one command line; what it says has been said when this returns the exit code."""
    if "--debug" not in arguments:
        sys.excepthook = _unexpected
    mode = Mode.JSON if "--json" in arguments else Mode.QUIET if {"-q", "--quiet"} & set(arguments) else Mode.HUMAN
    output = Output(mode)
    try:
        # Not `app(…)`, which would put Typer's own hook for unexpected errors in the place of ours.
        root = typer.main.get_command(application(arguments))
        _lighten(root)
        result = root.main(arguments, prog_name="corral", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        output.fail(_usage(error))
        return USAGE
    except CorralError as error:
        output.fail(error)
        return exit_code(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (ReaderGone, BrokenPipeError):
        # The reader has gone; what the interpreter still flushes at its end must not complain of that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    return result if isinstance(result, int) else 0


class _AsGiven:
    """A text, path or flag of the command line, taken as it is."""

    def __init__(self, kind: type[str | Path | bool | list[str]]) -> None:
        self._kind = kind

    def coerce(self, value: Any, **_: Any) -> Any:
        """As Typer's own: None stays None."""
        return None if value is None else self._kind(value)


def _lighten(command: Any) -> None:
    """Keep Typer from converting texts and paths by pydantic, whose import takes longer than all that `list` does.

    Typer builds a converter when a parameter has none yet. Should a later Typer do otherwise, this does nothing.
    """
    for parameter in command.params:
        known = getattr(parameter, "type_descriptor", None)
        kind = getattr(known, "annotation", None)
        single = not getattr(parameter, "multiple", False) and parameter.nargs == 1
        if (kind in (str, Path, bool) and single) or (kind == list[str] and not single):
            parameter._runtime_param = _AsGiven(kind if single else list)  # noqa: SLF001 — see above; there is no public way
    for inner in getattr(command, "commands", {}).values():
        _lighten(inner)


def _usage(error: typer.TyperException) -> CorralError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "corral"
    message = error.format_message()
    return InvalidRequest(
        message.removesuffix("?.") + "?" if message.endswith("?.") else message, f"See: {path} --help"
    )


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The interpreter's last word on an error that is not ours."""
    place = ""
    while trace is not None:
        place = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    reason = f": {error}" if str(error) else ""
    failure = CorralError(
        f"Unexpected {kind.__name__}{reason}{place}. This is a fault of Corral.",
        "Run it again with --debug, and report what that shows together with the output of: corral doctor",
    )
    Output(Mode.JSON if "--json" in sys.argv else Mode.HUMAN).fail(failure)
