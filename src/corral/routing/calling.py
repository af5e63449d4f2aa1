"""One call of one candidate: its engine ready, its money held, its tokens counted, the head of its answer there."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

import orjson

from corral.domain.money import Usage
from corral.domain.ports import Counter, Report, silent
from corral.domain.receipts import Attempt
from corral.errors import ContextOverflow, CorralError, Degraded, UpstreamError, UpstreamTimeout
from corral.kit.upstream import Timeouts, unsent
from corral.routing.book import Amounts
from corral.routing.faults import Refused
from corral.routing.ledger import NOTHING, Hold
from corral.routing.order import BYTES_A_TOKEN
from corral.routing.passage import Passage
from corral.routing.policies import Action, Verdict, classify, judge
from corral.routing.purse import worst

if TYPE_CHECKING:
    from corral.domain.money import Price
    from corral.lifecycle.engines import Engine
    from corral.routing.carrying import Carrying
    from corral.routing.composing import Call
    from corral.routing.order import Order
    from corral.routing.plan import Patience


LEFT = Verdict(Action.GIVE_UP, "client_gone", "the client left before it answered")


class Missed(Exception):
    """A call gave no answer: why, what that means, and what it cost all the same."""

    def __init__(self, error: CorralError, verdict: Verdict, attempt: Attempt, *, remote: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.verdict = verdict
        self.attempt = attempt
        self.remote = remote


class Calling:
    """One call of `model`; see `dispatch.Asking`. `engine` and `price` are whom it came to, `sent` is what that got.

    `used` and `cost` are what is paid for it although nobody gets the answer. `held` is for who gets it.
    """

    __slots__ = (
        "_carrying",
        "attempts",
        "called",
        "cost",
        "degraded",
        "engine",
        "held",
        "model",
        "needs",
        "price",
        "priority",
        "sent",
        "timeouts",
        "used",
        "wait_ms",
    )

    def __init__(self, carrying: Carrying, model: str) -> None:
        order, patience = carrying.order, carrying.plan.patience
        self.model = model
        self.needs = order.needs
        self.priority = order.priority
        self.timeouts = carrying.parts.timeouts if patience is None else patient(carrying.parts.timeouts, patience)
        self.attempts = self.cost = 0
        self.wait_ms = self.called = 0.0
        self.degraded: tuple[str, ...] = ()
        self.engine: Engine | None = None
        self.sent: Call | None = None
        self.held: Hold | None = None
        self.price: Price | None = None
        self.used: Usage | None = None
        self._carrying = carrying

    def prompt(self) -> Usage:
        """What an engine has read that never told what it used: reckoned."""
        body = self._carrying.order.body
        if body is None:
            body = b"" if self.sent is None else self.sent.body
        return Usage(len(body) // BYTES_A_TOKEN)

    async def go(self, report: Report = silent) -> Passage:
        """The answer, whose head is no refusal.

        Raises:
            Missed: there is none.
        """
        carrying = self._carrying
        dispatcher, started = carrying.parts.dispatcher, perf_counter()
        response = None
        try:
            engine, response = await dispatcher.open(self, report)
        except CorralError as failure:
            raise self._missed(failure, perf_counter() - started) from failure
        except asyncio.CancelledError:
            if self.sent is not None:
                self._pay_prompt()
            raise
        finally:
            carrying.calls += self.attempts
            carrying.wait_ms += self.wait_ms
            if response is None:
                self._release()
                self.over(self.cost)
        passage = Passage(carrying, self, engine, response)
        if response.status < 400:
            return passage
        try:
            error, verdict = await passage.refusal()
        finally:
            passage.close()
            passage.release()
        self.over(self.cost)
        attempt = attempted(self.model, verdict, engine, response.status, perf_counter() - self.called)
        raise Missed(error, verdict, attempt, remote=engine.remote)

    def left(self, verdict: Verdict) -> Attempt | None:
        """The call as it stands in the receipt when nobody waited for its answer; None: it was not made."""
        if self.sent is None:
            return None
        return attempted(self.model, verdict, self.engine, None, 0.0, self.used, self.cost)

    def _missed(self, error: CorralError, seconds: float) -> Missed:
        """A call without an answer. Where a vendor was too slow it is billed for its prompt: it may have read it."""
        engine, verdict = self.engine, classify(error)
        if isinstance(error, UpstreamTimeout) and not unsent(error):
            self._pay_prompt()
        attempt = attempted(self.model, verdict, engine, None, seconds, self.used, self.cost)
        return Missed(error, verdict, attempt, remote=engine is None or engine.remote)

    def _pay_prompt(self) -> None:
        """A vendor has been asked, and may have read the prompt. What is asked of this machine in vain is free."""
        engine, price = self.engine, self.price
        if engine is None or price is None or not engine.remote:
            return
        self.used = self.prompt()
        self.cost = price.cost(self.used) if price.known else 0
        held, self.held = self.held, None
        if held is not None:
            held.settle(Amounts(self.cost if price.known else None, self.used.input))

    def compose(self, engine: Engine) -> Call | None:
        """What the engine is sent; None when money for it must be waited for, or tokens be counted."""
        order, parts = self._carrying.order, self._carrying.parts
        if self.held is not None:
            self._release()
        self.sent, self.engine = None, engine
        self.price = price = parts.money.price(engine)
        if order.keeper is not None:
            risk = worst(order, price, parts.money.limit(order))
            self._carrying.risks[self] = risk.nano or 0
            whole = None if risk.nano is None else sum(self._carrying.risks.values())
            order.keeper.allow(risk._replace(nano=whole), self.model)
        self.held, limit = parts.money.hold(order, price)
        if self.held is None:
            return None
        call = parts.composer.compose(order, engine, self.model, limit)
        context = engine.session.facts.context
        # A token stands for a byte at least: most prompts cannot be too long, and are not counted.
        if context is not None and len(call.body) + (order.max_tokens or 0) > context and counts(engine):
            return None
        self.sent = call
        return call

    async def prepare(self, engine: Engine) -> Call:
        """What the engine is sent, once there is money for it and its tokens are counted."""
        order, parts = self._carrying.order, self._carrying.parts
        limit = None
        if self.held is None:
            self.held, limit = await parts.money.reserve(order, parts.money.price(engine), engine.model)
        elif self.held is not NOTHING:
            limit = parts.money.limit(order)
        call = parts.composer.compose(order, engine, self.model, limit)
        if counts(engine):
            self.degraded = await measure(engine, call, order, limit)
        self.sent = call
        return call

    def over(self, cost: int) -> None:
        """It has cost that much, and will cost no more."""
        if self in self._carrying.risks:
            self._carrying.risks[self] = cost

    def _release(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.release()


def attempted(
    model: str,
    verdict: Verdict,
    engine: Engine | None,
    status: int | None,
    seconds: float,
    usage: Usage | None = None,
    cost: int = 0,
) -> Attempt:
    """A call that gave nothing, for the receipt. `status` is that of its answer; None: there was none."""
    return Attempt(
        model,
        "" if engine is None else engine.runtime,
        None if engine is None else engine.id,
        verdict.code,
        verdict.reason,
        status,
        usage,
        cost,
        seconds,
        billed=usage is not None,
    )


def spoilt(passage: Passage, error: UpstreamError, failure: CorralError) -> Missed:
    """An answer that broke before any of it had reached the client, by `error`, which means `failure`. Settles it."""
    usage, cost = passage.missed(error)
    passage.pay(usage, cost)
    calling, engine, status = passage.calling, passage.engine, passage.response.status
    calling.over(cost or 0)
    verdict = judge(error.status, error.fault, error.retry_after) if isinstance(error, Refused) else classify(failure)
    attempt = attempted(calling.model, verdict, engine, status, perf_counter() - calling.called, usage, cost or 0)
    return Missed(failure, verdict, attempt, remote=engine.remote)


def counts(engine: Engine) -> bool:
    """Whether the engine is asked how long a prompt is before it gets it.

    A vendor is not: it would be another call over the net, and it refuses itself what is too long.
    """
    return engine.session.facts.counts and not engine.remote


async def measure(engine: Engine, call: Call, order: Order, limit: int | None) -> tuple[str, ...]:
    """Whether a prompt, counted by the engine itself, leaves room for the answer; what is less than asked for.

    Raises:
        ContextOverflow: it does not leave room for one token.
        Degraded: the order is strict, and there is not room for all that may be written.
    """
    session, context = engine.session, engine.session.facts.context
    count = await session.count(call.path, orjson.loads(call.body)) if isinstance(session, Counter) else None
    if count is None or context is None:
        return ()
    if count >= context:
        raise ContextOverflow(
            f"The prompt has {count} tokens, and the context of {engine.model!r} holds {context}.",
            f"Send less, or give the model more: models.{engine.model}.options.context",
            param="messages",
        )
    wanted = order.max_tokens or limit
    if wanted is None or count + wanted <= context:
        return ()
    said = f"context: {context - count} tokens of answer fit, {wanted} were asked for"
    if order.strict:
        raise Degraded(
            f"Model {engine.model!r} would have to stop early: the prompt has {count} tokens of its {context}, and "
            f"{wanted} of answer were asked for.",
            "Ask for fewer, send less, or ask without strict.",
            param="max_tokens",
        )
    return (said,)


def patient(usual: Timeouts, own: Patience) -> Timeouts:
    """The time-outs of a route."""
    return Timeouts(
        connect=usual.connect if own.connect is None else own.connect,
        first_byte=usual.first_byte if own.first_byte is None else own.first_byte,
        between=usual.between if own.between is None else own.between,
        total=usual.total if own.total is None else own.total,
    )
