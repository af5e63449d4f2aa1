"""Carries an order out: candidate after candidate until one answers, its money held meanwhile, and all of it noted.

    carrying = carrier.begin(order)
    while True:
        passage = await carrying.open()                     # the head of an answer is there, and it is no refusal
        try:
            outcome = await relay(passage.response, send, passage.render, onlooker=passage, …)
        except UpstreamError as error:                      # nothing has reached the client
            await carrying.failed(passage, error)           # returns when another call may answer
        else:
            carrying.finish(passage, outcome)
            break
        finally:
            passage.close()

Before the first byte a failure leads to another call, and the client notices nothing; after it never: then the stream
ends with an error. Whatever was called is in the record, and what it cost is in the books.
"""

from __future__ import annotations

import asyncio
import re
from time import perf_counter
from typing import TYPE_CHECKING

from corral.dialects.canonical import Stop
from corral.domain.ports import Report, silent
from corral.domain.receipts import Attempt, Fallback
from corral.errors import CorralError, Degraded, UpstreamError
from corral.observability.record import Record, receipt_json
from corral.routing.calling import LEFT, Calling, Missed, spoilt
from corral.routing.dispatch import broken
from corral.routing.faults import Refused
from corral.routing.hedging import race
from corral.routing.policies import Action, backoff, classify

if TYPE_CHECKING:
    from corral.kit.relay import Outcome
    from corral.kit.response import Header
    from corral.lifecycle.engines import Engine
    from corral.routing.order import Order
    from corral.routing.parts import Parts
    from corral.routing.passage import Passage
    from corral.routing.plan import Candidate, Plan

_FACTS_KEPT = 500
_UNFIT = re.compile(rb"[\x00-\x1f\x7f]")
_LONGEST_HEADER = 2000
_STOPS: dict[str, str] = {
    Stop.END: "stop",
    Stop.SEQUENCE: "stop",
    Stop.LENGTH: "length",
    Stop.TOOLS: "tool_calls",
    Stop.FILTER: "content_filter",
}
"""Why an answer ended, in the words of OpenAI, which most know."""


class Carrier:
    """Carries orders out."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.facts: dict[str, tuple[Header, ...]] = {}

    def begin(self, order: Order) -> Carrying:
        """An order's way.

        Raises:
            CorralError: there is nowhere to go; it is on record.
        """
        try:
            return Carrying(self, order, self.parts.planner.plan(order))
        except CorralError as error:
            self.refuse(order, error)
            raise

    def refuse(self, order: Order, error: CorralError) -> None:
        """Note an order that came to nothing before anybody was asked."""
        record = self.note(order)
        record.status, record.error, record.message = error.http_status, error.code, error.message
        record.ended = perf_counter()
        if order.keeper is not None:
            order.keeper.keep(record)
        self.write(order, record)

    def write(self, order: Order, record: Record) -> None:
        """Have a record noted, by its keeper or in the books."""
        (self.parts.notes.record if order.keeper is None else self.parts.notes.kept)(record)

    def note(self, order: Order) -> Record:
        """A record with what is known of an order from the beginning."""
        record = Record(order.request_id, self.parts.clock.wall(), order.started, order.caller)
        record.asked, record.dialect, record.stream = order.model, order.form.name, order.stream
        record.project = order.project or order.caller.project
        return record


class Carrying:
    """One order on its way. `calls` counts how often an engine was asked, `wait_ms` how long it waited for places.

    `risks` are, in nanodollars, what each call may cost, or has cost: kept for an order whose keeper allows calls.
    """

    __slots__ = (
        "_at",
        "_calls",
        "_carrier",
        "_first",
        "calls",
        "order",
        "parts",
        "plan",
        "risks",
        "settled",
        "tries",
        "wait_ms",
    )

    def __init__(self, carrier: Carrier, order: Order, plan: Plan) -> None:
        self.order = order
        self.plan = plan
        self.parts = carrier.parts
        self.calls = 0
        self.wait_ms = 0.0
        self.tries: tuple[Attempt, ...] = ()
        self.settled: Record | None = None
        self.risks: dict[Calling, int] = {}
        self._carrier = carrier
        self._at = 0
        self._calls = 0
        self._first: CorralError | None = None

    @property
    def candidate(self) -> Candidate:
        """Who is asked now."""
        return self.plan.candidates[self._at]

    async def open(self, report: Report = silent) -> Passage:
        """The next answer whose head is no refusal. It is to be closed, and to be told of by `failed` or `finish`.

        Raises:
            CorralError: no candidate is left, or none would do better; it is on record.
        """
        hedge, calling = self.plan.hedge, None
        while True:
            try:
                if hedge is not None and self._at + 1 < len(self.plan.candidates):
                    return await race(self, hedge, report)
                calling = Calling(self, self.candidate.model)
                return await calling.go(report)
            except Missed as missed:
                failure = missed
            except asyncio.CancelledError:
                attempt = None if calling is None else calling.left(LEFT)
                if attempt is not None:
                    self.tries = (*self.tries, attempt)
                raise
            try:
                await self.again(failure)
            finally:
                del failure  # its traceback holds this frame: together they would lie until they are looked for

    async def failed(self, passage: Passage, error: UpstreamError) -> None:
        """Of `passage`, nothing has reached the client, and nothing will: returns when another call may answer.

        Raises:
            CorralError: none may; it is on record.
        """
        engine, dispatcher = passage.engine, self.parts.dispatcher
        try:
            failure = await dispatcher.explain(engine, error)
        except asyncio.CancelledError:
            self.miss(spoilt(passage, error, error))
            raise
        dispatcher.doubt(engine, error)
        await self.again(spoilt(passage, error, failure))

    def finish(self, passage: Passage, outcome: Outcome) -> Record:
        """The answer has been carried, to its end or as far as it went. Settles what it cost, and notes it; once."""
        if self.settled is not None:
            self._belated(self.settled, outcome)
            return self.settled
        parts, engine = self.parts, passage.engine
        record = self._noted(passage)
        record.first = outcome.first_byte_at or 0.0
        record.status, record.gone = outcome.status, outcome.client_gone
        error = outcome.error or passage.reported
        if error is not None:
            told = broken(engine, error)
            record.error, record.message = told.code, told.message
            parts.dispatcher.doubt(engine, outcome.error)
            parts.breakers.failed(engine.model, classify(error))
        elif not outcome.client_gone:
            self._succeeded(passage, record)
        record.usage, record.cost = passage.used(outcome)
        try:
            if self.order.keeper is not None:
                self.order.keeper.keep(record)
        finally:
            passage.pay(record.usage, record.cost)
            self._note(record)
        return record

    def so_far(self, passage: Passage) -> Record:
        """What would be on record if the answer ended here. Settles nothing."""
        record = self.settled
        if record is None:
            record = self._noted(passage)
            record.usage = passage.meter.usage
        return record

    async def explain(self, passage: Passage, error: UpstreamError) -> CorralError:
        """`error`, which broke the answer in its middle, or that the engine died where that is the reason."""
        return await self.parts.dispatcher.explain(passage.engine, error)

    def comment(self, passage: Passage) -> bytes:
        """The receipt of a stream whose end is here, as a comment of server-sent events. Settles and notes it.

        Not where somebody keeps the answer: he has not got the end of it yet, and then says `finish`.
        """
        if self.order.keeper is not None:
            return b""
        record = self._noted(passage)
        record.first = record.heard = passage.first
        record.status = passage.response.status
        self._succeeded(passage, record)
        record.usage, record.cost = passage.used(None)
        passage.pay(record.usage, record.cost)
        self._note(record)
        return b": corral-receipt " + receipt_json(record) + b"\n\n"

    def headers(self, passage: Passage) -> list[Header]:
        """The facts of an answer that are known before its first byte."""
        engine, order, ignored = passage.engine, self.order, passage.call.ignored
        facts = self._carrier.facts.get(engine.id) or self._facts(engine)
        headers = [(b"x-request-id", order.request_id.encode()), *facts, (b"x-corral-attempts", b"%d" % self.calls)]
        if self.wait_ms:
            headers.append((b"x-corral-wait-ms", b"%d" % self.wait_ms))
        if ignored:
            # Names of fields that a client made up may hold anything, line breaks among it.
            words = ", ".join(ignored).encode("ascii", "backslashreplace")
            headers.append((b"x-corral-ignored", _UNFIT.sub(b"?", words)[:_LONGEST_HEADER]))
        return headers

    def gone(self) -> None:
        """The client went away before an answer could be relayed to it."""
        record = self._carrier.note(self.order)
        record.status, record.gone, record.attempts, record.wait_ms = 499, True, self.tries, self.wait_ms
        record.cost = 0 if self.tries else None
        record.ended = perf_counter()
        if self.order.keeper is not None:
            self.order.keeper.keep(record)
        self._note(record)

    # What comes of a failure

    async def again(self, missed: Missed) -> None:
        """Note a call that gave nothing, and return when another may; after a pause, where that is wise.

        Raises:
            CorralError: none may; it is on record.
        """
        parts, verdict, error = self.parts, missed.verdict, missed.error
        self.miss(missed)
        self._calls += 1
        if verdict.action is Action.GIVE_UP:
            raise self._ended(error)
        retries = self.plan.retries
        if verdict.action is Action.RETRY and self._calls <= retries:
            pause = backoff(self._calls, verdict.retry_after, parts.within(), parts.rand())
            if pause is not None:
                await parts.clock.sleep(pause)
                return
        if self._at + 1 >= len(self.plan.candidates):
            raise self._ended(self._told(error))
        self.forward()

    def miss(self, missed: Missed) -> None:
        """Note a call that gave nothing."""
        self._first = self._first or missed.error
        self.tries = (*self.tries, missed.attempt)
        if missed.remote:
            self.parts.breakers.failed(missed.attempt.model, missed.verdict)

    def forward(self) -> None:
        """Ask the next candidate from now on."""
        self._at += 1
        self._calls = 0

    def _told(self, last: CorralError) -> CorralError:
        """The error for the client when all have failed: that of the first, with why the others do not do either."""
        others = [each.model for each in self.plan.dropped if each.code == Degraded.code]
        if others:
            return Degraded(
                f"Model {self.candidate.model!r} cannot answer, and {others[0]!r} would have to: {last.message}",
                "Ask again later, or without strict.",
                param="model",
                retry_after=last.retry_after,
            )
        first = self._first or last
        missed = {each.model: each for each in self.tries}
        if len(missed) == 1 and not self.plan.dropped:
            return last
        plain = first.error if isinstance(first, Refused) else first
        said = [plain.message]
        said += [f"In its place {each.model!r} was asked: {each.message}" for each in list(missed.values())[1:]]
        said += [f"{each.model!r} was not asked: {each.reason}" for each in self.plan.dropped]
        words = " ".join(f"{each.rstrip().rstrip('.')}." for each in said)
        return type(plain)(words, plain.hint, retry_after=plain.retry_after)

    def _ended(self, error: CorralError) -> CorralError:
        """`error`, which is on record."""
        record = self._carrier.note(self.order)
        status = error.told if isinstance(error, Refused) else error.http_status
        record.status, record.error, record.message = status, error.code, error.message
        record.attempts, record.wait_ms, record.ended = self.tries, self.wait_ms, perf_counter()
        if self.tries:
            record.model = self.tries[-1].model
            record.cost = 0  # beside that of the attempts
        record.drops = self._drops()
        if self.order.keeper is not None:
            self.order.keeper.keep(record)
        self._note(record)
        return error

    # The record

    def _noted(self, passage: Passage) -> Record:
        engine, call, facts = passage.engine, passage.call, passage.engine.session.facts
        record = self._carrier.note(self.order)
        record.model, record.runtime, record.engine = engine.model, engine.runtime, engine.id
        record.revision = engine.revision
        record.device, record.context = facts.device, facts.context
        record.spoken = call.way.spoken.name
        record.ignored, record.attempts, record.wait_ms = call.ignored, self.tries, self.wait_ms
        record.sent, record.heard = passage.calling.called, passage.first
        stop = passage.meter.stop
        record.stop = None if stop is None else _STOPS.get(stop, stop)
        record.price, record.degraded = passage.price.source, call.way.lacking + passage.calling.degraded
        if self.plan.dropped:
            record.drops = self._drops()
        record.ended = perf_counter()
        return record

    def _drops(self) -> tuple[Fallback, ...]:
        return tuple(Fallback(each.model, each.code, each.reason) for each in self.plan.dropped)

    def _succeeded(self, passage: Passage, record: Record) -> None:
        parts, model = self.parts, passage.calling.model
        parts.breakers.succeeded(model)
        if len(self.plan.candidates) > 1:
            parts.planner.answered(self.order, model, (record.heard or record.ended) - passage.calling.called)

    def _note(self, record: Record) -> None:
        self.settled = record
        self._carrier.write(self.order, record)

    def _belated(self, record: Record, outcome: Outcome) -> None:
        """What happened after the receipt was written into the stream's end: only whether it arrived."""
        record.gone = outcome.client_gone

    def _facts(self, engine: Engine) -> tuple[Header, ...]:
        """The facts of an engine that are the same for each of its answers."""
        facts = [(b"x-corral-model", engine.model.encode()), (b"x-corral-engine", engine.id.encode())]
        if engine.revision is not None:
            facts.append((b"x-corral-revision", engine.revision.encode()))
        if engine.session.facts.context is not None:
            facts.append((b"x-corral-context", b"%d" % engine.session.facts.context))
        kept = self._carrier.facts
        if len(kept) >= _FACTS_KEPT:  # engines come and go for as long as the server runs
            kept.clear()
        kept[engine.id] = tuple(facts)
        return kept[engine.id]
