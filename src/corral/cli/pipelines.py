"""`corral pipeline`: steps of several models, from a request to artifacts.

    [list|ls], show, validate, save, rm, restore     here
    runs                                             here
    run, watch, pause, resume, cancel                pipelines_runs.py
    rerun, compare                                   pipelines_runs.py

The server that runs does it; without one, this process does.
"""

from typing import Annotated, Any

import typer

from corral.cli import names, pipelines_runs
from corral.cli.invocation import Invocation, Verbs, command, group, invocation
from corral.cli.output import FAILED
from corral.cli.pipelines_inputs import description_of, is_file
from corral.cli.pipelines_runs import found_run, outcome
from corral.cli.projects import Limit, Purge, Removed, Yes, done, dropped, query
from corral.cli.workspace_files import text_of
from corral.cli.workspace_hands import Found, Hands, ask, every
from corral.cli.workspace_words import about, listed, told
from corral.domain.workspace import RunStatus
from corral.errors import EntryNotFound, InvalidRequest, PipelineInvalid

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

_KIND = "pipelines"
_STATUSES = tuple(status.value for status in RunStatus)

OfProject = Annotated[
    str | None,
    typer.Option(
        "--project", metavar="NAME", autocompletion=names.completion(names.projects), help="Only of this project."
    ),
]


@app.callback()
@group
def pipeline(context: typer.Context) -> None:
    """Run steps of several models, from a request to artifacts.

    For example: corral pipeline
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}), query())


@app.command("list", add_help_option=False)
@command
def list_pipelines(given: Invocation, project: OfProject = None, removed: Removed = False, limit: Limit = 50) -> None:
    """Show the pipelines that are saved.

    For example: corral pipeline list --project shop
    """
    _list(given, query(removed=removed, limit=limit, project=project))


@app.command(add_help_option=False)
@command
def show(
    given: Invocation,
    what: Annotated[
        str,
        typer.Argument(
            metavar="PIPELINE|RUN",
            help="A pipeline by name or id, or a run by its id.",
            autocompletion=names.completion(names.pipelines_and_runs),
        ),
    ],
    step: Annotated[str | None, typer.Option(metavar="STEP", help="Of a run: all that is known of this step.")] = None,
) -> None:
    """Show a pipeline's source, or a run with its steps.

    For example: corral pipeline show page; corral pipeline show run-1a2b3c4d5e6f --step code
    """
    if what.startswith("run-"):
        _show_run(given, what, step)
        return
    if step is not None:
        raise InvalidRequest("--step is for runs.", f"See them: corral pipeline runs --pipeline {what}")
    entry = ask(given, lambda hands: hands.get(_KIND, what))
    output = given.output

    def say() -> None:
        pairs = [("pipeline", entry["name"]), *about(entry, "description"), ("of", entry["project"] or "all projects")]
        output.fields(pairs)
        output.say()
        output.say(entry["source"].rstrip())

    output.result(entry, say, [entry["source"].rstrip()])


@app.command(add_help_option=False)
@command
def validate(
    given: Invocation,
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|PIPELINE",
            help="A pipeline's file (-: standard input), or one that is saved.",
            autocompletion=names.completion(names.pipelines),
        ),
    ],
) -> None:
    """Say whether a pipeline can run, and all that is wrong with it.

    The exit code is 1 when it cannot. For example: corral pipeline validate page.yaml
    """

    async def look(hands: Hands) -> Found:
        source = text_of(what) if is_file(what) else (await hands.get(_KIND, what))["source"]
        return await hands.validate(source)

    found = ask(given, look)
    output = given.output

    def say() -> None:
        for issue in found["issues"]:
            output.say(f"{what}:{issue['line']}:{issue['column']}: {issue['message']}")
            if issue.get("hint"):
                output.say(f"    {issue['hint']}", "dim")
        if found["valid"]:
            output.say(f"{found['name']} can run: {', '.join(found['steps'])}.")

    places = [f"{what}:{issue['line']}:{issue['column']}: {issue['message']}" for issue in found["issues"]]
    output.result(found, say, places)
    if not found["valid"]:
        raise typer.Exit(FAILED)


@app.command(add_help_option=False)
@command
def save(
    given: Invocation,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A pipeline's file (-: standard input).")],
    project: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", autocompletion=names.completion(names.projects), help="For this project, not for all."
        ),
    ] = None,
) -> None:
    """Save a pipeline under its name, in place of the one it had.

    Runs that there are keep the source that they began with. For example: corral pipeline save page.yaml
    """
    source = text_of(file)

    async def keep(hands: Hands) -> tuple[Found, str]:
        checked = await hands.validate(source)
        if not checked["valid"]:
            raise _invalid(file, checked)
        of = None if project is None else (await hands.get("projects", project))["id"]
        before = await _saved(hands, str(checked["name"]), of)
        changes = {"source": source, "description": description_of(source)}
        if before is None:
            return await hands.create(_KIND, {"source": source, "name": checked["name"], "project": of}), "saved"
        return await hands.change(_KIND, before["id"], changes), "changed"

    entry, what = ask(given, keep)
    told(given.output, _KIND, entry, what)
    given.output.note(f"Run it: corral pipeline run {entry['name']}")


@app.command("rm", add_help_option=False)
@command
def remove(given: Invocation, pipeline: names.Pipeline, yes: Yes = False, purge: Purge = False) -> None:
    """Remove a saved pipeline; its runs stay.

    It can be had back for a time. For example: corral pipeline rm page --yes
    """
    dropped(given, _KIND, [pipeline], yes=yes, purge=purge)


@app.command(add_help_option=False)
@command
def restore(given: Invocation, pipeline: names.Pipeline) -> None:
    """Have back a pipeline that was removed.

    For example: corral pipeline restore page
    """
    done(given, _KIND, "restore", [pipeline])


@app.command(add_help_option=False)
@command
def runs(
    given: Invocation,
    project: OfProject = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            metavar="PIPELINE", autocompletion=names.completion(names.pipelines), help="Only of this pipeline."
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS",
            autocompletion=names.chosen(*_STATUSES),
            help="Only those that are queued, running, paused, completed, failed or cancelled.",
        ),
    ] = None,
    limit: Limit = 50,
) -> None:
    """Show runs, those that changed last first.

    For example: corral pipeline runs --project shop --status failed
    """
    if status is not None and status not in _STATUSES:
        raise InvalidRequest(f"No run is {status[:40]!r}.", f"It is one of: {', '.join(_STATUSES)}.")

    async def look(hands: Hands) -> Found:
        of = None if pipeline is None else (await hands.get(_KIND, pipeline))["id"]
        return await hands.page("runs", query(limit=limit, project=project, pipeline=of, status=status))

    listed(given.output, "runs", ask(given, look), "Nothing was run. Begin: corral pipeline run PIPELINE")


pipelines_runs.added(app)


def _list(given: Invocation, asked: dict[str, Any]) -> None:
    async def look(hands: Hands) -> Found:
        page = await hands.page(_KIND, asked)
        names = {
            one: (await hands.get("projects", one))["name"]
            for one in {item["project"] for item in page["items"]}
            if one
        }
        return {**page, "called": names}

    page = ask(given, look)
    listed(given.output, _KIND, page, "No pipeline is saved. Save one: corral pipeline save FILE")


async def _saved(hands: Hands, name: str, project: str | None) -> Found | None:
    """The pipeline of that name, of a project or of all."""
    asked: dict[str, Any] = {"name": name, "limit": 200} | ({} if project is None else {"project": project})
    items = (await hands.page(_KIND, asked))["items"]
    return next((item for item in items if item["project"] == project), None)


def _invalid(file: str, checked: Found) -> PipelineInvalid:
    said = [f"{file}:{issue['line']}:{issue['column']}: {issue['message']}" for issue in checked["issues"]]
    return PipelineInvalid(" ".join(said) or f"{file} cannot run.", f"See all of it: corral pipeline validate {file}")


def _show_run(given: Invocation, what: str, step: str | None) -> None:
    async def look(hands: Hands) -> tuple[Found, list[Found], list[Found]]:
        run = await found_run(hands, what)
        return run, await hands.steps(run["id"]), await every(hands, "artifacts", {"run": run["id"]})

    run, steps, artifacts = ask(given, look)
    if step is None:
        outcome(given, run, steps, artifacts)
        for key, why in (run.get("reproducible") or {}).items():
            given.output.note(f"A rerun of {key} may differ: {why}")
        if run.get("error"):
            said = f"error: {run['error'].get('message', '')} {run['error'].get('hint') or ''}".rstrip()
            given.output.say(said, "red")
        return
    chosen = [one for one in steps if step in (one["key"], one["name"])]
    if not chosen:
        known = ", ".join(one["key"] for one in steps)
        raise EntryNotFound(f"Run {run['id']} has no step {step[:60]!r}.", f"It has: {known}.")
    for one in chosen:
        given.output.result(one, lambda one=one: step_shown(given, one), [one["output"] or ""])  # type: ignore[misc]  # its own


def step_shown(given: Invocation, step: Found) -> None:
    """All that is known of a step, for a person."""
    from corral.cli.output import time_text
    from corral.cli.pipelines_tree import money, rested, tokens, worked
    from corral.cli.workspace_words import moment, status

    output = given.output
    pairs: list[tuple[str, object]] = [("step", step["key"]), ("status", status(step))]
    pairs += [(name, step[name]) for name in ("model", "reason", "request_id") if step.get(name)]
    if step["started_at"]:
        pairs += [("begun", moment(step["started_at"])), ("tokens", tokens(step)), ("cost", money(step))]
    if step["started_at"] and step["ended_at"]:
        pieces = (time_text(worked(step, step["ended_at"])), rested(step, step["ended_at"]))
        pairs += [("time", ", ".join(piece for piece in pieces if piece))]
    pairs += [("tries before", len(step["tries"]))] if step.get("tries") else []
    pairs += [("error", step["error"].get("message", ""))] if step.get("error") else []
    output.fields(pairs)
    for message in (step.get("request") or {}).get("messages", ()):
        output.say()
        output.say(f"{message.get('role')}:", "bold")
        output.say(str(message.get("content", "")).rstrip())
    given_up = () if step["output"] else step.get("tries") or ()
    for attempt in given_up:
        if attempt.get("text"):
            output.say()
            output.say(f"answer of try {attempt['attempt']}, which was not taken:", "bold")
            output.say(attempt["text"].rstrip())
    if step["output"]:
        output.say()
        output.say("answer:", "bold")
        output.say(step["output"].rstrip())
