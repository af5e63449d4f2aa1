"""Engines with as much context as clients ask for: one that has less is loaded again with more.

As with Ollama, whose clients say `num_ctx` with each request. An engine only ever grows while it is in memory, so that
clients that want different lengths do not have it loaded again and again; when it has left, it is as configured.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from corral.app import launching
from corral.dialects.canonical import Texts
from corral.errors import CorralError, ModelBusy

if TYPE_CHECKING:
    from corral.app.corral import Corral
    from corral.lifecycle.engines import Engine
    from corral.routing.order import Order

_FIELD = "num_ctx"
_PAUSE = 1.0
"""Seconds between two tries to stop an engine that is answering, where answers get no time to end."""


@dataclass(slots=True, eq=False)
class _Growth:
    """A model that is being loaded with more: how many ask for that, and the most that one of them wants."""

    wanted: int = 0
    askers: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Contexts:
    """What was asked for of late, by model, for one `Corral`."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._given: dict[str, int] = {}
        self._growing: dict[str, _Growth] = {}

    def of(self, model: str) -> int | None:
        """Tokens with which the model is loaded, at least; None is as configured."""
        return self._given.get(model)

    def forget(self, engine: Engine) -> None:
        """The engine is gone: the next one is as configured, unless this is what makes room for one with more."""
        if engine.model not in self._growing:
            self._given.pop(engine.model, None)

    async def provide(self, order: Order, name: str) -> float:
        """Have the engine of `name` hold as much as `order` asks for; the milliseconds that this took.

        Answers under way end first, and one reload serves all who ask meanwhile. What cannot be followed stays in the
        order, and is reported as ignored: on an engine elsewhere, or beyond what the model was trained for.

        Raises:
            DoesNotFit: this machine has not enough memory for it; the engine that was there still is.
            CorralError: there is no such model, or it cannot be loaded.
        """
        asked, model = order.context, self._corral.canonical(name)
        if asked is None:
            return 0.0
        if self._suffices(model, asked):
            _follow(order)
            return 0.0
        started = self._corral.clock.now()
        needed = await self._needed(model, asked)
        if needed is None:
            return 0.0
        if self._lacks(model, needed):
            await self._grow(model, needed)
        if self._suffices(model, asked):
            _follow(order)
        return (self._corral.clock.now() - started) * 1000

    def _suffices(self, model: str, asked: int) -> bool:
        """Whether there is an engine here that is known to hold so much."""
        engine, _ = self._corral.supervisor.outlook(model)
        if engine is None or engine.remote or engine.gone.is_set():
            return False
        held = engine.session.facts.context
        return held is not None and held >= asked

    async def _needed(self, model: str, asked: int) -> int | None:
        """Tokens that an engine may be given for so many; None where its runtime cannot be told."""
        corral = self._corral
        definition = await launching.defined(corral, model)
        engine, _ = corral.supervisor.outlook(model)
        known = {item.name for item in fields(corral.runtimes[definition.runtime].options)}
        if "context" not in known or "base_url" in known or (engine is not None and engine.remote):
            return None
        trained = None if definition.installed is None else definition.installed.revision.facts.get("context_length")
        return min(asked, trained) if isinstance(trained, int) and trained > 0 else asked

    def _lacks(self, model: str, needed: int) -> bool:
        """Whether there is no engine, or one that is known to hold less."""
        engine, _ = self._corral.supervisor.outlook(model)
        if engine is None or engine.gone.is_set():
            return True
        held = engine.session.facts.context
        return held is not None and held < needed

    async def _grow(self, model: str, needed: int) -> None:
        growth = self._growing.setdefault(model, _Growth())
        growth.wanted = max(needed, growth.wanted)
        growth.askers += 1
        try:
            async with growth.lock:
                if self._lacks(model, needed):
                    await self._load(model, needed, growth)
        finally:
            growth.askers -= 1
            if not growth.askers:
                del self._growing[model]

    async def _load(self, model: str, needed: int, growth: _Growth) -> None:
        """Load the model with what is wanted now; where that cannot be, it is as it was before."""
        corral, before = self._corral, self._given.get(model)
        try:
            # What would not fit is known before anything is given up; then those who want less still get theirs.
            self._given[model] = wanted = max(needed, growth.wanted)
            try:
                await launching.plan(corral, model)
            except CorralError:
                if wanted == needed:
                    raise
                growth.wanted = self._given[model] = needed
                await launching.plan(corral, model)
            await self._stop(model, self._given[model])
            async with corral.supervisor.lease(model):
                pass
        except BaseException:
            if before is None:
                self._given.pop(model, None)
            else:
                self._given[model] = before
            raise

    async def _stop(self, model: str, tokens: int) -> None:
        corral = self._corral
        while True:
            try:
                drain = corral.settings.engines.drain_grace
                await corral.supervisor.unload(model, drain=drain, reason=f"a context of {tokens} is asked for")
            except ModelBusy:
                await corral.clock.sleep(_PAUSE)
            else:
                return


def widened(corral: Corral, model: str, options: Any) -> Any:
    """The options of a launch with the context that clients asked for, where that is more."""
    asked = corral.contexts.of(model)
    if asked is None or not hasattr(options, "context"):
        return options
    return replace(options, context=max(asked, options.context or 0))


def _follow(order: Order) -> None:
    """Take the wish out of what the engine is sent: it is fulfilled, and not to be reported as ignored."""
    asked = order.asked
    if isinstance(asked, Texts):
        order.asked = replace(asked, like=replace(asked.like, extra=_without(asked.like.extra)))
    elif asked is not None and _FIELD in asked.extra:
        order.asked = replace(asked, extra=_without(asked.extra))


def _without(extra: Any) -> dict[str, Any]:
    return {name: value for name, value in extra.items() if name != _FIELD}
