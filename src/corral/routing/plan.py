"""Where a request goes: of a route's candidates those that can answer it, in order, each with its reason. Pure.

Route   what a name leads to, worked out once from the configuration (layout.py)
Facts   what one request asks for
Known   how a candidate stands just now
Plan    the candidates to ask, in this order, and those not to ask
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from corral.domain.models import Capability
from corral.domain.money import Price, Usage, dollars
from corral.errors import (
    CircuitOpen,
    ContextOverflow,
    CorralError,
    Degraded,
    EngineUnstable,
    Forbidden,
    ModelNotFound,
    NotSupported,
    UpstreamOverloaded,
)

_NOTHING: frozenset[Capability] = frozenset()
_GUESSED_PROMPT = 1000
_GUESSED_ANSWER = 500
"""Tokens by which prices are compared where nobody says how many."""
FIRST = "first in order"
NEXT = "next in order"
LAST = "nobody else is left, and it may be well again"
HELD = "it had this conversation before, and may have its beginning in its cache"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request asks for, as far as it decides who can answer it.

    `prompt` is how many tokens its prompt may have, an estimate, and `answer` how many may be written; None is unknown.
    `strict`: no fallback is taken. `place` is the candidate that had the conversation before. `may` says whether the
    caller may use a name; None: any.
    """

    needs: frozenset[Capability] = _NOTHING
    prompt: int | None = None
    answer: int | None = None
    strict: bool = False
    place: str | None = None
    may: Callable[[str], bool] | None = None


@dataclass(slots=True, eq=False)
class Known:
    """How a candidate stands. None is unknown, and keeps nobody from asking.

    `missing` is why it cannot be had at all, as a code and a reason. `context` in tokens. `ready`: it answers at once.
    `in_flight` counts its requests under way. `speed` is its seconds to the first byte of late. `alone` is for how many
    seconds its breaker leaves it alone, `unstable` when its next engine may be started; `why` says what it failed of.
    `due`: the breaker's pause is over, and nobody has looked yet whether it is well.
    """

    local: bool = False
    missing: tuple[str, str] | None = None
    capabilities: frozenset[Capability] | None = None
    context: int | None = None
    price: Price | None = None
    ready: bool = False
    in_flight: int = 0
    speed: float | None = None
    alone: float = 0.0
    due: bool = False
    unstable: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """Time-outs of a route, in seconds; None is as configured for all."""

    connect: float | None = None
    first_byte: float | None = None
    between: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """A model that a route may lead to. `weight` is its share, `limit` the most requests at a time.

    `fallback`: it stands in for the model that was asked for.
    """

    model: str
    weight: float = 1.0
    limit: int | None = None
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to ask, and why it stands where it does."""

    model: str
    weight: float = 1.0
    limit: int | None = None
    fallback: bool = False
    reason: str = FIRST


@dataclass(frozen=True, slots=True)
class Dropped:
    """A model not to ask, and why not. `retry_after` in seconds, where waiting helps."""

    model: str
    code: str
    reason: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask, in this order, and whom not. Every candidate of the route is in one of the two, once.

    `retries`, `hedge`, `patience` and `overflow` are the route's settings. `sticky`: whoever answers should be told to
    Stickiness.
    """

    name: str
    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...] = ()
    policy: str = "ordered"
    retries: int = 1
    hedge: float | None = None
    patience: Patience | None = None
    overflow: bool = True
    sticky: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """What a name leads to. `whole` is the plan where nothing stands against anybody and no policy changes the order.

    `sticky` is false where the order is always the same: there conversations stay together by themselves.
    """

    name: str
    legs: tuple[Leg, ...]
    whole: Plan

    @property
    def policy(self) -> str:
        """How candidates are ordered."""
        return self.whole.policy

    @property
    def sticky(self) -> bool:
        """Whether it is of use to know who had the conversation before."""
        return self.whole.sticky


def plan(facts: Facts, route: Route, known: Callable[[str], Known], pick: float = 0.0) -> Plan:
    """Whom to ask for what `facts` say. `pick`, from 0 to below 1, is what `weighted` draws with."""
    whole = route.whole
    kept: list[tuple[Leg, Known]] = []
    dropped: list[Dropped] = []
    allowed = facts.may is None or facts.may(route.name)
    for leg in route.legs:
        now = known(leg.model)
        obstacle = _obstacle(facts, leg, now, allowed=allowed, measured=whole.overflow)
        if obstacle is None:
            kept.append((leg, now))
        else:
            dropped.append(obstacle)
    if not dropped and whole.policy == "ordered":
        return whole
    if not kept:
        return _nevertheless(route, dropped, known)
    found = _ORDERS[whole.policy](kept, facts, pick)
    if facts.place is not None and whole.sticky:
        _stay(found, facts.place)
    return _with(whole, tuple(found), tuple(dropped))


def _with(whole: Plan, candidates: tuple[Candidate, ...], dropped: tuple[Dropped, ...]) -> Plan:
    """The route's plan with others in it; spelt out, as `replace` takes ten times as long."""
    return Plan(
        whole.name,
        candidates,
        dropped,
        whole.policy,
        whole.retries,
        whole.hedge,
        whole.patience,
        whole.overflow,
        whole.sticky,
    )


def _obstacle(facts: Facts, leg: Leg, now: Known, *, allowed: bool, measured: bool) -> Dropped | None:
    """Why the model is not to be asked; None when nothing stands against it."""
    if not allowed and facts.may is not None and not facts.may(leg.model):
        return Dropped(leg.model, Forbidden.code, "the key may not be used for it")
    if leg.fallback and facts.strict:
        return Dropped(leg.model, Degraded.code, "a strict request takes no fallback")
    if now.missing is not None:
        return Dropped(leg.model, *now.missing)
    if now.capabilities is not None and not facts.needs <= now.capabilities:
        lacks = ", ".join(sorted(facts.needs - now.capabilities))
        return Dropped(leg.model, NotSupported.code, f"it cannot do: {lacks}")
    passing = _passing(leg, now)
    if passing is not None:
        return passing
    if measured and now.context is not None and (facts.prompt or 0) + (facts.answer or 0) > now.context:
        return Dropped(leg.model, ContextOverflow.code, _too_long(facts, now.context))
    return None


def _passing(leg: Leg, now: Known) -> Dropped | None:
    """Why the model is not to be asked just now."""
    if now.alone:
        why = f": {now.why}" if now.why else ""
        till = "until somebody has looked" if now.due else f"for another {now.alone:.0f} s"
        return Dropped(leg.model, CircuitOpen.code, f"it is left alone {till}{why}", now.alone)
    if now.unstable:
        reason = f"its engines keep ending; the next may start in {now.unstable:.0f} s"
        return Dropped(leg.model, EngineUnstable.code, reason, now.unstable)
    if leg.limit is not None and now.in_flight >= leg.limit:
        reason = f"it has {now.in_flight} requests, and {leg.limit} at a time is the most"
        return Dropped(leg.model, UpstreamOverloaded.code, reason, 1.0)
    return None


def _too_long(facts: Facts, context: int) -> str:
    answer = "" if facts.answer is None else f" and {facts.answer} of answer"
    return f"about {facts.prompt or 0} tokens of prompt{answer} are more than its {context} of context"


def _nevertheless(route: Route, dropped: list[Dropped], known: Callable[[str], Known]) -> Plan:
    """Where nobody is left: one who may be well again, or who holds the longest prompt, counting it itself.

    Nobody is refused by an estimate, nor because the one request that would show how it stands was not sent.
    """
    legs = {leg.model: leg for leg in route.legs}
    due = [each for each in dropped if each.code == CircuitOpen.code and known(each.model).due]
    short = [each for each in dropped if each.code == ContextOverflow.code]
    chosen, reason = (due[0], LAST) if due else (None, "")
    if short:
        chosen = max(short, key=lambda each: known(each.model).context or 0)
        reason = f"no candidate holds more, and it counts itself: {chosen.reason}"
    if chosen is None:
        return _with(route.whole, (), tuple(dropped))
    rest = tuple(each for each in dropped if each.model != chosen.model)
    return _with(route.whole, (_candidate(legs[chosen.model], reason),), rest)


# The orders

_Kept = Sequence[tuple[Leg, Known]]


def _candidate(leg: Leg, reason: str) -> Candidate:
    return Candidate(leg.model, leg.weight, leg.limit, leg.fallback, reason)


def _ordered(kept: _Kept, _: Facts, __: float) -> list[Candidate]:
    return [_candidate(leg, NEXT if place else FIRST) for place, (leg, _known) in enumerate(kept)]


def _weighted(kept: _Kept, _: Facts, pick: float) -> list[Candidate]:
    """Drawn one after the other, each by its share of what is left; those without a share last, in order."""
    left = [leg for leg, _known in kept if leg.weight > 0]
    rest = [leg for leg, _known in kept if leg.weight <= 0]
    found: list[Candidate] = []
    while left:
        total = sum(leg.weight for leg in left)
        at, chosen = pick * total, len(left) - 1
        for place, leg in enumerate(left):
            if at < leg.weight:
                chosen = place
                break
            at -= leg.weight
        leg = left.pop(chosen)
        found.append(_candidate(leg, f"drawn {'after that ' if found else ''}by its share, {leg.weight / total:.0%}"))
        pick = min(max(at / leg.weight, 0.0), 1.0 - 1e-12)  # what is left of the number is as good as a new one
    return found + [_candidate(leg, "it has no share, and is asked only after the others") for leg in rest]


def _cheapest(kept: _Kept, facts: Facts, _: float) -> list[Candidate]:
    usage = Usage(
        _GUESSED_PROMPT if facts.prompt is None else facts.prompt,
        _GUESSED_ANSWER if facts.answer is None else facts.answer,
    )
    costs = [(_cost(now.price, usage), leg) for leg, now in kept]
    costs.sort(key=lambda each: (each[0] is None, each[0] or 0))
    return [_candidate(leg, _priced(cost)) for cost, leg in costs]


def _priced(cost: int | None) -> str:
    if cost is None:
        return "its price is not known"
    return f"it costs up to ${dollars(cost):.9g}" if cost else "it costs nothing"


def _cost(price: Price | None, usage: Usage) -> int | None:
    return None if price is None or not price.known else price.cost(usage)


def _fastest(kept: _Kept, _: Facts, __: float) -> list[Candidate]:
    by_speed = sorted(kept, key=lambda each: each[1].speed or 0.0)
    return [
        _candidate(
            leg,
            "nothing is known of its speed of late"
            if now.speed is None
            else f"its first byte came after {now.speed:.3g} s of late",
        )
        for leg, now in by_speed
    ]


def _least_busy(kept: _Kept, _: Facts, __: float) -> list[Candidate]:
    by_work = sorted(kept, key=lambda each: each[1].in_flight)
    return [_candidate(leg, f"it has {now.in_flight} requests under way") for leg, now in by_work]


_ORDERS: dict[str, Callable[[_Kept, Facts, float], list[Candidate]]] = {
    "ordered": _ordered,
    "weighted": _weighted,
    "cheapest": _cheapest,
    "fastest": _fastest,
    "least_busy": _least_busy,
}


def _stay(found: list[Candidate], place: str) -> None:
    """Put the candidate that had the conversation before others, where it can still have it."""
    for index, candidate in enumerate(found):
        if candidate.model == place:
            del found[index]
            found.insert(0, replace(candidate, reason=HELD))
            return


# When nobody is left

_SOON: tuple[type[CorralError], ...] = (UpstreamOverloaded, CircuitOpen, EngineUnstable)
_NEVER: tuple[type[CorralError], ...] = (NotSupported, Degraded, ModelNotFound, Forbidden)
_HINTS = {
    Forbidden.code: "See what it may be used for: corral keys list",
    Degraded.code: "Ask without strict, or ask for the other model by its name.",
    ModelNotFound.code: "See what there is: corral list, or GET /v1/models.",
}


def refusal(found: Plan) -> CorralError:
    """The error for a request whose plan has no candidates: the nearest to being mended, with every reason."""
    by_code = {each.code: each for each in reversed(found.dropped)}
    kind = next((kind for kind in (*_SOON, *_NEVER) if kind.code in by_code), None)
    reasons = "; ".join(f"{each.model}: {each.reason}" for each in found.dropped)
    waits = [each.retry_after for each in found.dropped if each.retry_after is not None]
    after = max(1.0, min(waits)) if waits else None
    if kind is None:
        kind = ModelNotFound
    only = len(found.dropped) == 1 and found.dropped[0].model == found.name
    message = reasons if only else f"No candidate of {found.name!r} can answer this: {reasons or 'it has none'}"
    hint = _HINTS.get(kind.code, "See each reason: corral explain --request FILE")
    return kind(f"{message}.", hint, param="model", retry_after=after)
