"""One answer on its way from an engine to a client: relayed untouched or translated, metered, and paid for."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import orjson

from corral.domain.money import Usage
from corral.errors import CorralError, UpstreamError
from corral.routing.book import Amounts
from corral.routing.dispatch import Answer, broken
from corral.routing.faults import Refused, refused
from corral.routing.policies import Verdict, judge, named_wait
from corral.routing.priming import Primed, primed
from corral.routing.translation import Translated

if TYPE_CHECKING:
    from corral.dialects.form import Meter
    from corral.domain.money import Price
    from corral.kit.http1 import Response
    from corral.kit.relay import Outcome
    from corral.routing.calling import Calling
    from corral.routing.carrying import Carrying
    from corral.routing.composing import Call
    from corral.routing.ledger import Hold

_LONGEST_REFUSAL = 64 * 1024
"""Bytes of an engine's error that are read."""
_ENDS = {"openai.chat": b"data: [DONE]", "openai.completions": b"data: [DONE]"}
"""What the last event of a stream is known by, where bytes are relayed; before it stands the receipt."""
BYTES_A_TOKEN = 4
"""Bytes of a request that are taken for a token where nobody counted."""


class Passage:
    """One answer on its way past: `response` is it, in the client's form. Looks on (`kit.relay.Onlooker`)."""

    __slots__ = ("_carrying", "_end", "_held", "_unasked", "answer", "calling", "first", "meter", "price", "response")

    def __init__(
        self, carrying: Carrying, calling: Calling, answer: Answer[Call], held: Hold | None, price: Price | None
    ) -> None:
        call, order = answer.sent, carrying.order
        self.answer = answer
        self.calling = calling
        self.first = 0.0
        self.price = price or carrying.parts.money.price(answer.engine)
        self.response: Response | Translated | Primed = answer.response
        self.meter: Meter | Translated
        self._carrying = carrying
        self._held = held
        self._unasked = call.unasked
        self._end: bytes | None = None
        if call.asked is None:
            self.meter = call.way.spoken.meter()
            if order.stream:
                self._end = _ENDS.get(order.form.name)
        else:
            translated = Translated(answer.response, call, order, self._closing)
            self.response = self.meter = translated

    @property
    def reported(self) -> UpstreamError | None:
        """The error that a stream, relayed untouched, reported of itself."""
        fault = self.meter.failed
        return None if fault is None else refused(502, fault, self.answer.engine.model)

    def close(self) -> None:
        """Let the engine know that nobody reads on. Idempotent."""
        self.answer.close()

    def release(self) -> None:
        """Give back what is held: the call cost nothing."""
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def pay(self, usage: Usage | None, cost: int | None) -> None:
        """Settle what is held."""
        held, self._held = self._held, None
        if held is not None:
            held.settle(Amounts(cost, 0 if usage is None else usage.input + usage.output))

    def used(self, outcome: Outcome | None) -> tuple[Usage | None, int | None]:
        """What the answer used, and what that costs.

        An engine that broke, or that was left, has told nothing: what it read and wrote is then reckoned.
        """
        usage = self.meter.usage
        if usage is None and outcome is not None and outcome.bytes and self.response.status < 400:
            order = self._carrying.order
            usage = Usage(len(order.body or b"") // BYTES_A_TOKEN, outcome.chunks)
        if usage is None:
            return None, 0
        return usage, self.price.cost(usage) if self.price.known else None

    def render(self, error: CorralError) -> bytes:
        """`error` as the last event of the stream, in the client's form."""
        told = broken(self.answer.engine, error)
        if isinstance(self.meter, Translated):
            return self.meter.render(told)
        order = self._carrying.order
        return order.form.stream_writer(order.request).fail(told)

    async def prime(self) -> None:
        """Wait for the first piece of the answer, which then comes first.

        Raises:
            UpstreamError: it broke before that.
        """
        self.response = await primed(self.response)

    async def refusal(self) -> tuple[Refused, Verdict]:
        """The error that the engine answered with, read; and what it means."""
        response = self.answer.response
        body = b""
        try:
            async for chunk in response:
                body += chunk
                if len(body) > _LONGEST_REFUSAL:
                    break
        except UpstreamError:
            pass  # that it refuses is known by its status; no more need be
        later = named_wait(response.headers, self._carrying.parts.clock.wall())
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = None
        fault = self.answer.sent.way.spoken.read_error(response.status, document)
        kept = body if self.answer.sent.asked is None and document is not None else b""
        error = refused(response.status, fault, self.answer.engine.model, kept, later)
        return error, judge(response.status, fault, later)

    # kit.relay.Onlooker

    def whole(self, body: bytes) -> bytes:
        """A whole answer, which may be a stream of which all was there at once."""
        if self._end is not None or self._unasked:
            return self.passing(body, first=True)
        self.meter_feed(body)
        self.first = perf_counter()
        fault = self.meter.failed
        if fault is not None:
            raise refused(502, fault, self.answer.engine.model)
        return body

    def passing(self, data: bytes, *, first: bool) -> bytes:
        """Events of a stream."""
        self.meter_feed(data)
        if first:
            self.first = perf_counter()
            fault = self.meter.failed
            if fault is not None:
                raise refused(502, fault, self.answer.engine.model)
        if self._unasked and b'"usage"' in data:
            data = _without_usage(data)
        if self._end is not None and (at := data.rfind(self._end)) >= 0:
            self._end = None
            data = b"".join((data[:at], self._closing(), data[at:]))
        return data

    def tail(self, data: bytes) -> None:
        """The end of a long answer."""
        self.meter_feed(data)

    def meter_feed(self, data: bytes) -> None:
        """Have the meter look at bytes that are relayed untouched."""
        if not isinstance(self.meter, Translated):
            self.meter.feed(data)

    def _closing(self) -> bytes:
        return self._carrying.comment(self)


def _without_usage(data: bytes) -> bytes:
    """The events without the one that only tells what was used, which the client did not ask for."""
    kept = []
    for event in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        if b'"usage"' in event and event.startswith(b"data:"):
            try:
                content = orjson.loads(event[5:])
            except orjson.JSONDecodeError:
                content = None
            if isinstance(content, dict) and content.get("usage") and not content.get("choices"):
                continue
        kept.append(event)
    return b"\n\n".join(kept)
