"""Models and engines in the words of `/api/v1/runtime`: plain values, for its routes and its events alike."""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Any

import orjson

from corral.domain.states import State
from corral.errors import ModelNotFound, RuntimeUnavailable

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.app.registration import Registrations
    from corral.domain.memory import Placement
    from corral.lifecycle.supervisor import Engine, Status


def model(corral: Corral, registrations: Registrations, name: str) -> dict[str, Any]:
    """All that is known of a model, also of one that nothing here runs.

    Raises:
        ModelNotFound: nothing is.
    """
    own = corral.canonical(name)
    return _described(
        corral, registrations, name, next((s for s in corral.supervisor.statuses() if s.model == own), None)
    )


def models(corral: Corral, registrations: Registrations) -> list[dict[str, Any]]:
    """Every model that can be asked for, that is in memory, that failed or that was registered; by name."""
    statuses = {status.model: status for status in corral.supervisor.statuses()}
    found = []
    for name in sorted({*corral.names(), *statuses, *registrations.names()}):
        try:
            found.append(_described(corral, registrations, name, statuses.get(name)))
        except ModelNotFound:
            continue  # it was removed since it was loaded, or since it failed
    return found


def problems(corral: Corral) -> list[dict[str, str]]:
    """What is not as it should be.

    Models whose last load failed or whose engine ended, GPUs that were there and are not, a configuration that changed
    and cannot be used.
    """
    failed = (s for s in corral.supervisor.statuses() if s.state is State.FAILED)
    found = [{"kind": "model", "name": status.model, "reason": status.reason} for status in failed]
    machine = corral.sampler.latest
    found += [{"kind": "device", "name": one.gpu.id, "reason": one.reason} for one in (machine.lost if machine else ())]
    broken = corral.reloading.problem
    if broken is not None:
        file = str(corral.settings.file)
        found.append({"kind": "configuration", "name": file, "reason": f"it changed and is not used: {broken.message}"})
    return found


def memory(corral: Corral) -> dict[str, dict[str, int | None]]:
    """Bytes by device: `capacity` that engines may take, `held` by them, `free` for more; null is without limit."""
    capacity, held = corral.supervisor.capacity(), corral.supervisor.held()
    found: dict[str, dict[str, int | None]] = {}
    for device in sorted({*capacity, *held}):
        most, taken = capacity.get(device), held.get(device, 0)
        found[device] = {"capacity": most, "held": taken, "free": None if most is None else max(0, most - taken)}
    return found


def queues(corral: Corral) -> dict[str, int]:
    """How many requests wait for each model for which some do."""
    return {status.model: status.waiting for status in corral.supervisor.statuses() if status.waiting}


def engines(corral: Corral) -> list[dict[str, Any]]:
    """Every engine there is, in short."""
    return [
        {
            "engine": engine.id,
            "model": engine.model,
            "runtime": engine.runtime,
            "device": engine.session.facts.device,
            "state": status.state,
            "in_flight": engine.in_flight,
            "slots": engine.limit,
            "served": engine.served,
            "footprint": dict(engine.footprint) or None,
        }
        for status in corral.supervisor.statuses()
        if (engine := status.engine) is not None
    ]


def counters(corral: Corral) -> dict[str, int]:
    """How often what happened since the server started."""
    counted = corral.supervisor.counters
    names = {"loads": "load", "evictions": "evict", "sleeps": "sleep", "wakes": "wake", "holds": "hold"}
    names |= {"refusals": "refuse", "crashes": "crash", "requests": "request"}
    return {name: counted.get(effect, 0) for name, effect in names.items()}


def as_json(value: Any) -> Any:
    """A frozen value in JSON's types; what has no end is null."""
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=_listed))


def _listed(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _described(corral: Corral, registrations: Registrations, name: str, status: Status | None) -> dict[str, Any]:
    known: dict[str, Any] = {"name": name, "state": State.COLD, "registered": corral.canonical(name) in registrations}
    known["model_type"] = registrations.model_type(name)
    installed = None
    try:
        definition = corral.definition(name)
        known["runtime"], installed = definition.runtime, definition.installed
    except RuntimeUnavailable as error:
        known["reason"], installed = error.message, corral.registry.get(name)
    except ModelNotFound as error:
        if name not in registrations:
            raise
        known["reason"] = f"{error.message} {error.hint}".strip()
    entry = corral.models.get(name)
    if entry is not None:
        known["fallback"] = list(entry.fallback)
    if installed is not None:
        revision = installed.revision
        known |= {"revision": revision.id, "source": revision.source, "format": revision.format, "size": revision.size}
        known["capabilities"] = sorted(revision.capabilities)
    return known if status is None else known | _standing(corral, status)


def _standing(corral: Corral, status: Status) -> dict[str, Any]:
    known: dict[str, Any] = {
        "state": status.state,
        "reason": status.reason,
        "idle_left": status.idle_left,
        "until": status.until,
        "waiting": status.waiting,
        "since": status.since,
        "priority": status.priority,
        "held": dict(status.held) or None,
    }
    if status.placement is not None and status.placement.devices:
        known |= {"placement": placed(status.placement), "estimated": dict(status.placement.devices)}
    return known if status.engine is None else known | _running(corral, status.engine)


def placed(placement: Placement) -> dict[str, Any]:
    """One way to put an engine."""
    return {**asdict(placement), "devices": dict(placement.devices), "device": placement.device}


def _running(corral: Corral, engine: Engine) -> dict[str, Any]:
    facts = engine.session.facts
    found: dict[str, Any] = {
        "loaded": True,
        "engine": engine.id,
        "revision": engine.revision,
        "context": facts.context,
        "slots": engine.limit or facts.slots,
        "device": facts.device,
        "notes": list(facts.notes),
        "in_flight": engine.in_flight,
        "served": engine.served,
        "footprint": dict(engine.footprint) or None,
        "peak": dict(engine.peak) or None,
        "loaded_at": engine.loaded_at,
        "load_seconds": engine.load_seconds if engine.load_seconds < inf else None,
        "idle_seconds": None if engine.in_flight else max(0.0, corral.clock.now() - engine.last_used),
    }
    if facts.capabilities is not None:
        found["capabilities"] = sorted(facts.capabilities)
    return found
