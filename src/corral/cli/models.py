"""The models of this machine: `list` and `rm`."""

import gc
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from corral.cli.invocation import Invocation, command
from corral.cli.output import Painted, painted_state, size_text
from corral.cli.table import Column
from corral.domain.models import Installed
from corral.errors import CorralError, ServerNotRunning

if TYPE_CHECKING:
    from corral.app import Corral

_LISTED = ("chat", "embeddings", "tools", "vision", "json_schema")
_KNOWN = ("runtime", "size", "format", "capabilities", "source", "revision", "installed_at", "pinned", "folder")


@command
def list_models(invocation: Invocation) -> None:
    """List the models that can be asked for.

    For example: corral list --json
    """
    gc.disable()  # with ten thousand models it takes a fifth of the time, and this process ends soon
    try:
        _list(invocation)
    finally:
        gc.enable()


def _list(invocation: Invocation) -> None:
    found = states(invocation)
    corral = None if invocation.url else invocation.corral()
    models = [_remote_row(model) for model in found.values()] if corral is None else _rows(corral, found)
    problems = {} if corral is None else dict(corral.registry.problems())
    output = invocation.output

    def show() -> None:
        for path, why in problems.items():
            output.note(f"{path} is no model to offer: {why}")
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

    data = {"models": models, "count": len(models), "problems": problems}
    output.result(data, show, [model["name"] for model in models])


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
    if installed is not None:
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
    from corral.app.described import brief

    return {
        **brief(installed),
        "licence": installed.revision.licence,
        "installed_at": installed.installed_at,
        "follows": installed.follows or installed.revision.source,
        "pinned": installed.pinned,
        "folder": installed.folder,
    }


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
