"""The models of this machine: `list` and `rm`."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Models
from corral.cli.output import Painted, painted_state, size_text
from corral.cli.table import Column
from corral.cli.work import Task, carry_out, order
from corral.domain.models import Installed, check_name
from corral.errors import CorralError, ModelBusy, ModelPinned, ServerNotRunning, StoreError

if TYPE_CHECKING:
    from corral.app import Corral

_LISTED = ("chat", "embeddings", "tools", "vision", "json_schema")
_KNOWN = ("runtime", "size", "format", "capabilities", "source", "revision", "installed_at", "pinned", "folder")
_LOADED = ("loading", "ready", "stopping")


@command
def list_models(invocation: Invocation) -> None:
    """List the models that can be asked for.

    For example: corral list --json
    """
    found = states(invocation)
    models = [_remote_row(model) for model in found.values()] if invocation.url else _rows(invocation.corral(), found)
    output = invocation.output

    def show() -> None:
        if not models:
            output.say("No model is installed.")
            output.note("Install one: corral pull smollm2")
            return
        marked = any(_marks(model) for model in models)
        columns = [
            Column("NAME"),
            Column("SIZE", right=True),
            Column("FORMAT"),
            Column("CAPABILITIES", soft=True),
            Column("SOURCE", soft=True),
            *([Column("MARKS")] if marked else []),
            *([Column("STATE")] if found else []),
        ]
        output.table(columns, [list(_cells(model, marked=marked, stated=bool(found))) for model in models])

    output.result({"models": models, "count": len(models)}, show, [model["name"] for model in models])


def _cells(model: Mapping[str, Any], *, marked: bool, stated: bool) -> Iterator[object]:
    capabilities = [name.removesuffix("_schema") for name in _LISTED if name in (model["capabilities"] or ())]
    yield model["name"]
    yield size_text(model["size"]) if model["size"] else "-"
    yield model["format"] or "-"
    yield ", ".join(capabilities) or "-"
    yield Painted(model["problem"], "red") if model["problem"] else _origin(model)
    if marked:
        yield ", ".join(_marks(model)) or "-"
    if stated:
        yield painted_state(str(model["state"] or "-"))


def _marks(model: Mapping[str, Any]) -> list[str]:
    return [*(["pinned"] if model["pinned"] else []), *(["in place"] if model["folder"] else [])]


def _origin(model: Mapping[str, Any]) -> str:
    return model["source"] or (f"(runtime {model['runtime']})" if model["runtime"] else "-")


def _rows(corral: "Corral", states: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every model of this machine by name, quickly: what is configured and cannot run is there with the reason."""
    from corral.app.described import Describer

    rows: dict[str, dict[str, Any]] = {}
    describer = Describer(corral)
    for installed in corral.registry.all():
        if installed.name not in corral.models:
            state = states.get(installed.name, {}).get("state") if states else None
            runtime = describer.runtime(installed)
            problem = None if runtime else f"No runtime here runs {installed.revision.format} files."
            rows[installed.name] = _row(installed.name, installed, runtime, state, problem)
    for name in corral.models:
        rows[name] = _configured(corral, name, states.get(name, {}).get("state"))
    for name, error in corral.registry.damaged().items():
        rows[name] = _row(name, None, None, states.get(name, {}).get("state"), str(error))
    return [rows[name] for name in sorted(rows)]


def _configured(corral: "Corral", name: str, state: str | None) -> dict[str, Any]:
    try:
        definition = corral.definition(name)
    except CorralError as error:
        return _row(name, None, None, state, str(error))
    return _row(name, definition.installed, definition.runtime, state, None)


def _row(
    name: str, installed: Installed | None, runtime: str | None, state: str | None, problem: str | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, **dict.fromkeys(_KNOWN), "runtime": runtime}
    if installed is not None and problem is None:
        revision = installed.revision
        row |= {
            "size": revision.size,
            "format": revision.format,
            "capabilities": sorted(revision.capabilities),
            "source": revision.source,
            "revision": revision.id,
            "installed_at": installed.installed_at,
            "pinned": installed.pinned,
            "folder": installed.folder,
        }
    row["state"] = state
    row["problem"] = problem
    return row


def _remote_row(model: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: model.get(key) for key in ("name", *_KNOWN, "state")}
    return known | {"problem": None}


def described(installed: Installed) -> dict[str, Any]:
    """An installed model in brief, as JSON shows it."""
    revision = installed.revision
    return {
        "name": installed.name,
        "revision": revision.id,
        "version": revision.version,
        "format": revision.format,
        "size": revision.size,
        "source": revision.source,
        "licence": revision.licence,
        "capabilities": sorted(revision.capabilities),
        "installed_at": installed.installed_at,
        "follows": installed.follows or revision.source,
        "pinned": installed.pinned,
        "folder": installed.folder,
    }


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


def states(invocation: Invocation) -> dict[str, dict[str, Any]]:
    """The running server's models by name; none when no server runs here. One that `--url` names must answer."""
    if invocation.running() is None:
        return {}
    try:
        return {str(model["name"]): model for model in invocation.ask(lambda server: server.models())}
    except ServerNotRunning:
        if invocation.url is not None:
            raise
        return {}
