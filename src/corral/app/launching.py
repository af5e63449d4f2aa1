"""How a model is started: what the supervisor asks before it decides where and when."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from corral.app import contexts
from corral.domain.memory import Group
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec
from corral.errors import RuntimeUnavailable
from corral.lifecycle.engines import Launch, Rules

if TYPE_CHECKING:
    from corral.app.corral import Corral, Definition
    from corral.config import Settings


async def plan(corral: Corral, name: str) -> Launch:
    """How to start `name`, and where it may be put.

    Raises:
        CorralError: as `Corral.definition`; its options are wrong, its files are missing, its runtime cannot be used
            here, or it does not fit this machine.
    """
    launch = await prepare(corral, name)
    model = corral.canonical(name)
    inside = corral.contained.get(model)
    if inside is not None and corral.models.get(model) is corral.configured.get(model):
        await corral.fleet.require(model, inside)
        return launch  # what it takes is its container's, and whether its program is on this machine does not matter
    said = await corral.choices.availability(launch.runtime.kind)
    if not said.usable and getattr(launch.spec.options, "executable", None) is None:  # else it is not the one meant
        raise RuntimeUnavailable(f"The runtime {launch.runtime.kind} cannot run {name!r}: {said.reason}", said.hint)
    demand = launch.runtime.demand(launch.spec)
    if demand is None:
        return launch
    await corral.memory.look_again()
    return replace(launch, placements=corral.memory.placements(launch, demand, said.devices))


async def prepare(corral: Corral, name: str) -> Launch:
    """As `plan`, without asking whether and where it can run."""
    definition = await defined(corral, name)
    runtime = corral.runtimes[definition.runtime]
    options = parse_options(runtime.options, definition.options, f"model {name!r} (runtime {definition.runtime})")
    options = contexts.widened(corral, definition.name, options)
    installed, entry = definition.installed, corral.entry(name)
    spec = LaunchSpec(
        model=name,
        options=options,
        files={} if installed is None else corral.registry.files(installed),
        revision=installed.revision if installed else None,
        load_timeout=corral.settings.engines.load_timeout,
    )
    return Launch(
        runtime,
        spec,
        definition.idle_timeout,
        resident=entry.resident,
        priority=entry.priority,
        limit=entry.concurrency,
    )


async def defined(corral: Corral, name: str) -> Definition:
    """What `name` stands for, once the runtimes that could run it have been asked."""
    form = corral.format_of(name)
    if form is not None:
        await corral.choices.survey(form)
    return corral.definition(name)


def rules(settings: Settings) -> Rules:
    """What holds for all models."""
    engines = settings.engines
    groups = (
        Group(frozenset(group.members), group.swap, group.exclusive, group.persistent)
        for group in settings.groups.values()
    )
    return Rules(
        groups=tuple(groups),
        patience=engines.patience,
        queue=engines.queue,
        loads=engines.loads,
        measure_every=engines.measure_every,
        restarts=engines.restarts,
    )
