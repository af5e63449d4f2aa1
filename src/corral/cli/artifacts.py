"""`corral artifacts`: what came of runs, or was put there by hand: seen, taken away, compared, mended.

    [list|ls], show, cat, diff      here
    save, export                    here
    put, rm, restore                here
    repair                          here

An artifact is meant by its id, by how that begins, or by its name: the one of that name that changed last.
"""

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from corral.cli import names
from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.output import size_text
from corral.cli.pipelines import OfProject
from corral.cli.pipelines_comparison import unified
from corral.cli.pipelines_runs import Detach, followed, found_run
from corral.cli.projects import Limit, Purge, Removed, Tagged, Words, Yes, done, dropped, query
from corral.cli.table import Column
from corral.cli.workspace_files import STDIN, below, content_of, written
from corral.cli.workspace_hands import Found, Hands, ask, every
from corral.cli.workspace_words import about, listed, moment, told
from corral.domain.workspace import FORMS
from corral.errors import EntryNotFound, InvalidRequest

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

_KIND = "artifacts"
_LOOKED_AT = 200
_WHOLE = len("art-") + 12

OfRun = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", autocompletion=names.completion(names.runs), help="Only of this run."),
]
Force = Annotated[bool, flag("--force", help="Also over files that are there.")]
Edition = Annotated[int | None, typer.Option("--edition", metavar="N", min=1, help="This edition, not the newest.")]


@app.callback()
@group
def artifacts(context: typer.Context) -> None:
    """Show, take away and change what came of runs.

    For example: corral artifacts
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}), query())


@app.command("list", add_help_option=False)
@command
def list_artifacts(  # noqa: PLR0913, PLR0917  # the options are the signature
    given: Invocation,
    project: OfProject = None,
    run: OfRun = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only of this language, such as tsx, css or python.")
    ] = None,
    tags: Tagged = None,
    search: Words = "",
    removed: Removed = False,
    limit: Limit = 50,
) -> None:
    """Show artifacts, those that changed last first.

    For example: corral artifacts list --run run-1a2b3c4d5e6f
    """
    _list(given, query(tags, search, removed=removed, limit=limit, project=project, kind=kind), run)


@app.command(add_help_option=False)
@command
def show(given: Invocation, artifact: names.Artifact) -> None:
    """Show where an artifact came from, its editions and their mistakes.

    For example: corral artifacts show src/Counter.tsx
    """

    async def look(hands: Hands) -> Found:
        entry = await found_artifact(hands, artifact)
        return {**entry, "editions": await hands.editions(entry["id"])}

    found = ask(given, look)
    output = given.output

    def say() -> None:
        output.fields(
            [
                ("artifact", found["name"]),
                *about(found, "kind", "title", "project", "run", "step"),
                ("size", size_text(found["size"])),
                ("preview", preview_url(given, found["id"])),
            ]
        )
        output.say()
        columns = [
            Column("EDITION", right=True),
            Column("MADE"),
            Column("SIZE", right=True),
            Column("MODEL", soft=True),
            Column("NOTE", soft=True),
        ]
        output.table(columns, [_edition(each) for each in found["editions"]])
        for problem in found["editions"][-1]["problems"] if found["editions"] else ():
            output.say(f"{found['name']}:{problem['line']}:{problem['column']}: {problem['message']}", "yellow")

    output.result(found, say, [found["id"]])


def preview_url(given: Invocation, identifier: str) -> str:
    """Where a browser shows an artifact."""
    server = given.running()
    if server is None:
        return f"/ui/preview.html?artifact={identifier}, in a browser, once it runs: corral serve"
    return f"{server.url.rstrip('/')}/ui/preview.html?artifact={identifier}"


@app.command(add_help_option=False)
@command
def cat(given: Invocation, artifact: names.Artifact, edition: Edition = None) -> None:
    """Print what is in an artifact.

    For example: corral artifacts cat src/Counter.tsx
    """

    async def look(hands: Hands) -> tuple[Found, str]:
        entry = await found_artifact(hands, artifact)
        async with aclosing(hands.content(_KIND, entry["id"], edition)) as pieces:
            content = b"".join([piece async for piece in pieces])
        return entry, content.decode("utf-8", "replace")

    entry, text = ask(given, look)
    data = {"id": entry["id"], "name": entry["name"], "edition": edition or entry["number"], "content": text}

    def say() -> None:
        stdout = given.output.stdout
        if stdout.isatty():
            given.output.piece(text if text.endswith("\n") else f"{text}\n")
        else:
            stdout.write(text)  # as it is: this may go into a file

    given.output.result(data, say, [text.removesuffix("\n")])


@app.command(add_help_option=False)
@command
def save(
    given: Invocation,
    which: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARTIFACT]...",
            help="Artifacts, by id or name; with --run, none are all of it.",
            autocompletion=names.completion(names.artifacts),
        ),
    ] = None,
    run: OfRun = None,
    folder: Annotated[
        Path, typer.Option("--into", metavar="DIR", help="The folder that they go into; this one by default.")
    ] = Path(),
    force: Force = False,
) -> None:
    """Write artifacts to files of their names.

    For example: corral artifacts save --run run-1a2b3c4d5e6f --into site
    """
    if not which and run is None:
        raise InvalidRequest("Which artifacts shall be saved?", "Name them, or a run: --run RUN")

    async def take(hands: Hands) -> list[Found]:
        of = None if run is None else (await found_run(hands, run))["id"]
        if which:
            entries = [await found_artifact(hands, one, of) for one in dict.fromkeys(which)]
        else:
            entries = await every(hands, _KIND, {"run": of})
        saved = []
        for entry in entries:
            async with aclosing(hands.content(_KIND, entry["id"])) as pieces:
                place, size = await written(below(folder, entry["name"]), pieces, force=force)
            saved.append({"id": entry["id"], "name": entry["name"], "file": place, "size": size})
        return saved

    found = ask(given, take)
    output = given.output

    def say() -> None:
        for each in found:
            output.say(f"{each['name']} is written to {each['file']}.")
        if not found:
            output.say(f"Run {run} has made nothing.")

    output.result({"saved": found, "count": len(found)}, say, [each["file"] for each in found])


@app.command(add_help_option=False)
@command
def export(
    given: Invocation,
    artifact: names.Artifact,
    form: Annotated[
        str,
        typer.Option(
            metavar="FORM",
            autocompletion=names.chosen(*FORMS),
            help="plain (as it is), framer (a code component), vite (a project, zipped) or html (one page).",
        ),
    ] = "plain",
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there, if there is no such file.")
    ] = None,
    force: Force = False,
) -> None:
    """Write an artifact in a form that others take.

    For example: corral artifacts export src/Counter.tsx --form framer
    """
    if form not in FORMS:
        raise InvalidRequest(f"There is no form {form[:40]!r}.", f"One of: {', '.join(FORMS)}.")

    async def take(hands: Hands) -> Found:
        entry = await found_artifact(hands, artifact)
        async with hands.exported(entry["id"], form) as made:
            place, size = await written(file or Path(Path(made.name).name), made.pieces, force=force)
        known = {"file": place, "size": size, "notes": made.notes}
        return {"id": entry["id"], "name": entry["name"], "form": form, **known}

    found = ask(given, take)
    output = given.output

    def say() -> None:
        output.say(f"{found['name']} is written to {found['file']}.")
        for note in found["notes"]:
            output.note(note)

    output.result(found, say, [found["file"]])


@app.command(add_help_option=False)
@command
def diff(
    given: Invocation,
    artifact: names.Artifact,
    other: Annotated[
        str,
        typer.Argument(
            metavar="OTHER",
            help="The artifact to compare it with, by id or name.",
            autocompletion=names.completion(names.artifacts),
        ),
    ],
) -> None:
    """Show how two artifacts differ, line by line.

    For example: corral artifacts diff art-1a2b3c4d5e6f art-6f5e4d3c2b1a
    """

    async def look(hands: Hands) -> Found:
        one, two = await found_artifact(hands, artifact), await found_artifact(hands, other)
        return await hands.difference(one["id"], two["id"])

    found = ask(given, look)
    output = given.output

    def say() -> None:
        unified(output, found["unified"])
        if not found["unified"]:
            output.say("They are the same.")

    output.result(found, say, found["unified"].splitlines())


@app.command(add_help_option=False)
@command
def put(
    given: Invocation,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file of text (-: standard input).")],
    project: Annotated[
        str,
        typer.Option(
            metavar="NAME", autocompletion=names.completion(names.projects), help="The project that it is put into."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Keep it under this relative path.")
    ] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Its language; by its name unless given.")] = None,
) -> None:
    """Keep a file as an artifact; another edition where there is one.

    For example: corral artifacts put Counter.tsx --project shop --name src/Counter.tsx
    """
    if file == STDIN and name is None:
        raise InvalidRequest("What comes from standard input has no name.", "Give it one: --name src/Counter.tsx")
    with content_of(file) as content:
        found = ask(given, lambda hands: hands.add(project, name or Path(file).name, content, kind))
    told(given.output, _KIND, found, "kept" if found["number"] == 1 else f"kept as edition {found['number']}")


@app.command("rm", add_help_option=False)
@command
def remove(given: Invocation, which: names.Artifacts, yes: Yes = False, purge: Purge = False) -> None:
    """Remove artifacts; they can be had back for a time.

    For example: corral artifacts rm art-1a2b3c4d5e6f --yes
    """
    dropped(given, _KIND, _ids(given, which), yes=yes, purge=purge)


@app.command(add_help_option=False)
@command
def restore(given: Invocation, which: names.Artifacts) -> None:
    """Have back artifacts that were removed.

    For example: corral artifacts restore art-1a2b3c4d5e6f
    """
    done(given, _KIND, "restore", _ids(given, which, deleted=True))


@app.command(add_help_option=False)
@command
def repair(
    given: Invocation,
    artifact: names.Artifact,
    error: Annotated[str, typer.Option(metavar="TEXT", help="What went wrong, as it was told.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", autocompletion=names.completion(names.known), help="Who mends it; who made it by default."
        ),
    ] = None,
    detach: Detach = False,
) -> None:
    """Have a model mend an artifact: another edition of it.

    For example: corral artifacts repair src/Counter.tsx --error "setCount is not defined"
    """

    async def begin(hands: Hands) -> Found:
        return await hands.repair((await found_artifact(hands, artifact))["id"], error, model)

    followed(given, begin, detach=detach)


async def found_artifact(hands: Hands, which: str, run: str | None = None, *, deleted: bool = False) -> Found:
    """The artifact with that id, whose id begins so, or that was changed last of those with that name.

    Raises:
        EntryNotFound: there is none, or several ids begin so.
    """
    more: dict[str, Any] = {"limit": _LOOKED_AT} | ({} if run is None else {"run": run})
    more |= {"deleted": True, "archived": None} if deleted else {}
    if which.startswith("art-"):
        if len(which) >= _WHOLE:
            return await hands.get(_KIND, which, deleted=deleted)
        items = (await hands.page(_KIND, more))["items"]
        fitting = [item for item in items if item["id"].startswith(which)]
        if len(fitting) != 1:
            many = f"{len(fitting)} artifacts begin" if fitting else "No artifact of late begins"
            raise EntryNotFound(f"{many} with {which!r}.", "See them: corral artifacts list")
        return dict(fitting[0])
    items = (await hands.page(_KIND, {**more, "name": which, "limit": 1}))["items"]
    if not items:
        raise EntryNotFound(f"There is no artifact {which[:100]!r}.", "See them: corral artifacts list")
    return dict(items[0])


def _ids(given: Invocation, which: list[str], *, deleted: bool = False) -> list[str]:
    async def look(hands: Hands) -> list[str]:
        return [(await found_artifact(hands, one, deleted=deleted))["id"] for one in which]

    return ask(given, look)


def _edition(edition: Found) -> list[object]:
    wrong = len(edition["problems"])
    note = edition["note"] or (f"{wrong} mistake{'' if wrong == 1 else 's'}" if wrong else "-")
    return [edition["number"], moment(edition["created_at"]), size_text(edition["size"]), edition["model"] or "-", note]


def _list(given: Invocation, asked: dict[str, Any], run: str | None = None) -> None:
    async def look(hands: Hands) -> Found:
        of = {} if run is None else {"run": (await found_run(hands, run))["id"]}
        return await hands.page(_KIND, asked | of)

    page = ask(given, look)
    listed(given.output, _KIND, page, "There is no artifact. They come of runs: corral pipeline run PIPELINE")
