"""One answer on its way from an engine to a client: relayed untouched or translated, metered, and paid for."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects.canonical import Stop
from corral.dialects.form import Kind
from corral.dialects.meter import Meter as PlainMeter
from corral.domain.money import Usage
from corral.errors import CorralError, UpstreamError, UpstreamUnreachable
from corral.routing.book import Amounts
from corral.routing.dispatch import broken
from corral.routing.faults import Refused, concealed, refused
from corral.routing.labels import Labelled
from corral.routing.order import BYTES_A_TOKEN
from corral.routing.policies import Verdict, judge, named_wait
from corral.routing.priming import primed
from corral.routing.soundness import check_whole, parsed_whole, sound_events, sound_lines
from corral.routing.translation import Translated

if TYPE_CHECKING:
    from corral.dialects.form import Meter
    from corral.kit.relay import Outcome, Reply
    from corral.kit.response import Response
    from corral.lifecycle.engines import Engine
    from corral.routing.calling import Calling
    from corral.routing.carrying import Carrying

_LONGEST_REFUSAL = 64 * 1024
"""Bytes of an engine's error that are read."""
_DONE = b"data: [DONE]"
_ENDS = {"openai.chat": _DONE, "openai.completions": _DONE, "anthropic.messages": b"event: message_stop"}
"""What the last event of a stream is known by, where bytes are relayed; before it stands the receipt."""
_COMMENTED = {*_ENDS, "openai.responses"}
"""Forms whose clients pass over comments; Google's own does not."""
_LAST_EVENTS = {
    _DONE: b"data: [DONE]\n\n",
    b"event: message_stop": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}
_EVENTS = b"text/event-stream"
_JSON = b"application/json"


class Passage:
    """One answer on its way past: `response` is it, in the client's form. Looks on (`kit.relay.Onlooker`).

    It answers `call`, which `engine` was sent. `document` is what a whole answer says, where that had to be known.
    """

    __slots__ = (
        "_broken",
        "_carrying",
        "_closed",
        "_end",
        "_last",
        "_media",
        "_pieces",
        "_reply",
        "_unasked",
        "call",
        "calling",
        "document",
        "engine",
        "first",
        "meter",
        "price",
        "response",
    )

    def __init__(self, carrying: Carrying, calling: Calling, engine: Engine, reply: Response) -> None:
        call, order = calling.sent, carrying.order
        if call is None:
            raise ValueError("nothing was sent")
        self.calling = calling
        self.call = call
        self.engine = engine
        self.document: dict[str, Any] | None = None
        self.first = 0.0
        self.price = calling.price or carrying.parts.money.price(engine)
        self.response: Reply = reply
        self.meter: Meter | Translated
        self._carrying = carrying
        self._reply = reply
        self._closed = False
        self._unasked = call.unasked
        self._end: bytes | None = None
        self._pieces = 0
        self._last = b""
        self._broken: UpstreamError | None = None
        self._media = media = order.form.media if order.stream else None
        if call.asked is None:
            self.meter = call.way.spoken.meter()
            if media is not None:
                self._end = _ENDS.get(order.form.name)
            kind = reply.header(b"content-type") or b""
            if not kind.startswith((media or _JSON, _JSON)):
                self.response = Labelled(reply, media or _JSON)
        else:
            translated = Translated(reply, call, order, self._closing)
            self.response = self.meter = translated

    @property
    def reported(self) -> UpstreamError | None:
        """The error that a stream, relayed untouched, reported of itself."""
        fault = None if self.document is not None else self.meter.failed  # a whole one would have been refused
        return None if fault is None else refused(502, fault, self.engine.model)

    def close(self) -> None:
        """Let the engine know that nobody reads on, and count the request as done. Idempotent."""
        if not self._closed:
            self._closed = True
            self._reply.close()
            self._carrying.parts.dispatcher.end(self.engine, self._carrying.order.keep_alive)

    def release(self) -> None:
        """Give back what is held: the call cost nothing."""
        held, self.calling.held = self.calling.held, None
        if held is not None:
            held.release()

    def pay(self, usage: Usage | None, cost: int | None) -> None:
        """Settle what is held."""
        held, self.calling.held = self.calling.held, None
        if held is not None:
            held.settle(Amounts(cost, 0 if usage is None else usage.input + usage.output))

    def used(self, outcome: Outcome | None) -> tuple[Usage | None, int | None]:
        """What the answer used, and what that costs.

        An engine that broke, that was left, or that does not tell: what it read and wrote is then reckoned, a token for
        four bytes of the prompt and for each event of a stream. `outcome` is how far an answer went that did not come
        to its end; a vendor has read the prompt of one of which nothing went, too.
        """
        usage, pieces = self.meter.usage, self._heard
        if usage is not None and not usage.output and not self.price.free and self._wrote():
            usage = None  # it tells nonsense: words cost something, whatever it says
        if usage is None:
            if pieces or (outcome is not None and (outcome.bytes or self.engine.remote)):
                usage = Usage(self.calling.prompt().input, pieces)
        elif outcome is not None and usage.output < pieces and self.meter.stop is None:
            usage = replace(usage, output=pieces)  # some tell at the beginning what they have written by then
        return self._costing(usage)

    def _wrote(self) -> bool:
        """Whether the answer has words in it, as far as its kind and its end tell."""
        kind = self.call.way.spoken.kind
        return bool(self._heard) and kind in {Kind.CHAT, Kind.TEXT} and self.meter.stop not in {Stop.FILTER, None}

    def abandon(self) -> None:
        """Nobody wants the answer any more."""
        usage, cost = self.missed(None)
        self.calling.used, self.calling.cost = usage, cost or 0
        self.pay(usage, cost)
        self.close()

    def missed(self, error: UpstreamError | None) -> tuple[Usage | None, int | None]:
        """What an answer used of which nothing went to the client, and what that costs: as `used`.

        A refusal is free, and so is an engine of this machine that broke.
        """
        usage = self.meter.usage
        if usage is None and self.engine.remote and not isinstance(error, Refused):
            usage = Usage(self.calling.prompt().input, self._heard)
        return self._costing(usage)

    @property
    def _heard(self) -> int:
        """How many tokens have come, where nobody tells."""
        return self.meter.pieces if isinstance(self.meter, Translated) else self._pieces

    def _costing(self, usage: Usage | None) -> tuple[Usage | None, int | None]:
        if usage is None:
            return None, 0
        return usage, self.price.cost(usage) if self.price.known else None

    def render(self, error: CorralError) -> bytes:
        """`error` as the last event of the stream, in the client's form."""
        told = broken(self.engine, error)
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
        response = self._reply
        body = b""
        try:
            async for chunk in response:
                body += chunk
                if len(body) > _LONGEST_REFUSAL:
                    break
        except UpstreamError:
            pass  # that it refuses is known by its status; no more need be
        body = concealed(body, self.engine.session.endpoint.headers)
        later = named_wait(response.headers, self._carrying.parts.clock.wall())
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = None
        fault = self.call.way.spoken.read_error(response.status, document)
        kept = body if self.call.asked is None and document is not None else b""
        error = refused(response.status, fault, self.engine.model, kept, later)
        return error, judge(response.status, fault, later)

    # kit.relay.Onlooker

    def whole(self, body: bytes) -> bytes:
        """A whole answer, which may be a stream of which all was there at once."""
        if self._media is not None:
            body = self.passing(body, first=True)
            after = self.over(None)
            return b"".join((body, b"" if not after or body.endswith(b"\n\n") else b"\n\n", after))
        meter = self.meter
        self.first = perf_counter()
        if isinstance(meter, Translated):
            return body
        self._pieces = len(body) // BYTES_A_TOKEN
        document = self.document = parsed_whole(body)
        if document is not None and type(meter) is PlainMeter:
            meter.take(document)
        else:
            meter.feed(body)
        fault = meter.failed
        if fault is not None:
            raise refused(502, fault, self.engine.model)
        if meter.stop is None:
            check_whole(body, document, self.call.way.spoken)
        return body

    def passing(self, data: bytes, *, first: bool) -> bytes:
        """Events of a stream."""
        if first:
            self.first = perf_counter()
        meter = self.meter
        if isinstance(meter, Translated):
            return data
        end, at = self._end, -1
        if end == b"":
            return b""  # nothing follows the last event
        if end is not None and (at := data.rfind(end)) >= 0:
            at, data = _ending(data, at)
        events = data.count(b"\n\n")
        # What does not end as a JSON object does, once for each event, is looked at more closely.
        several = events != 1 and data.count(b"}\n\n") != events
        if several or not data.endswith(b"}\n\n") or self._broken is not None:
            data = self._sound(data)
        self._pieces += events or 1
        meter.feed(data)
        if first:
            fault = meter.failed
            if fault is not None:
                raise refused(502, fault, self.engine.model)
        self._last = data
        if at >= 0 and self._broken is None:
            self._end = b""
            last = data[at:]
            data = b"".join((_without_usage(data[:at]) if self._unasked else data[:at], self._closing(), last))
        elif self._unasked and b'"usage"' in data:
            data = _without_usage(data)
        return data

    def _sound(self, data: bytes) -> bytes:
        """What of `data` are events; what follows those is no answer any more.

        Raises:
            UpstreamProtocol: none of it.
        """
        if self._broken is not None:
            raise self._broken
        good, self._broken = (sound_events if self._media == _EVENTS else sound_lines)(data)
        if self._broken is not None and not good:
            raise self._broken
        return good

    def over(self, error: UpstreamError | None) -> bytes:
        """The stream is over: whether it came to its end, which the bytes of a relayed one have to say.

        One that broke after it had said so is whole. Where its last event or the receipt is missing, that follows.

        Raises:
            UpstreamError: it did not come to its end, or broke before.
        """
        meter, order = self.meter, self._carrying.order
        if self._carrying.settled is not None:
            return b""
        if isinstance(meter, Translated):
            if error is not None:
                raise error
            return b""
        if self._broken is not None:
            raise self._broken
        if meter.failed is not None:
            return b""  # it has told the client itself
        several = order.document.get("n")
        if error is not None and isinstance(several, int) and several > 1:
            raise error  # another choice may not have come to its end
        if meter.stop is None and b'"done":true' not in self._last.replace(b" ", b""):
            raise error or UpstreamUnreachable("The engine's answer ended before its end.")
        if order.form.name not in _COMMENTED:
            return b""
        return b"".join((self._closing(), _LAST_EVENTS.get(self._end or b"", b"")))

    def tail(self, data: bytes) -> None:
        """The end of a long answer."""
        self.first = perf_counter()
        if not isinstance(self.meter, Translated):
            self.meter.feed(data)

    def _closing(self) -> bytes:
        return self._carrying.comment(self)


def _ending(data: bytes, at: int) -> tuple[int, bytes]:
    """Where the last event of a stream begins, -1 for nowhere, and `data` up to its end.

    A model may write at `at` what that event begins with, but not at the beginning of a line.
    """
    if at and data[at - 1] not in b"\r\n":
        return -1, data
    end = data.find(b"\n\n", at)
    return at, data if end < 0 else data[: end + 2]


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
