"""From the configuration to routes: names within names laid out flat, and what is wrong with them said. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from corral.errors import ConfigError, nearest
from corral.routing.plan import FIRST, NEXT, Candidate, Leg, Patience, Plan, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from corral.config import ModelSettings
    from corral.config.traffic import RouteSettings


def lay(
    routes: Mapping[str, RouteSettings],
    models: Mapping[str, ModelSettings],
    retries: int = 1,
    canonical: Callable[[str], str] = str,
) -> dict[str, Route]:
    """Every name that leads to more than itself: `routes`, and models with fallbacks where no route has their name.

    A route within a route is replaced by its candidates, which have its share as its weights divide it and its limits;
    the outermost policy orders them all. A route may name the model that is called like itself. A model within a route
    is asked itself; its own fallbacks are for those who ask for it by name. `retries` holds where a route says none.
    `canonical` gives a model's own name.

    Raises:
        ConfigError: a route leads back to itself, has no models, or speaks of one that it does not have.
    """
    for name, entry in routes.items():
        _check(name, entry)
    laid: dict[str, tuple[Leg, ...]] = {}
    for name in routes:
        _legs(name, routes, canonical, laid, ())
    found = {name: _route(name, laid[name], entry, retries) for name, entry in routes.items()}
    for name, model in models.items():
        if model.fallback and name not in routes:
            legs = [Leg(name)]
            for other in model.fallback:
                legs += laid[other] if other in laid else [Leg(canonical(other))]
            legs = [legs[0], *(replace(leg, fallback=True) for leg in legs[1:])]
            found[name] = _ordered(name, _once(legs), retries)
    return found


def direct(name: str, retries: int = 1) -> Plan:
    """The plan for a model that nothing else stands in for."""
    return Plan(name, (Candidate(name, reason="nothing else was asked for"),), retries=retries)


def among(name: str, models: Sequence[str], retries: int = 1) -> Route:
    """The route `name` to `models`, in that order."""
    return _ordered(name, [Leg(model) for model in models], retries)


def legs_of(single: Plan) -> tuple[Leg, ...]:
    """The plan's candidates as legs."""
    return tuple(Leg(each.model, each.weight, each.limit, each.fallback) for each in single.candidates)


def _check(name: str, entry: RouteSettings) -> None:
    if not entry.models:
        raise ConfigError(f"routes.{name} has no models.", f"Write routes.{name}.models: [NAME, …].")
    for key, said in (("weights", entry.weights), ("limits", entry.limits)):
        for other in said:
            if other not in entry.models:
                close = nearest(other, entry.models, 1)
                hint = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(entry.models)}."
                raise ConfigError(f"routes.{name}.{key} names {other!r}, which is none of its models.", hint)
    if entry.policy == "weighted" and not any(entry.weights.get(model, 1.0) > 0 for model in entry.models):
        raise ConfigError(f"routes.{name}.weights gives nobody a share.", "Give one of its models more than 0.")


def _legs(
    name: str,
    routes: Mapping[str, RouteSettings],
    canonical: Callable[[str], str],
    laid: dict[str, tuple[Leg, ...]],
    trail: tuple[str, ...],
) -> tuple[Leg, ...]:
    """The candidates of the route `name`; `trail` are those that led to it."""
    if name in laid:
        return laid[name]
    if name in trail:
        circle = " → ".join([*trail[trail.index(name) :], name])
        raise ConfigError(f"The route {name!r} leads back to itself: {circle}.", "Take one of these steps out.")
    entry, legs = routes[name], list[Leg]()
    for member in entry.models:
        weight, limit = float(entry.weights.get(member, 1.0)), entry.limits.get(member)
        if member in routes and member != name:
            inner = _legs(member, routes, canonical, laid, (*trail, name))
            legs += _within(inner, weight, limit)
        else:
            legs.append(Leg(member if member == name else canonical(member), weight, limit))
    laid[name] = tuple(_once(legs))
    return laid[name]


def _within(inner: Sequence[Leg], weight: float, limit: int | None) -> list[Leg]:
    """The candidates of a route that stands within another with `weight` and `limit`."""
    total = sum(leg.weight for leg in inner) or 1.0
    return [replace(leg, weight=weight * leg.weight / total, limit=_least(leg.limit, limit)) for leg in inner]


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _once(legs: Sequence[Leg]) -> list[Leg]:
    """Each model where it stands first, with the shares of all its places."""
    found: dict[str, Leg] = {}
    for leg in legs:
        before = found.get(leg.model)
        if before is None:
            found[leg.model] = leg
        else:
            limit = _least(before.limit, leg.limit)
            found[leg.model] = replace(before, weight=before.weight + leg.weight, limit=limit)
    return list(found.values())


def _route(name: str, legs: Sequence[Leg], entry: RouteSettings, retries: int) -> Route:
    ordered = _ordered(name, legs, retries if entry.retries is None else entry.retries)
    waits = (entry.connect_timeout, entry.first_byte_timeout, entry.between_timeout, entry.total_timeout)
    whole = replace(
        ordered.whole,
        policy=entry.policy,
        hedge=entry.hedge,
        patience=None if waits == (None,) * 4 else Patience(*waits),
        overflow=entry.overflow,
        sticky=entry.sticky and entry.policy != "ordered" and len(legs) > 1,
    )
    return replace(ordered, whole=whole)


def _ordered(name: str, legs: Sequence[Leg], retries: int) -> Route:
    candidates = tuple(
        Candidate(leg.model, leg.weight, leg.limit, leg.fallback, NEXT if place else FIRST)
        for place, leg in enumerate(legs)
    )
    return Route(name, tuple(legs), Plan(name, candidates, retries=retries))
