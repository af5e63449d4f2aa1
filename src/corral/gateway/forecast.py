"""What would become of a request, told without sending it: whom it would go to, why, and what it could cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects.form import Kind, native
from corral.domain.callers import LOCAL, Caller
from corral.domain.money import Usage, dollars
from corral.errors import CorralError, UnknownOption
from corral.gateway.inference.doors import DOORS, Asked, Door, read
from corral.routing.composing import too_deep
from corral.routing.keys import seen_by
from corral.routing.plan import Candidate, Facts, Plan, Route, refusal
from corral.routing.purse import worst

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.app import Corral
    from corral.routing.order import Order

DIALECTS = ("openai", "anthropic", "gemini", "ollama")
_FORMS: Mapping[str, Door] = {door.form: door for door in DOORS.values()} | {"gemini.generate": Door("gemini.generate")}


def order_of(
    document: Mapping[str, Any],
    dialect: str = "openai",
    model: str | None = None,
    *,
    strict: bool = False,
    caller: Caller = LOCAL,
) -> Order:
    """The request as it would come through its door.

    Args:
        document: its body.
        dialect: whose chat it is, as `anthropic`; or the form of another call, as `openai.embeddings`.
        model: the name asked for, where the body does not say it.
        strict: as the header `x-corral-strict`.
        caller: who asks.

    Raises:
        UnknownOption: there is no such dialect.
        InvalidRequest: it is no such request; names the field.
    """
    name = native(dialect, Kind.CHAT) if dialect in DIALECTS else dialect
    door = None if name is None else _FORMS.get(name)
    if door is None:
        raise UnknownOption.among(dialect, [*DIALECTS, *_FORMS], "a dialect")
    named = {**document, "model": model} if model is not None else document
    try:
        body = orjson.dumps(named)
    except TypeError as error:
        raise too_deep() from error
    return read(door, body, Asked("explained", caller, strict, model))


async def forecast(corral: Corral, order: Order) -> dict[str, Any]:
    """The plan for an order, with figures: tokens, US dollars, and for local models what loading them would take.

    Nothing is sent, loaded, reserved or drawn. `cost` is what the answer costs when it is as long as it may be, `worst`
    what a budget must have left: both None where the price is not known.

    Raises:
        ModelNotFound: the name means nothing.
    """
    traffic, found = corral.traffic, corral.routes.find(order.model)
    facts = traffic.facts(order, sticky=isinstance(found, Route) and found.sticky)
    plan = corral.routes.preview(order.model, facts)
    if not plan.candidates and isinstance(found, Plan):
        corral.definition(order.model, seen_by(order.caller))  # says best why there is no such model
    told: dict[str, Any] = {
        "model": order.model,
        "means": plan.name,
        "policy": plan.policy,
        "needs": sorted(order.needs),
        "prompt_tokens": facts.prompt,
        "max_tokens": order.max_tokens,
        "retries": plan.retries,
        "hedge": plan.hedge,
        "sticky": plan.sticky,
        "candidates": [await _candidate(corral, order, facts, each) for each in plan.candidates],
        "dropped": [asdict(each) for each in plan.dropped],
        "error": None,
    }
    if not plan.candidates:
        error = refusal(plan)
        told["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
    return told


async def _candidate(corral: Corral, order: Order, facts: Facts, candidate: Candidate) -> dict[str, Any]:
    known = corral.routes.priced(candidate.model)
    limit = corral.traffic.purse.limit(order)
    price, cost, at_most = known.price, None, None
    if price is not None and price.known:
        cost = dollars(price.cost(Usage(input=facts.prompt or 0, output=limit)))
        most = worst(order, price, limit).nano
        at_most = None if most is None else dollars(most)
    return {
        **asdict(candidate),
        "local": known.local,
        "ready": known.ready,
        "context": known.context,
        "in_flight": known.in_flight,
        "first_byte_seconds": known.speed,
        "price": None if price is None else price.source,
        "cost": cost,
        "worst": at_most,
        "memory": await _memory(corral, candidate.model) if known.local and not known.ready else None,
    }


async def _memory(corral: Corral, model: str) -> dict[str, Any]:
    """What would happen in memory, were it asked now."""
    try:
        found = await corral.supervisor.explain(model)
    except CorralError as error:
        return {"verdict": "refused", "reason": error.message, "steps": []}
    return {"verdict": found.verdict, "reason": found.reason, "steps": list(found.steps)}
