"""`corral projects`: what is worked on, with its material, its runs and what came of them.

    [list|ls], show, create, change             here
    archive, restore, rm, duplicate             here
    export, import                              here
    search                                      here
    contexts [list|add|change|rm|reorder|…]     projects_contexts.py

The server that runs is asked; without one, this process does it.
"""

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from corral.cli import names, projects_contexts
from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.output import FAILED
from corral.cli.table import Column
from corral.cli.workspace_files import given_file, written
from corral.cli.workspace_hands import Found, Hands, ask, every
from corral.cli.workspace_words import DONE, about, listed, listing, told

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)
app.add_typer(projects_contexts.app, name="contexts")

_KIND = "projects"
_MOST = 200

Title = Annotated[str | None, typer.Option(metavar="TEXT", help="What people call it.")]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What it is about.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag; given ones replace those it has. Repeatable.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=_MOST, help="At most so many.")]
Archived = Annotated[bool, flag("--archived", help="Those that were archived instead.")]
Removed = Annotated[bool, flag("--removed", help="Those that were removed instead, and can be had back.")]
Tagged = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with this tag. Repeatable.")]
Words = Annotated[str, typer.Option("--search", metavar="WORDS", help="Only with these words in it.")]
Yes = Annotated[bool, flag("--yes", "-y", help="Do not ask.")]
Purge = Annotated[bool, flag("--purge", help="For good: it cannot be had back.")]


@app.callback()
@group
def projects(context: typer.Context) -> None:
    """Show and change projects, and what belongs to them.

    For example: corral projects
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}), query())


@app.command("list", add_help_option=False)
@command
def list_projects(
    given: Invocation,
    tags: Tagged = None,
    search: Words = "",
    archived: Archived = False,
    removed: Removed = False,
    limit: Limit = 50,
) -> None:
    """Show the projects, those that changed last first.

    For example: corral projects list --tag shop
    """
    _list(given, query(tags, search, archived=archived, removed=removed, limit=limit))


@app.command(add_help_option=False)
@command
def show(given: Invocation, project: names.Project) -> None:
    """Show a project: its material, and how much came of it.

    For example: corral projects show shop
    """

    async def look(hands: Hands) -> Found:
        entry = await hands.get(_KIND, project)
        own = {"project": entry["id"]}
        contexts = await every(hands, "contexts", {**own, "sort": "position"})
        totals = {
            kind: (await hands.page(kind, {**own, "limit": 1, "total": True}))["total"]
            for kind in ("pipelines", "runs", "artifacts")
        }
        return {**entry, "contexts": contexts, **totals}

    found = ask(given, look)
    output = given.output

    def say() -> None:
        material = [f"{one['name']} ({one['kind']})" for one in found["contexts"]]
        pairs = [("project", found["name"]), *about(found, "title", "description", "settings")]
        pairs += [("contexts", listing(material))]
        pairs += [(kind, found[kind]) for kind in ("pipelines", "runs", "artifacts")]
        output.fields(pairs)

    output.result(found, say, [found["name"]])


@app.command(add_help_option=False)
@command
def create(
    given: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, which stays: budgets know it by that.")],
    title: Title = None,
    description: Description = None,
    tags: Tags = None,
) -> None:
    """Make a project.

    For example: corral projects create shop --title "The shop's pages"
    """
    fields = {"name": name} | _said(title, description, tags)
    told(given.output, _KIND, ask(given, lambda hands: hands.create(_KIND, fields)), "made")


@app.command(add_help_option=False)
@command
def change(
    given: Invocation,
    project: names.Project,
    title: Title = None,
    description: Description = None,
    tags: Tags = None,
) -> None:
    """Change a project's title, description or tags.

    An empty text removes what there was. For example: corral projects change shop --tag web
    """
    fields = required(_said(title, description, tags), "--title, --description or --tag")
    told(given.output, _KIND, ask(given, lambda hands: hands.change(_KIND, project, fields)), "changed")


@app.command(add_help_option=False)
@command
def archive(given: Invocation, project: names.Project) -> None:
    """Put a project away; nothing of it is lost.

    For example: corral projects archive shop
    """
    done(given, _KIND, "archive", [project])


@app.command(add_help_option=False)
@command
def restore(given: Invocation, project: names.Project) -> None:
    """Have back a project that was archived or removed.

    For example: corral projects restore shop
    """
    done(given, _KIND, "restore", [project])


@app.command("rm", add_help_option=False)
@command
def remove(given: Invocation, project: names.Project, yes: Yes = False, purge: Purge = False) -> None:
    """Remove a project and all that belongs to it.

    It can be had back for a time (workspace.retention). For example: corral projects rm shop --yes
    """
    dropped(given, _KIND, [project], yes=yes, purge=purge)


@app.command(add_help_option=False)
@command
def duplicate(
    given: Invocation,
    project: names.Project,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The name of the copy.")],
) -> None:
    """Make another project with the same material and pipelines.

    For example: corral projects duplicate shop --name shop-2
    """
    found = ask(given, lambda hands: hands.do(_KIND, "duplicate", project, name=name))
    told(given.output, _KIND, found, "made")


@app.command(add_help_option=False)
@command
def export(
    given: Invocation,
    project: names.Project,
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it there, if there is no such file."),
    ] = None,
    force: Annotated[bool, flag("--force", help="Also over a file that is there.")] = False,
) -> None:
    """Write a whole project into one archive.

    With its material, pipelines, runs and artifacts; PROJECT.zip unless another file is named. For example:
    corral projects export shop -o shop.zip
    """

    async def pack(hands: Hands) -> tuple[str, Path, int]:
        entry = await hands.get(_KIND, project)
        async with aclosing(hands.pack(entry["id"])) as pieces:
            place, size = await written(file or Path(f"{entry['name']}.zip"), pieces, force=force)
        return entry["name"], place, size

    with given.output.busy(f"Writing {project} …"):
        name, place, size = ask(given, pack)
    data = {"project": name, "file": place, "size": size}
    given.output.result(data, lambda: given.output.say(f"Project {name} is written to {place}."), [place])


@app.command("import", add_help_option=False)
@command
def import_project(
    given: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive that corral projects export made.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Call it so here.")] = None,
) -> None:
    """Make a project of an archive.

    For example: corral projects import shop.zip --name shop-2
    """
    place = given_file(file)
    with given.output.busy(f"Reading {place.name} …"):
        found = ask(given, lambda hands: hands.unpack(place, name))
    told(given.output, _KIND, found, "made")


@app.command(add_help_option=False)
@command
def search(
    given: Invocation,
    words: Annotated[list[str], typer.Argument(metavar="WORDS...", help="What to look for.")],
    project: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=names.completion(names.projects), help="Only in this project."),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            autocompletion=names.chosen("project", "context", "pipeline", "run", "artifact"),
            help="Only project, context, pipeline, run or artifact. Repeatable.",
        ),
    ] = None,
    limit: Limit = 50,
) -> None:
    """Look for words in everything of the workspace.

    For example: corral projects search price table --project shop
    """
    text = " ".join(words)
    found = ask(given, lambda hands: hands.search(text, project, kinds or [], limit))
    output = given.output

    def say() -> None:
        if not found:
            output.say("Nothing has these words.")
            return
        columns = [Column("KIND"), Column("ID"), Column("TITLE", soft=True), Column("WHERE", soft=True, spare=1)]
        output.table(columns, [[hit["kind"], hit["id"], hit["title"], hit["excerpt"] or "-"] for hit in found])

    output.result({"hits": found, "count": len(found)}, say, [hit["id"] for hit in found])


def query(
    tags: list[str] | None = None,
    search: str = "",
    *,
    archived: bool = False,
    removed: bool = False,
    limit: int = 50,
    **more: Any,
) -> dict[str, Any]:
    """What a list is asked for; `more` are filters, of which None does not ask."""
    asked: dict[str, Any] = {"limit": limit} | {name: value for name, value in more.items() if value is not None}
    asked |= {"tags": tuple(tags)} if tags else {}
    asked |= {"search": search} if search else {}
    return asked | ({"archived": True} if archived else {}) | ({"deleted": True, "archived": None} if removed else {})


def required(fields: dict[str, Any], options: str) -> dict[str, Any]:
    """`fields`, when there are any.

    Raises:
        InvalidRequest: there is nothing to change.
    """
    from corral.errors import InvalidRequest

    if not fields:
        raise InvalidRequest("There is nothing to change.", f"Give {options}.")
    return fields


def done(given: Invocation, kind: str, verb: str, which: list[str]) -> None:
    """Do something to entries, one after the other, and say so of each."""

    async def all_of_them(hands: Hands) -> list[Found]:
        return [await hands.do(kind, verb, one) for one in dict.fromkeys(which)]

    for entry in ask(given, all_of_them):
        told(given.output, kind, entry, DONE[verb])


def dropped(given: Invocation, kind: str, which: list[str], *, yes: bool, purge: bool) -> None:
    """Remove entries, having asked; with `purge` for good."""
    verb = "purge" if purge else "delete"
    question = f"Remove {', '.join(which)} for good?" if purge else f"Remove {', '.join(which)}?"
    if not yes and not given.output.ask(question):
        given.output.note("Nothing was removed.")
        raise typer.Exit(FAILED)
    done(given, kind, verb, which)
    if not purge:
        verbs = {"projects": "projects", "contexts": "projects contexts", "artifacts": "artifacts"}
        given.output.note(f"To have it back: corral {verbs.get(kind, 'pipeline')} restore {which[0]}")


def _said(title: str | None, description: str | None, tags: list[str] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"title": title, "description": description}
    fields["tags"] = None if tags is None else [tag for tag in tags if tag]
    return {name: value for name, value in fields.items() if value is not None}


def _list(given: Invocation, asked: dict[str, Any]) -> None:
    page = ask(given, lambda hands: hands.page(_KIND, asked))
    listed(given.output, _KIND, page, "There is no project. Make one: corral projects create NAME")
