"""The store of this machine: `gc`, `df`, `move` and `push`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Model
from corral.cli.output import Painted, size_text
from corral.cli.table import Column
from corral.cli.work import done, order
from corral.domain.models import ModelRef
from corral.errors import InvalidRequest

_BAR = 30
_FULL, _NEARLY = 1.0, 0.9


@command
def gc(
    invocation: Invocation,
    dry_run: Annotated[bool, flag("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Remove old revisions and files that nothing needs.

    The current revision of each model and the newest others (store.keep_revisions) stay. For example:
    corral gc --dry-run
    """
    corral = None if invocation.url else invocation.corral()
    found = dict(done(invocation, order(corral, "gc", dry_run=dry_run), "store", "corral gc").result or {})
    output = invocation.output

    def show() -> None:
        things = [
            _many(found.get("revisions"), "old revision"),
            _many(found.get("blobs"), "file"),
            _many(found.get("parts"), "unfinished download"),
        ]
        what = ", ".join(thing for thing in things if thing)
        would = "would be removed" if dry_run else "removed"
        output.say(
            f"{what} {would}: {size_text(found.get('bytes'))}." if what else "Nothing is there that nobody needs."
        )
        for kept in found.get("kept") or ():
            output.note(f"kept: {kept}")

    output.result({"dry_run": dry_run, **found}, show, [found.get("bytes", 0)])


def _many(count: Any, what: str) -> str:
    number = len(count) if isinstance(count, list) else int(count or 0)
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


@command
def df(invocation: Invocation) -> None:
    """Show what takes room in the store, what is shared, and what is left.

    For example: corral df
    """
    if invocation.url:
        data = invocation.ask(lambda server: server.room())
        data.pop("success", None)
    else:
        data = asdict(invocation.corral().registry.usage())
    output = invocation.output
    models = data["models"]
    data["count"] = len(models)
    output.result(data, lambda: _show(invocation, data, models), [data["total"]])


def _show(invocation: Invocation, data: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> None:
    output = invocation.output
    if models:
        columns = [
            Column("NAME", soft=True),
            Column("SIZE", right=True),
            Column("SHARED", right=True),
            Column("ITS OWN", right=True),
            Column("REVISIONS", right=True),
        ]
        rows = sorted(models, key=lambda row: (-int(row["unique"]), str(row["name"])))
        output.table(columns, [_row(row) for row in rows])
        output.say()
    total, quota, free = int(data["total"]), data["quota"], data["free"]
    if quota:
        part = total / quota
        style = "red" if part >= _FULL else "yellow" if part >= _NEARLY else "green"
        filled = min(round(part * _BAR), _BAR)
        output.piece("█" * filled, style)
        output.piece("░" * (_BAR - filled), "dim")
        output.say(f" {size_text(total)} of {size_text(quota)} ({part:.0%})")
    else:
        output.say(f"{size_text(total)} in all")
    if data["partial"]:
        output.say(f"{size_text(data['partial'])} of it unfinished downloads; what nobody needs goes with: corral gc")
    if free is not None:
        output.say(f"{size_text(free)} free on the disk")


def _row(row: Mapping[str, Any]) -> list[object]:
    shared = size_text(row["shared"]) if row["shared"] else "-"
    return [row["name"], size_text(row["size"]), Painted(shared, "cyan"), size_text(row["unique"]), row["revisions"]]


@command
def move(
    invocation: Invocation,
    model: Model,
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="A folder on another disk.")] = None,
    back: Annotated[bool, flag("--back", help="Bring its files back into the store.")] = False,
) -> None:
    """Move a model's files to another disk, or back; it stays as it is.

    For example: corral move smollm2 /mnt/big
    """
    if (folder is None) != back:
        raise InvalidRequest("Move it where?", f"corral move {model} FOLDER, or back: corral move {model} --back")
    corral = None if invocation.url else invocation.corral()
    name = corral.registry.get(model).name if corral else model
    target = None if folder is None else str(folder.expanduser().absolute())
    again = f"corral move {name} --back" if back else f"corral move {name} {target}"
    facts = dict(done(invocation, order(corral, "move", name, folder=target), name, again).result or {})
    output = invocation.output
    where = "back in the store" if target is None else f"in {target}"
    moved = size_text(facts.get("moved"))
    output.result(
        {"name": name, **facts}, lambda: output.say(f"{name} lies {where} now: {moved} moved."), [target or name]
    )


@command
def push(
    invocation: Invocation,
    model: Model,
    to: Annotated[
        str, typer.Argument(metavar="WHERE", help="A bucket and path: s3://BUCKET/PATH; gs:// and az://, too.")
    ],
) -> None:
    """Put a model into a bucket, for others to pull from there.

    For example: corral push smollm2 s3://models/smollm2
    """
    ref = str(ModelRef.parse(to))
    corral = None if invocation.url else invocation.corral()
    name = corral.registry.get(model).name if corral else model
    work = order(corral, "push", name, to=ref)
    if corral is not None:
        corral.catalog.check(work)
    facts = dict(done(invocation, work, name, f"corral push {name} {ref}").result or {})
    output = invocation.output

    def show() -> None:
        output.say(f"{name} is at {facts.get('ref')}.")
        output.note(f"Install it elsewhere: corral pull {facts.get('ref')}")

    output.result({"name": name, **facts}, show, [facts.get("ref")])
