"""What every command is given: who reads its output, which configuration applies, and which server it talks to.

The options that stand here are understood by every command, after its name as well as before it.
"""

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from corral.cli.output import Mode, Output
from corral.config import Settings, home, load
from corral.errors import ConfigError, CorralError, InvalidRequest, UnknownOption

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.cli.server import Server
    from corral.gateway.presence import Presence

T = TypeVar("T")

_PANEL = "Everywhere"


def flag(*names: str, **more: Any) -> Any:
    """An option that takes no value; the help shows no type for it."""
    return typer.Option(*names, metavar="", **more)


def _everywhere(*names: str, doc: str, **more: Any) -> Any:
    return typer.Option(*names, help=doc, rich_help_panel=_PANEL, **{"metavar": "", **more})


_OPTIONS: tuple[tuple[str, Any, Any], ...] = (
    ("json", Annotated[bool, _everywhere("--json", doc="Write JSON, for programs.")], False),
    ("quiet", Annotated[bool, _everywhere("--quiet", "-q", doc="Write names and answers only.")], False),
    (
        "home",
        Annotated[Path | None, _everywhere("--home", metavar="DIR", doc="Folder for everything Corral keeps.")],
        None,
    ),
    (
        "config",
        Annotated[Path | None, _everywhere("--config", metavar="FILE", doc="Configuration file to read.")],
        None,
    ),
    (
        "url",
        Annotated[
            str | None,
            _everywhere(
                "--url",
                metavar="URL",
                envvar="CORRAL_URL",
                show_envvar=False,
                doc="Talk to the Corral at this address.",
            ),
        ],
        None,
    ),
    ("debug", Annotated[bool, _everywhere("--debug", doc="Show where an unexpected error came from.")], False),
)


class Verbs(TyperGroup):
    """A group of commands in which a verb is understood by the name that it has elsewhere, too."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or the one that does here what it means elsewhere; None for neither."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, ELSEWHERE.get(cmd_name, ""))


ELSEWHERE = {"ls": "list", "ps": "list", "show": "status", "status": "show", "remove": "rm"}
"""Names that verbs have in some groups, or with other tools, and what they are in the groups that know them not."""


def _help(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        typer.echo(context.get_help())
        raise typer.Exit


_HELP = Annotated[bool, flag("--help", "-h", help="Show this and stop.", is_eager=True, callback=_help)]
"""Typer's own shows a type, and takes pydantic to read."""


class ReaderGone(Exception):
    """Whoever read the output has gone away."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of `corral`."""

    output: Output
    home: Path | None = None
    config: Path | None = None
    url: str | None = None
    env: Mapping[str, str] | None = None
    loaded: list[Settings] = field(default_factory=list, repr=False)
    warned: list[CorralError] = field(default_factory=list, repr=False)

    def settings(self, flags: Mapping[str, Any] | None = None) -> Settings:
        """The configuration, read once; `flags` are a command's own, by dotted key. Warns of unknown variables.

        Raises:
            ConfigError, UnknownOption: as `corral.config.load`.
        """
        if not self.loaded:
            settings = self.again(flags)
            for warning in settings.warnings:
                self.output.warn(warning)
            self.loaded.append(settings)
        return self.loaded[0]

    def again(self, flags: Mapping[str, Any] | None = None) -> Settings:
        """The configuration as it is now, read anew.

        Raises:
            ConfigError, UnknownOption: as `corral.config.load`.
        """
        given = None if self.home is None else str(self.home)
        return load(self.env, {"home": given, **(flags or {})}, self.config)

    def corral(self) -> "Corral":
        """The parts of Corral over this configuration, in this process."""
        from corral.app import Corral

        return Corral(self.settings(), env=self.env)

    def running(self) -> "Presence | None":
        """Where the server of this home answers, or what `--url` names; None when no server runs here."""
        from corral.gateway.presence import Presence, find

        return Presence(self.url, 0, "") if self.url else find(self.place())

    def place(self) -> Path:
        """The home. A configuration that cannot be used is no reason not to talk to a server that runs well."""
        settings = self._usable()
        return home(self._environment(), self.home) if settings is None else settings.home

    def key(self) -> str | None:
        """The key that the server wants, from the environment."""
        settings = self._usable()
        return self._environment().get("CORRAL_API_KEY") or None if settings is None else settings.api_key

    def _environment(self) -> Mapping[str, str]:
        return os.environ if self.env is None else self.env

    def _usable(self) -> Settings | None:
        """The configuration; None, and a warning the first time, where it cannot be used."""
        try:
            return self.settings()
        except (ConfigError, UnknownOption) as error:
            if not self.warned:
                self.warned.append(error)
                self.output.warn(str(error))
            return None

    def ask(self, question: "Callable[[Server], Awaitable[T]]") -> T:
        """Put a question to the running server, and wait for the answer.

        Raises:
            ServerNotRunning: there is none.
            CorralError: what it answered.
        """
        import asyncio

        from corral.cli.server import Server

        async def talk() -> T:
            server = Server.of(self)
            try:
                return await question(server)
            finally:
                await server.close()

        return asyncio.run(talk())

    def here_only(self, what: str) -> None:
        """Refuse a command that works on this machine's store when it was pointed at another machine.

        Raises:
            InvalidRequest: `--url` or CORRAL_URL is given.
        """
        if self.url:
            raise InvalidRequest(
                f"`corral {what}` works on this machine's models, not on those of {self.url}.",
                "Leave out --url and CORRAL_URL, or run it on that machine.",
            )


def invocation(context: typer.Context, given: Mapping[str, Any]) -> Invocation:
    """What the options before the command and those after it (`given`) say together; the latter win.

    Raises:
        InvalidRequest: both --json and --quiet.
    """
    before = context.obj if isinstance(context.obj, dict) else {}
    both = {name: given.get(name) or before.get(name) for name, _, _ in _OPTIONS}
    if both["json"] and both["quiet"]:
        raise InvalidRequest("--json and --quiet exclude each other.", "Take one of them.")
    mode = Mode.JSON if both["json"] else Mode.QUIET if both["quiet"] else Mode.HUMAN
    return Invocation(Output(mode), both["home"], both["config"], both["url"])


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A Typer command out of a function whose first argument is the Invocation: adds the options that all have."""

    @wraps(function)
    def run(*, context: typer.Context, help: bool, **values: Any) -> None:  # noqa: A002 — the option's name
        del help  # it has been given already
        given = {name: values.pop(name) for name, _, _ in _OPTIONS}
        try:
            function(invocation(context, given), **values)
        except BrokenPipeError as error:
            raise ReaderGone from error  # Typer would take the plain one for a failure

    return _signed(run, list(inspect.signature(function).parameters.values())[1:])


def group(function: Callable[..., None]) -> Callable[..., None]:
    """A Typer group's callback that keeps the options that stand before the command, for `invocation`.

    `function` takes the context and, by name, options of its own.
    """

    @wraps(function)
    def run(*, context: typer.Context, help: bool, **values: Any) -> None:  # noqa: A002 — the option's name
        del help  # it has been given already
        inherited = context.obj if isinstance(context.obj, dict) else {}
        given = {name: values.pop(name) for name, _, _ in _OPTIONS}
        context.obj = {name: given[name] or inherited.get(name) for name in given}
        function(context, **values)

    return _signed(run, list(inspect.signature(function).parameters.values())[1:])


def _signed(run: Callable[..., None], own: list[inspect.Parameter]) -> Callable[..., None]:
    """`run` with the signature that Typer reads: the context, its own parameters, and the options that all have."""
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", kind, annotation=typer.Context),
        *(parameter.replace(kind=kind) for parameter in own),
        inspect.Parameter("help", kind, default=False, annotation=_HELP),
        *(inspect.Parameter(name, kind, default=default, annotation=hint) for name, hint, default in _OPTIONS),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # any function takes attributes
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
