"""Requests on their way: who plans them, what they cost, what is noted of them. Put together for one `Corral`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from corral.app import ahead
from corral.errors import ModelNotFound
from corral.kit.disk import in_thread
from corral.observability.logs import tell
from corral.observability.tracing import tracing
from corral.routing.carrying import Carrier
from corral.routing.composing import Composer
from corral.routing.keys import seen_by
from corral.routing.layout import legs_of
from corral.routing.ledger import Ledger
from corral.routing.limits import Limits
from corral.routing.parts import Parts
from corral.routing.plan import Facts, Plan, Route, refusal
from corral.routing.policies import conversation, guess_tokens
from corral.routing.prices import Prices
from corral.routing.purse import Purse

if TYPE_CHECKING:
    from corral.app.corral import Corral
    from corral.domain.money import Price
    from corral.lifecycle.engines import Engine
    from corral.observability.record import Record
    from corral.routing.order import Order

_LOOK = 0.5
"""Seconds between two looks whether the database is needed yet."""


class Traffic:
    """What requests need, of one `Corral`. Creating it does no I/O.

    Args:
        corral: the other parts.
    """

    def __init__(self, corral: Corral) -> None:
        settings = corral.settings
        self._corral = corral
        self.metrics = corral.metrics
        self.limits = Limits(corral.clock.now)
        self.books = corral.books
        self.tracing = tracing(corral.env)
        # For people the request's line is enough; programs get one of the answer beside it.
        self._tells = settings.log.requests and settings.log.format == "json"
        self.ledger = Ledger(
            corral.database,
            settings.home,
            corral.clock,
            lease=settings.ledger.lease,
            write_every=settings.usage.write_every,
        )
        self.prices = Prices(settings.prices, settings.ledger.electricity, corral.clock)
        self.purse = Purse(self.ledger, self._price, lambda: corral.settings.ledger.max_tokens, self._there)
        corral.routes.price = self.prices.of
        self.composer = Composer(self._lacking)
        self.carrier = Carrier(
            Parts(
                dispatcher=corral.dispatcher,
                composer=self.composer,
                planner=self,
                breakers=corral.routes.breakers,
                money=self.purse,
                notes=self,
                clock=corral.clock,
                timeouts=corral.timeouts,
                within=lambda: corral.settings.routing.retry_within,
            )
        )
        self._probing: set[asyncio.Task[None]] = set()

    # Who plans

    def plan(self, order: Order) -> Plan:
        """Where an order may go.

        Raises:
            CorralError: nowhere.
        """
        routes, caller = self._corral.routes, order.caller
        found = routes.find(order.model)
        if isinstance(found, Plan):
            if not caller.models and not routes.breakers.wait(found.name):
                return found
            route = Route(order.model, legs_of(found), found)
        else:
            route = found
        plan = routes.plan(route, self.facts(order, sticky=route.sticky))
        for each in legs_of(route.whole):
            if routes.breakers.due(each.model):
                self._look_at(each.model)
        if not plan.candidates:
            if isinstance(found, Plan) and any(each.code == ModelNotFound.code for each in plan.dropped):
                raise self._corral.unknown(order.model, seen_by(caller))
            raise refusal(plan)
        return plan

    def facts(self, order: Order, *, sticky: bool) -> Facts:
        """What of an order decides who can answer it; `sticky`: who had its conversation before, too."""
        return Facts(
            needs=order.needs,
            prompt=guess_tokens(order.document),
            answer=order.max_tokens,
            strict=order.strict,
            place=self._place(order) if sticky else None,
            may=seen_by(order.caller),
        )

    def answered(self, order: Order, model: str, seconds: float) -> None:
        """`model` has answered an order that had several candidates."""
        routes = self._corral.routes
        routes.speeds.note(model, seconds)
        found = routes.find(order.model)
        if not isinstance(found, Route) or not found.sticky:
            return
        key = conversation(order.caller.id, order.document)
        if key is not None:
            routes.stickiness.keep(key, model)

    def _place(self, order: Order) -> str | None:
        key = conversation(order.caller.id, order.document)
        return None if key is None else self._corral.routes.stickiness.place(key)

    def _look_at(self, model: str) -> None:
        """Look, at no cost, whether a candidate that was left alone is well again."""
        if self._corral.routes.breakers.claim(model):
            task = asyncio.create_task(self._probe(model))
            self._probing.add(task)
            task.add_done_callback(self._probing.discard)

    async def _probe(self, model: str) -> None:
        corral = self._corral
        engine = corral.supervisor.begin(model)
        if engine is None:  # there is nothing to ask: the next request loads it, and shows
            corral.routes.breakers.probed(model, well=True)
            return
        well = False
        try:
            well = await engine.session.healthy()
        finally:
            corral.supervisor.end(engine)
            corral.routes.breakers.probed(model, well=well)

    def _lacking(self, engine: Engine) -> tuple[str, ...]:
        """What an engine's answers are less than this machine could give."""
        launch, limits = engine.launch, self._corral.memory.limits()
        demand = launch.runtime.demand(launch.spec)
        if demand is None or demand.device == "cpu" or demand.layers == 0 or not limits.keys() - {"cpu"}:
            return ()
        used = engine.placement.devices.keys()
        if not used or not used <= {"cpu"}:
            return ()
        return ("device: it runs on the processor although there is a GPU",)

    # What it costs

    def _price(self, engine: Engine) -> Price:
        endpoint = engine.session.endpoint
        return self.prices.of(engine.model, endpoint.provider, endpoint.model, not engine.remote)

    def price_of(self, model: str, _runtime: str = "") -> Price:
        """What a model costs now; `UNKNOWN` for one that is gone, and that the configuration has no price of."""
        return self._corral.routes.priced(model).price or self.prices.of(model, None, None, False)

    def _there(self) -> bool:
        """Whether there is a database: to look for budgets is no reason to make one."""
        file = self._corral.database.file
        return file is None or file.exists()

    # What is noted

    def record(self, record: Record) -> None:
        """Note an answer."""
        self.books.record(record)
        self._count(record)

    def kept(self, record: Record) -> None:
        """Note an answer that somebody else writes down."""
        self.books.remember(record)
        self._count(record)

    def _count(self, record: Record) -> None:
        self.metrics.record(record)
        if self.tracing is not None:
            self.tracing.record(record)
        if self._tells:
            tell(record)
        used = record.usage
        if used is not None:
            self.limits.spend(record.caller, used.input + used.output)

    def forget(self, engine: Engine) -> None:
        """An engine is gone."""
        self.composer.forget(engine)

    # Its time

    async def run(self) -> None:
        """Write down, give back what is idle, notice changes; until cancelled.

        The database's library is a third of an idle server's memory: it waits for something to write or to read.
        """
        while not (self._there() or self.books.waiting):
            await self._corral.clock.sleep(_LOOK)
        await ahead.books()
        await asyncio.gather(self.books.run(), self.ledger.run())

    async def close(self) -> None:
        """Write down what is left."""
        for task in self._probing:
            task.cancel()
        await self.ledger.close()
        await self.books.close()
        if self.tracing is not None:
            await in_thread(self.tracing.close)
