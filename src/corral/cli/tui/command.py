"""`corral ui`: the menu in the terminal."""

import os
import sys
from typing import Annotated

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import chosen
from corral.cli.output import Mode
from corral.errors import InvalidRequest

THEMES = ("dark", "light", "contrast")


@command
def ui(
    invocation: Invocation,
    theme: Annotated[
        str, typer.Option("--theme", metavar="NAME", autocompletion=chosen(*THEMES), help="dark, light or contrast.")
    ] = "dark",
    plain: Annotated[
        bool, flag("--plain", help="In lines that are typed and read: for screen readers and simple terminals.")
    ] = False,
) -> None:
    """Do everything in a menu: models, containers, work, logs, chat.

    It talks to a running server. Keys are shown at the bottom; ? explains them, q quits.

    For example: corral ui --theme light; corral ui --url http://HOST:7860
    """
    if invocation.output.mode is not Mode.HUMAN:
        raise InvalidRequest("A menu is for people.", "With --json: corral list, corral ps, corral containers list, …")
    if theme not in THEMES:
        raise InvalidRequest(f"There is no theme {theme!r}.", f"Themes: {', '.join(THEMES)}.")
    if plain:
        from corral.cli.tui.plain import converse

        converse(invocation)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise InvalidRequest("The menu needs a terminal that can move a cursor.", "In lines: corral ui --plain")
    from corral.cli.tui.app import Menu

    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # empty is as if it were not there: Textual would take it for a wish
    invocation.key()  # warns of a configuration that cannot be used while there is still a line to do so
    Menu(invocation, theme).run()
