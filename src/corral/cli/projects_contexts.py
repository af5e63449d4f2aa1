"""`corral projects contexts`: the material of a project, which its runs are given: instructions, files, variables."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from corral.cli import names
from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.output import FAILED, size_text
from corral.cli.workspace_files import STDIN, Content, content_of
from corral.cli.workspace_hands import Found, Hands, ask, every
from corral.cli.workspace_words import about, listed, spelled, told
from corral.domain.workspace import text_type
from corral.errors import EntryNotFound, InvalidRequest

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

_KIND = "contexts"

Context = Annotated[str, typer.Argument(metavar="CONTEXT", help="The context, by its name in the project or its id.")]
Text = Annotated[str | None, typer.Option("--text", metavar="TEXT", help="Instructions, as they are.")]
File = Annotated[
    str | None,
    typer.Option("--file", metavar="FILE", help="A file of text, which models are given (-: standard input)."),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A variable; JSON, or else text. Repeatable."),
]


@app.callback()
@group
def contexts(context: typer.Context) -> None:
    """Show and change the material of projects.

    For example: corral projects contexts
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}), None)


@app.command("list", add_help_option=False)
@command
def list_contexts(given: Invocation, project: names.MaybeProject = None) -> None:
    """Show what the runs of a project are given, in its order.

    Without one, all material. For example: corral projects contexts list shop
    """
    _list(given, project)


@app.command(add_help_option=False)
@command
def show(given: Invocation, project: names.Project, piece: Context) -> None:
    """Show a context, and what it holds.

    For example: corral projects contexts show shop style
    """
    found = ask(given, lambda hands: _found(hands, project, piece))
    output = given.output

    def say() -> None:
        pairs: list[tuple[str, object]] = [("context", found["name"]), *about(found, "kind", "media_type")]
        pairs += [("size", size_text(found["size"]))] if found["size"] else []
        pairs += [("models", "given" if found["enabled"] else "left out")]
        output.fields(pairs)
        output.say()
        output.say(spelled(found["variables"]) or found["text"])

    output.result(found, say, [found["text"] or spelled(found["variables"])])


@app.command(add_help_option=False)
@command
def add(
    given: Invocation,
    project: names.Project,
    text: Text = None,
    file: File = None,
    variables: Variables = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What it is called.")] = None,
) -> None:
    """Add instructions, a file or variables to what runs are given.

    For example: corral projects contexts add shop --text "Write for children." --name style; corral projects contexts
    add shop --file brief.md
    """
    fields = _made(text, file, variables, name)

    async def make(hands: Hands, content: Content | None = None) -> Found:
        entry = await hands.get("projects", project)
        made = await hands.create(_KIND, {"project": entry["id"], **fields})
        if content is not None:
            made = await hands.put(_KIND, made["id"], content, text_type(content.name))
        return made

    told(given.output, _KIND, _asked(given, make, file), "added")


@app.command(add_help_option=False)
@command
def change(  # noqa: PLR0913, PLR0917  # the options are the signature
    given: Invocation,
    project: names.Project,
    piece: Context,
    text: Text = None,
    file: File = None,
    variables: Variables = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Another name.")] = None,
    off: Annotated[bool, flag("--leave-out", help="Models are not given it from now on.")] = False,
    on: Annotated[bool, flag("--give", help="Models are given it again.")] = False,
) -> None:
    """Change what a context holds, or whether models are given it.

    For example: corral projects contexts change shop style --leave-out
    """
    if on and off:
        raise InvalidRequest("--give and --leave-out exclude each other.", "Take one of them.")
    fields: dict[str, Any] = {"name": name, "text": text, "enabled": on if on or off else None}
    fields["variables"] = None if variables is None else _pairs(variables)
    fields = {key: value for key, value in fields.items() if value is not None}
    if not fields and file is None:
        raise InvalidRequest(
            "There is nothing to change.", "Give --text, --file, --set, --name, --give or --leave-out."
        )

    async def alter(hands: Hands, content: Content | None = None) -> Found:
        found = await _found(hands, project, piece)
        if "variables" in fields:
            fields["variables"] = found["variables"] | fields["variables"]
        if fields:
            found = await hands.change(_KIND, found["id"], fields)
        if content is not None:
            found = await hands.put(_KIND, found["id"], content, text_type(content.name))
        return found

    told(given.output, _KIND, _asked(given, alter, file), "changed")


@app.command("rm", add_help_option=False)
@command
def remove(
    given: Invocation,
    project: names.Project,
    piece: Context,
    yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a context; it can be had back for a time.

    For example: corral projects contexts rm shop style --yes
    """
    if not yes and not given.output.ask(f"Remove {piece}?"):
        given.output.note("Nothing was removed.")
        raise typer.Exit(FAILED)

    async def drop(hands: Hands) -> Found:
        return await hands.do(_KIND, "delete", (await _found(hands, project, piece))["id"])

    found = ask(given, drop)
    told(given.output, _KIND, found, "removed")
    given.output.note(f"To have it back: corral projects contexts restore {project} {found['id']}")


@app.command(add_help_option=False)
@command
def restore(given: Invocation, project: names.Project, piece: Context) -> None:
    """Have back a context that was removed.

    For example: corral projects contexts restore shop style
    """

    async def back(hands: Hands) -> Found:
        found = await _found(hands, project, piece, deleted=True)
        return await hands.do(_KIND, "restore", found["id"])

    told(given.output, _KIND, ask(given, back), "restored")


@app.command(add_help_option=False)
@command
def reorder(
    given: Invocation,
    project: names.Project,
    which: Annotated[list[str], typer.Argument(metavar="CONTEXT...", help="Contexts, by name or id, the first first.")],
) -> None:
    """Put the contexts of a project into another order.

    Those that are not named follow. For example: corral projects contexts reorder shop brief.md style
    """

    async def put(hands: Hands) -> list[Found]:
        entry = await hands.get("projects", project)
        ids = [(await _found(hands, entry["id"], one))["id"] for one in dict.fromkeys(which)]
        return await hands.reorder(entry["id"], ids)

    found = ask(given, put)
    listed(given.output, _KIND, {"items": found}, "")


def _list(given: Invocation, project: str | None) -> None:
    asked = {} if project is None else {"project": project, "sort": "position"}
    page: Found = {"items": ask(given, lambda hands: every(hands, _KIND, asked))}
    empty = f"There is no context. Add one: corral projects contexts add {project or 'PROJECT'} --text TEXT"
    listed(given.output, _KIND, page, empty)


def _asked(given: Invocation, question: Callable[..., Awaitable[Found]], file: str | None) -> Found:
    """The answer to a question about what is in a file, where one is given."""
    if file is None:
        return ask(given, question)
    with content_of(file) as content:
        return ask(given, lambda hands: question(hands, content))


async def _found(hands: Hands, project: str, context: str, *, deleted: bool = False) -> Found:
    """The context of a project with that name or id.

    Raises:
        EntryNotFound: there is none, or there are several of that name.
    """
    asked: dict[str, Any] = {"project": project, "sort": "position"}
    asked |= {"deleted": True, "archived": None} if deleted else {}
    items = await every(hands, _KIND, asked)
    same = [item for item in items if context in (item["id"], item["name"])]
    if len(same) == 1:
        return dict(same[0])
    if same:
        ids = ", ".join(item["id"] for item in same)
        raise EntryNotFound(f"{len(same)} contexts of {project} are called {context!r}.", f"Take an id: {ids}")
    raise EntryNotFound(
        f"{project} has no context {context[:100]!r}.", f"See them: corral projects contexts list {project}"
    )


def _made(text: str | None, file: str | None, variables: list[str] | None, name: str | None) -> dict[str, Any]:
    """What kind of context that is, and what it is called unless it is said."""
    if sum(given is not None for given in (text, file, variables)) != 1:
        raise InvalidRequest(
            "A context is instructions, a file or variables.", "Give one of --text, --file and --set NAME=VALUE."
        )
    if text is not None:
        return {"kind": "instructions", "name": name or "instructions", "text": text}
    if variables is not None:
        return {"kind": "variables", "name": name or "variables", "variables": _pairs(variables)}
    if file == STDIN and name is None:
        raise InvalidRequest("What comes from standard input has no name.", "Give it one: --name brief.md")
    return {"kind": "file", "name": name or Path(str(file)).name}


def _pairs(given: list[str]) -> dict[str, Any]:
    from corral.cli.pipelines_inputs import pairs, value_of

    return {name: value_of(text) for name, text in pairs(given, "--set").items()}
