"""`corral rm`: models removed, when nobody needs them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.models import states
from corral.cli.names import Models
from corral.cli.output import size_text
from corral.cli.work import Task, carry_out, order
from corral.domain.models import Installed, check_name
from corral.errors import ModelBusy, ModelPinned, StoreError

if TYPE_CHECKING:
    from corral.app import Corral

_LOADED = ("loading", "ready", "stopping")


@command
def remove(
    invocation: Invocation,
    model: Models,
    yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, flag("--force", help="Also when it is in memory, pinned or used.")] = False,
) -> None:
    """Remove installed models; files that other models use stay.

    A model that is in memory, pinned or used by the configuration is refused without --force. For example:
    corral rm smollm2 --yes
    """
    output = invocation.output
    corral = None if invocation.url else invocation.corral()
    found = states(invocation)
    doomed: list[tuple[str, int | None]] = [
        (check_name(name), None) if corral is None else _doomed(corral, name, found, force=force)
        for name in dict.fromkeys(model)
    ]
    if not yes and not output.ask(f"Remove {', '.join(_about(name, size) for name, size in doomed)}?"):
        output.note("Nothing was removed.")
        raise typer.Exit(1)
    tasks = [Task(order(corral, "remove", name, force=force), name, f"corral rm {name}") for name, _ in doomed]
    carry_out(invocation, tasks, corral)
    failed = [task.error for task in tasks if task.error is not None]
    for task, (name, size) in zip(tasks, doomed, strict=True):
        if task.error is None and task.operation is not None:
            freed = int((task.operation.result or {}).get("freed") or 0)
            shared = " The rest belongs to other models, too." if size is not None and freed < size else ""
            output.result(
                {"removed": name, "freed": freed},
                lambda name=name, freed=freed, shared=shared: output.say(  # type: ignore[misc]  # its own values
                    f"{name} is removed: {size_text(freed)} freed.{shared}"
                ),
                [name],
            )
    for error in failed[:-1]:
        output.fail(error)
    if failed:
        raise failed[-1]


def _about(name: str, size: int | None) -> str:
    return f"{name} ({'size unknown' if size is None else size_text(size)})"


def _doomed(
    corral: "Corral", model: str, states: Mapping[str, Mapping[str, Any]], *, force: bool
) -> tuple[str, int | None]:
    """The name to remove, and its size when its record can be read.

    Raises:
        ModelNotFound: there is no such model.
        ModelBusy, ModelPinned, Conflict: it is needed, and `force` is not given.
    """
    registry = corral.registry
    try:
        installed = registry.get(model)  # by an alias of the library, too
    except StoreError:  # its record is damaged, and removal is what mends that
        return (model if model in registry.damaged() else corral.canonical(model)), None
    name = installed.name
    loaded = _users(states, installed, registry.names())
    if loaded and not force:
        raise ModelBusy(
            f"Model {model!r} is in the server's memory{'' if loaded == [model] else ' as ' + ', '.join(loaded)}.",
            f"Let it go first: corral unload {loaded[0]}. Or do both: corral rm {model} --force",
        )
    if installed.pinned and not force:
        raise ModelPinned(
            f"Model {model!r} is pinned.", f"Let it go: corral pin {name} --off. Or: corral rm {model} --force"
        )
    corral.catalog.check(order(corral, "remove", name, force=force))
    return name, installed.revision.size


def _users(states: Mapping[str, Mapping[str, Any]], installed: Installed, names: list[str]) -> list[str]:
    """The loaded models that run this very installation: by its own name, or configured ones that point to it."""
    revision = installed.revision.id
    return [
        name
        for name, model in states.items()
        if model.get("state") in _LOADED
        and (name == installed.name or (model.get("revision") == revision and name not in names))
    ]
