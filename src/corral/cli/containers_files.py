"""`corral containers adopt`, `import` and `export`: containers of others, and compose files."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.containers_hands import ask
from corral.cli.invocation import Invocation, command, flag
from corral.cli.output import FAILED, Output, size_text
from corral.errors import Conflict, NoPermission

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Sized

    from corral.fleet.compose import Imported


@command
def adopt(
    given: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A container that is there, by its name on Docker.")],
    called: Annotated[str | None, typer.Option("--as", metavar="NAME", help="What it shall be called here.")] = None,
    write: Annotated[bool, flag("--write", help="Write it into corral.yaml.")] = False,
    migrate: Annotated[bool, flag("--migrate", help="Take it over now, too: --write is understood.")] = False,
) -> None:
    """Show what a container that is there would be in the configuration.

    An orphan, or one that others have started. With --migrate it is stopped, made anew by Corral with the same volumes,
    and put back if that fails. For example: corral containers adopt my-ollama --as coder --write
    """
    write = write or migrate
    if write:
        given.here_only("containers adopt --write")
    found = ask(given, lambda hands: hands.adopt(name))
    entry, secrets, called = found["entry"], found["secrets"], _fit(called or name)
    output, file = given.output, None
    if write:
        settings = given.settings()
        if called in settings.containers:
            raise Conflict(f"There is a container {called!r} in the configuration.", "Give it another name: --as NAME")
        from corral.cli.configuring import add_models

        file = add_models(settings, {}, None, {"containers": {called: entry}})
    data = {"name": called, "entry": entry, "secrets": secrets, "file": file}
    output.result(data, lambda: output.say(entries_text({called: entry}).rstrip()), [called])
    if secrets:
        output.note(f"Kept out, for you to set for Corral: {', '.join(secrets)}")
    if file is None:
        output.note("Nothing is written; --write puts it into corral.yaml.")
        return
    output.note(f"It is written to {file}.")
    from corral.cli import containers_migration as migration

    there = migration.standing(given, called, str(entry.get("container") or name), entry)
    if there and migrate:
        migration.migrate(given, there)
    elif there:
        output.note("The container goes on as it is. Take it over: remove it, and corral containers up")


@command
def take_over(
    given: Invocation,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The compose file, or its folder. Default: the one here.")
    ] = None,
    yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False,
    migrate: Annotated[
        bool, flag("--migrate", help="Take over the containers, too, that compose has started.")
    ] = False,
) -> None:
    """Take over the model servers of a compose file.

    It is the same as corral import docker-compose. The plan is shown first, with all that is not taken over.
    For example: corral containers import docker-compose.yml
    """
    import_compose(given, file, yes=yes, migrate=migrate)


@command
def export(
    given: Invocation,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there, if there is no such file.")
    ] = None,
) -> None:
    """Write the configured containers as a compose file.

    Secrets stay the names of their variables. For example: corral containers export --output docker-compose.yml
    """
    text = ask(given, lambda hands: hands.export())
    output = given.output
    if file is None:
        output.result({"compose": text, "file": None}, lambda: output.say(text.rstrip()), [text.rstrip()])
        return
    try:
        with file.expanduser().open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise Conflict(f"There is a file {file} already.", "Take another name, or remove it.") from error
    except OSError as error:
        raise NoPermission(f"{file} cannot be written: {error.strerror}.", "Check the path.") from error
    output.result({"compose": text, "file": file}, lambda: output.say(f"Written to {file}."), [file])


def import_compose(given: Invocation, file: Path | None, *, yes: bool, migrate: bool) -> None:
    """Show what a compose file becomes, ask, and write it into corral.yaml; then take over the containers it has.

    Raises:
        ConfigError: there is no such file, it is none, or corral.yaml cannot be added to.
        CorralError: a container could not be taken over; it is as it was.
    """
    import os

    from corral.cli import containers_migration as migration
    from corral.fleet.compose import plan_compose

    given.here_only("import")
    output, settings = given.output, given.settings()
    env = os.environ if given.env is None else given.env
    found = plan_compose((file or Path()).expanduser(), env)
    fresh = {name: dict(entry) for name, entry in found.entries.items() if name not in settings.containers}
    taken = sorted(name for name in found.entries if name in settings.containers)
    there = migration.existing(given, found) if found.entries else []
    _tell(output, found, fresh, taken)
    migration.tell(output, there)
    data: dict[str, Any] = {
        "event": "plan",
        "project": found.project,
        "containers": fresh,
        "configured": taken,
        "unsupported": [asdict(one) for one in found.unsupported],
        "existing": migration.described(there),
        "file": None,
    }
    if not fresh and not there:
        output.result(data, lambda: output.say("There is nothing to import."))
        return
    if fresh:
        if not yes and not output.ask(f"Import {_count(fresh)}?"):
            output.note("Nothing was imported.")
            raise typer.Exit(FAILED)
        from corral.cli.configuring import add_models

        data["file"] = add_models(settings, {}, None, {"containers": fresh})
        output.note(f"{_count(fresh)} written to {data['file']}.")
    output.result(data, lambda: None, sorted(fresh))
    if there and (migrate or (not yes and output.ask(f"Take over {_count(there)} of compose's now?"))):
        migration.migrate(given, there)
    elif there:
        output.note("Compose's containers go on as they are. Take them over: the same with --migrate")
    else:
        output.note("Bring them up: corral containers up")


def _tell(output: Output, found: "Imported", fresh: "Mapping[str, Any]", taken: "Sequence[str]") -> None:
    for name, entry in fresh.items():
        output.say(f"  + {name}  {_about(entry)}", "green")
    for name in taken:
        output.say(f"  = {name}  is in the configuration already")
    for one in found.unsupported:
        place = ".".join(part for part in (one.service, one.key) if part)
        output.say(f"  ! {place}: {one.reason}", "yellow")


def _about(entry: "Mapping[str, Any]") -> str:
    """An entry in a few words."""
    gpus = entry.get("gpus")
    facts = [
        str(entry.get("image") or entry.get("kind")),
        f"on port {entry['port']}" if entry.get("port") else "",
        f"GPUs {', '.join(map(str, gpus)) if isinstance(gpus, list | tuple) else gpus}" if gpus else "",
        f"at most {size_text(entry['memory'])}" if isinstance(entry.get("memory"), int) else "",
        f"volumes {', '.join(entry['volumes'])}" if entry.get("volumes") else "",
        "stays down until it is started" if entry.get("enabled") is False else "",
    ]
    return ", ".join(fact for fact in facts if fact)


def _count(entries: "Sized") -> str:
    return "1 container" if len(entries) == 1 else f"{len(entries)} containers"


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
