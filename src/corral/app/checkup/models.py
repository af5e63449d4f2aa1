"""The store, the runtimes, the keys of vendors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.app.checkup.checks import Check, Verdict
from corral.domain.options import parse_options
from corral.domain.ports import Availability
from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corral.app.corral import Corral

_WHY_STORE = "What cannot be read there cannot be run."
_WHY_KEYS = "A vendor answers nobody without one. They are read from the environment, and never kept or shown."
_WHY_RUNTIME = "It runs models, or reaches them."
_ENDINGS = ("_API_KEY", "_TOKEN", "_ACCESS_KEY")


def store(corral: Corral) -> Check:
    """Whether it can be read what is installed."""
    try:
        count = len(corral.registry.names())
    except CorralError as error:
        return Check("store", Verdict.FAIL, error.message, error.hint, _WHY_STORE)
    detail = f"{count} model{'' if count == 1 else 's'} in {corral.settings.models_dir}"
    return Check("store", Verdict.OK, detail, why=_WHY_STORE)


def keys(corral: Corral) -> Check:
    """Whether the environment has the keys that the models of the configuration need. Names only are told."""
    missing: dict[str, list[str]] = {}
    for name in _named(corral):
        for variable in _secrets(corral, name):
            missing.setdefault(variable, []).append(name)
    if missing:
        said = "; ".join(f"{name} is not set, which {', '.join(who)} needs" for name, who in missing.items())
        return Check("keys", Verdict.FAIL, f"{said}.", f"export {next(iter(missing))}=…", _WHY_KEYS)
    there = sorted(name for name, value in corral.env.items() if name.endswith(_ENDINGS) and value.strip())
    return Check("keys", Verdict.OK, f"set: {', '.join(there)}" if there else "none set, none needed", why=_WHY_KEYS)


def _named(corral: Corral) -> list[str]:
    return [name for name, entry in corral.models.items() if entry.runtime is not None]


def _secrets(corral: Corral, name: str) -> tuple[str, ...]:
    """The variables of the environment that a model needs and that hold nothing."""
    try:
        definition = corral.definition(name)
        runtime = corral.runtimes[definition.runtime]
        wanted = getattr(runtime, "secrets", None)
        if wanted is None:
            return ()
        options = parse_options(runtime.options, definition.options, name)
    except CorralError:
        return ()  # what is wrong with it is told by the checks of the runtimes
    alternatives: tuple[str, ...] = wanted(options)
    if any(corral.env.get(variable, "").strip() for variable in alternatives):
        return ()
    return alternatives[:1]


async def runtimes(corral: Corral) -> AsyncIterator[Check]:
    """What each runtime says of itself. One that a model here needs must be usable."""
    needed, problems = _needed(corral)
    for kind in corral.runtimes:
        try:
            found = await corral.runtimes[kind].probe()
        except CorralError as error:
            found = Availability(usable=False, reason=error.message, hint=error.hint)
        yield judge(kind, found, needed.get(kind, []))
    for name, problem in problems.items():
        yield Check("model", Verdict.FAIL, f"{name}: {problem.message}", problem.hint)


def judge(kind: str, found: Availability, models: list[str]) -> Check:
    """A runtime's own word as a check."""
    if found.usable:
        version = f" {found.version}" if found.version else ""
        devices = f" on {', '.join(found.devices)}" if found.devices else ""
        return Check(kind, Verdict.OK, f"runtime{version}{devices}, usable", why=_WHY_RUNTIME)
    if not models:
        return Check(kind, Verdict.WARN, f"runtime not usable: {found.reason}", found.hint, _WHY_RUNTIME)
    detail = f"needed by {', '.join(models)}, not usable: {found.reason}"
    return Check(kind, Verdict.FAIL, detail, found.hint, _WHY_RUNTIME)


def _needed(corral: Corral) -> tuple[dict[str, list[str]], dict[str, CorralError]]:
    """The models by the runtime that they need, and why that cannot be told of others.

    Where the store cannot be read, they are those that the configuration gives a runtime.
    """
    needed: dict[str, list[str]] = {}
    problems: dict[str, CorralError] = {}
    try:
        names = corral.names()
    except CorralError:
        for name, entry in corral.models.items():
            if entry.runtime is not None:
                needed.setdefault(entry.runtime, []).append(name)
        return needed, problems
    for name in names:
        try:
            needed.setdefault(corral.definition(name).runtime, []).append(name)
        except CorralError as error:
            problems[name] = error
    return needed, problems
