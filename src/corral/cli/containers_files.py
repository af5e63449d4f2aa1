"""`corral containers adopt`, `import` and `export`: containers of others, and compose files."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.containers_hands import ask
from corral.cli.invocation import Invocation, command, flag
from corral.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping


@command
def adopt(
    given: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A container that is there, by its name on Docker.")],
    called: Annotated[str | None, typer.Option("--as", metavar="NAME", help="What it shall be called here.")] = None,
    write: Annotated[bool, flag("--write", help="Write it into corral.yaml.")] = False,
) -> None:
    """Show what a container that is there would be in the configuration.

    An orphan, or one that others have started. For example: corral containers adopt my-ollama --as coder --write
    """
    if write:
        given.here_only("containers adopt --write")
    entry = ask(given, lambda hands: hands.adopt(name))
    called = _fit(called or name)
    output, file = given.output, None
    if write:
        settings = given.settings()
        if called in settings.containers:
            raise Conflict(f"There is a container {called!r} in the configuration.", "Give it another name: --as NAME")
        from corral.cli.configuring import add_models

        file = add_models(settings, {}, None, {"containers": {called: entry}})
    data = {"name": called, "entry": entry, "file": file}
    output.result(data, lambda: output.say(entries_text({called: entry}).rstrip()), [called])
    if file is not None:
        output.note(f"It is written to {file}. Take it over: corral containers up {called}")
    else:
        output.note("Nothing is written; --write puts it into corral.yaml.")


def entries_text(entries: "Mapping[str, Any]") -> str:
    """Containers as they stand in corral.yaml."""
    import yaml

    from corral.cli.output import plain

    return yaml.safe_dump({"containers": plain(entries)}, sort_keys=False, allow_unicode=True)


def _fit(name: str) -> str:
    """`name` as a container may be called in the configuration.

    Raises:
        InvalidName: it cannot be.
    """
    from corral.domain.containers import check_container

    return check_container(name.lstrip("/").casefold().removeprefix("corral-"))
