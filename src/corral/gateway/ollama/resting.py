"""Requests without a prompt: they bring a model into memory, or let it go, as clients of Ollama expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.errors import ModelBusy
from corral.gateway.ollama.described import moment

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.routing.order import Order

_FORMS = frozenset(("ollama.chat", "ollama.generate", "ollama.raw"))


def empty(order: Order) -> bool:
    """Whether nothing is asked of the model."""
    if order.form.name not in _FORMS:
        return False
    document = order.document
    if order.form.name == "ollama.chat":
        return not document.get("messages")
    return not document.get("prompt") and not document.get("images") and not document.get("suffix")


async def rest(corral: Corral, order: Order) -> dict[str, Any]:
    """Load the model, or let it go where `keep_alive` is 0, and say so.

    One that is still answering goes when it has answered.

    Raises:
        CorralError: there is no such model, the caller may not use it, or it cannot be loaded.
    """
    model = corral.canonical(corral.traffic.plan(order).candidates[0].model)
    if order.keep_alive == 0:
        await _let_go(corral, model)
    else:
        await corral.contexts.provide(order, model)
        await corral.load(model, keep_alive=order.keep_alive)
    answer: dict[str, Any] = {"model": order.model, "created_at": moment(corral.clock.wall())}
    if order.form.name == "ollama.chat":
        answer["message"] = {"role": "assistant", "content": ""}
    else:
        answer["response"] = ""
    return answer | {"done": True, "done_reason": "unload" if order.keep_alive == 0 else "load"}


async def _let_go(corral: Corral, model: str) -> None:
    try:
        await corral.unload(model, drain=0)
    except ModelBusy:
        engine = corral.supervisor.begin(model)
        if engine is not None:
            corral.supervisor.end(engine, 0)
