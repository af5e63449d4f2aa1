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
from corral.routing.dispatch import Ask
from corral.routing.faults import Refused
from corral.routing.ledger import NOTHING, Hold
from corral.routing.order import BYTES_A_TOKEN
from corral.routing.passage import Passage
from corral.routing.policies import Action, Verdict, classify, judge

if TYPE_CHECKING:
    from corral.domain.money import Price
    from corral.lifecycle.engines import Engine
    from corral.routing.carrying import Carrying
    from corral.routing.composing import Call
    from corral.routing.dispatch import Answer
    from corral.routing.order import Order
    from corral.routing.plan import Candidate, Patience


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
    """One call of `candidate`. What it counts is added to `carrying`. `engine` and `price` are whom it came to.

    `used` and `cost` are what is paid for it although nobody gets the answer, `sent` the bytes of what it was asked.
    """

    __slots__ = ("_asked", "_carrying", "_held", "candidate", "cost", "degraded", "engine", "price", "sent", "used")

    def __init__(self, carrying: Carrying, candidate: Candidate) -> None:
        self.candidate = candidate
        self.degraded: tuple[str, ...] = ()
        self._carrying = carrying
        self.engine: Engine | None = None
        self._held: Hold | None = None
        self.price: Price | None = None
        self.used: Usage | None = None
        self.cost = self.sent = 0
        self._asked = False

    def prompt(self) -> Usage:
        """What an engine has read that never told what it used: reckoned."""
        body = self._carrying.order.body
        return Usage((self.sent if body is None else len(body)) // BYTES_A_TOKEN)

    async def go(self, report: Report = silent) -> Passage:
        """The answer, whose head is no refusal.

        Raises:
            Missed: there is none.
        """
        carrying = self._carrying
        order, parts, patience = carrying.order, carrying.parts, carrying.plan.patience
        ask = Ask(
            self.candidate.model,
            self._compose,
            self._prepare,
            order.needs,
            order.keep_alive,
            order.priority,
            parts.timeouts if patience is None else patient(parts.timeouts, patience),
        )
        started = perf_counter()
        answer = None
        try:
            answer = await parts.dispatcher.open(ask, report)
        except CorralError as failure:
            raise self._missed(failure, perf_counter() - started) from failure
        except asyncio.CancelledError:
            if self._asked:
                self._pay_prompt()
            raise
        finally:
            carrying.calls += ask.attempts
            carrying.wait_ms += ask.wait_ms
            if answer is None:
                self._release()
        held, self._held = self._held, None
        passage = Passage(carrying, self, answer, held, self.price)
        if answer.response.status < 400:
            return passage
        try:
            error, verdict = await passage.refusal()
        finally:
            passage.close()
            passage.release()
        attempt = attempted(self.candidate.model, verdict, answer, perf_counter() - answer.called)
        raise Missed(error, verdict, attempt, remote=answer.engine.remote)

    def left(self, verdict: Verdict) -> Attempt | None:
        """The call as it stands in the receipt when nobody waited for its answer; None: it was not made."""
        if not self._asked:
            return None
        return attempted(self.candidate.model, verdict, None, 0.0, self.engine, self.used, self.cost)

    def _missed(self, error: CorralError, seconds: float) -> Missed:
        """A call without an answer. Where a vendor was too slow it is billed for its prompt: it may have read it."""
        engine, verdict = self.engine, classify(error)
        if isinstance(error, UpstreamTimeout) and not unsent(error):
            self._pay_prompt()
        attempt = attempted(self.candidate.model, verdict, None, seconds, engine, self.used, self.cost)
        return Missed(error, verdict, attempt, remote=engine is None or engine.remote)

    def _pay_prompt(self) -> None:
        """A vendor has been asked, and may have read the prompt. What is asked of this machine in vain is free."""
        engine, price = self.engine, self.price
        if engine is None or price is None or not engine.remote:
            return
        self.used = self.prompt()
        self.cost = price.cost(self.used) if price.known else 0
        held, self._held = self._held, None
        if held is not None:
            held.settle(Amounts(self.cost if price.known else None, self.used.input))

    def _compose(self, engine: Engine) -> Call | None:
        """What the engine is sent; None when money for it must be waited for, or tokens be counted."""
        order, parts = self._carrying.order, self._carrying.parts
        self._release()
        self._asked = False
        self.engine = engine
        self.price = price = parts.money.price(engine)
        self._held, limit = parts.money.hold(order, price)
        if self._held is None:
            return None
        call = parts.composer.compose(order, engine, self.candidate.model, limit)
        context = engine.session.facts.context
        # A token stands for a byte at least: most prompts cannot be too long, and are not counted.
        if context is not None and len(call.body) + (order.max_tokens or 0) > context and counts(engine):
            return None
        self._asked, self.sent = True, len(call.body)
        return call

    async def _prepare(self, engine: Engine) -> Call:
        order, parts = self._carrying.order, self._carrying.parts
        limit = None
        if self._held is None:
            self._held, limit = await parts.money.reserve(order, parts.money.price(engine), engine.model)
        elif self._held is not NOTHING:
            limit = parts.money.limit(order)
        call = parts.composer.compose(order, engine, self.candidate.model, limit)
        if counts(engine):
            self.degraded = await measure(engine, call, order, limit)
        self._asked, self.sent = True, len(call.body)
        return call

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()


def attempted(
    model: str,
    verdict: Verdict,
    answer: Answer[Call] | None,
    seconds: float,
    engine: Engine | None = None,
    usage: Usage | None = None,
    cost: int = 0,
) -> Attempt:
    """A call that gave nothing, for the receipt."""
    asked = engine if answer is None else answer.engine
    return Attempt(
        model,
        "" if asked is None else asked.runtime,
        None if asked is None else asked.id,
        verdict.code,
        verdict.reason,
        None if answer is None else answer.response.status,
        usage,
        cost,
        seconds,
        billed=usage is not None,
    )


def spoilt(passage: Passage, error: UpstreamError, failure: CorralError) -> Missed:
    """An answer that broke before any of it had reached the client, by `error`, which means `failure`. Settles it."""
    usage, cost = passage.missed(error)
    passage.pay(usage, cost)
    answer, model = passage.answer, passage.calling.candidate.model
    verdict = judge(error.status, error.fault, error.retry_after) if isinstance(error, Refused) else classify(failure)
    attempt = attempted(model, verdict, answer, perf_counter() - answer.called, None, usage, cost or 0)
    return Missed(failure, verdict, attempt, remote=answer.engine.remote)


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
