"""`corral show`: everything that is known of a model."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.cli.invocation import Invocation, command
from corral.cli.models import described, states
from corral.cli.names import Model
from corral.cli.output import Output, line, painted_fit, painted_state, size_text, time_text
from corral.domain.models import Installed
from corral.domain.options import parse_options
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.app import Corral, Definition

_SECTIONS = ("facts", "options", "options_given", "files", "history", "override", "fit", "defaults")
_LABELS = {"idle_timeout": "idle time-out", "installed_at": "installed", "fit_reason": ""}
_LONGEST = 200


@command
def show_model(invocation: Invocation, model: Model) -> None:
    """Show everything that is known of a model.

    Where it came from and what it follows, what it can do, its files, its history, and whether it fits this machine.
    For example: corral show smollm2
    """
    found = states(invocation)
    output = invocation.output
    if invocation.url:
        remote = invocation.ask(lambda server: server.model(model))
        output.result(remote, lambda: output.fields(_pairs(remote)), [model])
        return
    corral = invocation.corral()
    definition = corral.definition(model)
    facts = describe(corral, definition, found.get(definition.name, {}).get("state"))
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
    return found | _installed(corral, definition.installed) | {"name": definition.name}


def _installed(corral: "Corral", installed: Installed) -> dict[str, Any]:
    import asyncio

    from corral.app.described import past_row
    from corral.app.fitness import Judge, judged

    revision = installed.revision
    facts = dict(revision.facts)
    pasts = corral.registry.history(installed.name) if installed.folder is None else ()  # what lies elsewhere has none
    judge = asyncio.run(Judge.of(corral.settings.models_dir))
    return {
        **described(installed),
        "languages": list(facts.get("languages") or ()),
        "roles": list(facts.get("allowed_roles") or ()),
        "ignored": {key: value for key, value in facts.items() if "ignored" in key},
        "fit": judged(judge.fit(facts, revision.size)),
        "override": dict(corral.registry.override(installed.name)),
        "history": [past_row(past) for past in pasts],
        "defaults": dict(revision.defaults),
        "facts": facts,
        "files": [{**asdict(entry), "path": _path(corral, installed, entry)} for entry in revision.files],
    }


def _path(corral: "Corral", installed: Installed, entry: Any) -> str | None:
    if installed.folder is not None:
        return str(installed.folder / entry.name)
    try:
        return str(corral.registry.path(entry))
    except CorralError:
        return None  # it is gone or cut short: `verify` says so


def _show(output: Output, facts: Mapping[str, Any]) -> None:
    simple = {key: value for key, value in facts.items() if key not in _SECTIONS and key != "ignored"}
    output.fields([*_pairs(simple), *_fit_pairs(facts.get("fit"))])
    given = {name: facts["options"][name] for name in facts["options_given"] if name in facts["options"]}
    known = {key: value for key, value in (facts.get("facts") or {}).items() if "ignored" not in key}
    for title, values in (
        ("Facts", known),
        ("Said by hand, with corral override", _flat(facts.get("override") or {})),
        ("Defaults that came with it", facts.get("defaults")),
        ("Options, where not the default", given),
        ("Ignored", facts.get("ignored")),
    ):
        if values:
            output.say()
            output.say(title, "bold")
            output.fields([(f"  {line(name)}", _shown(value)) for name, value in sorted(values.items())])
    _show_history(output, facts.get("history") or ())
    if facts.get("files"):
        output.say()
        output.say("Files", "bold")
        for entry in facts["files"]:
            gone = "" if entry["path"] else "; damaged, see corral verify"
            output.say(f"  {line(entry['name'])} ({entry['role']}, {size_text(entry['size'])}{gone})")
            output.say(f"    sha256:{entry['sha256']}", "dim")


def _show_history(output: Output, history: Any) -> None:
    if len(history) < 2:
        return
    output.say()
    output.say("History", "bold")
    for past in history:
        mark = "*" if past["current"] else " "
        gone = "" if past["here"] else "  (files gone)"
        version = f"  {line(past['version'])}" if past["version"] else ""
        output.say(f"  {mark} {past['revision'][:12]}  {_moment(past['installed_at'])}{version}{gone}")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def _fit_pairs(fit: Mapping[str, Any] | None) -> list[tuple[str, object]]:
    if not fit:
        return []
    return [("fits here", painted_fit(fit["verdict"])), ("because", fit["reason"])]


def _pairs(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What a person sees of simple facts: those that are known, with their units."""
    pairs: list[tuple[str, object]] = []
    for key, value in facts.items():
        if value in (None, "", [], {}, False) or (key == "follows" and value == facts.get("source")):
            continue
        pairs.append((_LABELS.get(key, key.replace("_", " ")), _shown(value, key)))
    return pairs


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


_SHOWN: Mapping[str, Callable[[Any], object]] = {
    "installed_at": _moment,
    "loaded_at": _moment,
    "size": lambda value: f"{size_text(value)} ({value:,} bytes)",
    "idle_timeout": time_text,
    "idle_left": time_text,
    "load_seconds": time_text,
    "state": lambda value: painted_state(str(value)),
    "pinned": lambda _: "yes",
    "footprint": lambda value: ", ".join(f"{size_text(count)} on {device}" for device, count in value.items()),
}
"""How a person is shown what is no simple text or number."""


def _shown(value: Any, key: str = "") -> object:
    if key in _SHOWN:
        return _SHOWN[key](value)
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value >= 10_000 else value
    text = str(value)
    return text if len(text) <= _LONGEST else f"{len(text):,} characters; see --json"
