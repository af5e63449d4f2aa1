"""`corral pipeline run`, `watch`, `pause`, `resume`, `cancel`, `rerun`, `compare`: runs, and a tree of their steps.

Without a server this process does the work, and stops with it; what has been answered stays answered.
"""

import asyncio
import re
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from corral.cli import names
from corral.cli.invocation import Invocation, command, flag
from corral.cli.output import Mode
from corral.cli.pipelines_comparison import shown as side_by_side
from corral.cli.pipelines_inputs import check_given, inputs, is_file, kinds_of, models
from corral.cli.pipelines_live import Screen, follow, shown
from corral.cli.pipelines_tree import View, lines, money
from corral.cli.workspace_files import text_of
from corral.cli.workspace_hands import Found, Hands, ask, every, hands
from corral.cli.workspace_words import told
from corral.domain.workspace import RunStatus, StepStatus
from corral.errors import Conflict, CorralError, EntryNotFound, InvalidRequest, ServerNotRunning

_WHOLE = re.compile(r"run-[0-9a-f]{12}")
_LOOKED_AT = 200

Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=VALUE", help="An input; @FILE is what is in the file. Repeatable."),
]
InputFiles = Annotated[
    list[str] | None,
    typer.Option("--inputs", metavar="FILE", help="Inputs of a YAML or JSON file (-: standard input). Repeatable."),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="STEP=MODEL", help="Ask this model in that step; MODEL alone in all. Repeatable."),
]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, max=2**32 - 1, help="What chance begins with.")]
RunTitle = Annotated[str, typer.Option("--title", metavar="TEXT", help="What people call it.")]
Detach = Annotated[bool, flag("--detach", "-d", help="Only queue it on the server, and say its run.")]


@command
def run(  # noqa: PLR0913, PLR0917  # the options are the signature
    given: Invocation,
    what: Annotated[
        str,
        typer.Argument(
            metavar="PIPELINE|FILE",
            help="A saved pipeline, or the file of one (-: standard input).",
            autocompletion=names.completion(names.pipelines),
        ),
    ],
    words: Inputs = None,
    files: InputFiles = None,
    asked: Models = None,
    project: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=names.completion(names.projects),
            help="In this project; it gives the material.",
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="The most it may cost, in US dollars.")
    ] = None,
    seed: Seed = None,
    title: RunTitle = "",
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag of the run. Repeatable.")
    ] = None,
    detach: Detach = False,
) -> None:
    """Run a pipeline, and show how its steps go.

    Without --project it is the pipeline's own, or the only one. Ctrl-C pauses it; what has been answered stays. For
    example: corral pipeline run page --input topic=bees; corral pipeline run page.yaml --model code=gemma3:270m
    """
    source = text_of(what) if is_file(what) else None
    _for_server(given, detach)

    async def begin(workers: Hands) -> Found:
        entry = None if source is not None else await _saved(workers, what, project)
        text = str(entry["source"]) if entry is not None else source or ""
        wish: dict[str, Any] = {"source": source} if entry is None else {"pipeline": entry["id"]}
        wish |= {"inputs": inputs(words or (), files or (), kinds_of(text)), "models": models(asked or ())}
        check_given(text, wish["inputs"])
        wish |= {"budget_usd": budget, "seed": seed, "title": title or None, "tags": tags}
        wish["project"] = await _project(given, workers, project, entry)
        return await workers.start({key: value for key, value in wish.items() if value not in (None, [], {})})

    followed(given, begin, detach=detach)


@command
def watch(given: Invocation, run: names.Run) -> None:
    """Show how a run goes, until it ends.

    Ctrl-C only stops looking. For example: corral pipeline watch run-1a2b3c4d5e6f
    """

    async def look(workers: Hands, screen: Screen) -> None:
        found = await found_run(workers, run)
        await follow(workers.watch(found["id"]), screen)

    view = View()
    _talked(given, view, look)
    _concluded(given, view)


@command
def pause(given: Invocation, run: names.Run) -> None:
    """Let a run rest; what has been answered stays.

    For example: corral pipeline pause run-1a2b3c4d5e6f
    """
    found = _steered(given, run, "pause")
    given.output.note(f"Go on: corral pipeline resume {found['id']}")


@command
def cancel(given: Invocation, run: names.Run) -> None:
    """Call a run off; what it made stays.

    For example: corral pipeline cancel run-1a2b3c4d5e6f
    """
    _steered(given, run, "cancel")


@command
def resume(given: Invocation, run: names.Run, detach: Detach = False) -> None:
    """Go on with a run that was paused or failed, where it stopped.

    For example: corral pipeline resume run-1a2b3c4d5e6f
    """
    _for_server(given, detach)

    async def begin(workers: Hands) -> Found:
        found = await found_run(workers, run)
        if found["status"] in (RunStatus.QUEUED, RunStatus.RUNNING):
            return found  # somebody else's, or one that a killed process left
        return await workers.steer(found["id"], "resume")

    followed(given, begin, detach=detach)


@command
def rerun(  # noqa: PLR0913, PLR0917  # the options are the signature
    given: Invocation,
    run: names.Run,
    asked: Models = None,
    words: Inputs = None,
    files: InputFiles = None,
    seed: Seed = None,
    title: RunTitle = "",
    detach: Detach = False,
) -> None:
    """Run the same again, with other models, inputs or seed.

    Pipeline and material are as they were. For example: corral pipeline rerun run-1a2b3c4d5e6f --model gemma3:270m
    """
    _for_server(given, detach)

    async def begin(workers: Hands) -> Found:
        before = await found_run(workers, run)
        wish: dict[str, Any] = {"models": models(asked or ()), "seed": seed, "title": title}
        if words or files:
            wish["inputs"] = before["inputs"] | inputs(words or (), files or (), kinds_of(before["source"]))
        wish = {key: value for key, value in wish.items() if value not in (None, "", {})}
        return await workers.rerun(before["id"], wish)

    view = followed(given, begin, detach=detach)
    if view is not None and view.run.get("rerun_of"):
        given.output.note(f"The difference: corral pipeline compare {view.run['rerun_of']} {view.run['id']}")


@command
def compare(
    given: Invocation,
    run: names.Run,
    other: Annotated[
        str,
        typer.Argument(
            metavar="OTHER", help="The run to compare it with, by its id.", autocompletion=names.completion(names.runs)
        ),
    ],
) -> None:
    """Show two runs side by side: answers, costs, times, artifacts.

    For example: corral pipeline compare run-1a2b3c4d5e6f run-6f5e4d3c2b1a
    """

    async def look(workers: Hands) -> Found:
        one, two = await found_run(workers, run), await found_run(workers, other)
        return await workers.compare(one["id"], two["id"])

    found = ask(given, look)
    given.output.result(found, lambda: side_by_side(given.output, found))


def added(app: typer.Typer) -> None:
    """Put these commands into the group."""
    for function in (run, watch, pause, resume, cancel, rerun, compare):
        app.command(function.__name__, add_help_option=False)(function)


async def found_run(workers: Hands, start: str) -> Found:
    """The run with that id, or whose id begins so.

    Raises:
        EntryNotFound: none does, or several.
    """
    if _WHOLE.fullmatch(start) or not start.startswith("run-"):
        return await workers.get("runs", start)
    found = (await workers.page("runs", {"limit": _LOOKED_AT, "archived": None}))["items"]
    fitting = [entry["id"] for entry in found if entry["id"].startswith(start)]
    if len(fitting) != 1:
        many = f"{len(fitting)} runs begin" if fitting else "No run of late begins"
        raise EntryNotFound(f"{many} with {start[:40]!r}.", "See them: corral pipeline runs")
    return await workers.get("runs", fitting[0])


def outcome(given: Invocation, run: Found, steps: list[Found], artifacts: list[Found]) -> None:
    """Say what a run has come to: its tree, what it made, and what went wrong."""
    view = View()
    at = max(run["updated_at"], time.time()) if run.get("paused_at") else run["updated_at"]
    view.hear({"type": "snapshot", "at": at, "run": run, "steps": steps, "artifacts": artifacts})
    output = given.output

    def say() -> None:
        width = output.width(output.stdout)
        output.drawn(lines(view, view.at, width, lambda text, style: output.paint(text, style, output.stdout)))
        if artifacts:
            output.note(f"What it made: corral artifacts list --run {run['id']}")

    output.result({"run": run, "steps": steps, "artifacts": artifacts}, say, [run["id"]])


def _for_server(given: Invocation, detach: bool) -> None:
    if detach and given.running() is None:
        raise ServerNotRunning("--detach needs a server that does it.", "Start one in another terminal: corral serve")


async def _saved(workers: Hands, what: str, project: str | None) -> Found:
    """The pipeline with that id or name; of two with a name the project's own."""
    if project is not None:
        own = (await workers.page("pipelines", {"name": what, "project": project, "limit": 2}))["items"]
        if own:
            return dict(own[0])
    return await workers.get("pipelines", what)


async def _project(given: Invocation, workers: Hands, named: str | None, pipeline: Found | None) -> str:
    """The project of a run: the one that is named, the pipeline's own, or the only one there is.

    Raises:
        InvalidRequest: there are several, or none.
    """
    if named is not None:
        return str((await workers.get("projects", named))["id"])
    if pipeline is not None and pipeline["project"]:
        return str(pipeline["project"])
    found = (await workers.page("projects", {"limit": 4}))["items"]
    if len(found) == 1:
        given.output.note(f"In project {found[0]['name']}, the only one.")
        return str(found[0]["id"])
    if not found:
        raise InvalidRequest("A run is in a project, and there is none.", "Make one: corral projects create NAME")
    some = ", ".join(entry["name"] for entry in found[:3])
    raise InvalidRequest("A run is in a project, and there are several.", f"Name one: --project {some}, …")


def followed(given: Invocation, begin: Callable[[Hands], Awaitable[Found]], *, detach: bool) -> View | None:
    """Begin a run and see it through; what was seen, or None when it is only queued.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run rests, and it has been said how to go on.
    """
    output, view = given.output, View()
    if detach:
        queued = ask(given, begin)
        output.result(queued, lambda: output.say(f"{queued['name']} is queued as {queued['id']}."), [queued["id"]])
        output.note(f"See how it goes: corral pipeline watch {queued['id']}")
        return None

    async def through(workers: Hands, screen: Screen) -> None:
        entry = await begin(workers)
        view.run = dict(entry)
        await _through(workers, entry["id"], screen)

    try:
        _talked(given, view, through)
    except KeyboardInterrupt:
        _how_to_go_on(given, view)
        raise
    _concluded(given, view)
    return view


async def _through(workers: Hands, run: str, screen: Screen) -> None:
    """Do the run, where that is for this process, and show it; whoever is interrupted lets it rest."""
    tasks = [
        asyncio.ensure_future(workers.perform(run)),
        asyncio.ensure_future(follow(workers.watch(run), screen)),
    ]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in ended:
            task.result()
    except asyncio.CancelledError:
        with suppress(CorralError):
            await workers.steer(run, "pause")
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _talked(given: Invocation, view: View, talk: Callable[[Hands, Screen], Awaitable[None]]) -> None:
    """Show a run while `talk` goes on; afterwards `view` has all of it."""

    async def all_of_it(screen: Screen) -> None:
        workers = hands(given)
        try:
            await talk(workers, screen)
            run = await workers.get("runs", view.run["id"])
            steps = await workers.steps(run["id"])
            artifacts = await every(workers, "artifacts", {"run": run["id"]})
            view.hear({"type": "snapshot", "at": run["updated_at"], "run": run, "steps": steps, "artifacts": artifacts})
        finally:
            await workers.close()

    with shown(given.output, view) as screen:
        asyncio.run(all_of_it(screen))


def _concluded(given: Invocation, view: View) -> None:
    """Say what became of the run.

    Raises:
        CorralError: it was not completed.
    """
    run, steps, artifacts = view.run, list(view.steps.values()), list(view.artifacts.values())
    if given.output.mode is Mode.JSON:
        given.output.emit({"type": "result", "run": run, "steps": steps, "artifacts": artifacts})
    else:
        outcome(given, run, steps, artifacts)
    failure = _failure(run, steps)
    if failure is not None:
        raise failure


def _failure(run: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> CorralError | None:
    """Why a run did not come to its end; None when it did."""
    again = f"Go on: corral pipeline resume {run['id']}"
    said = dict(run.get("error") or {})
    if run["status"] == RunStatus.FAILED or (run["status"] == RunStatus.PAUSED and said):
        from corral.cli.server import error_of

        hint = said.get("hint") or ""
        key = next((step["key"] for step in steps if step["status"] == StepStatus.FAILED), None)
        seen = "" if key is None else f"Its step: corral pipeline show {run['id']} --step {shlex.quote(key)}"
        ways = (hint, again) if run["status"] == RunStatus.PAUSED else (hint or again, seen)
        return error_of({**said, "hint": " ".join(way for way in ways if way)})
    if run["status"] == RunStatus.CANCELLED:
        return Conflict(f"Run {run['id']} was cancelled.", f"Run the same again: corral pipeline rerun {run['id']}")
    if run["status"] in (RunStatus.PAUSED, RunStatus.QUEUED, RunStatus.RUNNING):
        word = "paused" if run["status"] == RunStatus.PAUSED else "left"
        return Conflict(f"Run {run['id']} was {word}.", again)
    return None


def _how_to_go_on(given: Invocation, view: View) -> None:
    if not view.run or RunStatus(view.status).ended:
        return
    kept = f"; what cost {money(view.run)} is kept" if view.run.get("cost_usd") else ""
    run = view.run["id"]
    given.output.note(f"{run}: paused{kept}. To go on: corral pipeline resume {run}")
    given.output.note(f"To call it off: corral pipeline cancel {run}")


def _steered(given: Invocation, run: str, verb: str) -> Found:
    async def steer(workers: Hands) -> Found:
        return await workers.steer((await found_run(workers, run))["id"], verb)

    found = ask(given, steer)
    done = {"pause": "paused", "cancel": "cancelled"}[verb]
    told(given.output, "runs", found, done if str(found["status"]) == done else f"being {done}")
    return found
