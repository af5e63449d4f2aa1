"""Who went away, and what is answered at hand: driven without a socket."""

from __future__ import annotations

import asyncio

import pytest

from corral.errors import UpstreamError, UpstreamProtocol, UpstreamTimeout
from corral.kit.clients import Clients
from corral.kit.relay import Metering, Outcome, relay, respond
from corral.kit.response import Response
from corral.kit.sse import Meter
from support.clocks import settle


class Wire:
    """An ASGI client's side, driven by hand."""

    def __init__(self):
        self.messages = asyncio.Queue()
        self.asked = asyncio.Event()
        self.sent = []

    async def receive(self):
        self.asked.set()
        return await self.messages.get()

    async def send(self, message):
        self.sent.append(message)


async def test_a_client_that_leaves_takes_its_request_with_it():
    wire, clients = Wire(), Clients(period=0)
    reached = []

    async def request():
        with clients.watch(wire.receive) as client:
            await asyncio.Event().wait()
            reached.append("the end")
        reached.append(client.gone)

    task = asyncio.create_task(request())
    await wire.asked.wait()
    wire.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    wire.messages.put_nowait({"type": "http.disconnect"})
    await task
    assert reached == [True]
    assert task.cancelling() == 0


async def test_any_other_cancellation_goes_through():
    wire, clients = Wire(), Clients(period=0)

    async def request():
        with clients.watch(wire.receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await wire.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leaving_and_being_cancelled_at_once_is_a_cancellation():
    wire, clients = Wire(), Clients(period=0)

    async def request():
        with clients.watch(wire.receive) as client:
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.current_task().cancel()
        assert not client.gone

    task = asyncio.create_task(request())
    await wire.asked.wait()
    wire.messages.put_nowait({"type": "http.disconnect"})
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_short_request_is_never_listened_to():
    wire, clients = Wire(), Clients(period=0)
    with clients.watch(wire.receive) as client:
        pass
    with clients.watch(Wire().receive):
        later = Wire()
        with clients.watch(later.receive):
            await later.asked.wait()
    assert not wire.asked.is_set()
    assert not client.gone


async def test_an_error_in_the_request_is_the_request_s_own():
    with pytest.raises(ValueError, match="own"), Clients().watch(Wire().receive):
        raise ValueError("own")


async def test_respond_sends_a_head_and_one_body():
    wire = Wire()
    await respond(wire.send, 404, b'{"a":1}', [(b"x-request-id", b"r1")])
    start, body = wire.sent
    assert (start["type"], start["status"]) == ("http.response.start", 404)
    assert start["headers"] == [
        (b"content-type", b"application/json"),
        (b"content-length", b"7"),
        (b"x-request-id", b"r1"),
    ]
    assert body == {"type": "http.response.body", "body": b'{"a":1}'}


class Events:
    """A stream of an engine that said beforehand how long it will be, and comes in two pieces."""

    status = 200
    framed = whole = False
    pieces = (b'data: {"a": 1}\n\n', b"data: [DONE]\n\n")

    def __init__(self):
        self.content_length = sum(map(len, self.pieces))
        self.headers = [(b"content-type", b"text/event-stream")]

    def header(self, name):
        return dict(self.headers).get(name)

    async def read(self):
        return b"".join(self.pieces)

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece

    def close(self):
        pass


class Adding:
    """An onlooker that adds a comment to every piece."""

    def whole(self, body):
        return body

    def passing(self, data, *, first):
        return b": hi\n\n" + data

    def tail(self, data):
        pass

    def over(self, error):
        return b""


async def test_a_stream_that_is_added_to_is_not_said_to_be_as_long_as_before():
    sent = []

    async def send(message):
        sent.append(message)

    await relay(Events(), send, lambda _: b"", onlooker=Adding())

    assert b"content-length" not in dict(sent[0]["headers"])
    assert b"".join(message.get("body", b"") for message in sent[1:]).count(b": hi") == 2


class Upstream:
    """A connection on which an answer arrives, driven by hand."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.aborted = False

    def resume(self):
        pass

    def abort(self):
        self.aborted = True


class Quick:
    """A client that takes what is pushed, as long as it is not slow."""

    framed = True

    def __init__(self):
        self.pushed = []
        self.slow = False
        self.begun = None

    def begin(self, status, headers, data):
        if self.begun is None:
            return False
        self.begun.append((status, dict(headers)[b"content-type"], data))
        return True

    def push(self, data):
        self.pushed.append(data)
        return not self.slow


class Picky(Metering):
    """Refuses what is no event."""

    def passing(self, data, *, first):
        if not data.startswith(b"data:"):
            raise UpstreamProtocol("It is no event.")
        return super().passing(data, first=first)


def event(number):
    return b'data: {"n": %d}\n\n' % number


def bodies(wire):
    return [message["body"] for message in wire.sent if message["type"] == "http.response.body"]


async def streaming(wire, quick):
    """A stream that is relayed, its first event sent."""
    response = Response(Upstream())
    response.status, response.headers = 200, [(b"content-type", b"text/event-stream")]
    outcome = Outcome()
    going = asyncio.create_task(
        relay(response, wire.send, lambda _: b"data: broken\n\n", outcome=outcome, onlooker=Picky(Meter()), quick=quick)
    )
    await settle()
    response.take(event(0))
    response.wake()
    await settle()
    assert bodies(wire) == [event(0)]
    return response, going, outcome


async def test_an_event_is_sent_in_the_turn_in_which_it_comes():
    wire, quick = Wire(), Quick()
    response, going, outcome = await streaming(wire, quick)

    response.take(event(1) + b"data: {")
    assert quick.pushed == [event(1)]
    response.take(b'"n": 2}\n\n')
    assert quick.pushed == [event(1), event(2)]
    assert bodies(wire) == [event(0)]
    response.end(None)
    await going

    assert bodies(wire) == [event(0), b""]
    assert (outcome.error, outcome.chunks, outcome.bytes) == (None, 3, 3 * len(event(0)))


async def test_the_head_goes_out_with_the_first_event_at_once_where_that_can_be():
    wire, quick = Wire(), Quick()
    quick.begun = []
    response = Response(Upstream())
    response.status, response.headers = 200, [(b"content-type", b"text/event-stream")]
    going = asyncio.create_task(relay(response, wire.send, lambda _: b"", onlooker=Picky(Meter()), quick=quick))
    await settle()
    response.take(event(0))
    response.wake()
    await settle()
    response.take(event(1))
    response.end(None)
    outcome = await going

    assert quick.begun == [(200, b"text/event-stream", event(0))]
    assert quick.pushed == [event(1)]
    assert wire.sent == [{"type": "http.response.body", "body": b""}]
    assert (outcome.chunks, outcome.bytes) == (2, 2 * len(event(0)))


async def test_a_slow_client_gets_what_comes_by_messages_until_it_is_quick_again():
    wire, quick = Wire(), Quick()
    response, going, _ = await streaming(wire, quick)

    quick.slow = True
    response.take(event(1))
    response.take(event(2))
    response.take(event(3))
    assert quick.pushed == [event(1)]
    quick.slow = False
    await settle()
    assert bodies(wire) == [event(0), event(2), event(3)]
    response.take(event(4))
    assert quick.pushed == [event(1), event(4)]
    response.end(None)
    await going


async def test_a_stream_that_breaks_while_it_is_poured_ends_with_an_error():
    for broken in (
        lambda response: response.take(b"nonsense\n\n"),
        lambda response: response.end(UpstreamTimeout(".")),
    ):
        wire, quick = Wire(), Quick()
        response, going, outcome = await streaming(wire, quick)
        broken(response)
        await going
        assert bodies(wire) == [event(0), b"data: broken\n\n"]
        assert isinstance(outcome.error, UpstreamError)


async def test_whoever_is_cancelled_while_it_pours_lets_the_engine_know():
    wire, quick = Wire(), Quick()
    response, going, _ = await streaming(wire, quick)
    upstream = response._connection

    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going

    assert upstream.aborted
    assert quick.pushed == []
