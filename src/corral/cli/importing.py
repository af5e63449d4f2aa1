"""`corral import`: what other programs have here, taken over.

Ollama's models, the configurations of llama-swap and LiteLLM, compose files, a `config/models.json`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import chosen
from corral.cli.pull import conclude
from corral.cli.work import Task, carry_out
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from corral.catalog.imports import ImportPlan
    from corral.config import Settings

_FORMS = (
    "ollama [FOLDER], llama-swap CONFIG.YAML, litellm CONFIG.YAML, docker-compose [FILE], "
    "or a models.json with a list `models`"
)


@command
def import_models(
    invocation: Invocation,
    what: Annotated[
        str,
        typer.Argument(
            metavar="ollama|llama-swap|litellm|docker-compose|FILE",
            autocompletion=chosen("ollama", "llama-swap", "litellm", "docker-compose"),
            help="ollama, llama-swap, litellm, docker-compose, or a config/models.json.",
        ),
    ],
    place: Annotated[
        Path | None,
        typer.Argument(metavar="[PLACE]", help="Ollama's folder of models, or the file of the others."),
    ] = None,
    yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False,
    migrate: Annotated[
        bool, flag("--migrate", help="docker-compose: take over the containers, too, that compose has started.")
    ] = False,
) -> None:
    """Take over models of Ollama, llama-swap, LiteLLM, Compose or a file.

    The plan is shown first. Ollama's files are linked, not copied, where that can be. For example: corral import ollama
    """
    invocation.here_only("import")
    if what == "docker-compose":
        from corral.cli.containers_files import import_compose

        import_compose(invocation, place, yes=yes, migrate=migrate)
        return
    output = invocation.output
    plan = _plan(invocation, what, place)
    settings = invocation.settings()
    taken = sorted(name for name in plan.models if name in settings.models)
    fresh = {name: entry for name, entry in plan.models.items() if name not in taken}
    more, kept = _more(plan, settings)
    taken += kept
    _tell_plan(invocation, plan, fresh, more)
    for name in taken:
        output.say(f"  = {name}  is in the configuration already")
    for name, reason in plan.skipped:
        output.say(f"  ! {name}: {reason}", "yellow")
    if not plan.installs and not fresh and not more:
        output.result(_data(plan, fresh, taken, None), lambda: output.say("There is nothing to import."))
        return
    if not yes and not output.ask(f"Import {len(plan.installs) + len(fresh)} models?"):
        output.note("Nothing was imported.")
        raise typer.Exit(1)
    file = None
    if fresh or more:
        from corral.cli.configuring import add_models

        groups = {name: group for name, group in plan.groups.items() if name not in settings.groups}
        file = add_models(settings, fresh, groups, more)
        output.note(f"{len(fresh)} models are written to {file}.")
    output.result(_data(plan, fresh, taken, file), lambda: None, sorted(fresh))
    if plan.installs:
        corral = invocation.corral()
        before = {model.name: model.revision.id for model in corral.registry.all()}
        tasks = []
        for ref, name in plan.installs:
            order = corral.catalog.install_order(ref, name=name)
            corral.catalog.check(order)
            tasks.append(Task(order, name, f"corral import {what}"))
        carry_out(invocation, tasks, corral)
        conclude(invocation, tasks, corral, before)


def _plan(invocation: Invocation, what: str, place: Path | None) -> "ImportPlan":
    from corral.catalog.imports import plan_models_json, plan_ollama

    if what == "ollama":
        return plan_ollama(place or _ollama_folder(invocation))
    if what in {"llama-swap", "litellm"}:
        return _configured(invocation, what, place)
    if place is not None:
        raise InvalidRequest(
            "Only `ollama`, `llama-swap`, `litellm` and `docker-compose` take a place.",
            f"What can be imported: {_FORMS}.",
        )
    path = Path(what).expanduser()
    if "\0" in what or len(what) > 4096 or not path.is_file():
        raise InvalidRequest(f"{what[:80]!r} is no file.", f"What can be imported: {_FORMS}.")
    if path.suffix.lower() != ".json":
        raise InvalidRequest(f"{path.name!r} is of a form that cannot be imported.", f"What can be: {_FORMS}.")
    return plan_models_json(path)


def _configured(invocation: Invocation, what: str, place: Path | None) -> "ImportPlan":
    """The plan of another program's configuration."""
    import os

    from corral.catalog.litellm import plan_litellm
    from corral.catalog.llama_swap import plan_llama_swap

    if place is None:
        raise InvalidRequest("Which configuration?", f"Type: corral import {what} CONFIG.YAML")
    env = os.environ if invocation.env is None else invocation.env
    return (plan_llama_swap if what == "llama-swap" else plan_litellm)(place.expanduser(), env)


def _more(plan: "ImportPlan", settings: "Settings") -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is written beside models and groups, by section; and what stands there already, which stays."""
    more: dict[str, dict[str, Any]] = {}
    kept: list[str] = []
    entries = {"routes": (plan.routes, settings.routes), "prices": (plan.prices, settings.prices)}
    for section, (planned, there) in entries.items():
        kept += [f"{section}.{name}" for name in planned if name in there]
        more[section] = {name: dict(entry) for name, entry in planned.items() if name not in there}
    for section, values in plan.sections.items():
        set_before = [key for key in values if settings.origin(f"{section}.{key}") != "default"]
        kept += [f"{section}.{key}" for key in set_before]
        more[section] = {key: value for key, value in values.items() if key not in set_before}
    return {section: values for section, values in more.items() if values}, kept


def _ollama_folder(invocation: Invocation) -> Path:
    import os

    env = os.environ if invocation.env is None else invocation.env
    return Path(env.get("OLLAMA_MODELS") or "~/.ollama/models").expanduser()


def _tell_plan(
    invocation: Invocation, plan: "ImportPlan", fresh: Mapping[str, Any], more: Mapping[str, Mapping[str, Any]]
) -> None:
    output = invocation.output
    for ref, name in plan.installs:
        output.say(f"  + {name}  from {ref}", "green")
    for name, entry in fresh.items():
        options = dict(entry.get("options") or {})
        what = entry.get("source") or options.get("base_url") or options.get("vendor") or ""
        what = what or " ".join(options.get("cmd") or ())
        output.say(f"  + {name}  {entry.get('runtime') or ''} {what}".rstrip(), "green")
    for name, group in plan.groups.items():
        output.say(f"  + group {name}: {', '.join(group['members'])}", "green")
    for section, values in more.items():
        for name, entry in values.items():
            if section == "routes":
                output.say(f"  + route {name}: {', '.join(entry['models'])}", "green")
            elif section != "prices":
                output.say(f"  + {section}.{name}: {entry}", "green")


def _data(plan: "ImportPlan", fresh: Mapping[str, Any], taken: list[str], file: Path | None) -> dict[str, Any]:
    return {
        "event": "plan",
        "installs": [{"ref": ref, "name": name} for ref, name in plan.installs],
        "models": dict(fresh),
        "groups": dict(plan.groups),
        "routes": dict(plan.routes),
        "prices": dict(plan.prices),
        "settings": dict(plan.sections),
        "configured": taken,
        "skipped": [{"name": name, "reason": reason} for name, reason in plan.skipped],
        "file": file,
    }
