"""`corral containers`: model servers in containers, brought to what the configuration says and kept there.

    [list|ps], status|show, plan, up, down      here
    start, stop, restart, rm, sync              here
    logs, stats                                 containers_live.py
    models [list|pull|rm|test]                  containers_models.py
    health, history, update, rollback           containers_upkeep.py
    adopt, import, export                       containers_files.py

The server that runs is asked; without one, this process asks the Docker engine itself.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import typer

from corral.cli import containers_files, containers_live, containers_models, containers_upkeep
from corral.cli.containers_hands import Found, Hands, ask
from corral.cli.containers_words import IN_TROUBLE, STEPS, sentence, spelled, state_text, telling, trouble
from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.names import Container, Containers, chosen
from corral.cli.output import FAILED, Painted, size_text, time_text
from corral.cli.table import Column
from corral.errors import CorralError, InvalidRequest

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

_ORPHANS = ("report", "remove", "adopt")

NoWait = Annotated[bool, flag("--no-wait", help="Do not wait until it is healthy.")]
Orphans = Annotated[
    str | None,
    typer.Option(
        "--orphans",
        metavar="WHAT",
        autocompletion=chosen(*_ORPHANS),
        help="What becomes of those no longer configured: report, remove or adopt.",
    ),
]

_NOTHING = "No container is configured; describe one in corral.yaml, under `containers`."


@app.callback()
@group
def containers(context: typer.Context) -> None:
    """Show and control model servers in containers.

    For example: corral containers
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}))


@app.command("list", add_help_option=False)
@command
def list_containers(given: Invocation) -> None:
    """Show every container and how it stands.

    Also those that are no longer configured. For example: corral containers list --json
    """
    _list(given)


@app.command("ps", add_help_option=False, hidden=True)
@command
def ps(given: Invocation) -> None:
    """Show every container and how it stands.

    For example: corral containers ps
    """
    _list(given)


@app.command(add_help_option=False)
@command
def status(given: Invocation, names: Containers = None) -> None:
    """Show how containers stand.

    With names, all that is known of each. The exit code is 0 when all that shall run are healthy. For example:
    corral containers status coder
    """
    if not names:
        found = _list(given)
    else:
        wanted = list(dict.fromkeys(names))
        found = ask(given, lambda hands: _each(hands, wanted))
        for one in found:
            given.output.result(one, lambda one=one: _show(given, one), [one["state"]])  # type: ignore[misc]  # its own
    if any(trouble(one) for one in found):
        raise typer.Exit(FAILED)


@app.command("show", add_help_option=False, hidden=True)
@command
def show(given: Invocation, names: Containers = None) -> None:
    """Show how containers stand.

    For example: corral containers show coder
    """
    status.__wrapped__(given, names)  # type: ignore[attr-defined]  # `command` wraps it


@app.command(add_help_option=False)
@command
def plan(given: Invocation, names: Containers = None, orphans: Orphans = None) -> None:
    """Show what `up` would do, and why; nothing is done.

    For example: corral containers plan --orphans remove
    """
    _plan(given, names or [], orphans)


@app.command(add_help_option=False)
@command
def up(
    given: Invocation,
    names: Containers = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Only show what would be done.")] = False,
    recreate: Annotated[bool, flag("--recreate", help="Make them anew, also where nothing differs.")] = False,
    orphans: Orphans = None,
    no_wait: Annotated[bool, flag("--no-wait", help="Do not wait until they are healthy.")] = False,
    no_pull: Annotated[
        bool, flag("--no-pull", help="Leave images and models alone: fetch none that are not here.")
    ] = False,
) -> None:
    """Bring containers up as the configuration says.

    It waits until they are healthy. What is as it should be is left alone. For example:
    corral containers up coder writer
    """
    if dry_run:
        _plan(given, names or [], orphans, recreate=recreate)
        return
    wish = {"names": names or [], "orphans": _chosen(orphans), "recreate": recreate}
    wish |= {"wait": not no_wait, "pull": not no_pull}
    found = ask(given, lambda hands: _watched(given, hands, hands.up(wish), names or []))
    _told(given, found, "There is nothing to bring up.")
    if given.output.human and found and given.running() is None:
        given.output.note("Nobody starts them again when they end, until a server runs: corral serve")
    if any(trouble(one, waited=not no_wait) for one in found):
        raise typer.Exit(FAILED)


@app.command(add_help_option=False)
@command
def down(
    given: Invocation,
    names: Containers = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Stop and remove containers; their volumes stay.

    So do the models in the volumes. For example: corral containers down writer
    """
    if dry_run:
        _plan(given, names or [], None, down=True)
        return
    found = ask(given, lambda hands: _watched(given, hands, hands.down(names or []), names or []))
    _told(given, found, "There is nothing to take down.")


@app.command(add_help_option=False)
@command
def start(given: Invocation, name: Container, no_wait: NoWait = False) -> None:
    """Start a container, and wait until it is healthy.

    It is made first where it is not there. For example: corral containers start coder
    """
    _do(given, "start", name, wait=not no_wait)


@app.command(add_help_option=False)
@command
def stop(given: Invocation, name: Container) -> None:
    """Stop a container; it stays down until somebody starts it.

    For example: corral containers stop coder
    """
    _do(given, "stop", name)


@app.command(add_help_option=False)
@command
def restart(given: Invocation, name: Container, no_wait: NoWait = False) -> None:
    """Stop a container and start it as it is configured now.

    For example: corral containers restart coder
    """
    _do(given, "restart", name, wait=not no_wait)


@app.command("rm", add_help_option=False)
@command
def remove(
    given: Invocation,
    name: Container,
    force: Annotated[bool, flag("--force", help="Also while it runs.")] = False,
) -> None:
    """Remove a container; its volumes stay.

    Also one that is no longer configured. For example: corral containers rm coder --force
    """
    with given.output.busy(f"Removing {name} …"):
        ask(given, lambda hands: hands.remove(name, force=force))
    given.output.result({"removed": name}, lambda: given.output.say(f"{name} is removed; its volumes stay."), [name])


@app.command(add_help_option=False)
@command
def sync(given: Invocation) -> None:
    """Look at the Docker engine, and write down what is there.

    Nothing is changed on it. For example: corral containers sync
    """
    with given.output.busy("Looking …"):
        found = ask(given, lambda hands: hands.sync())
    _tabled(given, found)


app.command("logs", add_help_option=False)(containers_live.logs)
app.command("stats", add_help_option=False)(containers_live.stats)
app.command("health", add_help_option=False)(containers_upkeep.health)
app.command("history", add_help_option=False)(containers_upkeep.history)
app.add_typer(containers_models.app, name="models")
app.command("update", add_help_option=False)(containers_upkeep.update)
app.command("rollback", add_help_option=False)(containers_upkeep.rollback)
app.command("adopt", add_help_option=False)(containers_files.adopt)
app.command("import", add_help_option=False)(containers_files.take_over)
app.command("export", add_help_option=False)(containers_files.export)


def _list(given: Invocation) -> list[Found]:
    found = ask(given, lambda hands: hands.all())
    _tabled(given, found)
    return found


def _tabled(given: Invocation, found: Sequence[Found]) -> None:
    output = given.output

    def rows() -> None:
        if not found:
            output.say(_NOTHING)
            return
        columns = [
            Column("NAME"),
            Column("STATE"),
            Column("PURPOSE", soft=True, spare=2),
            Column("PORT", right=True),
            Column("UP", right=True),
            Column("RESTARTS", right=True, spare=5),
            Column("MODELS", soft=True),
            Column("MEMORY", right=True, spare=4),
            Column("GPUS", spare=3),
            Column("IMAGE", soft=True, spare=6),
        ]
        output.table(columns, [_row(one) for one in found])
        _reasons(given, found)

    data = {"containers": list(found), "count": len(found)}
    output.result(data, rows, [one["name"] for one in found if one["status"] == "active"])


def _row(one: Mapping[str, Any]) -> list[object]:
    models = [model["name"] for model in one["models"]] + [f"{name} (missing)" for name in one["missing"]]
    return [
        one["name"],
        state_text(one["state"]),
        one["purpose"] or "-",
        one["port"] or "-",
        time_text(one["uptime"]),
        one["restarts"],
        ", ".join(models) or "-",
        size_text(one["memory_limit"]),
        ", ".join(one["gpus"]) or "-",
        one["image"] or "-",
    ]


def _reasons(given: Invocation, found: Sequence[Mapping[str, Any]]) -> None:
    """A line for each reason, with whom it is about."""
    about: dict[str, list[str]] = {}
    for one in found:
        reasons = [one["reason"]] if telling(one) else []
        for reason in (*reasons, *(f"differs: {what}" for what in one["drift"])):
            about.setdefault(reason, []).append(one["name"])
    for reason, names in about.items():
        given.output.say(f"{'all' if 1 < len(names) == len(found) else ', '.join(names)}: {reason}", "dim")


def _show(given: Invocation, one: Mapping[str, Any]) -> None:
    models = [model["name"] + (" (loaded)" if model["loaded"] else "") for model in one["models"]]
    limits = [f"{one['cpu_limit']:g} processors" if one["cpu_limit"] else "", size_text(one["memory_limit"])]
    pairs = [
        ("Container", f"{one['name']} ({one['kind']}, {one['container']})"),
        ("For", one["purpose"]),
        ("State", state_text(one["state"])),
        ("Why", one["reason"] if telling(one) else None),
        ("Wanted", None if one["wanted"] else "no: it stays down until it is started"),
        ("Up for", None if one["uptime"] is None else time_text(one["uptime"])),
        ("Restarts", one["restarts"]),
        ("Exit code", one["exit_code"]),
        ("Address", one["url"]),
        ("Models", ", ".join(models)),
        ("Missing", Painted(", ".join(one["missing"]), "red") if one["missing"] else None),
        ("Version", one["version"]),
        ("Image", one["image"]),
        ("Image before", one["previous"]),
        ("Differs", "; ".join(one["drift"])),
        ("At most", ", ".join(text for text in limits if text not in {"", "-"})),
        ("GPUs", ", ".join(one["gpus"])),
        ("Id", (one["id"] or "")[:12]),
    ]
    given.output.fields([(name, value) for name, value in pairs if value not in (None, "")])


async def _each(hands: Hands, names: Sequence[str]) -> list[Found]:
    return [await hands.one(name) for name in names]


def _plan(
    given: Invocation, names: Sequence[str], orphans: str | None, *, down: bool = False, recreate: bool = False
) -> None:
    chosen = _chosen(orphans) or "report"
    steps = ask(given, lambda hands: hands.plan(names, down=down, orphans=chosen))
    if recreate:
        steps = [_anew(step) for step in steps]
    changes = [step for step in steps if step["step"] not in {"keep", "orphan", "blocked"}]
    output = given.output

    def rows() -> None:
        if not steps:
            output.say(_NOTHING)
            return
        columns = [Column("NAME"), Column("STEP"), Column("WHY", soft=True)]
        output.table(columns, [[s["name"], STEPS.painted(s["step"]), s["reason"] or "-"] for s in steps])
        if not changes:
            output.say("All is as it should be." if not IN_TROUBLE & {s["step"] for s in steps} else "")

    data = {"plan": steps, "changes": bool(changes)}
    output.result(data, rows, [f"{step['step']} {step['name']}" for step in changes])


def _anew(step: Found) -> Found:
    if step["step"] not in {"keep", "start"}:
        return step
    return {**step, "step": "recreate", "reason": "it is asked for"}


def _chosen(orphans: str | None) -> str | None:
    if orphans is not None and orphans not in _ORPHANS:
        raise InvalidRequest(f"--orphans is {orphans[:40]!r}.", f"Take one of: {', '.join(_ORPHANS)}.")
    return orphans


async def _watched(given: Invocation, hands: Hands, work: Awaitable[list[Found]], names: Sequence[str]) -> list[Found]:
    """Do `work`, and say of each container as it changes, for a person; `names` are those it is about, none are all."""
    if not given.output.human:
        return await work
    watching = asyncio.ensure_future(_tell(given, hands, names))
    try:
        return await work
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _tell(given: Invocation, hands: Hands, names: Sequence[str]) -> None:
    told: dict[str, str] = {}
    try:
        async with aclosing(hands.changes()) as changes:
            async for one in changes:
                state, name = one["state"], one["name"]
                if (not names or name in names) and told.get(name, "absent") != state:
                    told[name] = state
                    given.output.note(f"{name}: {spelled(state)}")
    except CorralError:
        return  # it is only for show: what went wrong is told by the work itself


def _told(given: Invocation, found: Sequence[Found], nothing: str) -> None:
    """How each stands after all were told to change."""
    output = given.output

    def rows() -> None:
        if not found:
            output.say(nothing)
        for one in found:
            _say(given, one)
            if one["missing"] and one["state"] in {"healthy", "unhealthy"}:
                fetch = " ".join(["corral containers models pull", one["name"], *one["missing"]])
                output.note(f"It lacks {', '.join(one['missing'])}. Fetch it: {fetch}")

    output.result({"containers": list(found), "count": len(found)}, rows, [one["name"] for one in found])


def _say(given: Invocation, one: Mapping[str, Any]) -> None:
    given.output.say(sentence(one), "red" if trouble(one) else "")


def _do(given: Invocation, verb: str, name: str, *, wait: bool | None = None) -> None:
    doing = {"start": "Starting", "stop": "Stopping", "restart": "Restarting"}[verb]
    with given.output.busy(f"{doing} {name} …"):
        found = ask(given, lambda hands: hands.do(verb, name, wait=wait))
    given.output.result(found, lambda: _say(given, found), [found["name"]])
    if verb != "stop" and trouble(found, waited=bool(wait)):
        raise typer.Exit(FAILED)
