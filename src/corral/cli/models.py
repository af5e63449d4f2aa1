"""The models of this machine: `pull`, `list`, `show` and `rm`, straight on the store."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Model, What
from corral.cli.output import Output, Painted, line, painted_state, size_text, time_text
from corral.cli.progress import Watch, shown
from corral.cli.table import Column
from corral.domain.models import Capability, Installed, Revision
from corral.domain.options import parse_options
from corral.errors import CorralError, ModelBusy, ServerNotRunning, StoreError

if TYPE_CHECKING:
    from corral.app import Corral, Definition

_LISTED = ("chat", "embeddings", "tools", "vision", "json_schema")
_KNOWN = ("runtime", "size", "format", "capabilities", "source", "revision", "installed_at")
_LOADED = ("loading", "ready", "stopping")


@command
def pull(
    invocation: Invocation,
    what: What,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Install it under this name.")] = None,
) -> None:
    """Install a model, or go on where the last pull stopped."""
    invocation.here_only("pull")
    output = invocation.output
    installed, watch = install(invocation, invocation.corral(), what, name)
    data = {"event": "installed", "downloaded": watch.moved, **_installed(installed)}
    revision = installed.revision

    def show() -> None:
        verb = "is installed" if watch.built else "was installed already"
        output.say(
            f"{installed.name} {verb}: {size_text(revision.size)}, {revision.format}, revision {revision.id[:12]}."
        )
        if Capability.CHAT in revision.capabilities:
            output.note(f"Talk to it: corral run {installed.name}")
        elif Capability.COMPLETION in revision.capabilities:
            output.note("It has no chat template: it completes texts, at /v1/completions.")

    output.result(data, show, [installed.name])


def install(invocation: Invocation, corral: "Corral", what: str, name: str | None = None) -> tuple[Installed, Watch]:
    """Install `what` and show how far it is; Ctrl-C keeps what has arrived, and says so."""
    import asyncio

    output = invocation.output
    watch = None
    try:
        with shown(output, name or what) as watch:
            return asyncio.run(_install(corral, what, name, watch)), watch
    except KeyboardInterrupt:
        kept = f"Stopped; {size_text(watch.held)} are kept." if watch and watch.held else "Stopped."
        output.note(f"{kept} The next pull goes on from there: corral pull {what}")
        raise


async def _install(corral: "Corral", what: str, name: str | None, watch: Watch) -> Installed:
    try:
        return await corral.install(what, name=name, report=watch)
    finally:
        await corral.close()


@command
def list_models(invocation: Invocation) -> None:
    """List the models that can be asked for."""
    states = _states(invocation)
    if invocation.url:
        models = [_remote_row(model) for model in states.values()]
    else:
        corral = invocation.corral()
        damaged = corral.registry.damaged()
        names = {
            *corral.names(),
            *corral.models,
            *damaged,
        }  # what is configured and cannot run is shown with the reason
        models = [_row(corral, name, states, damaged.get(name)) for name in sorted(names)]
    output = invocation.output

    def show() -> None:
        if not models:
            output.say("No model is installed.")
            output.note("Install one: corral pull smollm2")
            return
        columns = [
            Column("NAME"),
            Column("SIZE", right=True),
            Column("FORMAT"),
            Column("CAPABILITIES", soft=True),
            Column("SOURCE", soft=True),
            *([Column("STATE")] if states else []),
        ]
        output.table(columns, [_cells(model, stated=bool(states)) for model in models])

    output.result({"models": models, "count": len(models)}, show, [model["name"] for model in models])


def _cells(model: Mapping[str, Any], *, stated: bool) -> list[object]:
    capabilities = [name.removesuffix("_schema") for name in _LISTED if name in (model["capabilities"] or ())]
    state = [painted_state(str(model["state"] or "-"))] if stated else []
    return [
        model["name"],
        size_text(model["size"]) if model["size"] else "-",
        model["format"] or "-",
        ", ".join(capabilities) or "-",
        Painted(model["problem"], "red") if model["problem"] else _origin(model),
        *state,
    ]


def _origin(model: Mapping[str, Any]) -> str:
    return model["source"] or (f"(runtime {model['runtime']})" if model["runtime"] else "-")


def _row(
    corral: "Corral", name: str, states: Mapping[str, Mapping[str, Any]], damage: CorralError | None
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("runtime", "size", "format", "capabilities", "source", "revision", "installed_at")
    )
    problem = None
    try:
        definition = corral.definition(name)
    except CorralError as error:
        problem = str(damage or error)
    else:
        row["runtime"] = definition.runtime
        if definition.installed is not None:
            found = _installed(definition.installed)
            row |= {key: found[key] for key in row if key in found}
    state = states.get(name, {}).get("state")
    return {"name": name, **row, "state": state, "problem": problem}


def _remote_row(model: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: model.get(key) for key in ("name", *_KNOWN, "state")}
    return known | {"problem": None}


@command
def show_model(invocation: Invocation, model: Model) -> None:
    """Show everything that is known of a model."""
    states = _states(invocation)
    output = invocation.output
    if invocation.url:
        found = invocation.ask(lambda server: server.model(model))
        output.result(found, lambda: output.fields(_pairs(found)), [model])
        return
    corral = invocation.corral()
    definition = corral.definition(model)
    facts = describe(corral, definition, states.get(model, {}).get("state"))
    output.result(facts, lambda: _show(output, facts), [model])


def describe(corral: "Corral", definition: "Definition", state: str | None = None) -> dict[str, Any]:
    """Everything known of a model, as `show --json` writes it."""
    runtime = corral.runtimes[definition.runtime]
    options = parse_options(runtime.options, definition.options, f"model {definition.name!r}")
    found: dict[str, Any] = {
        "name": definition.name,
        "state": state,
        "runtime": definition.runtime,
        "idle_timeout": definition.idle_timeout,
        "options": asdict(options),
        "options_given": sorted(definition.options),
    }
    if definition.installed is None:
        return found
    revision = definition.installed.revision
    files = [{**asdict(entry), "path": str(corral.registry.path(entry))} for entry in revision.files]
    return (
        found
        | _installed(definition.installed)
        | {"name": definition.name, "facts": dict(revision.facts), "files": files}
    )


def _installed(installed: Installed) -> dict[str, Any]:
    revision: Revision = installed.revision
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
    }


def _show(output: Output, facts: Mapping[str, Any]) -> None:
    output.fields(_pairs({key: value for key, value in facts.items() if key not in _SECTIONS}))
    given = {name: facts["options"][name] for name in facts["options_given"]}
    for title, values in (("Facts", facts.get("facts")), ("Options, where not the default", given)):
        if values:
            output.say()
            output.say(title, "bold")
            output.fields([(f"  {line(name)}", _shown(value)) for name, value in sorted(values.items())])
    if facts.get("files"):
        output.say()
        output.say("Files", "bold")
        for entry in facts["files"]:
            output.say(f"  {entry['name']} ({entry['role']}, {size_text(entry['size'])})")
            output.say(f"    sha256:{entry['sha256']}", "dim")


_SECTIONS = ("facts", "options", "options_given", "files")
_LABELS = {"idle_timeout": "idle time-out", "installed_at": "installed"}


def _pairs(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What a person sees of simple facts: those that are known, with their units."""
    pairs: list[tuple[str, object]] = []
    for key, value in facts.items():
        if value in (None, "", [], {}):
            continue
        label = _LABELS.get(key, key.replace("_", " "))
        pairs.append((label, _shown(value, key)))
    return pairs


def _shown(value: Any, key: str = "") -> object:
    if key in ("installed_at", "loaded_at"):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    if key == "size":
        return f"{size_text(value)} ({value:,} bytes)"
    if key in ("idle_timeout", "idle_left", "load_seconds"):
        return time_text(value)
    if key == "state":
        return painted_state(str(value))
    if key == "footprint":
        return ", ".join(f"{size_text(count)} on {device}" for device, count in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value >= 10_000 else value
    text = str(value)
    return text if len(text) <= 200 else f"{len(text):,} characters; see --json"


@command
def remove(
    invocation: Invocation,
    model: Model,
    yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, flag("--force", help="Unload it first where it is in memory.")] = False,
) -> None:
    """Remove an installed model; files that other models use stay."""
    invocation.here_only("rm")
    output = invocation.output
    corral = invocation.corral()
    registry = corral.registry
    try:
        installed = registry.get(model)  # by an alias of the library, too
        name = installed.name
    except StoreError:  # its record is damaged, and removal is what mends that
        installed = None
        name = model if model in registry.damaged() else corral.canonical(model)
    loaded = _users(invocation, name, installed, registry.names())
    if loaded and not force:
        raise ModelBusy(
            f"Model {model!r} is in the server's memory{'' if loaded == [model] else ' as ' + ', '.join(loaded)}.",
            f"Let it go first: corral unload {loaded[0]}. Or do both: corral rm {model} --force",
        )
    about = size_text(installed.revision.size) if installed else "whose record is damaged"
    if not yes and not output.ask(f"Remove {name} ({about})?"):
        output.note("Nothing was removed.")
        raise typer.Exit(1)
    for user in loaded:
        _let_go(invocation, user)
    import asyncio

    freed = asyncio.run(registry.remove(name))
    shared = " The rest belongs to other models, too." if installed and freed < installed.revision.size else ""
    output.result(
        {"removed": name, "freed": freed},
        lambda: output.say(f"{name} is removed: {size_text(freed)} freed.{shared}"),
        [name],
    )


def _let_go(invocation: Invocation, name: str) -> None:
    invocation.ask(lambda server: server.unload(name, force=True, drain=0))


def _users(invocation: Invocation, called: str, installed: Installed | None, names: list[str]) -> list[str]:
    """The loaded models that run this very installation: by its own name, or configured ones that point to it."""
    revision = installed.revision.id if installed else None
    return [
        name
        for name, model in _states(invocation).items()
        if model.get("state") in _LOADED
        and (name == called or (revision is not None and model.get("revision") == revision and name not in names))
    ]


def _states(invocation: Invocation) -> dict[str, dict[str, Any]]:
    """The running server's models by name; none when no server runs here. One that `--url` names must answer."""
    if invocation.running() is None:
        return {}
    try:
        return {str(model["name"]): model for model in invocation.ask(lambda server: server.models())}
    except ServerNotRunning:
        if invocation.url is not None:
            raise
        return {}
