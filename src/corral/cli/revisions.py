"""The revisions of a model: `update`, `rollback`, `history`, `pin` and `verify`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.models import described
from corral.cli.names import MaybeModel, Model, Some
from corral.cli.output import Mode, Painted, line, size_text
from corral.cli.server import Server
from corral.cli.table import Column
from corral.cli.work import Task, carry_out, done, order
from corral.domain.models import Installed
from corral.errors import CorralError, InvalidRequest, ModelPinned

if TYPE_CHECKING:
    from corral.app import Corral

_AT_ONCE = 8
"""Models whose sources are asked at the same time."""
_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}

Revision = Annotated[
    str | None, typer.Argument(metavar="REVISION", help="The first digits of one: see corral history MODEL.")
]


@command
def update(
    invocation: Invocation,
    model: Some = None,
    check: Annotated[bool, flag("--check", help="Only show what would change; nothing is fetched.")] = False,
    everything: Annotated[bool, flag("--all", help="Every installed model.")] = False,
) -> None:
    """Bring models to what their sources have now.

    The files that change are shown first. Pinned models are left as they are. For example: corral update --check
    """
    if not model and not everything and not check:
        raise InvalidRequest("Which model shall be updated?", "Name it, or take them all: corral update --all")
    if invocation.url:
        _update_there(invocation, list(model or ()), check=check)
        return
    corral = invocation.corral()
    output = invocation.output
    free = _free(invocation, corral, model or (), check=check)
    with output.busy(f"Asking the sources of {len(free)} models …" if len(free) > 1 else "Asking the source …"):
        answers = asyncio.run(_changes(corral, free))
    failed = [answer for answer in answers if isinstance(answer, CorralError)]
    changes = [answer for answer in answers if not isinstance(answer, CorralError)]
    for change in changes:
        _tell_change(invocation, change, checked=check)
    tasks = [
        Task(order(corral, "update", change["name"]), change["name"], f"corral update {change['name']}")
        for change in changes
        if change["changed"] and not check
    ]
    if tasks:
        carry_out(invocation, tasks)
        failed += _tell_updates(invocation, tasks)
    for error in failed[:-1]:
        output.fail(error)
    if failed:
        raise failed[-1]


def _free(invocation: Invocation, corral: "Corral", names: Sequence[str], *, check: bool) -> list[Installed]:
    """The models that can be updated, of `names` or of all; what is left as it is has been said.

    Raises:
        ModelNotFound: there is no such model.
        ModelPinned: all of `names` are pinned; nothing more has been said.
    """
    chosen = [corral.registry.get(name) for name in dict.fromkeys(names)]
    chosen = chosen or [installed for installed in corral.registry.all() if installed.folder is None]
    free = [installed for installed in chosen if check or not installed.pinned]
    held = [installed.name for installed in chosen if installed.pinned and not check]
    if names and not free:
        said = f"{', '.join(held)} {'is' if len(held) == 1 else 'are'} pinned, and not updated."
        raise ModelPinned(said, "Let go: " + "; ".join(f"corral pin {name} --off" for name in held))
    for name in held:
        invocation.output.warn(f"{name} is pinned, and stays as it is. Let it go: corral pin {name} --off")
    if not chosen:
        invocation.output.say("No model is installed that could be updated.")
    return free


async def _changes(corral: "Corral", models: Sequence[Installed]) -> list[dict[str, Any] | CorralError]:
    """What an update of each would change, or why that cannot be told."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(installed: Installed) -> dict[str, Any] | CorralError:
        async with gate:
            try:
                change = await corral.registry.check(installed.name)
            except CorralError as error:
                return type(error)(f"{installed.name}: {error.message}", error.hint)
        return {
            "event": "change",
            "name": change.name,
            "changed": change.changed,
            "pinned": installed.pinned,
            "revision": change.current.id,
            "version": change.current.version,
            "version_found": change.version,
            "download": change.download,
            "files": [asdict(file) for file in change.files],
        }

    try:
        return await asyncio.gather(*(ask(installed) for installed in models))
    finally:
        await corral.close()


def _tell_change(invocation: Invocation, change: Mapping[str, Any], *, checked: bool) -> None:
    output = invocation.output
    name, held = change["name"], " (pinned)" if change["pinned"] else ""

    def show() -> None:
        if not change["changed"]:
            output.say(f"{name}{held} is up to date.")
            return
        to = f" to {_short(change['version_found'])}" if change["version_found"] else ""
        fetch = "an unknown amount" if change["download"] is None else size_text(change["download"])
        output.say(f"{name}{held} changes{to}: {fetch} to fetch.", "bold")
        for file in change["files"]:
            if file["kind"] in _SIGNS:
                sign, style = _SIGNS[file["kind"]]
                output.say(f"  {sign} {line(file['name'])} ({_sizes(file)})", style)

    if checked or output.mode is Mode.HUMAN:
        output.result(change, show, [name] if change["changed"] else [])


def _short(version: str) -> str:
    """A version, of which a long digest is cut to its beginning."""
    return version[:12] if len(version) >= 32 and version.isalnum() else line(version)


def _sizes(file: Mapping[str, Any]) -> str:
    sizes = [size_text(size) for size in (file["size_before"], file["size_after"]) if size is not None]
    return " → ".join(dict.fromkeys(sizes)) or "size unknown"


def _tell_updates(invocation: Invocation, tasks: Sequence[Task]) -> list[CorralError]:
    output = invocation.output
    failed = []
    for task in tasks:
        if task.error is not None:
            failed.append(task.error)
            continue
        facts = dict((task.operation.result if task.operation else None) or {"name": task.called})
        before, after = str(facts.get("before") or "")[:12], str(facts.get("revision") or "")[:12]

        def show(name: str = task.called, before: str = before, after: str = after) -> None:
            output.say(f"{name} is updated: revision {before} → {after}.")
            output.note(f"Undo it: corral rollback {name}")

        output.result({"event": "updated", **facts}, show, [task.called])
    return failed


def _update_there(invocation: Invocation, names: list[str], *, check: bool) -> None:
    """Have another machine's server update its models."""
    if not names:
        raise InvalidRequest("Which of that machine's models shall be updated?", "Name them: corral update MODEL")
    if check:
        for name in names:
            found = invocation.ask(_asking(name))
            known = {key: found.get(key) for key in ("changed", "download", "files")}
            versions = {"revision": found.get("current"), "version": found.get("current_version")}
            more = {"event": "change", "name": name, "pinned": False, "version_found": found.get("version")}
            _tell_change(invocation, {**more, **versions, **known}, checked=True)
        return
    tasks = [Task(order(None, "update", name), name, f"corral update {name}") for name in names]
    carry_out(invocation, tasks)
    failed = _tell_updates(invocation, tasks)
    for error in failed[:-1]:
        invocation.output.fail(error)
    if failed:
        raise failed[-1]


def _asking(name: str) -> Callable[[Server], Awaitable[dict[str, Any]]]:
    return lambda server: server.change_of(name)


@command
def rollback(invocation: Invocation, model: Model, revision: Revision = None) -> None:
    """Let a model stand for an earlier revision again, at once.

    Without REVISION it is the one before. For example: corral rollback smollm2
    """
    if invocation.running() is not None:
        facts = invocation.ask(lambda server: server.rollback(model, revision))
    else:
        facts = _here(invocation, lambda corral: corral.catalog.rollback(model, revision))
    output = invocation.output

    def show() -> None:
        output.say(f"{facts['name']} is at revision {str(facts['revision'])[:12]}.")
        output.note(f"See all: corral history {facts['name']}")

    output.result(facts, show, [facts["revision"]])


@command
def pin(
    invocation: Invocation,
    model: Model,
    revision: Revision = None,
    off: Annotated[bool, flag("--off", help="Let it be updated and removed again.")] = False,
) -> None:
    """Hold a model at a revision: it is neither updated nor removed.

    For example: corral pin smollm2, and to let go again: corral pin smollm2 --off
    """
    if off and revision is not None:
        raise InvalidRequest("--off takes no revision.", f"corral pin {model} --off")
    if invocation.running() is not None:
        facts = invocation.ask(lambda server: server.pin(model, revision, off=off))
    elif off:
        facts = _here(invocation, lambda corral: corral.catalog.unpin(model))
    else:
        facts = _here(invocation, lambda corral: corral.catalog.pin(model, revision))
    output = invocation.output
    held = f"{facts['name']} is pinned at revision {str(facts['revision'])[:12]}."
    loose = f"{facts['name']} is no longer pinned."
    output.result(facts, lambda: output.say(loose if off else held), [facts["name"]])


def _here(invocation: Invocation, change: Any) -> dict[str, Any]:
    async def act() -> dict[str, Any]:
        corral = invocation.corral()
        try:
            return described(await change(corral))
        finally:
            await corral.close()

    return asyncio.run(act())


@command
def history(invocation: Invocation, model: Model) -> None:
    """Show the revisions that a model has had, newest first.

    For example: corral history smollm2
    """
    if invocation.url:
        rows = invocation.ask(lambda server: server.revisions(model))
        name = model
    else:
        from corral.app.described import past_row

        registry = invocation.corral().registry
        name = registry.get(model).name
        rows = [past_row(past) for past in registry.history(name)]
    output = invocation.output

    def show() -> None:
        columns = [
            Column(""),
            Column("REVISION"),
            Column("INSTALLED"),
            Column("SIZE", right=True),
            Column("VERSION", soft=True),
            Column("SOURCE", soft=True),
        ]
        output.table(columns, [_past_cells(row) for row in rows])
        if len(rows) > 1:
            output.note(f"Go to one: corral rollback {name} REVISION")

    output.result({"name": name, "revisions": rows, "count": len(rows)}, show, [row["revision"] for row in rows])


def _past_cells(row: Mapping[str, Any]) -> list[object]:
    moment = row.get("installed_at")
    return [
        "*" if row.get("current") else "",
        str(row["revision"])[:12],
        time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) if moment else "-",
        size_text(row.get("size")),
        row.get("version") or "-",
        (row.get("source") or "-") if row.get("here", True) else Painted("its files are gone", "yellow"),
    ]


@command
def verify(invocation: Invocation, model: MaybeModel = None) -> None:
    """Read every byte of a model, or of all, and compare with its digests.

    For example: corral verify
    """
    corral = None if invocation.url else invocation.corral()
    name = corral.registry.get(model).name if model and corral else model or ""
    again = f"corral verify {name}".rstrip()
    operation = done(invocation, order(corral, "verify", name), name or "all models", again)
    output = invocation.output
    facts = dict(operation.result or {})
    count = facts.get("verified")

    def show() -> None:
        if name:
            output.say(f"{name} is sound: {size_text(facts.get('size'))}, revision {str(facts.get('revision'))[:12]}.")
        else:
            all_sound = "The only revision is sound." if count == 1 else f"All {count} revisions are sound."
            output.say(all_sound if count else "Nothing is installed.")

    output.result({"ok": True, **facts}, show, [name] if name else [])
